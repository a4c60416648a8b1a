"""Run the chain of Chain-of-Zoom's authors in diffusers, with PNG files between steps.

The text encoders are in fp16, SD3's network and the VAE in fp32.

It was written from a description of the published inference code, not from the code.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, SD3Transformer2DModel
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5EncoderModel,
    T5TokenizerFast,
)

from tests.support.random_sd3 import (
    autoencoder,
    clip_text,
    coz_lora,
    sd3_medium,
    sd3_transformer,
    t5_xxl,
    with_coz_encoder,
)
from tools.host import host_path

LATENT_SCALE, LATENT_SHIFT = 1.5305, 0.0609
"""Factor and shift of the latents of SD3's VAE. The authors apply the shift only to decode."""

CLIP_TOKENS, T5_TOKENS, TEXT_WIDTH, POOLED_WIDTH = 77, 512, 4096, 2048

SR_PARTS = ("encode", "network", "decode")
PARTS = ("text", *SR_PARTS, "files")


class Networks(NamedTuple):
    transformer: SD3Transformer2DModel
    autoencoder: AutoencoderKL
    clips: list[CLIPTextModelWithProjection]
    t5: T5EncoderModel | None


class LoRALinear(nn.Module):
    """A linear layer with a LoRA that is not merged. As in the authors' code, its output is float16."""

    def __init__(self, linear: nn.Linear, up: Tensor, down: Tensor):
        super().__init__()
        self.linear, self.up, self.down = linear, up, down

    def forward(self, x: Tensor) -> Tensor:
        return (self.linear(x) + x @ self.down.T @ self.up.T).half()


def inject_lora(transformer: SD3Transformer2DModel, tensors: Sequence[Tensor]) -> None:
    """Add a LoRA, given as its matrices [up, down, up, down, ...], to the modulation layers in order."""
    device = next(transformer.parameters()).device
    pairs = list(zip(tensors[::2], tensors[1::2], strict=True))
    layers = (
        (block, name)
        for block in transformer.transformer_blocks
        for name in ("norm1", "norm1_context")
    )
    for (block, name), (up, down) in zip(layers, pairs, strict=False):
        norm = getattr(block, name)
        norm.linear = LoRALinear(norm.linear, up.to(device), down.to(device))


def write_weights(network: nn.Module, path: Path, dtype: torch.dtype) -> None:
    """Write the weights for ComfyUI's loaders. T5's embedding has two names and is written once."""
    state = network.state_dict()
    state.pop("encoder.embed_tokens.weight", None)
    save_file({name: weight.to(dtype).cpu() for name, weight in state.items()}, path)


def build_networks(toy: bool, device: torch.device, folder: Path) -> Networks:
    """Make the networks of AuthorsChain, and write the same weights to files for ComfyUI."""
    blocks, dtype = (2, torch.float32) if toy else (24, torch.bfloat16)
    transformer = sd3_transformer(blocks) if toy else sd3_medium(device)
    write_weights(transformer, folder / "transformer.safetensors", dtype)
    vae = autoencoder()
    write_weights(vae, folder / "vae.safetensors", dtype)
    lora = coz_lora(blocks)
    torch.save(lora, folder / "model_20001.pkl")
    inject_lora(transformer, lora)
    vae = with_coz_encoder(vae)
    torch.save(vae.encoder.state_dict(), folder / "vae_encoder_20001.pt")
    clips = [clip_text(large, device) for large in ([False] if toy else [False, True])]
    for clip, letter in zip(clips, "lg", strict=False):
        write_weights(clip, folder / f"clip_{letter}.safetensors", torch.float16)
    t5 = None if toy else t5_xxl(device)
    if t5:
        write_weights(t5, folder / "t5_fp16.safetensors", torch.float16)
        write_weights(t5, folder / "t5_fp8.safetensors", torch.float8_e4m3fn)
    return Networks(transformer, vae.to(device), clips, t5)


class AuthorsChain:
    """The authors' chain. ``seconds`` adds up the time of each part until it is cleared."""

    def __init__(self, networks: Networks):
        self.networks = networks
        self.device = networks.transformer.device
        self.seconds: dict[str, float] = defaultdict(float)
        folder = host_path() / "comfy"
        self.clip_tokenizer = CLIPTokenizer.from_pretrained(folder / "sd1_tokenizer")
        self.t5_tokenizer = T5TokenizerFast.from_pretrained(
            folder / "text_encoders" / "t5_tokenizer"
        )

    @contextmanager
    def time_part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds[name] += time.perf_counter() - start

    def tokenize(self, tokenizer, text: str, length: int) -> Tensor:
        ids = tokenizer(text, padding="max_length", max_length=length, truncation=True).input_ids
        return torch.tensor([ids], device=self.device)

    def encode_text(self, text: str) -> tuple[Tensor, Tensor]:
        """Encode a text.

        Returns:
            The context, (1, 77 + 512, 4096) or without T5 (1, 77, 4096), and the pooled text, (1, 2048).
            Both are float32.
        """
        ids = self.tokenize(self.clip_tokenizer, text, CLIP_TOKENS)
        found = [clip(ids, output_hidden_states=True) for clip in self.networks.clips]
        context = torch.cat([one.hidden_states[-2] for one in found], dim=-1)
        context = F.pad(context, (0, TEXT_WIDTH - context.shape[-1]))
        pooled = torch.cat([one.text_embeds for one in found], dim=-1)
        pooled = F.pad(pooled, (0, POOLED_WIDTH - pooled.shape[-1]))
        if self.networks.t5:
            # The authors pass no mask, so the padding counts as text.
            ids = self.tokenize(self.t5_tokenizer, text, T5_TOKENS)
            context = torch.cat([context, self.networks.t5(ids).last_hidden_state], dim=1)
        return context.float(), pooled.float()

    @torch.no_grad()
    def make_frame(self, folder: Path, i: int, text: str, sample: bool) -> None:
        """Make frame i from frame i - 1 in the folder."""
        transformer, autoencoder, *_ = self.networks
        with self.time_part("files"):
            with Image.open(folder / f"{i - 1}.png") as file:
                frame = file.convert("RGB")
            (width, height), (w, h) = frame.size, (side // 4 for side in frame.size)
            left, upper = (width - w) // 2, (height - h) // 2
            crop = frame.crop((left, upper, left + w, upper + h))
            zoomed = crop.resize((width, height), Image.Resampling.BICUBIC)
            zoomed.save(folder / f"{i}_input.png")
        with self.time_part("text"):
            context, pooled = self.encode_text(text)
        with self.time_part("encode"):
            pixels = torch.from_numpy(np.array(zoomed)).to(self.device).permute(2, 0, 1)[None]
            posterior = autoencoder.encode(pixels.float() / 127.5 - 1).latent_dist
            z = (posterior.sample() if sample else posterior.mean) * LATENT_SCALE
        with self.time_part("network"):
            timestep = torch.full((1,), 1000.0, device=self.device)
            v = transformer(z, context, pooled, timestep).sample
        with self.time_part("decode"):
            image = autoencoder.decode((z - v) / LATENT_SCALE + LATENT_SHIFT).sample.clamp(-1, 1)
            # Truncate to 8 bits, as in the authors' code.
            pixels = ((image[0] / 2 + 0.5) * 255).byte().permute(1, 2, 0).cpu().numpy()
        with self.time_part("files"):
            Image.fromarray(pixels).save(folder / f"{i}.png")

    def run_chain(
        self, picture: Path, size: int, folder: Path, texts: Sequence[str], sample: bool = True
    ) -> dict[str, float]:
        """Zoom into an image and return the seconds per step of each part.

        Args:
            picture: The image file to zoom into. It is resized to a square.
            size: Side of the frames in pixels.
            folder: The folder for the frames: 0.png, 1.png and so on.
            texts: The text of each step.
            sample: Whether to sample the latent, as the authors do, or to take the posterior's mean.
        """
        with Image.open(picture) as file:
            first = file.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
        folder.mkdir(exist_ok=True)
        first.save(folder / "0.png")
        self.seconds.clear()
        for i, text in enumerate(texts, 1):
            self.make_frame(folder, i, text, sample)
        return {part: self.seconds[part] / len(texts) for part in PARTS}
