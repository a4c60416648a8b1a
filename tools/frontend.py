"""The host's page: until it can be worked with, and its settings."""

import json
import urllib.request
from typing import Any

from playwright.sync_api import Page

READY = "!!(window.LiteGraph?.registered_node_types.CoZChainLoop && window.app?.canvas)"


def wait_until_ready(page: Page) -> None:
    """Wait until the pack's nodes are there and nothing is being loaded any more."""
    page.wait_for_function(READY)
    page.wait_for_load_state("networkidle")


def post(url: str, body: Any) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")
    urllib.request.urlopen(request).close()
