from comfy_api.latest import ComfyExtension, io

from .backbones.adapted_denoise import CoZAdaptedDenoise
from .backbones.family_check import CoZFamilyCheck
from .check.chain_report import CoZChainReport
from .check.keep_true_to_source import CoZKeepTrueToSource
from .check.what_was_invented import CoZWhatWasInvented
from .full_image.collect import CoZFullImageCollect
from .full_image.easy_tiles import CoZComplexityMap
from .full_image.full_image import CoZFullImage
from .full_image.tile_prompts import CoZTilePrompts, CoZTileTexts
from .full_image.tiles import CoZTiles
from .host.files import register_builtin_models
from .host.server import set_up_server
from .load.invsr import CoZLoadInvSR
from .load.prompt_extractor import CoZLoadPromptExtractor
from .load.sample_picture import CoZSamplePicture
from .load.self_ensemble import CoZSelfEnsemble
from .load.source import serve_sources
from .load.sr_lora import CoZLoadSRLoRA
from .load.tagger import CoZLoadTagger
from .loop.chain_loop import CoZChainLoop
from .loop.check import CoZChainCheck
from .loop.collect import CoZChainCollect, CoZChainFrames, CoZChainInput
from .loop.gate import CoZChainGate
from .step.color_fix import CoZColorFix
from .step.crop_center_zoom import CoZCropCenterZoom
from .step.encode_prompt import CoZEncodePrompt
from .step.first_frame import CoZFirstFrame
from .step.fuse import CoZFuse
from .step.invsr_step import CoZInvSRStep
from .step.prompt_extractor import CoZPromptExtractor
from .step.refine_step import CoZRefineStep
from .step.sr_step import CoZSRStep
from .step.tag_prompt import CoZTagPrompt
from .step.upscale_step import CoZUpscaleStep
from .view.clip import serve_clips
from .view.marks import serve_marks
from .view.saved_chain import CoZLoadChain, CoZSaveChain
from .view.zoom_strip import CoZZoomStrip
from .view.zoom_video import CoZZoomVideo
from .view.zoom_viewer import CoZZoomViewer


class ChainOfZoomExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_builtin_models()
        set_up_server(serve_sources, serve_marks, serve_clips)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            CoZChainLoop,
            CoZCropCenterZoom,
            CoZPromptExtractor,
            CoZSRStep,
            CoZColorFix,
            CoZFirstFrame,
            CoZFullImage,
            CoZUpscaleStep,
            CoZRefineStep,
            CoZEncodePrompt,
            CoZLoadSRLoRA,
            CoZSelfEnsemble,
            CoZLoadPromptExtractor,
            CoZTagPrompt,
            CoZLoadTagger,
            CoZSamplePicture,
            CoZSaveChain,
            CoZLoadChain,
            CoZZoomViewer,
            CoZZoomVideo,
            CoZZoomStrip,
            CoZKeepTrueToSource,
            CoZWhatWasInvented,
            CoZChainReport,
            CoZLoadInvSR,
            CoZInvSRStep,
            CoZFuse,
            CoZChainInput,
            CoZChainFrames,
            CoZChainCheck,
            CoZChainGate,
            CoZChainCollect,
            CoZComplexityMap,
            CoZFamilyCheck,
            CoZAdaptedDenoise,
            CoZTilePrompts,
            CoZTileTexts,
            CoZTiles,
            CoZFullImageCollect,
        ]


async def comfy_entrypoint() -> ChainOfZoomExtension:
    return ChainOfZoomExtension()
