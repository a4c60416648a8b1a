import gc
import importlib
import random
import re
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import Phase, settings

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"

# Behind everything else: in front, the pack's own nodes/ would hide the host's nodes module.
sys.path.append(str(ROOT))
importlib.import_module("tests")  # before ComfyUI's package of this name can be found

# To explain a failing case, Hypothesis would trace every line of the host, for hours.
PHASES = [Phase.explicit, Phase.generate, Phase.shrink]
COMMON = {"deadline": None, "database": None, "print_blob": True, "phases": PHASES}
settings.register_profile("quick", max_examples=10, derandomize=True, **COMMON)
settings.register_profile("long", max_examples=370, **COMMON)
settings.load_profile("quick")

COUNTED = ("valid", "refused")


class Cases:
    """Tells how many cases the property tests tried, whichever processes ran them."""

    def __init__(self, seed):
        self.seed = seed
        self.counts = []

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.counts += [value for name, value in report.user_properties if name == "cases"]

    def pytest_terminal_summary(self, terminalreporter):
        if self.counts:
            valid, refused = (sum(count[key] for count in self.counts) for key in COUNTED)
            terminalreporter.write_line(
                f"properties: {valid + refused:,} cases of {len(self.counts)} nodes: {valid:,} valid "
                f"results, {refused:,} refused with a sentence"
                + (f"; --hypothesis-seed={self.seed}" if self.seed else "")
            )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    option = config.option
    if option.hypothesis_profile == "long" and not option.hypothesis_seed:
        option.hypothesis_seed = str(random.getrandbits(32))  # the other processes get it too
    config.pluginmanager.register(Cases(option.hypothesis_seed))


TOOLS = {"commands", "eval"}
"""Folders whose tests are of tools/."""

MARKED_FILE = re.compile(r"^pytestmark = pytest\.mark\.(long|tools)$", re.MULTILINE)


def pytest_ignore_collect(collection_path, config):
    """Do not import files that -m leaves out as a whole: their imports take seconds in each process."""
    marks = {"tools"} if collection_path.name in TOOLS else set()
    if collection_path.suffix == ".py":
        marks.update(MARKED_FILE.findall(collection_path.read_text("utf-8")))
    return any(f"not {mark}" in config.option.markexpr for mark in marks) or None


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name in TOOLS:
            item.add_marker("tools")


SHARED = re.compile(
    "(browser)/|host/test_(?:bad_input|card_server|clip|gate|modes|saved|server|source|verify|versions|viewer"
    "|whole_picture|workflows)[.]py"
)
"""Files whose tests share a browser, or servers, which take seconds to start."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        """Gives one process all files that share something."""

        def _split_scope(self, nodeid):
            shared = SHARED.match(nodeid)
            return shared[1] or "server" if shared else super()._split_scope(nodeid)

    return Scheduling(config, log)


@pytest.fixture
def small_files():
    """While it lasts, no file of this process may grow beyond so many bytes: a real error of write."""
    resource = pytest.importorskip("resource", reason="Windows has no limit on files")

    @contextmanager
    def limited(size):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture(scope="session")
def photo():
    from tests.support.images import read_photo

    return read_photo()


@pytest.fixture(scope="session")
def make_chain():
    """A chain of noise: its windows are true, its pictures show nothing."""
    import torch

    from coz.chain.zoom_chain import ZoomChain, derive_step_seed
    from coz.geometry import Target, place_first_frame, plan_steps

    def make(height=300, width=400, size=64, scale=4.0, steps=3, center=(0.9, 0.1)):
        first = place_first_frame(height, width, size, "native pixels", Target(*center))
        plan = plan_steps(size, size, scale, steps, first.target)
        generator = torch.Generator().manual_seed(0)
        shapes = [(height, width), *[(size, size)] * (steps + 1)]
        return ZoomChain(
            scale=scale,
            frames=tuple(torch.rand(1, 3, *shape, generator=generator) for shape in shapes),
            windows=(first.window, *(step.window for step in plan)),
            prompts=tuple(f"text {i}" for i in range(steps)),
            seeds=tuple(derive_step_seed(7, i + 1) for i in range(steps)),
            target=Target(*center),
        )

    return make


@pytest.fixture(scope="session")
def pack():
    """The pack's root module, loaded into this process by the host's own loader."""
    from tools.host.in_process import load_pack

    loaded = load_pack()
    gc.freeze()  # a collection need not visit a million objects of imported modules
    return loaded
