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
            description="Encodes a prompt as the code of the Chain-of-Zoom paper does. Every character is "
            "plain text. A prompt that is too long for a text encoder is cut off.",
            search_aliases=["text encode", "text encoder", "prompt", "CLIP", "T5"],
            inputs=[
                io.Clip.Input(
                    "clip",
                    tooltip="The text encoders of the model. Any type works: SD1.5, SD2.1, SDXL, SD3 with "
                    "some or all of its encoders, Flux, Qwen-Image and others.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="What the image shows, as plain text. Brackets, weights and names of "
                    "embeddings have no special meaning. CLIP reads the first 75 tokens (a token is a "
                    "short word or a part of a word). The prompt may be empty.",
                ),
                io.Int.Input(
                    "t5_tokens",
                    default=T5_TOKENS,
                    min=77,
                    max=512,
                    advanced=True,
                    tooltip="Length of the text for T5 in tokens. A longer prompt is cut, a shorter one is "
                    "padded. Chain-of-Zoom uses 512. It is used only for SD3 and Flux with T5.",
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
