"""Define the network of the built-in models (SRVGGNetCompact, as spandrel reads it) and its optimizer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = 64
HIDDEN_CONVOLUTIONS = 16
SCALE = 4
COLOR_CHANNELS = 3
"""Number of channels that pass the image through all layers unchanged."""
POINTWISE_CONVOLUTIONS = 2
"""Number of hidden convolutions that see only one pixel if the reach of the network is limited. The other 16 of
its 18 convolutions reach one pixel further each, so that a result depends on 16 pixels around it instead of 18.
The pack rounds this reach up to a multiple of 8, and around its tiles of 256 pixels there is room for 16."""


def make_spline_weights() -> Tensor:
    """Make weights (48, 3, 3, 3) whose result, added to nearest-neighbor upscaling, is a quadratic B-spline.

    spandrel adds the nearest-neighbor upscaling to the network's result. A network that must learn to
    cancel these square pixels leaves stairs and blocks of color, which each step of a chain enlarges.
    The spline has neither, and it keeps linear gradients.
    """
    places = (torch.arange(SCALE) + 0.5) / SCALE - 0.5
    away = (places[:, None] - torch.tensor([-1, 0, 1])).abs()
    line = torch.where(away <= 0.5, 0.75 - away**2, 0.5 * (1.5 - away).clamp(0) ** 2)
    kernel = line[:, None, :, None] * line[None, :, None, :]
    kernel[..., 1, 1] -= 1
    weight = torch.zeros(COLOR_CHANNELS, SCALE**2, COLOR_CHANNELS, 3, 3)
    for color in range(COLOR_CHANNELS):
        weight[color, :, color] = kernel.flatten(0, 1)
    return weight.flatten(0, 1)


class CompactNet(nn.Module):
    """SRVGGNetCompact (Real-ESRGAN): all layers work at low resolution, with a pixel shuffle at the end.

    Keys and shapes are those of spandrel's `Compact`. The hidden convolutions start as the
    identity plus noise. Without the identity, a plain stack of 18 layers is still worse than bicubic
    after 1000 steps; with it, the stack is 1.1 dB better than bicubic.
    """

    def __init__(self) -> None:
        super().__init__()
        self.has_limited_reach = False
        layers: list[nn.Module] = [nn.Conv2d(3, FEATURES, 3, padding=1), nn.PReLU(FEATURES)]
        for _ in range(HIDDEN_CONVOLUTIONS):
            layers += [nn.Conv2d(FEATURES, FEATURES, 3, padding=1), nn.PReLU(FEATURES)]
        layers.append(nn.Conv2d(FEATURES, 3 * SCALE**2, 3, padding=1))
        self.body = nn.ModuleList(layers)
        self.start_near_identity()

    @torch.no_grad()
    def start_near_identity(self) -> None:
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=0.25)
                nn.init.zeros_(layer.bias)
        for layer in self.list_hidden_layers():
            layer.weight.mul_(0.3).add_(nn.init.dirac_(torch.empty_like(layer.weight)))
        self.body[-1].weight.mul_(0.1)
        self.body[-1].weight[:, :COLOR_CHANNELS] = make_spline_weights()
        self.pass_colors_through()

    @torch.no_grad()
    def pass_colors_through(self) -> None:
        """Set the weights of the first channels so that they pass the image on unchanged."""
        for layer in self.body[:-1]:
            if isinstance(layer, nn.Conv2d):
                layer.weight[:COLOR_CHANNELS] = 0
                layer.weight[range(COLOR_CHANNELS), range(COLOR_CHANNELS), 1, 1] = 1
                layer.bias[:COLOR_CHANNELS] = 0
            else:
                layer.weight[:COLOR_CHANNELS] = 1

    @torch.no_grad()
    def limit_reach(self) -> None:
        """Let the first hidden convolutions, which use neighboring pixels least, see only one pixel."""
        self.has_limited_reach = True
        for layer in self.list_hidden_layers()[:POINTWISE_CONVOLUTIONS]:
            center = layer.weight[..., 1, 1].clone()
            layer.weight.zero_()[..., 1, 1] = center

    def was_saved_with_limited_reach(self) -> bool:
        """Whether `limit_reach` was applied to the network before it was saved."""
        first = self.list_hidden_layers()[:POINTWISE_CONVOLUTIONS]
        return all(int(layer.weight.count_nonzero((0, 1)).count_nonzero()) == 1 for layer in first)

    def list_hidden_layers(self) -> list[nn.Conv2d]:
        return [layer for layer in self.body[1:-1] if isinstance(layer, nn.Conv2d)]

    def forward(self, lq: Tensor) -> Tensor:
        features = lq
        for layer in self.body:
            features = layer(features)
        base = F.interpolate(lq, scale_factor=SCALE, mode="nearest")
        return F.pixel_shuffle(features, SCALE) + base


def orthogonalize(matrices: Tensor) -> Tensor:
    """Compute roughly the nearest semi-orthogonal matrices by five Newton-Schulz steps (Jordan, Muon, 2024).

    The matrices (N, C, 9C) are computed together and in bfloat16, which is three times as fast on a CPU.
    """
    x = matrices.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalized updates, for the (C, C, 3, 3) hidden convolutions.

    After 100 s on one core the network is 1.51 dB better than bicubic; with Adam for all weights, 1.13 dB.
    """

    def __init__(self, weights: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            weights, momentum = group["params"], group["momentum"]
            updates = []
            for weight in weights:
                state = self.state[weight]
                if not state:
                    state["average"] = torch.zeros_like(weight)
                average = state["average"].mul_(momentum).add_(weight.grad)
                updates.append((weight.grad + momentum * average).flatten(1))
            for weight, update in zip(weights, orthogonalize(torch.stack(updates)), strict=True):
                # An update (C, 9C) has a third of the RMS value of a square one; sqrt(3) balances part of it.
                weight.add_(update.view_as(weight), alpha=-group["lr"] * 3**0.5)


def make_optimizers(net: CompactNet, muon_lr: float, adam_lr: float) -> list[torch.optim.Optimizer]:
    hidden = [layer.weight for layer in net.list_hidden_layers()]
    taken = {id(weight) for weight in hidden}
    rest = [weight for weight in net.parameters() if id(weight) not in taken]
    return [Muon(hidden, muon_lr), torch.optim.Adam(rest, adam_lr, betas=(0.9, 0.99))]
