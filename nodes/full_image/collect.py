from comfy_api.latest import io

from ..host.messages import join_with_line_breaks, show_expansion_closing_text
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
                io.String.Input("notices"),
                *(io.String.Input(f"notices_{i}", optional=True) for i in numbers),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> float:
        # Another NaN in each run: the page shows only what this run sends, also where just the seed changed.
        return float("nan")

    @classmethod
    def execute(
        cls, image, notices, notices_1="", notices_2="", notices_3="", notices_4=""
    ) -> io.NodeOutput:
        text = join_with_line_breaks(notices_1, notices_2, notices_3, notices_4, notices)
        lines = dict.fromkeys(text.split("\n"))  # several passes may give the same notice
        return io.NodeOutput(image, ui=show_expansion_closing_text("\n".join(lines)))
