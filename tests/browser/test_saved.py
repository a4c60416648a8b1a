"""CoZ Load Chain on the page: its list."""

import shutil

from .conftest import each_renderer
from .picker import LOOP, build, chain, node, run_it, set_values

SAVE = {
    "type": "CoZSaveChain",
    "values": {"filename_prefix": "chain"},
    "links": {"chain": ["loop", 3]},
}


@each_renderer
def test_a_saved_chain_is_in_the_list_at_once(editor, folder, renderer):
    for record in (folder / "output").glob("*/chain.json"):
        shutil.rmtree(record.parent)
    editor.run("async () => { await app.refreshComboInNodes() }")
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
