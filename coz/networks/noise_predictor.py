"""InvSR's noise predictor: it predicts the noise from which a diffusion model restores a given image.

Source: InvSR, NoisePredictor and TimeAwareEncoder. This was written from the layout of the weight file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from math import log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Attention = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""Function (q, k, v, number of heads) -> attention. q, k, v and the result are (B, N, C)."""

LATENT_CHANNELS = 4
NORM_EPSILON = 1e-6
LOG_VARIANCE_RANGE = (-30.0, 20.0)
"""Range to which the predicted log variance is clamped. Source: diffusers, DiagonalGaussianDistribution."""

MIN_TIME_CHANNELS = 128
"""Minimum number of sinusoids that encode a timestep."""

MAX_TIMESTEP_PERIOD = 10_000
"""Longest period of the sinusoids that encode a timestep."""


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Compute multi-head attention with torch's own kernel; q, k, v and the result are (B, N, C)."""
    b, n, c = q.shape
    q, k, v = (part.view(b, n, heads, c // heads).transpose(1, 2) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class NoisePredictorSizes:
    """The sizes of a noise predictor; the defaults are those of InvSR's published files."""

    widths: tuple[int, ...] = (256, 512)
    """Channels of each stage."""
    layers: int = 3
    """Number of residual blocks of each stage. It has as many attention layers."""
    time_width: int = 512
    """Channels of the timestep's embedding."""
    groups: int = 32
    """Groups of each group normalization. The weights do not show this number."""
    head_width: int = 64
    """Channels of an attention head. The weights do not show this number."""


def read_sizes(weights: Mapping[str, Tensor]) -> NoisePredictorSizes:
    """Read the sizes of a noise predictor from its weights.

    Raises:
        KeyError, IndexError: If the weights are not those of a noise predictor.
    """
    stages = {name.split(".")[2] for name in weights if name.startswith("encoder.down_blocks.")}
    first = [f"encoder.down_blocks.{i}.resnets.0.conv1.weight" for i in range(len(stages))]
    blocks = [name for name in weights if name.startswith("encoder.down_blocks.0.resnets.")]
    return NoisePredictorSizes(
        tuple(weights[name].shape[0] for name in first),
        len({name.split(".")[4] for name in blocks}),
        weights["encoder.time_embedding.linear_1.weight"].shape[0],
    )


class NoisePredictor(nn.Module):
    """Predicts from a small image and a timestep the noise for the latent of the 4x larger image.

    The modules are named like the weights in InvSR's file.
    """

    def __init__(
        self, sizes: NoisePredictorSizes, ops: Any = nn, attention: Attention = attend
    ) -> None:
        """Create the network with random weights.

        Args:
            sizes: Numbers of channels and layers.
            ops: Holds the classes Conv2d, Linear and GroupNorm. Those of ComfyUI's operations also cast
                and offload weights.
            attention: Computes attention. An image of 256 x 256 pixels has 65,536 tokens, so the
                function must not allocate the whole matrix of attention weights.
        """
        super().__init__()
        self.encoder = _Encoder(sizes, ops, attention)

    def forward(self, lq: Tensor, timestep: int) -> Tensor:
        """Predict the distribution of the noise.

        Args:
            lq: (B, 3, H, W) in [0, 1], the image to enlarge four times.
            timestep: Index of the diffusion model's timestep, 0 to 999.

        Returns:
            (B, 8, H // 2, W // 2): four channels of mean and four of log variance.
        """
        times = torch.full((len(lq),), float(timestep), device=lq.device)
        return self.encoder(2 * lq - 1, times)


def sample_noise(moments: Tensor, normal: Tensor) -> Tensor:
    """Draw noise from the predicted distribution.

    Args:
        moments: (B, 8, h, w), the result of `NoisePredictor`.
        normal: (B, 4, h, w), values of a standard normal distribution.

    Returns:
        (B, 4, h, w).
    """
    mean, log_variance = moments.chunk(2, 1)
    return mean + (0.5 * log_variance.clamp(*LOG_VARIANCE_RANGE)).exp() * normal


def encode_timesteps(timesteps: Tensor, channels: int) -> Tensor:
    """Encode timesteps (B,) as sinusoids (B, channels) in float32, cosines first."""
    half = channels // 2
    frequencies = (
        -log(MAX_TIMESTEP_PERIOD) / half * torch.arange(half, device=timesteps.device)
    ).exp()
    angles = timesteps[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)


class _Encoder(nn.Module):
    def __init__(self, sizes: NoisePredictorSizes, ops: Any, attention: Attention) -> None:
        super().__init__()
        first, last, time_width = sizes.widths[0], sizes.widths[-1], sizes.time_width
        self.time_channels = max(MIN_TIME_CHANNELS, first)
        self.time_embedding = nn.ModuleDict(
            {
                "linear_1": ops.Linear(self.time_channels, time_width),
                "linear_2": ops.Linear(time_width, time_width),
            }
        )
        self.conv_in = ops.Conv2d(3, first, 3, padding=1)
        count, in_widths = len(sizes.widths), (first, *sizes.widths)
        self.down_blocks = nn.ModuleList(
            _Stage(
                in_widths[i],
                width,
                sizes.layers,
                sizes.layers,
                i < count - 1,
                sizes,
                ops,
                attention,
            )
            for i, width in enumerate(sizes.widths)
        )
        self.mid_block = _Stage(last, last, 2, 1, False, sizes, ops, attention)
        self.conv_norm_out = ops.GroupNorm(sizes.groups, last, eps=NORM_EPSILON)
        self.conv_out = ops.Conv2d(last, 2 * LATENT_CHANNELS, 3, padding=1)

    def forward(self, image: Tensor, timesteps: Tensor) -> Tensor:
        # Cast to the image's dtype: a float32 embedding would make all later layers compute in float32.
        time = encode_timesteps(timesteps, self.time_channels).to(image.dtype)
        time = self.time_embedding["linear_2"](F.silu(self.time_embedding["linear_1"](time)))
        features = self.conv_in(image)
        for stage in (*self.down_blocks, self.mid_block):
            features = stage(features, time)
        return self.conv_out(F.silu(self.conv_norm_out(features)))


class _Stage(nn.Module):
    """Residual blocks and attention layers in turn, and then, if ``halves``, a layer that halves the size."""

    def __init__(
        self,
        in_width: int,
        width: int,
        blocks: int,
        attentions: int,
        halves: bool,
        sizes: NoisePredictorSizes,
        ops: Any,
        attention: Attention,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            _ResidualBlock(width if i else in_width, width, sizes, ops) for i in range(blocks)
        )
        self.attentions = nn.ModuleList(
            _SelfAttention(width, sizes, ops, attention) for _ in range(attentions)
        )
        self.downsamplers = nn.ModuleList()
        if halves:
            self.downsamplers.append(nn.ModuleDict({"conv": ops.Conv2d(width, width, 3, stride=2)}))

    def forward(self, features: Tensor, time: Tensor) -> Tensor:
        for block, attention in zip_longest(self.resnets, self.attentions):
            features = block(features, time)
            if attention:
                features = attention(features)
        for halve in self.downsamplers:
            features = halve.get_submodule("conv")(F.pad(features, (0, 1, 0, 1)))
        return features


class _ResidualBlock(nn.Module):
    def __init__(self, in_width: int, width: int, sizes: NoisePredictorSizes, ops: Any) -> None:
        super().__init__()
        self.norm1 = ops.GroupNorm(sizes.groups, in_width, eps=NORM_EPSILON)
        self.conv1 = ops.Conv2d(in_width, width, 3, padding=1)
        self.time_emb_proj = ops.Linear(sizes.time_width, width)
        self.norm2 = ops.GroupNorm(sizes.groups, width, eps=NORM_EPSILON)
        self.conv2 = ops.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = nn.Identity() if in_width == width else ops.Conv2d(in_width, width, 1)

    def forward(self, features: Tensor, time: Tensor) -> Tensor:
        change = self.conv1(F.silu(self.norm1(features)))
        change = change + self.time_emb_proj(F.silu(time))[..., None, None]
        return self.conv_shortcut(features) + self.conv2(F.silu(self.norm2(change)))


class _SelfAttention(nn.Module):
    def __init__(
        self, width: int, sizes: NoisePredictorSizes, ops: Any, attention: Attention
    ) -> None:
        super().__init__()
        self.heads = width // sizes.head_width
        self.attention = attention
        self.group_norm = ops.GroupNorm(sizes.groups, width, eps=NORM_EPSILON)
        self.to_q, self.to_k, self.to_v = (ops.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([ops.Linear(width, width)])

    def forward(self, features: Tensor) -> Tensor:
        tokens = self.group_norm(features).flatten(2).transpose(1, 2)
        q, k, v = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        change = self.to_out[0](self.attention(q, k, v, self.heads))
        return features + change.transpose(1, 2).reshape(features.shape)
