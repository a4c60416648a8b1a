"""CoZ Load Chain on the page: its list."""

import shutil

import pytest

from .picker import LOOP, build, chain, run_it

RENDERERS = pytest.mark.parametrize("renderer", ["classic", "vue"])
SAVE = {
    "type": "CoZSaveChain",
    "values": {"filename_prefix": "chain"},
    "links": {"chain": ["loop", 3]},
}


def node(node_type):
    return f"app.graph.nodes.find(({{type}}) => type === '{node_type}')"


@RENDERERS
def test_a_saved_chain_is_in_the_list_at_once(editor, folder, renderer):
    for record in (folder / "output").glob("*/chain.json"):
        shutil.rmtree(record.parent)
    editor.reload()
    load = {"type": "CoZLoadChain"}
    build(editor, renderer, chain() | {"save": SAVE, "load": load})
    names = f"""() => {{
        const {{value, options}} = {node("CoZLoadChain")}.widgets.find(({{name}}) => name === 'folder')
        return [value, [...options.values]]
    }}"""
    assert editor.run(names)[1] == []
    run_it(editor)
    editor.page.wait_for_function(f"({names})()[1].length")
    assert editor.run(names) == ["chain_00001_", ["chain_00001_"]]
    editor.show_all()
    editor.screenshot(f"load-chain-{renderer}")
    # What was chosen stays, and a new node has the new list.
    editor.run(
        f"() => {{ {node(LOOP)}.widgets.find(({{name}}) => name === 'center_x').value = 0.3 }}"
    )
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
