from comfy_api.latest import io

from ...coz.geometry import (
    FRAME_MODES,
    FirstFrame,
    Target,
    carry_target,
    place_first_frame,
    place_window,
)
from ...coz.resample import RESAMPLINGS, crop, resize
from ..host.images import show_preview, to_bchw, to_bounding_box, to_image
from ..host.target import resolve_target, show_in_picker

MAX_FRAME_SIDE_PIXELS = 16_384
"""Four times the maximum of size (4096) in Chain Loop, and the limit of H.264."""


def make_center_inputs() -> list[io.Input]:
    # If the widget has no step, the frontend rounds typed numbers to 0.1.
    return [
        io.Float.Input(
            "center_x",
            default=0.5,
            min=0.0,
            max=1.0,
            step=0.0001,
            tooltip="Horizontal position of the target, as a fraction of the width of the connected image: "
            "0 is the left edge, 1 is the right edge.",
        ),
        io.Float.Input(
            "center_y",
            default=0.5,
            min=0.0,
            max=1.0,
            step=0.0001,
            tooltip="Vertical position of the target, as a fraction of the height of the connected image: "
            "0 is the upper edge, 1 is the lower edge.",
        ),
    ]


def make_mask_input() -> io.Input:
    return io.Mask.Input(
        "mask",
        optional=True,
        tooltip="A mask whose center of gravity is the target, used instead of center_x and center_y. It "
        "is resized to the image. An empty mask is not used, such as the one that Load Image gives for an "
        "image without transparency.",
    )


def make_frame_inputs(advanced_size: bool) -> list[io.Input]:
    return [
        io.Combo.Input(
            "frame",
            options=FRAME_MODES,
            default="native pixels",
            tooltip="What the first frame shows. native pixels: a window around the target at the image's "
            "own resolution; nothing is resized. whole picture square: the image, resized and cropped to a "
            "square, as in the paper. whole picture: the whole image, resized, with its own shape.",
        ),
        io.Int.Input(
            "size",
            default=512,
            min=16,
            max=4096,
            step=16,
            advanced=advanced_size or None,
            tooltip="Side of the first frame in pixels; with whole picture, its short side. All later "
            "frames have the same size.",
        ),
    ]


def plan_first_frame(height: int, width: int, size: int, frame: str, target: Target) -> FirstFrame:
    """Plan the first frame, and refuse one with a side longer than MAX_FRAME_SIDE_PIXELS."""
    first = place_first_frame(height, width, size, frame, target)
    if max(first.height, first.width) > MAX_FRAME_SIDE_PIXELS:
        raise ValueError(
            f"the first frame would have {first.width:,} x {first.height:,} pixels, because frame is "
            f"{frame}, its short side becomes {size}, and image has {width} x {height}. The maximum is "
            f"{MAX_FRAME_SIDE_PIXELS:,} pixels along a side. Choose native pixels or whole picture square, "
            "or lower size"
        )
    return first


def make_target_outputs() -> list[io.Output]:
    place = "Position of the target in the resulting image, for the next Crop-Center-Zoom."
    return [
        io.BoundingBox.Output(
            "window",
            tooltip="The region that was cut out: x, y, width and height in whole pixels of the connected "
            "image.",
        ),
        io.Float.Output("center_x", tooltip=place),
        io.Float.Output("center_y", tooltip=place),
    ]


class CoZCropCenterZoom(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZCropCenterZoom",
            display_name="Crop-Center-Zoom",
            category="Chain-of-Zoom",
            description="Cuts a window around the target out of an image and enlarges it to the size of "
            "the image. A super-resolution step then sharpens this view.",
            search_aliases=["crop", "center crop", "cut out", "crop and resize"],
            has_intermediate_output=True,
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The frame to zoom into. All images of a batch are zoomed at the same place.",
                ),
                io.Float.Input(
                    "scale",
                    default=4.0,
                    min=1.0,
                    max=64.0,
                    step=0.01,
                    tooltip="Factor of the zoom. Each side of the window is the side of the image divided "
                    "by this factor, rounded down to whole pixels, and at least one pixel.",
                ),
                *make_center_inputs(),
                io.Combo.Input(
                    "resampling",
                    options=RESAMPLINGS,
                    default="bicubic",
                    advanced=True,
                    tooltip="Filter that enlarges the window. The Chain-of-Zoom paper uses bicubic.",
                ),
                make_mask_input(),
            ],
            outputs=[
                io.Image.Output("zoomed", tooltip="The window, enlarged to the size of the image."),
                io.Image.Output(
                    "crop", tooltip="The window in its own size, before it is enlarged."
                ),
                *make_target_outputs(),
            ],
        )

    @classmethod
    def execute(
        cls, image, scale, center_x, center_y, resampling="bicubic", mask=None
    ) -> io.NodeOutput:
        image = to_bchw(image)
        height, width = image.shape[-2:]
        target = resolve_target(center_x, center_y, mask)
        window = place_window(height, width, scale, target)
        cropped = crop(image, window).clone()
        zoomed = resize(cropped, height, width, resampling)
        carried = carry_target(height, width, window, target)
        picker_output = show_in_picker(image, target)
        if picker_output is None:  # this node runs as a step of Chain Loop
            show_preview(image[:1])
        return io.NodeOutput(
            to_image(zoomed),
            to_image(cropped),
            to_bounding_box(window),
            carried.x,
            carried.y,
            ui=picker_output,
        )
