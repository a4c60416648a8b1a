"""The host's own objects around small random networks, on the devices that the host chooses."""

import functools
from types import SimpleNamespace

import torch

WIDTH = 32
"""Of the VAEs in this process: a quarter of the real ones', and a sixteenth of their work."""
NARROW_ENCODER = "narrow_encoder_20001.pt"
"""File of models/vae: Chain-of-Zoom's encoder for such a VAE."""


def make_vae(weights, channels, dtype=torch.float32, **structure):
    """The host's VAE of that width, or of another structure, with the weights of diffusers' one."""
    import comfy.sd

    sides = {"z_channels": channels, "in_channels": 3, "out_ch": 3, "ch": WIDTH}
    layers = {"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": []}
    others = {"double_z": True, "resolution": 256, "dropout": 0.0}
    config = {"ddconfig": sides | layers | others | structure, "embed_dim": channels}
    vae = comfy.sd.VAE(sd=dict(weights), config={"params": config}, dtype=dtype)
    vae.latent_channels = channels  # which the host's loader reads from the weights
    return vae


def small_sd3(dtype=torch.float32):
    """SD3 with two blocks, as a MODEL."""
    import comfy.sd

    from tests.support.random_sd3 import draw_sd3

    return comfy.sd.load_diffusion_model_state_dict(draw_sd3(), model_options={"dtype": dtype})


SD2_SHAPE = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1] * 4,
    "transformer_depth_middle": 1,
    "context_dim": 4096,  # of SD3's texts, so that small_clip() serves
    "use_linear_in_transformer": True,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "use_spatial_transformer": True,
    "legacy": False,
}


SD15 = {"use_linear_in_transformer": False}
"""What the shape of SD1.5 has else."""
VARYING = {"output_blocks.11.1.transformer_blocks.0.norm1.bias": torch.tensor([-1.0, 1.0])}
"""ComfyUI takes SD 2.1 for a v-prediction model where this weight varies much."""


def small_sd2(state=(), family="SD20", **shape):
    """SD2 with two stages or of another shape, as a MODEL; ``state`` shows whether it predicts v."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    config = getattr(comfy.supported_models, family)(SD2_SHAPE | shape)
    config.set_inference_dtype(torch.float32, None)
    network = config.get_model(dict(state), "")
    randomise(network.diffusion_model)
    devices = (
        comfy.model_management.get_torch_device(),
        comfy.model_management.unet_offload_device(),
    )
    return comfy.model_patcher.ModelPatcher(network, *devices)


def small_control_network(**shape):
    """A ControlNet for ``small_sd2``, as the host's network."""
    import comfy.cldm.cldm

    sides = {key: value for key, value in (SD2_SHAPE | shape).items() if key != "out_channels"}
    network = comfy.cldm.cldm.ControlNet(hint_channels=3, num_heads=8, dtype=torch.float32, **sides)
    randomise(network)
    return network


def small_control_net(**shape):
    """A ControlNet for ``small_sd2``, as a CONTROL_NET."""
    import comfy.controlnet
    import comfy.model_management

    device = comfy.model_management.get_torch_device()
    return comfy.controlnet.ControlNet(small_control_network(**shape), load_device=device)


def small_predictor():
    """InvSR's noise predictor with a layer in each stage: its weights."""
    from coz.networks.noise_predictor import NoisePredictor, NoisePredictorSizes

    predictor = NoisePredictor(NoisePredictorSizes((64, 128), 1, 64))
    randomise(predictor)
    return predictor.state_dict()


def small_vae(channels=16):
    """TAESD, as a VAE."""
    import comfy.sd
    from comfy.taesd.taesd import TAESD

    vae = comfy.sd.VAE(sd=TAESD(latent_channels=channels).state_dict(), dtype=torch.float32)
    randomise(vae.first_stage_model)
    return vae


@functools.cache
def load_sd3_tokenizer():
    """Loaded once: it takes a third of a second, and knows no weights."""
    from comfy.text_encoders.sd3_clip import SD3Tokenizer

    return SD3Tokenizer()


def small_clip():
    """SD3's text encoders as a checkpoint without T5 has them, three layers deep, as a CLIP."""
    import comfy.sd
    from comfy.text_encoders.sd3_clip import sd3_clip

    shape = {"hidden_size": 768, "intermediate_size": 768, "num_hidden_layers": 3}
    options = {"dtype": torch.float32, "clip_l_model_config": shape | {"num_attention_heads": 12}}
    encoders = sd3_clip(clip_l=True, clip_g=False, t5=False)
    target = SimpleNamespace(params={}, clip=encoders, tokenizer=lambda **_: load_sd3_tokenizer())
    clip = comfy.sd.CLIP(target, parameters=1, model_options=options)
    randomise(clip.cond_stage_model)
    return clip


@torch.no_grad()
def randomise(network) -> None:
    """The host leaves what it is to load as it was in memory."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in network.named_parameters():
        if weight.ndim == 0:  # TAESD's own scale and shift
            continue
        scale = 0.7 * weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.0
        noise = torch.randn(weight.shape, generator=generator) * scale
        norm = weight.ndim == 1 and name.endswith("weight")
        weight.copy_(noise + norm)
