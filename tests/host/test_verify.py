"""tools/verify.py on small random weights of the published structure, as they are and with faults."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms.functional import to_tensor

from tests.conftest import DATA
from tests.support.host_with_card import HostWithCard
from tests.support.random_sd3 import autoencoder, coz_lora, with_coz_encoder
from tools import verify
from tools.convert import convert
from tools.host import ROOT, host_path
from tools.verification import comfyui, step, tags, tokens
from tools.verification.files import ROLES, FoundModel

pytestmark = pytest.mark.tools

SIZE = 64
EQUAL = dict.fromkeys(("prompt extractor", "sr model", "zoom", "tagger"), "ran")
EQUAL |= dict.fromkeys(("tokens", "step", "tags"), "equal")
GOLDEN = DATA / "dape"


@pytest.fixture(scope="module")
def paths(models):
    """The path of each role's file."""
    folder = Path(models[1]).parent
    (checkpoint,) = (folder / "checkpoints").glob("sd3_medium*")
    (vlm,) = folder.glob("text_encoders/*/model-00001*")
    loras = folder / "loras"
    return {
        "sd3": checkpoint,
        "sr_lora": loras / "model_20001.pkl",
        "vae_encoder": folder / "vae" / "vae_encoder_20001.pt",
        "vlm": vlm,
        "prompt_lora": loras / "coz_prompt_lora" / "adapter_model.safetensors",
        "tagger": folder / "text_encoders" / "ram_swin_large_14m.pth",
        "dape": loras / "DAPE.pth",
    }


@pytest.fixture
def check(pack, paths):
    """Runs every part on the models, some of them replaced, and returns the models and the parts."""

    def run(**given):
        options = dict.fromkeys((role.option.replace("-", "_") for role in ROLES), None)
        models, _ = verify.find_models(options | paths | given)
        verification = verify.Verification(pack, models, SIZE)
        verification.run_all()
        return models, {part["part"]: part for part in verification.parts}, verification.chain

    return run


def verdicts(parts):
    return {name: part["verdict"] for name, part in parts.items()}


def test_step_tokens_and_tags_are_equal(check, capsys):
    models, parts, chain = check()
    assert verdicts(parts) == EQUAL, parts
    assert all(not one.problem for one in models.values())
    assert all(part["seconds"] >= 0 and part["ram_gib"] >= 0 for part in parts.values())
    assert [frame.shape[-1] for frame in chain.frames[1:]] == [SIZE] * 3
    assert all(chain.prompts)
    assert "168 tensors, as published" in capsys.readouterr().out


def test_a_difference_is_seen(check, monkeypatch):
    monkeypatch.setattr(step, "LATENT_SHIFT", 0.0)
    real = tokens.ask
    monkeypatch.setattr(tokens, "ask", lambda *args: real(*args)[::-1])
    monkeypatch.setattr(tags, "DAPE_SCALE", 1.0)
    _, parts, _ = check()
    assert verdicts(parts) == EQUAL | dict.fromkeys(("tokens", "step", "tags"), "differs")


CASES = {
    "dape_tiny": "dape",
    "dape_tiny_tagencoder_nonzero": "dape_tagencoder_nonzero",
    None: "ram",
}


@pytest.mark.parametrize(("dape", "case"), CASES.items())
def test_tags_are_compared_with_what_the_authors_code_makes(pack, dape, case):
    """Both sides of the comparison give the recorded logits."""
    role = {role.name: role for role in ROLES}
    models = {"RAM": FoundModel(role["RAM"], [GOLDEN / "ram_tiny.pth"], "")}
    if dape:
        models["DAPE"] = FoundModel(role["DAPE"], [GOLDEN / f"{dape}.pth"], "")
    image = to_tensor(Image.open(GOLDEN / "input_512.png"))[None]
    with torch.inference_mode():
        difference, logits = tags.compare_logits(pack, models, image)
    recorded = load_file(GOLDEN / "expected.safetensors")[f"logits_{case}"][0]
    torch.testing.assert_close(logits, recorded, rtol=0, atol=1e-5)
    assert difference < 1e-5


def test_what_is_not_installed_is_named(check, monkeypatch):
    monkeypatch.setattr(comfyui, "find_package_version", lambda _: None)
    _, parts, _ = check()
    for part, package in (("tokens", "transformers"), ("step", "diffusers")):
        assert parts[part]["verdict"] == "not compared"
        assert parts[part]["text"].startswith(f"{package} is not installed in this Python")


def test_converted_files_run_and_are_not_compared(check, paths, tmp_path):
    given = {}
    for role in ("sr_lora", "prompt_lora", "dape"):
        given[role] = tmp_path / f"{role}.safetensors"
        convert(paths[role], given[role], None, None)
    _, parts, _ = check(**given)
    assert verdicts(parts) == EQUAL | dict.fromkeys(("tokens", "step", "tags"), "not compared")
    assert parts["step"]["text"].startswith("SR LoRA: only the file as it was published")


def test_on_a_card_it_is_the_same(check):
    with HostWithCard().running():
        _, parts, _ = check()
    assert verdicts(parts) == EQUAL, parts


def test_the_converted_tagger_alone(check, paths, tmp_path):
    convert(paths["tagger"], tmp_path / "ram.safetensors", None, None)
    none = dict.fromkeys(paths, tmp_path / "none.pt")
    _, parts, _ = check(**none | {"tagger": tmp_path / "ram.safetensors"})
    assert verdicts(parts) == {"zoom": "ran", "tagger": "ran", "tags": "equal"}
    assert re.match(r"It finds \d+ tags without DAPE: ", parts["tagger"]["text"])


def test_sd3_and_the_upscale_model_alone(check, paths, tmp_path):
    """Files that are missing are as good as none."""
    none = dict.fromkeys(paths.keys() - {"sd3"}, tmp_path / "none.pt")
    _, parts, _ = check(**none)
    assert verdicts(parts) == {"sr model": "ran", "zoom": "ran", "step": "equal"}
    assert parts["sr model"]["text"] == "It is loaded without SR LoRA and VAE encoder."
    _, parts, _ = check(**none, sd3=tmp_path / "none.safetensors")
    assert verdicts(parts) == {"zoom": "ran"}
    assert "2 steps by the upscale model" in parts["zoom"]["text"]


def wrong_lora(paths, folder):
    torch.save(coz_lora(3), folder / "model_20001.pkl")
    return {"sr_lora": folder / "model_20001.pkl"}


def wrong_encoder(paths, folder):
    network = with_coz_encoder(autoencoder(latent_channels=4))
    torch.save(network.encoder.state_dict(), folder / "vae_encoder_20001.pt")
    return {"vae_encoder": folder / "vae_encoder_20001.pt"}


@pytest.mark.parametrize(
    ("plant", "sentence"),
    [
        (wrong_lora, "model_20001.pkl does not fit model (SD3): "),
        (wrong_encoder, "vae_encoder_20001.pt does not fit vae: "),
    ],
)
def test_a_file_of_another_model_is_named(check, paths, tmp_path, monkeypatch, plant, sentence):
    """What the file alone shows is tested in tests/test_verify.py."""
    monkeypatch.setattr(verify.Verification, "zoom", lambda _: ("ran", ""))  # saves the time
    models, parts, _ = check(**plant(paths, tmp_path))
    told = {name: one.problem for name, one in models.items() if one.problem}
    told |= {name: one["text"] for name, one in parts.items() if one["verdict"] == "failed"}
    assert list(told) == ["sr model"]
    assert sentence in told["sr model"]


def snapshot(folder):
    return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_the_command_beside_a_running_comfyui(server, models, paths, tmp_path):
    folder = Path(models[1]).parent
    before = snapshot(folder)
    line = [sys.executable, str(ROOT / "tools" / "verify.py"), "--comfyui", str(host_path())]
    line += ["--size", str(SIZE), "--out", "my results", *models]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert snapshot(folder) == before
    written = (tmp_path / "my results" / "verify.json").read_text("utf-8")
    assert written in done.stdout
    assert verdicts({part["part"]: part for part in json.loads(written)["parts"]}) == EQUAL
    private = [folder, tmp_path, ROOT, host_path(), Path.home(), *paths.values()]
    private += [os.uname().nodename, *(path.name for path in paths.values())]
    assert [place for place in private if str(place) in written] == []
    assert Image.open(tmp_path / "my results" / "verify.png").width > 3 * SIZE
