"""CoZ Chain Report in the host's real executor: built, loaded and older chains, and what it refuses."""

import json
import math

import pytest
import torch

from coz.chain.folder import write_chain
from coz.chain.real_pixels import pick_real_pixels_color
from coz.chain.zoom_chain import ZoomChain
from coz.fidelity.report import measure_chain, write_report

from .prompts import chain_prompt, make_node

OUTPUTS = ("table", "agreement", "psnr", "ssim", "sharpness", "color_drift")


@pytest.fixture
def measured(keeper):
    """What the report puts out, with the chain and its source."""
    kinds = {"chain": "COZ_CHAIN", "source": "IMAGE", "table": "STRING"}
    return keeper("TestMeasured", kinds | dict.fromkeys(OUTPUTS[1:], "FLOAT"))


def report_prompt(truth=None, **inputs):
    """A chain of the photograph made four times smaller, its report, and what it puts out."""
    prompt = chain_prompt(**{"image": ("small", 0), "steps": 3, "scale": 2.0} | inputs)
    del prompt["scales"]
    prompt["small"] = scaled(128, 128)
    prompt["report"] = make_node("CoZMeasure", chain=["loop", 3])
    if truth:
        prompt["report"]["inputs"]["ground_truth"] = list(truth)
    links = {name: ["report", k] for k, name in enumerate(OUTPUTS)}
    links |= {"chain": ["loop", 3], "source": ["source", 0]}
    prompt["keep"] = make_node("TestMeasured", **links)
    return prompt


def scaled(width, height):
    size = {"upscale_method": "area", "width": width, "height": height, "crop": "disabled"}
    return make_node("ImageScale", image=["source", 0], **size)


def own(chain):
    """The pack's chain, as that of the tests' own ``coz``."""
    return ZoomChain.from_json(chain.to_json(), chain.frames)


def test_outputs_and_table_are_cozs(host, measured):
    host.run(report_prompt(truth=("source", 0)), "keep")
    (kept,) = measured
    chain, truth = own(kept["chain"]), kept["source"].movedim(-1, 1)
    figures = list(measure_chain(chain, truth))
    first, *steps = figures
    assert kept["table"] == write_report(chain, figures, truth)
    assert kept["agreement"] == min(f.input_agreement for f in steps)
    assert [math.isnan(f.psnr) for f in figures] == [False, False, False, True]  # 4x of 8x
    assert kept["psnr"] == steps[1].psnr != first.psnr
    assert kept["ssim"] == steps[1].ssim
    assert kept["sharpness"] == steps[2].sharpness
    assert kept["color_drift"] == max(f.drift for f in steps)
    assert 15 < kept["psnr"] < 45
    assert "The ground truth is fine enough for frames up to 4x: beyond that" in kept["table"]
    colors = [f"rgb{pick_real_pixels_color(share)}" for share in (1, 1 / 4, 1 / 16, 1 / 64)]
    assert host.ui("report") == {"text": [kept["table"]], "coz_colors": [colors], "coz_text": []}
    assert [round(a, 1) for a in kept["chain"].agreements] == [
        round(f.input_agreement, 1) for f in steps
    ]


def test_without_a_ground_truth_and_with_nothing_connected(executor, measured):
    host = executor("CLASSIC")
    host.run(report_prompt(), "keep")
    (kept,) = measured
    assert math.isnan(kept["psnr"])
    assert math.isnan(kept["ssim"])
    assert math.isfinite(kept["agreement"])
    assert "No ground truth is connected" in kept["table"]
    alone = report_prompt()
    del alone["keep"]
    assert host.run(alone, "report") == []  # kept since
    for cache in ("LRU", "RAM_PRESSURE", "NONE"):
        host = executor(cache)
        assert "report" in host.run(alone, "report")
        assert host.ui("report")["text"] == [kept["table"]]


def test_each_chain_of_a_list_has_its_own_table(host, measured):
    prompt = report_prompt(truth=("source", 0), steps=1, image=("list", 0))
    prompt["other"] = make_node("ImageInvert", image=["small", 0])
    prompt["both"] = make_node("ImageBatch", image1=["small", 0], image2=["other", 0])
    prompt["list"] = make_node("RebatchImages", images=["both", 0], batch_size=1)
    host.run(prompt, "keep")
    true, inverted = measured
    assert host.ui("report")["text"] == [true["table"], inverted["table"]]
    assert list(map(len, host.ui("report")["coz_colors"])) == [2, 2]
    assert true["psnr"] > 20 > 10 > inverted["psnr"]


def test_a_ground_truth_that_reaches_no_step(executor, measured):
    prompt = report_prompt(truth=("truth", 0))
    prompt["truth"] = scaled(160, 160)
    executor("CLASSIC").run(prompt, "keep")
    (kept,) = measured
    assert math.isnan(kept["psnr"])
    assert math.isnan(kept["ssim"])
    assert "The ground truth is fine enough for frames up to 1.25x: beyond that" in kept["table"]


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (torch.rand(2, 300, 400, 3), "ground_truth holds 2 images, .*Get Image from Batch"),
        (torch.full((1, 300, 400, 3), math.nan), "ground_truth holds 360000 values that are NaN"),
    ],
)
def test_several_pictures_or_holes_are_refused(node, make_chain, truth, message):
    with pytest.raises(ValueError, match=message):
        node("CoZMeasure").execute(make_chain(), truth)


def test_half_precision_and_transparency_are_taken(node, make_chain):
    chain = make_chain()
    truth = torch.rand(1, 300, 400, 4)
    expected = node("CoZMeasure").execute(chain, truth[..., :3].half().float())
    assert node("CoZMeasure").execute(chain, truth.half())[0] == expected[0]


def test_a_chain_of_no_steps_has_its_first_frame(node, make_chain):
    table, *figures, sharpness, drift = node("CoZMeasure").execute(make_chain(steps=0)).result
    assert [line.split()[1] for line in table.split("\n")[2:5]] == ["zoom", "---:", "1x"]
    assert table.split("\n")[0].endswith(" There is no step to judge.")
    assert all(map(math.isnan, [*figures, drift]))
    assert sharpness > 0


def test_a_chain_of_an_old_record_is_loaded_and_measured(node, make_chain, output_folder):
    """The first ones held no agreement, no share and no target."""
    chain = make_chain(height=128, width=128)
    folder = write_chain(chain, output_folder, "old", 1, {})
    record = folder / "chain.json"
    parts = json.loads(record.read_text("utf-8"))
    for name in ("agreements", "invented", "target"):
        del parts[name]
    record.write_text(json.dumps(parts), "utf-8")
    loaded = node("CoZLoadChain").execute(folder.name)[0]
    assert loaded.agreements == ()
    table, agreement, *_ = node("CoZMeasure").execute(loaded).result
    own_loaded = own(loaded)
    assert table == write_report(own_loaded, list(measure_chain(own_loaded)))
    _, *steps = measure_chain(chain)
    assert agreement == pytest.approx(min(step.input_agreement for step in steps), abs=1e-2)


def test_it_tells_its_progress_and_can_be_interrupted(node, make_chain, mm, monkeypatch):
    told, interrupted = [], False

    def hook(done, count, *_, **__):
        told.append((done, count))
        mm.interrupt_current_processing(interrupted)

    monkeypatch.setattr("comfy.utils.PROGRESS_BAR_HOOK", hook)
    node("CoZMeasure").execute(make_chain())
    assert (told[0], told[-1]) == ((1, 4), (4, 4))
    told.clear()
    interrupted = True
    with pytest.raises(mm.InterruptProcessingException):
        node("CoZMeasure").execute(make_chain())
    assert told == [(1, 4)]
