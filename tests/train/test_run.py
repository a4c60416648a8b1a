"""GRPO on a toy: a random model of 33 words, and a critic that likes one of them."""

import importlib
import math
import shutil
import signal
import time
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file

from .conftest import launch, lines, read

TAGS = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
print(json.dumps({tag: len(events.Scalars(tag)) for tag in events.Tags()["scalars"]}))
"""

MERGE = """
import json, sys
from peft import PeftModel
from transformers import AutoModelForImageTextToText
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1])
PeftModel.from_pretrained(model, sys.argv[2]).merge_and_unload().save_pretrained(sys.argv[3])
print(json.dumps(None))
"""


def pairs_by_step(folder):
    """Step -> how often each pair was answered in it, over all processes."""
    found = {}
    for file in sorted(folder.glob("answers-*.jsonl")):
        for line in lines(file):
            if line["phase"] == "train":
                found.setdefault(line["step"], Counter())[line["pair"]] += 1
    return found


def test_reward_goes_up_and_a_killed_run_ends_the_same(
    tool, start, config, critic, in_training, tmp_path
):
    path = config("whole")
    result = tool("run", path)
    assert result.returncode == 0, result.stderr
    seed = tmp_path / "whole" / "seed-0"
    before, after = read(seed / "before.json"), read(seed / "after.json")
    assert before["critic"] < 0.2 < 0.5 < after["critic"]
    assert (before["pairs"], after["steps"]) == (4, 20)
    assert after["cost"]["tokens_per_second"] > 0
    assert (
        "There is no GPU here, so this will be slow." in result.stdout or torch.cuda.is_available()
    )

    curves = {}
    for file in (seed / "tensorboard").iterdir():
        curves |= in_training(TAGS, file)
    assert curves["train/rewards/critic/mean"] == curves["train/rewards/repetition/mean"] == 20
    assert curves["train/critic/unreadable"] == 20
    assert "train/rewards/preference/mean" not in curves  # nobody marked anything

    asked = critic.asked[-1]
    assert asked["messages"][0]["role"] == "system"
    kinds = [part["type"] for part in asked["messages"][1]["content"]]
    assert kinds == ["image_url", "image_url", "text"]

    card = (tmp_path / "whole" / "adapter" / "README.md").read_text("utf-8")
    assert f"| critic | {before['critic']:.3f} -> {after['critic']:.3f} |" in card
    assert "**Only 1 seeds**: too few for a reliable result, which needs 3." in card
    assert "- Rewards: critic 1, phrase_exclusion 0.5, repetition 0.5" in card
    svg = (tmp_path / "whole" / "adapter" / "curves.svg").read_text("utf-8")
    assert svg.count('<g id="axes_') == svg.count(">seed 0<") == 4

    killed = config("killed")
    process = start("run", killed)
    folder = tmp_path / "killed" / "seed-0"
    while not max(pairs_by_step(folder), default=0) >= 7:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    broken = folder / "checkpoint-999"  # as if killed while it wrote one
    broken.mkdir()
    (broken / "trainer_state.json").write_text('{"global_')
    result = tool("run", killed)
    assert result.returncode == 0, result.stderr
    resumed = int(result.stdout.partition("seed 0: continues after step ")[2].split()[0])
    assert resumed in {5, 10, 15}
    assert read(folder / "after.json")["steps"] == 20
    assert pairs_by_step(folder).keys() == pairs_by_step(seed).keys()
    rewards = [[e["reward"] for e in read(f / "history.json")] for f in (folder, seed)]
    assert rewards[0] == rewards[1]
    ours, theirs = (load_file(f / "adapter" / "adapter_model.safetensors") for f in (folder, seed))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    result = tool("run", killed)
    assert "seed 0 is done" in result.stdout


def test_processes_share_the_same_order(tool, config, tmp_path):
    batch = {"max_steps": 3, "learning_rate": 0.0}
    alone = config("alone", training=batch | {"per_device_train_batch_size": 16})
    both = config("both", training=batch | {"per_device_train_batch_size": 8})
    assert tool("run", alone).returncode == 0
    result = tool("run", both, launcher=launch(2))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "both" / "seed-0" / "answers-1.jsonl").is_file()
    assert read(tmp_path / "both" / "seed-0" / "after.json")["cost"]["processes"] == 2
    orders = [pairs_by_step(tmp_path / name / "seed-0") for name in ("alone", "both")]
    assert orders[0] == orders[1]
    assert list(orders[0]) == [0, 1, 2]
    assert all(set(pairs.values()) == {4} for pairs in orders[0].values())


def test_seeds_are_trained_one_after_another(tool, config, tmp_path):
    path = config("seeds", seeds=[3, 5, 8], training={"max_steps": 2}, held_out=1)
    assert tool("run", path).returncode == 0
    folders = [tmp_path / "seeds" / f"seed-{seed}" for seed in (3, 5, 8)]
    rewards = sorted((read(folder / "after.json")["reward"], folder.name) for folder in folders)
    out = tmp_path / "seeds" / "adapter"
    scores = read(out / "scores.json")
    assert read(folders[0] / "after.json") == scores["after"]["3"]
    assert scores["after"][str(scores["chosen"])]["reward"] == rewards[1][0]
    chosen = tmp_path / "seeds" / f"seed-{scores['chosen']}" / "adapter"
    files = [folder / "adapter_model.safetensors" for folder in (out, chosen)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len({tuple(pairs_by_step(folder)[0]) for folder in folders}) > 1
    card = (out / "README.md").read_text("utf-8")
    assert "too few for a reliable" not in card
    assert " ± " in card


def test_photographs_to_an_adapter_that_the_node_loads(
    tool, config, tiny, pack, in_training, tmp_path
):
    import folder_paths

    path = config(
        "tiny",
        model=str(tiny),
        held_out=1,
        rewards={"answer_form": 1.0},
        training={"per_device_train_batch_size": 4, "max_completion_length": 3},
    )
    result = tool("run", path)
    assert result.returncode == 0, result.stderr
    adapter = tmp_path / "tiny" / "adapter"
    merged = tmp_path / "merged"
    in_training(MERGE, tiny, adapter, merged)
    expected = load_file(merged / "model.safetensors")
    weights = load_file(tiny / "model.safetensors")
    folder = tmp_path / "host"
    folder.mkdir()
    shutil.copytree(adapter, folder / "trained")
    save_file(weights, folder / "qwen2.5-vl-tiny.safetensors")
    for kind in ("text_encoders", "loras"):
        folder_paths.add_model_folder_path(kind, str(folder))
    loader = importlib.import_module(f"{pack.__name__}.nodes.load.prompt_extractor")
    load = loader.CoZLoadPromptExtractor.execute
    vlm = load("qwen2.5-vl-tiny.safetensors", "trained/adapter_model.safetensors")[0]
    vlm.load_model()
    network = vlm.cond_stage_model.qwen25vl.transformer.state_dict()
    changed = [name for name in weights if not torch.equal(weights[name], expected[name])]
    assert len(changed) == 2 * 7
    assert not any("visual" in name for name in changed)
    for name in changed:
        host = name.replace("model.language_model.", "model.")
        assert torch.allclose(network[host].float().cpu(), expected[name], atol=1e-6)
        assert not torch.allclose(network[host].float().cpu(), weights[name], atol=1e-6)


def test_what_people_marked_is_a_reward_and_a_check(tool, config, photographs, tmp_path):
    import json

    from PIL import Image

    (tmp_path / "preferences").mkdir()
    entries = []
    for i in range(6):
        name = f"preferences/{i}.png"
        Image.effect_noise((64, 64), 50 + i).convert("RGB").save(tmp_path / name)
        entry = {"previous": name, "zoomed": name, "factor": [4.0, 4.0]}
        entries += [entry | {"prompt": "wet moss", "good": True}]
        entries += [entry | {"prompt": "rust", "good": False}]
    file = tmp_path / "preferences.jsonl"
    file.write_text("\n".join(map(json.dumps, entries)))
    arguments = ("--backbone", "crops", "--size", 56, "--steps", 1, "--workers", 1)
    marks = ("--preferences", file, "--held-out", 0.4)
    out = tmp_path / "marked"
    assert tool("prepare", photographs, out, *arguments, *marks).returncode == 0
    rewards = dict.fromkeys(("critic", "phrase_exclusion", "repetition", "answer_form"), 0)
    path = config("marks", data=str(out), rewards=rewards, training={"max_steps": 20})
    result = tool("run", path)
    assert result.returncode == 0, result.stderr
    seed = tmp_path / "marks" / "seed-0"
    before, after = read(seed / "before.json"), read(seed / "after.json")
    assert before["preference"] < after["preference"]
    assert before["marks_agreement"] <= after["marks_agreement"] <= 1
    assert after["marks_agreement"] > 0.5
    curve = [entry["rewards/preference/mean"] for entry in read(seed / "history.json")]
    assert any(value is not None and not math.isnan(value) for value in curve)


def test_a_critic_that_is_down(tool, config, critic):
    path = config("down")
    critic.answer = lambda words: None
    error = tool("run", path).error
    assert f"the critic at {critic.url} does not answer (503" in error
    critic.answer = critic.liking
    path = config("nobody", critic={"url": "http://127.0.0.1:9/v1", "model": "m"})
    assert "does not answer ([Errno 111] Connection refused): start it" in tool("run", path).error


def test_a_critic_that_goes_down_and_comes_back(tool, config, critic, tmp_path):
    count = 0

    def answer(words):
        nonlocal count
        count += 1
        return None if count > 60 else critic.liking(words)

    path = config("breaks", training={"save_steps": 2, "max_steps": 12}, held_out=1)
    critic.answer = answer
    assert "no longer answers: start it and run again" in tool("run", path).error
    critic.answer = critic.liking
    result = tool("run", path)
    assert result.returncode == 0, result.stderr
    assert "seed 0: continues after step" in result.stdout
    assert read(tmp_path / "breaks" / "seed-0" / "after.json")["steps"] == 12


def test_answers_that_are_no_score_are_counted_and_move_nothing(tool, config, critic, tmp_path):
    count = 0

    def answer(words):
        nonlocal count
        count += 1
        return "lovely" if count % 3 == 0 else critic.liking(words)

    critic.answer = answer
    path = config("some", training={"max_steps": 3}, held_out=0)
    result = tool("run", path)
    assert result.returncode == 0, result.stderr
    seed = tmp_path / "some" / "seed-0"
    shares = [entry["critic/unreadable"] for entry in read(seed / "history.json")]
    assert all(0 < share < 0.6 for share in shares)
    answers = lines(seed / "answers-0.jsonl")
    for first in range(0, len(answers), 4):
        group = answers[first : first + 4]
        said = [a["critic"] for a in group if a["critic_answer"] != "lovely"]
        for a in group:
            if a["critic_answer"] == "lovely" and said:
                assert a["critic"] == pytest.approx(sum(said) / len(said))
    assert "No pairs were held out." in (tmp_path / "some/adapter/README.md").read_text("utf-8")


def test_a_local_critic_that_answers_nonsense(tool, config, toy):
    local = {"model": str(toy), "patience": 2}
    path = config("nonsense", critic=local, held_out=0)
    error = tool("run", path).error
    assert "the critic gave no score in 2 batches, but answers such as" in error
    path = config("no model", critic={"model": "/nowhere"})
    assert "the critic /nowhere cannot be loaded" in tool("run", path).error


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"sedes": [1]}, "sedes does not exist in a config: did you mean seeds?"),
        ({"training": {"max_step": 1}}, "training.max_step does not exist in a config: did you mean max_steps?"),
        ({"model": "/nowhere/at all"}, "model /nowhere/at all cannot be loaded"),
        ({"data": "/nowhere"}, "data: /nowhere holds no data set"),
        ({"training": {"per_device_train_batch_size": 3}}, "num_generations"),
        ({"training": {"use_vllm": True}}, "vllm"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_a_line(tool, config, changes, error):
    result = tool("run", config("wrong", **changes))
    assert result.returncode == 1
    assert result.error.startswith("error: ")
    assert error in result.error
