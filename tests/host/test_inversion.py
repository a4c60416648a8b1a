"""CoZ InvSR Step in the host, against results of InvSR's own pipeline on random weights."""

import logging
import zlib
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from coz.chain.zoom_chain import derive_step_seed
from coz.geometry import Target, plan_steps
from coz.networks.noise_predictor import NoisePredictorSizes
from tests.conftest import DATA
from tests.support.images import noise
from tests.support.random_weights import read_layouts, relative_error
from tests.support.small_models import VARYING, small_predictor, small_sd2, small_sd3, small_vae
from tools.evaluate.arms import read_arms
from tools.evaluate.prompts import make_prompts
from tools.host import ROOT
from tools.host.workflow import find_node, read_prompt

from .prompts import as_full_image, kept_prompt, make_node, steps_run

GOLDEN = DATA / "invsr"
REDUCED = NoisePredictorSizes((32, 64), 3, 48, groups=8, head_width=16)
ROUNDING = 1e-5  # relative; other libraries sum float32 products in another order
LATENT_SCALE = 0.18215  # of SD's latents; ComfyUI's samplers return them without


def draw_weights(layout, prefix):
    """The weights of a network of the recorded run: drawn from the names of the tensors."""
    weights = {}
    for name, shape in read_layouts()[layout].items():
        generator = torch.Generator().manual_seed(zlib.crc32((prefix + name).encode()))
        noise = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            weights[name] = noise / noise[0].numel() ** 0.5
        else:
            weights[name] = 1 + 0.1 * noise if name.endswith("weight") else 0.05 * noise
    return weights


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "pipeline_golden.safetensors")


@pytest.fixture(scope="module")
def invsr(node, nodes_of):
    """SD 2.1 of a fifth of its width with the reduced predictor, as MODEL and VAE."""
    import comfy.sd
    import comfy.utils
    import folder_paths

    autoencoder = draw_weights("invsr_vae", "vae.")
    autoencoder["quant_conv.bias"][4:] = -100  # so that a sampled latent is the mean
    vae = comfy.sd.VAE(sd=autoencoder, dtype=torch.float32)
    model = small_sd2(
        num_res_blocks=[2] * 4,
        channel_mult=[1, 2, 4, 4],
        transformer_depth=[1] * 6 + [0] * 2,
        transformer_depth_output=[1] * 9 + [0] * 3,
        context_dim=64,
    )
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    state = {names[name]: weight for name, weight in draw_weights("invsr_unet", "unet.").items()}
    model.model.diffusion_model.load_state_dict(state)
    folder_paths.add_model_folder_path("model_patches", str(GOLDEN))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes_of("host.inversion"), "read_sizes", lambda weights: REDUCED)
        with_predictor = node("CoZLoadInvSR").execute(model, "noise_predictor_reduced.safetensors")
    return SimpleNamespace(model=with_predictor[0], bare=model, vae=vae, encoded={})


@pytest.fixture
def step(node, invsr, golden, monkeypatch):
    """CoZ InvSR Step on the recorded input, with the recorded noise: (image, latent)."""
    import comfy.sample

    denoised = []
    sample = comfy.sample.sample_custom

    def record(*arguments, **options):
        denoised.append(sample(*arguments, **options))
        return denoised[-1]

    encode = invsr.vae.encode

    def encode_once(image):
        """All cases encode the same image, and that takes a second."""
        key = image.numpy().tobytes()
        if key not in invsr.encoded:
            invsr.encoded[key] = encode(image)
        return invsr.encoded[key].clone()

    monkeypatch.setattr(invsr.vae, "encode", encode_once)
    monkeypatch.setattr(comfy.sample, "sample_custom", record)
    monkeypatch.setattr(comfy.sample, "prepare_noise", lambda *_: golden["eps"])
    crop = golden["lq"].movedim(1, -1)
    zoomed = torch.zeros(1, 128, 192, 3)

    def run(**inputs):
        texts = [[[golden[name], {}]] for name in ("prompt_embeds", "negative_embeds")]
        with torch.inference_mode():
            given = invsr.model, invsr.vae, *texts, crop, zoomed
            image = node("CoZInvSRStep").execute(*given, **inputs)[0]
        return image, denoised[-1] * LATENT_SCALE

    return run


@pytest.mark.parametrize(
    ("steps", "cfg", "recorded"),
    [
        (1, 1.0, "latent_200"),
        (2, 1.0, "latent_200_100"),
        (3, 1.0, "latent_200_100_50"),
        (4, 1.0, "latent_200_150_100_50"),
        (5, 1.0, "latent_250_200_150_100_50"),
        (2, 2.0, "latent_200_100_cfg2"),
    ],
)
def test_latents_are_invsrs(step, golden, invsr, monkeypatch, steps, cfg, recorded):
    # The decoder, which the next test compares, takes most of the time.
    monkeypatch.setattr(invsr.vae, "decode", lambda latent: torch.zeros(1, 128, 192, 3))
    assert relative_error(step(sampling_steps=steps, cfg=cfg)[1], golden[recorded]) < ROUNDING


def test_image_is_invsrs(step, golden):
    image, _ = step()
    assert image.shape == (1, 128, 192, 3)
    # 1e-4 of white: ten times the rounding of the latent, which the decoder amplifies.
    assert (image.movedim(-1, 1) - golden["image_200"]).abs().max() < 1e-4


@pytest.fixture(scope="module")
def small(node, model_folder, own_models):
    """A small SD2 of random weights with its predictor, its VAE, and texts for it."""
    folder = model_folder("model_patches")
    save_file(small_predictor(), folder / "small_predictor.safetensors")
    save_file({"transformer.lora_A.weight": torch.rand(4, 8)}, folder / "lora.safetensors")
    narrow = {
        name: weight[:, :1].contiguous() if name.endswith("conv_in.weight") else weight
        for name, weight in small_predictor().items()
    }
    save_file(narrow, folder / "narrow.safetensors")
    bare = small_sd2()
    model = node("CoZLoadInvSR").execute(bare, "small_predictor.safetensors")[0]
    parts = {name: getattr(own_models, name) for name in ("vae", "clip", "texts")}
    return SimpleNamespace(model=model, bare=bare, **parts)


@pytest.fixture
def sharpen(node, small):
    """CoZ InvSR Step of the small model on a crop; ``zoomed`` is of four times its size."""

    def run(crop, zoomed=None, model=small.model, vae=small.vae, **inputs):
        b, h, w, _ = crop.shape
        zoomed = torch.zeros(b, 4 * h, 4 * w, 3) if zoomed is None else zoomed
        with torch.inference_mode():
            return node("CoZInvSRStep").execute(model, vae, *small.texts, crop, zoomed, **inputs)[0]

    return run


def draw_views(b, h, w):
    return noise(b, h, w, 3, seed=1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lora.safetensors", "expected InvSR's noise predictor, but found .*lora_A"),
        ("narrow.safetensors", r"expected encoder.conv_in.weight to be \(64, 3, 3, 3\), but found"),
        ("none.pth", "none.pth is not in models/model_patches or models/upscale_models"),
    ],
)
def test_other_files_are_refused(node, small, name, message):
    with pytest.raises(ValueError, match=message):
        node("CoZLoadInvSR").execute(small.model, name)


def test_other_models_are_refused(node, small):
    for model, found in (
        (small_sd2(VARYING), r"SD20 \(v-prediction\)"),
        (small_sd2(family="SD15"), r"SD15 \(eps\)"),
        (small_sd2(family="SDXL"), r"SDXL \(eps\)"),
        (small_sd3(), "SD3"),
    ):
        with pytest.raises(ValueError, match=f"is for SD-Turbo, .* but model is {found}"):
            node("CoZLoadInvSR").execute(model, "small_predictor.safetensors")


NUMBERS = "crop holds {} images and zoomed {}: connect both outputs of the same Crop"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: {"model": small_sd2()}, "SD20 and has no noise predictor: connect the model of"),
        (lambda: {"vae": small_vae(16)}, "vae makes latents of 16 channels, but model takes 4"),
        (
            lambda: {"sampling_steps": 5, "start": "100"},
            "sampling_steps from 1 to 2 with start 100, but found 5",
        ),
        (
            lambda: {"crop": torch.full((1, 8, 8, 3), torch.nan)},
            "crop holds 192 values that are NaN",
        ),
        (lambda: {"crop": draw_views(2, 8, 8)}, NUMBERS.format(2, 1)),
        (lambda: {"zoomed": torch.zeros(2, 32, 32, 3)}, NUMBERS.format(1, 2)),
    ],
    ids=["no predictor", "VAE", "steps", "NaN", "crops", "views"],
)
def test_what_does_not_fit_is_refused(sharpen, make, message):
    inputs = {"crop": draw_views(1, 8, 8), "zoomed": torch.zeros(1, 32, 32, 3)} | make()
    with pytest.raises(ValueError, match=message):
        sharpen(**inputs)


def test_memory_that_runs_out_says_what_to_do(sharpen, monkeypatch):
    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("comfy.sample.sample_custom", fail)
    with pytest.raises(torch.OutOfMemoryError, match="A view of this size did not fit"):
        sharpen(draw_views(1, 8, 8))


@pytest.mark.parametrize(
    ("crop", "view"),
    [((1, 1), (4, 4)), ((7, 13), (28, 52)), ((2, 500), (8, 2000)), ((9, 9), (33, 35))],
)
def test_any_size_works(sharpen, crop, view):
    image = sharpen(draw_views(1, *crop), torch.zeros(1, *view, 3))
    assert image.shape == (1, *view, 3)
    assert image.isfinite().all()


@pytest.mark.parametrize("adaptive", [False, True])
def test_each_view_of_a_batch_is_as_alone(sharpen, adaptive):
    flat, noisy = torch.full((1, 16, 16, 3), 0.5), draw_views(1, 16, 16)
    inputs = {"cfg": 2.0, "adaptive": adaptive}
    together = sharpen(torch.cat([flat, noisy]), **inputs)
    # Each image of a batch has noise of its own; the first has that of an image alone.
    torch.testing.assert_close(together[:1], sharpen(flat, **inputs), rtol=0, atol=1e-5)


def test_adaptive_steps_are_of_each_view_alone(sharpen, before):
    import comfy.sample

    levels = []

    def record(model, noise, cfg, sampler, sigmas, *arguments, **options):
        levels.append((len(sigmas) - 1, round(cfg, 3)))

    before(comfy.sample, "sample_custom", record)
    flat, noisy = torch.full((1, 16, 16, 3), 0.5), draw_views(1, 16, 16)
    sharpen(torch.cat([flat, noisy, flat]), adaptive=True, cfg=2.0)
    simple, complicated, again = levels
    assert simple == again == (1, 1.6)  # no edges and one level of brightness: 0.8 of cfg
    assert complicated[0] == 3
    assert 2.0 < complicated[1] <= 2.6


def test_the_host_sees_no_memory_leak(host, keep, define, small, shrink, mm, caplog):
    caplog.set_level(logging.INFO)
    prompt = read_prompt(INVSR)
    loop = find_node(prompt, "CoZChainLoop")

    def load(self):
        return small_sd2(), small.clip, small.vae  # the last model is freed

    kinds, always = ("MODEL", "CLIP", "VAE"), classmethod(lambda cls: float("nan"))
    define("TestModels", load, {}, kinds, IS_CHANGED=always)
    for seed in range(3):
        prompt[loop]["inputs"] |= {"steps": 1, "seed": seed}
        host.run(shrink(prompt, image=[loop, 0]), "kept")
        mm.cleanup_models_gc()
    assert len(keep) == 3
    assert "memory leak" not in caplog.text


@pytest.fixture
def zoom_prompt(give, small):
    """A Chain Loop with this backbone, by its inputs."""
    given = {"model": small.model, "vae": small.vae, "clip": small.clip}
    for name, value in given.items():
        give(f"Test_{name}", name.upper(), value)
    chosen = {"negative": "blurry", "sampling_steps": 2, "cfg": 2.0, "start": "auto"}
    chosen |= {"adaptive": False, **{name: [name, 0] for name in given}}
    chosen = {f"backbone.{name}": value for name, value in chosen.items()}

    def make(**inputs):
        name = "diffusion inversion (InvSR)"
        prompt = kept_prompt(backbone=name, color_fix="none", prompt="fur", **chosen, **inputs)
        for unread in ("upscale_model", "resampling"):
            del prompt["loop"]["inputs"][f"backbone.{unread}"]
        return prompt | {key: make_node(f"Test_{key}") for key in given}

    return make


def test_a_step_of_chain_loop_is_the_node(executor, keep, node, small, zoom_prompt):
    executor("CLASSIC").run(zoom_prompt(steps=1, seed=7))
    (chain,) = keep
    picture = node("CoZSamplePicture").execute("astronaut.png")[0]
    frame, _, *center = node("CoZFitImage").execute(picture, "native pixels", 64, 0.3, 0.7).args
    zoomed, crop, *_ = node("CoZCropCenterZoom").execute(frame, 4.0, *center, "bicubic").args
    with torch.inference_mode():
        texts = [node("CLIPTextEncode")().encode(small.clip, text)[0] for text in ("fur", "blurry")]
        settings = {"sampling_steps": 2, "cfg": 2.0, "seed": derive_step_seed(7, 1)}
        given = small.model, small.vae, *texts, crop, zoomed
        expected = node("CoZInvSRStep").execute(*given, **settings)[0]
    assert torch.equal(chain["image"], expected)


def make_full_prompt(prompt, height, width, scale):
    prompt = as_full_image(prompt, image=["fit", 0], tile=64, overlap=16, scale=scale)
    size = {"width": width, "height": height, "upscale_method": "area", "crop": "disabled"}
    prompt["fit"] = make_node("ImageScale", image=["source", 0], **size)
    return prompt


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 40)])
def test_any_size_works_as_full_image(executor, keep, zoom_prompt, height, width):
    executor("CLASSIC").run(make_full_prompt(zoom_prompt(), height, width, 2.0))
    assert keep[0]["image"].shape == (1, 2 * height, 2 * width, 3)


def test_overlapping_tiles_share_their_noise(executor, keep, nodes_of, zoom_prompt, before):
    drawn = []
    before(nodes_of("host.inversion"), "sample_noise", lambda moments, normal: drawn.append(normal))
    executor("CLASSIC").run(make_full_prompt(zoom_prompt(), 16, 32, 4.0))
    assert keep[0]["image"].shape == (1, 64, 128, 3)
    # Tiles of 64 pixels at 0, 48 and 64 of 128: latent pixels 0 to 8, 6 to 14 and 8 to 16.
    left, middle, right = drawn
    assert torch.equal(left[..., 6:], middle[..., :2])
    assert torch.equal(middle[..., 2:], right[..., :6])
    assert not torch.equal(left, right)


TEMPLATES = ROOT / "workflows" / "more"
INVSR = TEMPLATES / "InvSR 4x and zoom.json"
BY_SCALE = TEMPLATES / "A model for each scale.json"
TEXT = (
    "Cinematic, high-contrast, photo-realistic, 8k, ultra HD, meticulous detailing, hyper sharpness, "
    "perfect without deformations"
)
NEGATIVE = (
    "Low quality, blurring, jpeg artifacts, deformed, over-smooth, cartoon, noisy,painting, drawing, "
    "sketch, oil painting"
)
"""InvSR's texts, as in its sampler_invsr.py."""


SMALL = {"CheckpointLoaderSimple": "TestModels"}
SMALL |= dict.fromkeys(("CoZSamplePicture", "LoadImage"), "TestPicture")
SHOWS = {"SaveImage", "SaveImageAdvanced", "CoZZoomViewer"}


@pytest.fixture
def shrink(give, define, small):
    """Puts small models and a small picture into the prompt of a template; what a link gives is kept."""
    given = small.bare, small.clip, small.vae
    define("TestModels", lambda self: given, {}, ("MODEL", "CLIP", "VAE"))
    give("TestPicture", "IMAGE", draw_views(1, 64, 64))
    changes = {
        "CoZLoadInvSR": {"predictor_name": "small_predictor.safetensors"},
        "CoZChainLoop": {"size": 64},
    }

    def shrink(prompt, **kept):
        shrunk = {"kept": make_node("TestKeep", **kept)}
        for key, entry in prompt.items():
            kind = entry["class_type"]
            if kind in SMALL:
                shrunk[key] = make_node(SMALL[kind])
            elif kind not in SHOWS:
                shrunk[key] = make_node(kind, **entry["inputs"] | changes.get(kind, {}))
        return shrunk

    return shrink


def test_the_invsr_template_enlarges_the_picture_and_zooms(host, keep, shrink):
    prompt = read_prompt(INVSR)
    full, loop = find_node(prompt, "CoZFullImage"), find_node(prompt, "CoZChainLoop")
    for key in (full, loop):
        assert prompt[key]["inputs"]["prompt"] == TEXT
        assert prompt[key]["inputs"]["backbone.negative"] == NEGATIVE
    prompt[full]["inputs"] |= {"tile": 128, "overlap": 32}
    host.run(shrink(prompt, image=[full, 0], scales=[loop, 1]), "kept")
    (kept,) = keep
    assert kept["image"].shape == (1, 256, 256, 3)
    assert kept["scales"].shape == (3, 64, 64, 3)
    # Every view is exactly four times its crop, so that nothing is downscaled.
    assert "InvSR enlarges" not in "\n".join(host.told)


def test_joined_loops_are_their_parts(host, keep, node, small, shrink):
    prompt = read_prompt(BY_SCALE)
    loops = [key for key, each in prompt.items() if each["class_type"] == "CoZChainLoop"]
    first, second = sorted(loops, key=lambda key: "chain" in prompt[key]["inputs"])
    assert prompt[second]["inputs"]["chain"] == [first, 3]
    executed = host.run(shrink(prompt, scales=[second, 1], chain=[second, 3]), "kept")
    for loop, steps in ((first, [1]), (second, [2, 3])):
        assert steps_run([name for name in executed if name.startswith(f"{loop}.")]) == steps
    assert "Not used" not in "\n".join(host.told)
    host.run(shrink(prompt, scales=[first, 1]), "kept")
    joined, alone = keep
    assert torch.equal(joined["scales"][:2], alone["scales"])
    x, y, seed = (prompt[second]["inputs"][name] for name in ("center_x", "center_y", "seed"))
    frame = alone["scales"][-1:]
    steps = plan_steps(64, 64, 4.0, 3, Target(x, y))  # the whole picture is the first frame
    with torch.inference_mode():
        texts = [node("CLIPTextEncode")().encode(small.clip, text)[0] for text in (TEXT, NEGATIVE)]
        for i in (2, 3):
            views = node("CoZCropCenterZoom").execute(frame, 4.0, *steps[i - 1].target, "bicubic")
            zoomed, crop, *_ = views.args
            given = small.model, small.vae, *texts, crop, zoomed
            sharp = node("CoZInvSRStep").execute(*given, seed=derive_step_seed(seed, i))[0]
            frame = node("CoZColorFix").execute(sharp, zoomed, "wavelet")[0]
            assert torch.equal(joined["scales"][i : i + 1], frame)


@pytest.mark.tools
def test_the_template_is_an_arm_of_the_evaluation(host, keep, shrink):
    for name in ("onestep", "chain-null"):
        (arm,) = read_arms(name, INVSR)
        (prompt,) = make_prompts(arm, 64, 1, 0)
        (saved,) = [each for each in prompt.values() if each["class_type"] == "SaveImageAdvanced"]
        host.run(shrink(prompt, image=saved["inputs"]["images"]), "kept")
    one, chain = (kept["image"] for kept in keep)
    assert torch.equal(one, chain[1:])
