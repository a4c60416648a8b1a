"""Every node on a simulated card, in the host's real executor: the CPU's values, on the right device."""

import math
from pathlib import Path

import pytest
import torch

from tests.support.host_with_card import PLACEMENTS, HostWithCard

from .executor import Executor

CPU = "no card"

MOST_OUTPUTS = 8

CENTER = {"center_x": 0.3, "center_y": 0.7}
UPSCALE_BACKBONE = {
    "backbone": "upscale model",
    "backbone.upscale_model": ["upscaler", 0],
    "backbone.resampling": "bicubic",
}
TWO_STEPS = {
    "image": ["picture", 0],
    "steps": 2,
    "scale": 4.0,
    "prompting": "text",
    "prompt": "fur",
    "step_prompts": "",
    "seed": 0,
    "color_fix": "wavelet",
    "frame": "native pixels",
    "size": 64,
    "consistency": 0.5,
    **CENTER,
}

GRAPH = {
    "models": ("TestModels", {}),
    "upscaler": ("UpscaleModelLoader", {"model_name": "coz_lite_x4.safetensors"}),
    "picture": ("CoZSamplePicture", {"picture": "astronaut.png"}),
    "frame": (
        "CoZFitImage",
        {"image": ["picture", 0], "frame": "native pixels", "size": 64, **CENTER},
    ),
    "zoom": (
        "CoZCropCenterZoom",
        {"image": ["frame", 0], "scale": 4.0, "resampling": "bicubic", **CENTER},
    ),
    "lora": (
        "CoZLoadSRLoRA",
        {
            "model": ["models", 0],
            "vae": ["models", 1],
            "lora_name": "on_card_20001.pkl",
            "vae_encoder_name": "none",
            "strength": 1.0,
        },
    ),
    "text": ("CoZEncodePrompt", {"clip": ["models", 2], "prompt": "fur", "t5_tokens": 77}),
    "sr": (
        "CoZSRStep",
        {
            "model": ["lora", 0],
            "vae": ["lora", 1],
            "positive": ["text", 0],
            "image": ["zoom", 0],
            "latent_shift": "auto",
        },
    ),
    "refine": (
        "CoZRefineStep",
        {
            "model": ["models", 0],
            "vae": ["models", 1],
            "positive": ["text", 0],
            "negative": ["text", 0],
            "image": ["zoom", 0],
            "steps": 2,
            "cfg": 4.0,
            "sampler_name": "euler",
            "scheduler": "simple",
            "denoise": 0.5,
            "seed": 3,
        },
    ),
    "ensemble": ("CoZSelfEnsemble", {"upscale_model": ["upscaler", 0]}),
    "upscale": (
        "CoZUpscaleStep",
        {
            "upscale_model": ["ensemble", 0],
            "crop": ["zoom", 1],
            "zoomed": ["zoom", 0],
            "resampling": "bicubic",
            "image": ["frame", 0],
            "window": ["zoom", 2],
        },
    ),
    **{
        f"fix by {method}": (
            "CoZColorFix",
            {
                "image": ["sr", 0],
                "reference": ["zoom", 0],
                "method": method,
                "levels": 5,
                "weight": 0.5,
            },
        )
        for method in ("wavelet", "adain", "none", "ycbcr", "histogram", "hybrid", "best")
    },
    "true": (
        "CoZConsistency",
        {
            "image": ["sr", 0],
            "source": ["zoom", 1],
            "strength": 1.0,
            "iterations": 10,
            "kernel": "bicubic",
        },
    ),
    "map": ("CoZDetailMap", {"image": ["sr", 0], "source": ["zoom", 1]}),
    "loop": (
        "CoZChainLoop",
        {
            "backbone": "one-step diffusion",
            "backbone.model": ["lora", 0],
            "backbone.vae": ["lora", 1],
            "backbone.clip": ["models", 2],
            "backbone.latent_shift": "auto",
            **TWO_STEPS,
        },
    ),
    "upscale loop": ("CoZChainLoop", {**UPSCALE_BACKBONE, **TWO_STEPS}),
    "full": (
        "CoZFullImage",
        {
            **UPSCALE_BACKBONE,
            "image": ["frame", 0],
            "passes": 1,
            "scale": 2.0,
            "prompting": "text",
            "prompt": "",
            "tile_prompts": "",
            "seed": 0,
            "tile": 64,
            "overlap": 16,
            "adaptive_overlap": True,
            "color_fix": "wavelet",
            "consistency": 0.5,
        },
    ),
    "save": ("CoZSaveChain", {"chain": ["loop", 3], "filename_prefix": "on_card/chain"}),
    "load": ("CoZLoadChain", {"folder": "saved/chain_00001_"}),
    "viewer": ("CoZZoomViewer", {"chain": ["loop", 3]}),
    "video": (
        "CoZZoomVideo",
        {
            "chain": ["loop", 3],
            "seconds_per_step": 0.2,
            "fps": 8.0,
            "easing": "smooth",
            "hold": 0.1,
            "reverse": False,
            "width": 0,
            "height": 0,
        },
    ),
    "strip": ("CoZZoomStrip", {"chain": ["loop", 3], "layout": "steps", "labels": True}),
    "report": ("CoZMeasure", {"chain": ["loop", 3], "ground_truth": ["picture", 0]}),
    "vlm": ("CoZLoadPromptExtractor", {"vlm_name": "qwen2.5-vl.safetensors", "lora_name": "none"}),
    "extractor": (
        "CoZPromptExtractor",
        {
            "vlm": ["vlm", 0],
            "image": ["zoom", 0],
            "prompt": "",
            "instruction": "",
            "max_tokens": 3,
            "sampling_mode": "off",
            "previous_image": ["frame", 0],
        },
    ),
}
"""Names -> classes and inputs, in an order in which each comes after what it takes."""

LONG = {"vlm", "extractor"}
"""Those that take long."""

NOT_OFFLOADED = {"upscale", "upscale loop", "full"}
"""ComfyUI leaves the weights of an upscale model on the CPU there, and its own Upscale Image fails."""


def marks_of(placement, name):
    marks = [pytest.mark.long] if name in LONG else []
    if placement == "offloaded" and name in NOT_OFFLOADED:
        marks.append(
            pytest.mark.xfail(
                reason="ComfyUI leaves the weights on the CPU", strict=True, raises=RuntimeError
            )
        )
    return marks


CASES = [
    pytest.param(placement, name, marks=marks_of(placement, name), id=f"{placement}-{name}")
    for placement in PLACEMENTS
    for name, (kind, _) in GRAPH.items()
    if kind.startswith("CoZ")
]


class Models:
    """A node that gives the small models, made on the device of its own executor."""

    RETURN_TYPES = ("MODEL", "VAE", "CLIP")
    FUNCTION = "give"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {}}

    def give(self):
        from tests.support.small_models import small_clip, small_sd3, small_vae

        return small_sd3(), small_vae(), small_clip()


class Keep:
    """A node that keeps all outputs of another."""

    RETURN_TYPES = ()
    FUNCTION = "keep"
    OUTPUT_NODE = True
    INPUT_IS_LIST = True
    CATEGORY = "test"
    kept: tuple = ()

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"optional": {f"output_{k}": ("*",) for k in range(MOST_OUTPUTS)}}

    def keep(self, **values):
        Keep.kept = [values[name] for name in sorted(values)]
        return ()


class Run:
    """All nodes of the graph in one placement, each run once and by itself."""

    def __init__(self, placement: str, cache):
        self.host = None if placement == CPU else HostWithCard(placement)
        self.executor = Executor("LRU")
        self.cache = cache
        self.outputs: dict[str, list] = {}
        self.work = {}
        """What each node had the card do."""

    def run(self, name: str) -> list:
        if name not in self.outputs:
            for value in GRAPH[name][1].values():
                if isinstance(value, list):
                    self.run(value[0])
            if self.host is None:
                self.outputs[name] = self._execute(name)
            else:
                with self.host.running() as card:
                    before = card.work.copy()
                    self.outputs[name] = self._execute(name)
                    self.work[name] = card.work.since(before)
        return self.outputs[name]

    def _execute(self, name: str) -> list:
        import nodes

        kind, _ = GRAPH[name]
        prompt = {
            key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in GRAPH.items()
        }
        count = len(nodes.NODE_CLASS_MAPPINGS[kind].RETURN_TYPES)
        links = {f"output_{k}": [name, k] for k in range(count)}
        prompt["keep"] = {"class_type": "TestKeep", "inputs": links}
        Keep.kept = []
        self.cache.clear()  # it knows a step by its inputs, wherever it ran
        self.executor.run(prompt, "keep" if count else name)
        return Keep.kept


@pytest.fixture(scope="module")
def folders(pack, tmp_path_factory, make_chain):
    """The host's folders, with a LoRA and a saved chain in them."""
    import folder_paths

    from coz.chain.folder import write_chain
    from tests.support.random_sd3 import coz_lora

    folder = tmp_path_factory.mktemp("on_card")
    before = folder_paths.get_output_directory(), folder_paths.get_temp_directory()
    for name, place in (("output", folder_paths.set_output_directory),
                        ("temp", folder_paths.set_temp_directory)):  # fmt: skip
        (folder / name).mkdir()
        place(str(folder / name))
    torch.save(coz_lora(2), folder / "on_card_20001.pkl")
    folder_paths.add_model_folder_path("loras", str(folder))
    saved = folder / "output" / "saved"
    saved.mkdir()
    write_chain(make_chain(40, 30, 16, steps=2), saved, "chain", 1)
    yield folder
    folder_paths.set_output_directory(before[0])
    folder_paths.set_temp_directory(before[1])


@pytest.fixture(scope="module")
def runs(folders, vlm_folder, nodes_of):
    """Placement -> its run."""
    import nodes

    made = {}

    def of(placement):
        if placement not in made:
            made[placement] = Run(placement, nodes_of("host.cache").CACHE)
        return made[placement]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(nodes.NODE_CLASS_MAPPINGS, "TestModels", Models)
        patch.setitem(nodes.NODE_CLASS_MAPPINGS, "TestKeep", Keep)
        yield of


def parts_of(value):
    """The tensors, numbers and texts in what a node gives; of the host's models nothing."""
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if isinstance(value, list | tuple):
        return [part for one in value for part in parts_of(one)]
    if hasattr(value, "frames") and hasattr(value, "to_json"):
        return [value.to_json(), *value.frames]
    if hasattr(value, "get_stream_source"):
        return [Path(value.get_stream_source()).read_bytes()]
    return [value] if isinstance(value, torch.Tensor | int | float | str) else []


def is_same(got, want) -> bool:
    if isinstance(want, torch.Tensor):
        return got.dtype == want.dtype and torch.equal(got.cpu(), want)
    return got == want or (want != want and got != got)


def test_every_node_is_in_the_graph(pack):
    import nodes

    ours = {
        node_id
        for node_id, cls in nodes.NODE_CLASS_MAPPINGS.items()
        if cls.__module__.startswith(f"{pack.__name__}.") and not cls.GET_SCHEMA().is_dev_only
    }
    assert ours == {kind for kind, _ in GRAPH.values() if kind.startswith("CoZ")}


@pytest.mark.parametrize(("placement", "name"), CASES)
def test_the_cpus_values_on_the_hosts_intermediate_device(runs, placement, name, record_property):
    want = parts_of(runs(CPU).run(name))
    run = runs(placement)
    got = parts_of(run.run(name))
    record_property("work", str(run.work[name]))
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert is_same(one, other)
        if isinstance(one, torch.Tensor):
            assert one.device == run.host.intermediate_device


WAITS = {
    "sr": 9,  # 4 of them in the host's sampler
    "fix by wavelet": 3,
    "fix by adain": 3,
    "fix by none": 2,
    "fix by ycbcr": 3,
    "fix by histogram": 9,  # 2 a channel: how many values differ
    "fix by hybrid": 3,
    "fix by best": 10,
    "true": 8,
    "report": 11,  # 1 a figure, and 1 for the ground truth
    "load": 4,  # 1 a picture
}
"""How often a node may wait for a card that holds the images (--gpu-only)."""


@pytest.mark.parametrize(("name", "most"), WAITS.items(), ids=WAITS.keys())
def test_nodes_wait_for_the_card_seldom(runs, name, most):
    run = runs("gpu only")
    run.run(name)
    assert run.work[name].waits <= most


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_card_worked(runs, placement):
    run = runs(placement)
    run.run("sr")
    assert run.work["sr"].flops > 10**7
    assert math.inf > run.host.card.memory.peak > 0
