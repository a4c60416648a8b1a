import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"

# Behind everything else: in front, the pack's own nodes/ would hide the host's nodes module.
sys.path.append(str(ROOT))


@pytest.fixture(scope="session")
def make_chain():
    """A chain of noise: its windows are true, its pictures show nothing."""
    import torch

    from coz.chain import ZoomChain, step_seed
    from coz.geometry import Target, first_frame, plan_steps

    def make(height=300, width=400, size=64, scale=4.0, steps=3, center=(0.9, 0.1)):
        first = first_frame(height, width, size, "native pixels", Target(*center))
        plan = plan_steps(size, size, scale, steps, first.target)
        generator = torch.Generator().manual_seed(0)
        shapes = [(height, width), *[(size, size)] * (steps + 1)]
        return ZoomChain(
            scale=scale,
            frames=tuple(torch.rand(1, 3, *shape, generator=generator) for shape in shapes),
            windows=(first.window, *(step.window for step in plan)),
            prompts=tuple(f"text {i}" for i in range(steps)),
            seeds=tuple(step_seed(7, i + 1) for i in range(steps)),
            target=Target(*center),
        )

    return make


@pytest.fixture(scope="session")
def pack():
    """The pack's root module, loaded into this process by the host's own loader."""
    from tools.in_process import load_pack

    return load_pack()
