"""The published networks that people use, through the nodes that take an upscale model."""

import re

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from coz.fidelity.metrics import measure_psnr
from tools.host.environment import HostError
from tools.train_lite import teachers

from .prompts import TILED, chain_prompt, make_node

pytestmark = [pytest.mark.tools, pytest.mark.network]

SIDE = 32


@pytest.fixture(scope="module", params=["load_span", "load_real_esrgan"])
def teacher(request, pack, tmp_path_factory):
    """The network, whose file the host's loader offers."""
    import folder_paths

    try:
        network = getattr(teachers, request.param)()
    except HostError as error:
        if re.search("cannot be reached", str(error)):
            pytest.skip(str(error))
        raise
    folder = tmp_path_factory.mktemp("teachers")
    folder_paths.add_model_folder_path("upscale_models", str(folder))
    save_file(network.state_dict(), folder / "teacher.safetensors")
    yield network
    folder_paths.folder_names_and_paths["upscale_models"][0].remove(str(folder))


@pytest.fixture
def run(teacher, executor, keeper):
    """Run a prompt on a part of a photograph: the input and the result, (1, 3, H, W)."""
    kept = keeper("TestImage", {"image": "IMAGE", "source": "IMAGE"})

    def run(node_id, **inputs):
        prompt = chain_prompt(("crop", 0), **inputs)
        prompt["model"]["inputs"]["model_name"] = "teacher.safetensors"
        crop = {"image": ["source", 0], "x": 200, "y": 60, "width": SIDE, "height": SIDE}
        prompt["crop"] = make_node("ImageCrop", **crop)
        prompt["loop"]["class_type"] = node_id
        prompt["scales"] = make_node("TestImage", image=["loop", 0], source=["crop", 0])
        if node_id == "CoZUpscaleStep":
            scaled = {"image": ["crop", 0], "upscale_method": "bicubic", "scale_by": 4.0}
            prompt["big"] = make_node("ImageScaleBy", **scaled)
            views = {"crop": ["crop", 0], "zoomed": ["big", 0], "resampling": "bicubic"}
            prompt["loop"]["inputs"] = {"upscale_model": ["model", 0], **views}
        executor("CLASSIC").run(prompt)
        return (kept[-1][name].movedim(-1, 1) for name in ("source", "image"))

    return run


def test_upscale_step_gives_what_the_network_gives(teacher, run):
    lq, sr = run("CoZUpscaleStep")
    with torch.inference_mode():
        assert torch.allclose(sr, teacher(lq).clamp(0, 1), atol=1e-4)


def test_full_image_shows_its_input(run):
    lq, sr = run("CoZFullImage", **TILED | {"tile": 96, "overlap": 32})
    assert sr.shape[-2:] == (4 * SIDE, 4 * SIDE)
    assert measure_psnr(F.avg_pool2d(sr, 4), lq) > 25


def test_chain_loop_shows_its_input(run):
    lq, sr = run("CoZChainLoop", steps=1, size=SIDE, center_x=0.5, center_y=0.5)
    window = lq[..., 12:20, 12:20]
    assert sr.shape[-2:] == (SIDE, SIDE)
    assert measure_psnr(F.avg_pool2d(sr, 4), window) > 25
