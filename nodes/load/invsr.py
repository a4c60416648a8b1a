from comfy_api.latest import io

from ..host.files import list_files, require_file, validate_names
from ..host.inversion import attach_predictor

PREDICTOR_ORIGIN_AND_FOLDERS = (
    "noise_predictor_sd_turbo_v5.pth of https://huggingface.co/OAOA/InvSR for its InvSR backbone",
    "model_patches",
    "upscale_models",
)
"""What an error says after "Chain-of-Zoom uses", and the model folders for the file."""


class CoZLoadInvSR(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZLoadInvSR",
            display_name="CoZ Load InvSR",
            category="Chain-of-Zoom/load",
            description="Turns SD-Turbo into a super-resolution model by adding the noise predictor of "
            "InvSR. It predicts the noise from which SD-Turbo generates a sharp version of an image. The "
            "files of InvSR are for non-commercial use only (S-Lab License 1.0).",
            search_aliases=["InvSR", "diffusion inversion", "noise predictor", "SD-Turbo"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="SD-Turbo, from Load Checkpoint with sd_turbo.safetensors. LoRAs may be added "
                    "before or after this node.",
                ),
                io.Combo.Input(
                    "predictor_name",
                    options=list_files("noise_predictor|invsr", *PREDICTOR_ORIGIN_AND_FOLDERS[1:]),
                    tooltip="A file of models/model_patches or models/upscale_models: "
                    "noise_predictor_sd_turbo_v5.pth or noise_predictor_sd_turbo_v5_diftune.pth of InvSR.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "MODEL",
                    display_name="model",
                    tooltip="The model with the noise predictor, for CoZ InvSR Step, Chain Loop or "
                    "Full-Image SR.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, predictor_name):
        return validate_names((predictor_name, PREDICTOR_ORIGIN_AND_FOLDERS))

    @classmethod
    def execute(cls, model, predictor_name) -> io.NodeOutput:
        path = require_file(predictor_name, *PREDICTOR_ORIGIN_AND_FOLDERS)
        return io.NodeOutput(attach_predictor(model, path))
