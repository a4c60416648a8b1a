"""The sources of Chain Loop's texts: its own fields, or a vision-language model."""

from collections.abc import Callable

from comfy_api.latest import io

from ..coz.chain import step_seed
from ..coz.prompt import EMPTY, step_lines, step_texts, trim
from .prompt import MAX_TOKENS, instruction_input, max_tokens_input

TEXT, VLM = "text", "vision-language model"
PREVIOUS, ORIGINAL, NONE = "previous scale", "original image", "none"


def prompting_input(context: str = PREVIOUS, max_tokens: int = MAX_TOKENS, **handed) -> io.Input:
    return io.DynamicCombo.Input(
        "prompting",
        options=[
            io.DynamicCombo.Option(TEXT, []),
            io.DynamicCombo.Option(
                VLM,
                [
                    io.Clip.Input(
                        "vlm",
                        **handed,
                        tooltip="A model that reads images and writes: from CoZ Load Prompt Extractor, or Load CLIP with "
                        "Qwen3-VL, Gemma 3 or Gemma 4.",
                    ),
                    io.Combo.Input(
                        "context",
                        options=[PREVIOUS, ORIGINAL, NONE],
                        default=context,
                        tooltip="What the model sees beside the view. previous scale: the frame before, as in the paper, or "
                        "what lies around a tile. original image: the first frame, or the whole picture. none: nothing.",
                    ),
                    max_tokens_input(max_tokens),
                    instruction_input(),
                    io.Float.Input(
                        "temperature",
                        default=0.0,
                        min=0.0,
                        max=2.0,
                        step=0.01,
                        advanced=True,
                        tooltip="0: the most likely words, always the same. Higher: drawn by chance, with the seed of each "
                        "view.",
                    ),
                ],
            ),
        ],
        tooltip="Where the text of each view comes from. text: from the two fields below. vision-language model: it looks "
        "at each view and writes its text, to which prompt is added.",
    )


def nested(name: str, chosen: dict) -> dict:
    """The inputs of a dynamic combo as a prompt writes them."""
    inside = {f"{name}.{key}": value for key, value in chosen.items() if key != name}
    return {name: chosen[name], **inside}


def sampling_of(chosen: dict, seed: int, number: int) -> dict:
    """How VLM Prompt Extractor is to draw the words of one view."""
    if not chosen["temperature"] > 0:
        return {"sampling_mode": "off"}
    return {
        "sampling_mode": "on",
        "temperature": chosen["temperature"],
        "top_p": 1.0,
        "seed": step_seed(seed, number),
    }


def added(prompt: str) -> str:
    """What is added to an extracted text: "-" is no text of its own."""
    return "" if trim(prompt) == EMPTY else prompt


class Prompting:
    """The text of each step: a constant, or the link to what a model wrote."""

    def __init__(self, chosen: dict, node: Callable, prompt: str, step_prompts: str, seed: int):
        self.chosen = chosen
        self.node = node
        self.prompt = prompt
        self.step_prompts = step_prompts
        self.seed = seed

    def text(self, i: int, zoomed: list, frames: list) -> str | list:
        """Of step i, from its enlarged view and the frames x_0 .. x_{i-1}."""
        if self.chosen["prompting"] == TEXT or step_lines(self.step_prompts, i)[-1]:
            return step_texts(self.prompt, self.step_prompts, i)[-1]
        chosen = self.chosen
        inputs = nested("sampling_mode", sampling_of(chosen, self.seed, i))
        context = {PREVIOUS: frames[-1], ORIGINAL: frames[0], NONE: None}[chosen["context"]]
        if context is not None:
            inputs["previous_image"] = context
        return self.node(
            "CoZPromptExtractor",
            f"prompt_{i}",
            vlm=chosen["vlm"],
            image=zoomed,
            prompt=added(self.prompt),
            instruction=chosen["instruction"],
            max_tokens=chosen["max_tokens"],
            **inputs,
        ).out(0)
