"""Measure the tagger RAM (Recognize Anything): conversion, loading, and speed on one core. Linux only.

It has its full size and random weights. The file that is converted also holds an optimizer's state, so that
it is as large as the published one, 5.6 GB.

Limits: converting takes at most 1.5 GB of memory, and loading at most 1.2 times the converted file. In
ComfyUI a view takes at most 5 s of one core, and at most 1.1 times as long as in the plain network.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from coz.networks.ram_tagger import RAMTagger, TaggerSizes, make_tagger_input
from tests.support.random_ram import as_published, ram

SIZES = TaggerSizes()
PUBLISHED_BYTES = 5_625_634_877
MAX_CONVERT_BYTES = 1.5e9
MAX_LOAD_RATIO = 1.2
MAX_VIEW_SECONDS = 5
MAX_HOST_RATIO = 1.1
VIEWS = 3

READ_MEMORY = """
from pathlib import Path
def read_bytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if field in line)
"""
CONVERT = f"""{READ_MEMORY}
import sys
from tools.convert import convert
convert(Path(sys.argv[1]), Path(sys.argv[2]), None, None)
print(read_bytes("VmHWM"))
"""
LOAD = f"""{READ_MEMORY}
import sys, torch
from tools.host.in_process import load_pack
pack = load_pack(on_cpu=True)
loader = sys.modules[f"{{pack.__name__}}.nodes.host.tagger"]
with torch.inference_mode():
    Path("/proc/self/clear_refs").write_text("5")
    before = read_bytes("VmRSS")
    tagger = loader.load_tagger(Path(sys.argv[1]))
    sum(weight.float().sum() for weight in tagger.patcher.model.parameters())
print(read_bytes("VmHWM") - before)
"""


def run(script: str, *arguments: Path) -> int:
    """Run a script in a process of its own and return the number of bytes that it prints."""
    line = [sys.executable, "-c", script, *map(str, arguments)]
    return int(subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()[-1])


def time_views(rate) -> list[float]:
    seconds = []
    for view in torch.rand(VIEWS + 1, 1, 3, 512, 512, generator=torch.Generator().manual_seed(0)):
        started = time.process_time()
        rate(view)
        seconds.append(time.process_time() - started)
    return seconds[1:]  # the first call is slower


def main() -> None:
    if sys.platform != "linux":
        raise SystemExit("tagger: reads /proc, so it runs on Linux only")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        source, converted = Path(folder, "ram.pth"), Path(folder, "ram.safetensors")
        weights = ram(SIZES)
        content = as_published(weights)
        rest = PUBLISHED_BYTES - sum(weight.nbytes for weight in weights.values())
        content["optimizer"]["state"][0]["exp_avg"] = torch.zeros(rest // 4)
        torch.save(content, source)
        del content
        size, convert_bytes = source.stat().st_size, run(CONVERT, source, converted)
        source.unlink()
        file_bytes = converted.stat().st_size
        load_ratio = run(LOAD, converted) / file_bytes
        network = RAMTagger(SIZES)
        network.load_state_dict(weights)
        plain = time_views(lambda view: network(make_tagger_input(view)))

        from tools.host.in_process import load_pack

        pack = load_pack(on_cpu=True)
        tagger = sys.modules[f"{pack.__name__}.nodes.host.tagger"].load_tagger(converted)
        hosted = time_views(tagger.rate)
    seconds = statistics.median(hosted)
    ratio = statistics.median(h / p for h, p in zip(hosted, plain, strict=True))
    print(
        f"tagger: converting {size / 1e9:.2f} GB to {file_bytes / 1e6:.0f} MB takes "
        f"{convert_bytes / 1e9:.2f} GB of memory (limit: {MAX_CONVERT_BYTES / 1e9:.1f}); loading "
        f"{load_ratio:.2f} times the file (limit: {MAX_LOAD_RATIO}); {seconds:.2f} s a view on one core "
        f"(limit: {MAX_VIEW_SECONDS}), {ratio:.2f} times the plain network (limit: {MAX_HOST_RATIO})"
    )
    if (
        convert_bytes > MAX_CONVERT_BYTES
        or load_ratio > MAX_LOAD_RATIO
        or seconds > MAX_VIEW_SECONDS
        or ratio > MAX_HOST_RATIO
    ):
        raise SystemExit("tagger: over a limit")


if __name__ == "__main__":
    main()
