import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from shutil import copy

import numpy as np
import pytest
import torch
from PIL import Image

from coz.chain.folder import (
    UNFINISHED_PREFIX,
    fingerprint_files,
    list_saved_chains,
    read_chain,
    require_valid_prefix,
    write_chain,
)
from coz.chain.zoom_chain import ZoomChain
from tools.host import ROOT

TOO_LARGE = "has 67,145,729 bytes; it can have at most 67,145,728: p"
HALF_A_UNIT = 0.5 / 65535 + 2**-24  # and float32's own rounding


def edit(folder, **fields):
    """Other values in chain.json; None takes one out."""
    path = folder / "chain.json"
    record = json.loads(path.read_text("utf-8")) | fields
    record = {key: value for key, value in record.items() if value is not None}
    path.write_text(json.dumps(record), "utf-8")


@pytest.fixture
def chain(make_chain):
    return make_chain()


@pytest.fixture
def saved(chain, tmp_path):
    return write_chain(chain, tmp_path, "chain", 1)


@pytest.mark.parametrize(
    ("size", "steps"),
    [(64, 3), (64, 1), (16, 16), (1024, 1)],
    ids=["3 steps", "1 step", "16 steps of 16 x 16", "1024 x 1024"],
)
def test_a_chain_comes_back_as_it_was_saved(make_chain, tmp_path, size, steps):
    chain = make_chain(size=size, steps=steps, height=max(300, size), width=max(400, size))
    before = [frame.clone() for frame in chain.frames]
    again = read_chain(write_chain(chain, tmp_path, "chain", 1))
    assert again.to_json() == chain.to_json()
    for frame, loaded, kept in zip(chain.frames, again.frames, before, strict=True):
        assert loaded.dtype == torch.float32
        assert (loaded - frame).abs().max() <= HALF_A_UNIT
        assert torch.equal(frame, kept)


def test_what_was_loaded_is_saved_without_any_loss(chain, tmp_path):
    first = write_chain(chain, tmp_path, "chain", 1)
    second = write_chain(read_chain(first), tmp_path, "chain", 1)
    files = [sorted(folder.iterdir()) for folder in (first, second)]
    for one, other in zip(*files, strict=True):
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes()


def test_the_form_is_frozen(chain, saved):
    pictures = ["source.png", "scale_0.png", "scale_1.png", "scale_2.png", "scale_3.png"]
    assert sorted(path.name for path in saved.iterdir()) == sorted([*pictures, "chain.json"])
    record = json.loads((saved / "chain.json").read_text("utf-8"))
    hashes = [hashlib.sha256((saved / name).read_bytes()).hexdigest() for name in pictures]
    assert record == json.loads(chain.to_json()) | {"sha256": hashes}


def test_other_programs_open_the_pictures(chain, saved):
    for name, frame in zip(("source.png", "scale_0.png"), chain.frames, strict=False):
        file = (saved / name).read_bytes()
        assert (file[24], file[25]) == (16, 2)  # bits, RGB
        with Image.open(saved / name) as picture:
            seen = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
        assert (seen - frame).abs().max() <= 1 / 255


def test_texts_are_in_the_scales(chain, tmp_path):
    texts = {"workflow": '{"name": "放大 🔭 <b>"}', "prompt": "{}"}
    folder = write_chain(chain, tmp_path, "chain", 1, texts)
    for i in range(4):
        with Image.open(folder / f"scale_{i}.png") as picture:
            assert picture.text == texts
    with Image.open(folder / "source.png") as picture:
        assert picture.text == {}
    assert read_chain(folder).to_json() == chain.to_json()


def test_a_folder_is_never_replaced(chain, tmp_path):
    (tmp_path / "my 链_00002_").mkdir()
    (tmp_path / "my 链_00003_").touch()
    names = [write_chain(chain, tmp_path, "my 链", number).name for number in (1, 1, 5)]
    assert names == ["my 链_00001_", "my 链_00004_", "my 链_00005_"]
    assert not list((tmp_path / "my 链_00002_").iterdir())


@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda p: p, id="RGB"),
        pytest.param(lambda p: p.convert("RGBA"), id="RGBA"),
        pytest.param(lambda p: p.convert("L"), id="grey"),
        pytest.param(lambda p: p.convert("LA"), id="grey and alpha"),
        pytest.param(lambda p: p.quantize(64), id="palette"),
        pytest.param(lambda p: p.convert("1"), id="1 bit"),
    ],
)
def test_an_edited_picture_of_8_bits_is_taken(saved, convert):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    picture = convert(Image.fromarray(noise))
    picture.save(saved / "scale_1.png")
    with pytest.raises(ValueError, match=r'scale_1.png was changed .* remove "sha256" from .*json'):
        read_chain(saved)
    edit(saved, sha256=None)
    expected = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None] / 255
    assert torch.equal(read_chain(saved).frames[2], expected)


def test_a_record_may_be_edited_by_hand(saved):
    path = saved / "chain.json"
    path.write_text(path.read_text("utf-8").replace("text 1", "深い <i>"), "utf-8-sig")
    assert read_chain(saved).prompts == ("text 0", "深い <i>", "text 2")


def test_half_a_surrogate_pair_survives(make_chain, tmp_path):
    chain = make_chain(steps=1)
    chain = ZoomChain.from_json(chain.to_json().replace("text 0", "\\ud83d"), chain.frames)
    assert read_chain(write_chain(chain, tmp_path, "chain", 1)).prompts == ("\ud83d",)


def swap(folder):
    (folder / "scale_1.png").rename(folder / "kept")
    (folder / "scale_2.png").rename(folder / "scale_1.png")
    (folder / "kept").rename(folder / "scale_2.png")


def cut(folder, name, size):
    (folder / name).write_bytes((folder / name).read_bytes()[:size])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "chain.json").unlink(), "chain.json is missing. A saved chain has chain.json, s"),
        (lambda f: (f / "source.png").unlink(), "source.png is missing"),
        (lambda f: (f / "scale_3.png").unlink(), "scale_3.png is missing"),
        (swap, "scale_1.png was changed or swapped"),
        (lambda f: (f / "chain.json").write_bytes(b"\xff\xfe{"), "chain.json is not UTF-8: save it again"),
        (lambda f: (f / "chain.json").write_bytes(b" " * 2**25), "chain.json has 33,554,432 bytes; it can"),
        (lambda f: (f / "chain.json").write_text("{"), "chain.json: this is no chain record, because it is n"),
        (lambda f: edit(f, version=2), "chain.json: this is a chain record of version 2; .* update the pack"),
        (lambda f: edit(f, scale=0), "chain.json: scale is 0, expected a number from 1.01 to 100. Undo th"),
        (lambda f: cut(f, "scale_1.png", 9999), "scale_1.png was changed or swapped"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_refused(saved, damage, message):
    damage(saved)
    with pytest.raises(ValueError, match=message) as error:
        read_chain(saved)
    assert str(saved) in str(error.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: cut(f, "scale_1.png", 9999), "the file ends in the middle of the image. Put the sa"),
        (lambda f: cut(f, "scale_1.png", 30), "the file ends in the middle"),
        (lambda f: cut(f, "scale_1.png", 0), "this is no PNG image"),
        (lambda f: copy(f / "source.png", f / "scale_1.png"), "it is 400 x 300 pixels, expected 64 x 64"),
        (lambda f: os.truncate(f / "scale_1.png", 67_145_729), TOO_LARGE),
    ],
)  # fmt: skip
def test_a_damaged_picture_is_refused_without_hashes_too(saved, damage, message):
    edit(saved, sha256=None)
    damage(saved)
    with pytest.raises(ValueError, match=message) as error:
        read_chain(saved)
    assert str(saved / "scale_1.png") in str(error.value)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
@pytest.mark.parametrize("name", ["chain.json", "scale_1.png"])
def test_a_link_out_of_the_folder_is_not_followed(saved, tmp_path, name):
    (saved / name).rename(tmp_path / "elsewhere")
    (saved / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"{name} is a link to a file in another folder"):
        read_chain(saved)


def test_a_chain_too_large_to_load_is_not_saved(chain, tmp_path):
    large = torch.zeros(1).expand(1, 3, 20_000, 20_000)
    huge = replace(chain, frames=(large, *chain.frames[1:]))
    with pytest.raises(ValueError, match="400,016,384 pixels together; a saved chain may have 250"):
        write_chain(huge, tmp_path, "chain", 1)
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_nothing_and_loses_nothing(chain, saved, small_files):
    before = fingerprint_files(saved)
    with small_files(30_000), pytest.raises(OSError, match="File too large"):
        write_chain(chain, saved.parent, "chain", 1)
    assert list(saved.parent.iterdir()) == [saved]
    assert fingerprint_files(saved) == before


def test_a_stopped_save_leaves_nothing(chain, tmp_path):
    def stop(count):
        if count == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_chain(chain, tmp_path, "chain", 1, on_file=stop)
    assert not list(tmp_path.iterdir())


CRASH = """
import os, sys, torch
from pathlib import Path
from coz.chain.zoom_chain import ZoomChain
from coz.chain.folder import write_chain
from coz.geometry import Target, Window
frames = (torch.zeros(1, 3, 8, 8),) * 3
chain = ZoomChain(4.0, frames, (Window(0, 0, 8, 8),) * 2, ("",), (0,), Target(0.5, 0.5))
write_chain(chain, Path(sys.argv[1]), "chain", 1, on_file=lambda count: count < 2 or os._exit(9))
"""


def test_a_crash_leaves_no_half_chain_and_is_cleaned_up(chain, tmp_path):
    assert subprocess.run([sys.executable, "-c", CRASH, tmp_path], cwd=ROOT).returncode == 9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(UNFINISHED_PREFIX)
    assert sorted(path.name for path in left.iterdir()) == ["scale_0.png", "source.png"]
    (left / "chain.json").write_text("{}")  # listed by no means
    assert list_saved_chains(tmp_path) == []
    write_chain(chain, tmp_path, "chain", 1)
    assert left.exists()  # it may still be being written
    os.utime(left, (0, 0))
    write_chain(chain, tmp_path, "chain", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chain_00001_", "chain_00002_"]


def test_chains_are_listed_the_newest_first(tmp_path):
    for age, name in enumerate(["new", "a b/链/c", "old"]):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "chain.json").touch()
        os.utime(folder / "chain.json", (10**9 - age, 10**9 - age))
    (tmp_path / "chain.json").touch()
    (tmp_path / "empty").mkdir()
    assert list_saved_chains(tmp_path) == ["new", "a b/链/c", "old"]
    assert list_saved_chains(tmp_path / "nowhere") == []


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_the_output_folder_may_be_a_link_but_links_in_it_are_not_followed(saved, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "output").symlink_to(saved.parent)
    assert list_saved_chains(tmp_path / "output") == ["chain_00001_"]


def test_the_state_changes_with_any_file(saved):
    states = [fingerprint_files(saved)]
    assert fingerprint_files(saved) == states[0]
    for change in (
        lambda: edit(saved, prompts=["text 0", "text 1", "text 3"]),
        lambda: cut(saved, "scale_3.png", 99),
        (saved / "source.png").unlink,
    ):
        change()
        states.append(fingerprint_files(saved))
    assert len(set(states)) == 4


@pytest.mark.parametrize(
    "prefix",
    [
        *("chain-of-zoom/chain", "my chain", "链/ズーム", ".hidden", "%year%-%month%/x", "con_1"),
        *("~/x", "5% to 9%", "%year%.%month%.%day%/chain", "a%year%-v1.5-%month%", "50%.a-100%"),
    ],
)
def test_names_below_the_output_folder(prefix):
    assert require_valid_prefix(prefix) == prefix


@pytest.mark.parametrize("unfilled", ["%Chain Loop.seed%", "%a/b.c%", "%date:yyyy-MM-dd%"])
def test_what_the_page_fills_in_is_not_a_name(unfilled):
    message = f"{unfilled} was not filled in: ComfyUI's page fills it in"
    with pytest.raises(ValueError, match=message):
        require_valid_prefix(f"x/{unfilled}/y")


def test_a_name_too_long_for_a_file_system():
    assert require_valid_prefix("x" * 240 + "/y")
    message = r"a folder name of 243 bytes, '链{20}'\.\.\., but at most 240"
    with pytest.raises(ValueError, match=message):
        require_valid_prefix("a/" + "链" * 81)


@pytest.mark.parametrize(
    ("prefix", "part"),
    [
        ("", "''"), ("a/", "''"), ("/etc/x", "''"), ("a//b", "''"), ("..", "'..'"), ("a/../b", "'..'"),
        ("a\\..\\..\\b", "'..'"), (".", "'.'"), ("C:\\x", "'C:'"), ("CON", "'CON'"), ("nul.txt/a", "'nul.txt'"),
        ("a:stream", "'a:stream'"), ("//server/share", "''"), (r"\\?\C:\x", "''"), ("\\x", "''"), ("a. ", r"'a\. '"),
        ("a .", r"'a \.'"), ("tab\t", r"'tab\\t'"), ("line\n", r"'line\\n'"), ('quo"te', "'quo\"te'"), ("a|b", r"'a\|b'"),
        ("a*", r"'a\*'"), ("<a>", "'<a>'"), ("a\ud800", r"'a\\ud800'"), ("Com1", "'Com1'"), ("a./b", "'a.'"), ("a /b", "'a '"), ("a?", r"'a\?'"), ("a\0b", r"'a\\x00b'"),
    ],
)  # fmt: skip
def test_names_that_lead_out_or_that_windows_cannot_hold(prefix, part):
    with pytest.raises(
        ValueError, match=f"some systems do not allow {part} as the name of a folder. Give a na"
    ):
        require_valid_prefix(prefix)
