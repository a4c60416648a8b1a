"""Chain Loop through the real HTTP server with default flags."""

import json

import pytest
import requests

from tools.host.client import PromptError, run_prompt

from .prompts import chain_prompt, make_node


def interrupt_after_step_two(server):
    def on_event(event):
        if event["type"] == "executed" and event["data"]["node"].endswith("coz_check_2"):
            requests.post(f"{server}/interrupt")

    return on_event


def saved_chain(**inputs):
    prompt = chain_prompt(**inputs)
    prompt["save"] = make_node("SaveImage", images=["loop", 1], filename_prefix="zoom")
    return prompt


def output_files(folder):
    """Path -> content of all that lies in the server's output folder."""
    return {path: path.read_bytes() for path in (folder / "output").rglob("*") if path.is_file()}


def test_overall_progress_and_finished_scales_show_on_the_loop(server):
    run = run_prompt(server, chain_prompt(center_x=0.43, steps=3))
    progress = [
        (event["data"]["value"], event["data"]["max"])
        for event in run.events
        if event["type"] == "progress" and event["data"]["node"].endswith("coz_collect")
    ]
    assert progress == [(0, 4), (1, 4), (2, 4), (3, 4)]
    # What the frontend draws on the loop is merged from the children that display there.
    drawn = {
        state["node_id"].rpartition(".")[2]
        for event in run.events
        if event["type"] == "progress_state"
        for state in event["data"]["nodes"].values()
        if state["display_node_id"] == "loop" and state["node_id"] != "loop"
    }
    assert drawn == {"coz_collect", "coz_check_1", "coz_check_2", "coz_check_3"}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"center_x": 1.5}, "Value 1.5 bigger than max of 1.0"),
        ({"center_y": -0.1}, "Value -0.1 smaller than min of 0.0"),
        ({"scale": 9.0}, "Value 9.0 bigger than max of 8.0"),
        ({"steps": 17}, "Value 17 bigger than max of 16"),
        ({"size": 8}, "Value 8 smaller than min of 16"),
        ({"frame": "half"}, "Value not in list"),
        ({"backbone": "other"}, "backbone"),
    ],
)
def test_limits_are_reported_before_anything_runs(server, inputs, message):
    with pytest.raises(PromptError, match=message):
        run_prompt(server, chain_prompt(**inputs))


def test_an_open_backbone_socket_is_named(server):
    prompt = chain_prompt()
    del prompt["loop"]["inputs"]["backbone.upscale_model"]
    with pytest.raises(PromptError, match=r"Required input is missing.*upscale_model"):
        run_prompt(server, prompt)


@pytest.mark.parametrize(
    ("center_x", "batch", "message"),
    [(0.45, 2, "image is a batch of 2 images"), (0.46, 1, "execution_interrupted")],
    ids=["a batch", "interrupted in the middle"],
)
def test_a_failed_run_writes_no_output_and_loses_none(
    server, server_folder, center_x, batch, message
):
    run_prompt(server, saved_chain(steps=1, center_x=0.44))
    before = output_files(server_folder)
    assert before
    prompt = saved_chain(steps=8, center_x=center_x)
    size = {"width": 300, "height": 200, "batch_size": batch}
    prompt["source"] = make_node("EmptyImage", color=0x808080, **size)
    with pytest.raises(PromptError, match=message):
        run_prompt(server, prompt, interrupt_after_step_two(server))
    assert output_files(server_folder) == before
    prompt["source"]["inputs"]["batch_size"] = 1
    run_prompt(server, prompt)
    after = output_files(server_folder)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 9


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("extensions/chain-of-zoom/docs/CoZChainLoop.md", "Rebatch Images"),
        ("extensions/chain-of-zoom/docs/CoZChainLoop/zh.md", "对准图片中的一点"),
        ("i18n", "链式放大循环"),
    ],
)
def test_help_pages_and_texts_are_served(server, path, text):
    body = requests.get(f"{server}/{path}").content.decode()
    assert text in (json.dumps(json.loads(body), ensure_ascii=False) if path == "i18n" else body)
