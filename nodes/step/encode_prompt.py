import re

from comfy_api.latest import io

from ...coz.text.step_prompts import whole_characters

T5_TOKENS = 512
"""As in Chain-of-Zoom's code, which pads the text to this and gives T5 no mask."""


def literal(clip, prompt: str) -> str:
    """The prompt as the host must get it to take every character of it as written."""
    prompt = whole_characters(prompt)
    # An escaped bracket is a bracket, with any option and in all tokenizers but those of LongCat,
    # Lens and MiniMax: they read no weights, and the backslash would stay.
    if clip.tokenize(r"\(") == clip.tokenize("("):
        prompt = re.sub(r"([()])", r"\\\1", prompt)
    return re.sub(r"(?<!\S)embedding:", "embedding :", prompt)


def tokenize(clip, prompt: str, t5_tokens: int) -> dict[str, list]:
    text = literal(clip, prompt)
    tokens = clip.tokenize(text)
    # SD3 and Flux: T5 alone, or in HiDream, gets the length that its model was trained with.
    if {"l", "t5xxl"} <= tokens.keys() <= {"l", "g", "t5xxl"}:
        options = {"t5xxl_min_length": t5_tokens, "t5xxl_min_padding": 0}
        (t5,) = clip.tokenize(text, tokenizer_options=options)["t5xxl"]
        tokens["t5xxl"] = [t5[: t5_tokens - 1] + t5[-1:]]
    for encoder in {"l", "g", "h"} & tokens.keys():
        tokens[encoder] = tokens[encoder][:1]
    return tokens


def require_clip(clip) -> None:
    if clip is None:
        raise ValueError(
            "clip is empty: the checkpoint holds no text encoder. Load the text encoders of the "
            "model with Load CLIP (for SD3 its Dual or Triple form) and connect it"
        )


class CoZEncodePrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZEncodePrompt",
            display_name="CoZ Encode Prompt",
            category="Chain-of-Zoom/step",
            description="Encodes a prompt as the Chain-of-Zoom paper's code does: every character counts as written, "
            "and what is longer than the text encoders' limits is cut off.",
            search_aliases=["text encode", "text encoder", "prompt", "CLIP", "T5"],
            inputs=[
                io.Clip.Input(
                    "clip",
                    tooltip="The text encoders of the model that reads the prompt, of any type.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="What the picture shows, as plain text: brackets, weights and embedding names have no "
                    "meaning here. CLIP reads its first 75 tokens. May be empty.",
                ),
                io.Int.Input(
                    "t5_tokens",
                    default=T5_TOKENS,
                    min=77,
                    max=512,
                    advanced=True,
                    tooltip="Length of the T5 text in tokens, for SD3 and Flux: a longer prompt is cut, a shorter one "
                    "padded. Chain-of-Zoom uses 512. Ignored without T5 and for other models.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "CONDITIONING",
                    display_name="conditioning",
                    tooltip="The encoded prompt: connect it to a step's positive or negative.",
                )
            ],
        )

    @classmethod
    def execute(cls, clip, prompt, t5_tokens=T5_TOKENS) -> io.NodeOutput:
        require_clip(clip)
        tokens = tokenize(clip, prompt, t5_tokens)
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens))
