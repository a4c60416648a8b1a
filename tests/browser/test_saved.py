"""Saved chains on the page: the list of CoZ Load Chain, and what is filled into a name."""

import shutil

from .conftest import each_renderer
from .picker import LOOP, build, chain, make, node, run_it, set_values

SAVE = make("CoZSaveChain", {"filename_prefix": "chain"}, chain=["loop", 3])


@each_renderer
def test_a_saved_chain_is_in_the_list_at_once(editor, folder, renderer):
    for record in (folder / "output").glob("*/chain.json"):
        shutil.rmtree(record.parent)
    editor.run("async () => { await app.refreshComboInNodes() }")
    build(editor, renderer, chain() | {"save": SAVE, "load": make("CoZLoadChain")})
    names = f"""() => {{
        const {{value, options}} = {node("CoZLoadChain")}.widgets.find(({{name}}) => name === 'folder')
        return [value, [...options.values]]
    }}"""
    assert editor.run(names)[1] == []
    run_it(editor)
    editor.page.wait_for_function(f"({names})()[1].length")
    assert editor.run(names) == ["chain_00001_", ["chain_00001_"]]
    # What was chosen stays, and a new node has the new list.
    set_values(editor, LOOP, center_x=0.3)
    run_it(editor)
    editor.page.wait_for_function(f"({names})()[1].length === 2")
    assert editor.run(names) == ["chain_00001_", ["chain_00002_", "chain_00001_"]]
    made = editor.run(
        """() => {
            const node = LiteGraph.createNode('CoZLoadChain')
            app.graph.add(node)
            const {value, options} = node.widgets.find(({name}) => name === 'folder')
            app.graph.remove(node)
            return [value, [...options.values]]
        }"""
    )
    assert made == ["chain_00002_", ["chain_00002_", "chain_00001_"]]


# A node by its title and by its type.
PREFIX = (
    "%Zoom In with Super Resolution (Chain Loop).steps%/%CoZChainLoop.step_prompts%"
    "_%year%_%Nothing.here%"
)


def test_nodes_and_widgets_are_filled_in_as_by_save_image(editor):
    named = {"filename_prefix": PREFIX}
    save = make("CoZSaveChain", named, chain=["loop", 3])
    image = make("SaveImage", named, images=["loop", 1])
    build(editor, "classic", chain(steps=3, step_prompts="a/b") | {"save": save, "image": image})
    names = [n["inputs"].get("filename_prefix") for n in editor.prompt().values()]
    assert [name for name in names if name] == ["3/a_b_%year%_%Nothing.here%"] * 2
    assert editor.run(f"{node('CoZSaveChain')}.widgets[0].value") == PREFIX
