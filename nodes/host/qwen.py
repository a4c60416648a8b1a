"""Qwen2.5-VL with its vision tower as a ComfyUI CLIP.

Everything that subclasses ComfyUI's Qwen code is in this file. ComfyUI may change that code at any
time. So the file is imported only when a model is loaded, and checks the code first. The methods
that ComfyUI calls accept and ignore unknown keywords: ComfyUI 0.37 added ``mtp`` to every call of
``generate``.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import comfy.ops
import comfy.sd
import comfy.utils
import torch
from comfy import sd1_clip
from comfy.model_patcher import ModelPatcher
from comfy.text_encoders import llama, qwen_vl
from comfy.text_encoders.omnigen2 import Qwen25_3BTokenizer
from torch import Tensor

from ...coz.text.conversation import QWEN_CHAT, QWEN_IMAGE
from .qwen_weights import check_weights, read_sizes, read_state

ENCODER_NAME = "qwen25vl"

PAD_TOKEN = 151643
IMAGE_TOKEN = 151655
SYSTEM_PROMPT = "You are a helpful assistant."
"""The default in chat_template.json of Qwen2.5-VL-3B-Instruct."""

REQUIRED_PARAMETERS: dict[Callable, set[str]] = {
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
"""Functions of ComfyUI that this file and qwen_weights call -> the parameters that they must have."""


def check_comfyui_classes() -> None:
    """Raise an error if ComfyUI's Qwen classes have changed, before minutes are spent on reading a file."""
    if not hasattr(qwen_vl, "qwen2vl_mrope_position_ids"):
        raise AttributeError("comfy.text_encoders.qwen_vl has no qwen2vl_mrope_position_ids")
    for function, needed in REQUIRED_PARAMETERS.items():
        if lacking := needed - inspect.signature(function).parameters.keys():
            raise TypeError(f"{function.__qualname__} no longer takes {', '.join(sorted(lacking))}")


def is_image_token(token) -> bool:
    return isinstance(token, dict) and token.get("type") == "image"


@dataclass
class Config(llama.Qwen25_3BConfig):
    """The language model's configuration, completed by what ComfyUI's class lacks."""

    rope_dims = [16, 24, 24]  # noqa: RUF012 - no annotation, so no dataclass field, as in ComfyUI
    stop_tokens = [PAD_TOKEN, 151645]  # noqa: RUF012 - generation_config.json


class Network(llama.BaseLlama, llama.BaseQwen3, llama.BaseGenerate, torch.nn.Module):
    """The language model and the vision tower."""

    def __init__(self, config_dict, dtype, device, operations, **kwargs):
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

    def embed_images(self, images: list[Tensor], device) -> list[tuple[Tensor, Tensor]]:
        """Return the tokens and the grid of each image.

        All images go through the vision tower in one pass: many small multiplications would be slower.
        """
        if not images:
            return []
        patches = [qwen_vl.process_qwen2vl_images(image[..., :3].float()) for image in images]
        pixels, grids = map(torch.cat, zip(*patches, strict=True))
        tokens = self.visual(pixels.to(device), grids)
        lengths = (grids.prod(-1) // self.visual.spatial_merge_size**2).tolist()
        return [*zip(tokens.split(lengths), grids.split(1), strict=True)]

    def preprocess_embed(self, embed, device, **kwargs):
        if embed["type"] != "image":
            return None, None
        if "embedded" in embed:
            return embed["embedded"]
        return self.embed_images([embed["data"]], device)[0]

    def logits(self, x, **kwargs):
        # As in transformers, compute only the logits that are read, those of the last position. In half
        # precision, rounding after the penalty would make tokens equally likely.
        return super().logits(x[:, -1:]).float()


class ClipModel(sd1_clip.SDClipModel):
    """The network with the methods that ComfyUI's text encoders need."""

    def __init__(self, device="cpu", dtype=None, model_options=None, **kwargs):
        super().__init__(
            device=device,
            dtype=dtype,
            textmodel_json_config={},
            special_tokens={"pad": PAD_TOKEN},
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
        **kwargs,
    ):
        """Generate as the base class does, with two changes.

        Image tokens get their positions, and the repetition penalty also counts the prompt's tokens, as
        in transformers.
        """
        (pairs,) = next(iter(tokens.values())) if isinstance(tokens, dict) else tokens
        prompt = [token for token, *_ in pairs]
        images = [t["data"] for t in prompt if is_image_token(t)]
        embedded = iter(self.transformer.embed_images(images, self.execution_device))
        row = [{**t, "embedded": next(embedded)} if is_image_token(t) else t for t in prompt]
        embeds, _, _, embeds_info = self.process_tokens([row], self.execution_device)
        ids = [IMAGE_TOKEN if is_image_token(t) else t for t in prompt]
        writer: llama.BaseGenerate = self.transformer
        return writer.generate(
            embeds,
            do_sample,
            max_length,
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            seed,
            # ComfyUI counts initial_tokens for both penalties. Pass the prompt only for a repetition
            # penalty, so that a presence penalty alone counts only the answer.
            initial_tokens=ids if repetition_penalty != 1 else [],
            presence_penalty=presence_penalty,
            position_ids=qwen_vl.qwen2vl_mrope_position_ids(
                embeds_info, embeds.shape[1], embeds.device
            ),
        )


class TextEncoder(sd1_clip.SD1ClipModel):
    """The outer class, which ComfyUI's CLIP holds."""

    def __init__(self, device="cpu", dtype=None, model_options=None, **kwargs):
        super().__init__(
            device=device,
            dtype=dtype,
            name=ENCODER_NAME,
            clip_model=ClipModel,
            model_options=model_options,
        )


class Tokenizer(sd1_clip.SD1Tokenizer):
    """A tokenizer with the parameters of ComfyUI's tokenizers for Qwen3-VL and Qwen-Image."""

    def __init__(self, embedding_directory=None, tokenizer_data=None, **kwargs):
        super().__init__(
            embedding_directory,
            tokenizer_data or {},
            name=ENCODER_NAME,
            tokenizer=Qwen25_3BTokenizer,
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
        system_prompt="",
        **kwargs,
    ):
        if video is not None or audio is not None:
            raise ValueError(
                "CoZ Load Prompt Extractor loads Qwen2.5-VL for images only: connect image, "
                "not video or audio"
            )
        # Generate Text of ComfyUI 0.37 passes images=None if no image is connected.
        if images is None or not len(images):
            images = () if image is None else image.split(1)
        if not skip_template and not text.startswith("<|im_start|>"):
            if llama_template:
                text = llama_template.replace("{}", text, 1)
            else:
                system, shown = system_prompt or SYSTEM_PROMPT, QWEN_IMAGE * len(images)
                text = QWEN_CHAT.format(instruction=system, images=shown + text)
        # ComfyUI's own method would interpret brackets, backslashes and embedding names.
        ids = getattr(self, ENCODER_NAME).tokenizer(text)["input_ids"] or [PAD_TOKEN]
        remaining = iter(images)
        row = []
        for i, token in enumerate(ids):
            if token == IMAGE_TOKEN and (data := next(remaining, None)) is not None:
                token = {"type": "image", "data": data, "original_type": "image"}
            row.append((token, 1.0, i + 1) if return_word_ids else (token, 1.0))
        return {ENCODER_NAME: [row]}


def load_qwen(paths: list[Path], disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """Load Qwen2.5-VL from its one or more files, as ComfyUI's load_clip loads a model."""
    check_comfyui_classes()
    state = read_state(paths)
    name = paths[0].name
    config = read_sizes(state, name)
    network = Network(config, torch.float32, "meta", comfy.ops.manual_cast)
    check_weights(state, network.state_dict(), name)
    detected = comfy.sd.llama_detect([state])
    options = {"dtype": detected.get("dtype_llama"), f"{ENCODER_NAME}_model_config": config}
    if quantization := detected.get("llama_quantization_metadata"):
        options["quantization_metadata"] = quantization
    clip = comfy.sd.CLIP(
        SimpleNamespace(params={}, clip=TextEncoder, tokenizer=Tokenizer),
        parameters=comfy.utils.calculate_parameters(state),
        state_dict=[state],
        model_options=options,
        disable_dynamic=disable_dynamic,
    )
    # ComfyUI's Select CLIP Device calls this to load a second copy of the weights.
    patcher: ModelPatcher = clip.patcher
    patcher.cached_patcher_init = (load_patcher, (paths,))
    return clip


def load_patcher(paths: list[Path], disable_dynamic: bool = False, **kwargs):
    return load_qwen(paths, disable_dynamic).patcher
