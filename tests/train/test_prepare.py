"""Pairs of views from folders of photographs, by the command line."""

import json
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image

from coz.chain.folder import write_chain
from tests.support.lying_files import chunk, ihdr, packed, png

ROWS = """
import hashlib, json, sys
from datasets import load_from_disk
from trl.data_utils import prepare_multimodal_messages
rows = {}
for name, split in load_from_disk(sys.argv[1] + "/data").items():
    rows[name] = []
    for row in split:
        images = row.pop("images")
        talk = prepare_multimodal_messages(row["prompt"], images)
        row["filled"] = [[part.get("image") is not None for part in m["content"]] for m in talk]
        row["sizes"] = [image.size for image in images]
        row["pixels"] = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
        rows[name].append(row)
print(json.dumps(rows))
"""


@pytest.fixture(scope="module")
def rows_of(in_training):
    return lambda out: in_training(ROWS, out)


@pytest.fixture(scope="module")
def rows(rows_of, pairs):
    return rows_of(pairs)


def everything(rows):
    return {row["pair"]: row for split in rows.values() for row in split}


def test_pairs_are_conversations_about_two_images(rows):
    assert len(rows["train"]) + len(rows["held_out"]) == 6 * 2 * 2
    for row in everything(rows).values():
        system, user = row["prompt"]
        assert (system["role"], user["role"]) == ("system", "user")
        assert system["content"][0]["text"].startswith("The second image is a zoom-in of the first")
        assert row["filled"] == [[False], [True, True]]
        assert row["sizes"] == [[56, 56], [56, 56]]
        assert (row["good"], row["bad"]) == ([], [])


def test_pairs_tell_where_they_are_from(rows):
    row = everything(rows)["coffee.png#1.2"]
    assert row["factor"] == 16
    origin = row["origin"]
    assert (origin["file"], origin["backbone"], origin["seed"]) == ("coffee.png", "crops", 0)
    x, y, width, height = origin["window"]
    assert width == height == 400 / 56 * (56 / 4) / 56 * (56 / 4)
    assert x <= origin["target"][0] * 600 <= x + width
    assert y <= origin["target"][1] * 400 <= y + height


def test_a_chain_goes_on_where_it_was(rows):
    found = everything(rows)
    for name in ("cat.jpg#0", "sub/brick.tif#1"):
        assert found[f"{name}.1"]["pixels"][1] == found[f"{name}.2"]["pixels"][0]
    assert found["cat.jpg#0.1"]["pixels"] != found["cat.jpg#1.1"]["pixels"]


def test_no_photograph_is_trained_on_and_held_out(rows):
    trained, held_out = ({row["origin"]["file"] for row in rows[s]} for s in ("train", "held_out"))
    assert held_out
    assert not trained & held_out


def test_same_pairs_from_several_processes(tool, photographs, rows_of, rows, tmp_path):
    arguments = ("--backbone", "crops", "--size", 56, "--steps", 2, "--held-out", 0.2)
    result = tool("prepare", photographs, tmp_path / "out", *arguments, "--workers", 2)
    assert result.returncode == 0
    assert rows_of(tmp_path / "out") == rows


def test_built_in_model_enlarges(tool, photographs, in_training, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(photographs / "coffee.png", folder)
    arguments = ("--size", 128, "--steps", 2, "--targets", 1, "--workers", 1)
    assert tool("prepare", folder, tmp_path / "out", *arguments).returncode == 0
    code = """
import json, sys
import numpy as np
from datasets import load_from_disk
from tools.train_grpo.pairs import load_upscaler
rows = load_from_disk(sys.argv[1] + "/data")["train"]
(x0, zoomed), (x1, _) = (row["images"] for row in rows)
inner = [round(v * 128 / 400) for v in rows[0]["origin"]["window"]]
wide = np.array(x0.convert("L"), float)
print(json.dumps({
    "sharper": float(np.abs(np.diff(np.array(x1.convert("L"), float))).mean()
                     / np.abs(np.diff(np.array(zoomed.convert("L"), float))).mean()),
    "same": float(np.abs(np.array(x1, float) - np.array(zoomed, float)).mean()),
    "backbone": rows[0]["origin"]["backbone"]}))
"""
    found = in_training(code, tmp_path / "out")
    assert found["backbone"] == "built-in"
    assert found["sharper"] > 1.1
    assert found["same"] < 10


def save_bad_files(folder):
    good = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8))
    good.save(folder / "good.png")
    good.save(folder / "good2.jpg")
    good.convert("CMYK").save(folder / "cmyk.jpg")
    good.resize((40, 300)).save(folder / "tiny.png")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:2000])
    (folder / "cut.jpg").write_bytes((folder / "good2.jpg").read_bytes()[:700])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.webp").write_text("no picture")
    deep = np.random.default_rng(0).integers(0, 65536, (96, 96), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep).save(folder / "deep.tif")
    black = chunk(b"IDAT", packed(96 * (1 + 6 * 96)))
    (folder / "deep rgb.png").write_bytes(png(ihdr(96, 96, 16), black))
    frames = [good, good.rotate(90), good.rotate(180)]
    for name in ("moving.gif", "moving.webp", "moving.png"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
    (folder / "notes.txt").write_text("not looked at")
    return folder


REASONS = {
    "cmyk.jpg": "CMYK",
    "tiny.png": "40 x 300 pixels: at least 64 x 64 are needed",
    "cut.png": "cannot be read",
    "cut.jpg": "cannot be read: image file is truncated",
    "empty.jpg": "cannot be read: cannot identify image file",
    "text.webp": "cannot be read: cannot identify image file",
    "deep.png": "more than 8 bits a channel",
    "deep.tif": "more than 8 bits a channel",
    "deep rgb.png": "more than 8 bits a channel",
    "moving.gif": "animated, or 3 images in one file",
    "moving.webp": "animated, or 3 images in one file",
    "moving.png": "animated, or 3 images in one file",
}


def test_files_that_cannot_be_used_are_listed(tool, tmp_path):
    (tmp_path / "in").mkdir()
    folder = save_bad_files(tmp_path / "in")
    arguments = ("prepare", folder, tmp_path / "out", "--backbone", "crops", "--size", 56)
    for _ in range(2):  # the second time nothing is read again
        result = tool(*arguments, "--workers", 1)
        assert result.returncode == 0, result.stderr
        listed = result.stdout.partition("Skipped: 12\n")[2].splitlines()
        found = dict(line.strip().split(": ", 1) for line in listed)
        assert found.keys() == REASONS.keys()
        for name, reason in REASONS.items():
            assert found[name].startswith(reason), name
        assert "8 pairs to train on, 8 held out" in result.stdout


def test_killed_it_goes_on(tool, start, rows_of, photographs, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for i in range(8):
        Image.open(photographs / "cat.jpg").save(folder / f"{i}.jpg", quality=80 + i)
    arguments = ("prepare", folder, out, "--size", 160, "--targets", 1, "--workers", 1)
    process = start(*arguments)
    while len(list(out.glob("parts/*.arrow"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in out.glob("parts/*.arrow")}
    assert len(done) < 8
    assert tool(*arguments).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(list(out.glob("parts/*.arrow"))) == 8
    assert tool("prepare", folder, tmp_path / "whole", *arguments[3:]).returncode == 0
    assert rows_of(out) == rows_of(tmp_path / "whole")


def test_what_people_marked_comes_in(tool, photographs, rows_of, tmp_path):
    folder = tmp_path / "chain-of-zoom"
    (folder / "preferences").mkdir(parents=True)
    views = []
    for i in range(3):
        views.append(f"preferences/{i}.png")
        Image.effect_noise((64, 64), 50 + i).convert("RGB").save(folder / views[-1])
    entry = {"previous": views[0], "zoomed": views[1], "factor": [16.0, 16.0], "step": 2}
    entries = [
        entry | {"prompt": "wet moss", "good": False},
        entry | {"prompt": "rust", "good": False},
        entry | {"prompt": "wet moss", "good": True},
        entry | {"prompt": "stone", "good": True, "previous": views[2]},
        entry | {"prompt": "gone", "good": True, "previous": "preferences/none.png"},
        entry | {"prompt": "out", "good": True, "previous": "../../secret.png"},
        {"prompt": "half"},
    ]
    file = folder / "preferences.jsonl"
    file.write_text("\n".join([*map(json.dumps, entries), '{"half', ""]))
    arguments = ("--backbone", "crops", "--size", 64, "--held-out", 0.3, "--preferences", file)
    result = tool("prepare", photographs, tmp_path / "out", *arguments, "--workers", 1)
    assert result.returncode == 0, result.stderr
    rows = rows_of(tmp_path / "out")
    found = {name: row for name, row in everything(rows).items() if name.startswith("marks/")}
    assert found.keys() == {"marks/0-1", "marks/2-1"}
    assert (found["marks/0-1"]["good"], found["marks/0-1"]["bad"]) == (["wet moss"], ["rust"])
    assert found["marks/0-1"]["factor"] == 16
    held = {row["pair"] for row in rows["held_out"]} & found.keys()
    assert len(held) == 1
    assert "marks/none-1: cannot be read" in result.stdout
    assert (
        "preferences.jsonl:6: invalid mark: its images must be in the folder of preferences.jsonl"
        in result.stdout
    )
    assert "preferences.jsonl:7: invalid mark" in result.stdout
    assert "preferences.jsonl:8: invalid mark" in result.stdout


def test_marks_of_one_user_or_of_all_come_in(tool, photographs, rows_of, tmp_path):
    entry = {"previous": "preferences/a.png", "zoomed": "preferences/b.png", "factor": [4.0, 4.0]}
    verdicts = {
        "ann": [("moss", False), ("moss", True), ("rust", True), ("sand", True), ("clay", False)],
        "ben": [("moss", True), ("rust", True), ("sand", False), ("mud", False)],
        "cem": [("rust", False)],
    }
    for user, prompts in verdicts.items():
        folder = tmp_path / "user" / user / "chain-of-zoom"
        (folder / "preferences").mkdir(parents=True)
        for seed, name in enumerate(("previous", "zoomed")):
            picture = Image.effect_noise((64, 64), 50 + seed).convert("RGB")
            picture.save(folder / entry[name])
        lines = [entry | {"prompt": p, "good": good, "user": user} for p, good in prompts]
        (folder / "preferences.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with (tmp_path / "user" / "cem" / "chain-of-zoom" / "preferences.jsonl").open("a") as file:
        file.write("\n" + json.dumps(entry | {"prompt": "who", "good": True, "user": 7}))

    def marked(path, out):
        arguments = ("--backbone", "crops", "--size", 64, "--preferences", tmp_path / path)
        result = tool("prepare", photographs, tmp_path / out, *arguments, "--workers", 1)
        assert result.returncode == 0, result.stderr
        found = everything(rows_of(tmp_path / out))
        (row,) = (row for name, row in found.items() if name.startswith("marks/"))
        return sorted(row["good"]), sorted(row["bad"]), result.stdout

    good, bad, told = marked("user", "all")
    assert (good, bad) == (["moss", "rust"], ["clay", "mud"])
    assert "marks/a-b: 'sand': as many users marked it good as bad" in told
    assert "cem/chain-of-zoom/preferences.jsonl:2: invalid mark: user must be a text" in told
    one = (["moss", "rust", "sand"], ["clay"])
    assert marked("user/ann", "folder")[:2] == one
    assert marked("user/ann/chain-of-zoom/preferences.jsonl", "file")[:2] == one


def test_saved_chains_are_pairs_of_any_backbone(tool, make_chain, rows_of, tmp_path):
    folder = tmp_path / "in" / "chains"
    folder.mkdir(parents=True)
    for number in (1, 2):
        write_chain(make_chain(size=64, steps=3), folder, "zoom", number)
    (folder / "zoom_00002_" / "scale_2.png").unlink()
    result = tool("prepare", tmp_path / "in", tmp_path / "out", "--workers", 1)
    assert result.returncode == 0, result.stderr
    rows = everything(rows_of(tmp_path / "out"))
    assert list(rows) == [f"chains/zoom_00001_#{step}" for step in (1, 2, 3)]
    assert [round(row["factor"]) for row in rows.values()] == [4, 16, 64]
    assert "chains/zoom_00002_: " in result.stdout
    assert "scale_2.png is missing" in result.stdout


@pytest.mark.parametrize(
    ("images", "options", "error"),
    [
        ("empty", (), "holds no images and no saved chains"),
        ("none", (), "is not a folder"),
        (
            "bad",
            ("--backbone", "crops"),
            "no pairs could be made: 1 files were skipped, such as a.jpg",
        ),
        ("bad", ("--backbone", "nowhere.pth"), "backbone nowhere.pth does not exist"),
        ("bad", ("--backbone", "README.md"), "backbone README.md is not an upscale model"),
        ("bad", ("--steps", "0"), "--steps must be 1 to 16, got 0"),
        ("bad", ("--held-out", "1"), "--held-out must be a share from 0 to below 1, got 1.0"),
        ("bad", ("--preferences", "none.jsonl"), "none.jsonl cannot be read: No such file"),
        ("bad", ("--preferences", "workflows"), "workflows holds no preferences.jsonl"),
    ],
)
def test_mistakes_are_told_in_a_line(tool, tmp_path, images, options, error):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_bytes(b"")
    result = tool("prepare", tmp_path / images, tmp_path / "out", *options, "--workers", 1)
    assert result.returncode
    assert error in result.error


def test_pairs_of_different_kinds_are_not_mixed(tool, photographs, pairs):
    result = tool("prepare", photographs, pairs, "--backbone", "crops", "--size", 56, "--steps", 3)
    assert result.error.endswith(
        "holds pairs made with another steps: use another folder or delete it"
    )
    result = tool("prepare", photographs, photographs)
    assert result.error.endswith("holds other files: use a new folder")
