"""Keep the outputs of child nodes between runs."""

from collections import OrderedDict
from threading import Lock

import torch
from aiohttp import web
from comfy_api.latest import Caching
from comfy_execution.cache_provider import register_cache_provider, unregister_cache_provider

CHILD_PREFIX = "coz_"
"""The ids of the nodes that an expansion adds begin with this."""

UNCACHED_NODES = {
    "CoZChainInput",
    "CoZChainFrames",
    "CoZChainCollect",
    "CoZFullImageCollect",
    "CoZFamilyCheck",
}
"""Classes whose outputs are not kept: they run fast, and other nodes hold the same images."""

MAX_CACHE_BYTES = 512 * 2**20
"""Maximum size of all kept outputs: 16 steps at 512 pixels take 150 MB, an encoded text 10 MB."""

ENTRY_BYTES = 4096
"""Size that each entry counts besides its tensors, so that the number of kept texts is limited too."""

MAX_KEPT_RUNS = 8
"""Number of runs whose outputs are kept. Memory is freed in larger pieces than a small image, so one that is
kept for long can block several times its own size."""


class ExpansionCache(Caching.CacheProvider):
    """Keeps the outputs of child nodes, so that a longer or edited chain runs only what is new.

    ComfyUI's default cache forgets the children of Chain Loop or Full-Image SR if another output node
    finishes before it expands, even a Preview Image that is connected to its own input image.

    The cache is registered with ComfyUI only from the first expansion of a prompt to the end of the prompt.
    While a provider is registered, ComfyUI computes a key for every node from all nodes before it: with 100
    nodes in a row, a prompt takes 3.6 seconds instead of 0.2.
    """

    def __init__(self):
        self.values: OrderedDict[str, Caching.CacheValue] = OrderedDict()
        self.size = 0
        self.last_used: dict[str, int] = {}
        self.runs = 0
        """Number of prompts so far that kept an output."""
        self.is_new_run = False
        self.is_registered = False
        self.lock = Lock()

    @property
    def oldest(self) -> str:
        return next(iter(self.values))

    def register(self) -> None:
        """Let ComfyUI look up the children of an expansion, until its prompt ends."""
        if not self.is_registered:
            self.is_registered = self.is_new_run = True
            register_cache_provider(self)

    def on_prompt_end(self, prompt_id, **kwargs):
        self.is_registered = False
        unregister_cache_provider(self)

    def should_cache(self, context, value=None, **kwargs):
        parent, _, name = context.node_id.rpartition(".")
        if not parent or not name.startswith(CHILD_PREFIX) or context.class_type in UNCACHED_NODES:
            return False
        if value is None:
            return True
        # Keep it at once: ComfyUI calls on_store only after the prompt, and until then the pending
        # calls would hold every image of the chain, beyond the limit.
        self.keep(context.cache_key_hash, value)
        return False

    async def on_lookup(self, context, **kwargs):
        key = context.cache_key_hash
        with self.lock:
            if key in self.values:
                self.values.move_to_end(key)
                self.last_used[key] = self.runs
            return self.values.get(key)

    async def on_store(self, context, value, **kwargs):
        self.keep(context.cache_key_hash, value)

    def keep(self, key: str, value: Caching.CacheValue) -> None:
        with self.lock:
            if self.is_new_run:
                self.is_new_run = False
                self.runs += 1
                while self.values and self.runs - self.last_used[self.oldest] >= MAX_KEPT_RUNS:
                    self.drop(self.oldest)
            self.drop(key)
            if _count_bytes(value) > MAX_CACHE_BYTES:  # it does not fit, even alone
                return
            self.values[key] = value
            self.last_used[key] = self.runs
            self.size += _count_bytes(value)
            while self.size > MAX_CACHE_BYTES:
                self.drop(self.oldest)

    def clear(self) -> None:
        with self.lock:
            while self.values:
                self.drop(self.oldest)

    def drop(self, key: str) -> None:
        if key in self.values:
            self.size -= _count_bytes(self.values.pop(key))
            del self.last_used[key]


CACHE = ExpansionCache()


@web.middleware
async def clear_cache_on_free(request: web.Request, handler):
    """Clear this cache when ComfyUI is asked to free memory. ComfyUI does not notify cache providers of that."""
    response = await handler(request)
    if request.method == "POST" and request.path in {"/free", "/api/free"}:
        options = await request.json()
        if options.get("free_memory"):
            CACHE.clear()
    return response


def _count_bytes(value: Caching.CacheValue) -> int:
    return ENTRY_BYTES + _count_tensor_bytes(value.outputs)


def _count_tensor_bytes(value) -> int:
    """Count the bytes of all tensors in nested lists and dicts, as a conditioning has them."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return 0
    return sum(_count_tensor_bytes(item) for item in value)
