from comfy_api.latest import Caching, ComfyExtension, io

from .cache import ChainCache
from .collect import CoZChainCollect, CoZChainInput
from .color import CoZColorFix
from .diffusion import CoZRefineStep, CoZSRStep
from .encode import CoZEncodePrompt
from .extractor_loader import CoZLoadPromptExtractor
from .host import register_builtin_models
from .loop import CoZChainLoop
from .lora import CoZLoadSRLoRA
from .prompt import CoZPromptExtractor
from .sample import CoZSamplePicture
from .upscale import CoZUpscaleStep
from .zoom import CoZCropCenterZoom, CoZFitImage


class ChainOfZoomExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_builtin_models()
        await Caching().register_provider(ChainCache())

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            CoZChainLoop,
            CoZCropCenterZoom,
            CoZPromptExtractor,
            CoZSRStep,
            CoZColorFix,
            CoZFitImage,
            CoZUpscaleStep,
            CoZRefineStep,
            CoZEncodePrompt,
            CoZLoadSRLoRA,
            CoZLoadPromptExtractor,
            CoZSamplePicture,
            CoZChainInput,
            CoZChainCollect,
        ]


async def comfy_entrypoint() -> ChainOfZoomExtension:
    return ChainOfZoomExtension()
