"""The nodes where ComfyUI is used as a library: the host's executor without PromptServer.instance."""

import pytest
import torch

from .prompts import as_full_image, kept_prompt, make_node


@pytest.fixture
def library(executor):
    from server import PromptServer

    assert not hasattr(PromptServer, "instance")
    return executor("CLASSIC", is_library=True)


def test_chain_loop_and_all_that_shows_a_chain_run_without_a_server(
    library, executor, keep, output_folder
):
    prompt = kept_prompt(scale=3.0, steps=2, step_prompts="a\nb")
    video = {"seconds_per_step": 0.1, "fps": 24.0, "easing": "none", "hold": 0.0, "reverse": False}
    shows = {
        "CoZZoomViewer": {},
        "CoZMeasure": {},
        "CoZDetailMap": {},
        "CoZZoomStrip": {"layout": "row", "labels": True},
        "CoZZoomVideo": {"width": 64, "height": 64, **video},
        "CoZSaveChain": {"filename_prefix": "chain"},
    }
    prompt |= {name: make_node(name, chain=["loop", 3], **shows[name]) for name in shows}
    ends = [name for name in shows if name not in {"CoZZoomViewer", "CoZSaveChain"}]
    for name in ends:
        prompt[f"end {name}"] = make_node("PreviewAny", source=[name, 0])
    for output in ("scales", "CoZZoomViewer", "CoZSaveChain", *(f"end {name}" for name in ends)):
        assert output in library.run(prompt, output)
    assert (output_folder / "chain_00001_" / "chain.json").is_file()
    (without,) = keep
    executor("CLASSIC").run(kept_prompt(scale=3.0, steps=2, step_prompts="a\nb"))
    assert torch.equal(without["scales"], keep[1]["scales"])
    assert without["chain"].to_json() == keep[1]["chain"].to_json()


def test_full_image_sr_runs_without_a_server(library, keep, caplog):
    prompt = kept_prompt()
    place = {"frame": "native pixels", "size": 64, "center_x": 0.5, "center_y": 0.5}
    prompt["fit"] = make_node("CoZFitImage", image=["source", 0], **place)
    texts = "a\nb\n" * 20
    as_full_image(prompt, image=["fit", 0], scale=2.0, tile=64, overlap=16, tile_prompts=texts)
    library.run(prompt)
    assert keep[0]["image"].shape == (1, 128, 128, 3)
    assert "the extra lines are not used" in caplog.text  # what is told still goes to the log
