"""CoZ InvSR Step in the host, against results of InvSR's own pipeline on random weights."""

import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from coz.networks.noise_predictor import NoisePredictorSizes
from tests.support.small_models import small_sd2

GOLDEN = Path(__file__).parents[1] / "data/invsr"
REDUCED = NoisePredictorSizes((32, 64), 3, 48, groups=8, head_width=16)
ROUNDING = 1e-5  # relative; other libraries sum float32 products in another order
LATENT_SCALE = 0.18215  # of SD's latents; ComfyUI's samplers return them without


def fill(network, prefix):
    """Give a network the weights of the recorded run: drawn from the names of the tensors."""
    for name, weight in network.state_dict().items():
        generator = torch.Generator().manual_seed(zlib.crc32((prefix + name).encode()))
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim > 1:
            weight.copy_(noise / weight[0].numel() ** 0.5)
        else:
            weight.copy_(1 + 0.1 * noise if name.endswith("weight") else 0.05 * noise)
    return network.eval()


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "pipeline_golden.safetensors")


@pytest.fixture(scope="module")
def invsr(node, tmp_path_factory):
    """SD 2.1 of a fifth of its width with the reduced predictor, as MODEL and VAE."""
    import comfy.sd
    import comfy.utils
    import folder_paths
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.no_grad():
        autoencoder = fill(
            AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                latent_channels=4,
            ),
            "vae.",
        )
        autoencoder.quant_conv.bias[4:] = -100  # so that a sampled latent is the mean
        unet = fill(
            UNet2DConditionModel(
                block_out_channels=(64, 128, 256, 256),
                attention_head_dim=(1, 2, 4, 4),
                cross_attention_dim=64,
                use_linear_projection=True,
            ),
            "unet.",
        )
    vae = comfy.sd.VAE(sd=autoencoder.state_dict(), dtype=torch.float32)
    model = small_sd2(
        num_res_blocks=[2] * 4,
        channel_mult=[1, 2, 4, 4],
        transformer_depth=[1] * 6 + [0] * 2,
        transformer_depth_output=[1] * 9 + [0] * 3,
        context_dim=64,
    )
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    state = {names[name]: weight for name, weight in unet.state_dict().items()}
    model.model.diffusion_model.load_state_dict(state)
    folder_paths.add_model_folder_path("model_patches", str(GOLDEN))
    with pytest.MonkeyPatch.context() as patch:
        host = sys.modules[node("CoZLoadInvSR").__module__.replace("load.invsr", "host.inversion")]
        patch.setattr(host, "read_sizes", lambda weights: REDUCED)
        with_predictor = node("CoZLoadInvSR").execute(model, "noise_predictor_reduced.safetensors")
    return SimpleNamespace(model=with_predictor[0], bare=model, vae=vae)


@pytest.fixture
def step(node, invsr, golden, monkeypatch):
    """CoZ InvSR Step on the recorded input, with the recorded noise: (image, latent)."""
    import comfy.sample

    denoised = []
    sample = comfy.sample.sample_custom

    def record(*arguments, **options):
        denoised.append(sample(*arguments, **options))
        return denoised[-1]

    monkeypatch.setattr(comfy.sample, "sample_custom", record)
    monkeypatch.setattr(comfy.sample, "prepare_noise", lambda *_: golden["eps"])
    crop = golden["lq"].movedim(1, -1)
    zoomed = torch.zeros(1, 128, 192, 3)

    def run(**inputs):
        texts = [[[golden[name], {}]] for name in ("prompt_embeds", "negative_embeds")]
        with torch.inference_mode():
            image = node("CoZInvSRStep").execute(
                invsr.model, invsr.vae, *texts, crop, zoomed, **inputs
            )[0]
        return image, denoised[-1] * LATENT_SCALE

    return run


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


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
def test_latents_are_invsrs(step, golden, steps, cfg, recorded):
    assert relative_error(step(sampling_steps=steps, cfg=cfg)[1], golden[recorded]) < ROUNDING


def test_image_is_invsrs(step, golden):
    image, _ = step()
    assert image.shape == (1, 128, 192, 3)
    # 1e-4 of white: ten times the rounding of the latent, which the decoder amplifies.
    assert (image.movedim(-1, 1) - golden["image_200"]).abs().max() < 1e-4
