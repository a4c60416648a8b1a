"""A custom node of no nodes, for test_card_server: gives the server the simulated card.

GET /card   what the card was asked to do so far
"""

import importlib
import sys
from pathlib import Path

from aiohttp import web
from server import PromptServer

PLACES, sys.path = sys.path, [str(Path(__file__).resolve().parents[2])]
importlib.import_module("tests")  # else it would be ComfyUI's package of this name
sys.path = PLACES
from tests.support.host_with_card import HostWithCard  # noqa: E402

NODE_CLASS_MAPPINGS = {}
RUNNING = HostWithCard().running()
CARD = RUNNING.__enter__()
"""It stays: the threads that start from now on have it."""


@PromptServer.instance.routes.get("/card")
async def report(request):
    work, memory = CARD.work, CARD.memory
    return web.json_response({"flops": work.flops, "waits": work.waits, "peak": memory.peak})
