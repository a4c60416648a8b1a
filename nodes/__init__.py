from comfy_api.latest import ComfyExtension, io
from server import PromptServer

from .cache import cleared_with_the_hosts
from .check import CoZChainCheck
from .clip import make_clips
from .collect import CoZChainCollect, CoZChainFrames, CoZChainInput
from .color import CoZColorFix
from .consistency import CoZConsistency
from .detail import CoZDetailMap
from .diffusion import CoZSRStep
from .encode import CoZEncodePrompt
from .ensemble import CoZSelfEnsemble
from .extractor_loader import CoZLoadPromptExtractor
from .full_image import CoZFullImage, CoZFullImageCollect
from .gate import CoZChainGate
from .host import register_builtin_models
from .loop import CoZChainLoop
from .lora import CoZLoadSRLoRA
from .measure import CoZMeasure
from .preferences import take_marks
from .prompt import CoZPromptExtractor
from .refine import CoZRefineStep
from .sample import CoZSamplePicture
from .saved import CoZLoadChain, CoZSaveChain
from .source import serve_sources
from .strip import CoZZoomStrip
from .tile_prompts import CoZTilePrompts, CoZTileTexts
from .tiles import CoZTiles
from .upscale import CoZUpscaleStep
from .video import CoZZoomVideo
from .viewer import CoZZoomViewer
from .zoom import CoZCropCenterZoom, CoZFitImage


class ChainOfZoomExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_builtin_models()
        if hasattr(PromptServer, "instance"):  # it has none where ComfyUI is a library
            app = PromptServer.instance.app
            app.middlewares.append(cleared_with_the_hosts)
            routes = PromptServer.instance.routes
            serve_sources(routes)
            take_marks(routes)
            make_clips(routes)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            CoZChainLoop,
            CoZCropCenterZoom,
            CoZPromptExtractor,
            CoZSRStep,
            CoZColorFix,
            CoZFitImage,
            CoZFullImage,
            CoZUpscaleStep,
            CoZRefineStep,
            CoZEncodePrompt,
            CoZLoadSRLoRA,
            CoZSelfEnsemble,
            CoZLoadPromptExtractor,
            CoZSamplePicture,
            CoZSaveChain,
            CoZLoadChain,
            CoZZoomViewer,
            CoZZoomVideo,
            CoZZoomStrip,
            CoZConsistency,
            CoZDetailMap,
            CoZMeasure,
            CoZChainInput,
            CoZChainFrames,
            CoZChainCheck,
            CoZChainGate,
            CoZChainCollect,
            CoZTilePrompts,
            CoZTileTexts,
            CoZTiles,
            CoZFullImageCollect,
        ]


async def comfy_entrypoint() -> ChainOfZoomExtension:
    return ChainOfZoomExtension()
