"""The evaluation through the real server: what the arms make, and a whole command cut short."""

import contextlib
import io
import json
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import skimage.data
import torch
from PIL import Image

from coz.geometry import Target, place_window
from coz.networks.ram_tagger import read_tag_list
from coz.resample import crop, resize
from tools.evaluate import __main__ as evaluate
from tools.evaluate import run
from tools.evaluate.arms import read_arms
from tools.evaluate.job import Job, decode_own_png, run_job
from tools.evaluate.prompts import make_prompts
from tools.evaluate.store import frame_path, read_results
from tools.host import ROOT, host_path, read_comfyui_version
from tools.host.server import serve
from tools.image_file import to_png

pytestmark = pytest.mark.tools

AR_2 = ROOT / "workflows" / "4 Chain-of-Zoom as in the paper (AR-2).json"
OWN = ROOT / "workflows" / "5 Your own checkpoint.json"
ARMS = ("nearest", "bicubic", "onestep", "chain-null")
LIMIT = 300  # seconds; the machine may be busy

SHORT = 256  # pixels of a picture's short side: the test is of the command, not of the models
SHIPPED = Path(skimage.data.__file__).parent
PICTURES = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "ihc.png")
PICTURES += ("motorcycle_left.png", "retina.jpg", "rocket.jpg")


def job(arm, side, steps, workflow=None):
    (chosen,) = read_arms(arm, workflow)
    picture = Image.open(ROOT / "pictures" / "astronaut.png").crop((100, 0, 356, 256))
    what = {"picture": to_png(picture.resize((side, side))), "ground_truth": None}
    what |= {"prompts": make_prompts(chosen, side, steps, 0), "steps": steps}
    what |= {"scale": 4.0, "seed": 0}
    key, metrics = f"{arm} {side} {steps} {workflow}", ("consistency", "source_psnr", "color_drift")
    return Job("astronaut.png", arm, **what, metrics=metrics, key=key)


def frames(result):
    assert result.error is None
    return [decode_own_png(file) for file in result.frames]


@pytest.mark.parametrize("resampling", ["nearest", "bicubic"])
def test_baselines_resize_the_window_at_once(server, resampling):
    work = job(resampling, 512, 4)
    x_0 = decode_own_png(work.picture)
    for k, frame in enumerate(frames(run_job(server, work)), 1):
        window = crop(x_0, place_window(512, 512, 4.0**k, Target(0.5, 0.5)))
        assert window.shape[-1] == 512 // 4**k
        expected = resize(window, 512, 512, resampling).clamp(0, 1)
        assert (frame - expected).abs().max() < 1.01 / 65535


@pytest.mark.parametrize("workflow", [None, AR_2, OWN], ids=["upscale", "one-step", "any"])
def test_at_4x_one_step_is_the_chain(server, workflow):
    one = run_job(server, job("onestep", 128, 1, workflow))
    chain = run_job(server, job("chain-null", 128, 1, workflow))
    assert torch.equal(*frames(one), *frames(chain))
    assert set(one.models) >= set(chain.models)
    assert [row.scores for row in one.rows] == [row.scores for row in chain.rows]


def test_a_vision_language_model_writes_the_prompts_of_its_arm_alone(server):
    null, vlm = (run_job(server, job(arm, 64, 2, AR_2)) for arm in ("chain-null", "chain-vlm"))
    assert [row.prompt for row in null.rows] == ["", ""]
    assert all(row.prompt for row in vlm.rows)
    assert [row.factor for row in vlm.rows] == [4.0, 16.0]
    assert "model_20001.pkl" in vlm.models
    assert not [name for name in null.models if "Qwen" in name]
    assert [name for name in vlm.models if "Qwen" in name]
    assert not torch.equal(frames(null)[1], frames(vlm)[1])


def test_the_paper_s_three_kinds_of_prompt_stand_in_one_table(models, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "serve", lambda: serve(arguments=models))
    picture, out = tmp_path / "astronaut.png", tmp_path / "out"
    picture.write_bytes(job("nearest", 1024, 1).picture)
    arms = ("chain-null", "chain-vlm", "chain-tags")
    arguments = [picture, "--arms", ",".join(arms), "--workflow", AR_2, "--scale-down", "16"]
    code, printed = command([*arguments, "--metrics", "consistency,sharpness", "--out", out])
    assert code is None, printed
    results = {result.arm: result for result in read_results(out)}
    assert all(result.error is None for result in results.values())
    prompts = {arm: [row.prompt for row in results[arm].rows] for arm in arms}
    assert prompts["chain-null"] == ["", ""]
    assert all(prompts["chain-vlm"])
    names, _ = read_tag_list()
    for text in prompts["chain-tags"]:
        assert set(text.split(", ")) < set(names)
    assert {"ram_swin_large_14m.pth", "DAPE.pth"} <= {*results["chain-tags"].models}
    table = (out / "table.md").read_text("utf-8")
    for scale in (4, 16):
        for arm in arms:
            assert f"| {scale}× | {arm} |" in table


def test_an_arm_that_fails_says_why_in_the_server_s_words(server):
    missing = ROOT / "workflows" / "2 Chain-of-Zoom SD3.json"
    (arm,) = read_arms("chain-null", missing)
    (prompt,) = make_prompts(arm, 64, 1, 0)
    for node in prompt.values():
        if "lora_name" in node["inputs"]:
            node["inputs"]["lora_name"] = "absent.pkl"
    work = job("chain-null", 64, 1, missing)
    result = run_job(server, replace(work, prompts=(prompt,)))
    assert "absent.pkl is not in models/loras. Put the file there and press R" in result.error
    assert "\n" not in result.error
    assert (result.rows, result.frames) == ((), ())
    unknown = {"x": {"class_type": "No", "inputs": {}}}
    assert "No" in run_job(server, replace(work, prompts=(prompt | unknown,))).error


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Eight public-domain pictures and two bad ones, killed in the middle and run again."""
    place = tmp_path_factory.mktemp("evaluation")
    pictures, out = place / "pictures", place / "out"
    (pictures / "more").mkdir(parents=True)
    for name in PICTURES:
        with Image.open(SHIPPED / name) as picture:
            size = [side * SHORT // min(picture.size) for side in picture.size]
            picture.convert("RGB").resize(size).save(pictures / name)
    (pictures / "more" / "broken.png").write_text("no picture")
    Image.new("RGB", (63, 100)).save(pictures / "tiny.png")
    arguments = [pictures, "--scale-down", "4", "--arms", ",".join(ARMS), "--out", out]
    arguments = [*map(str, arguments), "--metrics", "psnr,ssim,ms_ssim,consistency,sharpness"]
    line = [sys.executable, "-m", "tools.evaluate", *arguments]
    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL) as first:
        deadline = time.monotonic() + LIMIT
        while len(done(out)) < 5:
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        first.kill()
    before = done(out)
    return out, before, arguments, *command(arguments)


def command(arguments):
    """What the command ends with, and what it prints."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
        stack.enter_context(contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())))
        stack.enter_context(contextlib.redirect_stderr(printed))
        try:
            evaluate.main()
        except SystemExit as ended:
            return ended.code, printed.getvalue()
    return None, printed.getvalue()


def done(out):
    return {path: path.stat().st_mtime_ns for path in out.glob("results/*/*/result.json")}


def test_an_evaluation_cut_short_goes_on(evaluated):
    out, before, _, _, printed = evaluated
    after = done(out)
    assert len(after) == len(ARMS) * len(PICTURES)
    assert before.items() <= after.items()
    assert len(before) < len(after)
    assert f"| {len(after)}/{len(after)} [" in printed


def test_what_cannot_be_used_is_listed_and_the_others_are_reported(evaluated):
    out, _, arguments, code, _ = evaluated
    broken = f"{arguments[0]}/more/broken.png is not an image that can be read"
    tiny = "it is 63 x 100: at least 64 pixels a side are needed"
    assert code == f"2 failed:\nmore/broken.png: {broken}\ntiny.png: {tiny}"
    page = (out / "report.html").read_text("utf-8")
    assert tiny in page
    assert "--scale-down 4 --arms nearest,bicubic,onestep,chain-null --out" in page
    assert {"report.html", "table.md", "scores.csv"} <= {path.name for path in out.iterdir()}


def test_the_faithful_model_is_truer_than_bicubic(evaluated):
    out, *_ = evaluated
    results = read_results(out)
    assert {(r.image, r.arm) for r in results} == {(i, a) for i in PICTURES for a in ARMS}
    psnr = {
        arm: sum(r.rows[0].scores["psnr"] for r in results if r.arm == arm) / len(PICTURES)
        for arm in ARMS
    }
    assert psnr["chain-null"] == psnr["onestep"] > psnr["bicubic"] > psnr["nearest"] > 20


def test_every_result_tells_what_made_it(evaluated):
    out, *_ = evaluated
    version = read_comfyui_version(host_path())
    for result in read_results(out):
        assert result.error is None
        assert result.versions["ComfyUI"] == version
        missing = f"MS-SSIM needs 161 px a side, but the frame has {SHORT // 4}"
        assert result.missing == {"ms_ssim": missing}
        with_model = result.arm in {"onestep", "chain-null"}
        assert result.models == (("coz_lite_x4.safetensors",) if with_model else ())
        with Image.open(frame_path(out, result, 1)) as frame:
            assert frame.size == (SHORT // 4,) * 2
    settings = json.loads((out / "settings.json").read_text("utf-8"))
    assert (settings["arms"], settings["steps"], settings["pictures"]) == ([*ARMS], 1, 8)
    datetime.strptime(settings["date"][:16], "%Y-%m-%d %H:%M")


def test_what_is_done_is_not_made_again_and_people_can_judge_it(evaluated, capsys):
    out, _, arguments, first, _ = evaluated
    before = done(out)
    assert command([*arguments, "--blind", "4"])[0] == first
    assert done(out) == before
    key = json.loads((out / "blind_key.json").read_text("utf-8"))
    assert key["run"] in (out / "blind.html").read_text("utf-8")
    answers = [{"pair": pair["id"], "answer": "left", "seconds": 2} for pair in key["pairs"]]
    told = {"run": key["run"], "judge": "A. Person", "answers": answers}
    (out / "answers.json").write_text(json.dumps(told))
    (out / "junk.json").write_text("no answers")
    files = [out / name for name in ("answers.json", "junk.json")]
    argv = ["evaluate", "--answers", *map(str, files), "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        evaluate.main()
    printed = capsys.readouterr().out
    assert "4 answers to 4 pairs by 1 judge" in printed
    assert "junk.json: left out, it is not a file that the page saved" in printed
    assert "A. Person" not in (out / "report.html").read_text("utf-8")
    assert "4 answers to 4 pairs by 1 judge" in (out / "report.html").read_text("utf-8")
