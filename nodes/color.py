from comfy_api.latest import io

from ..coz.color import WAVELET_LEVELS, adain_align, wavelet_align
from ..coz.resample import resize
from .host import SEARCH_ALIASES, to_bchw, to_image

METHODS = ["wavelet", "adain", "none"]


class CoZColorFix(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZColorFix",
            display_name="Color Fix (Wavelet/AdaIN)",
            category="Chain-of-Zoom",
            description="Gives an image the colours of a reference and keeps its detail.",
            search_aliases=[*SEARCH_ALIASES, "color", "colour", "color match", "wavelet", "adain"],
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
                    "and spread in each channel. none: leaves the image as it is.",
                ),
                io.Int.Input(
                    "levels",
                    default=WAVELET_LEVELS,
                    min=1,
                    max=10,
                    advanced=True,
                    tooltip="wavelet only: the frequencies taken are those coarser than about 2 to the power of this, "
                    "in pixels.",
                ),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="image", tooltip="The corrected image.")
            ],
        )

    @classmethod
    def execute(cls, image, reference, method, levels=WAVELET_LEVELS) -> io.NodeOutput:
        image = to_bchw(image)
        if method == "none":
            return io.NodeOutput(to_image(image))
        reference = resize(to_bchw(reference, "reference"), *image.shape[-2:])
        if reference.shape[0] not in {1, image.shape[0]}:
            raise ValueError(
                f"reference holds {reference.shape[0]} images and image {image.shape[0]}: connect "
                "one reference for all, or one for each"
            )
        reference = reference.expand_as(image)
        if method == "adain":
            return io.NodeOutput(to_image(adain_align(image, reference)))
        return io.NodeOutput(to_image(wavelet_align(image, reference, levels)))
