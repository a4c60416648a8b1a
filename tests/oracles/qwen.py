"""What transformers generate with a small random Qwen2.5-VL, as it is, with a LoRA, and quantised."""

import copy
import json

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from coz.text.conversation import MODEL_FAMILIES, MULTISCALE_INSTRUCTION, write_chat
from tests.support.random_qwen import draw_qwen25vl, qwen25vl, with_prompt_lora
from tools.host import host_path

PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
SIZES = [(112, 140), (196, 84)]
ANSWER = 8
WORDS = "model.language_model.embed_tokens.weight"
"""The weight that gives the logits of the last layer's values."""
PLAIN = [(0, 1.05), (1, 1.0), (1, 1.05), (2, 1.0), (2, 1.05), (2, 0.3)]
"""How many pictures, and the repetition penalty."""
QUANTISED = ("plain fp8", "float8_e4m3fn", "int8_tensorwise")
STOCK_PICTURES = [(84, 112, 3), (84, 112, 4)]
STOCK_CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    f"{PICTURE * 2}What?<|im_end|>\n<|im_start|>assistant\n"
)
"""What the host's Generate Text makes of "What?" and two pictures."""


def write_pictures_chat(pictures: int) -> str:
    return (
        "<|im_start|>system\nSay what you see.<|im_end|>\n<|im_start|>user\n"
        f"{PICTURE * pictures}<|im_end|>\n<|im_start|>assistant\n"
    )


def draw_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def draw_pictures(count: int) -> list[np.ndarray]:
    return [draw_picture(*size, seed) for seed, size in enumerate(SIZES[:count])]


def quantise(weights: dict[str, Tensor], kind: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The file as ComfyUI's tools write it, and the weights that it stands for."""
    stored, meant = {}, {}
    for key, weight in weights.items():
        if kind == "plain fp8":
            stored[key] = weight.to(torch.float8_e4m3fn)
            meant[key] = stored[key].float()
        elif weight.ndim == 2 and ".layers." in key:
            layer, dtype, top = key.removesuffix(".weight"), torch.float8_e4m3fn, 448
            if kind == "int8_tensorwise":
                dtype, top = torch.int8, 127
            scale = weight.abs().max() / top
            stored[key] = (weight / scale).round() if top == 127 else weight / scale
            stored[key] = stored[key].to(dtype)
            stored[f"{layer}.weight_scale"] = scale
            text = json.dumps({"format": kind}).encode()
            stored[f"{layer}.comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)
            meant[key] = stored[key].float() * scale
        else:
            stored[key] = meant[key] = weight
    return stored, meant


def record() -> dict[str, Tensor]:
    from transformers import Qwen2_5_VLProcessor, Qwen2Tokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    tokenizer = Qwen2Tokenizer.from_pretrained(host_path() / "comfy/text_encoders/qwen25_tokenizer")
    images, videos = Qwen2VLImageProcessorPil(), Qwen2VLVideoProcessor()
    processor = Qwen2_5_VLProcessor(images, tokenizer, videos)
    recorded = {}

    def ask(name, network, pictures, penalty=1.0, length=ANSWER, text=None):
        """Record the tokens that are generated, and of what values their logits are made."""
        states = []
        hook = network.get_output_embeddings().register_forward_pre_hook(
            lambda _, given: states.append(given[0][0, -1])
        )
        text = text or write_pictures_chat(len(pictures))
        batch = [Image.fromarray(picture) for picture in pictures] or None
        inputs = processor(text=[text], images=batch, return_tensors="pt")
        out = network.generate(
            **inputs,
            max_new_tokens=length,
            do_sample=False,
            repetition_penalty=penalty,
            output_logits=True,
            return_dict_in_generate=True,
        )
        hook.remove()
        states, logits = torch.stack(states), torch.cat(out.logits)
        made = states @ network.get_output_embeddings().weight.T
        assert (made - logits).abs().max() < 1e-5 * logits.abs().max()
        recorded[f"{name} tokens"] = out.sequences[0, inputs["input_ids"].shape[1] :]
        recorded[f"{name} states"] = states

    network = qwen25vl()
    for count, penalty in PLAIN:
        ask(f"plain {count} {penalty}", network, draw_pictures(count), penalty)
    asked = write_chat(MODEL_FAMILIES["qwen2.5"], MULTISCALE_INSTRUCTION, 2)
    ask("extractor", network, draw_pictures(2), 1.05, text=asked)
    ask("stock", network, [draw_picture(*each) for each in STOCK_PICTURES], text=STOCK_CHAT)
    ask("lora", with_prompt_lora(copy.deepcopy(network)), draw_pictures(2), 1.05)
    ask("half lora", with_prompt_lora(copy.deepcopy(network), alpha=16), draw_pictures(1))
    for kind in QUANTISED:
        oracle = copy.deepcopy(network)
        oracle.load_state_dict(quantise(draw_qwen25vl(), kind)[1], strict=False)
        ask(kind, oracle, draw_pictures(2), 1.05, 3)
        ask(f"{kind} first", oracle, draw_pictures(2), 1.0, 1)
        ask(f"{kind} lora", with_prompt_lora(oracle), draw_pictures(2), 1.0, 1)
    return recorded
