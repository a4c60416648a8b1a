"""ControlNets in CoZ Refine Step, Chain Loop and Full-Image SR: as ComfyUI's own Apply ControlNet."""

import re

import numpy as np
import pytest
import torch

from coz.chain.zoom_chain import derive_step_seed
from coz.tiles.plan import cut_tile_view, plan_tiles
from tests.support.images import noise
from tests.support.small_models import SD15, small_control_net, small_sd2

from .prompts import OWN_SAMPLING, as_full_image, make_node, steps_run


@pytest.fixture
def refine(node, own_models):
    """CoZ Refine Step of the small model on an image."""

    def run(image, texts=own_models.texts, model=own_models.model, **inputs):
        settings = {"steps": 3, "seed": 5} | OWN_SAMPLING | inputs
        given = model, own_models.vae, *texts, image
        with torch.inference_mode():
            return node("CoZRefineStep").execute(*given, **settings)[0]

    return run


@pytest.fixture
def apply_by_hand(node, own_models):
    """The host's own Apply ControlNet on the texts."""

    def run(image, strength, end, net=own_models.control_net, texts=own_models.texts):
        apply = node("ControlNetApplyAdvanced")().apply_controlnet
        return apply(*texts, net, image, strength, 0.0, end, vae=own_models.vae)

    return run


def draw_image(b, h, w):
    return noise(b, h, w, 3, seed=1)


@pytest.mark.parametrize(
    ("shape", "strength", "end", "cfg"),
    [((1, 32, 48), 0.6, 1.0, 3.0), ((2, 32, 32), 1.7, 0.7, 1.0)],
)
def test_a_step_is_that_of_apply_controlnet(
    refine, apply_by_hand, own_models, shape, strength, end, cfg
):
    image = draw_image(*shape)
    settings = {
        "control_net": own_models.control_net,
        "control_strength": strength,
        "control_end": end,
    }
    found = refine(image, cfg=cfg, **settings)
    assert torch.equal(found, refine(image, apply_by_hand(image, strength, end), cfg=cfg))
    assert (found - refine(image, cfg=cfg)).abs().max() > 1e-3
    if end < 1:
        to_the_end = refine(image, cfg=cfg, **settings | {"control_end": 1.0})
        assert (found - to_the_end).abs().max() > 1e-3


def test_a_hint_of_odd_sides_is_padded_as_the_view(refine, apply_by_hand, own_models):
    image = draw_image(1, 37, 53)
    padded = torch.from_numpy(np.pad(image, [(0, 0), (0, 11), (0, 11), (0, 0)], mode="reflect"))
    found = refine(image, control_net=own_models.control_net)
    assert torch.equal(found, refine(image, apply_by_hand(padded, 0.6, 1.0)))
    # The host's node on the view as it is stretches the hint.
    assert not torch.equal(found, refine(image, apply_by_hand(image, 0.6, 1.0)))


@pytest.mark.parametrize(
    "inputs", [{"control_strength": 0.0}, {"control_hint": "none"}, {"control_net": None}], ids=str
)
def test_a_control_net_without_effect_leaves_the_bytes(refine, own_models, inputs):
    image = draw_image(1, 32, 32)
    found = refine(image, **{"control_net": own_models.control_net} | inputs)
    assert torch.equal(found, refine(image))


def test_a_union_control_net_takes_its_type_from_the_hosts_node(node, refine, apply_by_hand):
    # The host's layer that reads the type has this width, whatever that of the others is.
    shape = SD15 | {"model_channels": 320}
    model = small_sd2(family="SD15", **shape)
    union = small_control_net(union_controlnet_num_control_type=8, **shape)
    image = draw_image(1, 32, 32)
    results = []
    for kind in ("tile", "depth"):
        net = node("SetUnionControlNetType").execute(union, kind)[0]
        results.append(refine(image, model=model, control_net=net, steps=1))
        texts = apply_by_hand(image, 0.6, 1.0, net)
        assert torch.equal(results[-1], refine(image, texts, model=model, steps=1))
    assert not torch.equal(*results)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"control_strength": 10.5}, "control_strength must be 0 to 10, got 10.5"),
        ({"control_strength": float("nan")}, "control_strength must be 0 to 10, got nan"),
        ({"control_end": -0.5}, "control_end must be 0 to 1, got -0.5"),
    ],
)
def test_a_linked_value_beyond_its_limits_is_named(refine, own_models, inputs, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        refine(draw_image(1, 16, 16), control_net=own_models.control_net, **inputs)


@pytest.fixture
def sdxl():
    shape = {"context_dim": 2048, "adm_in_channels": 2816, "num_classes": "sequential"}
    return small_sd2(family="SDXL", **shape)


def test_a_control_net_of_another_family_is_refused(refine, own_models, sdxl, sd3):
    import comfy.controlnet
    import comfy.latent_formats

    lora = comfy.controlnet.ControlLora({"input_blocks.4.attn2.to_k.down": torch.zeros(4, 2048)})
    for_sd3 = comfy.controlnet.ControlBase()
    for_sd3.latent_format = comfy.latent_formats.SD3()
    of_sd15 = small_control_net(context_dim=768)
    wide = "is for models whose texts have 4096 values per token, but model is SDXL"
    for net, model, message in (
        (of_sd15, sdxl, "is for SD15, but model is SDXL: load a ControlNet .* SDXL"),
        (small_control_net(context_dim=1024), sdxl, "is for SD20, but model is SDXL"),
        (lora, own_models.model, "is for SDXL, but model is SD15"),
        (own_models.control_net, sdxl, wide),
        (of_sd15, sd3.model, "is for SD15, but model is SD3"),
        (for_sd3, sdxl, "is for SD3, but model is SDXL"),
    ):
        with pytest.raises(ValueError, match=f"^control_net {message}"):
            refine(draw_image(1, 16, 16), model=model, control_net=net)


@pytest.fixture
def encode(node, own_models):
    def run(*texts):
        with torch.inference_mode():
            return [node("CLIPTextEncode")().encode(own_models.clip, text)[0] for text in texts]

    return run


def test_a_step_of_chain_loop_is_the_hosts_nodes(
    executor, keep, node, refine, encode, apply_by_hand, own_prompt
):
    executor("CLASSIC").run(own_prompt(steps=2, seed=7, backbone={"control_strength": 0.8}))
    (chain,) = keep
    picture = node("CoZSamplePicture").execute("astronaut.png")[0]
    frame, _, *center = node("CoZFitImage").execute(picture, "native pixels", 64, 0.3, 0.7).args
    for i in (1, 2):
        zoomed, *_, x, y = node("CoZCropCenterZoom").execute(frame, 4.0, *center, "bicubic").args
        texts = apply_by_hand(zoomed, 0.8, 1.0, texts=encode("fur", "blurry"))
        frame, center = refine(zoomed, texts, steps=2, seed=derive_step_seed(7, i)), (x, y)
        assert torch.equal(chain["scales"][i : i + 1], frame)


@pytest.mark.parametrize("chosen", [{"control_hint": "none"}, {"control_strength": 0.0}], ids=str)
def test_a_loop_without_effect_of_its_control_net_is_that_without(host, keep, own_prompt, chosen):
    assert steps_run(host.run(own_prompt(steps=1, backbone={"control_net": None}), "scales")) == [1]
    assert steps_run(host.run(own_prompt(steps=1, backbone=chosen), "scales")) == []
    assert torch.equal(keep[0]["image"], keep[-1]["image"])


def test_each_tile_sees_its_own_view(executor, keep, give, own_prompt, before):
    import comfy.sample

    picture = draw_image(1, 24, 40)
    give("TestPicture", "IMAGE", picture)
    hints = []

    def record(*arguments, **options):
        (control,) = {text[0][1]["control"] for text in arguments[6:8]}  # positive, negative
        hints.append((control.cond_hint_original, control.strength, control.timestep_percent_range))

    before(comfy.sample, "sample", record)
    prompt = as_full_image(own_prompt(), tile=64, overlap=16)
    prompt["source"] = make_node("TestPicture")
    executor("CLASSIC").run(prompt)
    assert keep[0]["image"].shape == (1, 96, 160, 3)
    layout = plan_tiles(24, 40, 4.0, 64, 16)
    views = [cut_tile_view(picture.movedim(-1, 1), layout, each) for each in layout.list_windows()]
    assert len(views) == len(hints) > 1
    for view, (hint, *settings) in zip(views, hints, strict=True):
        assert torch.equal(hint, view.clamp(0, 1))
        assert settings == [0.6, (0.0, 1.0)]


@pytest.mark.parametrize("node_id", ["CoZChainLoop", "CoZFullImage"])
def test_another_family_is_refused_before_the_work(host, keep, give, own_prompt, sdxl, node_id):
    prompt = own_prompt(steps=2)
    give("Test_model", "MODEL", sdxl)
    with pytest.raises(RuntimeError, match=r"control_net is for .* but model is SDXL"):
        host.run(prompt if node_id == "CoZChainLoop" else as_full_image(prompt))
    ran = [data["node"] for event, data in host.server.sent if event == "executing"]
    assert any(str(name).endswith("coz_families") for name in ran)
    assert not re.search("coz_(zoom|sr|tiles|prompts)", str(ran))


def test_another_model_leaves_what_is_before_it(host, keep, give, own_prompt, own_models):
    host.run(own_prompt(steps=1), "scales")
    give("Test_model", "MODEL", own_models.model.clone())
    ran = host.run(own_prompt(steps=1), "scales")
    assert (steps_run(ran, "zoom"), steps_run(ran)) == ([], [1])


def test_another_model_leaves_the_texts_of_tiles(host, keep, give, own_prompt, own_models):
    give("TestPicture", "IMAGE", draw_image(1, 16, 16))

    def run():
        prompt = as_full_image(own_prompt()) | {"source": make_node("TestPicture")}
        return host.run(prompt, "scales")

    run()
    give("Test_model", "MODEL", own_models.model.clone())
    ran = run()
    assert (steps_run(ran, "prompts"), steps_run(ran, "tiles")) == ([], [1])
