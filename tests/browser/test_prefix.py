"""The name of a saved chain in the real frontend: what the page fills in, as for Save Image."""

from .picker import build, chain, node

# A node by its title and by its type.
PREFIX = (
    "%Zoom In with Super Resolution (Chain Loop).steps%/%CoZChainLoop.step_prompts%"
    "_%year%_%Nothing.here%"
)


def test_nodes_and_widgets_are_filled_in_as_by_save_image(editor):
    named = {"filename_prefix": PREFIX}
    save = {"type": "CoZSaveChain", "values": named, "links": {"chain": ["loop", 3]}}
    image = {"type": "SaveImage", "values": named, "links": {"images": ["loop", 1]}}
    nodes = chain(steps=3, step_prompts="a/b")
    build(editor, "classic", nodes | {"save": save, "image": image})
    names = {
        node["class_type"]: node["inputs"]["filename_prefix"]
        for node in editor.prompt().values()
        if "filename_prefix" in node["inputs"]
    }
    assert names["CoZSaveChain"] == "3/a_b_%year%_%Nothing.here%"
    assert names["SaveImage"] == names["CoZSaveChain"]
    assert editor.run(f"{node('CoZSaveChain')}.widgets[0].value") == PREFIX
