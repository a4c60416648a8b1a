"""The backbones of Chain Loop: their sockets, and the nodes that one step of each becomes."""

from collections.abc import Callable

from comfy_api.latest import io

from ..coz.chain import step_seed
from ..coz.prompt import whole_characters
from .diffusion import latent_shift_input
from .encode import T5_TOKENS
from .refine import denoise_inputs
from .upscale import resampling_input

AS_LINKS = {"raw_link": True, "lazy": True}
"""For a node that expands: it hands its models on to its children. (Inside a dynamic combo the host
ignores ``lazy``: their loaders run.)"""

UPSCALE_MODEL, ONE_STEP, ANY_CHECKPOINT = "upscale model", "one-step diffusion", "any checkpoint"


def checkpoint_inputs(**handed) -> list[io.Input]:
    return [
        io.Model.Input(
            "model",
            **handed,
            tooltip="one-step diffusion: an SR model, from CoZ Load SR LoRA or merged. any checkpoint: any image model.",
        ),
        io.Vae.Input("vae", **handed, tooltip="The VAE of model."),
        io.Clip.Input("clip", **handed, tooltip="The text encoders of model."),
    ]


def backbone_input(**handed) -> io.Input:
    """``handed``: how its models arrive, AS_LINKS or as themselves."""
    return io.DynamicCombo.Input(
        "backbone",
        options=[
            io.DynamicCombo.Option(
                UPSCALE_MODEL,
                [
                    io.UpscaleModel.Input(
                        "upscale_model",
                        **handed,
                        tooltip="Any model of Load Upscale Model; coz_lite_x4 and coz_lite_x4_texture come with "
                        "the pack.",
                    ),
                    resampling_input(),
                ],
            ),
            io.DynamicCombo.Option(
                ONE_STEP,
                [
                    *checkpoint_inputs(**handed),
                    latent_shift_input(),
                ],
            ),
            io.DynamicCombo.Option(
                ANY_CHECKPOINT,
                [
                    *checkpoint_inputs(**handed),
                    io.String.Input(
                        "negative",
                        default="",
                        multiline=True,
                        tooltip="What the picture must not show.",
                    ),
                    io.Int.Input(
                        "sampling_steps",
                        default=20,
                        min=1,
                        max=10000,
                        tooltip="Sampling steps for each view.",
                    ),
                    *denoise_inputs(),
                ],
            ),
        ],
        tooltip="What sharpens each view. upscale model: ESRGAN and the like, reads no text. one-step diffusion: "
        "SD3-medium with the Chain-of-Zoom LoRA. any checkpoint: SD1.5, SDXL and others, by img2img.",
    )


class Backbone:
    """Adds a chain's steps to its graph, and each distinct text once."""

    def __init__(self, chosen: dict, node: Callable, seed: int):
        self.chosen = chosen
        self.node = node
        self.seed = seed
        self.texts: dict[str, list] = {}

    def step(self, i: int, frame: list, zoom, text: str | list) -> list:
        """The link to step i's sharpened view of ``frame``."""
        chosen = self.chosen
        if chosen["backbone"] == UPSCALE_MODEL:
            return self.node(
                "CoZUpscaleStep",
                f"sr_{i}",
                upscale_model=chosen["upscale_model"],
                crop=zoom.out(1),
                zoomed=zoom.out(0),
                resampling=chosen["resampling"],
                image=frame,
                window=zoom.out(2),
            ).out(0)
        view = {"model": chosen["model"], "vae": chosen["vae"], "image": zoom.out(0)}
        if chosen["backbone"] == ONE_STEP:
            return self.node(
                "CoZSRStep",
                f"sr_{i}",
                **view,
                positive=self.encoded(text, i),
                latent_shift=chosen["latent_shift"],
            ).out(0)
        return self.node(
            "CoZRefineStep",
            f"sr_{i}",
            **view,
            positive=self.encoded(text, i),
            negative=self.encoded(chosen["negative"], "negative"),
            steps=chosen["sampling_steps"],
            **{key: chosen[key] for key in ("cfg", "sampler_name", "scheduler", "denoise")},
            seed=step_seed(self.seed, i),
        ).out(0)

    def encoded(self, text: str | list, name: int | str) -> list:
        key = repr(text)  # a link is a list; quoted, no text looks like one
        if key not in self.texts:
            if self.chosen["backbone"] == ONE_STEP:
                encoder, inputs = "CoZEncodePrompt", {"prompt": text, "t5_tokens": T5_TOKENS}
            else:
                # The host's own takes no half of a character; a link's text has none.
                text = whole_characters(text) if isinstance(text, str) else text
                encoder, inputs = "CLIPTextEncode", {"text": text}
            child = self.node(encoder, f"text_{name}", clip=self.chosen["clip"], **inputs)
            self.texts[key] = child.out(0)
        return self.texts[key]
