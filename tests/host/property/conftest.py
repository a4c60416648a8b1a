"""The host's real executor with one node under test, and small models for it to take."""

import itertools
import math
import warnings
from typing import NamedTuple

import pytest
import torch
from hypothesis.internal.conjecture import providers
from safetensors.torch import save_file

from tests.host.prompts import make_node
from tests.support.random_sd3 import coz_lora
from tests.support.small_models import (
    small_clip,
    small_control_net,
    small_predictor,
    small_sd2,
    small_sd3,
    small_vae,
)

from .inputs import Conditioning, Model
from .results import frame_of
from .values import Chain, Picture

MOST = 32
"""Inputs or outputs of a node."""


@pytest.fixture(autouse=True)
def same_cases_whatever_was_imported(monkeypatch):
    """Hypothesis also draws numbers and words out of all code that is loaded, the host's too."""
    none = providers.Constants()
    monkeypatch.setattr(providers, "_get_local_constants", lambda: none, raising=False)


@pytest.fixture
def folders(pack, tmp_path, monkeypatch):
    """Folders of the host's own for what a node writes, with some saved chains to load."""
    for name in ("output", "temp"):
        monkeypatch.setattr(f"folder_paths.{name}_directory", str(tmp_path / name))
    (tmp_path / "temp").mkdir()
    return tmp_path / "output"


@pytest.fixture
def saved_chains(folders, pack, make_chain):
    """Some saved chains: whole, cut short, edited, without its pictures."""
    from coz.chain.folder import write_chain

    folders.mkdir()
    whole, cut, edited, bare = (
        write_chain(make_chain(40, 30, 16, steps=k), folders, "chain", k) for k in range(4)
    )
    record = (cut / "chain.json").read_bytes()
    (cut / "chain.json").write_bytes(record[: len(record) // 2])
    record = (edited / "chain.json").read_text("utf-8")
    (edited / "chain.json").write_text(record.replace('"scale": 4.0', '"scale": 1e999'), "utf-8")
    (bare / "scale_0.png").unlink()
    return whole


@pytest.fixture(scope="session")
def weights(model_folder):
    """Files as the loaders list them: Chain-of-Zoom's LoRA, a noise predictor, and what is none."""
    folder = model_folder("loras", "vae", "model_patches")
    torch.save(coz_lora(2), folder / "model_20001.pkl")
    torch.save(coz_lora(3), folder / "of another depth 20001.pkl")
    save_file({"any.lora_A.weight": torch.rand(4, 8)}, folder / "alien.safetensors")
    (folder / "no weights.safetensors").write_bytes(b"<html>404</html>")
    (folder / "empty.pt").write_bytes(b"")
    save_file(small_predictor(), folder / "noise_predictor.safetensors")
    return folder


@pytest.fixture(autouse=True)
def only_these_files(weights, vlm_folder, tagger_folder, monkeypatch):
    """Whatever files the tests before these have left in the host's lists."""
    import folder_paths

    listed = folder_paths.folder_names_and_paths
    for kind, folders in (
        ("loras", [weights, tagger_folder]),
        ("vae", [weights]),
        ("model_patches", [weights]),
        ("text_encoders", [vlm_folder, tagger_folder]),
    ):
        monkeypatch.setitem(listed, kind, ([*map(str, folders)], listed[kind][1]))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})


@pytest.fixture(scope="session")
def models(node, vlm_folder, weights, tagger_folder, upscale_model):
    """The host's objects by kind and name."""
    predict = node("CoZLoadInvSR").execute
    builtin = node("UpscaleModelLoader").load_model
    load_tagger = node("CoZLoadTagger").execute
    vlm = node("CoZLoadPromptExtractor").execute("qwen2.5-vl.safetensors")[0]
    return {
        "MODEL": {
            "SD3": small_sd3(),
            "SD3 in bfloat16": small_sd3(torch.bfloat16),
            "SD2 with InvSR": predict(small_sd2(), "noise_predictor.safetensors")[0],
        },
        "VAE": {"of SD3": small_vae(), "of SD1.5": small_vae(4)},
        "CLIP": {"of SD3": small_clip(), "Qwen2.5-VL": vlm},
        "UPSCALE_MODEL": {
            "built-in": builtin("coz_lite_x4.safetensors")[0],
            "2x": upscale_model(2),
        },
        "CONTROL_NET": {"of small SD2": small_control_net()},
        "COZ_TAGGER": {n: load_tagger("ram_small.pth", n)[0] for n in ("none", "DAPE.pth")},
    }


class Answer(NamedTuple):
    given: dict
    values: list
    """What each output gave, in a list, as the host has it."""
    error: str
    """The type of an exception, "" where there was none."""
    message: str
    traceback: str


@pytest.fixture
def run(executor, folders, models, nodes_of, define):
    """Runs a node on a case in the host's executor."""
    sockets, kept = [], []

    def give(self, number):
        return (*sockets, *[[None]] * (MOST - len(sockets)))

    def keep(self, **values):
        kept.extend(values.values())
        return ()

    define("TestGiveAll", give, {"number": "INT"}, ("*",) * MOST, OUTPUT_IS_LIST=(True,) * MOST)
    changes = classmethod(lambda cls, **values: math.nan)  # the host would find the same again
    options = {"INPUT_IS_LIST": True, "OUTPUT_NODE": True, "IS_CHANGED": changes}
    names = {f"value_{k}": "*" for k in range(MOST)}
    define("TestKeepAll", keep, names, need="optional", **options)
    host = executor("CLASSIC")
    numbers = itertools.count()
    make_chain = nodes_of("loop.collect").ZoomChain

    def made(value):
        if isinstance(value, list):
            return [made(one) for one in value]
        if isinstance(value, Model):
            return value.name and models[value.kind][value.name]
        if isinstance(value, Chain):
            return chain_of(value, make_chain)
        return value.make() if isinstance(value, Picture | Conditioning) else value

    def of(schema, case) -> Answer:
        given = {name: made(value) for name, value in case.items()}
        inputs = {}
        sockets.clear()
        kept.clear()
        for name, value in case.items():
            if isinstance(value, Picture | Chain | Model | Conditioning | list):
                inputs[name] = ["give", len(sockets)]
                sockets.append(given[name] if isinstance(value, list) else [given[name]])
            else:
                inputs[name] = value
        number = next(numbers)
        links = {f"value_{k}": ["node", k] for k in range(len(schema.outputs))}
        prompt = {
            "give": make_node("TestGiveAll", number=number),
            "node": make_node(schema.node_id, **inputs),
            "keep": make_node("TestKeepAll", **links),
        }
        last = "keep" if schema.outputs else "node"
        host.server.sent.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # such as a NaN cast to a whole number
            host.execute(prompt, f"case {number}", {"client_id": "test"}, [last])
        for event, data in host.server.sent:
            if event == "execution_error":
                trace, message = "".join(data["traceback"]), data["exception_message"].strip()
                return Answer(given, [], data["exception_type"], message, trace)
        return Answer(given, [*kept], "", "", "")

    return of


def chain_of(spec: Chain, make):
    from coz.geometry import Target, Window

    return make(
        scale=spec.scale,
        frames=tuple(frame_of(spec, k) for k in range(len(spec.windows) + 1)),
        windows=tuple(Window(*window) for window in spec.windows),
        prompts=spec.prompts,
        seeds=tuple(range(len(spec.prompts))),
        target=Target(*spec.target),
        agreements=spec.agreements,
        invented=tuple(value / 100 for value in spec.agreements),
    )
