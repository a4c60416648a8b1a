"""The bundled workflows of the diffusion backbones, on tiny weights, through the real server."""

from tools.host import ROOT
from tools.host.client import run_prompt
from tools.host.workflow import find_node, read_prompt

from .prompts import make_node, pictures, preview_scales, steps_run

SD3 = ROOT / "workflows" / "2 Chain-of-Zoom SD3.json"
OWN = ROOT / "workflows" / "5 Your own checkpoint.json"


def prompt_of(workflow, **inputs):
    """The workflow on small frames, with some of the loop's inputs changed."""
    prompt = read_prompt(workflow)
    loop = find_node(prompt, "CoZChainLoop")
    prompt[loop]["inputs"] |= {"size": 32, "steps": 3} | inputs
    preview_scales(prompt, loop)
    return prompt


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


def test_editing_a_step_s_text_runs_it_and_what_follows(server):
    run_prompt(server, prompt_of(SD3, center_x=0.4))
    edited = run_prompt(server, prompt_of(SD3, center_x=0.4, step_prompts="\na mountain"))
    assert steps_run(edited.executed) == [2, 3]


def test_prompts_output_gives_the_same_chain_again(server):
    prompt = prompt_of(SD3, center_x=0.39, prompt="fur", step_prompts="\n-\nan eye (green:1.3)")
    loop = find_node(prompt, "CoZChainLoop")
    prompt["shown"] = make_node("PreviewAny", source=[loop, 2])
    first = run_prompt(server, prompt)
    (text,) = first.outputs["shown"]["text"]
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
        "SD3 works best at 1024 pixels, but this frame has 32 x 32: raise size") in first.notices  # fmt: skip
    longer = run_prompt(server, prompt_of(OWN, steps=4, **sampling))
    assert steps_run(longer.executed) == [4]
    reseeded = run_prompt(server, prompt_of(OWN, steps=4, seed=3, **sampling))
    assert steps_run(reseeded.executed) == [1, 2, 3, 4]


def test_another_scale_is_noticed(server):
    prompt = prompt_of(SD3, scale=2.0, steps=1)
    notice = "scale is 2, but the Chain-of-Zoom LoRA and similar models are trained for 4x"
    assert (find_node(prompt, "CoZChainLoop"), notice) in run_prompt(server, prompt).notices
