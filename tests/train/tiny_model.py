"""Folders as Hugging Face has them: random Qwen2.5-VL, a tokenizer, the paper's conversation."""

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
    Qwen2VLVideoProcessor,
)

from tests.support.random_qwen import qwen25vl
from tools.host import host_path

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""What chat_template.json of Qwen2.5-VL-3B-Instruct makes of such messages."""

SPECIAL = {
    "pad_token": "<|endoftext|>",
    "eos_token": "<|im_end|>",
    "unk_token": "<|unknown|>",
    "image": "<|image_pad|>",
    "video": "<|video_pad|>",
    "start": "<|vision_start|>",
    "end": "<|vision_end|>",
    "turn": "<|im_start|>",
}
WORDS = [
    "moss",
    "bark",
    "stone",
    "rust",
    "iron",
    "glass",
    "cloth",
    "water",
    "sand",
    "snow",
    "grass",
    "leaf",
    "wool",
    "fur",
    "brick",
    "smoke",
    "second",
    "image",
    "first,",
    "of",
    "the",
    "a",
    "and",
    "wet",
]


def tiny_model():
    """Every layer of the structure that the nodes load, and Qwen's vocabulary."""
    model = qwen25vl(
        layers=2, heads=1, intermediate=128, vision_layers=2, vision_heads=1, vision_intermediate=80
    )
    model.generation_config.eos_token_id = [151645, 151643]
    model.generation_config.pad_token_id = 151643
    return model


def _save(folder: Path, model, tokenizer) -> Path:
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessorPil(), tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT
    )
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def save_tiny_model(folder: Path) -> Path:
    tokenizer = Qwen2Tokenizer.from_pretrained(host_path() / "comfy/text_encoders/qwen25_tokenizer")
    return _save(folder, tiny_model(), tokenizer)


def save_toy_model(folder: Path) -> Path:
    """The same of 33 tokens: a word comes up often enough to be learnt, and steps are quick."""
    tokens = [*SPECIAL.values(), *WORDS]
    inner = Tokenizer(WordLevel({token: i for i, token in enumerate(tokens)}, SPECIAL["unk_token"]))
    inner.pre_tokenizer = Whitespace()
    inner.decoder = WordPiece("##", cleanup=False)
    names = {name: SPECIAL[name] for name in ("pad_token", "eos_token", "unk_token")}
    extra = [token for token in SPECIAL.values() if token not in names.values()]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, additional_special_tokens=extra, **names
    )
    model = tiny_model()
    model.resize_token_embeddings(len(tokens), mean_resizing=False)
    ids = {name: tokens.index(token) for name, token in SPECIAL.items()}
    config = model.config
    config.image_token_id, config.video_token_id = ids["image"], ids["video"]
    config.vision_start_token_id, config.vision_end_token_id = ids["start"], ids["end"]
    for settings in (config.text_config, model.generation_config):
        settings.eos_token_id, settings.pad_token_id = ids["eos_token"], ids["pad_token"]
    return _save(folder, model, tokenizer)
