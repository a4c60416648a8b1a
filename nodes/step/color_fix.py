from comfy_api.latest import io

from ...coz.color.align import WAVELET_LEVELS
from ...coz.color.method import HYBRID_WEIGHT, METHODS, best_align, color_align
from ...coz.resample import resize
from ..host.images import to_bchw, to_image
from ..host.messages import show_closing


class CoZColorFix(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZColorFix",
            display_name="Color Fix (Wavelet/AdaIN)",
            category="Chain-of-Zoom",
            description="Gives an image the colours of a reference and keeps its detail.",
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
                    tooltip="The image with the right colours: one for all, or one for each image. Resized where its "
                    "size differs.",
                ),
                io.Combo.Input(
                    "method",
                    options=METHODS,
                    default="wavelet",
                    tooltip="wavelet: takes the reference's low frequencies, so also its shading. adain: takes its mean "
                    "and spread in each channel. none: leaves the image as it is. ycbcr: takes its colour and keeps the "
                    "image's brightness. histogram: takes its distribution of values in each channel. hybrid: a mean of "
                    "wavelet and adain. best: tries all on each image and takes the one nearest the reference in what is "
                    "coarser than about 32 pixels (root mean square).",
                ),
                io.Int.Input(
                    "levels",
                    default=WAVELET_LEVELS,
                    min=1,
                    max=10,
                    advanced=True,
                    tooltip="wavelet, hybrid and best: the frequencies that wavelet takes are those coarser than about 2 "
                    "to the power of this, in pixels.",
                ),
                io.Float.Input(
                    "weight",
                    default=HYBRID_WEIGHT,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="hybrid and best: the share of adain in hybrid. 0 is wavelet alone, 1 is adain alone.",
                ),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="image", tooltip="The corrected image.")
            ],
        )

    @classmethod
    def execute(
        cls, image, reference, method, levels=WAVELET_LEVELS, weight=HYBRID_WEIGHT
    ) -> io.NodeOutput:
        image = to_bchw(image)
        if method == "none":
            return io.NodeOutput(to_image(image), ui=show_closing())
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
        return io.NodeOutput(to_image(fixed), ui=show_closing(choice))
