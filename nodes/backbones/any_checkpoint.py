from comfy_api.latest import io
from torch import Tensor

from ...coz.detail.adaptive import adapt_denoise
from ...coz.text.step_numbers import read_step_numbers
from ..host.control import add_control, choose_control
from ..host.images import to_bchw
from ..host.messages import give_notice
from ..host.sampling import MAX_SAMPLING_STEPS, refine
from ..step.refine_step import (
    make_adaptive_denoise_input,
    make_control_inputs,
    make_sampling_inputs,
    write_small_size_notice,
)
from .backbone import Tile, TilePass
from .sampled import SampledDiffusion

SAMPLING_INPUTS = ("cfg", "sampler_name", "scheduler", "denoise")


class AnyCheckpoint(SampledDiffusion):
    name = "any checkpoint"
    summary = "SD1.5, SDXL and others, by img2img."

    @classmethod
    def make_inputs(cls, **socket_options) -> list[io.Input]:
        return [
            *super().make_inputs(**socket_options),
            io.String.Input(
                "negative",
                default="",
                multiline=True,
                tooltip="What the image must not show.",
            ),
            io.Int.Input(
                "sampling_steps",
                default=20,
                min=1,
                max=MAX_SAMPLING_STEPS,
                tooltip="Number of sampling steps for each view.",
            ),
            *make_sampling_inputs(),
            make_adaptive_denoise_input(),
            *make_control_inputs(**socket_options),
            io.String.Input(
                "denoise_steps",
                default="",
                optional=True,
                placeholder="0.5, 0.4, 0.3",
                tooltip="A separate denoise for each step of Chain Loop or each pass of Full-Image SR, "
                "used instead of denoise. Separate the numbers with commas or line breaks, such as 0.5, "
                "0.4, 0.3. All further steps use the last number.",
            ),
        ]

    def __init__(self, chosen: dict):
        super().__init__(chosen)
        # ComfyUI passes None for an option's input that is missing in an older saved prompt.
        self.control = choose_control(**{k: v for k, v in chosen.items() if v is not None})
        typed = chosen.get("denoise_steps") or ""
        self.denoises = read_step_numbers(typed, "denoise_steps", 0, 1)
        """The denoise of each step; further steps use the last value. If the list is empty, all steps use
        the input denoise."""

    def get_denoise(self, i: int) -> float:
        """Return the denoise of step or pass i, without ``adaptive``."""
        given = self.denoises or [self.chosen["denoise"]]
        return given[min(i, len(given)) - 1]

    def set_denoise(self, denoise: float) -> list[str]:
        unused = " (denoise_steps is ignored)" if self.chosen.get("denoise_steps") else ""
        self.denoises = [denoise]
        return [f"denoise {denoise:g}{unused}"]

    def write_extra_values_notice(self, name, count) -> str:
        given = len(self.denoises)
        if given <= count:
            return ""
        return f"denoise_steps has {given} values, but {name} is {count}: the extra values are not used"

    def choose_inputs(self, i: int) -> dict:
        return {**self.chosen, "denoise": self.get_denoise(i), "denoise_steps": ""}

    def add_nodes(self, add_node, i, view, text) -> list:
        self.denoise = self.get_denoise(i)
        if self.chosen.get("adaptive"):
            # A node of its own, so that the record gets the denoise that the step uses.
            inputs = {"image": view.zoomed, "denoise": self.denoise}
            self.denoise = add_node("CoZAdaptedDenoise", f"denoise_{i}", **inputs).out(0)
        return add_node(
            "CoZRefineStep",
            f"sr_{i}",
            model=self.chosen["model"],
            vae=self.chosen["vae"],
            positive=self.add_encoder(add_node, i, text),
            negative=self.add_encoder(add_node, "negative", self.chosen["negative"]),
            image=view.zoomed,
            steps=self.chosen["sampling_steps"],
            **{key: self.chosen[key] for key in SAMPLING_INPUTS[:-1]},
            denoise=self.denoise,
            seed=view.seed,
            **(self.control._asdict() if self.control else {}),
        ).out(0)

    def add_check(self, add_node) -> None:
        if self.control:
            models = {"model": self.chosen["model"], "control_net": self.control.control_net}
            add_node("CoZFamilyCheck", "families", **models)

    def start_pass(self, tile_pass: TilePass) -> None:
        layout = tile_pass.layout
        sides = layout.tile_height, layout.tile_width
        if notice := write_small_size_notice(self.chosen["model"], *sides, "a tile", "tile"):
            give_notice(notice)
        super().start_pass(tile_pass)

    def run(self, tiles: list[Tile], texts: list[str]) -> Tensor:
        # One at a time: some samplers draw noise for the whole batch from one seed.
        (tile,), (text,) = tiles, texts
        chosen, view = self.chosen, to_bchw(tile.zoomed)
        if chosen.get("adaptive"):
            ((view, denoise),) = adapt_denoise(view, chosen["denoise"])
            chosen = chosen | {"denoise": denoise}
        models = chosen["model"], chosen["vae"]
        conditionings = self.encoded[text], self.encoded[chosen["negative"]]
        return refine(
            *models,
            *add_control(*models, *conditionings, view, self.control),
            view,
            chosen["sampling_steps"],
            *(chosen[key] for key in SAMPLING_INPUTS),
            tile.seed,
            self.make_noise_cutter(tile),
        )
