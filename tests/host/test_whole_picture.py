"""The bundled workflows of whole pictures, through the real server."""

import numpy as np
from PIL import Image

from coz.tiles.layout import plan_layout
from tools.host import ROOT
from tools.host.client import run_prompt
from tools.host.workflow import find_node, read_prompt

from .prompts import fetch_picture, make_node, steps_run

BUILT_IN = ROOT / "workflows" / "6 Whole picture 4x (no downloads).json"
SD3 = ROOT / "workflows" / "more" / "Whole picture 16x SD3.json"
PAPER = ROOT / "workflows" / "4 Chain-of-Zoom as in the paper (AR-2).json"


def photograph(name, box=None):
    return Image.open(ROOT / "pictures" / name).convert("RGB").crop(box)


def shown(url, run, prompt, class_type, key="images"):
    """The pictures that the prompt's only node of that class shows or saves."""
    files = run.outputs[find_node(prompt, class_type)][key]
    return [Image.fromarray(fetch_picture(url, file)) for file in files]


def difference(a, b):
    """Root mean square, of 255."""
    return np.sqrt(np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2))


def small(picture, size):
    return picture.resize(size, Image.Resampling.BICUBIC)


def told(run, prompt):
    full = find_node(prompt, "CoZFullImage")
    return [text for node, text in run.notices if node == full]


def reader_of(prompt, class_type, **inputs):
    """Another node in the place of the sample picture."""
    prompt[find_node(prompt, "CoZSamplePicture")] = make_node(class_type, **inputs)


def test_the_sd3_note_says_how_much_work_it_is():
    prompt = read_prompt(SD3)
    full = prompt[find_node(prompt, "CoZFullImage")]["inputs"]
    picture = photograph(prompt[find_node(prompt, "CoZSamplePicture")]["inputs"]["picture"])
    sides = [[round(side * full["scale"] ** k) for side in picture.size] for k in (1, 2)]
    first, second = (
        len(plan_layout(height, width, full["tile"], full["overlap"]).list_windows())
        for width, height in sides
    )
    assert full["passes"] == 2
    text = SD3.read_text("utf-8")
    assert f"{first + second} tiles with {first + second} prompts" in text
    for (width, height), count in zip(sides, (first, second), strict=True):
        assert f"{width} x {height} pixels in {count} tiles" in text
        assert f"{width * height * 12 / 1e6:.0f} MB" in text


def test_built_in_workflow_runs_as_it_is(server):
    prompt = read_prompt(BUILT_IN)
    run = run_prompt(server, prompt)
    start = "The result of 2048 x 2048 pixels shows 512 x 512 pixels of the image."
    assert told(run, prompt)[-1].startswith(f"pass 1: 4 tiles. {start} It repeats its input (")
    (result,) = shown(server, run, prompt, "SaveImage")
    assert result.size == (2048, 2048)
    source = photograph("astronaut.png")
    assert difference(small(result, (512, 512)), source) < 2
    # Image Compare gets both in their own sizes.
    for key, picture in (("a_images", result), ("b_images", source)):
        assert difference(shown(server, run, prompt, "ImageCompare", key)[0], picture) == 0


def test_a_folder_in_gives_a_folder_out(server, server_folder):
    """As the workflow's note says."""
    pictures = {
        "a cat.png": photograph("chelsea.png", (100, 60, 160, 100)),
        "b.JPG": photograph("rocket.jpg", (300, 200, 330, 264)),
        "c.webp": photograph("coffee.png", (200, 100, 248, 148)),
    }
    folder = server_folder / "input" / "my pictures"
    folder.mkdir()
    for name, picture in pictures.items():
        kind = {"lossless": True} if name.endswith("webp") else {"quality": 95}
        picture.save(folder / name, **kind)
    (folder / "readme.txt").write_text("no picture", "utf-8")
    prompt = read_prompt(BUILT_IN)
    reader_of(prompt, "LoadImageDataSetFromFolder", folder="my pictures")
    run = run_prompt(server, prompt)
    results = shown(server, run, prompt, "SaveImage")
    # The host lists the folder in no certain order.
    for picture in pictures.values():
        width, height = picture.size
        matches = [r for r in results if r.size == (4 * width, 4 * height)]
        assert len(matches) == 1
        assert difference(small(matches[0], picture.size), picture) < 8
    saved = run.executed.index(find_node(prompt, "SaveImage"))
    tiles = [i for i, node in enumerate(run.executed) if node.endswith("coz_tiles_1")]
    assert len(tiles) == len(results) == 3
    assert saved > max(tiles)  # until then all results are in memory: the note says so


def sd3_prompt(**inputs):
    """The workflow on a small picture, its VLM the tiny one of the other workflows."""
    prompt = read_prompt(SD3)
    paper = read_prompt(PAPER)
    prompt[find_node(prompt, "CLIPLoader")] = paper[find_node(paper, "CoZLoadPromptExtractor")]
    reader_of(prompt, "LoadImage", image="cat.png")
    small = {"tile": 64, "overlap": 16, "prompting.max_tokens": 4}
    prompt[find_node(prompt, "CoZFullImage")]["inputs"] |= small | inputs
    return prompt


def test_sd3_workflow_runs_and_takes_its_texts_back(server, server_folder):
    photograph("chelsea.png", (200, 100, 206, 104)).save(server_folder / "input" / "cat.png")
    prompt = sd3_prompt()
    first = run_prompt(server, prompt)
    assert steps_run(first.executed, "prompts") == steps_run(first.executed, "tiles") == [1, 2]
    (result,) = shown(server, first, prompt, "SaveImage")
    assert result.size == (6 * 16, 4 * 16)
    assert [line for line in told(first, prompt) if line.endswith(("prompt", "prompts"))] == [
        "1 + 2 tiles, 1 + 2 prompts",
        "pass 1: 1 tile, 1 prompt",
        "pass 2: 2 tiles, 2 prompts",
    ]
    (texts,) = first.outputs[find_node(prompt, "PreviewAny")]["text"]
    assert len(texts.split("\n")) == 1 + 2
    pasted = sd3_prompt(tile_prompts=texts, **{"prompting.temperature": 1.0})
    again = run_prompt(server, pasted)
    assert not [line for line in told(again, pasted) if "prompt" in line]
    assert np.array_equal(result, shown(server, again, pasted, "SaveImage")[0])
    assert again.outputs[find_node(pasted, "PreviewAny")]["text"] == [texts]
