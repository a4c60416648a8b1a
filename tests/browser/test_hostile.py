"""HTML and script in prompts and file names, in the real frontend: they are shown as text."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from coz.chain.folder import write_chain

from .conftest import each_renderer
from .picker import PICKER, build, chain, load_image, make, run_it, wait_for_picture
from .viewer import fly

HTML = "<img src=x onerror=window.hacked=1><script>window.hacked=2</script>"
NAME = "<img src=x onerror=window.hacked=3>"
"""A file's name has no slash."""

# Elements that came out of a text, in shadow trees too, and whether anything of them ran.
INJECTED = """() => {
    const found = []
    const look = root => {
        for (const element of root.querySelectorAll('*')) {
            const own = element.getAttribute('src') === 'x' || element.hasAttribute('onerror')
            const script = element.tagName === 'SCRIPT' && element.textContent.includes('hacked')
            if (own || script) found.push(element.outerHTML)
            if (element.shadowRoot) look(element.shadowRoot)
        }
    }
    look(document)
    return [window.hacked ?? null, found]
}"""


@pytest.fixture
def nothing_runs(editor):
    dialogs = []
    listen = lambda dialog: (dialogs.append(dialog.message), dialog.dismiss())  # noqa: E731
    editor.page.on("dialog", listen)
    yield lambda: editor.run(INJECTED) == [None, []]
    assert editor.run(INJECTED) == [None, []]
    assert dialogs == []
    editor.page.remove_listener("dialog", listen)


@pytest.fixture(scope="module")
def files(folder, make_chain):
    """A picture and a chain whose names are HTML."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "input" / f"{NAME}.png")
    chain = replace(make_chain(steps=2), prompts=(HTML, "\u202etxt"))
    write_chain(chain, folder / "output", "chain", 1).rename(folder / "output" / NAME)
    yield
    (folder / "input" / f"{NAME}.png").unlink()
    shutil.rmtree(folder / "output" / NAME)


@each_renderer
def test_names_and_prompts_are_text_everywhere(editor, files, nothing_runs, renderer):
    editor.run("async () => { await app.refreshComboInNodes() }")
    nodes = chain(size=64, steps=2, prompt=HTML, step_prompts=f"{HTML}\n{NAME}")
    nodes["source"] = load_image(f"{NAME}.png")
    nodes["load"] = make("CoZLoadChain", {"folder": NAME})
    nodes["viewer"] = make("CoZZoomViewer", chain=["load", 0])
    nodes["strip"] = make("CoZZoomStrip", chain=["load", 0])
    nodes["picture"] = make("PreviewImage", images=["strip", 0])
    nodes["texts"] = make("PreviewAny", source=["load", 3])
    build(editor, renderer, nodes)
    wait_for_picture(editor, 64, 48)
    assert nothing_runs()
    outputs = run_it(editor)
    assert nothing_runs()
    (text,) = [shown["text"][0] for shown in outputs.values() if "text" in shown]
    assert text.split("\n")[0] == HTML
    editor.show_all()
    viewer = editor.page.locator(".coz-viewer")
    expect(viewer.locator(".label")).not_to_be_empty()  # drawn once it is in view
    assert nothing_runs()
    fly(viewer, "4x")
    expect(viewer.locator(".prompt")).to_have_text(HTML)
    assert editor.page.locator(PICKER).first.is_visible()
    assert nothing_runs()


def test_an_error_that_names_them_is_text(editor, files, nothing_runs):
    nodes = {
        "load": make("CoZLoadChain", {"folder": NAME}),
        # A linked name is refused when the node runs, a typed one before.
        "name": make("PrimitiveString", {"value": HTML}),
        "save": make("CoZSaveChain", chain=["load", 0], filename_prefix=["name", 0]),
    }
    build(editor, "classic", nodes)
    editor.page.get_by_test_id("queue-button").click()
    editor.page.get_by_role("button", name="View details").first.click()
    editor.page.get_by_text("some systems do not allow").first.wait_for()
    editor.settle()
    assert nothing_runs()
    editor.page.keyboard.press("Escape")
