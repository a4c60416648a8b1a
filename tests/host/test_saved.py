"""Save Chain and Load Chain in the host's real executor, and through the real server."""

import io
import json
import os
import re
import sys

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from coz.chain.folder import read_chain
from tools.host.client import PromptError, run_prompt

from .executor import Executor, validate
from .prompts import chain_prompt, fetch_picture, make_node

HALF_A_UNIT = 0.5 / 65535 + 2**-24  # and float32's own rounding


@pytest.fixture
def output(pack, tmp_path, monkeypatch):
    """An output folder that is a link, as people have it on another disk."""
    (tmp_path / "disk").mkdir()
    folder = tmp_path / "output"
    if sys.platform == "win32":
        folder.mkdir()
    else:
        folder.symlink_to(tmp_path / "disk")
    monkeypatch.setattr("folder_paths.output_directory", str(folder))
    return folder


@pytest.fixture
def link(output, tmp_path):
    """Has "linked" in the output folder lead to another folder."""

    def make(folder=None):
        if sys.platform == "win32":
            pytest.skip("links need a privilege on Windows")
        folder = folder or tmp_path / "elsewhere"
        folder.mkdir(exist_ok=True)
        (output / "linked").symlink_to(folder)

    return make


@pytest.fixture
def chain(nodes_of, make_chain):
    """Noise, as the pack's own ZoomChain."""
    chain = make_chain()
    return nodes_of("loop.collect").ZoomChain.from_json(chain.to_json(), chain.frames)


@pytest.fixture
def executor(chain, give, keep):
    """With TestChain, which gives the chain."""
    give("TestChain", "COZ_CHAIN", chain)
    executor = Executor("CLASSIC")
    executor.kept = keep
    return executor


def save_prompt(prefix="chain-of-zoom/chain"):
    return {
        "chain": make_node("TestChain"),
        "save": make_node("CoZSaveChain", chain=["chain", 0], filename_prefix=prefix),
    }


def load_prompt(folder):
    links = {name: ["load", k] for k, name in enumerate(("chain", "image", "scales", "prompts"))}
    load = make_node("CoZLoadChain", folder=folder)
    return {"load": load, "keep": make_node("TestKeep", **links)}


def list_errors(prompt):
    """What the host's own check says of the nodes before a prompt is queued."""
    return [error["details"] for node in validate(prompt)[1].values() for error in node["errors"]]


def folders(node):
    return node("CoZLoadChain").GET_SCHEMA().inputs[0].options


def test_a_saved_chain_is_loaded_as_it_was(output, executor, chain, node):
    executor.run(save_prompt(), "save")
    place = "chain-of-zoom/chain_00001_"
    shown = {"subfolder": place, "type": "output"}
    images = [{"filename": f"scale_{i}.png", **shown} for i in range(4)]
    assert executor.ui("save") == {"images": images}
    assert folders(node) == [place]
    executor.run(load_prompt(place), "keep")
    (kept,) = executor.kept
    assert kept["chain"].to_json() == chain.to_json()
    assert kept["prompts"] == "text 0\ntext 1\ntext 2"
    shown = [kept["image"], *kept["scales"].split(1)]
    for frame, loaded, image in zip(chain.frames, kept["chain"].frames, shown, strict=True):
        assert (loaded - frame).abs().max() <= HALF_A_UNIT
        assert torch.equal(loaded.movedim(1, -1), image)
        assert image.dtype == torch.float32


def test_each_save_is_a_new_folder_and_the_newest_is_listed_first(output, executor, node):
    for age, prefix in enumerate(["a 链/x", "a 链/x", "a 链/x y", "b", "a 链/x"]):
        executor.executor.reset()  # the host would not save the same chain again
        executor.run(save_prompt(prefix), "save")
        place = executor.ui("save")["images"][0]["subfolder"]
        os.utime(output / place / "chain.json", (10**9 + age, 10**9 + age))
    assert folders(node) == ["a 链/x_00003_", "b_00001_", "a 链/x y_00001_", "a 链/x_00002_", "a 链/x_00001_"]  # fmt: skip


def test_a_chain_is_loaded_again_only_after_a_change(output, executor):
    executor.run(save_prompt("chain"), "save")
    path = output / "chain_00001_" / "chain.json"
    assert executor.run(load_prompt("chain_00001_"), "keep") == ["load", "keep"]
    assert executor.run(load_prompt("chain_00001_"), "keep") == []
    path.write_text(path.read_text("utf-8").replace("text 1", "my own words"), "utf-8")
    assert executor.run(load_prompt("chain_00001_"), "keep") == ["load", "keep"]
    assert executor.kept[-1]["prompts"] == "text 0\nmy own words\ntext 2"


WORKFLOW = {"nodes": [{"title": "放大 🔭"}]}


@pytest.mark.parametrize("disabled", [False, True])
def test_the_scales_hold_the_workflow_as_the_hosts_own_pictures(
    output, executor, monkeypatch, disabled
):
    prompt = save_prompt("chain")
    prompt["image"] = make_node("CoZSamplePicture", picture="astronaut.png")
    prompt["own"] = make_node("SaveImage", images=["image", 0], filename_prefix="own")
    extra = {"client_id": "test", "extra_pnginfo": {"workflow": WORKFLOW}}
    monkeypatch.setattr("comfy.cli_args.args.disable_metadata", disabled)
    executor.executor.execute(prompt, "p", extra, ["save", "own"])
    texts = {}
    for name in ("own_00001_.png", "chain_00001_/scale_0.png", "chain_00001_/source.png"):
        with Image.open(output / name) as picture:
            texts[name] = picture.text
    own, scale, source = texts.values()
    assert scale == own
    assert source == {}
    assert scale == {} if disabled else json.loads(scale["workflow"]) == WORKFLOW


def test_a_chain_newer_than_the_page_is_accepted(output, executor):
    executor.run(save_prompt("chain"), "save")
    (output / "chain_00001_").rename(output / "moved here")
    assert list_errors(load_prompt("moved here")) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "no chain is chosen: folder is not set. Run CoZ Save Chain once, then choose"),
        ("gone_00001_", "there is no saved chain 'gone_00001_' in"),
        ("../secret", "'../secret' is not below the output folder"),
        ("chain_00001_/../..", "'chain_00001_/../..' is not below the output folder"),
        ("linked", "'linked' is not below the output folder"),
        ("{}", "secret' is not below the output folder"),
        ("a\0b", "is not below the output folder"),
        ("\ud800", "'\\ud800'"),
        ("x" * 5000, "there is no saved chain"),
        (7, "there is no saved chain 7 in"),
    ],
)
def test_a_folder_that_is_none_of_ours_is_refused(output, link, executor, name, message):
    secret = output.resolve().parent / "secret"
    executor.run(save_prompt("chain"), "save")
    (output / "chain_00001_").rename(secret)
    if name == "linked":
        link(secret)
    name = str(secret) if name == "{}" else name
    (said,) = list_errors(load_prompt(name))
    assert message in said
    with pytest.raises(RuntimeError, match=re.escape(message)):  # where it comes over a link
        executor.run(load_prompt(name), "keep")


def test_without_any_chain_the_node_is_there(output, node):
    assert folders(node) == []
    assert node("CoZLoadChain").INPUT_TYPES()["optional"]["folder"][1]["options"] == []


@pytest.mark.parametrize("prefix", ["..", "a/../../b", "/tmp/x", "CON/x", "a./b", "", "linked/x"])
def test_nothing_is_written_outside_the_output_folder(link, executor, tmp_path, prefix):
    if prefix == "linked/x":
        link()
    before = sorted(tmp_path.rglob("*"))
    message = r"filename_prefix is .*(do not allow|link there leads out of)"
    with pytest.raises(RuntimeError, match=message):
        executor.run(save_prompt(prefix), "save")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("prefix", "refusal"),
    [
        ("a:b", "some systems do not allow 'a:b' as the name of a folder"),
        ("x/%Chain Loop.seed%", "%Chain Loop.seed% was not filled in"),
        ("x" * 256, "a folder name of 256 bytes"),
        ("linked/x", "a link there leads out of the output folder"),
    ],
)
def test_a_bad_prefix_is_refused_before_the_work(link, executor, prefix, refusal):
    if prefix == "linked/x":
        link()
    (said,) = list_errors(save_prompt(prefix))
    assert said.startswith("filename_prefix - filename_prefix ")
    assert refusal in said
    assert list_errors(save_prompt("a/b")) == []


def test_a_backslash_begins_a_subfolder(output, executor):
    executor.run(save_prompt("a\\b"), "save")
    assert read_chain(output / "a" / "b_00001_").steps == 3
    assert executor.ui("save")["images"][0]["subfolder"] == "a/b_00001_"


def test_a_full_disk_is_a_clear_error(output, executor, small_files):
    error = pytest.raises(RuntimeError, match=r"not be saved as .*a.chain: File too large. Nothing")
    with small_files(30_000), error:
        executor.run(save_prompt("a/chain"), "save")
    assert list((output / "a").iterdir()) == []
    executor.run(save_prompt("a/chain"), "save")
    assert read_chain(output / "a" / "chain_00001_").steps == 3


def test_a_file_in_the_way_is_a_clear_error(output, executor):
    (output / "taken").touch()
    with pytest.raises(RuntimeError, match=r"could not be saved as .*taken.chain: "):
        executor.run(save_prompt("taken/chain"), "save")


def fetch(server, path, **query):
    answer = requests.get(f"{server}/{path}", query)
    answer.raise_for_status()
    return answer.content


def difference(server, *files):
    one, other = (fetch_picture(server, file).astype(int) for file in files)
    return np.abs(one - other).max()


def test_through_the_server(server):
    prompt = chain_prompt(steps=2, center_x=0.47)
    inputs = {"chain": ["loop", 3], "filename_prefix": "深い zoom/my chain"}
    prompt["save"] = make_node("CoZSaveChain", **inputs)
    run = run_prompt(server, prompt)
    place = "深い zoom/my chain_00001_"
    images = run.outputs["save"]["images"]
    assert [image["subfolder"] for image in images] == [place] * 3
    for image, preview in zip(images, run.outputs["scales"]["images"], strict=True):
        shown = Image.open(io.BytesIO(fetch(server, "view", **image, preview="webp;90")))
        assert (shown.format, shown.size) == ("WEBP", (64, 64))
        assert difference(server, image, preview) <= 1
    info = json.loads(fetch(server, "object_info/CoZLoadChain"))
    assert place in info["CoZLoadChain"]["input"]["optional"]["folder"][1]["options"]
    load = {
        "load": make_node("CoZLoadChain", folder=place),
        "prompts": make_node("PreviewAny", source=["load", 3]),
        "scales": make_node("PreviewImage", images=["load", 2]),
    }
    again = run_prompt(server, load)
    assert again.outputs["prompts"]["text"] == ["-\n-"]
    for pair in zip(again.outputs["scales"]["images"], images, strict=True):
        assert difference(server, *pair) <= 1
    del load["load"]["inputs"]["folder"]  # what the page sends where its list is empty
    with pytest.raises(PromptError, match=r"no chain is chosen: folder is not set\. Run CoZ Save"):
        run_prompt(server, load)
