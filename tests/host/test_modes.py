"""The workflows that need no downloads, through a real server in each mode of the host: the same pictures."""

import pytest
import torch
from PIL import Image

from coz.chain.folder import read_chain
from coz.chain.png import decode_png
from tools.host import ROOT
from tools.host.client import ServerClient, run_prompt
from tools.host.server import serve
from tools.host.workflow import FIRST_TEMPLATE, find_node, read_prompt

from .prompts import make_node

pytestmark = pytest.mark.long

WHOLE = FIRST_TEMPLATE.with_name("6 Whole picture 4x (no downloads).json")
FP16 = [0, 0, 1, 4, 0, 0, 1, 4, 16, 8.1]
"""Of float16's precision below 1, 2**-11: how far each of the pictures may be off with --fp16-intermediates.
There the host's upscale model hands its result on in float16. A step sharpens, so what the step before it
has rounded comes back up to 4 times as large. The last picture was saved with 8 bits: a level is 8.03."""


def runs(url, folder):
    """What the two workflows give: the frames of a chain, first of 2 steps and then of 3, and a picture."""
    picture = Image.open(ROOT / "pictures" / "astronaut.png").crop((200, 80, 260, 120))
    picture.save(folder / "input" / "small.png")
    prompt = read_prompt(FIRST_TEMPLATE)
    loop = find_node(prompt, "CoZChainLoop")
    prompt["save"] = make_node("CoZSaveChain", chain=[loop, 3], filename_prefix="mode chain")
    frames = []
    for steps in (2, 3):
        prompt[loop]["inputs"] |= {"size": 64, "steps": steps}
        run_prompt(url, prompt)
        frames += read_chain(folder / "output" / f"mode chain_{steps - 1:05}_").frames
    prompt = read_prompt(WHOLE)
    prompt[find_node(prompt, "CoZSamplePicture")] = make_node("LoadImage", image="small.png")
    prompt[find_node(prompt, "CoZFullImage")]["inputs"] |= {"tile": 128, "overlap": 32}
    prompt[find_node(prompt, "SaveImage")]["inputs"]["filename_prefix"] = "mode whole"
    run_prompt(url, prompt)
    picture = (folder / "output" / "mode whole_00001_.png").read_bytes()
    return [*frames, decode_png(picture, 160, 240)]


@pytest.fixture(scope="module")
def expected(servers):
    return runs(*servers())


CACHES = ["--cache-none", "--cache-classic", "--cache-lru 10", "--cache-ram 1000"]
"""The last one drops what it can: never so much is free."""
MEMORY = ["--high-ram", "--disable-dynamic-vram", "--disable-smart-memory", "--disable-mmap"]
OTHERS = ["--fp16-intermediates", "--disable-metadata", "--deterministic"]
IN_PLACE_OF_CPU = ["--lowvram", "--novram", "--highvram", "--gpu-only"]


@pytest.mark.parametrize("mode", [*CACHES, *MEMORY, *OTHERS, *IN_PLACE_OF_CPU])
def test_every_mode_gives_the_same_pictures(tmp_path, expected, mode):
    if mode in IN_PLACE_OF_CPU and not torch.cuda.is_available():
        pytest.skip(f"ComfyUI takes {mode} in place of --cpu only: it needs a GPU")
    with serve(folder=tmp_path, arguments=mode.split()) as url:
        assert mode.split()[0] in ServerClient(url).get_stats()["system"]["argv"]
        found = runs(url, tmp_path)
    assert len(found) == len(expected)
    differences = [float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)]
    if mode == "--fp16-intermediates":
        bars = [times * 2**-11 for times in FP16]
        assert all(d <= bar for d, bar in zip(differences, bars, strict=True)), differences
        assert max(differences) > 0
    else:
        assert max(differences) == 0, differences
