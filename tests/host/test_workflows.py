"""The bundled workflows of Chain Loop, on tiny weights, through the real server."""

import json

import numpy as np
import pytest

from tools.host import ROOT
from tools.host.client import run_prompt
from tools.host.workflow import find_node, read_prompt

from .prompts import make_node, pictures, preview_scales, steps_run

PAPER = ROOT / "workflows" / "4 Chain-of-Zoom as in the paper (AR-2).json"
SD3 = ROOT / "workflows" / "2 Chain-of-Zoom SD3.json"
OWN = ROOT / "workflows" / "5 Your own checkpoint.json"
BY_HAND = ROOT / "workflows" / "more" / "AR-2 step by step.json"


def prompt_of(workflow, **inputs):
    """The workflow on small frames, with some of the loop's inputs changed."""
    prompt = read_prompt(workflow)
    loop = find_node(prompt, "CoZChainLoop")
    prompt[loop]["inputs"] |= {"size": 32, "steps": 3} | inputs
    preview_scales(prompt, loop)
    return prompt


def paper(**inputs):
    return prompt_of(PAPER, **{"steps": 2, "prompting.max_tokens": 6} | inputs)


def asked(run):
    return steps_run(run.executed, "prompt")


def texts(run, prompt):
    (text,) = run.outputs[find_node(prompt, "PreviewAny")]["text"]
    return text


def record(run):
    """Of the loop, and the viewer's is the same."""
    (record,) = {ui["coz_chain"][0] for ui in run.outputs.values() if "coz_chain" in ui}
    return json.loads(record)


def test_paper_s_workflow_is_its_nodes_wired_by_hand(server):
    by_loop = paper(steps=4, **{"prompting.max_tokens": 8})
    first = run_prompt(server, by_loop)
    assert asked(first) == steps_run(first.executed) == [1, 2, 3, 4]
    by_hand = read_prompt(BY_HAND)
    small = {"CoZFitImage": {"size": 32}, "CoZPromptExtractor": {"max_tokens": 8}}
    for node in by_hand.values():
        node["inputs"] |= small.get(node["class_type"], {})
    frames = pictures(server, first, by_loop)[1:]
    assert np.array_equal(frames, pictures(server, run_prompt(server, by_hand), by_hand))
    assert len(frames) == 4
    # Each text shows on the loop, and is in the outputs and in the record.
    loop = find_node(by_loop, "CoZChainLoop")
    written = texts(first, by_loop).split("\n")
    shown = (text.split("\n") for node, text in first.notices if node == loop)
    told = [[line for line in lines if "input (" not in line] for lines in shown]
    expected = ["reading the image"]
    for i, text in enumerate(written, 1):
        expected += [f"step {i} of 4: writing the prompt", text]
        expected.append(f"step {i} of 4: super-resolving\n{text}")
    depth = "4 steps, 256x: the deepest frame holds less than one real pixel, the rest is invented"
    assert ["\n".join(lines) for lines in told] == [*expected, "\n".join([depth, *written])]
    assert record(first)["prompts"] == written


def test_pasting_the_prompts_back_gives_the_same_bytes(server):
    prompt = paper(center_x=0.4, prompt="fur (soft:1.2)")
    first = run_prompt(server, prompt)
    written = texts(first, prompt)
    assert all(line.endswith("fur (soft:1.2)") for line in written.split("\n"))
    pasted = paper(center_x=0.4, prompt="else", step_prompts=written)
    again = run_prompt(server, pasted)
    assert asked(again) == []
    assert texts(again, pasted) == written
    assert np.array_equal(pictures(server, first, prompt), pictures(server, again, pasted))


def test_repeated_and_longer_runs_ask_only_what_is_new(server):
    assert asked(run_prompt(server, paper(center_x=0.39))) == [1, 2]
    assert asked(run_prompt(server, paper(center_x=0.39))) == []
    longer = run_prompt(server, paper(center_x=0.39, steps=3))
    assert asked(longer) == steps_run(longer.executed) == [3]


def test_editing_a_line_runs_its_step_and_what_follows(server):
    prompt = paper(center_x=0.38, steps=3)
    written = texts(run_prompt(server, prompt), prompt).split("\n")
    run_prompt(server, paper(center_x=0.38, steps=3, step_prompts="\n".join(written)))
    written[1] = "a mountain"
    edited = paper(center_x=0.38, steps=3, step_prompts="\n".join(written))
    assert steps_run(run_prompt(server, edited).executed) == [2, 3]


def test_a_line_of_one_s_own_is_not_asked_for(server):
    prompt = paper(center_x=0.37, step_prompts="-\n", prompt="fur")
    run = run_prompt(server, prompt)
    assert asked(run) == [2]
    assert texts(run, prompt).split("\n")[0] == "-"


def test_another_seed_writes_other_words_only_with_temperature(server):
    def written(**inputs):
        prompt = paper(center_x=0.36, steps=1, **inputs)
        run = run_prompt(server, prompt)
        return texts(run, prompt), asked(run)

    calm, _ = written(seed=1)
    assert written(seed=2) == (calm, [])
    warm, asked_again = written(seed=1, **{"prompting.temperature": 1.5})
    assert asked_again == [1]
    assert written(seed=2, **{"prompting.temperature": 1.5})[0] != warm


@pytest.mark.parametrize("context", ["original image", "none"])
def test_context_changes_what_is_asked(server, context):
    run_prompt(server, paper(center_x=0.35))
    run = run_prompt(server, paper(center_x=0.35, **{"prompting.context": context}))
    # The frame before the first step is the original image.
    assert asked(run) == ([2] if context == "original image" else [1, 2])


def test_sd3_workflow_runs_and_goes_on(server):
    prompt = prompt_of(SD3)
    first = run_prompt(server, prompt)
    assert steps_run(first.executed) == [1, 2, 3]
    assert len(steps_run(first.executed, "text")) == 1  # one text, encoded once
    frames = pictures(server, first, prompt)
    assert [frame.shape for frame in frames] == [(32, 32, 3)] * 4
    assert all(frame.std() > 1 for frame in frames)
    longer = run_prompt(server, prompt_of(SD3, steps=4))
    assert steps_run(longer.executed) == [4]
    assert steps_run(longer.executed, "text") == []
    assert steps_run(run_prompt(server, prompt_of(SD3, steps=4)).executed) == []


def test_prompts_output_gives_the_same_chain_again(server):
    prompt = prompt_of(SD3, center_x=0.39, prompt="fur", step_prompts="\n-\nan eye (green:1.3)")
    prompt["shown"] = make_node("PreviewAny", source=[find_node(prompt, "CoZChainLoop"), 2])
    (text,) = run_prompt(server, prompt).outputs["shown"]["text"]
    assert text == "fur\n-\nan eye (green:1.3)"
    again = run_prompt(server, prompt_of(SD3, center_x=0.39, prompt="else", step_prompts=text))
    assert steps_run(again.executed) == []


def test_the_seed_does_not_reach_a_step_that_draws_nothing(server):
    run_prompt(server, prompt_of(SD3, center_x=0.38))
    assert steps_run(run_prompt(server, prompt_of(SD3, center_x=0.38, seed=9)).executed) == []


def test_own_checkpoint_workflow_runs_and_goes_on(server):
    sampling = {"backbone.sampling_steps": 2}
    first = run_prompt(server, prompt_of(OWN, **sampling))
    assert steps_run(first.executed) == [1, 2, 3]
    assert (find_node(prompt_of(OWN), "CoZChainLoop"),
        "SD3 works best at 1024 pixels, but this view has 32 x 32: raise size of Chain Loop or CoZ First Frame") in first.notices  # fmt: skip
    assert steps_run(run_prompt(server, prompt_of(OWN, steps=4, **sampling)).executed) == [4]
    reseeded = run_prompt(server, prompt_of(OWN, steps=4, seed=3, **sampling))
    assert steps_run(reseeded.executed) == [1, 2, 3, 4]


def test_another_scale_is_noticed(server):
    prompt = prompt_of(SD3, scale=2.0, steps=1)
    notice = "scale is 2, but the Chain-of-Zoom LoRA and similar models are trained for 4x"
    assert (find_node(prompt, "CoZChainLoop"), notice) in run_prompt(server, prompt).notices
