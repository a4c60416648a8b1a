"""The losses of distillation: LPIPS and variational score distillation."""

import inspect
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import init_empty_weights
from torch import Tensor, nn
from torchmetrics.functional.image.lpips import _LPIPS

from coz.weights.weight_file import name_file_in_errors, read_content


def load_lpips(path: Path) -> nn.Module:
    """Load LPIPS with VGG16, a frozen network (image, image) -> (B, 1, 1, 1), for images in [-1, 1].

    torchmetrics' own loader would download VGG16. Its heads (version 0.1) come with torchmetrics.

    Args:
        path: torchvision's VGG16, vgg16-397923af.pth.
    """
    content, _ = read_content(path)
    with init_empty_weights():  # VGG16's classifier, which LPIPS does not use, would take 0.5 GB
        network = _LPIPS(net="vgg", pretrained=False, pnet_rand=True)
    heads = Path(inspect.getfile(_LPIPS)).with_name("lpips_models") / "vgg.pth"
    weights = torch.load(heads, map_location="cpu", weights_only=True)
    names = {name: name.split(".")[-2:] for name in network.state_dict() if name.startswith("net.")}
    with name_file_in_errors(path):
        try:
            weights |= {name: content[f"features.{'.'.join(end)}"] for name, end in names.items()}
            network.load_state_dict(weights, strict=False, assign=True)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(
                "expected torchvision's VGG16, but some of its weights are missing or have another shape; "
                "take https://download.pytorch.org/models/vgg16-397923af.pth"
            ) from error
    return network.float().requires_grad_(False)


def match_distributions(latent: Tensor, fake: Tensor, real: Tensor) -> Tensor:
    """Compute the loss of variational score distillation.

    The gradient moves the generator's latents towards the base model's prediction, and away from that of
    the regularizer, which learns the generator's results. The value is the mean square of the scaled
    difference of both predictions. It does not fall, because the regularizer keeps learning.

    Args:
        latent: The generator's clean latents, (B, C, h, w).
        fake: The regularizer's prediction from noised latents; no gradient runs through it.
        real: The base model's.

    Source: Chain-of-Zoom osediff_sd3.py, vsd_loss.
    """
    size = (latent.detach() - real).abs().mean((1, 2, 3), keepdim=True)
    return F.mse_loss(latent, (latent - (fake - real) / size).detach())
