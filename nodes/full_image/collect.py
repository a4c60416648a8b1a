from comfy_api.latest import io

from ..host.messages import join_with_line_breaks, show_expansion_closing
from .full_image import MAX_PASSES


class CoZFullImageCollect(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        numbers = range(1, MAX_PASSES + 1)
        return io.Schema(
            node_id="CoZFullImageCollect",
            display_name="CoZ Full Image Collect",
            category="Chain-of-Zoom/step",
            description="Internal: shows the notices of all passes on Full-Image SR.",
            is_dev_only=True,
            inputs=[
                io.Image.Input("image"),
                io.String.Input("notes"),
                *(io.String.Input(f"said_{i}", optional=True) for i in numbers),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, notes, said_1="", said_2="", said_3="", said_4="") -> io.NodeOutput:
        text = join_with_line_breaks(said_1, said_2, said_3, said_4, notes)
        lines = dict.fromkeys(text.split("\n"))  # several passes may give the same notice
        return io.NodeOutput(image, ui=show_expansion_closing("\n".join(lines)))
