import contextlib
import functools
import json
import re
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Error, expect, sync_playwright

from tools import host
from tools.host.chromium import BROWSER_ARGUMENTS, chromium_path
from tools.host.frontend import wait_until_ready
from tools.host.server import serve

from .viewer import run_four_steps

OURS = re.compile("chain-of-zoom|coz", re.IGNORECASE)
# The frontend asks for the reader's language first, then for the page without one.
HELP_PROBE = re.compile(r"/docs/\w+/\w+\.md$")
POLICY = "Content Security Policy"
TIMEOUT = 60_000  # the machine may be busy
# `make test` runs all tests in the pinned frontend's own renderer, and test_smoke.py in all of them.
RENDERERS = ["classic", pytest.param("vue", marks=pytest.mark.long)]
each_renderer = pytest.mark.parametrize("renderer", RENDERERS)
VIEWPORT = {"width": 1600, "height": 900}
expect.set_options(timeout=TIMEOUT)  # a page's own timeout does not count for it

EMPTY = """{version: 0.4, nodes: [], links: [], groups: [], last_node_id: 0, last_link_id: 0,
    config: {}, extra: {}}"""

# Whether the view has flown to where it stays, and all pictures are there.
RESTS = """async () => {
    const place = () => String([app.canvas.ds.scale, ...app.canvas.ds.offset])
    const before = place()
    for (let i = 0; i < 20; i++) await new Promise(requestAnimationFrame)
    return place() === before && [...document.images].every(image => image.complete)
}"""

# Whether the frontend has kept the graph as it is now for the next visit of the page.
IS_KEPT = """() => {
    const graph = JSON.stringify(JSON.stringify(app.rootGraph.serialize())).slice(1, -1)
    return Object.values(localStorage).some(value => value.includes(graph))
}"""


class Editor:
    """The frontend in a browser, with what it complained about."""

    def __init__(self, page, url: str, frontend: str):
        self.page = page
        self.url = url
        self.frontend = frontend
        self.complaints: list[str] = []
        self.session = page.context.new_cdp_session(page)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("console", self._listen)
        page.set_default_timeout(TIMEOUT)
        page.goto(url)
        page.get_by_text("Unsaved Workflow").first.wait_for()  # the workflow it starts with
        wait_until_ready(page)

    def _listen(self, message) -> None:
        text, source = message.text, message.location.get("url", "")
        # The frontend asks for the size of a missing model, which this offline server forbids.
        probe = HELP_PROBE.search(source) or (POLICY in text and not OURS.search(source))
        if message.type == "error" and OURS.search(text + source) and not probe:
            self.complaints.append(f"{text} ({source})")

    def run(self, script: str, argument=None):
        return self.page.evaluate(script, argument)

    def reset(self) -> None:
        """Leave nothing of another module: what it ran, with cached results, and its graph."""
        for path in ("interrupt", "queue", "history", "free"):
            requests.post(f"{self.url}/{path}", json={"clear": True, "free_memory": True})
        self.page.keyboard.press("Escape")
        self.page.set_viewport_size(VIEWPORT)
        self.page.emulate_media(reduced_motion="reduce")
        self.use_renderer("classic")
        # The button that shows a node's help opens it, and it covers nodes.
        self.use_side_panel(False)
        self.run(f"async () => await app.loadGraphData({EMPTY})")
        self.settle()

    def settle(self, frames: int = 10) -> None:
        """Wait until what begins in the next frame has begun."""
        script = "async frames => { while (frames--) await new Promise(requestAnimationFrame) }"
        self.run(script, frames)

    def touch(self, kind: str, *places: tuple[float, float]) -> None:
        """A touchStart, touchMove or touchEnd, after which fingers are at these places."""
        points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
        self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def reload(self) -> None:
        """Load the page again, once the frontend has kept the workflow; it opens the same one."""
        self.run("() => app.api.dispatchCustomEvent('graphChanged')")
        self.page.wait_for_function(IS_KEPT)
        self.page.reload()
        wait_until_ready(self.page)

    def use_renderer(self, name: str) -> None:
        script = "vue => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', vue)"
        self.run(script, name == "vue")

    def use_side_panel(self, is_open: bool) -> None:
        script = "open => app.extensionManager.setting.set('Comfy.RightSidePanel.IsOpen', open)"
        self.run(script, is_open)
        expect(self.page.get_by_test_id("properties-panel")).to_be_visible(visible=is_open)

    def show_all(self) -> None:
        self.page.get_by_role("dialog").wait_for(state="hidden")
        self.run("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.page.wait_for_function(RESTS)

    def show_nodes(self, types: list[str]) -> None:
        """A new graph of these nodes, all of them in view."""
        self.run(
            """async types => {
                await app.loadGraphData(EMPTY)
                types.forEach((type, i) => {
                    const node = LiteGraph.createNode(type)
                    if (!node) throw new Error(`no node ${type}`)
                    app.graph.add(node)
                    node.pos = [(i % 4) * 500, Math.floor(i / 4) * 800]
                })
                app.canvas.ds.scale = types.length > 1 ? 0.4 : 1
                app.canvas.ds.offset = [200, 200]
                app.canvas.setDirty(true, true)
            }""".replace("EMPTY", EMPTY),
            types,
        )

    def prompt(self) -> dict:
        """The graph as the frontend would submit it, without the titles."""
        output = self.run("async () => JSON.stringify((await app.graphToPrompt()).output)")
        kept = ("class_type", "inputs")
        return {key: {k: node[k] for k in kept} for key, node in json.loads(output).items()}


@pytest.fixture(scope="package", params=["pinned", pytest.param("newest", marks=pytest.mark.long)])
def frontend(request) -> Path | None:
    """Folder of the frontend; None is the one that the host pins."""
    if request.param == "pinned":
        return None
    path = host.frontend_path()
    assert path.exists(), "run python3 -m tools.host --frontend"
    return path


@pytest.fixture(scope="package")
def servers(tmp_path_factory):
    """(URL, folder) of the server of a frontend, started at its first use."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def server(frontend: Path | None) -> tuple[str, Path]:
            folder = tmp_path_factory.mktemp("server")
            return stack.enter_context(serve(frontend=frontend, folder=folder)), folder

        yield server


@pytest.fixture(scope="package")
def url(frontend, servers) -> str:
    return servers(frontend)[0]


@pytest.fixture(scope="package")
def folder(frontend, servers) -> Path:
    return servers(frontend)[1]


# Of package scope: while Playwright is open, no other test of the process can run an event loop.
@pytest.fixture(scope="package")
def browser():
    path = chromium_path()
    assert path, "the browser tests need Chromium: make chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_ARGUMENTS)
        yield browser
        browser.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Keep what is on the screen where a test failed as screenshots/<test>.png."""
    report = yield
    if report.failed and "editor" in item.funcargs:
        path = host.ROOT / "screenshots" / f"{re.sub('[^a-z0-9]+', '-', item.name.lower())}.png"
        with contextlib.suppress(Error):  # the page may be what failed
            item.funcargs["editor"].page.screenshot(path=path)
    return report


def new_page(browser):
    """A page in which no viewer flies by itself."""
    return browser.new_page(viewport=VIEWPORT, reduced_motion="reduce")


@pytest.fixture(scope="package")
def page_of_all(browser, url, frontend, folder):
    """One page for all modules: to load it takes seconds."""
    (folder / "user" / "default" / "comfy.settings.json").unlink(missing_ok=True)
    # Else the template browser opens by itself, a moment after the first visit.
    requests.post(f"{url}/settings/Comfy.TutorialCompleted", json=True)
    page = new_page(browser)
    yield Editor(page, url, "newest" if frontend else "pinned")
    page.close()


@pytest.fixture(scope="module")
def editor(page_of_all):
    page_of_all.reset()
    return page_of_all


@pytest.fixture(scope="module")
def viewer(editor):
    return run_four_steps(editor)


@pytest.fixture(autouse=True)
def no_complaints(editor):
    editor.complaints.clear()
    yield
    assert not editor.complaints
