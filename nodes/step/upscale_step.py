from comfy_api.latest import io

from ...coz.geometry import Window
from ...coz.resample import FILTER_RADIUS_PIXELS, resize
from ..host.images import to_bchw, to_image
from ..host.messages import finish_with_notices
from ..host.surroundings import WindowUpscaler, enlarge, get_reach
from ..host.untiled_model import LoadedModel
from ..host.upscale_model import adapt_to_color

WINDOW_KEYS = ("x", "y", "width", "height")

MAX_MARGIN_PIXELS = 16
"""Maximum margin around a window: at 4x and a size of 512 the network computes 1.56 times as much."""


def make_resampling_input() -> io.Input:
    return io.Combo.Input(
        "resampling",
        options=[*FILTER_RADIUS_PIXELS],
        default="bicubic",
        advanced=True,
        tooltip="Filter that resizes the result of the model to the right size if the model "
        "enlarges by another factor.",
    )


class CoZUpscaleStep(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZUpscaleStep",
            display_name="CoZ Upscale-Model Step",
            category="Chain-of-Zoom/step",
            description="Enlarges the crop of one zoom step with an upscale model, such as ESRGAN, and "
            "resizes the result to the size of the frame.",
            search_aliases=[
                "ESRGAN",
                "RealESRGAN",
                "upscale model",
                "upscale with model",
                "super resolution",
            ],
            inputs=[
                io.UpscaleModel.Input(
                    "upscale_model", tooltip="Any model from Load Upscale Model."
                ),
                io.Image.Input(
                    "crop", tooltip="The window to enlarge: the output crop of Crop-Center-Zoom."
                ),
                io.Image.Input(
                    "zoomed",
                    tooltip="The enlarged window: the output zoomed of Crop-Center-Zoom. Only its size is "
                    "used, as the size of the result.",
                ),
                make_resampling_input(),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The frame from which the crop was cut: the image that is connected to "
                    "Crop-Center-Zoom. Connect window too. The model then also sees the pixels around "
                    "the crop and draws no lines along its edges.",
                ),
                io.BoundingBox.Input(
                    "window",
                    optional=True,
                    force_input=True,
                    tooltip="Where the crop lies in image: the output window of the same "
                    "Crop-Center-Zoom.",
                ),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="image", tooltip="The sharpened frame.")
            ],
        )

    @classmethod
    def execute(
        cls, upscale_model, crop, zoomed, resampling="bicubic", image=None, window=None
    ) -> io.NodeOutput:
        lq = to_bchw(crop, "crop")
        upscale_model = adapt_to_color(upscale_model)
        if image is None and window is None:
            sr = enlarge(LoadedModel(upscale_model), to_image(lq))
        else:
            frame, place = require_frame_and_window(lq, image, window)
            margin = min(get_reach(upscale_model).pixels, MAX_MARGIN_PIXELS)
            sr = WindowUpscaler(upscale_model, margin)(frame, place)
        image = to_image(resize(sr, *zoomed.shape[1:3], resampling))
        return io.NodeOutput(image, ui=finish_with_notices())


def require_frame_and_window(lq, image, window):
    """Return the frame (B, 3, H, W) and the window in it that ``lq`` was cropped from.

    Raises:
        ValueError: If frame, window and ``lq`` do not fit together.
    """
    if image is None or window is None:
        given, missing = ("window", "image") if image is None else ("image", "window")
        raise ValueError(
            f"{given} is connected, but {missing} is not: connect both the image that goes into "
            "Crop-Center-Zoom and its window, or neither"
        )
    frame = to_bchw(image)
    height, width = frame.shape[-2:]
    box = [window.get(key) for key in WINDOW_KEYS] if isinstance(window, dict) else []
    if not box or not all(isinstance(value, int) for value in box):
        raise ValueError(
            f"window must be one box of whole pixels, with {', '.join(WINDOW_KEYS)}, got {window}: connect "
            "window of Crop-Center-Zoom"
        )
    place = Window(*box)
    is_inside = min(place.x, place.y) >= 0 and (
        place.x + place.width <= width and place.y + place.height <= height
    )
    if not is_inside or (place.height, place.width) != lq.shape[-2:] or len(frame) != len(lq):
        raise ValueError(
            f"crop is {lq.shape[-1]} x {lq.shape[-2]} pixels (batch of {len(lq)}), window is {place.width} x "
            f"{place.height} at ({place.x}, {place.y}), and image is {width} x {height} (batch of {len(frame)}): "
            "connect crop and window of the same Crop-Center-Zoom, and the image that goes into it"
        )
    return frame, place
