from comfy_api.latest import Caching, ComfyExtension, io
from server import PromptServer

from .cache import ChainCache
from .collect import CoZChainCollect, CoZChainFrames, CoZChainInput
from .color import CoZColorFix
from .diffusion import CoZRefineStep, CoZSRStep
from .encode import CoZEncodePrompt
from .extractor_loader import CoZLoadPromptExtractor
from .host import register_builtin_models
from .loop import CoZChainLoop
from .lora import CoZLoadSRLoRA
from .preferences import take_marks
from .prompt import CoZPromptExtractor
from .sample import CoZSamplePicture, serve_pictures
from .saved import CoZLoadChain, CoZSaveChain
from .strip import CoZZoomStrip
from .upscale import CoZUpscaleStep
from .video import CoZZoomVideo
from .viewer import CoZZoomViewer
from .zoom import CoZCropCenterZoom, CoZFitImage


class ChainOfZoomExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_builtin_models()
        if hasattr(PromptServer, "instance"):  # tests and benchmarks load the nodes alone
            routes = PromptServer.instance.routes
            serve_pictures(routes)
            take_marks(routes)
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
            CoZSaveChain,
            CoZLoadChain,
            CoZZoomViewer,
            CoZZoomVideo,
            CoZZoomStrip,
            CoZChainInput,
            CoZChainFrames,
            CoZChainCollect,
        ]


async def comfy_entrypoint() -> ChainOfZoomExtension:
    return ChainOfZoomExtension()
