"""Whole trainings: resuming, several processes, and what goes wrong."""

import math
import os
import re
import signal
import subprocess
import time
from argparse import Namespace
from statistics import mean

import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from tools.host import ROOT
from tools.train_grpo.command import run_command
from tools.train_grpo.config import read_config
from tools.train_grpo.environment import python_path
from tools.train_sr import loop
from tools.train_sr.__main__ import execute
from tools.train_sr.checkpoint import list_checkpoints, read_checkpoint
from tools.train_sr.config import CrossScaleConfig, DistilConfig
from tools.train_sr.dataset import open_crops
from tools.train_sr.distil import Distillation, load_distillation
from tools.train_sr.network import list_modulations
from tools.train_sr.sd3 import load_transformer_and_vae

from .conftest import TIMEOUT, environment, launch, lines
from .test_sr_network import CPU, make_accelerator, read_losses, train
from .tiny_sd3 import make_config, save_crops, write_config


@pytest.fixture
def config(sr_parts, tmp_path):
    return lambda **changes: make_config(tmp_path, sr_parts, accumulation=1, **changes)


def command(kind, path, processes=1):
    """python -m tools.train_sr, or with several processes as accelerate starts them."""
    launcher = [python_path()] if processes == 1 else launch(processes)
    parts = [*launcher, "-m", "tools.train_sr", kind, path]
    return {"args": [str(part) for part in parts], "cwd": ROOT, "env": environment(), "text": True}


def start(kind, path, processes=1):
    call = command(kind, path, processes)
    result = subprocess.run(**call, capture_output=True, timeout=TIMEOUT)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def read_result(folder):
    files = (folder / "result" / f"{name}.safetensors" for name in ("sr_lora", "vae_encoder"))
    return {(file.name, name): weight for file in files for name, weight in load_file(file).items()}


def test_a_killed_run_ends_the_same(sr_parts, tmp_path):
    settings = {"steps": 8, "workers": 1, "preview_every": 8, "preview_zooms": 1, "ema": 0.9}
    whole = write_config(tmp_path / "whole.yaml", sr_parts, **settings)
    output = start("distil", whole)
    assert "There is no GPU here, so this will be slow" in output or torch.cuda.is_available()
    assert re.search(r"Training: .* 2/8 \[.*<.*\]", output)  # the time that is left
    killed = write_config(tmp_path / "killed.yaml", sr_parts, **settings)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(**command("distil", killed), **quiet)
    log = tmp_path / "killed" / "losses.jsonl"
    while not (log.is_file() and len(log.read_text("utf-8").splitlines()) >= 5):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    step = int(re.search(r"continues after step (\d)", start("distil", killed))[1])
    assert step in (4, 6)
    assert lines(log) == lines(tmp_path / "whole" / "losses.jsonl")
    results = [read_result(tmp_path / name) for name in ("killed", "whole")]
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(results[0][name], weight) for name, weight in results[1].items())
    previews = [tmp_path / n / "previews" / "step-0000008.png" for n in ("killed", "whole")]
    assert previews[0].read_bytes() == previews[1].read_bytes()
    assert len(list_checkpoints(tmp_path / "whole")) == 2
    card = (tmp_path / "whole" / "result" / "README.md").read_text("utf-8")
    assert "- Data: 5 crops, size 32, seed 0\n- 8 steps of 2 crops, seed 123\n" in card
    svg = (tmp_path / "whole" / "result" / "curves.svg").read_text("utf-8")
    assert svg.count('<g id="axes_') == 4
    assert list((tmp_path / "whole" / "tensorboard").glob("events.*"))


def test_two_processes_see_the_same_data_and_average_their_gradients(sr_parts, tmp_path):
    """Two processes with a crop each make the same steps as one process with two crops in turn."""
    data = save_crops(tmp_path / "data", 5)
    alone = make_config(tmp_path, sr_parts | {"data": data}, accumulation=2)
    train(alone)
    both = write_config(tmp_path / "both.yaml", sr_parts | {"data": data}, accumulation=1)
    output = start("distil", both, processes=2)
    assert output.count("There is no GPU here") <= 1
    found, expected = lines(tmp_path / "both" / "losses.jsonl"), read_losses(alone)
    assert len(found) == alone.steps
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    first, second = (
        torch.load(list_checkpoints(out)[0], weights_only=True)["loras"]
        for out in (tmp_path / "both", alone.out)
    )
    for name in first:  # 1e-4: AdamW's first steps are as long where a gradient is nearly 0
        assert torch.allclose(first[name], second[name], atol=1e-4)


def test_batches_of_an_epoch():
    """Together, the processes read each crop at most once, in the order of one process."""
    alone = loop.list_batches(11, 2, 0, 1, seed=3, epoch=5)
    assert [len(batch) for batch in alone] == [2] * 5
    assert len({i for batch in alone for i in batch}) == 10
    shares = [loop.list_batches(11, 1, process, 2, seed=3, epoch=5) for process in range(2)]
    assert [a + b for a, b in zip(*shares, strict=True)] == alone
    assert loop.list_batches(11, 2, 0, 1, seed=3, epoch=6) != alone


def test_a_loss_falls(config, tmp_path):
    made = config(
        data=str(save_crops(tmp_path / "one", 2)), steps=16, weights={"lpips": 0.0, "vsd": 0.0}
    )
    task = load_distillation(made, CPU)
    with torch.no_grad():  # a sample of this random encoder would be noise
        last = task.network.vae.quant_conv
        last.weight[16:], last.bias[16:] = 0, -20
    loop.train(made, task, open_crops(made), open_crops(made, True), make_accelerator(made))
    losses = [entry["mse"] for entry in read_losses(made)]
    assert mean(losses[-4:]) < 0.9 * mean(losses[:4])


def test_the_next_stage_starts_from_a_result(config, tmp_path):
    first = config(steps=2)
    train(first)
    result = first.out / "result"
    starts = {"start_lora": "sr_lora", "start_vae_encoder": "vae_encoder"}
    starts = {key: str(result / f"{name}.safetensors") for key, name in starts.items()}
    second = load_distillation(config(out="second", **starts), CPU)
    plain = load_distillation(first, CPU)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    checkpoint = torch.load(list_checkpoints(first.out)[0], weights_only=True)
    with torch.no_grad():
        before = plain.network.encode(image)
        plain.network.set_loras(checkpoint["loras"])
        expected, found = plain.network.encode(image), second.network.encode(image)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, expected, rtol=1e-2, atol=1e-2)
    for ours, theirs in zip(
        second.network.list_parameters("gen"), plain.network.list_parameters("gen"), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_the_average_of_the_steps_is_exported(config, monkeypatch):
    """diffusers' average counts an early step for more: with the weight 1 - (1 + n) / (10 + n)."""
    made, seen = config(steps=3, ema=0.2), []
    monkeypatch.setattr(
        Distillation,
        "finish_step",
        lambda task, _: seen.append([p.clone() for p in task.network.list_parameters("gen")]) or {},
    )
    task = train(made)
    expected = seen[0]
    for decay, weights in zip((2 / 11, 0.2), seen[1:], strict=True):
        expected = [decay * e + (1 - decay) * w for e, w in zip(expected, weights, strict=True)]
    lora = load_file(made.out / "result" / "sr_lora.safetensors")
    layers = [f"transformer.{n}" for n in list_modulations(task.network.transformer)]
    found = [lora[f"{layer}.lora_{factor}.weight"] for layer in layers for factor in "AB"]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-7)
    assert all(map(torch.equal, task.network.list_parameters("gen"), seen[-1]))  # training goes on


def test_a_checkpoint_of_another_run(config):
    train(config(steps=1))
    message = "holds a run with rank 4, but now it is 8. Choose another out"
    with pytest.raises(ValueError, match=message):
        train(config(steps=2, rank=8))


def test_the_files_of_a_run_may_be_moved(config, sr_parts, tmp_path):
    train(config(steps=1))
    moved = tmp_path / "moved" / sr_parts["model"].name
    moved.parent.mkdir()
    moved.symlink_to(sr_parts["model"])
    more = config(steps=2, model=str(moved))
    train(more)
    assert len(read_losses(more)) == 2


def test_a_model_may_be_a_folder_beside_the_config(config, tmp_path):
    (tmp_path / "my_sd3").mkdir()
    assert config(model="my_sd3").model == str(tmp_path / "my_sd3")
    assert config(model="no/folder").model == "no/folder"


def test_settings_of_accelerate_launch_do_not_count(config, monkeypatch):
    """Its fp16 would scale the gradients, which nothing here would undo."""
    settings = {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "7"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = loop.make_accelerator(config())
    found = accelerator.mixed_precision, accelerator.gradient_accumulation_steps
    AcceleratorState._reset_state(reset_partial_state=True)
    assert found == ("no", 1)


def test_curves_keep_the_last_step_before_an_interruption(config, monkeypatch):
    given = []
    monkeypatch.setattr(
        Accelerator, "init_trackers", lambda _, name, init_kwargs: given.append(init_kwargs)
    )
    for steps in (2, 3):
        train(config(steps=steps))
    # TensorBoard hides the steps from this one on
    assert [kwargs["tensorboard"]["purge_step"] for kwargs in given] == [1, 3]


def test_a_damaged_checkpoint_is_left_out(config, capsys):
    made = config(steps=2, save_every=1)
    train(made)
    newest, older = list_checkpoints(made.out)
    newest.write_bytes(newest.read_bytes()[:5000])
    assert read_checkpoint(made.out, {}).step == 1
    assert f"{newest.name} is damaged and left out" in capsys.readouterr().out
    assert older.is_file()


def test_nan_stops_with_the_images(config, monkeypatch):
    made = config(steps=4, save_every=1)
    compute = Distillation.compute_gradients

    def fail_at_third(self, batch, rng, backward):
        losses = compute(self, batch, rng, backward)
        self.steps = getattr(self, "steps", 0) + 1
        return losses | ({"vsd": losses["vsd"] * math.nan} if self.steps == 3 else {})

    monkeypatch.setattr(Distillation, "compute_gradients", fail_at_third)
    with pytest.raises(
        ValueError, match=r"step 3: vsd is not a finite number, with the images photo#\d \("
    ):
        train(made)
    saved = sorted(path.name for path in (made.out / "failed-step-3").iterdir())
    assert saved == ["0-high.png", "0-low.png"]
    assert read_checkpoint(made.out, {}).step == 2
    monkeypatch.undo()
    train(made)
    assert [entry["step"] for entry in read_losses(made)] == [1, 2, 3, 4]


def test_a_gradient_of_nan_stops_with_all_images_of_the_step(sr_parts, tmp_path, monkeypatch):
    made = make_config(tmp_path, sr_parts, steps=1, accumulation=2)
    compute = Distillation.compute_gradients

    def spoil(self, batch, rng, backward):
        losses = compute(self, batch, rng, backward)
        self.network.list_parameters("gen")[1].grad *= math.nan
        return losses

    monkeypatch.setattr(Distillation, "compute_gradients", spoil)
    message = (
        r"step 1: the gradient of gen is not a finite number, with the images photo#\d, photo#\d \("
    )
    with pytest.raises(ValueError, match=message):
        train(made)
    saved = sorted(path.name for path in (made.out / "failed-step-1").iterdir())
    assert saved == ["0-high.png", "0-low.png", "1-high.png", "1-low.png"]


def test_a_full_disk_keeps_the_last_checkpoint(config, small_files):
    made = config(steps=1)
    train(made)
    size = list_checkpoints(made.out)[0].stat().st_size
    task, more = load_distillation(made, CPU), config(steps=2)
    with (
        small_files(size // 2),
        pytest.raises(ValueError, match=r"of step 2 cannot be written .* too large"),
    ):
        loop.train(more, task, open_crops(more), open_crops(more, True), make_accelerator(more))
    assert [path.name for path in more.out.glob("step-*")] == ["step-0000001.checkpoint"]
    train(more)
    assert len(read_losses(more)) == 2


def run_distil(path):
    """As the command line runs it; return the error message."""
    arguments = Namespace(
        command="distil", config=path, estimate=False, card_gb=None, traceback=False
    )
    return run_command(execute, arguments, "tools.train_sr")


def test_out_of_memory_is_explained(sr_parts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tools.train_sr.loop.make_accelerator", make_accelerator)
    settings = {"steps": 3, "save_every": 1, "accumulation": 1, "batch": 2, "checkpointing": False}
    path, steps = write_config(tmp_path / "run.yaml", sr_parts, **settings), []
    compute = Distillation.compute_gradients

    def fail_at_second(self, *arguments):
        steps.append(1)
        if len(steps) == 2:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of "
                "which 1.21 GiB is free. Process 7 has 22.43 GiB memory in use."
            )
        return compute(self, *arguments)

    monkeypatch.setattr(Distillation, "compute_gradients", fail_at_second)
    assert run_distil(path) == (
        "error: the memory of the GPU ran out (CUDA out of memory. Tried to allocate 2.00 GiB): set "
        "checkpointing: true, or precision: bf16, or batch: 1, with more accumulation. The last checkpoint is kept: run it "
        "again to continue. For another batch or precision, choose another out"
    )
    write_config(path, sr_parts, **settings | {"checkpointing": True})
    assert run_distil(path) is None
    assert "continues after step 1" in capsys.readouterr().out


def test_steps_that_are_done(config, capsys):
    made = config(steps=1)
    train(made)
    train(made)
    assert "all 1 steps are done: raise steps to train on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"acumulation": 2}, "acumulation does not exist in a config: did you mean accumulation?"),
        ({"weights": {"vds": 1}}, "weights.vds does not exist in a config: did you mean vsd?"),
        ({"precision": "fp16"}, "precision must be 'bf16' or 'fp32', got 'fp16'"),
        ({"ema": 1.0}, "ema must be less than 1, got 1.0"),
        ({"upstream_files": True, "latent_shift": "symmetric"}, "upstream_files: a .pkl cannot say"),
        ({"data": "nowhere"}, "holds no finished data set: python -m tools.train_sr prepare"),
        ({"lpips": "nowhere.pth"}, "nowhere.pth: expected a weight file, but found none"),
        ({"batch": 9}, "holds 5 crops to train on, fewer than batch x processes (9 x 1)"),
        ({"model": "/nowhere/at all"}, "error: scheduler cannot be loaded from /nowhere/at all"),
        ({"text_cached": False}, "the text encoders cannot be loaded from"),
    ],
)  # fmt: skip
def test_mistakes_are_named_in_a_line(sr_parts, tmp_path, monkeypatch, changes, error):
    path = write_config(tmp_path / "wrong.yaml", sr_parts, **changes)
    monkeypatch.setattr("tools.train_sr.loop.make_accelerator", make_accelerator)
    reason = run_distil(path)
    assert reason.startswith("error: ")
    assert error in reason
    assert "\n" not in reason


def test_a_part_of_sd3_that_is_missing(config, tmp_path):
    made = config()
    (tmp_path / "sd3").mkdir()
    for name in ("transformer", "scheduler"):
        os.symlink(f"{made.model}/{name}", tmp_path / "sd3" / name)
    with pytest.raises(ValueError, match=r"^vae cannot be loaded from .* It needs SD3-medium"):
        load_transformer_and_vae(made.model_copy(update={"model": str(tmp_path / "sd3")}))


STARTS = {"start_lora", "start_vae_encoder"}


@pytest.mark.parametrize(
    ("name", "kind", "given", "commented", "hidden"),
    [
        ("distil", DistilConfig, set(), {"vae", *STARTS}, set()),
        ("cross_scale", CrossScaleConfig, STARTS, {"vlm", "score"}, {"vae", "degradation"}),
    ],
)
def test_examples_state_the_defaults(name, kind, given, commented, hidden):
    path = ROOT / f"tools/train_sr/{name}.yaml"
    config, text = read_config(path, kind), path.read_text("utf-8")
    assert config == kind(**{n: getattr(config, n) for n in {"data", "out", "lpips", *given}})
    assert yaml.safe_load(text).keys() == kind.model_fields.keys() - commented - hidden
    assert all(f"# {name}: " in text for name in commented)
