from comfy_api.latest import io

from ...coz.detail.fusion import (
    DETAIL_MEASURES,
    FUSION_METHODS,
    fuse,
    map_detail,
    sharpen_edges,
)
from ..host.images import to_bchw, to_image
from ..host.messages import finish_with_notices
from ..host.options import require_choice, require_range


class CoZFuse(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZFuse",
            display_name="CoZ Fuse Results",
            category="Chain-of-Zoom/step",
            description="Fuses several results for the same view into one image, such as those of two "
            "seeds or two models. At each place the results with more detail count more.",
            search_aliases=["merge images", "blend images", "combine images", "average"],
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="A batch of two or more results of the same view, from Batch Images.",
                ),
                io.Combo.Input(
                    "method",
                    options=FUSION_METHODS,
                    default="weighted",
                    tooltip="weighted: the weighted mean of all results, in which the results with more "
                    "detail at a place count more. max: each pixel comes from the result with the most "
                    "detail there.",
                ),
                io.Combo.Input(
                    "map",
                    options=DETAIL_MEASURES,
                    default="gradient",
                    tooltip="How the detail of each result is measured. gradient: by how steeply the brightness changes. "
                    "variance: by the variance of the brightness in squares of 5 x 5 pixels.",
                ),
                io.Float.Input(
                    "edges",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much the edges of the result are sharpened. 0: not at all. Plain areas do "
                    "not change.",
                ),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="image", tooltip="The fused result."),
                io.Image.Output(
                    "MAPS",
                    display_name="map",
                    tooltip="One gray image for each result. It is white where the result has the most "
                    "detail.",
                ),
            ],
        )

    @classmethod
    def execute(cls, images, method="weighted", map="gradient", edges=0.0) -> io.NodeOutput:
        require_range("edges", edges, 0, 1)
        require_choice("method", method, FUSION_METHODS)
        detail_measure = map
        require_choice("map", detail_measure, DETAIL_MEASURES)
        results = to_bchw(images, "images")
        if len(results) < 2:
            raise ValueError(
                "images must be a batch of two or more results of one view, got 1: join them with Batch "
                "Images"
            )
        fused = sharpen_edges(fuse(results, method, detail_measure), edges)
        maps = map_detail(results, detail_measure).expand(-1, 3, -1, -1)
        return io.NodeOutput(to_image(fused), to_image(maps), ui=finish_with_notices())
