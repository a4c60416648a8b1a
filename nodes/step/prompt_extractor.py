from comfy_api.latest import io
from torch import Tensor

from ...coz.resample import resize
from ...coz.text.conversation import (
    MULTISCALE_INSTRUCTION,
    SINGLE_INSTRUCTION,
    ModelFamily,
    choose_image_size,
    write_chat,
)
from ...coz.text.step_prompts import join_prompt, trim
from ..host.images import require_one_image, to_image
from ..host.messages import finish_with_notices, give_notice
from ..host.options import require_options, validate_options
from ..host.text_encoder import escape_prompt
from ..host.vlm import find_chat_family, find_network, generate, tokenize

NODE_NAME = "VLM Prompt Extractor"

GREEDY_SAMPLING = {"temperature": 1.0, "top_k": 1, "top_p": 1.0, "seed": 0}
"""Sampling parameters that always choose the most likely token. ComfyUI's do_sample=False would choose it
before the repetition penalty is applied."""

MIN_TEMPERATURE = 0.01
"""ComfyUI divides by the temperature; a much lower one makes NaN."""

DEFAULT_MAX_TOKENS = 32
"""The value of max_new_tokens in Chain-of-Zoom's code for recursive zooming."""


def fit_to_model(image: Tensor, family: ModelFamily) -> Tensor:
    """Resize an image to a size that the model takes: ComfyUI would resize it without a filter."""
    return to_image(resize(image, *choose_image_size(family, *image.shape[-2:])))


def make_instruction_input() -> io.Input:
    return io.String.Input(
        "instruction",
        default="",
        multiline=True,
        dynamic_prompts=False,
        placeholder="blank = the paper's",
        advanced=True,
        tooltip="The question that the model answers. Blank: the paper's question, which asks for a set of "
        "words.",
    )


def make_max_tokens_input(default: int = DEFAULT_MAX_TOKENS) -> io.Input:
    return io.Int.Input(
        "max_tokens",
        default=default,
        min=1,
        max=512,
        advanced=True,
        tooltip="Maximum length of the answer in tokens. A token is about three quarters of a word. If the "
        "answer is cut off, its last word is removed, because it may be incomplete.",
    )


class CoZPromptExtractor(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZPromptExtractor",
            display_name=NODE_NAME,
            category="Chain-of-Zoom",
            description="A vision-language model looks at an enlarged view, and at the wider view that it "
            "was cut from, and writes what the enlarged view shows. This text is the prompt for the next "
            "step of a zoom. The node shows it.",
            search_aliases=[
                "VLM",
                "caption",
                "describe image",
                "image to text",
                "interrogate",
                "Qwen",
                "Gemma",
            ],
            inputs=[
                io.Clip.Input(
                    "vlm",
                    tooltip="A model that reads images and writes text: Qwen2.5-VL-3B from CoZ Load "
                    "Prompt Extractor, or Qwen3-VL, Qwen3.5, Gemma 3 (with vision) or Gemma 4 from Load "
                    "CLIP.",
                ),
                io.Image.Input(
                    "image",
                    tooltip="The view to describe: the output zoomed of Crop-Center-Zoom. One image of any "
                    "size.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="Your own text, added at the end. The model does not read it. It may be "
                    "empty.",
                ),
                make_instruction_input(),
                make_max_tokens_input(),
                io.DynamicCombo.Input(
                    "sampling_mode",
                    options=[
                        io.DynamicCombo.Option("off", []),
                        io.DynamicCombo.Option(
                            "on",
                            [
                                io.Float.Input(
                                    "temperature",
                                    default=0.7,
                                    min=MIN_TEMPERATURE,
                                    max=2.0,
                                    step=0.01,
                                    advanced=True,
                                    tooltip="A higher value allows less likely words.",
                                ),
                                io.Float.Input(
                                    "top_p",
                                    default=0.95,
                                    min=0.0,
                                    max=1.0,
                                    step=0.01,
                                    advanced=True,
                                    tooltip="The model chooses only among the most likely words whose "
                                    "probabilities add up to this value. 1: among all words.",
                                ),
                                io.Int.Input(
                                    "seed",
                                    default=0,
                                    min=0,
                                    max=0xFFFFFFFFFFFFFFFF,
                                    advanced=True,
                                    tooltip="Seed of the random choice. The same seed gives the same words.",
                                ),
                            ],
                        ),
                    ],
                    extra_dict={"advanced": True},
                    tooltip="off: the model always takes the most likely words, as in the paper. on: it "
                    "chooses words at random.",
                ),
                io.Image.Input(
                    "previous_image",
                    optional=True,
                    tooltip="The wider view that the image was cut from, such as the frame before. One "
                    "image of any size. In the paper the model sees both.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "STRING",
                    display_name="prompt",
                    tooltip="The text of the model and your own prompt, separated by a comma, on one line. "
                    "Connect this output to CoZ Encode Prompt.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, image=None, sampling_mode=None):
        # ComfyUI reports an error once for each of these parameters that the prompt holds. A prompt in API
        # format may lack sampling_mode, so image, which is always connected, is a parameter too.
        return validate_options(cls, sampling_mode=sampling_mode)

    @classmethod
    def execute(
        cls,
        vlm,
        image,
        prompt,
        instruction="",
        max_tokens=DEFAULT_MAX_TOKENS,
        sampling_mode=None,
        previous_image=None,
    ) -> io.NodeOutput:
        sampling_mode = sampling_mode or {"sampling_mode": "off"}
        require_options(cls, sampling_mode=sampling_mode)
        if vlm is None:
            raise ValueError(
                "vlm is empty: the checkpoint holds no text encoder. Connect CoZ Load Prompt Extractor, or "
                "Load CLIP with a model that takes images and generates text, such as Qwen3-VL or Gemma 4"
            )
        images = [require_one_image(image, NODE_NAME)]
        if previous_image is not None:
            images.insert(0, require_one_image(previous_image, NODE_NAME, "previous_image"))
        network = find_network(vlm)
        family = find_chat_family(vlm, network)
        if trim(instruction):
            instruction = escape_prompt(vlm, instruction)
        else:
            instruction = SINGLE_INSTRUCTION if previous_image is None else MULTISCALE_INSTRUCTION
        text = write_chat(family, instruction, len(images))
        tokens = tokenize(vlm, family, text, [fit_to_model(image, family) for image in images])
        sampling = GREEDY_SAMPLING
        if sampling_mode["sampling_mode"] == "on":
            sampling = {key: sampling_mode[key] for key in ("temperature", "top_p", "seed")}
            sampling |= {"top_k": 0, "temperature": max(sampling["temperature"], MIN_TEMPERATURE)}
        extracted = generate(vlm, network, tokens, max_tokens, sampling)
        if not extracted:
            give_notice("The model wrote nothing usable: only prompt is used as the text")
        return io.NodeOutput(join_prompt(extracted, prompt), ui=finish_with_notices(extracted))
