import contextlib
import importlib
import inspect
import json
import os
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from filelock import FileLock
from safetensors.torch import save_file

from tests.support.images import noise
from tests.support.random_qwen import (
    draw_qwen25vl,
    name_as_published,
    save_prompt_lora,
    save_shards,
)
from tests.support.random_ram import as_published, dape, ram
from tests.support.random_sd3 import coz_lora, draw_autoencoder, draw_clip_l, draw_coz_encoder
from tests.support.random_weights import read_layouts
from tests.support.small_models import (
    NARROW_ENCODER,
    SD2_SHAPE,
    SD15,
    WIDTH,
    make_vae,
    small_clip,
    small_control_network,
    small_sd2,
    small_sd3,
    small_vae,
)
from tools.convert import convert
from tools.host import host_path, read_comfyui_version
from tools.host.server import serve

from .executor import Executor
from .prompts import OWN_SAMPLING, REACHES_PIXELS, kept_prompt, make_class, make_node


def pytest_runtest_setup(item):
    for marker in item.iter_markers("since"):
        require_host(*marker.args)


def require_host(version: str) -> None:
    """Skip the test on a ComfyUI older than this."""
    running = read_comfyui_version(host_path())
    if [*map(int, running.split("."))] < [*map(int, version.split("."))]:
        pytest.skip(f"needs ComfyUI {version}, this is {running}")


@pytest.fixture(scope="session")
def since():
    """Skips the test on a ComfyUI older than a version; for what only the test itself knows."""
    return require_host


@pytest.fixture(scope="session")
def node(pack):
    """Node class by id, from the host's own registry."""
    import nodes

    return nodes.NODE_CLASS_MAPPINGS.__getitem__


@pytest.fixture(scope="session")
def our_nodes(pack):
    """The classes of the pack's nodes by id."""
    import nodes

    known = nodes.NODE_CLASS_MAPPINGS.items()
    return {key: cls for key, cls in known if cls.__module__.startswith(f"{pack.__name__}.")}


@pytest.fixture(scope="session")
def model_folder(pack, tmp_path_factory):
    """Makes a folder in which the host finds some kinds of models."""
    import folder_paths

    def make(*kinds):
        folder = tmp_path_factory.mktemp(kinds[0])
        for kind in kinds:
            folder_paths.add_model_folder_path(kind, str(folder))
        return folder

    return make


@pytest.fixture(scope="session")
def load_upscale_model(node, model_folder):
    """Loads a network by the host's own loader, from a file of some name."""
    folder = model_folder("upscale_models")

    def load(name, network):
        weights = {key: weight.clone() for key, weight in network.state_dict().items()}
        save_file(weights, folder / f"{name}.safetensors")
        return node("UpscaleModelLoader").execute(f"{name}.safetensors")[0]

    return load


@pytest.fixture(scope="session")
def upscale_model(load_upscale_model):
    """A tiny random network with the given factor."""
    from spandrel.architectures.Compact import Compact

    def load(factor):
        torch.manual_seed(0)
        network = Compact(num_feat=8, num_conv=2, upscale=factor)
        return load_upscale_model(f"tiny_x{factor}", network)

    return load


@pytest.fixture(scope="session")
def upscale_node(pack):
    """The host's upscale node that the pack calls; the registry has a twin of it."""
    from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel

    return ImageUpscaleWithModel


@pytest.fixture
def input_folder(pack, tmp_path, monkeypatch):
    """The host's folder of input files, empty."""
    monkeypatch.setattr("folder_paths.input_directory", str(tmp_path))
    return tmp_path


@pytest.fixture
def output_folder(pack, tmp_path, monkeypatch):
    """The host's folder of output files, empty."""
    monkeypatch.setattr("folder_paths.output_directory", str(tmp_path))
    return tmp_path


@pytest.fixture
def mm(pack):
    """The host's memory management; no interrupt stays behind."""
    import comfy.model_management

    yield comfy.model_management
    comfy.model_management.interrupt_current_processing(False)


@pytest.fixture
def before(monkeypatch):
    """Has a function called before each call of another, with the same arguments."""

    def watch(owner, name, act):
        original = inspect.getattr_static(owner, name)
        is_method = isinstance(original, classmethod)
        whole = original.__func__ if is_method else original

        def watched(*args, **kwargs):
            act(*args[is_method:], **kwargs)
            return whole(*args, **kwargs)

        monkeypatch.setattr(owner, name, classmethod(watched) if is_method else watched)

    return watch


@pytest.fixture(scope="session")
def nodes_of(pack):
    """A module of the pack's nodes."""
    return lambda name: importlib.import_module(f"{pack.__name__}.nodes.{name}")


@pytest.fixture
def executor(nodes_of, tmp_path_factory, monkeypatch):
    nodes_of("host.cache").CACHE.clear()  # what an earlier test kept
    # The host lists the whole folder for each preview that it saves.
    monkeypatch.setattr("folder_paths.temp_directory", str(tmp_path_factory.mktemp("temp")))
    tell_reach(nodes_of("host.surroundings"), monkeypatch)
    return Executor


def tell_reach(surroundings, monkeypatch):
    """Spare each test the measurement of the built-in models, which test_surroundings.py makes."""
    import comfy.model_management

    import nodes

    loader = nodes.NODE_CLASS_MAPPINGS["UpscaleModelLoader"]
    load = loader.execute

    def load_and_tell(cls, model_name):
        loaded = load(model_name)
        on_cpu = comfy.model_management.get_torch_device() == torch.device("cpu")
        if model_name in REACHES_PIXELS and on_cpu:
            surroundings._reaches[loaded[0]] = surroundings.Reach(REACHES_PIXELS[model_name], False)
        return loaded

    monkeypatch.setattr(loader, "execute", classmethod(load_and_tell))


@pytest.fixture
def host(executor):
    """The executor with ComfyUI's classic cache."""
    return executor("CLASSIC")


@pytest.fixture
def define(pack):
    """Registers a node of ``make_class``."""
    import nodes

    def register(node_id, *args, **options):
        patch.setitem(nodes.NODE_CLASS_MAPPINGS, node_id, make_class(*args, **options))

    with pytest.MonkeyPatch.context() as patch:  # a test may undo its own
        yield register


@pytest.fixture
def keeper(define):
    """Registers a node that keeps what reaches it, for the test to read."""

    def register(node_id, kinds, need="required"):
        kept = []

        def run(self, **values):
            kept.append(values)
            return ()

        define(node_id, run, kinds, need=need, OUTPUT_NODE=True)
        return kept

    return register


@pytest.fixture
def give(define):
    """Registers a node that gives a value, which may be another later."""
    values = {}

    def register(node_id, kind, value):
        values[node_id] = value  # the host keeps the object that it made of the first class

        def is_changed(cls):
            value = values[node_id]
            return f"{value.shape} {value.sum()}" if torch.is_tensor(value) else id(value)

        changes = classmethod(is_changed)
        define(node_id, lambda self: (values[node_id],), {}, (kind,), IS_CHANGED=changes)

    return register


@pytest.fixture
def keep(keeper):
    kinds = {"image": "IMAGE", "scales": "IMAGE", "prompts": "STRING", "chain": "COZ_CHAIN"}
    return keeper("TestKeep", kinds)


USERS = set()
"""The files whose tests use ``servers``."""

STARTED = {}
"""Version and flags of each server that runs -> its (URL, folder)."""

RUNNING = contextlib.ExitStack()


def pytest_collection_modifyitems(items):
    USERS.update(item.path for item in items if "servers" in item.fixturenames)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem):
    """Stop the servers where the next file needs none: each holds gigabytes."""
    if nextitem is None or nextitem.path not in USERS:
        RUNNING.close()
        STARTED.clear()


@pytest.fixture(scope="session")
def servers(models, tmp_path_factory):
    """(URL, folder) of a real server with some flags: one for all tests that ask for the same."""

    def start(*arguments, version=None):
        if version and "COMFYUI_PATH" in os.environ:
            pytest.skip("the older hosts run with the pinned host's packages")
        key = version, arguments
        if key not in STARTED:
            folder = tmp_path_factory.mktemp("server")
            options = [*models, *arguments]
            url = RUNNING.enter_context(serve(version, folder=folder, arguments=options))
            STARTED[key] = url, folder
        return STARTED[key]

    yield start
    RUNNING.close()


@pytest.fixture(scope="module")
def server(servers):
    """URL of a real server with default flags, and the models."""
    return servers()[0]


@pytest.fixture(scope="module")
def server_folder(servers):
    """Where that server has its folders."""
    return servers()[1]


@pytest.fixture
def step(node):
    def run(*args, **kwargs):
        with torch.inference_mode():
            return node("CoZSRStep").execute(*args, **kwargs)[0]

    return run


class Backbone(NamedTuple):
    """A diffusion model in the host."""

    model: object
    vae: object


@pytest.fixture(scope="session")
def load_sd3(pack):
    """The tiny SD3 as the host's own loaders make it: (model, vae)."""

    def load(dtype=torch.float32):
        return Backbone(small_sd3(dtype), make_vae(draw_autoencoder(width=WIDTH), 16, dtype))

    return load


@pytest.fixture(scope="session")
def sd3(load_sd3):
    return load_sd3()


@pytest.fixture(scope="session")
def vlm_folder(model_folder):
    """A small random Qwen2.5-VL as a file of the host's, and a file that holds no model."""
    folder = model_folder("text_encoders")
    save_file(name_as_published(draw_qwen25vl()), folder / "qwen2.5-vl.safetensors")
    (folder / "no model.safetensors").write_bytes(b"<html>404</html>")
    return folder


@pytest.fixture
def on_card(vlm_folder, nodes_of, executor, define, give, keep, model_folder, output_folder):
    """Makes ``Templates`` on a card of a size, with what they need."""
    from .templates import Templates, give_models

    torch.save(coz_lora(2), model_folder("loras") / "on_card_20001.pkl")
    give("TestPicture", "IMAGE", noise(1, 48, 64, 3))
    define("TestModels", give_models, {}, ("MODEL", "CLIP", "VAE"))
    steps = nodes_of("host.cache").CACHE
    return lambda **options: Templates(keep, steps, **options)


@pytest.fixture(scope="session")
def tagger_folder(model_folder):
    """A small random RAM and DAPE, as published and converted, in the host's folders."""
    folder, weights = model_folder("loras", "text_encoders"), ram()
    for name, content in (("ram_small", as_published(weights)), ("DAPE", dape(weights))):
        torch.save(content, folder / f"{name}.pth")
        convert(folder / f"{name}.pth", folder / f"{name}.safetensors", None, None)
    return folder


@pytest.fixture(scope="session")
def vae_4(pack):
    """A VAE with 4 channels, as of SD1.5."""
    return make_vae(draw_autoencoder(4, WIDTH), 4)


@pytest.fixture(scope="session")
def coz_files(model_folder):
    """The folder of models/loras and models/vae that has files as Chain-of-Zoom's."""
    folder = model_folder("loras", "vae")
    torch.save(coz_lora(2), folder / "model_20001.pkl")
    torch.save(draw_coz_encoder(draw_autoencoder(width=WIDTH)), folder / NARROW_ENCODER)
    return folder


@pytest.fixture(scope="session")
def models(load_sd3, tmp_path_factory):
    """Options for a server that has files by all names that the workflows ask for."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers: they are 600 MB
    folder /= "models"
    with FileLock(f"{folder}.lock"):
        if not (folder / "paths.yaml").exists():
            write_models(folder, load_sd3)
    return ["--extra-model-paths-config", str(folder / "paths.yaml")]


@pytest.fixture(scope="session")
def listed_models(models):
    """Has this process's host find the same files."""
    from utils.extra_config import load_extra_path_config

    load_extra_path_config(models[1])


def write_models(folder, load_sd3):
    import comfy.sd

    kinds = ("checkpoints", "text_encoders", "loras", "vae")
    for kind in kinds:
        (folder / kind).mkdir(parents=True, exist_ok=True)
    save_file(draw_clip_l(), folder / "clip_l.safetensors")
    clip = comfy.sd.load_clip([str(folder / "clip_l.safetensors")], clip_type=comfy.sd.CLIPType.SD3)
    checkpoint = folder / "checkpoints" / "sd3_medium_incl_clips_t5xxlfp8.safetensors"
    autoencoder = draw_autoencoder()
    vae = comfy.sd.VAE(sd=dict(autoencoder), dtype=torch.float16)
    comfy.sd.save_checkpoint(str(checkpoint), load_sd3(torch.float16)[0], clip, vae)
    (folder / "checkpoints" / "sd_xl_base_1.0.safetensors").symlink_to(checkpoint)
    torch.save(coz_lora(2), folder / "loras" / "model_20001.pkl")
    torch.save(draw_coz_encoder(autoencoder), folder / "vae" / "vae_encoder_20001.pt")
    save_shards(draw_qwen25vl(), folder / "text_encoders" / "Qwen2.5-VL-3B-Instruct")
    save_prompt_lora(read_layouts()["qwen25vl"], folder / "loras" / "coz_prompt_lora")
    torch.save(as_published(ram()), folder / "text_encoders" / "ram_swin_large_14m.pth")
    torch.save(dape(ram()), folder / "loras" / "DAPE.pth")
    paths = {"base_path": str(folder), **{kind: kind for kind in kinds}}
    (folder / "paths.yaml").write_text(json.dumps({"tests": paths}), "utf-8")


@pytest.fixture(scope="session")
def own_models(node, model_folder):
    """A small SD1.5 of random weights with a ControlNet from the host's loader, and texts for it."""
    folder = model_folder("controlnet")
    save_file(small_control_network(**SD15).state_dict(), folder / "small_tile.safetensors")
    generator = torch.Generator().manual_seed(0)
    texts = [[[torch.randn(1, 7, SD2_SHAPE["context_dim"], generator=generator), {}]] for _ in "+-"]
    return SimpleNamespace(
        model=small_sd2(family="SD15", **SD15),
        vae=small_vae(4),
        clip=small_clip(),
        texts=texts,
        control_net=node("ControlNetLoader")().load_controlnet("small_tile.safetensors")[0],
    )


@pytest.fixture
def own_prompt(give, own_models):
    """A Chain Loop with "any checkpoint" and the small models, by its inputs."""
    given = ("model", "vae", "clip", "control_net")
    for name in given:
        give(f"Test_{name}", name.upper(), getattr(own_models, name))

    def make(**inputs):
        chosen = {"negative": "blurry", "sampling_steps": 2, **OWN_SAMPLING}
        chosen |= {name: [name, 0] for name in given} | inputs.pop("backbone", {})
        chosen = {f"backbone.{name}": value for name, value in chosen.items() if value is not None}
        inputs = {"color_fix": "none", "prompt": "fur"} | chosen | inputs
        prompt = kept_prompt(backbone="any checkpoint", **inputs)
        for unread in ("upscale_model", "resampling"):
            del prompt["loop"]["inputs"][f"backbone.{unread}"]
        return prompt | {name: make_node(f"Test_{name}") for name in given}

    return make
