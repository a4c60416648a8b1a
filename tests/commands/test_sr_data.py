"""The data set of crops that the training of super-resolution reads."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data as samples
from torch.utils.data import DataLoader

from coz.networks.ram_tagger import RAMTagger, make_tagger_input, read_tag_list
from coz.render.pillow import from_pillow
from coz.text.tags import join_tags
from tests.support.random_ram import SMALL, as_published, ram
from tests.support.random_sd3 import TEXT_WIDTH, save_text_encoders
from tools.train_sr import captions, prepare
from tools.train_sr.crops import CropOptions, choose_windows
from tools.train_sr.dataset import CropDataset, find_text_file
from tools.train_sr.degradation import degrade, reduce_and_enlarge
from tools.train_sr.prepare import PrepareOptions
from tools.train_sr.sd3 import load_text_encoders

SIDE = 64
SMALL_CROPS = PrepareOptions(CropOptions(SIDE, 2), held_out=0.3)
NAMES = ("astronaut.png", "sub/coffee.jpg", "cat.webp")


@pytest.fixture
def photos(tmp_path):
    """Three photographs of at least 150 x 100 pixels."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name, picture in zip(NAMES, ("astronaut", "coffee", "chelsea"), strict=True):
        Image.fromarray(getattr(samples, picture)()).reduce(3).save(folder / name, lossless=True)
    return folder


def run(photos, out, options=SMALL_CROPS, **changes):
    return prepare.prepare(photos, out, options._replace(**changes))


def index(out):
    return json.loads((out / "crops.json").read_text())


def read_times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def data(photos, tmp_path):
    run(photos, tmp_path / "out")
    return tmp_path / "out"


def test_crops_are_pixels_of_the_photograph(photos, data):
    entries = index(data)["crops"]
    assert {entry["name"] for entry in entries} == {f"{n}#{i}" for n in NAMES for i in (0, 1)}
    for entry in entries:
        name, _, number = entry["name"].partition("#")
        with Image.open(photos / name) as photo, Image.open(data / "crops" / entry["file"]) as crop:
            window = choose_windows(photo.size, name, SMALL_CROPS.crops)[int(number)]
            assert crop.size == (SIDE, SIDE)
            assert crop.tobytes() == photo.convert("RGB").crop(window).tobytes()


def test_windows_do_not_overlap_and_depend_on_the_seed():
    size = (SIDE * 5 + 31, SIDE * 3 + 1)
    every = choose_windows(size, "a.jpg", CropOptions(SIDE, 99))
    assert len(set(every)) == 15
    assert every[0] == (15, 0, 15 + SIDE, SIDE)
    assert every[-1] == (15 + 4 * SIDE, 2 * SIDE, 15 + 5 * SIDE, 3 * SIDE)
    some = choose_windows(size, "a.jpg", CropOptions(SIDE, 4))
    assert len(set(some)) == 4
    assert set(some) < set(every)
    assert some == choose_windows(size, "a.jpg", CropOptions(SIDE, 4))
    others = [choose_windows(size, "a.jpg", CropOptions(SIDE, 4, seed)) for seed in range(1, 5)]
    assert any(other != some for other in others)


def test_a_photograph_is_held_out_with_all_its_crops(photos, tmp_path):
    report = run(photos, tmp_path / "out")
    assert (report.crops, report.held_out, report.skipped) == (4, 2, {})
    crops = index(tmp_path / "out")["crops"]
    (held,) = {crop["name"].partition("#")[0] for crop in crops if crop["held_out"]}
    for is_held, count in ((False, 4), (True, 2)):
        part = CropDataset(tmp_path / "out", seed=0, degradation="4x", held_out=is_held)
        assert len(part) == count
    assert {item["name"].partition("#")[0] for item in part} == {held}


def test_files_that_cannot_be_used_are_listed_each_time(photos, tmp_path):
    Image.new("RGB", (SIDE, SIDE - 1)).save(photos / "small.png")
    (photos / "cut.jpg").write_bytes((photos / "sub/coffee.jpg").read_bytes()[:700])
    (photos / "text.png").write_text("no image")
    for _ in range(2):
        skipped = run(photos, tmp_path / "out").skipped
        assert skipped.keys() == {"small.png", "cut.jpg", "text.png"}
        assert skipped["small.png"] == "64 x 63 pixels: at least 64 x 64 are needed"
        assert skipped["cut.jpg"].startswith("cannot be read: image file is truncated")


def test_what_was_interrupted_is_completed(photos, tmp_path, monkeypatch):
    out, write, written = tmp_path / "out", Path.write_bytes, []

    def stop(path, content):
        written.append(path)
        if len(written) == 7:
            write(path, content[:100])
            raise KeyboardInterrupt
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", stop)
    with pytest.raises(KeyboardInterrupt):
        run(photos, out)
    monkeypatch.undo()
    assert not (out / "crops.json").exists()
    parts = [*out.glob("parts/*.json")]
    finished = {*parts, *(crop for part in parts for crop in out.glob(f"crops/{part.stem}-*"))}
    before = read_times(out)
    assert 3 <= len(finished) < 9
    run(photos, out)
    assert all(read_times(out)[path] == before[path] for path in finished)
    run(photos, tmp_path / "whole")
    assert index(out) == index(tmp_path / "whole")
    names = [sorted(p.relative_to(o) for p in o.rglob("*")) for o in (out, tmp_path / "whole")]
    assert names[0] == names[1]


def test_a_second_run_writes_no_crops(photos, data):
    before = read_times(data / "crops") | read_times(data / "parts")
    run(photos, data)
    assert read_times(data / "crops") | read_times(data / "parts") == before


def test_a_changed_photograph_is_cut_again(photos, data):
    for color in ("red", "blue"):  # two files of the same size
        image = Image.new("RGB", (SIDE, SIDE), color)
        image.save(photos / "flat.bmp")
        run(photos, data)
        (file,) = (e["file"] for e in index(data)["crops"] if e["name"].startswith("flat.bmp"))
        with Image.open(data / "crops" / file) as crop:
            assert crop.tobytes() == image.tobytes()


def test_prompts_come_from_text_files(photos, tmp_path):
    (photos / "astronaut.txt").write_text("a woman,\n in orange\n")
    (photos / "sub/coffee.txt").write_text("")
    report = run(photos, tmp_path / "out", text_files=True)
    assert report.skipped == {"cat.webp": "cat.txt cannot be read: No such file or directory"}
    prompts = {entry["name"]: entry["prompt"] for entry in index(tmp_path / "out")["crops"]}
    expected = {"astronaut.png": "a woman, in orange", "sub/coffee.jpg": ""}
    assert prompts == {f"{n}#{i}": text for n, text in expected.items() for i in (0, 1)}
    (photos / "cat.txt").write_text("a cat")
    assert run(photos, tmp_path / "out", text_files=True).skipped == {}


def test_prompts_are_rams_tags(photos, tmp_path, monkeypatch):
    weights, file = ram(), tmp_path / "ram.pth"
    torch.save(as_published(weights), file)
    run(photos, tmp_path / "out", tagger=file)
    network, (names, thresholds) = RAMTagger(SMALL), read_tag_list()
    network.load_state_dict(weights)
    entries = index(tmp_path / "out")["crops"]
    for entry in entries:
        with Image.open(tmp_path / "out/crops" / entry["file"]) as crop:
            (logits,) = network(make_tagger_input(from_pillow(crop)))
        found = set(entry["prompt"].split(", "))
        sure = (logits.sigmoid() - thresholds).abs() > 1e-4  # batches round in their own order
        wanted = set(join_tags(torch.where(sure, logits, -99), names, thresholds, ()).split(", "))
        assert wanted <= found
        assert found <= wanted | {n for n, s in zip(names, sure, strict=True) if not s}
        assert len(wanted) > 100
    edited = (tmp_path / "out/crops" / entries[0]["file"]).with_suffix(".txt")
    edited.write_text("my own words\n")
    monkeypatch.setattr(prepare, "load_tagger", None)  # all crops have their prompts
    run(photos, tmp_path / "out", tagger=file)
    assert index(tmp_path / "out")["crops"][0]["prompt"] == "my own words"


def test_prompts_are_written_by_a_vlm(photos, tmp_path):
    from tests.train.tiny_model import save_toy_model

    model = save_toy_model(tmp_path / "vlm")
    run(photos, tmp_path / "out", vlm=str(model))
    entries, describe = index(tmp_path / "out")["crops"], captions.load_writer(str(model))
    for entry in entries:
        with Image.open(tmp_path / "out/crops" / entry["file"]) as crop:
            assert describe([[crop]]) == [entry["prompt"]]
    assert any(entry["prompt"] for entry in entries)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"crops": CropOptions(96, 2)}, "size"),
        ({"crops": CropOptions(SIDE, 2, 1)}, "seed"),
        ({"text_files": True, "vlm": "x"}, "vlm, text_files"),
    ],
)
def test_data_of_different_kinds_are_not_mixed(photos, data, changes, name):
    message = f"holds crops made with another {name}: use another folder or delete it"
    with pytest.raises(ValueError, match=message):
        run(photos, data, **changes)


def test_mistakes_are_named(photos, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "small").mkdir()
    Image.new("L", (100, 63)).save(tmp_path / "small/a.png")
    with pytest.raises(ValueError, match="empty holds no images"):
        run(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        run(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ValueError, match=r"no crops .*: 1 files were skipped, such as a\.png"):
        run(tmp_path / "small", tmp_path / "out")
    with pytest.raises(ValueError, match="in holds other files: use a new folder"):
        run(photos, photos)
    with pytest.raises(ValueError, match=r"the VLM .*nowhere cannot be loaded: "):
        run(photos, tmp_path / "vlm", vlm=str(tmp_path / "nowhere"))
    message = r"holds no finished data set: python -m tools\.train_sr prepare"
    with pytest.raises(ValueError, match=message):
        CropDataset(tmp_path / "out", seed=0, degradation="4x")


def test_a_full_disk_is_named(photos, tmp_path, monkeypatch):
    out, write = tmp_path / "out", Path.write_bytes

    def fill(path, content):
        if "crops" not in str(path):
            return write(path, content)
        write(path, content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill)
    message = "out is full: make room and run it again; what is finished"
    with pytest.raises(ValueError, match=message):
        run(photos, out)
    monkeypatch.undo()
    assert not list(out.glob("crops/*"))
    assert run(photos, out).crops == 4


def test_an_item_is_a_crop_and_its_degradation(data):
    degradations = {"real-esrgan": degrade, "4x": lambda image, _: reduce_and_enlarge(image)}
    for name, expected in degradations.items():
        dataset = CropDataset(data, seed=7, degradation=name)
        for i, item in enumerate(dataset):
            assert item.keys() == {"low", "high", "prompt", "name"}
            for key in ("low", "high"):
                assert item[key].shape == (3, SIDE, SIDE)
                assert item[key].dtype == torch.float32
                assert -1 <= item[key].min() < item[key].max() <= 1
            assert item["name"] == dataset.crops[i]["name"]
            with Image.open(data / "crops" / dataset.crops[i]["file"]) as crop:
                high = from_pillow(crop)[0]
            rng = np.random.default_rng((7, 0, i))
            high = high.flip(-1) if rng.random() < 0.5 else high
            assert torch.equal(item["high"], high * 2 - 1)
            assert torch.equal(item["low"], expected(high, rng) * 2 - 1)


def test_half_of_the_crops_are_flipped(data):
    dataset = CropDataset(data, seed=0, degradation="4x")
    plain = [from_pillow(Image.open(data / "crops" / c["file"]))[0] * 2 - 1 for c in dataset.crops]
    flipped = []
    for epoch in range(40):
        dataset.set_epoch(epoch)
        for item, image in zip(dataset, plain, strict=True):
            flipped.append(not torch.equal(item["high"], image))
            assert torch.equal(item["high"], image.flip(-1) if flipped[-1] else image)
    assert np.mean(flipped) == pytest.approx(0.5, abs=0.1)


def read_epochs(dataset, workers):
    loader = DataLoader(dataset, 2, num_workers=workers, persistent_workers=bool(workers))
    batches = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        batches += [torch.cat([batch["low"] for batch in loader])]
    return batches


def test_loader_processes_give_the_same_data(data):
    dataset = CropDataset(data, seed=3, degradation="real-esrgan")
    alone, shared = (read_epochs(dataset, workers) for workers in (0, 2))
    assert torch.equal(torch.stack(alone), torch.stack(shared))
    assert torch.equal(alone[0], alone[2])
    assert not any(torch.equal(a, b) for a, b in zip(alone[0], alone[1], strict=True))
    other = CropDataset(data, seed=4, degradation="real-esrgan")
    assert not torch.equal(other[0]["low"], alone[0][0])


def test_cached_texts_come_with_their_crops(photos, data):
    whole = index(data)
    (data / "texts").mkdir()
    for i, crop in enumerate(whole["crops"]):
        crop["prompt"] = f"prompt {i}"
        tensors = {"text": torch.full((5, 8), i).half(), "pooled": torch.full((4,), -i).half()}
        save_file(tensors, find_text_file(data, crop["prompt"]))
    (data / "crops.json").write_text(json.dumps(whole | {"texts": True}))
    for item in CropDataset(data, seed=0, degradation="4x"):
        number = int(item["prompt"].split()[1])
        assert torch.equal(item["text"], torch.full((5, 8), number).half())
        assert torch.equal(item["pooled"], torch.full((4,), -number).half())


@pytest.fixture(scope="module")
def text_encoders(tmp_path_factory):
    return save_text_encoders(tmp_path_factory.mktemp("sd3"))


def test_texts_are_encoded_once(photos, tmp_path, text_encoders, monkeypatch):
    for name, text in (("astronaut", "a woman"), ("cat", "a cat"), ("sub/coffee", "a cat")):
        (photos / name).with_suffix(".txt").write_text(text)
    out, options = tmp_path / "out", {"text_files": True, "text_encoders": str(text_encoders)}
    run(photos, out, text_files=True)
    assert not CropDataset(out, seed=0, degradation="4x").has_texts
    run(photos, out, **options)
    files = [find_text_file(out, text) for text in ("a cat", "a woman")]
    assert sorted(out.glob("texts/*")) == sorted(files)
    encode = load_text_encoders(str(text_encoders))
    for item in CropDataset(out, seed=0, degradation="4x"):
        (text,), (pooled,) = encode([item["prompt"]])
        assert text.shape == (77 + 512, TEXT_WIDTH)
        torch.testing.assert_close(item["text"], text.half(), atol=2e-3, rtol=0)
        torch.testing.assert_close(item["pooled"], pooled.half(), atol=2e-3, rtol=0)
    files[1].unlink()
    before = read_times(out / "texts")
    run(photos, out, **options)
    assert files[1].is_file()
    assert before.items() < read_times(out / "texts").items()
    monkeypatch.setattr(prepare, "load_text_encoders", None)  # nothing is left to encode
    run(photos, out, **options)


def test_texts_that_do_not_fit_the_disk_are_not_begun(photos, tmp_path, monkeypatch):
    usage = type(prepare.shutil.disk_usage("."))(10**9, 10**9, 4_000_000)
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda _: usage)
    words = (
        r"of 1 prompts take 0\.00483 GB, but the disk of .*out has 0\.004 GB left: make room, or "
    )
    with pytest.raises(ValueError, match=words):
        run(photos, tmp_path / "out", text_encoders="nowhere")


def test_a_missing_text_encoder_is_named(photos, tmp_path, text_encoders):
    folder = shutil.copytree(text_encoders, tmp_path / "sd3")
    shutil.rmtree(folder / "text_encoder_3")
    message = r"the text encoders cannot be loaded from .*sd3: .*text_enc"
    with pytest.raises(ValueError, match=message):
        run(photos, tmp_path / "out", text_encoders=str(folder))
