"""Copy diagnostics in the menu of CoZ Zoom Viewer."""

import json

from coz import __version__
from tools.host import DEFAULT_VERSION

from .viewer import FOUR_STEPS, LOAD, NODE

PRIVATE = "my secret prompt"

COPY = f"""async () => {{
    const copied = new Promise(resolve => {{
        Object.defineProperty(navigator, 'clipboard', {{value: {{writeText: resolve}}}})
    }})
    const items = app.canvas.getNodeMenuOptions({NODE})
    items.find(item => item?.content === 'Copy diagnostics').callback()
    return await copied
}}"""


def test_diagnostics_hold_versions_and_nothing_private(editor, folder):
    editor.run(LOAD, [json.loads(FOUR_STEPS.read_text("utf-8")), PRIVATE])
    text = editor.run(COPY)
    found = json.loads(text)
    assert (found["pack"], found["comfyui"]) == (__version__, DEFAULT_VERSION)
    assert found["renderer"] == "classic"
    assert found["devices"][0]["vram_total"] > 0
    assert "--port" in found["options"]
    for private in (PRIVATE, str(folder), "/"):
        assert private not in json.dumps(found["options"])
    assert PRIVATE not in text
    assert str(folder) not in text
