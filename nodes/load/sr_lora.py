from comfy_api.latest import io

from ...coz.weights.read import read_weights
from ..host.files import list_files, require_file, validate_names
from ..host.lora import patch_model, patch_vae

UPSTREAM_URL = "https://github.com/bryanswkim/Chain-of-Zoom/raw/main/ckpt/"
LORA_ORIGIN_AND_FOLDERS = (UPSTREAM_URL + "SR_LoRA/model_20001.pkl", "loras")
ENCODER_ORIGIN_AND_FOLDERS = (UPSTREAM_URL + "SR_VAE/vae_encoder_20001.pt", "vae", "loras")
"""What an error says after "Chain-of-Zoom uses", and the model folders for the file."""
FIRST_LISTED_PATTERN = "coz|20001"


class CoZLoadSRLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZLoadSRLoRA",
            display_name="CoZ Load SR LoRA",
            category="Chain-of-Zoom/load",
            description="Turns a base model into a one-step super-resolution model. It loads the "
            "Chain-of-Zoom LoRA and VAE encoder as published (.pkl, .pt), the file of OSEDiff, or any "
            "other LoRA that was trained for this. No file has to be converted.",
            search_aliases=["load lora", "super resolution LoRA", "OSEDiff", "TSD-SR"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The base model. For Chain-of-Zoom it is SD3-medium."
                ),
                io.Vae.Input("vae", tooltip="The VAE that belongs to the base model."),
                io.Combo.Input(
                    "lora_name",
                    options=list_files(FIRST_LISTED_PATTERN, *LORA_ORIGIN_AND_FOLDERS[1:]),
                    tooltip="A file of models/loras: model_20001.pkl of Chain-of-Zoom, osediff.pkl, or a safetensors file.",
                ),
                io.Combo.Input(
                    "vae_encoder_name",
                    options=[
                        "none",
                        *list_files(FIRST_LISTED_PATTERN, *ENCODER_ORIGIN_AND_FOLDERS[1:]),
                    ],
                    default="none",
                    tooltip="A file of models/vae or models/loras with a VAE encoder: "
                    "vae_encoder_20001.pt of Chain-of-Zoom. none: the VAE keeps its own encoder, or gets "
                    "the one inside the LoRA file (OSEDiff).",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="Strength of the LoRA and of the change to the VAE encoder. 0: no effect. 1: "
                    "as trained.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "MODEL",
                    display_name="model",
                    tooltip="The changed model, for CoZ SR Step, Chain Loop or Full-Image SR.",
                ),
                io.Vae.Output(
                    "VAE",
                    display_name="vae",
                    tooltip="The changed VAE, for CoZ SR Step, Chain Loop or Full-Image SR.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, lora_name, vae_encoder_name):
        return validate_names(
            (lora_name, LORA_ORIGIN_AND_FOLDERS), (vae_encoder_name, ENCODER_ORIGIN_AND_FOLDERS)
        )

    @classmethod
    def execute(cls, model, vae, lora_name, vae_encoder_name="none", strength=1.0) -> io.NodeOutput:
        if strength == 0:
            return io.NodeOutput(model, vae)
        weights = read_weights(require_file(lora_name, *LORA_ORIGIN_AND_FOLDERS))
        if not weights.lora:
            raise ValueError(
                f"{lora_name} holds no LoRA: its kind is {weights.kind}. Choose it as vae_encoder_name, and "
                "model_20001.pkl of Chain-of-Zoom as lora_name"
            )
        model = patch_model(model, weights, lora_name, strength)
        if weights.vae_diff:
            vae = patch_vae(vae, weights, lora_name, strength)
        if vae_encoder_name != "none":
            encoder = read_weights(require_file(vae_encoder_name, *ENCODER_ORIGIN_AND_FOLDERS))
            if not encoder.vae:
                raise ValueError(
                    f"{vae_encoder_name} holds no VAE encoder: its kind is {encoder.kind}. Choose "
                    "vae_encoder_20001.pt of Chain-of-Zoom or its converted form, or none"
                )
            vae = patch_vae(vae, encoder, vae_encoder_name, strength)
        return io.NodeOutput(model, vae)
