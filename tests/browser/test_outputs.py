"""What nodes show of a run after they were moved."""

from playwright.sync_api import expect

from .conftest import each_renderer
from .picker import build, chain, node, run_it
from .viewer import SHOWN, VIEWER

REPORT = {"type": "CoZMeasure", "links": {"chain": ["loop", 3]}}


@each_renderer
def test_an_unpacked_viewer_shows_its_run(editor, renderer):
    """And one that was put into a subgraph after the run."""
    build(editor, renderer, chain() | {"viewer": SHOWN, "report": REPORT})
    run_it(editor)
    label = editor.page.locator(f"{VIEWER} .label")
    expect(label).not_to_be_empty()
    shown = label.text_content()
    rows = """() => {
        const graphs = [app.rootGraph, ...app.rootGraph.subgraphs.values()]
        const report = graphs.flatMap(({nodes}) => nodes).find(({type}) => type === 'CoZMeasure')
        const {element} = report.widgets.find(({name}) => name === 'report')
        return element.shadowRoot.querySelectorAll('tr').length
    }"""
    assert editor.run(rows) == 4
    # A copy has not run, and shows nothing.
    editor.run(
        f"""() => {{
            window.copy = {node("CoZZoomViewer")}.clone()
            app.graph.add(window.copy)
        }}"""
    )
    expect(editor.page.locator(VIEWER)).to_have_count(2)
    editor.settle(30)
    labels = editor.page.locator(f"{VIEWER} .label")
    assert labels.all_text_contents() == [shown, ""]
    editor.run("() => app.graph.remove(window.copy)")
    expect(labels).to_have_count(1)
    editor.run(
        f"""async () => {{
            app.canvas.deselectAll()
            app.canvas.selectItems([{node("CoZZoomViewer")}, {node("CoZMeasure")}])
            await app.extensionManager.command.execute('Comfy.Graph.ConvertToSubgraph')
        }}"""
    )
    editor.page.wait_for_function("app.graph.nodes.some(node => node.isSubgraphNode())")
    editor.page.wait_for_function(f"({rows})() === 4")
    editor.run(
        """async () => {
            app.canvas.deselectAll()
            app.canvas.selectItems([app.graph.nodes.find(node => node.isSubgraphNode())])
            await app.extensionManager.command.execute('Comfy.Graph.UnpackSubgraph')
        }"""
    )
    editor.page.wait_for_function("!app.graph.nodes.some(node => node.isSubgraphNode())")
    expect(label).to_have_text(shown)
    editor.page.wait_for_function(f"({rows})() === 4")
