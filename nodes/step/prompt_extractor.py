from comfy.sd1_clip import SDClipModel
from comfy_api.latest import io
from torch import Tensor

from ...coz.resample import resize
from ...coz.text.answer import clean_answer
from ...coz.text.conversation import (
    FAMILIES,
    MULTISCALE_INSTRUCTION,
    REPETITION_PENALTY,
    SINGLE_INSTRUCTION,
    Family,
    chat_text,
    image_size,
)
from ...coz.text.step_prompts import join_prompt, trim
from ..host.images import (
    closing,
    notice,
    require_one_picture,
    require_options,
    to_image,
    validate_options,
)
from .encode_prompt import literal

NAME = "VLM Prompt Extractor"

QWEN_BY_GRID = {FAMILIES[name].multiple_of: FAMILIES[name] for name in ("qwen2.5", "qwen3")}

LIKELIEST = {"temperature": 1.0, "top_k": 1, "top_p": 1.0, "seed": 0}
"""Not the host's do_sample=False: that looks for the likeliest token before the penalty is applied."""

COLDEST = 0.01
"""Temperature. The host divides by it, and from much smaller ones come numbers that are none."""

MAX_TOKENS = 32
"""Chain-of-Zoom's recursive inference, max_new_tokens."""


def generates_text(network) -> bool:
    config = getattr(getattr(network, "model", None), "config", None)
    # Networks that only encode have no tokens that end an answer. Newer hosts set can_generate too.
    can_end = hasattr(config, "stop_tokens") and getattr(config, "can_generate", True)
    return can_end and hasattr(network, "generate")


def network_of(clip):
    """The network in a CLIP that takes images and generates text.

    Raises:
        ValueError: If there is none: what it lacks, and what to connect.
    """
    models = clip.cond_stage_model.modules()
    networks = [model.transformer for model in models if isinstance(model, SDClipModel)]
    writers = [network for network in networks if generates_text(network)]
    if not writers:
        raise refusal(clip, "generates no text")
    readers = [network for network in writers if hasattr(network, "preprocess_embed")]
    if not readers:
        raise refusal(clip, "takes no images")
    return readers[0]


def family_of(clip, network) -> Family:
    kind = network.model.config.transformer_type
    grid = 0
    if hasattr(network, "visual"):
        grid = network.visual.patch_size * network.visual.spatial_merge_size
    family = FAMILIES.get(kind) or QWEN_BY_GRID.get(grid)
    if family is None:
        raise refusal(clip, "has a chat format that this pack does not know")
    return family


def refusal(clip, lack: str) -> ValueError:
    found = type(clip.cond_stage_model).__name__.rstrip("_")
    return ValueError(
        f"vlm ({found}) {lack}, so it cannot write what a view shows. Connect CoZ Load Prompt Extractor, "
        "or Load CLIP with a model that takes images and generates text, such as Qwen3-VL, Qwen3.5, "
        "Gemma 3 with vision or Gemma 4, and leave its type at stable_diffusion"
    )


def fit(image: Tensor, family: Family) -> Tensor:
    """As an IMAGE of a size that the model takes as it is: the host would shrink it unfiltered."""
    return to_image(resize(image, *image_size(family, *image.shape[-2:])))


def row_of(tokens: dict | list) -> list:
    """The one row of tokens: the host's tokenizers give it with the encoder's name or without."""
    (row,) = next(iter(tokens.values())) if isinstance(tokens, dict) else tokens
    return row


def tokenize(clip, family: Family, text: str, images: list[Tensor]) -> dict | list:
    """The conversation with each image, of a size of its own, in its place."""
    is_gemma3 = family is FAMILIES["gemma3"]
    if is_gemma3 and clip.tokenize("<end_of_turn>") == clip.tokenize(""):
        # The host takes a marker at the start for the token that its tokenizer puts there.
        text = "<end_of_turn>" + text
    tokens = clip.tokenize(text)
    row = row_of(tokens)
    # Given an image, or a batch of one size, the host's tokenizers fill the first places.
    entries = []
    for image in images:
        filled = row_of(clip.tokenize(text, image=image))
        first = next((i for i, (token, *_) in enumerate(filled) if isinstance(token, dict)), None)
        if first is None:
            raise refusal(clip, "has a tokenizer that leaves images out")
        entries.append(filled[first])
        placeholder = row[first][0]
    places = [i for i, (token, *_) in enumerate(row) if token == placeholder]
    for i, entry in zip(places, entries, strict=True):
        row[i] = entry
    if is_gemma3:
        while row[0][0] == 0:  # padding, which the host's 12B would read
            del row[0]
    return tokens


def generate(clip, network, tokens, max_tokens: int, sampling: dict) -> str:
    """The model's answer, cleaned."""
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


def instruction_input() -> io.Input:
    return io.String.Input(
        "instruction",
        default="",
        multiline=True,
        dynamic_prompts=False,
        placeholder="blank = the paper's",
        advanced=True,
        tooltip="What the model is asked. Blank: the paper's question, which asks for a set of words.",
    )


def max_tokens_input(default: int = MAX_TOKENS) -> io.Input:
    return io.Int.Input(
        "max_tokens",
        default=default,
        min=1,
        max=512,
        advanced=True,
        tooltip="Longest answer in tokens, about three quarters of a word each. An answer cut there loses "
        "its last word.",
    )


class CoZPromptExtractor(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZPromptExtractor",
            display_name=NAME,
            category="Chain-of-Zoom",
            description="Lets a vision-language model look at an enlarged view, and at the wider view that it comes "
            "from, and write what it shows: the prompt for the next step of a zoom. Shows its words on the node.",
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
                    tooltip="A model that reads images and writes: from CoZ Load Prompt Extractor, or Load CLIP with "
                    "Qwen3-VL, Qwen3.5, Gemma 3 (with vision) or Gemma 4.",
                ),
                io.Image.Input(
                    "image",
                    tooltip="The view to tell of, zoomed of Crop-Center-Zoom: one picture of any size.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="Your own words, added at the end. The model does not read them.",
                ),
                instruction_input(),
                max_tokens_input(),
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
                                    min=COLDEST,
                                    max=2.0,
                                    step=0.01,
                                    advanced=True,
                                    tooltip="How far the words stray from the likeliest ones.",
                                ),
                                io.Float.Input(
                                    "top_p",
                                    default=0.95,
                                    min=0.0,
                                    max=1.0,
                                    step=0.01,
                                    advanced=True,
                                    tooltip="Words are drawn from the likeliest that make up this share. 1: from all.",
                                ),
                                io.Int.Input(
                                    "seed",
                                    default=0,
                                    min=0,
                                    max=0xFFFFFFFFFFFFFFFF,
                                    advanced=True,
                                    tooltip="Of the draw: the same seed gives the same words.",
                                ),
                            ],
                        ),
                    ],
                    extra_dict={"advanced": True},
                    tooltip="off: the likeliest words, always the same, as in the paper. on: words are drawn by chance.",
                ),
                io.Image.Input(
                    "previous_image",
                    optional=True,
                    tooltip="The wider view that image is a zoom of: one picture of any size. The paper shows both to "
                    "the model.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "STRING",
                    display_name="prompt",
                    tooltip="The model's words and prompt, on one line: connect it to CoZ Encode Prompt.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, image=None, sampling_mode=None):
        # ``image`` is named because the host calls this only where a named input is given.
        return validate_options(cls, sampling_mode=sampling_mode)

    @classmethod
    def execute(
        cls,
        vlm,
        image,
        prompt,
        instruction="",
        max_tokens=MAX_TOKENS,
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
        images = [require_one_picture(image, NAME)]
        if previous_image is not None:
            images.insert(0, require_one_picture(previous_image, NAME, "previous_image"))
        network = network_of(vlm)
        family = family_of(vlm, network)
        if trim(instruction):
            instruction = literal(vlm, instruction)
        else:
            instruction = SINGLE_INSTRUCTION if previous_image is None else MULTISCALE_INSTRUCTION
        text = chat_text(family, instruction, len(images))
        tokens = tokenize(vlm, family, text, [fit(image, family) for image in images])
        sampling = LIKELIEST
        if sampling_mode["sampling_mode"] == "on":
            sampling = {key: sampling_mode[key] for key in ("temperature", "top_p", "seed")}
            sampling |= {"top_k": 0, "temperature": max(sampling["temperature"], COLDEST)}
        extracted = generate(vlm, network, tokens, max_tokens, sampling)
        if not extracted:
            notice("The model wrote nothing that can be used: the text is prompt alone")
        return io.NodeOutput(join_prompt(extracted, prompt), ui=closing(extracted))
