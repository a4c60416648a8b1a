"""The command: what it refuses, and what it says of a disk or a host that fails."""

import os
import re
import signal
import sys
import threading
import time

import psutil
import pytest

from tools.evaluate.__main__ import main
from tools.evaluate.run import run_here

from .jobs import job, noise


def error_of(arguments, monkeypatch):
    """What the command prints before it ends with status 1."""
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert "\n" not in stopped.value.code
    return stopped.value.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: the following arguments are required: --out"),
        (["--out", "OUT"], "error: give the folder with the images, or --report-only"),
        (["nowhere", "--out", "OUT"], "error: there is no folder nowhere"),
        (["EMPTY", "--out", "OUT"], "error: there is no image in "),
        (["IN", "--out", "IN/a.png"], "a.png"),
        (["IN", "--out", "IN"], "error: --out must differ from the folder of the images, "),
        (["IN", "--workers", "2"], "error: --workers needs --ray"),
        (["IN", "--ground-truth", "no"], "argument --ground-truth: there is no folder no"),
        (["IN", "--arms", "nearest,bicubic,nearest"], "error: two arms are named nearest"),
        (["IN", "--arms", "best"], "error: there is no arm 'best'. Known: nearest, bicubic, "),
        (["IN", "--arms", ","], "error: --arms names no arm. Known: nearest, "),
        (["IN", "--arms", "onestep=x.json"], "error: 'onestep' cannot be the name of your arm"),
        (["IN", "--arms", "a/b=x.json"], "error: 'a/b' cannot be the name of your arm"),
        (["IN", "--arms", "mine=no.json"], "error: the workflow no.json cannot be read: No such"),
        (["IN", "--arms", "chain-vlm"], "chain-vlm needs a workflow whose Chain Loop has a vision"),
        (["IN", "--arms", "chain-vlm"], "--workflow 'workflows/3 Chain-of-Zoom SD3 + VLM.json'"),
        (["IN", "--metrics", "psnr,beauty"], "there is no metric 'beauty'. Known: psnr, ssim, "),
        (["IN", "--steps", "5"], "argument --steps: expected a whole number 1..4, got '5'"),
        (["IN", "--seed", "-1"], "argument --seed: expected a whole number 0.."),
        (["IN", "--scale-down", "3"], "argument --scale-down: invalid choice: 3"),
        (["IN", "--scale-down", "4", "--ground-truth", "IN"], "not allowed with argument"),
        (["--report-only"], "error: there are no results to report"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(arguments, message, folder, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    names = {"IN": folder, "EMPTY": tmp_path / "empty", "OUT": tmp_path / "out"}
    names["IN/a.png"] = folder / "a.png"
    monkeypatch.chdir(tmp_path)
    arguments = [names.get(argument, argument) for argument in arguments]
    if arguments and "--out" not in arguments:
        arguments += ["--out", tmp_path / "out"]
    assert message in error_of(arguments, monkeypatch)


def test_a_missing_host_is_one_clear_line(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    line = error_of([folder, "--metrics", "psnr", "--out", tmp_path / "out"], monkeypatch)
    assert line.startswith("error: COMFYUI_PATH is ")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_text(folder, tmp_path, monkeypatch, capsys):
    for name in (b"\xff.txt", b"\xff.png"):
        (folder / "a.png").rename(folder / os.fsdecode(name))
        (folder / "a.png").touch()
    line = error_of([folder, "--metrics", "psnr", "--out", tmp_path / "out"], monkeypatch)
    assert line == "error: none of the 2 images can be used"
    told = capsys.readouterr()
    assert "left out 1 files that are no images: \\udcff.txt" in told.out
    assert "failed: \\udcff.png: its name is not valid Unicode: rename it" in told.err


def test_pictures_that_cannot_be_used_are_listed(folder, tmp_path, monkeypatch, capsys):
    (folder / "a.png").unlink()
    noise(63, 200).save(folder / "small.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (folder / "sub" / "text.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("left out")
    line = error_of([folder, "--metrics", "psnr", "--out", tmp_path / "out"], monkeypatch)
    assert line == "error: none of the 3 images can be used"
    told = capsys.readouterr()
    assert "left out 1 files that are no images: notes.txt" in told.out
    assert "failed: small.png: it is 63 x 200: at least 64 pixels a side are needed" in told.err
    assert "failed: broken.png: " in told.err
    assert "failed: sub/text.jpg: " in told.err
    assert "is not an image that can be read" in told.err


def test_a_full_disk_is_one_clear_line(folder, small_files, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with small_files(100_000):
        told = error_of([folder, "--metrics", "psnr", "--out", out], monkeypatch)
    assert told == (
        f"error: the disk of {out} is full. Free some space and run it again: finished results are kept"
    )
    assert not [path for path in out.rglob("*") if path.is_file()]


HOST = """
import http.server, json, os, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        system = {"comfyui_version": "0", "pytorch_version": "0", "python_version": "3 0"}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"system": system, "devices": []}).encode())

    def do_POST(self):
        print("a fault in the card", flush=True)
        ANSWER

with open("pid", "w") as file:
    file.write(str(os.getpid()))
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def fake_host(folder, answer):
    """A ComfyUI that does this when it is given a picture."""
    folder.mkdir()
    (folder / "main.py").write_text(HOST.replace("ANSWER", answer), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("os._exit(1)", "a fault in the card"),
        ("self.connection.shutdown(2)", "ComfyUI ended during ARM of a.png: .*aborted"),
    ],
    ids=["ends", "hangs up"],
)
def test_a_host_that_fails_twice_is_the_job_s_error_and_the_others_go_on(
    answer, reason, tmp_path, monkeypatch
):
    monkeypatch.setenv("COMFYUI_PATH", str(fake_host(tmp_path / "host", answer)))
    arms = ("nearest", "bicubic")
    for made, arm in zip(run_here([job(arm) for arm in arms]), arms, strict=True):
        told = f"ComfyUI ended while it ran this, 2 times: {reason.replace('ARM', arm)}"
        assert made.arm == arm
        assert re.match(told, made.error)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_ctrl_c_is_one_clear_line(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(fake_host(tmp_path / "host", "time.sleep(600)")))
    asked = tmp_path / "out" / "asked.json"

    def interrupt():
        while not asked.exists():
            time.sleep(0.05)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    # A shell lets what it runs in the background ignore Ctrl-C, these tests among it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread.start()
    try:
        told = error_of([folder, "--arms", "nearest", "--out", tmp_path / "out"], monkeypatch)
    finally:
        signal.signal(signal.SIGINT, before)
    assert told == "stopped: run the same command again to continue"
    assert not psutil.pid_exists(int((tmp_path / "host" / "pid").read_text()))
