"""Zoom with the pack's nodes, and compare one SR step with diffusers."""

from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from coz import Target, View, ZoomChain, plan_zoom, zoom

from .files import FoundModel

STEPS = 2
TEXT = "an astronaut, skin, fabric"
TARGET = Target(0.398, 0.196)
LATENT_SCALE, LATENT_SHIFT = 1.5305, 0.0609
"""Scale and shift of the latents of SD3's VAE, from its config in diffusers. Chain-of-Zoom applies the shift
only to decode."""

MAX_DIFFERENCE = 1e-3
"""Maximum norm of the difference, relative to that of the image, in float32. A wrong shift of the latents
already makes a difference of more than 1e-2."""

ENCODER_ALPHA = 8
"""The alpha of the LoRA of Chain-of-Zoom's encoder: the default of peft's LoraConfig."""

TOKEN_SIDE_PIXELS = 2 * 8
"""Side of the image region that a token of SD3 covers."""


class Networks(NamedTuple):
    model: Any
    vae: Any
    clip: Any


def get_node(name: str) -> Any:
    """Return the class of a node."""
    import nodes

    return nodes.NODE_CLASS_MAPPINGS[name]


def load_networks(models: dict[str, FoundModel]) -> Networks:
    """Load SD3 through the nodes, with the SR LoRA and the VAE encoder if ``models`` has them."""
    model, clip, vae = get_node("CheckpointLoaderSimple")().load_checkpoint(
        models["SD3"].register_for_loader()
    )[:3]
    if "SR LoRA" in models:
        encoder = models["VAE encoder"].register_for_loader() if "VAE encoder" in models else "none"
        model, vae = (
            get_node("CoZLoadSRLoRA")
            .execute(model, vae, models["SR LoRA"].register_for_loader(), encoder)
            .args
        )
    return Networks(model, vae, clip)


@contextmanager
def use_float32():
    """Let ComfyUI load networks in float32, and torch compute products and convolutions without TF32."""
    from comfy.cli_args import args

    names = ("fp32_unet", "fp32_vae")
    before = {name: getattr(args, name) for name in names}
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    allowed = [backend.allow_tf32 for backend in backends]
    for name in names:
        setattr(args, name, True)
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(args, name, value)
        for backend, value in zip(backends, allowed, strict=True):
            backend.allow_tf32 = value


def encode(clip: Any, text: str) -> list:
    """Encode the text, or draw random values in its place if there is no text encoder."""
    if clip is not None:
        return get_node("CoZEncodePrompt").execute(clip, text).args[0]
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(1, 77, 4096, generator=generator) * 0.3
    return [[context, {"pooled_output": torch.randn(1, 2048, generator=generator) * 0.3}]]


def run_step(networks: Networks, positive: list, view: Tensor) -> Tensor:
    """Sharpen a (1, 3, H, W) view with CoZ SR Step."""
    model, vae, _ = networks
    image = view.movedim(1, -1)
    return get_node("CoZSRStep").execute(model, vae, positive, image).args[0].movedim(-1, 1)


def zoom_in(
    image: Tensor, size: int, networks: Networks | None, vlm: Any, upscaler: Any
) -> ZoomChain:
    """Zoom in two steps, by SD3 if its networks are given and by the upscale model if not."""

    def describe(frame: Tensor, zoomed: Tensor) -> str:
        if vlm is None:
            return TEXT
        frame, zoomed = frame.movedim(1, -1), zoomed.movedim(1, -1)
        ask = get_node("CoZPromptExtractor").execute
        return ask(vlm, zoomed, "", previous_image=frame).args[0]

    def super_resolve(view: View, text: str) -> Tensor:
        if networks:
            return run_step(networks, encode(networks.clip, text), view.zoomed)
        crop, zoomed = view.crop.movedim(1, -1), view.zoomed.movedim(1, -1)
        return get_node("CoZUpscaleStep").execute(upscaler, crop, zoomed).args[0].movedim(-1, 1)

    def align(frame: Tensor, view: View) -> Tensor:
        images = frame.movedim(1, -1), view.zoomed.movedim(1, -1)
        return get_node("CoZColorFix").execute(*images, "wavelet").args[0].movedim(-1, 1)

    plan = plan_zoom(*image.shape[-2:], STEPS, target=TARGET, size=size)
    return zoom(image, plan, super_resolve, describe if networks else None, align)


def compare_step(models: dict[str, FoundModel], view: Tensor) -> float:
    """Measure how far the step's result is from that of diffusers, both in float32.

    This is the norm of the difference, relative to the norm of the result of diffusers.
    """
    import comfy.model_management as host

    with use_float32():
        networks = load_networks(models)
        positive = encode(networks.clip, TEXT)
        found = run_step(networks, positive, view).cpu()
        device = host.get_torch_device()
        del networks
        host.unload_all_models()
        host.soft_empty_cache()
        expected = run_reference(models, positive, view, device).cpu()
    return float((found - expected).norm() / expected.norm())


def run_reference(models: dict[str, FoundModel], positive: list, view: Tensor, device) -> Tensor:
    """Run the step of the authors' code in diffusers. The latent is the mode of its distribution, not a sample."""
    state = load_file(models["SD3"].paths[0])
    lora, encoder = models.get("SR LoRA"), models.get("VAE encoder")
    vae = build_vae(state, encoder if lora else None).to(device)
    height, width = view.shape[-2:]
    if height % TOKEN_SIDE_PIXELS or width % TOKEN_SIDE_PIXELS:
        raise ValueError(
            f"expected sides that are multiples of {TOKEN_SIDE_PIXELS}, got {width} x {height}"
        )
    latent = vae.encode(view.to(device) * 2 - 1).latent_dist.mode() * LATENT_SCALE
    transformer = build_transformer(state, lora).to(device)
    context, pooled = positive[0][0], positive[0][1]["pooled_output"]
    velocity = transformer(
        hidden_states=latent,
        timestep=torch.full((1,), 1000.0, device=device),
        encoder_hidden_states=context.float().to(device),
        pooled_projections=F.pad(pooled, (0, 2048 - pooled.shape[-1])).float().to(device),
        return_dict=False,
    )[0]
    image = vae.decode((latent - velocity) / LATENT_SCALE + LATENT_SHIFT).sample
    return image.clamp(-1, 1) / 2 + 0.5


def build_transformer(state: dict[str, Tensor], lora: FoundModel | None):
    """Build SD3's transformer in diffusers, and merge the published LoRA, a list of up, down, up, ..."""
    from diffusers import SD3Transformer2DModel
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

    prefix = "model.diffusion_model."
    own = {
        name.removeprefix(prefix): w.float() for name, w in state.items() if name.startswith(prefix)
    }
    blocks = 1 + max(int(name.split(".")[1]) for name in own if name.startswith("joint_blocks."))
    positions = own["pos_embed"].shape[1]
    with torch.device("meta"):
        network = SD3Transformer2DModel(
            num_layers=blocks,
            num_attention_heads=blocks,
            attention_head_dim=64,
            in_channels=16,
            out_channels=16,
            joint_attention_dim=4096,
            caption_projection_dim=64 * blocks,
            pooled_projection_dim=2048,
            pos_embed_max_size=round(positions**0.5),
        )
    weights = convert_sd3_transformer_checkpoint_to_diffusers(own)
    network.load_state_dict(weights, strict=True, assign=True)
    factors = torch.load(lora.paths[0], map_location="cpu", weights_only=True) if lora else []
    norms = [
        module
        for name, module in network.named_modules()
        if name.endswith(("norm1.linear", "norm1_context.linear"))
    ]
    # The last block's norm1_context has no LoRA: it is of another class in the authors' code.
    for norm, up, down in zip(norms, factors[::2], factors[1::2], strict=False):
        norm.weight.data += up.detach().float() @ down.detach().float()
    return network.eval().requires_grad_(False)


def build_vae(state: dict[str, Tensor], encoder: FoundModel | None):
    """Build SD3's VAE in diffusers, with the published encoder and its LoRA merged into it."""
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    network = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    own = {name: w for name, w in state.items() if name.startswith("first_stage_model.")}
    weights = convert_ldm_vae_checkpoint(own, dict(network.config))
    network.load_state_dict({name: w.float() for name, w in weights.items()})
    if encoder:
        published = torch.load(encoder.paths[0], map_location="cpu", weights_only=True)
        network.encoder.load_state_dict(merge_encoder_lora(published))
    return network.eval().requires_grad_(False)


def merge_encoder_lora(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Merge the adapter of the published encoder, scaled by alpha / r."""
    merged = {}
    for name, weight in published.items():
        if ".lora_" in name:
            continue
        plain, weight = name.replace(".base_layer.", "."), weight.float()
        down = published.get(f"{plain.removesuffix('.weight')}.lora_A.default_encoder.weight")
        if down is not None and plain.endswith(".weight"):
            up = published[f"{plain.removesuffix('.weight')}.lora_B.default_encoder.weight"].float()
            change = up.flatten(1) @ down.float().flatten(1)
            weight = weight + ENCODER_ALPHA / len(down) * change.reshape(weight.shape)
        merged[plain] = weight
    return merged
