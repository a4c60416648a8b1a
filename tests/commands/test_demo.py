import io
import json
import os
import signal
import subprocess
import sys
import time
from math import log

import numpy as np
import psutil
import pytest
from PIL import Image, ImageOps

from coz.chain.folder import read_chain
from tools.demo import StepBars, main
from tools.host import ROOT

COMMAND = [sys.executable, "-m", "tools.demo"]
LIMIT = 300  # seconds; the machine may be busy


@pytest.fixture(scope="module")
def own_picture(tmp_path_factory):
    """A camera's picture, 1200 x 600, stored on its side, with one red spot at (0.25, 0.8)."""
    upright = Image.effect_noise((1200, 600), 50).convert("RGB")
    upright.paste("red", (290, 470, 310, 490))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    path = tmp_path_factory.mktemp("picture") / "own picture.jpg"
    upright.rotate(90, expand=True).save(path, exif=exif, quality=95)
    return path


@pytest.fixture(scope="module")
def result(own_picture, tmp_path_factory):
    """One real run, with every argument; an older, longer chain lies in the folder."""
    out = tmp_path_factory.mktemp("out") / "new" / "folder"
    out.mkdir(parents=True)
    (out / "scale_9.png").touch()
    line = [*COMMAND, own_picture, "--center", "0.25,0.8", "--steps", "2", "--out", out]
    run = subprocess.run(line, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=LIMIT)
    assert run.returncode == 0, run.stderr
    return out, run


@pytest.mark.parametrize("tool", ["demo", "evaluate"])
def test_without_torch_it_says_what_to_do(tool):
    without = f"import runpy, sys; sys.modules['torch'] = None; runpy.run_module('tools.{tool}')"
    line = [sys.executable, "-c", without]
    run = subprocess.run(line, cwd=ROOT, capture_output=True, encoding="utf-8")
    advice = f"run make host, then .venv/bin/python -m tools.{tool}"
    assert run.stderr == f"error: torch is missing: {advice}\n"
    assert run.returncode == 1


def test_without_a_terminal_it_prints_a_line_for_each_part(result):
    out, run = result
    assert run.stdout.splitlines() == [
        "Starting ComfyUI",
        "Zooming in 2 steps",
        "Making the video",
        f"Done. Open {out / 'zoom.webp'} and {out / 'strip.png'}",
        f"Your own image: {os.path.relpath(sys.executable, ROOT)} -m tools.demo IMAGE "
        "--center 0.3,0.6 --steps 3",
    ]
    assert run.stderr == ""


def test_on_a_terminal_every_step_has_its_bar(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    bars = StepBars(2)
    bars({"type": "execution_success"})
    bars.close()
    for step in ("step  1 of 2", "step  2 of 2"):
        assert f"{step} |{'#' * 40}| 100%" in terminal.getvalue()


def test_the_frames_show_the_target(result):
    out, _ = result
    for i in range(3):
        with Image.open(out / f"scale_{i}.png") as frame:
            assert frame.size == (512, 512)
    with Image.open(out / "scale_2.png") as deepest:
        red, green, blue = deepest.getpixel((256, 256))
        assert red > 200 > 60 > max(green, blue)


def test_the_record(result):
    out, _ = result
    record = json.loads((out / "chain.json").read_text("utf-8"))
    assert (record["scale"], record["steps"], record["prompts"]) == (2.5, 2, ["", ""])
    # The picture is upright; the first frame is cut out of it around the target.
    assert record["frames"] == [[1200, 600], *[[512, 512]] * 3]
    assert record["windows"][:2] == [[44, 88, 512, 512], [154, 290, 204, 204]]


def test_it_can_be_loaded_as_a_saved_chain(result, own_picture):
    out, _ = result
    chain = read_chain(out)
    with Image.open(own_picture) as file:
        upright = np.array(ImageOps.exif_transpose(file))
    assert np.array_equal(chain.frames[0][0].permute(1, 2, 0).numpy() * 255, upright)
    assert chain.steps == 2
    assert chain.models == ("coz_lite_x4.safetensors",)


def test_the_strip(result):
    out, _ = result
    gap = 8
    with Image.open(out / "strip.png") as strip, Image.open(out / "scale_1.png") as second:
        assert strip.size == (3 * 512 + 2 * gap, 512)
        assert strip.getpixel((512 + gap // 2, 256)) == (255, 255, 255)
        corner = (512 + gap, 0, 512 + gap + 50, 50)
        assert strip.crop(corner).tobytes() == second.crop((0, 0, 50, 50)).tobytes()


def test_the_film(result):
    out, _ = result
    with Image.open(out / "zoom.webp") as film:
        assert film.size == (512, 512)
        steps = 2 + log(600 / 512) / log(2.5)  # from the whole picture's square to x_0, x_1 and x_2
        assert film.n_frames == round(steps * 24)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png"], "there is no file nowhere.png"),
        (["README.md"], "README.md is not an image that can be read"),
        (["tests"], "tests is not an image that can be read"),
        (["--center", "0.5"], "argument --center: expected two fractions 0..1 such as 0.3,0.6, got '0.5'"),
        (["--center", "0.5,1.1"], "0..1 such as 0.3,0.6, got '0.5,1.1'"),
        (["--center", "a,b"], "0..1 such as 0.3,0.6, got 'a,b'"),
        (["--steps", "0"], "argument --steps: expected a whole number 1..16, got '0'"),
        (["--steps", "17"], "a whole number 1..16, got '17'"),
        (["--steps", "two"], "a whole number 1..16, got 'two'"),
        (["--out", "README.md"], "README.md"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_clear_line(arguments, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    error = error_of(arguments, monkeypatch)
    assert error.startswith("error: ")
    assert message in error
    assert "\n" not in error


def test_a_missing_host_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    error = error_of(["--out", str(tmp_path)], monkeypatch)
    assert error.startswith("error: COMFYUI_PATH is ")
    assert "\n" not in error


def error_of(arguments, monkeypatch):
    """What the command prints before it ends with status 1."""
    monkeypatch.setattr(sys, "argv", ["demo", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_leaves_no_server(tmp_path):
    with subprocess.Popen(
        [*COMMAND, "--out", tmp_path],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell lets what it runs in the background ignore Ctrl-C, these tests among it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as run:
        deadline = time.monotonic() + LIMIT
        while not (started := servers_of(run.pid)):
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=LIMIT)
    assert run.returncode == 1
    assert errors == b"stopped\n"
    gone, alive = psutil.wait_procs(started, timeout=10)
    assert gone
    assert not alive


def servers_of(pid):
    """ComfyUI's process and its watcher, once both are there."""
    children = psutil.Process(pid).children(recursive=True)
    return children if len(children) >= 2 else []
