from comfy_api.latest import io

from ...coz.color.align import WAVELET_LEVELS
from ...coz.color.method import HYBRID_WEIGHT, METHODS, best_align, color_align
from ...coz.resample import resize
from ..host.images import to_bchw
from ..host.messages import finish_with_notices


class CoZColorFix(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZColorFix",
            display_name="Color Fix (Wavelet/AdaIN)",
            category="Chain-of-Zoom",
            description="Gives an image the colors of a reference image and keeps the detail of the image.",
            search_aliases=[
                "color match",
                "colour match",
                "wavelet",
                "adain",
                "ycbcr",
                "histogram",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The image to correct."),
                io.Image.Input(
                    "reference",
                    tooltip="The image with the right colors. Connect one for the whole batch, or one for "
                    "each image. If its size differs, it is resized with bicubic.",
                ),
                io.Combo.Input(
                    "method",
                    options=METHODS,
                    default="wavelet",
                    tooltip="What is taken from the reference. wavelet: the low frequencies (coarse colors "
                    "and shading). adain: mean and contrast of each color channel. none: nothing. ycbcr: "
                    "color without brightness. histogram: the distribution of values of each channel. "
                    "hybrid: wavelet and adain mixed. best: tries all of these and takes the result "
                    "closest to the reference. ycbcr+wavelet+histogram: a mix of the three.",
                ),
                io.Int.Input(
                    "levels",
                    default=WAVELET_LEVELS,
                    min=1,
                    max=10,
                    advanced=True,
                    tooltip="For wavelet, hybrid, best and ycbcr+wavelet+histogram: structures larger than "
                    "about 2^levels pixels come from the reference. The Chain-of-Zoom paper uses 5, which "
                    "means 32 pixels.",
                ),
                io.Float.Input(
                    "weight",
                    default=HYBRID_WEIGHT,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Share of adain in hybrid, the mix of wavelet and adain. 0: wavelet alone. 1: "
                    "adain alone. Used for hybrid and best.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "IMAGE",
                    display_name="image",
                    tooltip="The corrected image, in its own size.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, image, reference, method, levels=WAVELET_LEVELS, weight=HYBRID_WEIGHT
    ) -> io.NodeOutput:
        image = to_bchw(image)
        if method == "none":
            return io.NodeOutput(image.movedim(1, -1), ui=finish_with_notices())
        reference = resize(to_bchw(reference, "reference"), *image.shape[-2:])
        if reference.shape[0] not in {1, image.shape[0]}:
            raise ValueError(
                f"reference holds {reference.shape[0]} images and image {image.shape[0]}: connect "
                "one reference for all images, or one for each image"
            )
        reference = reference.expand_as(image)
        choice = ""
        if method == "best":
            fixed, chosen = best_align(image, reference, levels, weight)
            choice = f"best: {', '.join(chosen)}"
        else:
            fixed = color_align(method, image, reference, levels, weight)
        # Always clamp: to check first whether a value needs it, the CPU would have to wait for the GPU.
        return io.NodeOutput(fixed.clamp_(0, 1).movedim(1, -1), ui=finish_with_notices(choice))
