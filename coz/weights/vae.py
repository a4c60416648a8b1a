"""Rename a VAE's weights from diffusers' names to ComfyUI's."""

import re
from collections.abc import Mapping

from torch import Tensor

VAE_RENAMES = [
    (r"\b(down|up)_blocks\.(\d+)\.resnets\.(\d+)\.", r"\1.\2.block.\3."),
    (r"\b(down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.", r"\1.\2.\1sample."),
    (r"\bmid_block\.resnets\.0\.", "mid.block_1."),
    (r"\bmid_block\.resnets\.1\.", "mid.block_2."),
    (r"\bmid_block\.attentions\.0\.", "mid.attn_1."),
    (r"\bconv_shortcut\.", "nin_shortcut."),
    (r"\bconv_norm_out\.", "norm_out."),
    (r"\battn_1\.group_norm\.", "attn_1.norm."),
    (r"\battn_1\.(?:to_)?([qkv])(?:uery|ey|alue)?\.", r"attn_1.\1."),
    (r"\battn_1\.(?:to_out\.0|proj_attn)\.", "attn_1.proj_out."),
]
"""Patterns of diffusers' AutoencoderKL, with old and new attention names -> ComfyUI's names."""

COMFYUI_VAE_NAME_PATTERN = re.compile(
    r"(?:(?:encoder|decoder)\.(?:conv_in|conv_out|norm_out|mid\.(?:block_[12]|attn_1)\.\w+"
    r"|(?:down|up)\.\d+\.(?:block\.\d+\.\w+|(?:down|up)sample\.conv))"
    r"|quant_conv|post_quant_conv)\.(?:weight|bias)"
)


def rename_vae_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename an AutoencoderKL's weights to ComfyUI's names. Weights with such names keep them.

    diffusers numbers the decoder's levels in reverse, and its attention has matrices where ComfyUI
    has 1x1 convolutions.
    """
    level = re.compile(r"decoder\.up_blocks\.(\d+)\.")
    last = max((int(found[1]) for name in tensors if (found := level.match(name))), default=0)
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if found := level.match(name):
            name = f"decoder.up_blocks.{last - int(found[1])}.{name[found.end() :]}"
        name = rename_vae_weight(name)
        is_matrix = tensor.ndim == 2 and ".attn_1." in name
        renamed[name] = tensor[..., None, None] if is_matrix else tensor
    return renamed


def rename_vae_weight(name: str) -> str:
    """Rename one weight; the number of a decoder level stays."""
    for pattern, replacement in VAE_RENAMES:
        name = re.sub(pattern, replacement, name)
    return name
