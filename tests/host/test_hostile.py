"""Hostile prompts, requests, weights, pictures and records at a real server.

Nothing runs, nothing is written outside ComfyUI's own folders, no network is reached, and a good
prompt works after each: the fixture ``site`` looks at the end at what all the tests left.
"""

import json
import math
import re
import shutil
import sys

import pytest
import torch
from safetensors.torch import save_file

from tests.support.gadgets import hostile_pickles
from tests.support.lying_files import lying_pngs, stuffed_pngs
from tools.host import ROOT
from tools.host.workflow import read_prompt

from .site import SCRIPT, SOURCES, watched, works

SMALL = {
    "size": 16, "steps": 1, "tile": 64, "overlap": 8, "passes": 1, "iterations": 1, "fps": 1,
    "seconds_per_step": 0.1, "hold": 0, "sampling_steps": 1, "max_tokens": 1, "scale": 2,
}  # fmt: skip
CHOSEN = {"CoZLoadChain": {"folder": "good_00001_"}, "CoZLoadSRLoRA": {"lora_name": "good.pkl"}}
SOCKETS = {
    "IMAGE": ["picture", 0], "MODEL": ["model", 0], "VAE": ["vae", 0], "CLIP": ["clip", 0],
    "CONDITIONING": ["text", 0], "UPSCALE_MODEL": ["upscaler", 0], "COZ_CHAIN": ["chain", 3],
    "MASK": ["mask", 0], "COZ_TAGGER": ["tagger", 0],
}  # fmt: skip
SHOW = "PreviewAny", {"source": ["node", 0]}
SHOWS_ITSELF = {"CoZSaveChain", "CoZZoomViewer"}
REFUSES = {
    "CoZPromptExtractor": "generates no text",  # a text encoder in place of a model that sees
    "CoZLoadPromptExtractor": "expected Qwen2.5-VL-3B",
    "CoZSRStep": "vae makes latents of 3 channels",  # the VAE of pixels in place of 84 million weights
    "CoZRefineStep": "vae makes latents of 3 channels",
    "CoZDetailMap": "connect image and source",
    "CoZLoadInvSR": "is for SD-Turbo",
    "CoZInvSRStep": "has no noise predictor",
    "CoZFuse": "two or more results",
}
WRONG = [None, [1, 2], {}, {"__value__": [1]}, "../../x", True, 10**30, math.nan, -math.inf]
OWN_WORKFLOWS = sorted((ROOT / "workflows").glob("* (no downloads).json"))
NOWHERE = [["nowhere", 0], ["picture", 99], [["picture"], 0]]


def widgets(inputs, prefix=""):
    """Each input of a node's description: its name, kind and the value of a good prompt."""
    for part in ("required", "optional"):
        for name, (kind, *rest) in inputs.get(part, {}).items():
            options = rest[0] if rest else {}
            if kind == "COMFY_DYNAMICCOMBO_V3":
                first = options["options"][0]
                yield prefix + name, kind, first["key"]
                yield from widgets(first["inputs"], f"{prefix}{name}.")
            elif kind == "COMBO":
                choices = [*options.get("options", []), None]
                yield prefix + name, kind, options.get("default", choices[0])
            elif kind in {"INT", "FLOAT", "STRING", "BOOLEAN"}:
                yield prefix + name, kind, options["default"]
            elif part == "required":
                yield prefix + name, "SOCKET", SOCKETS[kind]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if sys.platform != "linux":
        pytest.skip("its watch reads /proc")
    with watched(tmp_path_factory.mktemp("hostile")) as site:
        works(site, "good")
        before, done = site.outside(), site.acts()
        yield site
        works(site)
        assert site.acts() - done == set()
        assert site.reached() == set()
        assert site.outside() == before
        assert not list((site.home / "around").iterdir())


@pytest.fixture(scope="module")
def public(site):
    """Node id -> its inputs: name -> (kind, value of a good prompt)."""
    _, info = site.fetch("/object_info")
    public = {}
    for node, about in info.items():
        if node.startswith("CoZ") and not about.get("dev_only"):
            chosen = SMALL | CHOSEN.get(node, {})
            public[node] = {
                name: (kind, chosen.get(name, value))
                for name, kind, value in widgets(about["input"])
            }
    return public


def submit(site, node, inputs, **changed):
    values = {name: value for name, (_, value) in inputs.items()} | changed
    show = {} if node in SHOWS_ITSELF else {"show": SHOW}
    return site.submit(node=(node, values), **show)


def test_every_node_runs(site, public):
    assert len(public) >= 24
    answers = {node: submit(site, node, inputs) for node, inputs in public.items()}
    assert {node: answer for node, (status, answer) in answers.items() if status != 200} == {}
    errors = site.results([answer["prompt_id"] for _, answer in answers.values()])
    for node, error in zip(public, errors, strict=True):
        assert re.search(REFUSES[node], error) if node in REFUSES else error is None, (node, error)


@pytest.mark.parametrize("path", OWN_WORKFLOWS, ids=lambda path: path.stem)
def test_the_workflows_reach_no_network(site, path):
    nodes = {}
    for key, node in read_prompt(path).items():
        inputs = node["inputs"]
        inputs |= {name: value for name, value in SMALL.items() if name in inputs}
        nodes[key] = node["class_type"], inputs
        if node["class_type"] == "CoZSamplePicture":
            nodes[key] = SOURCES["picture"]
    assert site.run(**nodes) is None


# Of all cases, every seventh: there are 9 or 12 of each input.
@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.long)])
def test_a_value_of_the_wrong_type_is_refused_or_told_in_words(site, public, every):
    cases = [
        (node, name, value)
        for node, inputs in public.items()
        for name, (kind, _) in inputs.items()
        # What its first entry is linked to, ComfyUI 0.30 does not check: not one of any node.
        for value in (WRONG if kind == "COMFY_DYNAMICCOMBO_V3" else [*WRONG, *NOWHERE])
    ]
    assert len(cases) > 1200
    accepted = []
    for case in cases[::every]:
        node, name, value = case
        status, answer = submit(site, node, public[node], **{name: value})
        if status == 200:
            accepted.append((case, answer["prompt_id"]))
            continue
        assert status == 400, (case, answer)
        errors = [e for n in answer["node_errors"].values() for e in n["errors"]]
        assert errors or answer["error"]["message"], (case, answer)
    errors = site.results([prompt_id for _, prompt_id in accepted])
    wordless = [case for (case, _), e in zip(accepted, errors, strict=True) if e is not None and not e.strip()]  # fmt: skip
    assert wordless == []
    works(site)


@pytest.mark.parametrize("inputs", [{"steps": 10**30}, {"kept": -(10**9)}, {"steps": 0}])
def test_the_collector_refuses_steps_that_never_end(site, inputs):
    parts = {"image": ["picture", 0], "scale": 4.0, "steps": 1, "windows": "[]", "seeds": "[]",
        "target": "[]", "models": "[]", "notices": "", "kept": 0, "stop_below": 1.0}  # fmt: skip
    status, answer = site.submit(node=("CoZChainCollect", parts | inputs))
    assert (status, "than m" in json.dumps(answer)) == (400, True)


LARGE = {"10 MB": "a photograph of " * 650_000, "10 MB without a blank": "a" * 10_000_000}
TEXTS = {
    "100,000 lines": "line\n" * 100_000,
    "NUL": "a\0b",
    "half a character": "a \ud83d b",
    "right to left": "\u202eevil\u202c \u200f\u2066x\u2069",
    "script": SCRIPT,
    "control": "\x1b[2J\x1b]0;x\x07\x7f\x85\u2028",
    "percent": "%s%n%x {0.__class__} ${x} %date:yyyy%",
}


def run_text(site, **texts):
    kind, inputs = SOURCES["chain"]
    save = {"chain": ["chain", 3], "filename_prefix": "texts"}
    shows = {"save": ("CoZSaveChain", save), "view": ("CoZZoomViewer", {"chain": ["chain", 3]})}
    return site.run(chain=(kind, inputs | texts), **shows)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("name", ["prompt", "step_prompts"])
def test_any_text_runs_through_the_loop(site, name, text):
    assert run_text(site, **{name: text}) is None


def test_texts_of_10_mb_run_through_the_loop(site):
    words, letters = LARGE.values()
    assert run_text(site, prompt=words, step_prompts=letters) is None


@pytest.mark.parametrize("text", [*TEXTS.values(), *LARGE.values()], ids=[*TEXTS, *LARGE])
def test_any_text_is_encoded(site, text):
    # The host's tokenizer takes seconds for a million characters.
    encode = ("CoZEncodePrompt", {"clip": ["clip", 0], "prompt": text[: 10**5], "t5_tokens": 77})
    assert site.run(node=encode, show=SHOW) is None


ROUTE = "/chain_of_zoom/preference"
MARK = {"run": "x.png", "step": 1, "good": True}


@pytest.mark.parametrize(
    "body",
    [b"[" * 60_000, b"[" * 1_000_000, b" " * 50_000_000, b'{"step": ' + b"9" * 60_000 + b"}", b"\xff\xfe",
     json.dumps(MARK | {"step": 1e300}).encode(), json.dumps(MARK | {"run": ["x.png"]}).encode(),
     json.dumps(MARK | {"run": "x" * 5000 + ".png"}).encode(), json.dumps(MARK | {"run": "../x.png"}).encode(),
     json.dumps(MARK | {"run": "\ud800.png"}).encode(), b'{"run": NaN, "step": NaN, "good": NaN}'],
    ids=range(11),
)  # fmt: skip
def test_a_mark_that_is_none_is_refused(site, body):
    status, answer = site.fetch(ROUTE, body, **{"Content-Type": "application/json; charset=none"})
    assert (status, list(answer)) == (400, ["error"])


def plant_record(site, **changed):
    """As the host's own upload lets anyone: a record of a run beside a picture."""
    shown = site.output / "good_00001_"
    record = json.loads((shown / "chain.json").read_text("utf-8")) | {"prompts": ["words"]}
    kept = {"chain": json.dumps(record), "layers": ["y.png"] * 3} | changed
    (site.temp / "x.json").write_text(json.dumps(kept), "utf-8")
    shutil.copy(shown / "scale_0.png", site.temp / "y.png")


def test_a_record_in_the_temporary_folder_reads_no_file_elsewhere(site):
    site.temp.mkdir(exist_ok=True)
    plant_record(site)
    assert site.fetch(ROUTE, json.dumps(MARK).encode()) == (200, {"added": True})
    secret = site.home / "around" / "secret.png"
    shutil.copy(site.output / "good_00001_" / "scale_0.png", secret)
    for changed in (
        {"layers": [str(secret)] * 3}, {"layers": ["../../around/secret.png"] * 3},
        {"layers": "y.png"}, {"layers": [7] * 3}, {"layers": []}, {"chain": "{}"}, {"chain": 7},
        {"chain": "[" * 100_000}, {"layers": None},
    ):  # fmt: skip
        plant_record(site, **changed)
        status, answer = site.fetch(ROUTE, json.dumps(MARK).encode())
        assert status == 400, answer
        assert "not a valid record of the viewer" in answer["error"]
    for content in (*lying_pngs(16, 16).values(), stuffed_pngs(16, 16)["pixels"]):
        plant_record(site)
        (site.temp / "y.png").write_bytes(content)
        status, answer = site.fetch(ROUTE, json.dumps(MARK).encode())
        assert (status, list(answer)) == (400, ["error"]), answer
    (site.temp / "x.json").write_bytes(b"7" * 2**25)
    assert site.fetch(ROUTE, json.dumps(MARK).encode())[0] == 400
    secret.unlink()


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Origin": "http://evil.example"}, 403), ({"Sec-Fetch-Site": "cross-site"}, 403), ({}, 400)],
)
def test_another_sites_page_cannot_mark(site, headers, status):
    assert site.fetch(ROUTE, b"{}", **headers)[0] == status


LOADER = {"model": ["model", 0], "vae": ["vae", 0], "vae_encoder_name": "none", "strength": 1.0}


def load_each(site, files, suffix, name="lora_name", folder="loras"):
    """Name of each content -> the error of CoZ Load SR LoRA with such a file as that input."""
    answers, paths = [], []
    for i, content in enumerate(files.values()):
        paths.append(site.models / folder / f"{name}_{i}{suffix}")
        paths[-1].write_bytes(content)
        inputs = LOADER | {"lora_name": "good.pkl"} | {name: paths[-1].name}
        status, answer = site.submit(node=("CoZLoadSRLoRA", inputs), show=SHOW)
        assert status == 200, answer
        answers.append(answer["prompt_id"])
    errors = site.results(answers)
    for path in paths:
        path.unlink()
    works(site)
    return dict(zip(files, errors, strict=True))


@pytest.mark.parametrize(
    ("name", "folder", "suffix"),
    [
        ("lora_name", "loras", ".pkl"),
        pytest.param("vae_encoder_name", "vae", ".pt", marks=pytest.mark.long),
        pytest.param("lora_name", "loras", ".safetensors", marks=pytest.mark.long),
    ],
)
def test_no_pickle_runs(site, name, folder, suffix):
    ran = site.home / "around" / "ran"
    for family, error in load_each(site, hostile_pickles(ran), suffix, name, folder).items():
        assert error, family
        assert "expected" in error, (family, error)
    assert not ran.exists()


def test_an_index_that_leads_out_of_its_folder_is_refused(site):
    folder = site.models / "text_encoders" / "sharded"
    folder.mkdir()
    save_file({"a": torch.zeros(1)}, folder / "model-00001-of-00002.safetensors")
    bad = ["../clip_l.safetensors", "/etc/passwd", "..", "", 7, None, ["a"], "a\0b", "x" * 5000]
    good = {"a": "model-00001-of-00002.safetensors"}
    loader = {"vlm_name": f"sharded/{good['a']}", "lora_name": "none", "lora_strength": 1.0}
    texts = [json.dumps({"weight_map": good | {"b": name}}) for name in bad]
    for text in [*texts, "[" * 100_000, "{}", "[]", "null"]:
        (folder / "model.safetensors.index.json").write_text(text)
        error = site.run(node=("CoZLoadPromptExtractor", loader), show=SHOW)
        assert "model" in error, text[-80:]
        assert "expected" in error, (text[-80:], error)
    shutil.rmtree(folder)
