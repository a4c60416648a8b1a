"""Chain-of-Zoom's step in diffusers, on small random networks, as it is and with its files."""

from collections.abc import Iterator
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn.functional import pad

from tests.support.random_sd3 import (
    autoencoder,
    coz_lora,
    draw_conditioning,
    sd3_transformer,
    with_coz_encoder,
    with_coz_lora,
)
from tests.support.small_models import WIDTH

SCALE, SHIFT = 1.5305, 0.0609  # of SD3's VAE, diffusers' vae/config.json
LATENT_SHIFTS = ("reference", "symmetric", "none")
PLAIN_SHAPES = ((1, 48, 80, 3), (2, 48, 80, 3))
ODD_SHAPES = ((1, 37, 53, 3), (1, 5, 7, 3), (1, 1, 1, 3), (1, 16, 31, 3))
ADAPTED_SHAPES = ((1, 48, 80, 3), (2, 64, 32, 3))
WIDER = 96
"""Width of the VAE with which bfloat16 is compared."""


def draw_image(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def name_case(network: str, shape: tuple[int, ...], latent_shift: str = "reference") -> str:
    return f"{network} {latent_shift} {' x '.join(map(str, shape))}"


def pad_to_16(image: Tensor) -> Tensor:
    """Mirror the image at its right and lower edge, or repeat the edge if it has too few pixels."""
    for axis in (2, 1):
        side = image.shape[axis]
        added = -side % 16
        amount = [0, 0, 0, added] if axis == 1 else [0, added, 0, 0]
        mode = "reflect" if side > added else "replicate"
        image = pad(image.movedim(-1, 1), amount, mode).movedim(1, -1)
    return image


def step(networks: SimpleNamespace, image: Tensor, latent_shift: str) -> Tensor:
    """Chain-of-Zoom's step in diffusers, on an image whose sides are multiples of 16.

    Deviation: the posterior's mode, as the host takes it, where the original draws a sample.
    """
    latent = networks.autoencoder.encode(image.movedim(-1, 1) * 2 - 1).latent_dist.mode()
    z = (latent - SHIFT * (latent_shift == "symmetric")) * SCALE
    ((context, options),) = draw_conditioning()
    velocity = networks.transformer(
        hidden_states=z,
        timestep=torch.full((len(z),), 1000.0),
        encoder_hidden_states=context.expand(len(z), -1, -1),
        pooled_projections=options["pooled_output"].expand(len(z), -1),
        return_dict=False,
    )[0]
    latent = (z - velocity) / SCALE + SHIFT * (latent_shift != "none")
    return to_image(networks.autoencoder.decode(latent).sample)


def to_image(decoded: Tensor) -> Tensor:
    return (decoded.clamp(-1, 1) / 2 + 0.5).movedim(1, -1)


def run_steps() -> Iterator[tuple[str, Tensor]]:
    plain = SimpleNamespace(transformer=sd3_transformer(2), autoencoder=autoencoder(width=WIDTH))
    with_lora = with_coz_lora(plain.transformer, coz_lora(2))
    half = with_coz_lora(plain.transformer, [tensor * 0.5**0.5 for tensor in coz_lora(2)])
    adapted = SimpleNamespace(
        transformer=with_lora, autoencoder=with_coz_encoder(plain.autoencoder)
    )
    wider = SimpleNamespace(
        transformer=with_lora, autoencoder=with_coz_encoder(autoencoder(width=WIDER))
    )
    halved = SimpleNamespace(transformer=half, autoencoder=plain.autoencoder)
    for latent_shift in LATENT_SHIFTS:
        for shape in PLAIN_SHAPES:
            image = step(plain, draw_image(shape), latent_shift)
            yield name_case("plain", shape, latent_shift), image
        for shape in ADAPTED_SHAPES:
            image = step(adapted, draw_image(shape), latent_shift)
            yield name_case("files", shape, latent_shift), image
    for shape in ODD_SHAPES:
        image = step(plain, pad_to_16(draw_image(shape)), "reference")
        yield name_case("plain", shape), image[:, : shape[1], : shape[2]]
    for name, networks, shape in (
        ("wider", wider, (1, 64, 64, 3)),
        ("half", halved, (1, 32, 32, 3)),
    ):
        yield name_case(name, shape), step(networks, draw_image(shape), "reference")
    vae_4, image = autoencoder(4, WIDTH), draw_image((1, 32, 32, 3))
    latent = vae_4.encode(image.movedim(-1, 1) * 2 - 1).latent_dist.mode()
    yield "vae_4 latent", latent
    yield "vae_4 image", to_image(vae_4.decode(latent.flip(-1)).sample)


@torch.inference_mode()
def record() -> dict[str, Tensor]:
    return {name: image.contiguous() for name, image in run_steps()}
