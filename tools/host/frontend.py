"""The host's page: until it can be worked with, and its settings."""

from collections.abc import Iterator
from contextlib import contextmanager

import requests
from playwright.sync_api import Page, sync_playwright

from .chromium import BROWSER_ARGUMENTS, chromium_path

READY = "!!(window.LiteGraph?.registered_node_types.CoZChainLoop && window.app?.canvas)"


def wait_until_ready(page: Page) -> None:
    """Wait until the pack's nodes are there and nothing is being loaded any more."""
    page.wait_for_function(READY)
    page.wait_for_load_state("networkidle")


PICTURE_SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
}
"""Of a page that is photographed: nothing lies over the graph."""


@contextmanager
def open_page(url: str, width: int, height: int) -> Iterator[Page]:
    """Open the page of a server to take pictures of it."""
    for key, value in PICTURE_SETTINGS.items():
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
