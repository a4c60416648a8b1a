"""Qwen2.5-VL, with its eyes, as a CLIP: all that is glued to the host's own Qwen classes.

Those classes are the host's to change. So this is imported when a model is loaded, not with the
pack, and looks at them first.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import comfy.ops
import comfy.sd
import comfy.utils
import torch
from comfy import sd1_clip
from comfy.text_encoders import llama, qwen_vl
from comfy.text_encoders.omnigen2 import Qwen25_3BTokenizer
from torch import Tensor

from ..coz.lora import few
from ..coz.weights import require_safetensors
from .extractor_loader import MODEL_LINK

NAME = "qwen25vl"

OTHERS = {3584: "7B", 5120: "32B", 8192: "72B"}
"""Widths of the models whose output layer is another than their input layer, which it is not here."""

PAD = 151643
IMAGE_PAD = 151655
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
"""Qwen2.5-VL-3B-Instruct chat_template.json, a user's message alone."""

HEAD = 128
VISION_HEAD = 80
"""Channels of an attention head, in a Qwen2.5-VL of any size."""

USED: dict[Callable, set[str]] = {
    comfy.sd.CLIP: {"parameters", "state_dict", "model_options", "disable_dynamic"},
    llama.BaseGenerate.generate: {"initial_tokens", "position_ids", "presence_penalty"},
    llama.Llama2_: {"config", "device", "dtype", "ops"},
    qwen_vl.Qwen2VLVisionTransformer: {
        *("hidden_size", "output_hidden_size", "intermediate_size", "num_heads", "num_layers"),
        *("device", "dtype", "ops"),
    },
    sd1_clip.SDClipModel: {"textmodel_json_config", "model_class", "model_options"},
    sd1_clip.SDClipModel.process_tokens: {"tokens", "device"},
    sd1_clip.SD1ClipModel: {"name", "clip_model", "model_options"},
    sd1_clip.SD1Tokenizer: {"name", "tokenizer"},
    comfy.utils.load_torch_file: {"safe_load", "return_metadata"},
    comfy.utils.convert_old_quants: {"metadata"},
}
"""What is called here of the host -> the parameters that it needs to have."""


def check_host() -> None:
    """Raise what calling would raise, before minutes are spent on reading a file."""
    if not hasattr(qwen_vl, "qwen2vl_mrope_position_ids"):
        raise AttributeError("comfy.text_encoders.qwen_vl has no qwen2vl_mrope_position_ids")
    for function, needed in USED.items():
        if lacking := needed - inspect.signature(function).parameters.keys():
            raise TypeError(f"{function.__qualname__} no longer takes {', '.join(sorted(lacking))}")


def is_picture(token) -> bool:
    return isinstance(token, dict) and token.get("type") == "image"


@dataclass
class Config(llama.Qwen25_3BConfig):
    rope_dims = [16, 24, 24]  # noqa: RUF012 - as in the host's configs: no field
    stop_tokens = [PAD, 151645]  # noqa: RUF012 - generation_config.json


class Network(llama.BaseLlama, llama.BaseQwen3, llama.BaseGenerate, torch.nn.Module):
    def __init__(self, config_dict, dtype, device, operations):
        super().__init__()
        config = Config(**config_dict["text"])
        self.num_layers = config.num_hidden_layers
        self.dtype = dtype
        self.model = llama.Llama2_(config, device=device, dtype=dtype, ops=operations)
        self.visual = qwen_vl.Qwen2VLVisionTransformer(
            **config_dict["vision"],
            output_hidden_size=config.hidden_size,
            device=device,
            dtype=dtype,
            ops=operations,
        )

    def see(self, pictures: list[Tensor], device) -> list[tuple[Tensor, Tensor]]:
        """Each picture's tokens and grid, all in one pass: they are many small matrices."""
        if not pictures:
            return []
        seen = [qwen_vl.process_qwen2vl_images(picture[..., :3].float()) for picture in pictures]
        pixels, grids = map(torch.cat, zip(*seen, strict=True))
        tokens = self.visual(pixels.to(device), grids)
        lengths = (grids.prod(-1) // self.visual.spatial_merge_size**2).tolist()
        return [*zip(tokens.split(lengths), grids.split(1), strict=True)]

    def preprocess_embed(self, embed, device):
        if embed["type"] != "image":
            return None, None
        if "seen" in embed:
            return embed["seen"]
        return self.see([embed["data"]], device)[0]

    def logits(self, x):
        # As transformers: of the last place alone, which is all that is read; and in half precision
        # the penalty would round tokens into a tie.
        return super().logits(x[:, -1:]).float()


class ClipModel(sd1_clip.SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(
            device=device,
            dtype=dtype,
            textmodel_json_config={},
            special_tokens={"pad": PAD},
            layer_norm_hidden_state=False,
            model_class=Network,
            enable_attention_masks=True,
            return_attention_masks=True,
            model_options=model_options,
        )

    def generate(
        self,
        tokens,
        do_sample,
        max_length,
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        seed,
        presence_penalty=0.0,
    ):
        """As the base class, but with image positions, and the prompt penalised as transformers do."""
        (pairs,) = next(iter(tokens.values())) if isinstance(tokens, dict) else tokens
        prompt = [token for token, *_ in pairs]
        pictures = [t["data"] for t in prompt if is_picture(t)]
        seen = iter(self.transformer.see(pictures, self.execution_device))
        embedded = [{**t, "seen": next(seen)} if is_picture(t) else t for t in prompt]
        embeds, _, _, embeds_info = self.process_tokens([embedded], self.execution_device)
        ids = [IMAGE_PAD if is_picture(t) else t for t in prompt]
        return self.transformer.generate(
            embeds,
            do_sample,
            max_length,
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            seed,
            # The presence penalty is about the answer alone.
            initial_tokens=ids if repetition_penalty != 1 else [],
            presence_penalty=presence_penalty,
            position_ids=qwen_vl.qwen2vl_mrope_position_ids(
                embeds_info, embeds.shape[1], embeds.device
            ),
        )


class TextEncoder(sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(
            device=device,
            dtype=dtype,
            name=NAME,
            clip_model=ClipModel,
            model_options=model_options,
        )


class Tokenizer(sd1_clip.SD1Tokenizer):
    """Takes what the host's tokenizers of Qwen3-VL and Qwen-Image take."""

    def __init__(self, embedding_directory=None, tokenizer_data=None):
        super().__init__(
            embedding_directory, tokenizer_data or {}, name=NAME, tokenizer=Qwen25_3BTokenizer
        )

    def tokenize_with_weights(
        self,
        text,
        return_word_ids=False,
        llama_template=None,
        images=(),
        image=None,
        skip_template=False,
        video=None,
        audio=None,
        **kwargs,
    ):
        if video is not None or audio is not None:
            raise ValueError("Qwen2.5-VL is loaded for pictures: connect image, no video or audio")
        if image is not None and not len(images):
            images = image.split(1)
        if not skip_template and not text.startswith("<|im_start|>"):
            template = llama_template or TEMPLATE.replace("{}", IMAGE * len(images) + "{}")
            text = template.replace("{}", text, 1)
        # The host's own method would read brackets, backslashes and embedding names.
        ids = getattr(self, NAME).tokenizer(text)["input_ids"] or [PAD]
        pictures = iter(images)
        row = []
        for i, token in enumerate(ids):
            if token == IMAGE_PAD and (data := next(pictures, None)) is not None:
                token = {"type": "image", "data": data, "original_type": "image"}
            row.append((token, 1.0, i + 1) if return_word_ids else (token, 1.0))
        return {NAME: [row]}


def load(paths: list[Path], disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """Qwen2.5-VL from the files that it is spread over, loaded as the host's load_clip does."""
    check_host()
    state = read(paths)
    name = paths[0].name
    config = sizes(state, name)
    check_weights(state, config, name)
    detected = comfy.sd.llama_detect([state])
    options = {"dtype": detected.get("dtype_llama"), f"{NAME}_model_config": config}
    if quantization := detected.get("llama_quantization_metadata"):
        options["quantization_metadata"] = quantization
    clip = comfy.sd.CLIP(
        SimpleNamespace(params={}, clip=TextEncoder, tokenizer=Tokenizer),
        parameters=comfy.utils.calculate_parameters(state),
        state_dict=[state],
        model_options=options,
        disable_dynamic=disable_dynamic,
    )
    # What the host's Select CLIP Device calls for weights of its own.
    clip.patcher.cached_patcher_init = (load_patcher, (paths,))
    return clip


def load_patcher(paths: list[Path], disable_dynamic: bool = False):
    return load(paths, disable_dynamic).patcher


def read(paths: list[Path]) -> dict[str, Tensor]:
    """All weights under the names of the host's classes; they stay on disk until they are used."""
    state = {}
    for path in paths:
        require_safetensors(path)
        part, metadata = comfy.utils.load_torch_file(
            str(path), safe_load=True, return_metadata=True
        )
        state |= comfy.utils.convert_old_quants(part, metadata=metadata)[0]
    renamed = {"model.language_model.": "model.", "model.visual.": "visual."}
    state = comfy.utils.state_dict_prefix_replace(state, renamed)
    # The same as the input layer, and no layer of the host's class.
    return {key: weight for key, weight in state.items() if not key.startswith("lm_head.")}


def sizes(state: dict[str, Tensor], name: str) -> dict[str, dict[str, int]]:
    """The model's measures, from weights that no quantisation packs."""
    if any("visual.deepstack_merger_list." in key for key in state):
        raise ValueError(
            f"{name}: expected Qwen2.5-VL-3B, but found Qwen3-VL; load it with ComfyUI's own Load CLIP, "
            "and connect that to the prompt extractor"
        )
    layer, block = "model.layers.0", "visual.blocks.0"
    if not {"model.embed_tokens.weight", f"{layer}.self_attn.q_proj.bias"} <= state.keys():
        raise ValueError(
            f"{name}: expected Qwen2.5-VL-3B, but found {few(state)}; take the files of {MODEL_LINK}"
        )
    if not any(key.startswith("visual.") for key in state):
        raise ValueError(
            f"{name}: expected Qwen2.5-VL-3B with its visual weights (visual.*), but found the language "
            f"model alone, which sees no pictures; take the files of {MODEL_LINK}, or a single file made "
            "of all of them (7.5 GB in 16 bits), such as qwen_2.5_vl_fp16.safetensors of OmniGen2"
        )
    vocabulary, width = state["model.embed_tokens.weight"].shape
    if width in OTHERS:
        raise ValueError(
            f"{name}: expected Qwen2.5-VL-3B (2048 wide), but found the {OTHERS[width]} model ({width} wide); "
            f"take the files of {MODEL_LINK}"
        )
    try:
        vision_width = len(state[f"{block}.norm1.weight"])
        return {
            "text": {
                "vocab_size": vocabulary,
                "hidden_size": width,
                "intermediate_size": len(state[f"{layer}.mlp.gate_proj.weight"]),
                "num_hidden_layers": count(state, r"model\.layers\.(\d+)\."),
                "num_attention_heads": len(state[f"{layer}.self_attn.q_proj.bias"]) // HEAD,
                "num_key_value_heads": len(state[f"{layer}.self_attn.k_proj.bias"]) // HEAD,
            },
            "vision": {
                "hidden_size": vision_width,
                "intermediate_size": len(state[f"{block}.mlp.gate_proj.bias"]),
                "num_heads": vision_width // VISION_HEAD,
                "num_layers": count(state, r"visual\.blocks\.(\d+)\."),
            },
        }
    except KeyError as error:
        raise ValueError(incomplete(name, [str(error.args[0])])) from error


def count(state: dict[str, Tensor], pattern: str) -> int:
    return 1 + max(int(found[1]) for key in state if (found := re.match(pattern, key)))


def check_weights(state: dict[str, Tensor], config: dict, name: str) -> None:
    """Every weight is there and of its shape: of what is missing the host only logs the names."""
    expected = Network(config, torch.float32, "meta", comfy.ops.manual_cast).state_dict()
    if lacking := [key for key in expected if key not in state]:
        raise ValueError(incomplete(name, lacking))
    layers = {key.rpartition(".")[0] for key in state if key.endswith(".comfy_quant")}
    for key, weight in expected.items():
        is_packed = key.endswith(".weight") and key.rpartition(".")[0] in layers
        if not is_packed and state[key].shape != weight.shape:
            raise ValueError(
                f"{name}: expected its {key} to be {tuple(weight.shape)}, but found {tuple(state[key].shape)}; "
                f"take the files of {MODEL_LINK}"
            )
    scaled = [key for key in state if re.search(r"\.weight_scale(_inv)?$", key)]
    if foreign := [key for key in scaled if key.rpartition(".")[0] not in layers]:
        raise ValueError(
            f"{name}: expected weights as they are, or quantised for ComfyUI, but found {few(foreign)} "
            f"of another program; take the files of {MODEL_LINK}"
        )


def incomplete(name: str, lacking: list[str]) -> str:
    return (
        f"{name}: expected all weights of Qwen2.5-VL-3B, but found none named {few(lacking)}: it is incomplete, "
        f"or quantised for another program; take the files of {MODEL_LINK}"
    )
