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
            description="Puts all frames of a chain into one image to show or compare them. Labels give "
            "the magnification, the number of real pixels, the next window and the prompt of each frame.",
            search_aliases=["contact sheet", "grid", "compare", "before after"],
            inputs=[
                Chain.Input("chain", tooltip="The chain of Chain Loop or CoZ Load Chain."),
                io.Combo.Input(
                    "layout",
                    options=LAYOUTS,
                    default="row",
                    tooltip="row: the frames side by side. grid: the frames in several rows, close to a "
                    "square. steps: one row for each step, with the frame that it starts from, its window "
                    "enlarged with bicubic, and the result.",
                ),
                io.Boolean.Input(
                    "labels",
                    default=True,
                    tooltip="Draws the magnification, the number of real pixels and the next window of "
                    "each frame, and writes the prompts below the frames. Frames smaller than 256 pixels "
                    "are enlarged so that the labels can be read. Off: only the frames, unchanged.",
                ),
            ],
            outputs=[io.Image.Output("IMAGE", display_name="image", tooltip="The strip.")],
        )

    @classmethod
    def execute(cls, chain, layout, labels) -> io.NodeOutput:
        return io.NodeOutput(to_image(draw_strip(chain, layout, labels)))
