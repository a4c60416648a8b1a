import os
import re
import subprocess
import sys

import pytest
import torch
from PIL import Image

from coz.chain.zoom_chain import derive_step_seed
from coz.geometry import Target, Window, plan_zoom
from coz.resample import resize
from coz.zoom import View, zoom
from tests.support.images import noise
from tools.host import ROOT


def enlarge(view: View, text: str) -> torch.Tensor:
    return resize(view.crop, *view.zoomed.shape[-2:], "nearest")


def test_the_chain_is_what_the_callables_made():
    image = noise(1, 3, 70, 90)
    before = image.clone()
    plan = plan_zoom(70, 90, steps=3, target=Target(0.9, 0.2), size=64, seed=7)
    seen = []

    def super_resolve(view, text):
        seen.append((view, text))
        return enlarge(view, text)

    def describe(frame, zoomed):
        return f"{frame.mean():.4f} {zoomed.mean():.4f}"

    def align(sr, view):
        return sr * 0.5 + view.zoomed * 0.5

    chain = zoom(image, plan, super_resolve, describe, align)
    assert torch.equal(image, before)
    assert chain.steps == 3
    assert (chain.scale, chain.target) == (4.0, (0.9, 0.2))
    assert chain.windows == (plan.first.window, *(step.window for step in plan.steps))
    assert chain.seeds == tuple(derive_step_seed(7, i) for i in (1, 2, 3))
    assert torch.equal(chain.frames[0], image)
    x, y, *_ = map(int, plan.first.window)
    assert torch.equal(chain.frames[1], image[..., y : y + 64, x : x + 64])
    for i, (view, text) in enumerate(seen, 1):
        frame = chain.frames[i]
        x, y, width, height = map(int, chain.windows[i])
        assert torch.equal(view.frame, frame)
        assert torch.equal(view.crop, frame[..., y : y + height, x : x + width])
        assert torch.equal(view.zoomed, resize(view.crop, 64, 64).clamp(0, 1))
        assert (view.window, view.seed) == (chain.windows[i], chain.seeds[i - 1])
        assert text == chain.prompts[i - 1] == describe(frame, view.zoomed)
        assert torch.equal(chain.frames[i + 1], align(enlarge(view, text), view))


def test_without_describe_and_align_a_step_is_the_model_clamped():
    chain = zoom(
        noise(1, 3, 64, 64), plan_zoom(64, 64, 2, size=64), lambda view, _: 3 * view.zoomed - 1
    )
    assert chain.prompts == ("", "")
    zoomed = resize(chain.frames[1][..., 24:40, 24:40], 64, 64).clamp(0, 1)
    assert torch.equal(chain.frames[2], (3 * zoomed - 1).clamp(0, 1))


@pytest.mark.parametrize(("answers", "steps"), [([None, None, None], 3), ([True, False], 2)])
def test_on_step_may_end_the_chain(answers, steps):
    lengths = []

    def on_step(chain):
        lengths.append(chain.steps)
        return answers[chain.steps - 1]

    chain = zoom(noise(1, 3, 64, 64), plan_zoom(64, 64, 3, size=64), enlarge, on_step=on_step)
    assert chain.steps == steps
    assert lengths == [*range(1, steps + 1)]


def test_no_step_gives_the_first_frame():
    chain = zoom(noise(1, 3, 70, 90), plan_zoom(70, 90, steps=0, size=64), enlarge)
    assert (chain.steps, len(chain.frames)) == (0, 2)


@pytest.mark.parametrize(
    ("frame", "window", "sides"),
    [
        ("native pixels", Window(13, 3, 64, 64), (64, 64)),
        ("whole picture square", Window(10, 0, 70, 70), (64, 64)),
        ("whole picture", Window(0, 0, 90, 70), (64, 82)),
    ],
)
def test_every_first_frame(frame, window, sides):
    image = noise(1, 3, 70, 90)
    chain = zoom(image, plan_zoom(70, 90, 0, frame=frame, size=64), enlarge)
    assert chain.frames[1].shape[-2:] == sides
    assert chain.windows[0] == pytest.approx(window, abs=1)
    expected = resize(image, *sides, "lanczos", chain.windows[0]).clamp(0, 1)
    assert (chain.frames[1] - expected).abs().max() < 1e-6  # the filter's own rounding


def test_the_lines_of_the_readme_run(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    for name in ("models", "pictures"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    with Image.open(tmp_path / "16x.png") as picture:
        assert picture.size == (512, 512)
