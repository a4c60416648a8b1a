"""The name of a saved chain in the real frontend: what the page fills in, as for Save Image."""

from tools.docs.help_pictures import BUILD_GRAPH_JS

from .picker import wire

# A node by its title and by its type.
PREFIX = (
    "%Zoom In with Super Resolution (Chain Loop).steps%/%CoZChainLoop.step_prompts%"
    "_%year%_%Nothing.here%"
)
NODES = {
    "sample": ("CoZSamplePicture", (0, 0), {"picture": "astronaut.png"}),
    "model": ("UpscaleModelLoader", (0, 140), {"model_name": "coz_lite_x4.safetensors"}),
    "loop": ("CoZChainLoop", (0, 280), {"steps": 3, "step_prompts": "a/b"}),
    "save": (
        "CoZSaveChain",
        (450, 0),
        {"filename_prefix": PREFIX},
    ),
    "image": (
        "SaveImage",
        (450, 200),
        {"filename_prefix": PREFIX},
    ),
}
LINKS = [
    ("sample", 0, "loop", "image"),
    ("model", 0, "loop", "backbone.upscale_model"),
    ("loop", 3, "save", "chain"),
    ("loop", 1, "image", "images"),
]


def test_nodes_and_widgets_are_filled_in_as_by_save_image(editor):
    editor.run(BUILD_GRAPH_JS, wire(NODES, LINKS))
    names = {
        node["class_type"]: node["inputs"]["filename_prefix"]
        for node in editor.prompt().values()
        if "filename_prefix" in node["inputs"]
    }
    assert names["CoZSaveChain"] == "3/a_b_%year%_%Nothing.here%"
    assert names["SaveImage"] == names["CoZSaveChain"]
    kept = editor.run(
        "() => app.graph.nodes.find(({type}) => type === 'CoZSaveChain').widgets[0].value"
    )
    assert kept == PREFIX
