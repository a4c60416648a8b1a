from comfy_api.latest import io

from ...coz.render.strip import LAYOUTS, draw_strip
from ..host.images import to_image
from ..host.sockets import Chain


class CoZZoomStrip(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZZoomStrip",
            display_name="CoZ Zoom Strip",
            category="Chain-of-Zoom/view",
            description="Puts the scales of a chain into one picture, with their factors, real pixels, prompts and windows.",
            search_aliases=["contact sheet", "grid", "compare", "before after"],
            inputs=[
                Chain.Input("chain", tooltip="From Chain Loop or CoZ Load Chain."),
                io.Combo.Input(
                    "layout",
                    options=LAYOUTS,
                    default="row",
                    tooltip="row: the scales side by side. grid: the same in a sheet that is nearly square. steps: a row "
                    "for each step, with the frame before it, its window enlarged with bicubic, and the result.",
                ),
                io.Boolean.Input(
                    "labels",
                    default=True,
                    tooltip="Draws in each factor, how many real pixels a frame shows and the frame of the next window, and writes "
                    "the prompts below. Frames smaller than 256 pixels are enlarged for it. Off: the pictures alone, untouched.",
                ),
            ],
            outputs=[io.Image.Output("IMAGE", display_name="image", tooltip="The strip.")],
        )

    @classmethod
    def execute(cls, chain, layout, labels) -> io.NodeOutput:
        return io.NodeOutput(to_image(draw_strip(chain, layout, labels)))
