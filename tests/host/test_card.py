"""Every node on a simulated card, in the host's real executor: the CPU's values, on the right device."""

import math
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from coz.chain.folder import write_chain
from tests.support.host_with_card import PLACEMENTS, HostWithCard
from tests.support.random_sd3 import coz_lora
from tests.support.small_models import small_clip, small_predictor, small_sd2, small_sd3, small_vae

from .executor import Executor
from .prompts import make_class, make_node

CPU = "no card"

MOST_OUTPUTS = 8

CENTER = {"center_x": 0.3, "center_y": 0.7}
UPSCALE = {"backbone": "upscale model", "backbone.upscale_model": ["upscaler", 0]}
UPSCALE |= {"backbone.resampling": "bicubic", "prompting": "text"}
DIFFUSE = {"backbone": "one-step diffusion", "backbone.model": ["lora", 0]}
DIFFUSE |= {"backbone.vae": ["lora", 1], "backbone.clip": ["models", 2], "prompting": "text"}
DIFFUSE |= {"backbone.latent_shift": "auto"}
LOOP = {"image": ["picture", 0], "steps": 2, "prompt": "fur", "size": 64, "consistency": 0.5}
LOOP |= CENTER
TILES = {"passes": 1, "scale": 2.0, "tile": 64, "overlap": 16, "adaptive_overlap": True}
FRAMES = {"seconds_per_step": 0.2, "fps": 8.0, "easing": "smooth", "hold": 0.1}
METHODS = ("wavelet", "adain", "none", "ycbcr", "histogram", "hybrid", "best")
VIEWS = {"image": ["sr", 0], "source": ["zoom", 1]}
TEXTS = {"positive": ["text", 0], "negative": ["text", 0]}
SD3 = {"model": ["models", 0], "vae": ["models", 1]}
SD2 = {"model": ["predictor", 0], "vae": ["models", 4]}
ZOOMED = {"crop": ["zoom", 1], "zoomed": ["zoom", 0]}
FRAME = {"image": ["frame", 0], "window": ["zoom", 2]}
FIXED = {"image": ["sr", 0], "reference": ["zoom", 0]}
RESULTS = {"images.image0": ["sr", 0], "images.image1": ["zoom", 0]}
REFINE = {"steps": 2, "cfg": 4.0, "denoise": 0.5, "seed": 3}
INVERT = {"sampling_steps": 2, "cfg": 2.0, "adaptive": True, "seed": 3}
EXTRACT = {"max_tokens": 3, "sampling_mode": "off", "previous_image": ["frame", 0]}

GRAPH = {
    "models": make_node("TestModels"),
    "upscaler": make_node("UpscaleModelLoader", model_name="coz_lite_x4.safetensors"),
    "picture": make_node("CoZSamplePicture", picture="astronaut.png"),
    "frame": make_node("CoZFitImage", image=["picture", 0], size=64, **CENTER),
    "zoom": make_node("CoZCropCenterZoom", image=["frame", 0], **CENTER),
    "lora": make_node("CoZLoadSRLoRA", **SD3, lora_name="on_card_20001.pkl"),
    "text": make_node("CoZEncodePrompt", clip=["models", 2], prompt="fur", t5_tokens=77),
    "sr": make_node(
        "CoZSRStep", model=["lora", 0], vae=["lora", 1], positive=["text", 0], image=["zoom", 0]
    ),
    "refine": make_node("CoZRefineStep", **SD3, image=["zoom", 0], **TEXTS, **REFINE),
    "predictor": make_node(
        "CoZLoadInvSR", model=["models", 3], predictor_name="on_card.safetensors"
    ),
    "invsr": make_node("CoZInvSRStep", **SD2, **ZOOMED, **TEXTS, **INVERT),
    "results": make_node("BatchImagesNode", **RESULTS),
    "fuse": make_node("CoZFuse", images=["results", 0], edges=0.3),
    "ensemble": make_node("CoZSelfEnsemble", upscale_model=["upscaler", 0]),
    "upscale": make_node("CoZUpscaleStep", upscale_model=["ensemble", 0], **ZOOMED, **FRAME),
    **{f"fix by {name}": make_node("CoZColorFix", **FIXED, method=name) for name in METHODS},
    "true": make_node("CoZConsistency", **VIEWS),
    "map": make_node("CoZDetailMap", **VIEWS),
    "loop": make_node("CoZChainLoop", **DIFFUSE, **LOOP),
    "upscale loop": make_node("CoZChainLoop", **UPSCALE, **LOOP),
    "full": make_node("CoZFullImage", image=["frame", 0], consistency=0.5, **UPSCALE, **TILES),
    "save": make_node("CoZSaveChain", chain=["loop", 3], filename_prefix="on_card/chain"),
    "load": make_node("CoZLoadChain", folder="saved/chain_00001_"),
    "viewer": make_node("CoZZoomViewer", chain=["loop", 3]),
    "video": make_node("CoZZoomVideo", chain=["loop", 3], **FRAMES),
    "strip": make_node("CoZZoomStrip", chain=["loop", 3], layout="steps", labels=True),
    "report": make_node("CoZMeasure", chain=["loop", 3], ground_truth=["picture", 0]),
    "vlm": make_node("CoZLoadPromptExtractor", vlm_name="qwen2.5-vl.safetensors"),
    "extractor": make_node("CoZPromptExtractor", vlm=["vlm", 0], image=["zoom", 0], **EXTRACT),
    "tagger": make_node("CoZLoadTagger", tagger_name="ram_small.pth", dape_name="DAPE.pth"),
    "tags": make_node("CoZTagPrompt", tagger=["tagger", 0], image=["zoom", 0], prompt="fur"),
}
"""Nodes in an order in which each comes after what it takes; their other widgets have the default."""

LONG = {"vlm", "extractor"}
"""Those that take long."""

WEIGHTS = {"lora", "text", "sr", "refine", "loop", "ensemble", "upscale", "upscale loop", "full"}
WEIGHTS |= {"predictor", "invsr"}
"""Nodes that have to do with a model's weights: of all others an offloaded model changes nothing."""


def marks_of(placement, name):
    is_further = placement == "offloaded" and name not in WEIGHTS
    return [pytest.mark.long] if name in LONG or is_further else []


CASES = [
    pytest.param(placement, name, marks=marks_of(placement, name), id=f"{placement}-{name}")
    for placement in PLACEMENTS
    for name, node in GRAPH.items()
    if node["class_type"].startswith("CoZ")
]


def give_models(self):
    """Make the small models on the device of the executor."""
    return small_sd3(), small_vae(), small_clip(), small_sd2(), small_vae(4)


class Run:
    """All nodes of the graph in one placement, each run once and by itself."""

    def __init__(self, placement: str, cache, kept: dict):
        self.kept = kept
        self.host = None if placement == CPU else HostWithCard(placement)
        self.executor = Executor("LRU")
        self.cache = cache
        self.outputs: dict[str, list] = {}
        self.work = {}
        """What each node had the card do."""

    def run(self, name: str) -> list:
        if name not in self.outputs:
            for value in GRAPH[name]["inputs"].values():
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

        prompt = {}
        for key, node in GRAPH.items():
            inputs = nodes.NODE_CLASS_MAPPINGS[node["class_type"]].INPUT_TYPES()
            widgets = inputs.get("required", {}).items()
            defaults = {
                widget: options[0]["default"]
                for widget, (_, *options) in widgets
                if options and "default" in options[0]
            }
            prompt[key] = make_node(node["class_type"], **defaults | node["inputs"])
        count = len(nodes.NODE_CLASS_MAPPINGS[GRAPH[name]["class_type"]].RETURN_TYPES)
        links = {f"output_{k}": [name, k] for k in range(count)}
        prompt["keep"] = make_node("TestKeep", **links)
        self.kept.clear()
        self.cache.clear()  # it knows a step by its inputs, wherever it ran
        self.executor.run(prompt, "keep" if count else name)
        return [self.kept[key] for key in sorted(self.kept)]


@pytest.fixture(scope="module")
def folders(model_folder, make_chain):
    """The host's folders, with a LoRA, a noise predictor and a saved chain in them."""
    folder = model_folder("loras", "model_patches")
    torch.save(coz_lora(2), folder / "on_card_20001.pkl")
    save_file(small_predictor(), folder / "on_card.safetensors")
    saved = folder / "output" / "saved"
    saved.mkdir(parents=True)
    write_chain(make_chain(40, 30, 16, steps=2), saved, "chain", 1)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("output", "temp"):
            patch.setattr(f"folder_paths.{name}_directory", str(folder / name))
        yield folder


@pytest.fixture(scope="module")
def runs(folders, vlm_folder, tagger_folder, nodes_of):
    """Placement -> its run."""
    import nodes

    kept = {}

    def keep(self, **given):
        kept.update(given)
        return ()

    models = make_class(give_models, {}, ("MODEL", "VAE", "CLIP", "MODEL", "VAE"))
    names = {f"output_{k}": "*" for k in range(MOST_OUTPUTS)}
    keeper = make_class(keep, names, need="optional", OUTPUT_NODE=True, INPUT_IS_LIST=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(nodes.NODE_CLASS_MAPPINGS, "TestModels", models)
        patch.setitem(nodes.NODE_CLASS_MAPPINGS, "TestKeep", keeper)
        yield cache(lambda placement: Run(placement, nodes_of("host.cache").CACHE, kept))


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


ROUNDING = {"full": 2e-6}
"""Tiles are enlarged as a batch on the card, and one by one on the CPU."""


def is_same(got, want, rounding: float) -> bool:
    if isinstance(want, torch.Tensor):
        return got.dtype == want.dtype and torch.allclose(got.cpu(), want, rtol=0, atol=rounding)
    return got == want or (want != want and got != got)


def test_every_node_is_in_the_graph(our_nodes):
    ours = {key for key, cls in our_nodes.items() if not cls.GET_SCHEMA().is_dev_only}
    kinds = {node["class_type"] for node in GRAPH.values()}
    assert ours == {kind for kind in kinds if kind.startswith("CoZ")}


@pytest.mark.parametrize(("placement", "name"), CASES)
def test_the_cpus_values_on_the_hosts_intermediate_device(runs, placement, name, record_property):
    want = parts_of(runs(CPU).run(name))
    run = runs(placement)
    got = parts_of(run.run(name))
    record_property("work", str(run.work[name]))
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert is_same(one, other, ROUNDING.get(name, 0))
        if isinstance(one, torch.Tensor):
            assert one.device == run.host.intermediate_device


WAITS = {
    "sr": 4,  # 1 of them in the host's sampler
    "refine": 12,  # 9 of them in the host's sampler
    "fix by wavelet": 2,  # 1 a picture that comes in
    "fix by adain": 2,
    "fix by none": 1,
    "fix by ycbcr": 2,
    "fix by histogram": 2,
    "fix by hybrid": 2,
    "fix by best": 3,  # 1 for the names of the methods
    "true": 5,  # 2 in the correction, which reads its error every 8 iterations
    "report": 4,  # 1 a frame, and 1 for the ground truth
    "load": 0,
    "tags": 2,  # 1 for the range of the image, and 1 for the logits
}
"""How often a node may wait for a card that holds the images (--gpu-only)."""


@pytest.mark.parametrize(("name", "most"), WAITS.items(), ids=WAITS.keys())
def test_nodes_wait_for_the_card_seldom(runs, name, most, record_property):
    run = runs("gpu only")
    run.run(name)
    record_property("waits", run.work[name].waits)
    assert run.work[name].waits <= most


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_card_worked(runs, placement):
    run = runs(placement)
    run.run("sr")
    assert run.work["sr"].flops > 10**7
    assert math.inf > run.host.card.memory.peak > 0
