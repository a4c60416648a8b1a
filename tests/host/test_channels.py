"""Upscale models and pictures that are not three channels of 0 to 1, in the host's real executor."""

import pytest
import torch

from coz.color.align import LUMA_WEIGHTS
from coz.resample import resize
from tests.support.images import noise

from .prompts import as_full_image, chain_prompt, kept_prompt, make_node

HDR = (
    "image holds values below 0 or above 1, as HDR images do: they are clipped. To keep them, "
    "tone-map the image to 0 to 1 before this node"
)
GREY = (
    "The upscale model grey.safetensors (ESRGAN) is a gray model: it upscales the brightness, and "
    "bicubic enlarges the colors"
)
PICTURE = noise(1, 16, 24, 3) * 0.6 + 0.2


@pytest.fixture(scope="module")
def esrgan(load_upscale_model):
    """Loads a small ESRGAN of random weights with so many channels in and out, by its file's name."""
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    def load(name, channels_in, channels_out):
        torch.manual_seed(0)
        sizes = {"num_filters": 8, "num_blocks": 1, "scale": 4}
        network = RRDBNet(in_nc=channels_in, out_nc=channels_out, **sizes)
        *_, weight, bias = network.state_dict().values()
        weight.mul_(0.1)
        bias.fill_(0.5)  # else the results are cut at 0
        return load_upscale_model(name, network)

    return load


def pictured(prompt, model="coz_lite_x4.safetensors"):
    """The prompt with TestPicture and with a model."""
    prompt["source"] = make_node("TestPicture")
    prompt["model"]["inputs"]["model_name"] = model
    return prompt


def full_prompt(**inputs):
    """A Full-Image SR of small tiles."""
    return as_full_image(kept_prompt(**inputs), tile=64, overlap=8)


def step_prompt():
    """CoZ Upscale-Model Step on the whole picture."""
    prompt = chain_prompt()
    scaled = {"upscale_method": "bicubic", "scale_by": 4.0}
    prompt["big"] = make_node("ImageScaleBy", image=["source", 0], **scaled)
    links = {"upscale_model": ["model", 0], "crop": ["source", 0], "zoomed": ["big", 0]}
    prompt["loop"] = make_node("CoZUpscaleStep", resampling="bicubic", **links)
    prompt["scales"] = make_node("TestKeep", image=["loop", 0])
    return prompt


def ensembled(prompt):
    """The prompt with a CoZ Self-Ensemble behind its model."""
    prompt["ensemble"] = make_node("CoZSelfEnsemble", upscale_model=["model", 0])
    inputs = prompt["loop"]["inputs"]
    name = next(key for key in inputs if key.endswith("upscale_model"))
    inputs[name] = ["ensemble", 0]
    return prompt


def lines_of(host, text):
    """The lines on the loop that hold the text, and the last line on it."""
    on_loop = [shown for node, shown in host.notices if node == "loop"]
    return [shown for shown in on_loop if text in shown], on_loop[-1] if on_loop else ""


def luma(image):
    return (image * torch.tensor(LUMA_WEIGHTS)).sum(-1, keepdim=True)


@pytest.mark.parametrize("is_ensemble", [False, True], ids=["alone", "self-ensemble"])
@pytest.mark.parametrize("prompt", [step_prompt, lambda: full_prompt(color_fix="none")])
def test_a_grey_model_enlarges_the_luma(host, keep, give, esrgan, prompt, is_ensemble):
    model = esrgan("grey", 1, 1)
    give("TestPicture", "IMAGE", PICTURE)
    prompt = pictured(prompt(), "grey.safetensors")
    host.run(ensembled(prompt) if is_ensemble else prompt)
    sr = keep[-1]["image"]
    plain = resize(PICTURE.movedim(-1, 1), 64, 96).movedim(1, -1)
    # The step's model sees zeros around the crop.
    inside = ..., slice(8, -8), slice(8, -8), slice(None)
    if prompt["loop"]["class_type"] == "CoZUpscaleStep" and not is_ensemble:
        with torch.inference_mode():
            grey = model(luma(PICTURE).movedim(-1, 1)).movedim(1, -1)
        expected = (plain + grey - luma(plain)).clamp(0, 1)
        torch.testing.assert_close(sr, expected, rtol=0, atol=1e-5)
    uncut = ((sr > 0) & (sr < 1)).all(-1, keepdim=True)[inside]
    chroma, expected = (sr - luma(sr))[inside], (plain - luma(plain))[inside]
    assert uncut.float().mean() > 0.2
    torch.testing.assert_close(chroma * uncut, expected * uncut, rtol=0, atol=1e-5)
    node = "ensemble" if is_ensemble else "loop"
    told = [text for shown_on, text in host.notices if shown_on == node]
    assert GREY in "\n".join(told).split("\n")


def test_a_chain_tells_of_a_grey_model_once_and_at_its_end(host, keep, give, esrgan, caplog):
    esrgan("grey", 1, 1)
    give("TestPicture", "IMAGE", PICTURE)
    host.run(pictured(kept_prompt(steps=3, size=16), "grey.safetensors"))
    assert caplog.messages.count(GREY) == 1
    assert lines_of(host, GREY)[1].split("\n")[-1] == GREY


@pytest.mark.parametrize(("channels_in", "channels_out"), [(4, 4), (1, 3), (3, 1)])
@pytest.mark.parametrize(
    "prompt",
    [step_prompt, full_prompt, lambda: ensembled(step_prompt()), lambda: kept_prompt(size=16)],
)
def test_other_channels_are_refused_by_name(
    executor, keep, give, esrgan, prompt, channels_in, channels_out
):
    esrgan("odd", channels_in, channels_out)
    give("TestPicture", "IMAGE", PICTURE)
    sentence = (
        rf"The upscale model odd\.safetensors \(ESRGAN\) takes images of {channels_in} channels and "
        rf"gives {channels_out}, but images here have 3"
    )
    with pytest.raises(RuntimeError, match=sentence):
        executor("CLASSIC").run(pictured(prompt(), "odd.safetensors"))


@pytest.fixture
def make_nan(monkeypatch):
    """Makes the upscale model's n-th call from now on give a NaN."""
    import spandrel

    whole = spandrel.ImageModelDescriptor.__call__

    def make(call):
        calls = []

        def spoiled(self, image):
            calls.append(image)
            sr = whole(self, image)
            if len(calls) == call:
                sr[:] = float("nan")
            return sr

        monkeypatch.setattr(spandrel.ImageModelDescriptor, "__call__", spoiled)

    return make


def test_nan_of_a_tile_names_model_tile_and_pass(host, keep, give, make_nan):
    give("TestPicture", "IMAGE", PICTURE)
    host.run(pictured(full_prompt()))  # 2 tiles; measures the model
    sentence = (
        r"The upscale model coz_lite_x4\.safetensors \(.*\) made \d+ values that are NaN or infinite, "
        r"which would give a black image\. .*\(This was in pass 1, tile 2 of 2\.\)"
    )
    make_nan(2)
    with pytest.raises(RuntimeError, match=sentence):
        host.run(pictured(full_prompt(color_fix="none")))


def test_nan_of_a_chain_names_step_and_model(host, keep, give, make_nan):
    give("TestPicture", "IMAGE", PICTURE)
    host.run(pictured(kept_prompt(steps=1, size=16)))
    sentence = r"In step 2, the upscale model coz_lite_x4\.safetensors \(.*\) made \d+ values"
    make_nan(1)
    with pytest.raises(RuntimeError, match=sentence):
        host.run(pictured(kept_prompt(steps=3, size=16)))


@pytest.mark.parametrize(
    ("low", "high", "is_told"),
    [
        pytest.param(0, 4, True, id="HDR"),
        pytest.param(-0.2, 1, True, id="negative"),
        pytest.param(0, 1.0000002, False, id="rounding"),
        pytest.param(-3 / 32, 1 + 3 / 32, False, id="bicubic overshoot"),
    ],
)
def test_values_that_are_cut_are_told_once(executor, keep, give, caplog, low, high, is_told):
    image = PICTURE.clone()
    image[:, 0, 0], image[:, 0, 1] = low, high
    give("TestPicture", "IMAGE", image)
    for prompt in (kept_prompt(steps=2, size=16), full_prompt()):
        host = executor("CLASSIC")
        caplog.clear()
        host.run(pictured(prompt))
        assert caplog.messages.count(HDR) == is_told
        assert (HDR in lines_of(host, HDR)[1].split("\n")) == is_told
