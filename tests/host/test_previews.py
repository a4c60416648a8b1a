"""What a run shows before it has a result: an app of the frontend has nothing else to show."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from coz.render.pillow import from_pillow
from coz.resample import resize

from .prompts import as_full_image, chain_prompt, kept_prompt, make_node


@pytest.fixture
def previews(pack, monkeypatch):
    """(id of the node that the page shows it on, frame) of each preview."""
    from comfy_execution.progress import get_progress_state
    from comfy_execution.utils import get_executing_context

    seen = []

    def hook(value, total, preview, node_id=None):
        if preview:
            prompt, running = get_progress_state().dynprompt, get_executing_context().node_id
            seen.append((prompt.get_display_node_id(running), from_pillow(preview[1])))

    monkeypatch.setattr("comfy.utils.PROGRESS_BAR_HOOK", hook)
    return seen


def error(frame, expected):
    return float((frame - expected.clamp(0, 1)).abs().max())


def test_each_step_shows_the_frame_that_it_enlarges(executor, keep, previews):
    executor("CLASSIC").run(kept_prompt(steps=2))
    shown_on, frames = zip(*previews, strict=True)
    # Not on the loop itself, which shows its finished frames: an app would no longer take them.
    assert shown_on == ("loop.steps",) * 2
    for frame, expected in zip(frames, keep[-1]["scales"].movedim(-1, 1)[:2], strict=True):
        assert error(frame, expected[None]) < 1 / 255


def test_tiles_appear_in_the_picture(executor, keep, previews, node, nodes_of, monkeypatch):
    monkeypatch.setattr(nodes_of("full_image.preview"), "MIN_PREVIEW_SECONDS", -1.0)
    prompt = as_full_image(chain_prompt(), tile=1024)
    prompt["scales"] = make_node("TestKeep", image=["loop", 0], prompts=["loop", 1])
    executor("CLASSIC").run(prompt)
    shown_on, frames = zip(*previews, strict=True)
    assert shown_on == ("loop",) * 5
    assert {frame.shape for frame in frames} == {(1, 3, 768, 768)}
    source = node("CoZSamplePicture").execute("astronaut.png")[0].movedim(-1, 1)
    assert error(frames[0], resize(source, 768, 768)) < 1 / 255
    # A quarter after the other becomes that of the result.
    small = resize(keep[-1]["image"].movedim(-1, 1), 768, 768).clamp(0, 1)
    changed = [
        [part.abs().max() > 0 for part in quarters(after - before)]
        for before, after in pairwise(frames)
    ]
    assert np.array_equal(changed, np.eye(4))
    inner = [part[..., 8:-8, 8:-8] for part in quarters(frames[-1] - small)]
    assert max(float(part.abs().max()) for part in inner) < 2 / 255


def quarters(frame: torch.Tensor) -> list[torch.Tensor]:
    half = frame.shape[-1] // 2
    sides = slice(0, half), slice(half, None)
    return [frame[..., rows, columns] for rows in sides for columns in sides]
