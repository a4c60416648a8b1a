"""Open ComfyUI's page in a browser and wait until it is ready."""

from collections.abc import Iterator
from contextlib import contextmanager

import requests
from playwright.sync_api import Page, sync_playwright

from .chromium import BROWSER_ARGUMENTS, chromium_path

READY_CONDITION = "!!(window.LiteGraph?.registered_node_types.CoZChainLoop && window.app?.canvas)"


def wait_until_ready(page: Page) -> None:
    """Wait until the pack's nodes are registered and the page loads nothing any more."""
    page.wait_for_function(READY_CONDITION)
    page.wait_for_load_state("networkidle")


SCREENSHOT_SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
}
"""Settings for screenshots, so that nothing covers the graph."""


@contextmanager
def open_page(url: str, width: int, height: int) -> Iterator[Page]:
    """Open a server's page for screenshots."""
    for key, value in SCREENSHOT_SETTINGS.items():
        requests.post(f"{url}/settings/{key}", json=value)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium_path(), args=BROWSER_ARGUMENTS
        )
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto(url)
        wait_until_ready(page)
        yield page
        browser.close()
