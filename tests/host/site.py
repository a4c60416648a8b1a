"""A real server with small models in a home of its own, watched from inside and outside."""

import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.support.random_ram import ram
from tests.support.random_sd3 import coz_lora, draw_sd3
from tests.support.random_weights import read_layouts
from tools.host import ROOT, host_path
from tools.host.server import serve

KINDS = ("diffusion_models", "loras", "vae", "text_encoders", "custom_nodes")

NETWORK = ("socket.", "urllib.", "http.", "ftplib.", "webbrowser.")

SCRIPT = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>"

# A node of each type of socket, by the names under which the prompts below know them.
SOURCES = {
    "picture": ("EmptyImage", {"width": 48, "height": 32, "batch_size": 1, "color": 0x808080}),
    "model": ("UNETLoader", {"unet_name": "sd3.safetensors", "weight_dtype": "default"}),
    "vae": ("VAELoader", {"vae_name": "pixel_space"}),
    "clip": ("CLIPLoader", {"clip_name": "clip_l.safetensors", "type": "sd3", "device": "default"}),
    "text": ("CLIPTextEncode", {"clip": ["clip", 0], "text": ""}),
    "upscaler": ("UpscaleModelLoader", {"model_name": "coz_lite_x4.safetensors"}),
    "tagger": ("CoZLoadTagger", {"tagger_name": "ram.safetensors", "dape_name": "none", "dape_strength": 1.0}),
    "mask": ("SolidMask", {"value": 1.0, "width": 48, "height": 32}),
    "chain": ("CoZChainLoop", {
        "image": ["picture", 0], "backbone": "upscale model",
        "backbone.upscale_model": ["upscaler", 0], "backbone.resampling": "bicubic", "steps": 1,
        "scale": 4.0, "center_x": 0.3, "center_y": 0.7, "prompting": "text", "prompt": "",
        "step_prompts": "", "seed": 0, "color_fix": "none", "frame": "native pixels", "size": 16,
    }),
}  # fmt: skip


class Site:
    def __init__(self, url: str, home: Path):
        self.url = url
        self.home = home
        self.models = home / "models"
        self.output = home / "comfyui" / "output"
        self.temp = home / "comfyui" / "temp"

    def fetch(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """(status, what the JSON holds or the text)."""
        request = urllib.request.Request(self.url + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text.decode("utf-8", "replace")

    def submit(self, **nodes: tuple[str, dict]) -> tuple[int, Any]:
        """The host's answer to a prompt of these nodes and the sources that they lead to."""
        prompt, waiting = {}, list(nodes)
        known = SOURCES | nodes
        while waiting:
            name = waiting.pop()
            if name in prompt or name not in known:
                continue
            kind, inputs = known[name]
            prompt[name] = {"class_type": kind, "inputs": inputs}
            links = (v[0] for v in inputs.values() if isinstance(v, list) and v)
            waiting += [link for link in links if isinstance(link, str)]
        return self.fetch("/prompt", json.dumps({"prompt": prompt}).encode())

    def results(self, ids: list[str]) -> list[str | None]:
        """The error of each prompt, None where it succeeded, when all are done."""
        deadline = time.monotonic() + 120
        errors = []
        for prompt_id in ids:
            while prompt_id not in (history := self.fetch(f"/history/{prompt_id}")[1]):
                assert time.monotonic() < deadline, "the queue stands still"
                time.sleep(0.02)
            status = history[prompt_id]["status"]
            assert status["status_str"] in {"success", "error"}
            failed = [data for event, data in status["messages"] if event == "execution_error"]
            errors.append(failed[0]["exception_message"] if failed else None)
        return errors

    def run(self, **nodes: tuple[str, dict]) -> str | None:
        status, answer = self.submit(**nodes)
        assert status == 200, answer
        return self.results([answer["prompt_id"]])[0]

    def acts(self) -> set[str]:
        """What was done beyond ComfyUI's own work and outside its folders."""
        own = (f"write {self.home / 'comfyui'}/", "write /dev/null")
        lines = set((self.home / "audit").read_text("utf-8").splitlines())
        return {line for line in lines if not line.startswith(own) and "__pycache__" not in line}

    def reached(self) -> set[str]:
        """Connections and look-ups of names since ComfyUI began to start."""
        return {line for line in self.acts() if line.startswith(NETWORK)}

    def outside(self) -> dict[Path, tuple[int, int]]:
        """The files around ComfyUI's own folders, with their sizes and times."""
        host = host_path()
        folders = [self.models, self.home / "home", self.home / "tmp", self.home / "around"]
        folders += [host / name for name in ("input", "output", "user", "models", "custom_nodes")]
        folders += [ROOT / name for name in ("models", "pictures", "workflows", "subgraphs", "js")]
        files = (path for folder in folders for path in [folder, *folder.rglob("*")])
        return {
            path: (path.lstat().st_size, path.lstat().st_mtime_ns)
            for path in files
            if path.is_file() or path.is_symlink()
        }


def works(site, name="works"):
    saved = {"chain": ["chain", 3], "filename_prefix": name}
    assert site.run(save=("CoZSaveChain", saved)) is None


def make_models(folder: Path) -> None:
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
    save_file(draw_sd3(), folder / "diffusion_models" / "sd3.safetensors")
    torch.save(coz_lora(2), folder / "loras" / "good.pkl")
    weights = {
        f"text_model.{name}": torch.zeros(shape, dtype=torch.float16)
        for name, shape in read_layouts()["clip_l"].items()
    }
    save_file(weights, folder / "text_encoders" / "clip_l.safetensors")
    save_file(ram(), folder / "text_encoders" / "ram.safetensors")
    shutil.copyfile(Path(__file__).with_name("audit_node.py"), folder / "custom_nodes" / "audit.py")


@contextmanager
def watched(home: Path) -> Iterator[Site]:
    make_models(home / "models")
    for name in ("home", "tmp", "around"):
        (home / name).mkdir()
    paths = {"base_path": str(home / "models"), **{kind: kind for kind in KINDS}}
    config = home / "paths.yaml"
    config.write_text(json.dumps({"tests": paths}), "utf-8")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HOME", str(home / "home"))
        environment.setenv("TMPDIR", str(home / "tmp"))
        environment.setenv("COZ_AUDIT", str(home / "audit"))
        options = ["--extra-model-paths-config", str(config)]
        with serve(folder=home / "comfyui", arguments=options) as url:
            yield Site(url, home)
