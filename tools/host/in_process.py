"""Load ComfyUI and the pack into this process, without a server, for node tests and benchmarks."""

import asyncio
import sys
from types import ModuleType

from . import ROOT, host_path


def load_pack(on_cpu: bool = False) -> ModuleType:
    """Load the pack with ComfyUI's own loader and return its root module.

    It runs on the CPU if there is no GPU. ComfyUI's modules (comfy, nodes, ...) can be imported
    afterwards.
    """
    sys.path.insert(0, str(host_path()))
    import torch
    from comfy.cli_args import args

    args.cpu = on_cpu or not torch.cuda.is_available()
    import nodes

    async def load() -> None:
        await nodes.init_builtin_extra_nodes()
        assert await nodes.load_custom_node(str(ROOT)), "ComfyUI could not load the pack"

    asyncio.run(load())
    loop = nodes.NODE_CLASS_MAPPINGS["CoZChainLoop"]
    return sys.modules[loop.__module__.removesuffix(".nodes.loop.chain_loop")]
