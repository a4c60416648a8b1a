import inspect

import pytest

# Ids, inputs and their order are promises: saved workflows and API prompts hold them.
FROZEN = {
    "CoZChainLoop": (
        "image backbone steps scale center_x center_y prompting prompt step_prompts seed color_fix "
        "frame size mask chain from_step consistency stop_below",
        "IMAGE scales prompts chain",
    ),
    "CoZFitImage": (
        "image frame size center_x center_y mask",
        "IMAGE window center_x center_y",
    ),
    "CoZCropCenterZoom": (
        "image scale center_x center_y resampling mask",
        "zoomed crop window center_x center_y",
    ),
    "CoZFullImage": (
        "image backbone scale passes tile overlap adaptive_overlap prompting prompt tile_prompts "
        "seed color_fix consistency",
        "IMAGE prompts",
    ),
    "CoZUpscaleStep": ("upscale_model crop zoomed resampling image window", "IMAGE"),
    "CoZSRStep": ("model vae positive image latent_shift", "IMAGE"),
    "CoZRefineStep": (
        "model vae positive negative image steps cfg sampler_name scheduler denoise seed",
        "IMAGE",
    ),
    "CoZEncodePrompt": ("clip prompt t5_tokens", "CONDITIONING"),
    "CoZPromptExtractor": (
        "vlm image prompt instruction max_tokens sampling_mode previous_image",
        "STRING",
    ),
    "CoZLoadPromptExtractor": ("vlm_name lora_name lora_strength", "CLIP"),
    "CoZLoadSRLoRA": ("model vae lora_name vae_encoder_name strength", "MODEL VAE"),
    "CoZSelfEnsemble": ("upscale_model", "UPSCALE_MODEL"),
    "CoZColorFix": ("image reference method levels weight", "IMAGE"),
    "CoZSamplePicture": ("picture own_picture", "IMAGE"),
    "CoZSaveChain": ("chain filename_prefix", ""),
    "CoZLoadChain": ("folder", "chain IMAGE scales prompts"),
    "CoZZoomViewer": ("chain", ""),
    "CoZZoomVideo": (
        "chain seconds_per_step fps easing hold reverse width height",
        "video frames",
    ),
    "CoZZoomStrip": ("chain layout labels", "IMAGE"),
    "CoZConsistency": (
        "image source strength iterations kernel",
        "IMAGE agreement invented report",
    ),
    "CoZDetailMap": ("image source chain", "map disagreement figures"),
    "CoZMeasure": (
        "chain ground_truth",
        "table agreement psnr ssim sharpness color_drift",
    ),
}
FROZEN_OPTIONS = {
    ("CoZChainLoop", "backbone"): {
        "upscale model": "upscale_model resampling",
        "one-step diffusion": "model vae clip latent_shift",
        "any checkpoint": "model vae clip negative sampling_steps cfg sampler_name scheduler denoise",
    },
    ("CoZChainLoop", "prompting"): {
        "text": "",
        "vision-language model": "vlm context max_tokens instruction temperature",
    },
    ("CoZFullImage", "backbone"): {
        "upscale model": "upscale_model resampling",
        "one-step diffusion": "model vae clip latent_shift",
        "any checkpoint": "model vae clip negative sampling_steps cfg sampler_name scheduler denoise",
    },
    ("CoZFullImage", "prompting"): {
        "text": "",
        "vision-language model": "vlm context max_tokens instruction temperature",
    },
    ("CoZPromptExtractor", "sampling_mode"): {"off": "", "on": "temperature top_p seed"},
}
FROZEN_DEFAULTS = {
    "CoZChainLoop": {
        "steps": 4, "scale": 4.0, "center_x": 0.5, "center_y": 0.5, "prompt": "",
        "step_prompts": "", "seed": 0, "color_fix": "wavelet", "frame": "native pixels",
        "size": 512, "from_step": 16, "consistency": 0.0, "stop_below": 0.0,
    },
    "CoZFitImage": {"frame": "native pixels", "size": 512, "center_x": 0.5, "center_y": 0.5},
    "CoZCropCenterZoom": {
        "scale": 4.0, "center_x": 0.5, "center_y": 0.5, "resampling": "bicubic",
    },
    "CoZFullImage": {
        "scale": 4.0, "passes": 1, "tile": 512, "overlap": 128, "adaptive_overlap": False,
        "prompt": "", "tile_prompts": "", "seed": 0, "color_fix": "wavelet", "consistency": 0.0,
    },
    "CoZUpscaleStep": {
        "resampling": "bicubic",
        "window": {"x": 0, "y": 0, "width": 512, "height": 512},  # never used: a socket without a widget
    },
    "CoZSRStep": {"latent_shift": "auto"},
    "CoZRefineStep": {
        "steps": 20, "cfg": 5.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 0.35,
        "seed": 0,
    },
    "CoZEncodePrompt": {"prompt": "", "t5_tokens": 512},
    "CoZPromptExtractor": {"prompt": "", "instruction": "", "max_tokens": 32},
    "CoZLoadPromptExtractor": {"lora_name": "none", "lora_strength": 1.0},
    "CoZLoadSRLoRA": {"vae_encoder_name": "none", "strength": 1.0},
    "CoZSelfEnsemble": {},
    "CoZColorFix": {"method": "wavelet", "levels": 5, "weight": 0.5},
    "CoZSamplePicture": {"own_picture": "none"},
    "CoZSaveChain": {"filename_prefix": "chain-of-zoom/chain"},
    "CoZLoadChain": {},
    "CoZZoomViewer": {},
    "CoZZoomVideo": {
        "seconds_per_step": 2.0, "fps": 24.0, "easing": "none", "hold": 0.5, "reverse": False,
        "width": 0, "height": 0,
    },
    "CoZZoomStrip": {"layout": "row", "labels": True},
    "CoZConsistency": {"strength": 1.0, "iterations": 10, "kernel": "bicubic"},
    "CoZDetailMap": {},
    "CoZMeasure": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def schemas(pack):
    import nodes

    ours = [
        c
        for c in nodes.NODE_CLASS_MAPPINGS.values()
        if c.__module__.startswith(f"{pack.__name__}.")
    ]
    return {schema.node_id: (schema, cls) for cls in ours for schema in [cls.GET_SCHEMA()]}


def test_public_nodes_are_the_frozen_ones(schemas):
    public = {node_id for node_id, (schema, _) in schemas.items() if not schema.is_dev_only}
    assert public == FROZEN.keys()
    assert schemas.keys() - public == {
        "CoZChainInput",
        "CoZChainFrames",
        "CoZChainCheck",
        "CoZChainGate",
        "CoZChainCollect",
        "CoZTilePrompts",
        "CoZTileTexts",
        "CoZTiles",
        "CoZFullImageCollect",
    }


@pytest.mark.parametrize("node_id", FROZEN)
def test_inputs_outputs_and_defaults_are_frozen(schemas, node_id):
    schema, _ = schemas[node_id]
    inputs, outputs = FROZEN[node_id]
    assert [i.id for i in schema.inputs] == inputs.split()
    assert [o.id for o in schema.outputs] == outputs.split()
    defaults = {i.id: i.default for i in schema.inputs if getattr(i, "default", None) is not None}
    assert defaults == FROZEN_DEFAULTS[node_id]


@pytest.mark.parametrize(("node_id", "input_id"), FROZEN_OPTIONS)
def test_options_of_dynamic_combos_are_frozen(schemas, node_id, input_id):
    schema, _ = schemas[node_id]
    (combo,) = (i for i in schema.inputs if i.id == input_id)
    options = [(option.key, " ".join(i.id for i in option.inputs)) for option in combo.options]
    frozen = [*FROZEN_OPTIONS[node_id, input_id].items()]
    assert options[: len(frozen)] == frozen  # later options are appended


def test_execute_takes_what_the_schema_offers(schemas):
    for schema, cls in schemas.values():
        parameters = inspect.signature(cls.execute).parameters.values()
        named = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        offered = [i.id for i in schema.inputs]
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            assert offered[: len(named)] == named
        else:
            assert offered == named
        optional = {i.id for i in schema.inputs if i.optional}
        assert {p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD} >= optional - {
            f"{part}_{k}"
            for part in ("frame", "text", "shown", "agreement", "invented", "notices")
            for k in range(17)
        }


def test_public_nodes_are_in_their_categories(schemas):
    categories = {node_id: schemas[node_id][0].category for node_id in FROZEN}
    assert categories == {
        "CoZChainLoop": "Chain-of-Zoom",
        "CoZCropCenterZoom": "Chain-of-Zoom",
        "CoZColorFix": "Chain-of-Zoom",
        "CoZFitImage": "Chain-of-Zoom/step",
        "CoZFullImage": "Chain-of-Zoom/step",
        "CoZUpscaleStep": "Chain-of-Zoom/step",
        "CoZSRStep": "Chain-of-Zoom",
        "CoZPromptExtractor": "Chain-of-Zoom",
        "CoZLoadPromptExtractor": "Chain-of-Zoom/load",
        "CoZRefineStep": "Chain-of-Zoom/step",
        "CoZEncodePrompt": "Chain-of-Zoom/step",
        "CoZLoadSRLoRA": "Chain-of-Zoom/load",
        "CoZSelfEnsemble": "Chain-of-Zoom/load",
        "CoZSamplePicture": "Chain-of-Zoom/load",
        "CoZSaveChain": "Chain-of-Zoom/view",
        "CoZLoadChain": "Chain-of-Zoom/load",
        "CoZZoomViewer": "Chain-of-Zoom/view",
        "CoZZoomVideo": "Chain-of-Zoom/view",
        "CoZZoomStrip": "Chain-of-Zoom/view",
        "CoZConsistency": "Chain-of-Zoom/check",
        "CoZDetailMap": "Chain-of-Zoom/check",
        "CoZMeasure": "Chain-of-Zoom/check",
    }
