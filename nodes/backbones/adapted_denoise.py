from comfy_api.latest import io

from ...coz.detail.adaptive import adapt_denoise
from ..host.images import to_bchw


class CoZAdaptedDenoise(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZAdaptedDenoise",
            display_name="CoZ Adapted Denoise",
            category="Chain-of-Zoom/step",
            description="Internal: computes the denoise of a step of Chain Loop if adaptive is on.",
            is_dev_only=True,
            inputs=[io.Image.Input("image"), io.Float.Input("denoise")],
            outputs=[io.Float.Output()],
        )

    @classmethod
    def execute(cls, image, denoise) -> io.NodeOutput:
        ((_, adapted),) = adapt_denoise(to_bchw(image), denoise)
        return io.NodeOutput(adapted)
