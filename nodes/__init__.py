from comfy_api.latest import ComfyExtension, io
from server import PromptServer

from .check.chain_report import CoZMeasure
from .check.keep_true_to_source import CoZConsistency
from .check.what_was_invented import CoZDetailMap
from .full_image.full_image import CoZFullImage, CoZFullImageCollect
from .full_image.tile_prompts import CoZTilePrompts, CoZTileTexts
from .full_image.tiles import CoZTiles
from .host.cache import cleared_with_the_hosts
from .host.images import register_builtin_models
from .load.prompt_extractor import CoZLoadPromptExtractor
from .load.sample_picture import CoZSamplePicture
from .load.self_ensemble import CoZSelfEnsemble
from .load.source import serve_sources
from .load.sr_lora import CoZLoadSRLoRA
from .loop.chain_loop import CoZChainLoop
from .loop.check import CoZChainCheck
from .loop.collect import CoZChainCollect, CoZChainFrames, CoZChainInput
from .loop.gate import CoZChainGate
from .step.color_fix import CoZColorFix
from .step.crop_center_zoom import CoZCropCenterZoom, CoZFitImage
from .step.encode_prompt import CoZEncodePrompt
from .step.prompt_extractor import CoZPromptExtractor
from .step.refine_step import CoZRefineStep
from .step.sr_step import CoZSRStep
from .step.upscale_step import CoZUpscaleStep
from .view.clip import make_clips
from .view.marks import take_marks
from .view.saved_chain import CoZLoadChain, CoZSaveChain
from .view.zoom_strip import CoZZoomStrip
from .view.zoom_video import CoZZoomVideo
from .view.zoom_viewer import CoZZoomViewer


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
