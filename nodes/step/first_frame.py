from comfy_api.latest import io

from ...coz.resample import cut_first_frame
from ..host.images import to_bchw, to_bounding_box, to_image
from ..host.target import resolve_target, show_in_picker
from .crop_center_zoom import (
    make_center_inputs,
    make_frame_inputs,
    make_mask_input,
    make_target_outputs,
    plan_first_frame,
)


class CoZFirstFrame(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZFitImage",  # an older name, kept for saved workflows
            display_name="CoZ First Frame",
            category="Chain-of-Zoom/step",
            description="Makes the first frame of a chain from an image: a part of the image around the "
            "target, or the whole image.",
            search_aliases=["first frame", "crop", "square"],
            has_intermediate_output=True,
            inputs=[
                io.Image.Input("image", tooltip="The image to zoom into."),
                *make_frame_inputs(advanced_size=False),
                *make_center_inputs(),
                make_mask_input(),
            ],
            outputs=[
                io.Image.Output(
                    "IMAGE", display_name="image", tooltip="The first frame of the chain."
                ),
                *make_target_outputs(),
            ],
        )

    @classmethod
    def execute(cls, image, frame, size, center_x, center_y, mask=None) -> io.NodeOutput:
        image = to_bchw(image)
        target = resolve_target(center_x, center_y, mask)
        first = plan_first_frame(*image.shape[-2:], size, frame, target)
        x_0 = cut_first_frame(image, first)
        window = to_bounding_box(first.window)
        return io.NodeOutput(
            to_image(x_0), window, first.target.x, first.target.y, ui=show_in_picker(image, target)
        )
