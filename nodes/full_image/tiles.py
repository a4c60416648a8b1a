import json
import time

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io

from ...coz.chain.zoom_chain import derive_step_seed
from ...coz.fidelity.back_projection import describe_agreement
from ...coz.fidelity.metrics import mse_to_decibels
from ...coz.geometry import Window
from ...coz.resample import crop
from ...coz.text.step_prompts import choose_step_texts
from ...coz.tiles.blend import TileBlend
from ...coz.tiles.layout import TileLayout
from ...coz.tiles.plan import (
    plan_abutting_tiles,
)
from ..backbones import make_backbone, make_backbone_input
from ..backbones.backbone import Backbone
from ..host.images import NotFiniteError, to_bchw
from ..host.messages import (
    describe_time_left,
    join_with_line_breaks,
    show_on_node,
    take_notices,
)
from .easy_tiles import make_easy_backbone
from .preview import TilePreview
from .tile_prompts import describe_pass, read_layout
from .tile_upscaler import TileUpscaler, are_blended


def list_result_tiles(
    height: int, width: int, layout: TileLayout, backbone: Backbone, color_fix: str
) -> list[Window]:
    """List the windows of the result that are made separately, for an image of (height, width).

    They are the overlapping tiles of the layout, or abutting tiles if nothing is blended.
    """
    if are_blended(backbone, color_fix):
        return layout.list_windows()
    return plan_abutting_tiles(height, width, layout)


class CoZTiles(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZTiles",
            display_name="CoZ Tiles",
            category="Chain-of-Zoom/step",
            description="Internal: one pass of Full-Image SR, tile by tile.",
            is_dev_only=True,
            inputs=[
                io.Image.Input("image"),
                io.String.Input("prompts"),
                io.Int.Input("number"),
                io.String.Input("layout"),
                make_backbone_input(),
                io.Int.Input("seed"),
                io.String.Input("color_fix"),
                io.Float.Input("consistency"),
                io.Image.Input("source"),
                io.Boolean.Input("blend_by_detail"),
                io.String.Input("easy", optional=True),
                io.UpscaleModel.Input("easy_model", optional=True),
            ],
            outputs=[io.Image.Output(), io.String.Output("notices")],
        )

    @classmethod
    def execute(
        cls,
        image,
        prompts,
        number,
        layout,
        backbone,
        seed,
        color_fix,
        consistency,
        source,
        blend_by_detail=False,
        easy="[]",
        easy_model=None,
    ) -> io.NodeOutput:
        image = to_bchw(image)
        layout = read_layout(layout)
        sharpener = make_backbone(backbone)
        windows = list_result_tiles(*image.shape[-2:], layout, sharpener, color_fix)
        texts = choose_step_texts("", prompts, len(windows))
        easy = set(json.loads(easy))
        title = describe_pass(number, len(windows), len(easy))
        show_on_node(title)
        pass_seed = derive_step_seed(seed, number)
        seeds = [derive_step_seed(pass_seed, i + 1) for i in range(len(windows))]
        settings = image, layout, color_fix, consistency, pass_seed
        easy_backbone = make_easy_backbone(easy_model)
        upscalers, groups = plan_work(sharpener, easy_backbone, windows, texts, easy, settings)
        result = torch.zeros(1, layout.height, layout.width, 3, device=image.device)
        is_blended = are_blended(sharpener, color_fix)
        add = TileBlend(layout, result, blend_by_detail).add if is_blended else None
        bar = comfy.utils.ProgressBar(len(windows))
        preview = TilePreview(image, layout)
        progress = TileProgress(len(easy), len(windows))
        for upscaler, group in groups:
            comfy.model_management.throw_exception_if_processing_interrupted()
            try:
                srs = upscaler.sharpen(
                    *([each[i] for i in group] for each in (windows, texts, seeds))
                )
            except NotFiniteError as error:
                place = f"pass {number}, tile {describe_tiles(group)} of {len(windows)}"
                raise NotFiniteError(f"{error} (This was in {place}.)") from error
            for i, sr in zip(group, srs.split(1), strict=True):
                if add:
                    add(i, sr)
                else:
                    crop(result.movedim(-1, 1), windows[i]).copy_(sr)
                preview.add(windows[i], sr)
            time_left = progress.count(len(group))
            show_on_node(f"{title}; {progress.done} done{time_left}")
            bar.update_absolute(progress.done)
        errors = [error for upscaler in upscalers for error in upscaler.squared_errors]
        agreed = describe_agreement(mse_to_decibels(sum(errors) / len(errors)))
        size = f"{layout.width} x {layout.height} pixels"
        real = f"{source.shape[2]} x {source.shape[1]} pixels"
        summary = f"{title}. The result of {size} shows {real} of the image. It {agreed}"
        report = join_with_line_breaks(summary, *take_notices())
        # Clamp in place: the whole result may take half of the machine's memory.
        return io.NodeOutput(result.clamp_(0, 1), report)


def plan_work(
    sharpener: Backbone,
    easy_backbone: Backbone,
    windows: list[Window],
    texts: list[str],
    easy: set[int],
    settings: tuple,
) -> tuple[list[TileUpscaler], list[tuple[TileUpscaler, list[int]]]]:
    """Plan which tiles are sharpened together, the easy ones first.

    Args:
        sharpener: The backbone of the tiles that are not easy.
        easy_backbone: The backbone of the easy tiles.
        easy: Indices of the easy tiles.
        settings: The image, the layout, the color fix, the consistency and the seed of the pass.

    Returns:
        An upscaler for each backbone that has tiles, and for each group its upscaler and indices.
    """
    upscalers, groups = [], []
    image, layout, *others = settings
    for is_easy, backbone in ((True, easy_backbone), (False, sharpener)):
        indices = [i for i in range(len(windows)) if (i in easy) == is_easy]
        if not indices:
            continue
        upscaler = TileUpscaler(backbone, image, layout, [texts[i] for i in indices], *others)
        upscalers.append(upscaler)
        for group in upscaler.plan_groups([windows[i] for i in indices]):
            groups.append((upscaler, [indices[k] for k in group]))
    return upscalers, groups


class TileProgress:
    """Counts tiles and estimates the time left. Easy tiles are left out of the estimate."""

    def __init__(self, easy_count: int, count: int):
        self.easy_count = easy_count
        self.total = count
        self.done = 0
        self.started = time.monotonic()

    def count(self, tiles: int) -> str:
        """Count finished tiles and return the time left, as ``describe_time_left`` does."""
        self.done += tiles
        if self.done <= self.easy_count:
            self.started = time.monotonic()
            return ""
        sharpened, count = self.done - self.easy_count, self.total - self.easy_count
        return describe_time_left(self.started, sharpened, count)


def describe_tiles(group: list[int]) -> str:
    """Name the tiles with these indices by their numbers, such as "3" or "3 to 6"."""
    first, last = min(group) + 1, max(group) + 1
    return f"{first}" if first == last else f"{first} to {last}"
