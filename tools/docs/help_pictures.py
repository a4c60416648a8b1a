"""Make the pictures of the help pages: python -m tools.docs.help_pictures [NODE ...]

Each is a photograph of the real frontend: a small graph around the node, run in the real host.
The nodes that need weights which are not here are shown wired, not run.
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
WIDTH = 900  # pixels; a help panel is narrower, screens of double density are not
QUALITY = 84
MARGIN = 16
SPOT = {"center_x": 0.4, "center_y": 0.29}

SAMPLE = {"sample": ("CoZSamplePicture", (0, -310), {"picture": "astronaut.png"})}
MODEL = {
    "model": ("UpscaleModelLoader", (0, 140), {"model_name": "coz_lite_x4_texture.safetensors"})
}
FAITHFUL = {"model": ("UpscaleModelLoader", (0, 140), {"model_name": "coz_lite_x4.safetensors"})}
FRAME = SAMPLE | {"frame": ("CoZFitImage", (0, 140), {"size": 256} | SPOT)}
ENLARGED = FRAME | {
    "model": (MODEL["model"][0], (420, 0), MODEL["model"][2]),
    "large": ("ImageUpscaleWithModel", (420, 140), {}),
}
TO_ENLARGED = [
    ("sample", 0, "frame", "image"),
    ("model", 0, "large", "upscale_model"),
    ("frame", 0, "large", "image"),
]
CHAIN = {
    "sample": ("CoZSamplePicture", (-360, 0), {"picture": "astronaut.png"}),
    "model": (MODEL["model"][0], (-360, 320), MODEL["model"][2]),
    "loop": ("CoZChainLoop", (0, 0), {"size": 256} | SPOT),
}
TO_CHAIN = [("sample", 0, "loop", "image"), ("model", 0, "loop", "backbone.upscale_model")]


def preview(x: int, y: int = 0, size=(300, 330)):
    return ("PreviewImage", (x, y), {}, size)


def of_chain(node: str, widgets: dict | None = None, size=(420, 480), **more):
    """A node that takes a chain, and what takes its result by the input of that name."""
    nodes = CHAIN | {"it": (node, (520, 0), widgets or {}, size)} | more
    links = [*TO_CHAIN, ("loop", 3, "it", "chain"), *(("it", 0, name, name) for name in more)]
    return nodes, links, ["it", *more]


SCENES = {
    "CoZSamplePicture": (SAMPLE | {"view": preview(420, -310)}, [("sample", 0, "view", "images")], None),
    "CoZFitImage": (
        FRAME | {"view": preview(420)},
        [("sample", 0, "frame", "image"), ("frame", 0, "view", "images")],
        None,
    ),
    "CoZCropCenterZoom": (
        SAMPLE | {"zoom": ("CoZCropCenterZoom", (0, 140), SPOT), "view": preview(420)},
        [("sample", 0, "zoom", "image"), ("zoom", 0, "view", "images")],
        None,
    ),
    "CoZUpscaleStep": (
        FRAME
        | {
            "model": (MODEL["model"][0], (420, 0), MODEL["model"][2]),
            "zoom": ("CoZCropCenterZoom", (420, 140), {}),
            "it": ("CoZUpscaleStep", (840, 0), {}),
            "before": preview(840, 200, (300, 330)),
            "after": preview(1170, 200, (300, 330)),
        },
        [
            ("sample", 0, "frame", "image"),
            ("frame", 0, "zoom", "image"),
            ("frame", 2, "zoom", "center_x"),
            ("frame", 3, "zoom", "center_y"),
            ("model", 0, "it", "upscale_model"),
            ("zoom", 1, "it", "crop"),
            ("zoom", 0, "it", "zoomed"),
            ("frame", 0, "it", "image"),
            ("zoom", 2, "it", "window"),
            ("zoom", 0, "before", "images"),
            ("it", 0, "after", "images"),
        ],
        ["model", "it", "before", "after"],
    ),
    "CoZFullImage": (
        SAMPLE
        | FAITHFUL
        | {"it": ("CoZFullImage", (420, 0), {}, (400, 450)), "view": preview(860, 0, (440, 490))},
        [
            ("sample", 0, "it", "image"),
            ("model", 0, "it", "backbone.upscale_model"),
            ("it", 0, "view", "images"),
        ],
        ["it", "view"],
    ),
    "CoZConsistency": (
        ENLARGED
        | {
            "it": ("CoZConsistency", (840, 0), {}, (320, 270)),
            "view": preview(1190, 0, (440, 460)),
        },
        [
            *TO_ENLARGED,
            ("large", 0, "it", "image"),
            ("frame", 0, "it", "source"),
            ("it", 0, "view", "images"),
        ],
        ["it", "view"],
    ),
    "CoZDetailMap": of_chain("CoZDetailMap", size=(380, 900)),
    "CoZMeasure": (
        CHAIN
        | {
            "small": ("ImageScaleBy", (-720, 0), {"upscale_method": "area", "scale_by": 0.25}),
            "it": ("CoZMeasure", (520, 0), {}),
        },
        [
            ("sample", 0, "small", "image"),
            ("small", 0, "loop", "image"),
            TO_CHAIN[1],
            ("loop", 3, "it", "chain"),
            ("sample", 0, "it", "ground_truth"),
        ],
        ["it"],
    ),
    "CoZSelfEnsemble": (
        FRAME
        | {
            "model": (FAITHFUL["model"][0], (0, 600), FAITHFUL["model"][2], (320, 60)),
            "it": ("CoZSelfEnsemble", (0, 740), {}, (320, 60)),
            "large": ("ImageUpscaleWithModel", (0, 880), {}, (320, 60)),
            "view": preview(380, 600, (320, 350)),
        },
        [
            ("sample", 0, "frame", "image"),
            ("model", 0, "it", "upscale_model"),
            ("it", 0, "large", "upscale_model"),
            ("frame", 0, "large", "image"),
            ("large", 0, "view", "images"),
        ],
        ["model", "it", "large", "view"],
    ),
    "CoZColorFix": (
        SAMPLE
        | {
            "orange": ("EmptyImage", (0, 140), {"width": 512, "height": 512, "color": 0xFF8800}),
            "tint": ("ImageBlend", (0, 340), {"blend_factor": 0.4}),
            "it": ("CoZColorFix", (340, 0), {}),
            "before": preview(340, 170, (300, 330)),
            "after": preview(670, 0, (300, 330)),
        },
        [
            ("sample", 0, "tint", "image1"),
            ("orange", 0, "tint", "image2"),
            ("tint", 0, "it", "image"),
            ("sample", 0, "it", "reference"),
            ("tint", 0, "before", "images"),
            ("it", 0, "after", "images"),
        ],
        ["it", "before", "after"],
    ),
    "CoZChainLoop": (CHAIN | {"view": preview(520, 0, (420, 480))}, [*TO_CHAIN, ("loop", 1, "view", "images")], ["loop", "view"]),
    "CoZZoomViewer": of_chain("CoZZoomViewer", size=(560, 640)),
    "CoZZoomVideo": of_chain(
        "CoZZoomVideo", {"seconds_per_step": 1.0}, (340, 300),
        video=("SaveVideo", (900, 0), {}, (360, 480)),
    ),
    "CoZZoomStrip": of_chain(
        "CoZZoomStrip", {"layout": "grid"}, (340, 120), images=preview(900, 0, (460, 480))
    ),
    "CoZSaveChain": of_chain("CoZSaveChain"),
    "CoZLoadChain": (
        {"it": ("CoZLoadChain", (0, 0), {}), "view": preview(420, 0, (460, 480))},
        [("it", 2, "view", "images")],
        None,
    ),
    "CoZRefineStep": (
        {
            "load": ("CheckpointLoaderSimple", (0, 0), {"ckpt_name": "sd_xl_base_1.0.safetensors"}),
            "text": ("CLIPTextEncode", (0, 180), {"text": "skin, close-up"}, (300, 120)),
            "not": ("CLIPTextEncode", (0, 360), {"text": ""}, (300, 120)),
            "it": ("CoZRefineStep", (400, 0), {}),
        },
        [
            ("load", 0, "it", "model"),
            ("load", 2, "it", "vae"),
            ("load", 1, "text", "clip"),
            ("load", 1, "not", "clip"),
            ("text", 0, "it", "positive"),
            ("not", 0, "it", "negative"),
        ],
        None,
    ),
}  # fmt: skip
"""node -> (nodes, links, which of them are in the picture)."""

NOT_RUN = {"CoZRefineStep"}

WIRED = {
    "CoZLoadSRLoRA": ("AR-2 step", ["CheckpointLoaderSimple", "CoZLoadSRLoRA"]),
    "CoZEncodePrompt": ("AR-2 step", ["CoZEncodePrompt"]),
    "CoZSRStep": ("AR-2 step", ["CoZEncodePrompt", "CoZSRStep"]),
    "CoZPromptExtractor": ("AR-2 step", ["CoZCropCenterZoom", "CoZPromptExtractor"]),
    "CoZLoadPromptExtractor": ("AR-2 step", ["CoZLoadPromptExtractor"]),
}
"""node -> (start of a template's name, the first nodes of these types in it)."""

WEIGHTS = [
    ("checkpoints", "sd3_medium_incl_clips_t5xxlfp8.safetensors"),
    ("checkpoints", "sd_xl_base_1.0.safetensors"),
    ("loras", "model_20001.pkl"),
    ("loras", "coz_prompt_lora/adapter_model.safetensors"),
    ("vae", "vae_encoder_20001.pt"),
    ("text_encoders", "Qwen2.5-VL-3B-Instruct/model-00001-of-00002.safetensors"),
]

BUILD = """async ([nodes, links]) => {
    await app.refreshComboInNodes()  // what a scene before this one has saved
    await app.loadGraphData({version: 0.4, nodes: [], links: [], groups: [],
        last_node_id: 0, last_link_id: 0, config: {}, extra: {}})
    const made = {}
    for (const [name, [type, pos, widgets, size]] of Object.entries(nodes)) {
        const node = made[name] = LiteGraph.createNode(type)
        app.graph.add(node)
        node.pos = pos
        if (size) node.setSize(size)
        for (const [key, value] of Object.entries(widgets))
            node.widgets.find(widget => widget.name === key).value = value
    }
    for (const [from, slot, to, input] of links)
        made[from].connect(slot, made[to], made[to].inputs.findIndex(({name}) => name === input))
    return Object.fromEntries(Object.entries(made).map(([name, node]) => [name, node.id]))
}"""

RUN = """() => new Promise(resolve => {
    for (const name of ['execution_success', 'execution_error'])
        app.api.addEventListener(name, ({detail}) => resolve([name, detail.exception_message]), {once: true})
    app.queuePrompt(0).then(queued => queued || resolve(['refused', app.lastExecutionError ?? app.lastNodeErrors]))
})"""

FOCUS = """([ids, margin]) => {
    const nodes = app.graph.nodes.filter(node => ids.includes(`${node.id}`))
    const title = 50  // the pack's name stands on top of it
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


def named_weights(folder: Path) -> list[str]:
    """Options for a server that finds empty files by the names in the pictures: none is read."""
    paths = {}
    for kind, name in WEIGHTS:
        path = folder / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        paths[kind] = kind
    config = folder / "paths.yaml"
    config.write_text(json.dumps({"pictures": {"base_path": str(folder), **paths}}), "utf-8")
    return ["--extra-model-paths-config", str(config)]


def photograph(page: Page, ids: list[str]) -> Image.Image:
    """The nodes with these ids, as they are on the screen."""
    page.evaluate(FOCUS, [ids, MARGIN])
    page.wait_for_timeout(1500)  # pictures on the nodes come a moment later
    box = page.evaluate(FOCUS, [ids, MARGIN])  # and the nodes grow with them
    page.wait_for_timeout(500)
    return Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")


def run_scene(page: Page, name: str) -> Image.Image:
    nodes, links, shown = SCENES[name]
    ids = page.evaluate(BUILD, [nodes, links])
    if name not in NOT_RUN:
        end, message = page.evaluate(RUN)
        if end != "execution_success":
            sys.exit(f"error: {name}: {message}")
        if name == "CoZZoomViewer":  # where something is invented
            page.get_by_role("button", name="Fly to 16x").click()
        page.wait_for_timeout(2000)
    return photograph(page, [str(ids[key]) for key in shown or ids])


def show_wired(page: Page, name: str) -> Image.Image:
    start, types = WIRED[name]
    (path,) = (ROOT / "workflows").rglob(f"{start}*.json")
    workflow = json.loads(path.read_text("utf-8"))
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    firsts = {node["type"]: str(node["id"]) for node in reversed(workflow["nodes"])}
    return photograph(page, [firsts[kind] for kind in types])


def save(picture: Image.Image, name: str) -> None:
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)))
    picture.save(FOLDER / f"{name}.jpg", quality=QUALITY, optimize=True)
    print(f"{name}: {picture.width} x {picture.height}")


def main() -> None:
    names = sys.argv[1:] or [*SCENES, *WIRED]
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(arguments=named_weights(Path(folder))) as url,
        open_page(url, 1900, 1500) as page,
    ):
        for name in names:
            save(run_scene(page, name) if name in SCENES else show_wired(page, name), name)


if __name__ == "__main__":
    main()
