"""Make the images of the help pages: python -m tools.docs.help_pictures [NODE ...]

Each is a screenshot of the real frontend: a small graph around the node, run in a real ComfyUI.
Nodes that need downloaded weights are shown connected, but are not run.
"""

import io
import json
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from tools.host import ROOT
from tools.host.frontend import open_page
from tools.host.server import serve

FOLDER = ROOT / "js" / "docs"
MAX_WIDTH_PIXELS = 900
"""Maximum width of an image. A help panel is narrower, so that the image is sharp on high-density screens too."""
JPEG_QUALITY = 84
MARGIN_PIXELS = 16
TARGET = {"center_x": 0.4, "center_y": 0.29}

# The following nodes are parts of scenes. SCENES describes their form.
SAMPLE_NODES = {"sample": ("CoZSamplePicture", (0, -310), {"picture": "astronaut.png"})}
TEXTURE_INPUTS = {"model_name": "coz_lite_x4_texture.safetensors"}
FAITHFUL_INPUTS = {"model_name": "coz_lite_x4.safetensors"}
FRAME_NODES = SAMPLE_NODES | {
    "frame": ("CoZFitImage", (0, 140), {"image": ("sample", 0), "size": 256} | TARGET)
}
ENLARGED_NODES = FRAME_NODES | {
    "model": ("UpscaleModelLoader", (420, 0), TEXTURE_INPUTS),
    "large": ("ImageUpscaleWithModel", (420, 140), {"upscale_model": ("model", 0), "image": ("frame", 0)}),
}  # fmt: skip
LOOP_INPUTS = {"image": ("sample", 0), "backbone.upscale_model": ("model", 0), "size": 256} | TARGET
CHAIN_NODES = {
    "sample": ("CoZSamplePicture", (-360, 0), {"picture": "astronaut.png"}),
    "model": ("UpscaleModelLoader", (-360, 320), TEXTURE_INPUTS),
    "loop": ("CoZChainLoop", (0, 0), LOOP_INPUTS),
}


def make_preview(node: str, output: int, x: int, y: int = 0, size=(300, 330)):
    return ("PreviewImage", (x, y), {"images": (node, output)}, size)


def make_chain_scene(node: str, widgets: dict | None = None, size=(420, 480), **more):
    """Make the scene of a node that takes a chain; ``more`` are nodes that take the node's result."""
    it = (node, (520, 0), {"chain": ("loop", 3)} | (widgets or {}), size)
    return CHAIN_NODES | {"it": it} | more, ["it", *more]


SCENES = {
    "CoZSamplePicture": (SAMPLE_NODES | {"view": make_preview("sample", 0, 420, -310)}, None),
    "CoZFitImage": (FRAME_NODES | {"view": make_preview("frame", 0, 420)}, None),
    "CoZCropCenterZoom": (
        SAMPLE_NODES
        | {
            "zoom": ("CoZCropCenterZoom", (0, 140), {"image": ("sample", 0)} | TARGET),
            "view": make_preview("zoom", 0, 420),
        },
        None,
    ),
    "CoZUpscaleStep": (
        FRAME_NODES
        | {
            "model": ("UpscaleModelLoader", (420, 0), TEXTURE_INPUTS),
            "zoom": (
                "CoZCropCenterZoom", (420, 140),
                {"image": ("frame", 0), "center_x": ("frame", 2), "center_y": ("frame", 3)},
            ),
            "it": (
                "CoZUpscaleStep", (840, 0),
                {
                    "upscale_model": ("model", 0), "crop": ("zoom", 1), "zoomed": ("zoom", 0),
                    "image": ("frame", 0), "window": ("zoom", 2),
                },
            ),
            "before": make_preview("zoom", 0, 840, 200),
            "after": make_preview("it", 0, 1170, 200),
        },
        ["model", "it", "before", "after"],
    ),
    "CoZFullImage": (
        SAMPLE_NODES
        | {
            "model": ("UpscaleModelLoader", (0, 140), FAITHFUL_INPUTS),
            "it": (
                "CoZFullImage", (420, 0),
                {"image": ("sample", 0), "backbone.upscale_model": ("model", 0)}, (400, 450),
            ),
            "view": make_preview("it", 0, 860, 0, (440, 490)),
        },
        ["it", "view"],
    ),
    "CoZConsistency": (
        ENLARGED_NODES
        | {
            "it": ("CoZConsistency", (840, 0), {"image": ("large", 0), "source": ("frame", 0)}, (320, 270)),
            "view": make_preview("it", 0, 1190, 0, (440, 460)),
        },
        ["it", "view"],
    ),
    "CoZDetailMap": make_chain_scene("CoZDetailMap", size=(380, 900)),
    "CoZMeasure": (
        CHAIN_NODES
        | {
            "small": (
                "ImageScaleBy", (-720, 0),
                {"image": ("sample", 0), "upscale_method": "area", "scale_by": 0.25},
            ),
            "loop": ("CoZChainLoop", (0, 0), LOOP_INPUTS | {"image": ("small", 0)}),
            "it": ("CoZMeasure", (520, 0), {"chain": ("loop", 3), "ground_truth": ("sample", 0)}),
        },
        ["it"],
    ),
    "CoZSelfEnsemble": (
        FRAME_NODES
        | {
            "model": ("UpscaleModelLoader", (0, 600), FAITHFUL_INPUTS, (320, 60)),
            "it": ("CoZSelfEnsemble", (0, 740), {"upscale_model": ("model", 0)}, (320, 60)),
            "large": (
                "ImageUpscaleWithModel", (0, 880), {"upscale_model": ("it", 0), "image": ("frame", 0)},
                (320, 60),
            ),
            "view": make_preview("large", 0, 380, 600, (320, 350)),
        },
        ["model", "it", "large", "view"],
    ),
    "CoZColorFix": (
        SAMPLE_NODES
        | {
            "orange": ("EmptyImage", (0, 140), {"width": 512, "height": 512, "color": 0xFF8800}),
            "tint": (
                "ImageBlend", (0, 340),
                {"image1": ("sample", 0), "image2": ("orange", 0), "blend_factor": 0.4},
            ),
            "it": ("CoZColorFix", (340, 0), {"image": ("tint", 0), "reference": ("sample", 0)}),
            "before": make_preview("tint", 0, 340, 170),
            "after": make_preview("it", 0, 670),
        },
        ["it", "before", "after"],
    ),
    "CoZChainLoop": (CHAIN_NODES | {"view": make_preview("loop", 1, 520, 0, (420, 480))}, ["loop", "view"]),
    "CoZZoomViewer": make_chain_scene("CoZZoomViewer", size=(560, 640)),
    "CoZZoomVideo": make_chain_scene(
        "CoZZoomVideo", {"seconds_per_step": 1.0}, (340, 300),
        video=("SaveVideo", (900, 0), {"video": ("it", 0)}, (360, 480)),
    ),
    "CoZZoomStrip": make_chain_scene(
        "CoZZoomStrip", {"layout": "grid"}, (340, 120), images=make_preview("it", 0, 900, 0, (460, 480))
    ),
    "CoZSaveChain": make_chain_scene("CoZSaveChain"),
    "CoZLoadChain": (
        {"it": ("CoZLoadChain", (0, 0), {}), "view": make_preview("it", 2, 420, 0, (460, 480))}, None,
    ),
    "CoZRefineStep": (
        {
            "load": ("CheckpointLoaderSimple", (0, 0), {"ckpt_name": "sd_xl_base_1.0.safetensors"}),
            "text": ("CLIPTextEncode", (0, 180), {"clip": ("load", 1), "text": "skin, close-up"}, (300, 120)),
            "not": ("CLIPTextEncode", (0, 360), {"clip": ("load", 1), "text": ""}, (300, 120)),
            "it": (
                "CoZRefineStep", (400, 0),
                {
                    "model": ("load", 0), "vae": ("load", 2), "positive": ("text", 0),
                    "negative": ("not", 0),
                },
            ),
        },
        None,
    ),
    "CoZTagPrompt": (
        SAMPLE_NODES
        | {
            "zoom": ("CoZCropCenterZoom", (0, 140), {"image": ("sample", 0)} | TARGET),
            "load": (
                "CoZLoadTagger", (0, 600),
                {"tagger_name": "ram_swin_large_14m.pth", "dape_name": "DAPE.pth"}, (340, 110),
            ),
            "it": (
                "CoZTagPrompt", (420, 600), {"tagger": ("load", 0), "image": ("zoom", 0)}, (340, 220),
            ),
            "text": ("CoZEncodePrompt", (840, 600), {"prompt": ("it", 0)}, (300, 160)),
        },
        ["load", "it", "text"],
    ),
    "CoZLoadInvSR": (
        {
            "load": ("CheckpointLoaderSimple", (0, 0), {"ckpt_name": "sd_turbo.safetensors"}),
            "it": (
                "CoZLoadInvSR", (400, 0),
                {"model": ("load", 0), "predictor_name": "noise_predictor_sd_turbo_v5.pth"}, (360, 90),
            ),
        },
        None,
    ),
    "CoZInvSRStep": (
        SAMPLE_NODES
        | {
            "zoom": ("CoZCropCenterZoom", (0, 620), {"image": ("sample", 0)} | TARGET),
            "load": ("CheckpointLoaderSimple", (0, 0), {"ckpt_name": "sd_turbo.safetensors"}),
            "model": (
                "CoZLoadInvSR", (380, 0),
                {"model": ("load", 0), "predictor_name": "noise_predictor_sd_turbo_v5.pth"}, (360, 90),
            ),
            "text": (
                "CLIPTextEncode", (0, 180),
                {"clip": ("load", 1), "text": "photo-realistic, 8k, hyper sharpness"}, (300, 120),
            ),
            "not": ("CLIPTextEncode", (0, 360), {"clip": ("load", 1), "text": "blurring"}, (300, 120)),
            "it": (
                "CoZInvSRStep", (380, 160),
                {
                    "model": ("model", 0), "vae": ("load", 2), "positive": ("text", 0),
                    "negative": ("not", 0), "crop": ("zoom", 1), "zoomed": ("zoom", 0),
                },
            ),
        },
        ["load", "model", "text", "not", "it"],
    ),
    "CoZFuse": (
        ENLARGED_NODES
        | {
            "faithful": ("UpscaleModelLoader", (420, 320), FAITHFUL_INPUTS),
            "other": (
                "ImageUpscaleWithModel", (420, 460), {"upscale_model": ("faithful", 0), "image": ("frame", 0)},
            ),
            "both": (
                "BatchImagesNode", (840, 0),
                {"images.image0": ("large", 0), "images.image1": ("other", 0)}, (200, 80),
            ),
            "it": ("CoZFuse", (1080, 0), {"images": ("both", 0)}, (300, 150)),
            "view": make_preview("it", 0, 1420),
        },
        ["both", "it", "view"],
    ),
}  # fmt: skip
"""Node of a help page -> (the nodes of its scene by name, the names of those to show, or None for all).

A node of a scene is (type, position, inputs, size). An input is a value or a link: (node, output).
"""

SCENES_NOT_RUN = {"CoZRefineStep", "CoZTagPrompt", "CoZLoadInvSR", "CoZInvSRStep"}
"""Scenes that need downloaded weights."""

TEMPLATE_SCENES = {
    "CoZLoadSRLoRA": ("AR-2 step", ["CheckpointLoaderSimple", "CoZLoadSRLoRA"]),
    "CoZEncodePrompt": ("AR-2 step", ["CoZEncodePrompt"]),
    "CoZSRStep": ("AR-2 step", ["CoZEncodePrompt", "CoZSRStep"]),
    "CoZPromptExtractor": ("AR-2 step", ["CoZCropCenterZoom", "CoZPromptExtractor"]),
    "CoZLoadPromptExtractor": ("AR-2 step", ["CoZLoadPromptExtractor"]),
    "CoZLoadTagger": ("Chain-of-Zoom SD3 + tags", ["CoZLoadTagger"]),
}
"""Node of a help page -> (start of a template's name, types of the nodes to show, the first of each type)."""

WEIGHT_FILES = [
    ("checkpoints", "sd3_medium_incl_clips_t5xxlfp8.safetensors"),
    ("checkpoints", "sd_xl_base_1.0.safetensors"),
    ("checkpoints", "sd_turbo.safetensors"),
    ("model_patches", "noise_predictor_sd_turbo_v5.pth"),
    ("loras", "model_20001.pkl"),
    ("loras", "DAPE.pth"),
    ("text_encoders", "ram_swin_large_14m.pth"),
    ("loras", "coz_prompt_lora/adapter_model.safetensors"),
    ("vae", "vae_encoder_20001.pt"),
    ("text_encoders", "Qwen2.5-VL-3B-Instruct/model-00001-of-00002.safetensors"),
]

BUILD_GRAPH_JS = """async nodes => {
    await app.refreshComboInNodes()  // lists what an earlier scene has saved
    await app.loadGraphData({version: 0.4, nodes: [], links: [], groups: [],
        last_node_id: 0, last_link_id: 0, config: {}, extra: {}})
    const made = {}
    for (const [name, [type, pos, inputs, size]] of Object.entries(nodes)) {
        const node = made[name] = LiteGraph.createNode(type)
        app.graph.add(node)
        node.pos = pos
        if (size) node.setSize(size)
        for (const [key, value] of Object.entries(inputs))
            if (!Array.isArray(value)) node.widgets.find(widget => widget.name === key).value = value
    }
    for (const [name, [, , inputs]] of Object.entries(nodes))
        for (const [key, value] of Object.entries(inputs).filter(([, value]) => Array.isArray(value)))
            made[value[0]].connect(value[1], made[name], made[name].inputs.findIndex(({name}) => name === key))
    return Object.fromEntries(Object.entries(made).map(([name, node]) => [name, node.id]))
}"""

RUN_GRAPH_JS = """() => new Promise(resolve => {
    for (const name of ['execution_success', 'execution_error'])
        app.api.addEventListener(name, ({detail}) => resolve([name, detail.exception_message]), {once: true})
    app.queuePrompt(0).then(queued => queued || resolve(['refused', app.lastExecutionError ?? app.lastNodeErrors]))
})"""

FOCUS_NODES_JS = """([ids, margin]) => {
    const nodes = app.graph.nodes.filter(node => ids.includes(`${node.id}`))
    const title = 50  // the title bar with the badge of the pack's name above it
    const left = Math.min(...nodes.map(({pos}) => pos[0]))
    const top = Math.min(...nodes.map(({pos}) => pos[1])) - title
    const right = Math.max(...nodes.map(({pos, size}) => pos[0] + size[0]))
    const bottom = Math.max(...nodes.map(({pos, size}) => pos[1] + size[1]))
    const at = [80 + margin, 110 + margin]
    app.canvas.deselectAll()
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [at[0] - left, at[1] - top]
    app.canvas.setDirty(true, true)
    return {x: at[0] - margin, y: at[1] - margin,
        width: right - left + 2 * margin, height: bottom - top + 2 * margin}
}"""


def make_weight_files(folder: Path) -> list[str]:
    """Make empty weight files, which no scene reads, and return the server's options to find them."""
    for kind, name in WEIGHT_FILES:
        path = folder / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    paths = {kind: kind for kind, _ in WEIGHT_FILES}
    config = folder / "paths.yaml"
    config.write_text(json.dumps({"pictures": {"base_path": str(folder), **paths}}), "utf-8")
    return ["--extra-model-paths-config", str(config)]


def take_screenshot(page: Page, ids: list[str]) -> Image.Image:
    """Take a screenshot of the nodes with these ids."""
    page.evaluate(FOCUS_NODES_JS, [ids, MARGIN_PIXELS])
    page.wait_for_timeout(1500)  # until the nodes show their images
    box = page.evaluate(
        FOCUS_NODES_JS, [ids, MARGIN_PIXELS]
    )  # again, because nodes grow with their images
    page.wait_for_timeout(500)
    return Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")


def screenshot_scene(page: Page, name: str) -> Image.Image:
    nodes, shown = SCENES[name]
    ids = page.evaluate(BUILD_GRAPH_JS, nodes)
    if name not in SCENES_NOT_RUN:
        end, message = page.evaluate(RUN_GRAPH_JS)
        if end != "execution_success":
            sys.exit(f"error: {name}: {message}")
        if name == "CoZZoomViewer":  # go to a frame with invented detail
            page.get_by_role("button", name="Fly to 16x").click()
        page.wait_for_timeout(2000)
    return take_screenshot(page, [str(ids[key]) for key in shown or ids])


def screenshot_template_nodes(page: Page, name: str) -> Image.Image:
    start, types = TEMPLATE_SCENES[name]
    (path,) = (ROOT / "workflows").rglob(f"{start}*.json")
    workflow = json.loads(path.read_text("utf-8"))
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    firsts = {node["type"]: str(node["id"]) for node in reversed(workflow["nodes"])}
    return take_screenshot(page, [firsts[kind] for kind in types])


def save_image(picture: Image.Image, name: str) -> None:
    if picture.width > MAX_WIDTH_PIXELS:
        picture = picture.resize(
            (MAX_WIDTH_PIXELS, round(picture.height * MAX_WIDTH_PIXELS / picture.width))
        )
    picture.save(FOLDER / f"{name}.jpg", quality=JPEG_QUALITY, optimize=True)
    print(f"{name}: {picture.width} x {picture.height}")


def main() -> None:
    names = sys.argv[1:] or [*SCENES, *TEMPLATE_SCENES]
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(arguments=make_weight_files(Path(folder))) as url,
        open_page(url, 1900, 1500) as page,
    ):
        for name in names:
            save_image(
                screenshot_scene(page, name)
                if name in SCENES
                else screenshot_template_nodes(page, name),
                name,
            )


if __name__ == "__main__":
    main()
