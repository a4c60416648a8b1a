"""Hold conversations with ComfyUI's models that read images and generate text."""

from comfy.sd import CLIP
from comfy.sd1_clip import SDClipModel
from torch import Tensor

from ...coz.text.answer import clean_answer
from ...coz.text.conversation import MODEL_FAMILIES, REPETITION_PENALTY, ModelFamily
from .memory import explain_out_of_memory

QWEN_BY_GRID = {
    MODEL_FAMILIES[name].multiple_of: MODEL_FAMILIES[name] for name in ("qwen2.5", "qwen3")
}
"""Pixels along a side of one image token -> the family of Qwen models with this size."""


def generates_text(network) -> bool:
    config = getattr(getattr(network, "model", None), "config", None)
    # Networks that only encode have no stop tokens. Newer versions of ComfyUI also set can_generate.
    can_end = hasattr(config, "stop_tokens") and getattr(config, "can_generate", True)
    return can_end and hasattr(network, "generate")


def find_network(clip: CLIP):
    """Return the network in a CLIP that takes images and generates text.

    Raises:
        ValueError: If there is none. The message says what the CLIP lacks and what to connect.
    """
    networks = []
    for part in clip.cond_stage_model.modules():
        if isinstance(part, SDClipModel):
            encoder: SDClipModel = part
            networks.append(encoder.transformer)
    writers = [network for network in networks if generates_text(network)]
    if not writers:
        raise make_refusal(clip, "generates no text")
    readers = [network for network in writers if hasattr(network, "preprocess_embed")]
    if not readers:
        raise make_refusal(clip, "takes no images")
    return readers[0]


def find_chat_family(clip: CLIP, network) -> ModelFamily:
    kind = network.model.config.transformer_type
    grid = 0
    if hasattr(network, "visual"):
        grid = network.visual.patch_size * network.visual.spatial_merge_size
    family = MODEL_FAMILIES.get(kind) or QWEN_BY_GRID.get(grid)
    if family is None:
        raise make_refusal(clip, "has a chat format that this pack does not know")
    return family


def make_refusal(clip: CLIP, lack: str) -> ValueError:
    found = type(clip.cond_stage_model).__name__.rstrip("_")
    return ValueError(
        f"vlm ({found}) {lack}, so it cannot write what a view shows. Connect CoZ Load Prompt Extractor, "
        "or Load CLIP with a model that takes images and generates text, such as Qwen3-VL, Qwen3.5, "
        "Gemma 3 with vision or Gemma 4, and leave its type at stable_diffusion"
    )


def get_token_row(tokens: dict | list) -> list:
    """Return the one row of tokens, which some tokenizers of ComfyUI put under the encoder's name."""
    (row,) = next(iter(tokens.values())) if isinstance(tokens, dict) else tokens
    return row


def tokenize(clip: CLIP, family: ModelFamily, text: str, images: list[Tensor]) -> dict | list:
    """Tokenize a conversation and put each image, of any size, at its placeholder."""
    is_gemma3 = family is MODEL_FAMILIES["gemma3"]
    if is_gemma3 and clip.tokenize("<end_of_turn>") == clip.tokenize(""):
        # ComfyUI takes a marker at the start of the text for the start token, and drops it. Put one there
        # to be dropped, so that the text stays whole.
        text = "<end_of_turn>" + text
    tokens = clip.tokenize(text)
    row = get_token_row(tokens)
    # ComfyUI's tokenizers fill the first placeholders, and only with images of one size. So tokenize
    # with each image alone, and move its entry to its own placeholder.
    entries = []
    for image in images:
        filled = get_token_row(clip.tokenize(text, image=image))
        first = next((i for i, (token, *_) in enumerate(filled) if isinstance(token, dict)), None)
        if first is None:
            raise make_refusal(clip, "has a tokenizer that leaves images out")
        entries.append(filled[first])
        placeholder = row[first][0]
    places = [i for i, (token, *_) in enumerate(row) if token == placeholder]
    for i, entry in zip(places, entries, strict=True):
        row[i] = entry
    if is_gemma3:
        while row[0][0] == 0:  # padding, to which ComfyUI's Gemma 3 12B would attend
            del row[0]
    return tokens


@explain_out_of_memory(
    "The vision-language model", "choose a smaller one, type the prompts in its place"
)
def generate(clip: CLIP, network, tokens, max_tokens: int, sampling: dict) -> str:
    """Generate the model's answer and clean it."""
    ids = clip.generate(
        tokens,
        do_sample=True,
        max_length=max_tokens,
        min_p=0.0,
        repetition_penalty=REPETITION_PENALTY,
        **sampling,
    )
    stop_tokens = network.model.config.stop_tokens
    ended = [i for i, token in enumerate(ids) if token in stop_tokens]
    cut = not ended and len(ids) >= max_tokens
    return clean_answer(clip.decode(ids[: ended[0]] if ended else ids), cut)
