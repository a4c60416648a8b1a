import comfy.model_management
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder
from comfy_execution.utils import get_executing_context

from ..coz.geometry import tile_layout
from ..coz.tile import enlarged
from .backbone import ANY_CHECKPOINT, AS_LINKS, ONE_STEP, UPSCALE_MODEL, backbone_input
from .cache import CHILD_PREFIX
from .color import METHODS
from .host import SEARCH_ALIASES, notice, show, to_bchw
from .loop import LEAST_SCALE, MOST_SCALE
from .prompting import ORIGINAL, TEXT, prompting_input

TILE_TOKENS = 16
"""Chain-of-Zoom inference_coz_full.py: words of a tile, fewer than of a zoom."""

MOST_PASSES = 4


class CoZFullImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZFullImage",
            display_name="Full-Image SR (CoZ)",
            category="Chain-of-Zoom/step",
            description="Enlarges a whole picture in tiles, each sharpened with a text of its own where a "
            "vision-language model is connected, and blended without seams. A second pass enlarges the result again.",
            search_aliases=[
                *SEARCH_ALIASES,
                "tile",
                "tiled upscale",
                "whole picture",
                "full image",
            ],
            enable_expand=True,
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            inputs=[
                io.Image.Input(
                    "image", tooltip="The picture to enlarge: one picture, not a batch."
                ),
                backbone_input(**AS_LINKS),
                io.Float.Input(
                    "scale",
                    default=4.0,
                    min=LEAST_SCALE,
                    max=MOST_SCALE,
                    step=0.01,
                    tooltip="Factor of each pass.",
                ),
                io.Int.Input(
                    "passes",
                    default=1,
                    min=1,
                    max=MOST_PASSES,
                    tooltip="Each pass enlarges the last one's result: 2 passes of 4 make 16x.",
                ),
                *tile_inputs(),
                prompting_input(ORIGINAL, TILE_TOKENS, **AS_LINKS),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="What the picture shows: the text of every tile, or added to what a vision-language model writes. "
                    "Upscale models do not read it.",
                ),
                io.String.Input(
                    "tile_prompts",
                    default="",
                    multiline=True,
                    placeholder="one line a tile; blank = prompt; - = no text",
                    tooltip="Line 1 is the whole text of the first tile and so on, row by row, the passes after each other. A blank "
                    "line: the tile uses prompt, or asks the model. A single - : no text. The prompts output has this form.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Each tile draws its own seed from this one. Used by any checkpoint, and by the model's temperature.",
                ),
                io.Combo.Input(
                    "color_fix",
                    options=METHODS,
                    default="wavelet",
                    tooltip="Keeps each tile's colours those of the view it enlarges.",
                ),
                consistency_input(),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="image", tooltip="The enlarged picture."),
                io.String.Output("prompts", tooltip="The text of each tile, a line a tile."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image,
        backbone,
        scale,
        passes,
        tile,
        overlap,
        adaptive_overlap,
        prompting,
        prompt,
        tile_prompts,
        seed,
        color_fix,
        consistency,
    ) -> io.NodeOutput:
        height, width = to_bchw(image).shape[-2:]
        if image.shape[0] != 1:
            raise ValueError(
                f"image is a batch of {image.shape[0]} pictures. Put Rebatch Images (batch_size 1) before "
                "Full-Image SR: it then runs once for each"
            )
        # The schema's limits do not hold for linked values.
        if not LEAST_SCALE <= scale <= MOST_SCALE:
            raise ValueError(f"scale must be {LEAST_SCALE:g} to {MOST_SCALE:g}, got {scale:g}")
        if not 1 <= passes <= MOST_PASSES:
            raise ValueError(f"passes must be 1 to {MOST_PASSES}, got {passes}")
        require_memory(height, width, scale, passes)
        if backbone["backbone"] == ONE_STEP and scale != 4:
            notice(
                f"scale is {scale:g}: the Chain-of-Zoom LoRA and its like are trained for 4x a pass"
            )
        show(coming(height, width, scale, passes, tile, overlap, adaptive_overlap))
        graph = GraphBuilder()
        link = cls.hidden.dynprompt.get_node(cls.hidden.unique_id)["inputs"]["image"]
        index = get_executing_context().list_index or 0

        def node(class_type: str, name: str, **inputs):
            return graph.node(class_type, id=CHILD_PREFIX + name, **inputs)

        source = node("CoZChainInput", "input", image=link, index=index).out(0)
        asks_by_chance = prompting["prompting"] != TEXT and prompting["temperature"] > 0
        # Children get no number of passes: else one more pass would run the first anew.
        tiles = {"scale": scale, "tile": tile, "overlap": overlap}
        tiles["adaptive_overlap"] = adaptive_overlap
        current, lines, texts = source, tile_prompts, ""
        for i in range(1, passes + 1):
            asked = node(
                "CoZTilePrompts",
                f"prompts_{i}",
                image=current,
                original=source,
                number=i,
                **tiles,
                **nested("prompting", prompting),
                prompt=prompt,
                tile_prompts=lines,
                seed=seed if asks_by_chance else 0,
                before=texts,
            )
            # What a backbone does not read must not reach it: else an edit of it runs all tiles.
            current = node(
                "CoZTiles",
                f"tiles_{i}",
                image=current,
                prompts="" if backbone["backbone"] == UPSCALE_MODEL else asked.out(0),
                number=i,
                **tiles,
                **nested("backbone", backbone),
                seed=seed if backbone["backbone"] == ANY_CHECKPOINT else 0,
                color_fix=color_fix,
                consistency=consistency,
            ).out(0)
            texts, lines = asked.out(1), asked.out(2)
        return io.NodeOutput(current, texts, expand=graph.finalize())


def tile_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "tile",
            default=512,
            min=64,
            max=4096,
            step=16,
            tooltip="Side of a tile in pixels of the result. Larger shows the model more at once and takes more memory.",
        ),
        io.Int.Input(
            "overlap",
            default=128,
            min=0,
            max=2048,
            step=8,
            tooltip="Pixels that neighbours share at least; they are blended there.",
        ),
        io.Boolean.Input(
            "adaptive_overlap",
            default=False,
            tooltip="Overlap of a quarter of the tile where the picture is calm to a half where it is full of detail, in "
            "place of overlap.",
        ),
    ]


def consistency_input() -> io.Input:
    return io.Float.Input(
        "consistency",
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.05,
        tooltip="How far each result is bent back to what it was made from, so that it gives that again when it is made "
        "small. 0: not at all. 1: fully.",
    )


def nested(name: str, chosen: dict) -> dict:
    """The inputs of a dynamic combo as a prompt writes them."""
    inside = {f"{name}.{key}": value for key, value in chosen.items() if key != name}
    return {name: chosen[name], **inside}


def coming(height, width, scale, passes, tile, overlap, adaptive_overlap) -> str:
    """What a run will take, where that is known before it looks at the picture."""
    counts = []
    for _ in range(0 if adaptive_overlap else passes):
        height, width = enlarged(height, scale), enlarged(width, scale)
        counts.append(str(len(tile_layout(height, width, tile, overlap).windows())))
    return f"{' + '.join(counts)} tiles" if counts else "reading the picture"


def require_memory(height: int, width: int, scale: float, passes: int) -> None:
    """Refuse a picture that cannot be held, before an hour goes into it."""
    needed = 0
    for _ in range(passes):
        height, width = enlarged(height, scale), enlarged(width, scale)
        needed += height * width * 3 * 4
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    if needed > free:
        raise ValueError(
            f"the result would have {width} x {height} pixels, {needed / 1e9:.1f} GB with what leads to it, and "
            f"{free / 1e9:.1f} GB of memory are free. Lower scale or passes, or crop the picture first"
        )
