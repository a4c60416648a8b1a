"""Start, in this process and without a server, the ComfyUI that contains the pack.

Also describe the machine, and measure time and memory.
"""

import asyncio
import importlib
import importlib.metadata
import platform
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import psutil
import torch

PACK = Path(__file__).absolute().parents[2]
NEWEST_TESTED = "0.30.0"
SAMPLE_SECONDS = 0.02
GIB = 2**30


def find_comfyui(given: Path | None) -> Path:
    """Return the folder of ComfyUI, the ``given`` one or the one that contains the pack.

    Raises:
        ValueError: If there is none, or the pack does not support its version.
    """
    places = [given.expanduser().absolute()] if given else PACK.parents
    folder = next((place for place in places if (place / "comfyui_version.py").is_file()), None)
    if folder is None:
        raise ValueError(
            f"expected ComfyUI in {places[0]}, but found no comfyui_version.py; name ComfyUI's folder, the "
            "one with main.py in it: --comfyui FOLDER"
        )
    version, oldest = read_version(folder), read_oldest_version()
    if parse_version(version) < parse_version(oldest):
        raise ValueError(
            f"this is ComfyUI {version}, and the pack needs {oldest} or newer; update ComfyUI and run this again"
        )
    return folder


def read_version(folder: Path) -> str:
    text = (folder / "comfyui_version.py").read_text("utf-8")
    return re.search(r'__version__ = "(.+)"', text)[1]


def read_oldest_version() -> str:
    text = (PACK / "pyproject.toml").read_text("utf-8")
    return re.search(r'^requires-comfyui = ">=(.+)"', text, re.MULTILINE)[1]


def parse_version(version: str) -> list[int]:
    """Return the first two numbers of a version."""
    return [int(number) for number in re.findall(r"\d+", version)[:2]]


def start(folder: Path, arguments: list[str]) -> ModuleType:
    """Start ComfyUI with ``arguments`` of its main.py, load the pack and return its root module.

    Other custom nodes are not loaded. main.py sets the model folders and the device.
    """
    sys.path.insert(0, str(folder))
    quiet = ["--disable-all-custom-nodes", "--disable-api-nodes", "--verbose", "ERROR"]
    # ComfyUI expects a card unless it is told that there is none.
    kinds = torch.cuda, torch.xpu, torch.backends.mps
    has_card = any(kind.is_available() for kind in kinds)
    if not has_card and not any(word.startswith(("--cpu", "--directml")) for word in arguments):
        quiet.append("--cpu")
    sys.argv = [str(folder / "main.py"), *quiet, *arguments]
    importlib.import_module("main")
    import nodes

    async def load() -> None:
        await nodes.init_builtin_extra_nodes()
        if not await nodes.load_custom_node(str(PACK)):
            raise RuntimeError("ComfyUI could not load the pack: its log above says why")

    asyncio.run(load())
    loop = nodes.NODE_CLASS_MAPPINGS["CoZChainLoop"]
    return sys.modules[loop.__module__.removesuffix(".nodes.loop.chain_loop")]


def describe_machine(folder: Path) -> dict:
    """Return versions and hardware, without names of people, machines or folders."""
    import comfy.model_management as host

    from coz import __version__

    device = host.get_torch_device()
    is_cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_cuda else device.type
    packages = ("torch", "diffusers", "transformers", "safetensors")
    versions = {package: find_package_version(package) for package in packages}
    return {
        "pack": __version__,
        "comfyui": read_version(folder),
        "python": platform.python_version(),
        "packages": versions,
        "system": platform.system(),
        "device": platform.machine() + " CPU" if device.type == "cpu" else name,
        "device_gib": round(host.get_total_memory(device) / GIB, 1),
        "device_free_gib": round(host.get_free_memory(device) / GIB, 1),
        "ram_gib": round(psutil.virtual_memory().total / GIB, 1),
    }


def find_package_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def explain_missing_package(package: str) -> str:
    """Return a sentence that a package is not installed, or "" if it is."""
    if find_package_version(package):
        return ""
    return (
        f"{package} is not installed in this Python, so nothing was compared with it. To compare, run this "
        f"Python with -m pip install {package}, and this command again."
    )


def explain(error: Exception) -> str:
    """Explain in a sentence why a part failed."""
    import comfy.model_management as host

    if isinstance(error, (host.OOM_EXCEPTION, MemoryError)):
        return "The memory ran out. Close other programs, a running ComfyUI too, or add --size 256"
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def list_notes(machine: dict) -> list[str]:
    """List facts that may explain a result: an untested ComfyUI, or memory that other programs hold."""
    notes = []
    if parse_version(machine["comfyui"]) > parse_version(NEWEST_TESTED):
        notes.append(
            f"ComfyUI {machine['comfyui']} is newer than {NEWEST_TESTED}, the newest that the pack was tested with."
        )
    taken = machine["device_gib"] - machine["device_free_gib"]
    if "CPU" not in machine["device"] and taken > 2:
        notes.append(
            f"Other programs hold {taken:.1f} GiB of the card. If ComfyUI is running, close it: the times and "
            "the memory of this run depend on it."
        )
    return notes


@contextmanager
def measure(part: dict) -> Iterator[None]:
    """Add to ``part`` the seconds of the block, and by how many GiB memory rose above that at its start."""
    import comfy.model_management as host

    device = host.get_torch_device()
    process = psutil.Process()

    def sample() -> dict[str, int]:
        used = {"ram": process.memory_info().rss}
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            used["card"] = total - free
        return used

    def watch() -> None:
        while not done.wait(SAMPLE_SECONDS):
            for kind, used in sample().items():
                peak[kind] = max(peak[kind], used)

    first, done = sample(), threading.Event()
    peak = dict(first)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    began = time.monotonic()
    try:
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    finally:
        part["seconds"] = round(time.monotonic() - began, 2)
        done.set()
        thread.join()
        for kind, used in first.items():
            part[f"{kind}_gib"] = round((peak[kind] - used) / GIB, 2)
