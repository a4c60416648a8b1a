from comfy_api.latest import io

from ..backbones import make_backbone, make_backbone_input
from ..backbones.restraint import make_restraint_input, restrain
from ..host.color_profile import read_color_profile, write_profile_notice
from ..host.expansion import AS_LINKS, Expansion
from ..host.graph import is_connected
from ..host.images import require_one_image
from ..host.messages import give_notices, show_on_node
from ..host.options import require_options, require_range, validate_options
from ..loop.chain_loop import MAX_SCALE, MIN_SCALE, make_scale_input
from ..step.color_fix import METHODS
from ..step.sr_step import make_seed_input
from ..text_sources import make_prompting_input, make_text_source
from .easy_tiles import (
    DEFAULT_EASY_BELOW,
    OFF,
    make_easy_tiles_inputs,
    plan_easy_tiles,
    write_ignored_easy_tiles_notice,
)
from .passes import PassNodes
from .plan import (
    count_tiles,
    describe_work,
    plan_pass_texts,
    plan_passes,
    require_memory,
    write_unused_lines_notice,
)
from .tile_upscaler import are_blended

MAX_PASSES = 4

MIN_TILE_PIXELS, MAX_TILE_PIXELS = 64, 4096
"""Limits of a tile's side."""


class CoZFullImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZFullImage",
            display_name="Full-Image SR (CoZ)",
            category="Chain-of-Zoom/step",
            description="Enlarges a whole image. The image is cut into tiles, a super-resolution model "
            "sharpens each tile, and the tiles are joined without seams. A vision-language model can write "
            "a text for each tile. With two or more passes the result is enlarged again.",
            search_aliases=[
                "tile",
                "tiled upscale",
                "whole picture 4x",
                "full image",
                "upscale",
                "super resolution",
                "enhance",
                "detail",
            ],
            enable_expand=True,
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The image to enlarge: one image, not a batch. For a list of images the node "
                    "runs once for each.",
                ),
                make_backbone_input(**AS_LINKS),
                make_scale_input("Factor of each pass."),
                io.Int.Input(
                    "passes",
                    default=1,
                    min=1,
                    max=MAX_PASSES,
                    tooltip="Number of passes. Each pass enlarges the result of the pass before: 2 passes "
                    "of 4x make 16x.",
                ),
                *make_tile_inputs(),
                make_prompting_input(is_for_tiles=True, **AS_LINKS),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="What the image shows. All tiles use this text. If a vision-language model or "
                    "a tagger writes the texts, it is added to each of them. Upscale models do not read it.",
                ),
                io.String.Input(
                    "tile_prompts",
                    default="",
                    multiline=True,
                    placeholder="one line per tile; blank = prompt; - = no text",
                    tooltip="The complete text of each tile, one line per tile, row by row and pass after "
                    "pass. If a line is blank, the tile uses prompt or the text that a model writes. A "
                    'line that contains only "-" means no text. The output "prompts" has the same form.',
                ),
                make_seed_input(
                    'Seed of the random noise. It is used by the backbones "any checkpoint" and '
                    '"diffusion inversion (InvSR)", and by a vision-language model with a temperature '
                    "above 0."
                ),
                io.Combo.Input(
                    "color_fix",
                    options=METHODS,
                    default="wavelet",
                    tooltip="The method of Color Fix that gives each sharpened tile the colors of the "
                    "image at that place.",
                ),
                make_consistency_input(),
                io.Boolean.Input(
                    "blend_by_detail",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Where two tiles overlap, the one with more detail counts up to 1.4 times as "
                    "much. The result then takes a third more memory. It has no effect on tiles that do "
                    "not overlap, such as those of upscale models.",
                ),
                *make_easy_tiles_inputs(),
                make_restraint_input(),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="image", tooltip="The enlarged image."),
                io.String.Output(
                    "prompts",
                    tooltip="The text of each tile, one line per tile; - means no text. Paste it into "
                    "tile_prompts to use the same texts again.",
                ),
                io.Image.Output(
                    "complexity",
                    tooltip="A map of how much detail each part of the image has, from black (a clear sky) "
                    "to white (hair, grass), in squares of about 16 pixels. Use it to choose easy_below.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, image=None, backbone=None, prompting=None):
        # ComfyUI reports an error once for each of these parameters that the prompt holds. A prompt in API
        # format may lack backbone and prompting, so image, which is always connected, is a parameter too.
        return validate_options(cls, backbone=backbone, prompting=prompting)

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
        blend_by_detail=False,
        easy_tiles=OFF,
        easy_below=DEFAULT_EASY_BELOW,
        restraint=None,
    ) -> io.NodeOutput:
        require_options(cls, backbone=backbone, prompting=prompting)
        image = require_one_image(image, "Full-Image SR")
        require_ranges(scale, passes, consistency, tile, easy_below)
        sharpener, text_source = make_backbone(backbone), make_text_source(prompting)
        color_fix, consistency, notice = restrain(restraint, sharpener, color_fix, consistency)
        blend_by_detail = blend_by_detail and are_blended(sharpener, color_fix)
        require_memory(*image.shape[-2:], scale, passes, blend_by_detail)
        layouts = plan_passes(image, scale, passes, tile, overlap, adaptive_overlap)
        easy = plan_easy_tiles(image, layouts, easy_tiles, easy_below, sharpener)
        lines = plan_pass_texts(layouts, text_source, prompt, tile_prompts, easy)
        profile = read_color_profile(cls.hidden.dynprompt, cls.hidden.unique_id)
        scale_line = sharpener.write_untrained_scale_notice(scale)
        notices = give_notices(
            write_profile_notice(profile),
            f"{scale_line} a pass" if scale_line else "",
            sharpener.write_extra_values_notice("passes", passes),
            write_unused_lines_notice(tile_prompts, sum(map(len, lines))),
            write_ignored_easy_tiles_notice(easy_tiles, sharpener),
            notice,
        )
        counts = count_tiles(image, layouts, sharpener, color_fix)
        show_on_node("\n".join([describe_work(counts, lines, easy), *notices]))
        expansion = Expansion(cls)
        settings = {
            "seed": seed if sharpener.reads_seed else 0,
            "color_fix": color_fix,
            "consistency": consistency,
            "blend_by_detail": blend_by_detail,
        }
        link, index = expansion.links["image"], expansion.index
        source = expansion.add_node("CoZChainInput", "input", image=link, index=index).out(0)
        sharpener.add_check(expansion.add_node)
        text_inputs = prompting, text_source, prompt, seed
        pass_nodes = PassNodes(expansion, source, sharpener, text_inputs, settings)
        for layout, pass_lines, easy_indices in zip(layouts, lines, easy, strict=True):
            pass_nodes.add(layout, pass_lines, easy_tiles, easy_indices)
        collect = pass_nodes.add_collector(notices)
        shows_map = is_connected(cls.hidden.dynprompt, cls.hidden.unique_id, 2)
        shown = pass_nodes.add_complexity_map() if shows_map else None
        return expansion.finish(collect, pass_nodes.texts, shown)


def require_ranges(
    scale: float, passes: int, consistency: float, tile: int, easy_below: float
) -> None:
    require_range("scale", scale, MIN_SCALE, MAX_SCALE)
    require_range("passes", passes, 1, MAX_PASSES)
    require_range("consistency", consistency, 0, 1)
    require_range("easy_below", easy_below, 0, 1)
    require_range("tile", tile, MIN_TILE_PIXELS, MAX_TILE_PIXELS, " pixels")


def make_tile_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "tile",
            default=512,
            min=MIN_TILE_PIXELS,
            max=MAX_TILE_PIXELS,
            step=16,
            tooltip="Side of a tile in pixels of the result. With a larger tile the model sees more at "
            "once and needs more memory.",
        ),
        io.Int.Input(
            "overlap",
            default=128,
            min=0,
            max=2048,
            step=8,
            tooltip="Neighboring tiles overlap by at least this many pixels of the result and are blended "
            "there. It must be smaller than tile. With an upscale model it is used only if color_fix is "
            "adain, histogram, hybrid, best or ycbcr+wavelet+histogram.",
        ),
        io.Boolean.Input(
            "adaptive_overlap",
            default=False,
            tooltip="Used instead of overlap: neighboring tiles overlap by a quarter of a tile where the "
            "image is plain, and by up to half a tile where it is full of detail.",
        ),
    ]


def make_consistency_input() -> io.Input:
    return io.Float.Input(
        "consistency",
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.05,
        tooltip="How strongly each tile is corrected towards the part of the image that it was made from. "
        "0: no correction; the agreement is only measured. 1: full correction; the downscaled tile then "
        "equals that part.",
    )
