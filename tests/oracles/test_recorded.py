"""What was recorded is what the libraries give, and drawn weights are those of their networks."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.support.random_qwen import (
    draw_qwen25vl,
    qwen25vl,
    save_prompt_lora,
    save_shards,
    with_prompt_lora,
)
from tests.support.random_sd3 import (
    autoencoder,
    draw_autoencoder,
    draw_coz_encoder,
    draw_sd3,
    sd3_transformer,
    with_coz_encoder,
)
from tests.support.random_weights import are_equal, list_shapes, read_layouts
from tests.support.small_models import WIDTH

from .record import FOLDER, TENSORS, make, read, write_json

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", TENSORS)
def test_results_are_those_of_the_libraries(name):
    found, recorded = make(name), read(name)
    assert found.keys() == recorded.keys()
    for key, expected in recorded.items():
        # Another CPU rounds otherwise: up to 3e-5 in the images of SD3.
        bar = 1e-4 * expected.abs().max() if expected.is_floating_point() else 0
        torch.testing.assert_close(found[key], expected, rtol=0, atol=float(bar), msg=key)


def test_layouts_are_those_of_the_libraries():
    assert write_json(make("layouts")) == (FOLDER / "layouts.json").read_text("utf-8")


def test_the_config_of_an_adapter_is_that_of_peft():
    recorded = json.loads((FOLDER / "adapter_config.json").read_text("utf-8"))
    assert make("adapter_config") | {"peft_version": recorded["peft_version"]} == recorded


def test_metrics_are_those_of_the_libraries():
    found = make("metrics")
    recorded = json.loads((FOLDER / "metrics.json").read_text("utf-8"))
    assert found.keys() == recorded.keys()
    for name, figures in recorded.items():
        assert found[name] == pytest.approx(figures, rel=1e-9)


def test_drawn_weights_are_those_of_the_networks():
    network = autoencoder(width=WIDTH)
    drawn = draw_autoencoder(width=WIDTH)
    assert are_equal(drawn, network.state_dict())
    assert are_equal(draw_coz_encoder(drawn), with_coz_encoder(network).encoder.state_dict())
    weights, expected = draw_sd3(), sd3_transformer(2).state_dict()
    places = (state.pop("pos_embed.pos_embed") for state in (weights, expected))
    torch.testing.assert_close(*places, rtol=0, atol=1e-5)
    assert are_equal(weights, expected)


def test_written_files_are_those_of_the_libraries(tmp_path):
    network = qwen25vl()
    shapes = list_shapes(network)
    assert shapes == read_layouts()["qwen25vl"]
    save_shards(draw_qwen25vl(), tmp_path / "ours")
    save_prompt_lora(shapes, tmp_path / "ours")
    network.save_pretrained(tmp_path / "theirs", max_shard_size="100MB")
    with_prompt_lora(network).save_pretrained(tmp_path / "theirs")
    ours, theirs = (sorted(tmp_path.glob(f"{who}/*.safetensors")) for who in ("ours", "theirs"))
    assert [path.name for path in ours] == [path.name for path in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert are_equal(load_file(our), load_file(their)), our.name
    indices = [
        json.loads((tmp_path / who / "model.safetensors.index.json").read_text("utf-8"))
        for who in ("ours", "theirs")
    ]
    assert indices[0]["weight_map"] == indices[1]["weight_map"]
