"""Hostile weights, pictures and records at a real server, watched as in test_hostile.py."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import save_file

from tests.support.gadgets import hostile_pickles
from tests.support.lying_files import lying_pngs, lying_safetensors, stuffed_pngs

from .site import SCRIPT, works


def run_each(site, node, inputs, name, files):
    """The error of a run with each file as that input; each is there under its number."""
    answers = []
    for i in range(len(files)):
        status, answer = site.submit(
            node=(node, inputs | {name: f"{name}_{i}{files[i][0]}"}),
            show=("PreviewAny", {"source": ["node", 0]}),
        )
        assert status == 200, answer
        answers.append(answer["prompt_id"])
    return site.results(answers)


@pytest.fixture(scope="module")
def pickles(site):
    return hostile_pickles(site.home / "around" / "ran")


@pytest.mark.parametrize(
    ("name", "folder", "suffix"),
    [
        ("lora_name", "loras", ".pkl"),
        pytest.param("vae_encoder_name", "vae", ".pt", marks=pytest.mark.long),
        pytest.param("lora_name", "loras", ".safetensors", marks=pytest.mark.long),
    ],
)
def test_no_pickle_runs(site, pickles, name, folder, suffix):
    loader = {"model": ["model", 0], "vae": ["vae", 0], "lora_name": "good.pkl", "strength": 1.0}
    files = [(suffix, content) for content in pickles.values()]
    for i, (_, content) in enumerate(files):
        (site.models / folder / f"{name}_{i}{suffix}").write_bytes(content)
    errors = run_each(site, "CoZLoadSRLoRA", {"vae_encoder_name": "none"} | loader, name, files)
    for family, error in zip(pickles, errors, strict=True):
        assert error, family
        assert "expected" in error, (family, error)
    assert not (site.home / "around" / "ran").exists()
    for i in range(len(files)):
        (site.models / folder / f"{name}_{i}{suffix}").unlink()
    works(site)


def test_headers_that_lie_are_refused(site):
    lying = {name: file for name, file in lying_safetensors().items() if len(file) < 2**20}
    loader = {"model": ["model", 0], "vae": ["vae", 0], "vae_encoder_name": "none", "strength": 1.0}
    files = [(".safetensors", content) for content in lying.values()]
    for i, (_, content) in enumerate(files):
        (site.models / "loras" / f"lora_name_{i}.safetensors").write_bytes(content)
    errors = run_each(site, "CoZLoadSRLoRA", loader, "lora_name", files)
    for i in range(len(files)):
        (site.models / "loras" / f"lora_name_{i}.safetensors").unlink()
    assert {name: e for name, e in zip(lying, errors, strict=True) if not e or len(e) > 600} == {}
    works(site)


@pytest.mark.since("0.27")
def test_an_index_that_leads_out_of_its_folder_is_refused(site):
    folder = site.models / "text_encoders" / "sharded"
    folder.mkdir()
    save_file({"a": torch.zeros(1)}, folder / "model-00001-of-00002.safetensors")
    bad = ["../clip_l.safetensors", "/etc/passwd", "..", "", 7, None, ["a"], "a\0b", "x" * 5000]
    texts = [
        json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": b}}) for b in bad
    ]
    for text in [*texts, "[" * 100_000, "{}", "[]", "null"]:
        (folder / "model.safetensors.index.json").write_text(text)
        error = site.run(
            node=("CoZLoadPromptExtractor", {"vlm_name": "sharded/model-00001-of-00002.safetensors", "lora_name": "none", "lora_strength": 1.0}),
            show=("PreviewAny", {"source": ["node", 0]}),
        )  # fmt: skip
        assert "model" in error, text[-80:]
        assert "expected" in error, (text[-80:], error)
    shutil.rmtree(folder)


@pytest.fixture
def load(site):
    """Runs Load Chain on a copy of the good chain that was tampered with."""

    def load(tamper):
        folder = site.output / "bad"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(site.output / "good_00001_", folder)
        tamper(folder)
        return site.run(
            node=("CoZLoadChain", {"folder": "bad"}), show=("PreviewAny", {"source": ["node", 3]})
        )

    return load


def without_hashes(folder):
    path = folder / "chain.json"
    record = json.loads(path.read_text("utf-8"))
    del record["sha256"]
    path.write_text(json.dumps(record), "utf-8")


def test_a_picture_that_lies_is_refused_and_a_stuffed_one_is_only_its_pixels(site, load):
    def plant(content):
        def tamper(folder):
            without_hashes(folder)
            (folder / "scale_1.png").write_bytes(content)

        return tamper

    for name, content in lying_pngs(16, 16).items():
        error = load(plant(content))
        assert error, name
        assert "scale_1.png" in error, (name, error)
    errors = {name: load(plant(content)) for name, content in stuffed_pngs(16, 16).items()}
    assert errors.pop("pixels").count("far more than its pixels") == 1
    assert set(errors.values()) == {None}


RECORDS = {
    "deep": '{"version":' + "[" * 5_000_000 + "]" * 5_000_000 + "}",
    "a number of 10 MB": '{"version": ' + "9" * 10_000_000 + "}",
    "NaN": {"scale": math.nan},
    "infinity": {"scale": math.inf},
    "huge window": {"windows": [[0, 0, 1e308, 1e308], [0, 0, 1e308, 1e308]]},
    "NaN in a window": {"windows": [[0, 0, math.nan, 1], [0, 0, 1, 1]]},
    "huge frames": {"frames": [[2**31, 2**31], [16, 16], [16, 16]]},
    "frames below zero": {"frames": [[-48, 32], [16, 16], [16, 16]]},
    "100,000 frames": {"frames": [[16, 16]] * 100_000},
    "a path as a frame": {"frames": ["../../etc/passwd", [16, 16], [16, 16]]},
    "a path as a hash": {"sha256": ["/etc/passwd", "../x", "x"]},
    "numbers as prompts": {"prompts": [7]},
    "a newer version": {"version": 10**30},
    "not a record": "[]",
    "no JSON": "\x00",
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_record_that_lies_is_refused(load, record):
    def tamper(folder):
        path = folder / "chain.json"
        text = record
        if isinstance(record, dict):
            text = json.dumps(json.loads(path.read_text("utf-8")) | record)
        path.write_text(text, "utf-8")

    error = load(tamper)
    assert "chain.json" in error
    assert len(error) < 2000


def test_paths_in_a_record_lead_nowhere(site, load):
    """The files' names follow from their number: a record's own are not even read."""

    def tamper(folder):
        path = folder / "chain.json"
        record = json.loads(path.read_text("utf-8"))
        record |= {
            "files": ["/etc/passwd", "../../x"],
            "models": ["../../x", "/etc/passwd", SCRIPT],
        }
        path.write_text(json.dumps(record | {"path": "/etc/passwd"}), "utf-8")

    assert load(tamper) is None


@pytest.mark.parametrize("name", ["chain.json", "scale_1.png"])
def test_links_out_of_a_chain_are_not_followed(site, load, name):
    def tamper(folder):
        shutil.copy(folder / name, site.models / name)
        (folder / name).unlink()
        (folder / name).symlink_to(site.models / name)

    assert "is a link to a file in another folder" in load(tamper)
    (site.models / name).unlink()


@pytest.mark.parametrize(
    "folder", ["../user", "/etc", "good_00001_/../..", "\0", "\ud800", SCRIPT, "a" * 10**6]
)
def test_a_chain_outside_the_output_folder_is_refused(site, folder):
    status, answer = site.submit(
        node=("CoZLoadChain", {"folder": folder}), show=("PreviewAny", {"source": ["node", 3]})
    )
    assert status == 400, answer
