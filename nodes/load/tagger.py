from comfy_api.latest import io

from ..host.files import list_files, require_file, validate_names
from ..host.sockets import TaggerSocket
from ..host.tagger import load_tagger, patch_tagger

TAGGER_ORIGIN_AND_FOLDER = (
    "ram_swin_large_14m.pth of https://huggingface.co/xinyu1205/recognize_anything_model",
    "text_encoders",
)
DAPE_ORIGIN_AND_FOLDER = ("DAPE.pth of https://huggingface.co/CSWRY/SeeSR", "loras")
"""What an error says after "Chain-of-Zoom uses", and the model folder for the file."""


class CoZLoadTagger(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZLoadTagger",
            display_name="CoZ Load Tagger (RAM)",
            category="Chain-of-Zoom/load",
            description="Loads RAM (Recognize Anything), a model that finds tags for an image. With the "
            "LoRA DAPE it also works on blurred and enlarged images.",
            search_aliases=["load RAM", "recognize anything", "DAPE", "tagger", "interrogate"],
            inputs=[
                io.Combo.Input(
                    "tagger_name",
                    options=list_files(r"\bram(_|\b)", *TAGGER_ORIGIN_AND_FOLDER[1:]),
                    tooltip="A file of models/text_encoders: ram_swin_large_14m.pth as published, or the "
                    "much smaller file that tools/convert.py makes from it.",
                ),
                io.Combo.Input(
                    "dape_name",
                    options=["none", *list_files("dape", *DAPE_ORIGIN_AND_FOLDER[1:])],
                    default="none",
                    tooltip="A file of models/loras: DAPE.pth of SeeSR, which the paper uses. none: RAM "
                    "alone, for sharp images.",
                ),
                io.Float.Input(
                    "dape_strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="Strength of DAPE. 0: no effect. 1: as trained.",
                ),
            ],
            outputs=[
                TaggerSocket.Output(
                    "tagger",
                    tooltip="The model, for CoZ Tag Prompt, Chain Loop or Full-Image SR.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, tagger_name, dape_name):
        return validate_names(
            (tagger_name, TAGGER_ORIGIN_AND_FOLDER), (dape_name, DAPE_ORIGIN_AND_FOLDER)
        )

    @classmethod
    def execute(cls, tagger_name, dape_name="none", dape_strength=1.0) -> io.NodeOutput:
        tagger = load_tagger(require_file(tagger_name, *TAGGER_ORIGIN_AND_FOLDER))
        if dape_name != "none" and dape_strength != 0:
            dape = require_file(dape_name, *DAPE_ORIGIN_AND_FOLDER)
            tagger = patch_tagger(tagger, dape, dape_strength)
        return io.NodeOutput(tagger)
