"""CoZ SR Step and CoZ Refine Step in the host, with recorded results of diffusers and closed forms."""

from contextlib import nullcontext
from itertools import product

import pytest
import torch

from coz.detail.adaptive import score_complexity
from tests.oracles.record import read as read_recorded
from tests.oracles.sd3 import LATENT_SHIFTS, ODD_SHAPES, PLAIN_SHAPES, draw_image, name_case
from tests.support.images import noise
from tests.support.random_sd3 import draw_conditioning as conditioning
from tests.support.random_weights import relative_error
from tests.support.small_models import VARYING, make_vae, small_sd2


@pytest.fixture
def refine(node, sd3):
    """Runs CoZ Refine Step on the tiny SD3, on a small view by default."""

    def run(image=None, positive=None, negative=None, vae=sd3.vae, **settings):
        image = torch.rand(1, 16, 16, 3) if image is None else image
        positive = positive or conditioning()
        widgets = {"steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
        widgets |= {"denoise": 0.5, "seed": 0} | settings
        inputs = sd3.model, vae, positive, negative or positive, image
        with torch.inference_mode():
            return node("CoZRefineStep").execute(*inputs, **widgets)[0]

    return run


def assert_recorded(found, case):
    """As diffusers made it."""
    assert relative_error(found, read_recorded("sd3")[case]) < 1e-4


@pytest.mark.parametrize(
    ("latent_shift", "shape"),
    [*product(LATENT_SHIFTS, PLAIN_SHAPES), *(("reference", shape) for shape in ODD_SHAPES)],
)
def test_step_is_the_reference(step, sd3, latent_shift, shape):
    """Odd sizes are padded and cropped back."""
    found = step(sd3.model, sd3.vae, conditioning(), draw_image(shape), latent_shift)
    assert found.shape == shape
    assert_recorded(found, name_case("plain", shape, latent_shift))


def test_shift_modes_differ(step, sd3):
    image, positive = torch.rand(1, 32, 32, 3), conditioning()
    results = [
        step(sd3.model, sd3.vae, positive, image, mode)
        for mode in ("auto", "reference", "symmetric", "none")
    ]
    assert torch.equal(results[0], results[1])  # auto without a LoRA
    assert all(relative_error(results[i], results[j]) > 1e-2 for i, j in ((1, 2), (1, 3), (2, 3)))


def test_half_precision_input_and_repeat(step, sd3):
    image, positive = torch.rand(1, 32, 32, 3).half(), conditioning()
    before = image.clone()
    first = step(sd3.model, sd3.vae, positive, image)
    assert first.dtype == torch.float32
    assert torch.equal(first, step(sd3.model, sd3.vae, positive, image.float()))
    assert torch.equal(image, before)


@pytest.mark.parametrize("state", [{}, VARYING], ids=["eps", "v-prediction"])
def test_x0_of_discrete_models(step, vae_4, state):
    model = small_sd2(state, context_dim=768)
    image, positive = torch.rand(1, 32, 32, 3), conditioning(width=768)
    found = step(model, vae_4, positive, image)

    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alpha = torch.cumprod(1 - betas, 0)[-1]
    with torch.inference_mode():
        z = vae_4.encode(image) * 0.18215
        last = torch.tensor([999.0])
        output = model.model.diffusion_model(z, timesteps=last, context=positive[0][0])
    z, output = z.double(), output.double()
    if not state:
        x0 = (z - (1 - alpha).sqrt() * output) / alpha.sqrt()
    else:
        x0 = alpha.sqrt() * z - (1 - alpha).sqrt() * output
    with torch.inference_mode():
        expected = vae_4.decode((x0 / 0.18215).float())
    assert relative_error(found, expected) < 1e-4


def test_the_hosts_vae_of_4_channels_is_that_of_diffusers(vae_4):
    """With which ``test_x0_of_discrete_models`` computes."""
    with torch.inference_mode():
        latent = vae_4.encode(draw_image((1, 32, 32, 3)))
        image = vae_4.decode(read_recorded("sd3")["vae_4 latent"].flip(-1))
    assert_recorded(latent, "vae_4 latent")
    assert_recorded(image, "vae_4 image")


def test_a_text_without_pooled_values_is_named(refine, step, sd3):
    bare = [[conditioning()[0][0], {}]]
    with pytest.raises(ValueError, match="positive has no pooled values"):
        step(sd3.model, sd3.vae, bare, torch.rand(1, 16, 16, 3))
    with pytest.raises(ValueError, match="negative has no pooled values"):
        refine(negative=bare, cfg=2.0)


def test_other_family_s_text_is_named_where_it_is_used(refine, step, sd3):
    other = conditioning(width=768)
    with pytest.raises(ValueError, match="positive has 768 values per token, but model takes 4096"):
        step(sd3.model, sd3.vae, other, torch.rand(1, 32, 32, 3))
    assert refine(negative=other, cfg=1.0).shape == (1, 16, 16, 3)
    with pytest.raises(ValueError, match="negative has 768 values per token, but model takes 4096"):
        refine(negative=other, cfg=2.0)


def test_a_view_beyond_the_models_places_is_refused(refine, step, sd3, monkeypatch):
    """The host ends with an AssertionError of two numbers."""
    monkeypatch.setattr(sd3.model.model.diffusion_model, "pos_embed_max_size", 4)  # of 16 pixels
    view = torch.rand(1, 16, 80, 3)
    message = (
        "the view is 80 x 16 pixels, but model takes at most 64 along a side: lower size or tile"
    )
    with pytest.raises(ValueError, match=message):
        refine(view)
    with pytest.raises(ValueError, match=message):
        step(sd3.model, sd3.vae, conditioning(), view)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("encode", "VAE's encoder made .* NaN .*--fp32-vae"),
        ("network", "diffusion model made .* NaN .*--bf16-unet"),
        ("decode", "VAE's decoder made .* NaN .*--fp32-vae"),
    ],
)
def test_overflow_is_named(step, sd3, monkeypatch, part, message):
    network = sd3.vae.first_stage_model if part != "network" else sd3.model.model.diffusion_model
    name = part if part != "network" else "forward"
    original = getattr(network, name)

    def overflowing(*args, **kwargs):
        result = original(*args, **kwargs)
        result[..., 0] = float("nan")
        return result

    monkeypatch.setattr(network, name, overflowing)
    with pytest.raises(ValueError, match=message):
        step(sd3.model, sd3.vae, conditioning(), torch.rand(1, 32, 32, 3))


@pytest.mark.parametrize("part", ["encode", "decode"])
def test_vae_out_of_memory_falls_back_to_tiles(step, sd3, monkeypatch, part):
    image, positive = torch.rand(1, 64, 64, 3), conditioning()
    whole = step(sd3.model, sd3.vae, positive, image)
    network = sd3.vae.first_stage_model
    original = getattr(network, part)
    failures = [torch.OutOfMemoryError("injected")]

    def short_of_memory(*args, **kwargs):
        if failures:
            raise failures.pop()
        return original(*args, **kwargs)

    monkeypatch.setattr(network, part, short_of_memory)
    # One tile holds the whole picture, so only the blending's rounding differs.
    assert relative_error(step(sd3.model, sd3.vae, positive, image), whole) < 1e-3
    assert not failures


def test_refine_without_denoise_is_the_vae_alone(refine, sd3):
    image = torch.rand(1, 32, 48, 3)
    with torch.inference_mode():
        expected = sd3.vae.decode(sd3.vae.encode(image))
    assert torch.equal(refine(image, steps=4, denoise=0.0), expected)


@pytest.mark.parametrize("sampler", ["lcm", "euler_ancestral"])
def test_refine_takes_every_seed_of_its_schema(refine, sampler):
    # These samplers draw with a seed of one more.
    found = refine(steps=2, sampler_name=sampler, denoise=1.0, seed=2**64 - 1)
    assert found.shape == (1, 16, 16, 3)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"steps": 0}, r"steps \(sampling_steps\) must be 1 to 10000, got 0"),
        ({"cfg": float("inf")}, "cfg must be 0 to 100, got inf"),
        ({"denoise": float("nan")}, "denoise must be 0 to 1, got nan"),
        (
            {"steps": 2, "denoise": 5e-324},
            "denoise must be 0 or at least 2e-06 for 2 steps, got 4.94066e-324",
        ),
        # torchsde, which some samplers draw with, takes none below 0.
        (
            {"sampler_name": "dpmpp_sde", "seed": -1},
            "seed must be 0 to 18446744073709551615, got -1",
        ),
    ],
)
def test_refine_names_a_linked_value_beyond_its_limits(refine, settings, told):
    with pytest.raises(ValueError, match=f"^{told}$"):
        refine(**{"denoise": 1.0} | settings)


@pytest.mark.parametrize(
    ("steps", "denoise", "fails"), [(1, 1.0, True), (1, 0.5, False), (2, 1.0, False)]
)
def test_refine_names_a_scheduler_that_has_no_single_step(refine, steps, denoise, fails):
    settings = {"sampler_name": "dpmpp_sde", "scheduler": "kl_optimal"}
    expected = pytest.raises(ValueError, match="scheduler kl_optimal") if fails else nullcontext()
    with expected:
        assert refine(steps=steps, denoise=denoise, **settings).isfinite().all()


def test_refine_adapts_the_denoise_of_each_view(refine):
    flat, noisy = torch.full((1, 16, 16, 3), 0.5), noise(1, 16, 16, 3)
    batch = refine(torch.cat([flat, noisy, flat]), steps=2, denoise=0.5, adaptive=True)
    (score,) = score_complexity(noisy.movedim(-1, 1))
    assert score > 0.6
    simple = refine(flat, steps=2, denoise=0.4)
    complicated = refine(noisy, steps=2, denoise=0.5 * (1 + 0.3 * (score - 0.6) / 0.4))
    assert torch.equal(batch, torch.cat([simple, complicated, simple]))


def test_a_vae_of_videos_takes_a_batch_for_pictures(nodes_of, sd3):
    """Of Wan's and Qwen-Image's structure; the host takes a batch for the frames of one video."""
    import comfy.sd
    from comfy.ldm.wan.vae import WanVAE

    torch.manual_seed(0)
    network = WanVAE(16, 16, temperal_downsample=[False, True, True])
    weights = {  # the host's layers begin with none
        name: torch.randn_like(weight) / 10 for name, weight in network.state_dict().items()
    }
    vae = comfy.sd.VAE(sd=weights)
    pixels = nodes_of("host.latents")
    images = torch.rand(3, 3, 32, 48)
    with torch.inference_mode():
        latents = pixels.encode(vae, images, sd3.model)
        alone = [pixels.encode(vae, image, sd3.model) for image in images.split(1)]
        assert latents.shape == (3, 16, 1, 4, 6)
        assert torch.equal(latents, torch.cat(alone))
        assert pixels.decode(vae, latents, 30, 40).shape == (3, 30, 40, 3)


@pytest.fixture(scope="module")
def vae_with_outputs(sd3):
    """The host's AutoencoderKL with so many output channels; those that two share are the same."""

    def make(channels):
        vae = make_vae({}, 16, out_ch=channels, ch_mult=[1, 1, 1, 1], num_res_blocks=1)
        generator = torch.Generator().manual_seed(0)
        for name, weight in vae.first_stage_model.state_dict().items():
            if name.startswith("decoder.conv_out"):
                weight.copy_(torch.randn(4, *weight.shape[1:], generator=generator)[:channels] / 9)
            else:
                weight.copy_(torch.randn(weight.shape, generator=generator) / 9)
        return vae

    return make


@pytest.mark.parametrize(("channels", "expected"), [(4, [0, 1, 2]), (1, [0, 0, 0]), (2, [0] * 3)])
def test_results_have_three_channels_whatever_the_vae_decodes(
    refine, step, sd3, vae_with_outputs, channels, expected
):
    image, positive = torch.rand(1, 30, 40, 3), conditioning()
    rgb = step(sd3.model, vae_with_outputs(3), positive, image)
    assert rgb.shape == (1, 30, 40, 3)
    assert rgb.std() > 0.05
    assert not torch.equal(rgb[..., 0], rgb[..., 1])
    vae = vae_with_outputs(channels)
    assert torch.equal(step(sd3.model, vae, positive, image), rgb[..., expected])
    assert refine(image, vae=vae).shape == (1, 30, 40, 3)
