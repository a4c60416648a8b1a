"""ComfyUI and the pack in this process, without a server: for tests of nodes and for benchmarks."""

import asyncio
import sys
from types import ModuleType

from . import ROOT, host_path


def load_pack(on_cpu: bool = False) -> ModuleType:
    """The pack's root module, loaded by the host's own loader. On the CPU where there is no GPU.

    From then on the host's modules (comfy, nodes, ...) can be imported.
    """
    sys.path.insert(0, str(host_path()))
    import torch

    # As main.py does: the nodes.py of 0.24 puts comfy/, which has a utils.py, in front of it.
    import utils.install_util  # noqa: F401
    from comfy.cli_args import args

    args.cpu = on_cpu or not torch.cuda.is_available()
    import nodes

    async def load() -> None:
        await nodes.init_builtin_extra_nodes()
        assert await nodes.load_custom_node(str(ROOT)), "the host could not load the pack"

    asyncio.run(load())
    loop = nodes.NODE_CLASS_MAPPINGS["CoZChainLoop"]
    return sys.modules[loop.__module__.removesuffix(".nodes.loop.chain_loop")]
