from comfy_api.latest import io

from ..host.text_encoder import encode

T5_TOKENS = 512
"""Chain-of-Zoom's code pads each text to this length and gives T5 no mask."""


class CoZEncodePrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZEncodePrompt",
            display_name="CoZ Encode Prompt",
            category="Chain-of-Zoom/step",
            description="Encodes a prompt as the Chain-of-Zoom paper's code does: every character is "
            "plain text, and a prompt is cut off at the text encoders' limits.",
            search_aliases=["text encode", "text encoder", "prompt", "CLIP", "T5"],
            inputs=[
                io.Clip.Input(
                    "clip",
                    tooltip="The text encoders of the model that reads the prompt, of any type: SD1.5, "
                    "SD2.1, SDXL, SD3 with any of its encoders, Flux, Qwen-Image and others.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="What the image shows, as plain text: brackets, weights and embedding names "
                    "have no meaning here. CLIP reads its first 75 tokens (a token is a short word or a "
                    "part of one). It may be empty.",
                ),
                io.Int.Input(
                    "t5_tokens",
                    default=T5_TOKENS,
                    min=77,
                    max=512,
                    advanced=True,
                    tooltip="Length of the T5 text in tokens, for SD3 and Flux: a longer prompt is cut, "
                    "a shorter one padded. Chain-of-Zoom uses 512. Not used without T5. Not used for "
                    "other models either: their T5 gets the length that it was trained with.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "CONDITIONING",
                    display_name="conditioning",
                    tooltip="The encoded prompt, for the positive or negative input of a step.",
                )
            ],
        )

    @classmethod
    def execute(cls, clip, prompt, t5_tokens=T5_TOKENS) -> io.NodeOutput:
        return io.NodeOutput(encode(clip, prompt, t5_tokens))
