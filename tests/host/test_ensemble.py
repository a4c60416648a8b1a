"""CoZ Self-Ensemble wherever an upscale model goes: the nodes of three hosts, Chain Loop, packs."""

import copy
import importlib.util
import os
from functools import partial

import pytest
import torch
from PIL import Image
from spandrel import ImageModelDescriptor, SizeRequirements

from coz.render.pillow import from_pillow
from coz.resample import resize
from tests.support.images import noise
from tests.test_ensemble import mean_of_eight
from tools.host import ROOT, host_path

from .prompts import kept_prompt, make_node, steps_run


@pytest.fixture
def ensemble(node):
    return lambda upscale_model: node("CoZSelfEnsemble").execute(upscale_model)[0]


@pytest.fixture
def model(upscale_model):
    return upscale_model(4)


@pytest.fixture
def calls(model):
    """Shapes that reach the network."""
    shapes = []
    handle = model.model.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    yield shapes
    handle.remove()


@pytest.fixture(scope="module", params=["this host", "0.27.0"])
def upscale_nodes(request, pack):
    """The host's own upscale nodes, of two versions: only the newest gives a model a patcher."""
    import comfy_extras.nodes_upscale_model

    if request.param == "this host":
        return comfy_extras.nodes_upscale_model
    if "COMFYUI_PATH" in os.environ:
        pytest.skip("the older hosts are installed beside the pinned one only")
    path = host_path(request.param) / "comfy_extras" / "nodes_upscale_model.py"
    spec = importlib.util.spec_from_file_location(f"upscale_{request.param}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("shape", [(2, 20, 33, 3), (1, 1, 1, 3), (1, 20, 1100, 3)])
def test_the_hosts_upscale_node_gives_the_mean_of_eight(
    upscale_nodes, upscale_model, ensemble, shape
):
    """The last picture is wider than the host's tile: its tiles are oblong."""
    import comfy.utils

    upscale_model(4)  # writes the file
    loaded = upscale_nodes.UpscaleModelLoader.execute("tiny_x4.safetensors")[0]
    image = noise(*shape)
    alone = upscale_nodes.ImageUpscaleWithModel.execute(loaded, image)[0]
    result = upscale_nodes.ImageUpscaleWithModel.execute(ensemble(loaded), image)[0]
    tiles = {"tile_x": 512, "tile_y": 512, "overlap": 32, "upscale_amount": 4}
    by_hand = partial(mean_of_eight, loaded)
    expected = comfy.utils.tiled_scale(image.movedim(-1, 1), by_hand, **tiles).movedim(1, -1)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)
    assert torch.equal(upscale_nodes.ImageUpscaleWithModel.execute(loaded, image)[0], alone)
    assert shape == (1, 1, 1, 3) or not torch.allclose(result, alone, atol=1e-4)


@pytest.mark.since("0.30")  # from then on the host gives an upscale model a patcher
def test_the_weights_are_loaded_once_and_managed_by_the_host(model, ensemble, node, mm):
    ensembled = ensemble(model)
    for each in (ensembled, model, ensembled):
        node("ImageUpscaleWithModel").execute(each, noise(1, 8, 8, 3))
    assert ensembled.model is model.model
    assert ensembled.patcher is model.patcher
    loaded = [each.model for each in mm.current_loaded_models]
    assert [patcher for patcher in loaded if patcher.model is model.model] == [model.patcher]


def test_all_that_packs_read_of_a_model_is_the_given_models(model, ensemble):
    ensembled = ensemble(model)
    assert isinstance(ensembled, ImageModelDescriptor)
    names = {*vars(model), *dir(ImageModelDescriptor)}
    names = {name for name in names if not name.startswith("__")}
    assert names >= {"scale", "input_channels", "size_requirements", "tiling", "model", "purpose"}
    for name in names:
        if name in vars(model) or isinstance(getattr(ImageModelDescriptor, name), property):
            assert getattr(ensembled, name) == getattr(model, name), name


def test_moving_it_moves_the_network_and_keeps_the_ensemble(upscale_model, ensemble):
    ensembled = ensemble(upscale_model(2))
    assert ensembled.to("meta").eval() is ensembled
    assert ensembled.device == ensembled.wrapped.device == torch.device("meta")


def test_the_given_model_is_not_changed(model, ensemble):
    before, weights = dict(vars(model)), copy.deepcopy(model.model.state_dict())
    alone = model(noise(1, 3, 9, 5))
    ensembled = ensemble(model)
    ensembled(noise(1, 3, 9, 5))
    ensembled.scale, ensembled.note = 7, "a pack's"
    assert vars(model) == before
    assert type(model) is ImageModelDescriptor
    assert torch.equal(model(noise(1, 3, 9, 5)), alone)
    for name, weight in model.model.state_dict().items():
        assert torch.equal(weight, weights[name])


def test_it_takes_eight_times_the_work_and_two_in_a_row_no_more(model, ensemble, calls):
    image = noise(1, 3, 9, 5)
    once = ensemble(model)(image)
    assert sorted(calls) == [(1, 3, 5, 9)] * 4 + [(1, 3, 9, 5)] * 4
    calls.clear()
    assert torch.equal(ensemble(ensemble(model))(image), once)
    assert len(calls) == 8


def test_copies_of_it_work(model, ensemble):
    ensembled, image = ensemble(model), noise(1, 3, 9, 5)
    assert torch.equal(copy.copy(ensembled)(image), ensembled(image))
    assert torch.equal(copy.deepcopy(ensembled)(image), ensembled(image))


def test_sizes_that_the_network_cannot_take_are_padded(model, ensemble):
    picky = copy.copy(model)
    picky.size_requirements = SizeRequirements(minimum=16, multiple_of=8)
    image = noise(1, 3, 19, 30)
    result = ensemble(picky)(image)
    assert result.shape == (1, 3, 76, 120)
    torch.testing.assert_close(result, mean_of_eight(picky, image), atol=1e-6, rtol=0)


def test_an_interrupt_stops_between_the_eight(model, ensemble, node, calls, mm):
    def interrupt(*_):
        if len(calls) == 3:
            mm.interrupt_current_processing()

    with model.model.register_forward_pre_hook(interrupt):
        with pytest.raises(mm.InterruptProcessingException):
            node("ImageUpscaleWithModel").execute(ensemble(model), noise(1, 8, 8, 3))
    assert len(calls) == 3


def test_out_of_memory_makes_the_hosts_tiles_smaller(model, ensemble, node, calls):
    def refuse(_, args):
        if max(args[0].shape) > 256:
            raise torch.OutOfMemoryError("out of memory")

    with model.model.register_forward_pre_hook(refuse):
        result = node("ImageUpscaleWithModel").execute(ensemble(model), noise(1, 20, 300, 3))[0]
    assert result.shape == (1, 80, 1200, 3)
    assert result.isfinite().all()


def test_upscale_step_takes_it(model, ensemble, node):
    zoomed, crop, *_ = node("CoZCropCenterZoom").execute(noise(1, 64, 96, 3), 4.0, 0.5, 0.5).args
    sr = node("CoZUpscaleStep").execute(ensemble(model), crop, zoomed)[0]
    expected = mean_of_eight(model, crop.movedim(-1, 1)).movedim(1, -1).clamp(0, 1)
    torch.testing.assert_close(sr, expected, atol=1e-6, rtol=0)


def test_chain_loop_takes_it(host, keep):
    prompt = kept_prompt(model=("ensemble", 0), steps=1)
    prompt["ensemble"] = make_node("CoZSelfEnsemble", upscale_model=["model", 0])
    assert steps_run(host.run(prompt)) == [1]
    prompt["loop"]["inputs"]["steps"] = 2
    assert steps_run(host.run(prompt)) == [2]
    prompt["loop"]["inputs"]["backbone.upscale_model"] = ["model", 0]
    assert steps_run(host.run(prompt)) == [1, 2]
    one, two, plain = (values["chain"] for values in keep)
    assert two.models == plain.models == ("coz_lite_x4.safetensors",)
    assert torch.equal(one.frames[2], two.frames[2])
    assert not torch.allclose(two.frames[2], plain.frames[2], atol=1e-3)


@pytest.mark.parametrize("wrong", [None, "coz_lite_x4.safetensors", torch.nn.Conv2d(3, 3, 1)])
def test_what_is_no_upscale_model_is_refused(ensemble, wrong):
    with pytest.raises(ValueError, match=rf"got {type(wrong).__name__}\. Connect Load Upscale"):
        ensemble(wrong)


@pytest.mark.parametrize(("name", "least"), [("coz_lite_x4", 0.06), ("coz_lite_x4_texture", 0.16)])
def test_photographs_come_out_more_faithful(ensemble, node, name, least):
    """Reduced to a quarter and enlarged again, in dB; the help page has it for whole pictures."""

    def measure_psnr(upscale):
        inner = (upscale(resize(pictures, 48, 48).clamp(0, 1)) - pictures)[..., 4:-4, 4:-4]
        return -10 * torch.log10(inner.square().mean((1, 2, 3)))

    middles = []
    for path in sorted((ROOT / "pictures").glob("*.*g")):
        picture = from_pillow(Image.open(path).convert("RGB"))
        top, left = (picture.shape[2] - 192) // 2, (picture.shape[3] - 192) // 2
        middles.append(picture[..., top : top + 192, left : left + 192])
    pictures = torch.cat(middles)
    model = node("UpscaleModelLoader").execute(f"{name}.safetensors")[0]
    gain = measure_psnr(ensemble(model)) - measure_psnr(model)
    assert len(gain) == 5
    assert gain.min() > -0.01  # the middle of the rocket's picture is mostly plain sky
    assert gain.mean() > least
