"""RAM with DAPE against logits and tags recorded from the authors' code: tests/data/README.md."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from coz.networks import ram_tagger
from coz.networks.ram_tagger import (
    RAMTagger,
    TaggerSizes,
    make_tagger_input,
    read_tag_list,
    read_tagger_sizes,
)
from coz.text.tags import join_tags
from coz.weights.read import read_dape, read_tagger

GOLDEN = Path(__file__).parents[1] / "data" / "dape"
EXPECTED = load_file(GOLDEN / "expected.safetensors")
TEXTS = json.loads((GOLDEN / "expected.json").read_text("utf-8"))
TOLERANCE = 1e-5

DAPE_OF = {
    "ram": None,
    "dape": "dape_tiny.pth",
    "dape_flipped": "dape_tiny.pth",
    "dape_tagencoder_nonzero": "dape_tiny_tagencoder_nonzero.pth",
}
"""Recorded case -> its LoRA."""


@pytest.fixture(scope="module")
def image():
    pixels = np.asarray(Image.open(GOLDEN / "input_512.png"))
    return torch.from_numpy(pixels.copy()).movedim(-1, 0)[None] / 255


def read_merged(
    dape: str | None, scale: float = 1.0, parts: str = "qv", with_head: bool = True
) -> dict:
    """RAM's weights with a LoRA in them; of the rows of qkv it changes ``parts``, "q" and "v"."""
    weights = {name: w.float() for name, w in read_tagger(GOLDEN / "ram_tiny.pth").items()}
    lora = {name: t.float() for name, t in read_dape(GOLDEN / dape).items()} if dape else {}
    for key in [key for key in lora if key.endswith(".alpha")]:
        layer = key.removesuffix(".alpha")
        down, up = lora[f"{layer}.lora_A.weight"], lora[f"{layer}.lora_B.weight"]
        change = up @ down * lora[key] / len(down) * scale
        layer, _, part = layer.partition(".qkv.")
        if part:
            third = "qkv".index(parts["qv".index(part)]) * len(change)
            weights[f"{layer}.qkv.weight"][third : third + len(change)] += change
        elif with_head:
            weights[f"{layer}.weight"] += change
    return weights


def make_network(weights) -> RAMTagger:
    network = RAMTagger(read_tagger_sizes(weights))
    network.load_state_dict(weights)
    return network


def read_error(logits, case="dape") -> float:
    return (logits - EXPECTED[f"logits_{case}"]).abs().max().item()


def test_the_image_is_prepared_as_recorded(image):
    assert torch.equal(make_tagger_input(image)[..., ::8, ::8], EXPECTED["input_384_every_8"])


@pytest.mark.parametrize("case", DAPE_OF)
def test_logits_and_tags_are_those_of_the_authors_code(image, case):
    view = image.flip(-1) if case == "dape_flipped" else image
    logits = make_network(read_merged(DAPE_OF[case]))(make_tagger_input(view))
    assert read_error(logits, case) < TOLERANCE
    thresholds = torch.tensor(TEXTS["thresholds"])
    assert join_tags(logits[0], TEXTS["tags"], thresholds, ()) == TEXTS[f"tags_{case}"]


def test_half_precision_costs_what_it_costs_the_authors_code(image):
    logits = make_network(read_merged("dape_tiny.pth")).half()(make_tagger_input(image).half())
    assert read_error(logits.float()) < 6e-3
    thresholds = torch.tensor(TEXTS["thresholds"])
    assert join_tags(logits[0], TEXTS["tags"], thresholds, ()) == TEXTS["tags_dape"]


def shift_last_stage(network):
    network.visual_encoder.layers[3].blocks[1].shift = 6


def merge_row_by_row(network):
    """Concatenate 2 x 2 tokens in the order 00, 01, 10, 11."""
    for stage in network.visual_encoder.layers[:3]:
        merge = stage.downsample
        for weight in (merge.norm.weight, merge.norm.bias, merge.reduction.weight):
            a, b, c, d = weight.data.clone().chunk(4, -1)
            weight.data = torch.cat([a, c, b, d], -1)


def turn_bias_around(network):
    """Take the offset from the key to the query in place of the other way round."""
    for name, table in network.named_parameters():
        if name.endswith("relative_position_bias_table"):
            table.data = table.data.flip(0)


def leave_mean_out(network):
    network.visual_encoder.register_forward_hook(lambda module, given, result: result[:, 1:])


def resize_without_filter(image):
    return F.interpolate(image, (384, 384), mode="bilinear")


MISTAKES = {
    "LoRA scale 1": (5.1, {"scale": 8.0}, None, None),
    "LoRA on q and k": (2.1, {"parts": "qk"}, None, None),
    "LoRA on the image encoder alone": (0.11, {"with_head": False}, None, None),
    "shift in the last stage": (0.24, {}, shift_last_stage, None),
    "merging row by row": (0.22, {}, merge_row_by_row, None),
    "bias of the wrong sign": (0.067, {}, turn_bias_around, None),
    "no normalization": (0.62, {}, None, lambda image: F.interpolate(
        image, (384, 384), mode="bilinear", antialias=True)),
    "no antialias": (3.9e-3, {}, None, lambda image: (
        resize_without_filter(image) - make_mean(0)) / make_mean(1)),
    "no mean token": (1.6e-3, {}, leave_mean_out, None),
}  # fmt: skip
"""Mistake -> its largest error in a logit, as recorded, and what it changes."""


def make_mean(index):
    values = (ram_tagger.IMAGENET_MEAN, ram_tagger.IMAGENET_DEVIATION)[index]
    return torch.tensor(values).view(3, 1, 1)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_typical_mistake_would_be_seen(image, mistake):
    cost, merge, change, prepare = MISTAKES[mistake]
    network = make_network(read_merged("dape_tiny.pth", **merge))
    if change:
        change(network)
    error = read_error(network((prepare or make_tagger_input)(image)))
    assert error == pytest.approx(cost, rel=0.05)
    assert error > 100 * TOLERANCE


def test_a_batch_is_its_images(image):
    network = make_network(read_merged("dape_tiny.pth"))
    batch = make_tagger_input(torch.cat([image, image.flip(-1), image.flip(-2)]))
    singles = torch.cat([network(single) for single in batch.split(1)])
    torch.testing.assert_close(network(batch), singles, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("size", [(1, 1), (20, 8000), (8000, 20)])
def test_images_of_any_shape_are_squashed(size):
    flat = make_tagger_input(torch.full((1, 3, *size), 0.5))
    assert flat.shape == (1, 3, 384, 384)
    torch.testing.assert_close(flat, ((0.5 - make_mean(0)) / make_mean(1)).expand_as(flat))


def test_full_width_is_that_of_the_published_file():
    with torch.device("meta"):
        network = RAMTagger()
        assert network(torch.zeros(2, 3, 384, 384)).shape == (2, 4585)
    weights = network.state_dict()
    assert len(weights) == 366
    assert sum(weight.numel() for weight in weights.values()) == 212_117_045
    assert read_tagger_sizes(weights) == TaggerSizes()


def test_the_tags_are_those_of_ram():
    folder = Path(ram_tagger.__file__).parent
    hashes = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.txt")
    }
    assert hashes == {
        "ram_tag_list.txt": "5d96d2f7225527480ad773aaac76b6e5c08a18adf6eae9ca7d2ab923d5e7bd8b",
        "ram_tag_list_threshold.txt": "b6f81d0de1bc7f9c251af512c413eae976c77dbfbadf700d4e3d90510f4c6447",
    }
    names, thresholds = read_tag_list()
    assert len(set(names)) == len(names) == len(thresholds) == TaggerSizes().tags
    assert not [name for name in names if "," in name]
    never = [name for name, threshold in zip(names, thresholds, strict=True) if threshold == 1]
    assert never == [
        "body",
        "cocktail table",
        "French",
        "group",
        "lie",
        "show",
        "see",
        "set",
        "stop",
        "use",
    ]
    assert thresholds.dtype == torch.float32
    recorded = dict(zip(TEXTS["tags"], torch.tensor(TEXTS["thresholds"]), strict=True))
    ours = dict(zip(names, thresholds, strict=True))
    assert {name: ours[name] for name in recorded} == recorded
