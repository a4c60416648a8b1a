"""The evaluation without its host: what is refused, what the arms are given and run."""

import io
import json
import os
import re
import signal
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from coz.resample import resize
from tools.eval_arms import Arm, ArmError, read_arms, read_workflow
from tools.eval_inputs import Protocol, find_pictures, make_inputs
from tools.eval_job import FRAMES, PICTURE, Job, Row, failed, measured, view_of
from tools.eval_prompts import prompts_of
from tools.eval_run import run_here
from tools.eval_store import (
    frame_path,
    read_result,
    read_results,
    result_folder,
    write_result,
    write_settings,
)
from tools.evaluate import main
from tools.host import ROOT
from tools.picture import PictureError, open_picture, to_frame, to_png
from tools.workflow import find_node, read_prompt

WORKFLOWS = ROOT / "workflows"
SD3 = WORKFLOWS / "2 Chain-of-Zoom SD3.json"
SD3_VLM = WORKFLOWS / "3 Chain-of-Zoom SD3 + VLM.json"
OWN = WORKFLOWS / "6 Your own checkpoint.json"


def noise(width, height, mode="RGB", seed=0):
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[..., 0])


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    (place / "sub").mkdir(parents=True)
    noise(700, 600).save(place / "a.png")
    return place


def error_of(arguments, monkeypatch):
    """What the command prints before it ends with status 1."""
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert "\n" not in stopped.value.code
    return stopped.value.code


def opened(file):
    return np.asarray(Image.open(io.BytesIO(file)))


# The command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: the following arguments are required: --out"),
        (["--out", "OUT"], "error: give the folder with the pictures, or --report-only"),
        (["nowhere", "--out", "OUT"], "error: there is no folder nowhere"),
        (["EMPTY", "--out", "OUT"], "error: there is no picture in "),
        (["IN", "--out", "IN/a.png"], "a.png"),
        (["IN", "--out", "IN"], "error: --out needs another folder than that of the pictures, "),
        (["IN", "--workers", "2"], "error: --workers needs --ray"),
        (["IN", "--ground-truth", "no"], "argument --ground-truth: there is no folder no"),
        (["IN", "--arms", "nearest,bicubic,nearest"], "error: two arms are named nearest"),
        (["IN", "--arms", "best"], "error: there is no arm 'best'. Known: nearest, bicubic, "),
        (["IN", "--arms", ","], "error: no arm is named. Known: nearest, "),
        (["IN", "--arms", "onestep=x.json"], "error: 'onestep' cannot name an arm of your own"),
        (["IN", "--arms", "a/b=x.json"], "error: 'a/b' cannot name an arm of your own"),
        (["IN", "--arms", "mine=no.json"], "error: the workflow no.json cannot be read: No such"),
        (["IN", "--arms", "chain-vlm"], "chain-vlm needs a workflow whose Chain Loop has a vision"),
        (["IN", "--arms", "chain-vlm"], "--workflow 'workflows/3 Chain-of-Zoom SD3 + VLM.json'"),
        (["IN", "--metrics", "psnr,beauty"], "there is no metric 'beauty'. Known: psnr, ssim, "),
        (["IN", "--steps", "5"], "argument --steps: a whole number 1..4, not '5'"),
        (["IN", "--seed", "-1"], "argument --seed: a whole number 0.."),
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
    assert line == "error: none of the pictures can be used (2)"
    told = capsys.readouterr()
    assert "no pictures, left out: 1: \\udcff.txt" in told.out
    assert "failed: \\udcff.png: its name is not valid Unicode: rename it" in told.err


def test_pictures_that_cannot_be_used_are_listed(folder, tmp_path, monkeypatch, capsys):
    (folder / "a.png").unlink()
    noise(63, 200).save(folder / "small.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (folder / "sub" / "text.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("left out")
    line = error_of([folder, "--metrics", "psnr", "--out", tmp_path / "out"], monkeypatch)
    assert line == "error: none of the pictures can be used (3)"
    told = capsys.readouterr()
    assert "no pictures, left out: 1: notes.txt" in told.out
    assert "failed: small.png: it is 63 x 200: 64 pixels a side are the least" in told.err
    assert "failed: broken.png: " in told.err
    assert "failed: sub/text.jpg: " in told.err
    assert "is not a picture that can be read" in told.err


# What the arms are given


def test_folders_below_are_searched_hidden_files_and_the_result_are_not(folder):
    out = folder / "out"
    for name in ("sub/a.png", "sub/A.JPG", ".hidden.png", ".folder/x.png", "out/x.png", "b.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert find_pictures(folder, out) == (["a.png", "sub/A.JPG", "sub/a.png"], ["b.txt"])
    assert find_pictures(folder / "a.png", out) == (["a.png"], [])


def test_x_0_is_the_square_in_the_middle_resized_as_pillow_does(folder):
    soft = noise(700, 600).point(lambda value: 64 + value / 2)  # Pillow clips between its passes
    soft.save(folder / "a.png")
    x_0, truth = make_inputs(folder, "a.png", Protocol(4))
    assert truth is None
    picture = opened(x_0)
    assert picture.shape == (512, 512, 3)
    # The reference: the short side becomes 512, then the middle is cut out.
    whole = soft.resize((700 * 512 // 600, 512), Image.LANCZOS)
    other = np.asarray(whole)[:, (whole.width - 512) // 2 :][:, :512].astype(int)
    assert np.abs(picture - other).max() <= 1  # and rounds there


def test_a_picture_on_its_side_is_turned(folder):
    upright = noise(100, 80)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(folder / "turned.png", exif=exif)
    upright.save(folder / "upright.png")
    turned, plain = (make_inputs(folder, f"{n}.png", Protocol(4)) for n in ("turned", "upright"))
    assert turned == plain


def test_deep_and_transparent_pictures(folder):
    grey = noise(80, 80, "L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    deep.save(folder / "deep.png")
    grey.save(folder / "grey.png")
    rgba = noise(80, 80, "RGBA")
    rgba.save(folder / "alpha.png")
    rgba.convert("RGB").save(folder / "rgb.png")
    made = {
        n: make_inputs(folder, f"{n}.png", Protocol(4)) for n in ("deep", "grey", "alpha", "rgb")
    }
    assert made["deep"] == made["grey"]
    assert made["alpha"] == made["rgb"]


@pytest.mark.parametrize("kind", ["AVIF", "DDS"])
def test_a_damaged_file_is_no_picture_or_another_one(kind, tmp_path):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip("this Pillow has no such kind")
    whole = io.BytesIO()
    noise(24, 20).save(whole, kind)
    chance = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = np.frombuffer(whole.getvalue(), np.uint8).copy()
        damaged[chance.integers(0, min(len(damaged), 300), 3)] = chance.integers(0, 256, 3)
        (tmp_path / "damaged").write_bytes(damaged.tobytes())
        try:
            assert open_picture(tmp_path / "damaged").mode == "RGB"
        except PictureError:
            refused += 1
    assert refused


def test_scaled_down_the_picture_is_its_own_ground_truth(folder):
    x_0, truth = make_inputs(folder, "a.png", Protocol(1, scale_down=4))
    # 600 / 4 = 150 pixels, and whole multiples of 16.
    assert opened(x_0).shape == (144, 144, 3)
    own = np.asarray(Image.open(folder / "a.png"))[12:588, 60:636]
    assert np.abs(opened(truth).astype(int)[:, 2:-2] - own[:, :-4]).min() == 0
    assert opened(truth).shape == (576, 576, 3)
    small = resize(to_frame(Image.fromarray(opened(truth))), 144, 144)
    assert (to_frame(Image.fromarray(opened(x_0))) - small.clamp(0, 1)).abs().max() < 0.51 / 255


def test_a_ground_truth_is_cut_like_its_picture(folder, tmp_path):
    truths = tmp_path / "truths"
    (truths / "sub").mkdir(parents=True)
    full = noise(4 * 130, 4 * 90)
    full.save(truths / "sub" / "b.tif")
    full.reduce(4).save(folder / "sub" / "b.png")
    x_0, truth = make_inputs(folder, "sub/b.png", Protocol(1, ground_truth=truths))
    small, large = opened(x_0), opened(truth)
    assert (small.shape, large.shape) == ((80, 80, 3), (320, 320, 3))
    assert np.array_equal(small, np.asarray(Image.fromarray(large).reduce(4)))
    assert np.array_equal(small, np.asarray(full.reduce(4))[5:85, 25:105])


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("a.png", (2800, 2399), "its ground truth is 2800 x 2399 and the picture 700 x 600"),
        ("a.png", (2400, 2400), "it must be 4, 5, 6, ... times as large both ways"),
        ("a.png", (1400, 1200), "such as 2800 x 2400"),
        ("b.png", (2800, 2400), r"there is no ground truth a.png in .*, nor one of its stem"),
    ],
)
def test_a_ground_truth_that_does_not_fit(name, size, message, folder, tmp_path):
    truths = tmp_path / "truths"
    truths.mkdir()
    Image.new("RGB", size).save(truths / name)
    with pytest.raises(PictureError, match=message):
        make_inputs(folder, "a.png", Protocol(1, ground_truth=truths))


def test_a_picture_too_small_for_its_steps_is_told_its_least_size(folder):
    with pytest.raises(PictureError, match="--scale-down 16 with 3 steps needs 2048 pixels a side"):
        make_inputs(folder, "a.png", Protocol(3, scale_down=16))


def test_the_view_of_a_ground_truth():
    truth = torch.rand(1, 3, 64, 64)
    view = view_of(truth, 4, 16)
    assert torch.equal(view, truth[..., 24:40, 24:40])
    assert view_of(truth, 16, 16) is None


def test_a_missing_metric_says_at_which_scales():
    work = job(ground_truth=to_png(noise(256, 256)), metrics=("psnr", "ms_ssim", "sharpness"))
    made = measured(work, replace(failed(work, None), frames=(work.picture,) * 2), ("", ""))
    assert [sorted(row.scores) for row in made.rows] == [["psnr", "sharpness"], ["sharpness"]]
    no_truth = "needs a ground truth, this frame has none"
    assert made.missing == {
        "psnr": f"at 16x: PSNR (dB) {no_truth}",
        "ms_ssim": f"at 4x: MS-SSIM needs 161 px, the frame has 64; at 16x: MS-SSIM {no_truth}",
    }
    without = measured(replace(work, ground_truth=None), replace(made, frames=(work.picture,) * 2),
        ("", ""))  # fmt: skip
    assert without.missing["psnr"] == f"PSNR (dB) {no_truth}"


# What the arms run


def job(arm="nearest", image="a.png", **changes):
    fields = {
        "image": image,
        "arm": arm,
        "picture": to_png(noise(64, 64)),
        "ground_truth": None,
        "prompts": prompts_of(*read_arms(arm, SD3_VLM), 64, 2, 0),
        "steps": 2,
        "scale": 4.0,
        "seed": 0,
        "metrics": ("psnr",),
        "key": "k" * 64,
        "made": "m",
    }
    return Job(**fields | changes)


def classes(prompt):
    return sorted(node["class_type"] for node in prompt.values())


def test_chain_arms_run_the_loop_by_the_protocol():
    for arm in read_arms("chain-null,chain-vlm", SD3_VLM):
        (prompt,) = prompts_of(arm, 512, 4, 7)
        inputs = prompt[find_node(prompt, "CoZChainLoop")]["inputs"]
        assert {key: inputs[key] for key in ("steps", "scale", "frame", "size", "seed")} == {
            "steps": 4,
            "scale": 4.0,
            "frame": "whole picture square",
            "size": 512,
            "seed": 7,
        }
        assert (inputs["center_x"], inputs["center_y"], inputs["prompt"]) == (0.5, 0.5, "")
        assert prompt[inputs["image"][0]]["inputs"]["image"] == PICTURE
        common = ["CheckpointLoaderSimple", "CoZChainLoop", "CoZLoadSRLoRA", "LoadImage",
            "SaveImageAdvanced"]  # fmt: skip
        if arm.name == "chain-null":
            assert inputs["prompting"] == "text"
            assert not [key for key in inputs if key.startswith("prompting.")]
            assert classes(prompt) == common
        else:
            assert inputs["prompting"] == "vision-language model"
            assert inputs["prompting.vlm"] == ["5", 0]
            assert classes(prompt) == ["CLIPLoader", *common]


def test_an_arm_of_your_own_keeps_its_texts():
    shared, own = read_arms(f"chain-null,mine={OWN}", OWN)
    null, mine = (prompts_of(arm, 512, 4, 0)[0] for arm in (shared, own))
    texts = [p[find_node(p, "CoZChainLoop")]["inputs"]["prompt"] for p in (null, mine)]
    assert texts == ["", "macro photograph of a cup of coffee, foam, bubbles, sharp focus"]


@pytest.mark.parametrize(
    ("workflow", "step", "encoders"),
    [
        (None, "CoZUpscaleStep", []),
        (SD3, "CoZSRStep", ["CoZEncodePrompt"]),
        (OWN, "CoZRefineStep", ["CLIPTextEncode", "CLIPTextEncode"]),
    ],
)
def test_one_step_runs_the_nodes_of_the_loop(workflow, step, encoders):
    (arm,) = read_arms("onestep", workflow)
    (prompt,) = prompts_of(arm, 512, 4, 0)
    used = classes(prompt)
    assert used.count(step) == used.count("CoZCropCenterZoom") == used.count("CoZColorFix") == 4
    assert [name for name in used if "Encode" in name] == encoders
    assert "CoZChainLoop" not in used
    assert len([name for name in prompt if name.startswith(FRAMES)]) == 4


@pytest.mark.parametrize("inputs", [{}, {"backbone": "upscale model"}])
def test_one_step_of_a_loop_without_its_inputs(inputs):
    workflow = {"1": {"class_type": "CoZChainLoop", "inputs": inputs}}
    with pytest.raises(ArmError, match=r"the workflow's Chain Loop has no '.*': save it anew"):
        prompts_of(Arm("onestep", workflow), 512, 4, 0)


def test_a_workflow_in_the_api_format_is_the_same(tmp_path):
    path = tmp_path / "api.json"
    path.write_text(json.dumps(read_prompt(SD3_VLM)), "utf-8")
    assert read_workflow(path) == read_workflow(SD3_VLM)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "w.json is not a workflow of ComfyUI"),
        ("no json", "w.json is not a workflow of ComfyUI"),
        ('{"a": 1}', "w.json is not a workflow of ComfyUI"),
        ('{"1": {"class_type": "LoadImage", "inputs": {}}}', "has no Chain Loop outside its sub"),
        ('{"nodes": [], "links": []}', "has no Chain Loop outside its subgraphs"),
        (
            json.dumps({key: {"class_type": "CoZChainLoop", "inputs": {}} for key in "ab"}),
            "has 2 Chain Loops: keep the one to evaluate",
        ),
    ],
)
def test_a_workflow_that_cannot_be_used(content, message, tmp_path):
    (tmp_path / "w.json").write_text(content, "utf-8")
    with pytest.raises(ArmError, match=message):
        read_workflow(tmp_path / "w.json")


# The store


def result(**changes):
    rows = tuple(
        Row("a.png", "nearest", f, "", 0, {"psnr": v})
        for f, v in ((4.0, 20.5), (16.0, float("inf")))
    )
    made = replace(failed(job(), None), rows=rows, frames=(b"one", b"two"), seconds=1.5)
    return replace(made, **changes)


def test_a_result_comes_back_from_the_store(tmp_path):
    write_result(tmp_path, result())
    assert read_results(tmp_path) == [result(frames=())]
    assert [frame_path(tmp_path, result(), k).read_bytes() for k in (1, 2)] == [b"one", b"two"]
    text = (result_folder(tmp_path, "nearest", "a.png") / "result.json").read_text("utf-8")
    assert '"psnr": "inf"' in text


def test_pictures_of_one_stem_do_not_collide(tmp_path):
    names = ["a.png", "a.jpg", "sub/a.png", "Sub/a.png", "x:y?/ä b.png"]
    folders = {str(result_folder(tmp_path, "nearest", name)).lower() for name in names}
    assert len(folders) == len(names)


def test_only_what_was_asked_for_last_is_read(tmp_path):
    for key, image in (("k1", "a.png"), ("k2", "b.png")):
        write_result(tmp_path, result(key=key, image=image))
    write_settings(tmp_path, {}, ["k2"])
    assert [found.image for found in read_results(tmp_path)] == ["b.png"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rows": [1]}', '{"rows": []}'])
def test_a_damaged_record_is_no_result(content, tmp_path):
    write_result(tmp_path, result())
    (result_folder(tmp_path, "nearest", "a.png") / "result.json").write_text(content)
    assert read_result(tmp_path, job()) is None
    assert read_results(tmp_path) == []


@pytest.fixture
def small_files():
    """No file can grow beyond 100 kB: what a full disk looks like to the one who writes."""
    resource = pytest.importorskip("resource", reason="Windows has no limit on files")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_no_half_result(small_files, tmp_path):
    write_result(tmp_path, result())
    with pytest.raises(OSError, match="too large"):
        write_result(tmp_path, result(frames=(b"x" * 1000, b"x" * 300_000), key="new"))
    place = result_folder(tmp_path, "nearest", "a.png")
    assert [path.name for path in place.iterdir()] == ["x_1.png"]
    assert read_results(tmp_path) == []


def test_a_full_disk_is_one_clear_line(folder, small_files, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert error_of([folder, "--metrics", "psnr", "--out", out], monkeypatch) == (
        f"error: the disk of {out} is full. Make room and run it again: what is done stays"
    )
    assert not [path for path in out.rglob("*") if path.is_file()]


# A host that fails

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
    for made, arm in zip(
        run_here([job(), job(arm="bicubic")]), ("nearest", "bicubic"), strict=True
    ):
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
    assert told == "stopped; the same command goes on from here"
    assert not psutil.pid_exists(int((tmp_path / "host" / "pid").read_text()))
