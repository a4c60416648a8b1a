"""The node search of the real frontend: what people type leads to the right node.

Both frontends rank by the words of a node's name and id, then by how often people use a node, and
only then by its search aliases. So "enlarge" cannot lead to Chain Loop first: four nodes of the host
have it as an alias and are used often. Nor can "upscale": names of the host begin with it.
"""

import pytest

LOOP = "Zoom In with Super Resolution (Chain Loop)"
RANKS = {  # of Chain Loop
    "chain loop": 1,
    "zoom": 1,
    "zoom in": 1,
    "super resolution": 2,
    "magnify": 1,
    "enlarge": 5,
    "chain of zoom": 2,
    "extreme super resolution": 1,
}
FIRST = {
    "ESRGAN": "CoZ Upscale-Model Step",
    "tiled upscale": "Full-Image SR (CoZ)",
    "whole picture 4x": "Full-Image SR (CoZ)",
    "viewer": "CoZ Zoom Viewer",
    "deep zoom": "CoZ Zoom Viewer",
    "ken burns": "CoZ Zoom Video",
    "before after": "CoZ Zoom Strip",
    "hallucination": "CoZ What Was Invented",
    "metrics": "CoZ Chain Report",
    "fidelity": "CoZ Keep True to Source",
    "describe image": "VLM Prompt Extractor",
    "OSEDiff": "CoZ SR Step",
    "refine": "CoZ Refine Step (any checkpoint)",
    "color match": "Color Fix (Wavelet/AdaIN)",
    "example image": "CoZ Sample Picture",
    "16-bit PNG": "CoZ Save Chain",
    "TTA": "CoZ Self-Ensemble",
}
RESULTS = """() => [...document.querySelectorAll('[data-testid=result-item]')]
    .map(item => item.innerText.split('\\n')[0])"""


@pytest.fixture(scope="module")
def search(editor):
    """The names that the search box lists for some words, best first."""
    editor.show_nodes([])
    editor.run("() => app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    field = editor.page.locator("input:focus")

    def search(words):
        field.fill("no node has this name")
        editor.page.get_by_test_id("no-results").wait_for()
        field.fill(words)
        editor.page.get_by_test_id("result-item").first.wait_for()
        return editor.run(RESULTS)

    return search


def test_chain_loop_is_found_by_what_it_does(search):
    assert {words: search(words).index(LOOP) + 1 for words in RANKS} == RANKS
    assert LOOP in search("upscale")


def test_nodes_are_found_by_what_they_do(search):
    assert {words: search(words)[0] for words in FIRST} == FIRST
