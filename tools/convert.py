"""Turn a weight file of Chain-of-Zoom, OSEDiff, PEFT, RAM or SeeSR into safetensors.

    python -m tools.convert model_20001.pkl coz_sr_lora.safetensors
    python -m tools.convert vae_encoder_20001.pt coz_vae.safetensors --vae sd3_medium.safetensors
    python -m tools.convert adapter_model.safetensors coz_prompt_lora.safetensors --dtype bf16
    python -m tools.convert ram_swin_large_14m.pth ram_swin_large_14m.safetensors

This file also runs by its path, with the Python of ComfyUI. In the Windows portable's folder:

    python_embeded\\python.exe ComfyUI\\custom_nodes\\chain-of-zoom\\tools\\convert.py IN OUT
"""

import argparse
import hashlib
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

# An embedded Python searches neither the working directory nor the script's folder.
sys.path.append(str(Path(__file__).resolve().parent.parent))

try:
    import torch
    from safetensors.torch import save
    from torch import Tensor
    from tqdm import tqdm

    from coz.weights.lora import LORA_FACTOR, SRWeights, StandardKeyWeights, split_weights
    from coz.weights.read import FORMAT, read_vae, read_with_standard_keys
    from coz.weights.vae import rename_vae_weights
except ModuleNotFoundError as error:
    sys.exit(f"error: this Python has no {error.name}: use the one that ComfyUI runs on")

DTYPES = {"bf16": torch.bfloat16, "fp8_e4m3fn": torch.float8_e4m3fn}
DTYPE_HELP = """dtype of the weights (default: that of IN; float32 for weights that a LoRA was merged
into; float16 for RAM). bf16 halves the size of float32 and changes each weight by up to 0.4 percent;
fp8_e4m3fn quarters it and changes each by up to 6 percent, and small weights of a VAE by more. The change
(root mean square) is printed."""

USES = {
    "coz lora": "Load LoRA and CoZ Load SR LoRA take it.",
    "coz vae encoder": "It holds only an encoder: only CoZ Load SR LoRA takes it, Load VAE does not. "
    "For Load VAE, convert with --vae BASE.",
    "osediff": "Load LoRA takes its UNet part; only CoZ Load SR LoRA takes its VAE part. "
    "For Load VAE, convert once more with --vae BASE.",
    "peft lora": "Load LoRA takes it. If it is for a language model, CoZ Load Prompt Extractor takes it; "
    "if for another text encoder, Load LoRA (Model and CLIP).",
    "lora": "Load LoRA takes it.",
    "dape": "CoZ Load Tagger takes it, as dape_name.",
    "ram": "CoZ Load Tagger takes it, as tagger_name. It holds only the weights that rate the tags.",
}

MIN_BYTES_WITH_BAR = 10**8
"""Smaller files are converted in a second or two, without a progress bar."""


def convert(source: Path, out: Path, base: Path | None, dtype: torch.dtype | None) -> str:
    """Convert ``source``, write it to ``out``, and return a text that says which nodes take it."""
    if out.suffix.lower() != ".safetensors":
        raise ValueError(f"{out.name}: expected a name that ends in .safetensors")
    if out.resolve() in (source.resolve(), base and base.resolve()):
        raise ValueError(f"{out.name}: expected a new file, but it is one of the input files")
    keyed = read_with_standard_keys(source)
    tensors, use = keyed.tensors, USES[keyed.kind]
    size = source.stat().st_size
    with tqdm(total=size, unit="B", unit_scale=True, disable=size < MIN_BYTES_WITH_BAR) as bar:
        metadata = make_metadata(keyed, source, bar)
        if base:
            tensors, use = complete_vae(read_vae(base), split_weights(keyed)), "Load VAE takes it."
        part = out.with_name(f"{out.name}.part")
        if keyed.kind == "ram" and not dtype:
            write_in_half_precision(tensors, part, metadata, bar)
        else:
            if dtype:
                tensors, cost = cast_weights(tensors, dtype)
                use += f" Its weights differ by {cost:.2%} (root mean square)."
            part.write_bytes(save({name: t.contiguous() for name, t in tensors.items()}, metadata))
    os.replace(part, out)
    return use


def write_in_half_precision(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str], bar: tqdm
) -> None:
    """Write a safetensors file in float16, tensor by tensor, so that memory never holds all of them."""
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "F16", "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    bar.total += end
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            bar.update(file.write(tensor.half().contiguous().numpy().tobytes()))


def make_metadata(keyed: StandardKeyWeights, source: Path, bar: tqdm) -> dict[str, str]:
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            bar.update(len(block))
    entries = {
        "format": FORMAT,
        "kind": keyed.kind,
        "source_sha256": digest.hexdigest(),
        "rank": keyed.rank,
        "alpha": keyed.alpha,
        "latent_shift": keyed.latent_shift,
    }
    return {name: str(value) for name, value in entries.items() if value is not None}


def complete_vae(base: Mapping[str, Tensor], weights: SRWeights) -> dict[str, Tensor]:
    """Put the VAE weights of a file into the base VAE, and return them under ComfyUI's names."""
    if not weights.vae and not weights.vae_diff:
        raise ValueError(
            "expected VAE weights, but found none; take Chain-of-Zoom's VAE encoder or OSEDiff's "
            "file, or leave --vae out"
        )
    whole = rename_vae_weights(base)
    for name, tensor in {**weights.vae, **weights.vae_diff}.items():
        found = tuple(whole[name].shape) if name in whole else "none"
        if found != tuple(tensor.shape):
            raise ValueError(
                f"expected {name} of the base VAE to be {tuple(tensor.shape)}, but found {found}; "
                "take the VAE of the base model that the weights are for"
            )
    summed = {name: whole[name].float() + diff for name, diff in weights.vae_diff.items()}
    return {**whole, **weights.vae, **summed}


def cast_weights(
    tensors: Mapping[str, Tensor], dtype: torch.dtype
) -> tuple[dict[str, Tensor], float]:
    """Cast the weights to another dtype and return their relative change (root mean square) too.

    Alphas, biases and norms (a thousandth of a file) keep their dtype. Most weights of a LoRA are
    smaller than the smallest float8: each factor is multiplied by the power of two that fills
    float8's range, and its layer's alpha is divided by it.
    """
    cast = dict(tensors)
    change = total = 0.0
    limit = torch.finfo(dtype).max
    for name, tensor in tensors.items():
        if tensor.ndim < 2:
            continue
        weight = tensor.float()
        peak = weight.abs().max().item()
        factor = LORA_FACTOR.fullmatch(name)
        if factor and peak and dtype is torch.float8_e4m3fn:
            scale = 2.0 ** math.floor(math.log2(limit / peak))
            weight, peak = weight * scale, peak * scale
            rank = tensor.shape[0 if factor[2] in ("A", "down") else 1]
            alpha = f"{factor[1]}.alpha"
            cast[alpha] = cast.get(alpha, torch.tensor(float(rank))).float() / scale
        if not peak <= limit:
            raise ValueError(
                f"{name} holds {peak}, which {dtype} cannot represent; take another --dtype"
            )
        cast[name] = weight.to(dtype)
        size = weight.square().mean().item() or 1.0
        change += (cast[name].float() - weight).square().sum().item() / size
        total += weight.numel()
    return cast, math.sqrt(change / max(total, 1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="IN", type=Path, help="the file as it was published")
    parser.add_argument("out", metavar="OUT", type=Path, help="the .safetensors file to write")
    parser.add_argument(
        "--vae",
        metavar="BASE",
        type=Path,
        help="write a complete VAE: that of BASE (a VAE or a checkpoint, .safetensors) with the VAE "
        "weights of IN. Without --vae, only CoZ Load SR LoRA can use the VAE weights of IN",
    )
    parser.add_argument("--dtype", choices=DTYPES, help=DTYPE_HELP)
    options = parser.parse_args()
    try:
        use = convert(options.source, options.out, options.vae, DTYPES.get(options.dtype))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"Wrote {options.out}. {use}")


if __name__ == "__main__":
    main()
