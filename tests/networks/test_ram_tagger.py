"""RAM with DAPE against logits and tags recorded from the authors' code: tests/data/README.md."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from coz.networks import ram_tagger
from coz.networks.ram_tagger import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    RAMTagger,
    TaggerSizes,
    make_tagger_input,
    read_tag_list,
    read_tagger_sizes,
)
from coz.render.pillow import from_pillow
from coz.text.tags import join_tags
from coz.weights.read import read_dape, read_tagger
from tests.conftest import DATA

GOLDEN = DATA / "dape"
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
    return from_pillow(Image.open(GOLDEN / "input_512.png"))


def make_network(dape: str | None) -> RAMTagger:
    """RAM with a LoRA in its weights."""
    weights = {name: w.float() for name, w in read_tagger(GOLDEN / "ram_tiny.pth").items()}
    lora = {name: t.float() for name, t in read_dape(GOLDEN / dape).items()} if dape else {}
    for key in [key for key in lora if key.endswith(".alpha")]:
        layer = key.removesuffix(".alpha")
        down, up = lora[f"{layer}.lora_A.weight"], lora[f"{layer}.lora_B.weight"]
        change = up @ down * lora[key] / len(down)
        layer, _, part = layer.partition(".qkv.")
        if part:
            third = "qkv".index(part) * len(change)
            weights[f"{layer}.qkv.weight"][third : third + len(change)] += change
        else:
            weights[f"{layer}.weight"] += change
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
    logits = make_network(DAPE_OF[case])(make_tagger_input(view))
    assert read_error(logits, case) < TOLERANCE
    thresholds = torch.tensor(TEXTS["thresholds"])
    assert join_tags(logits[0], TEXTS["tags"], thresholds, ()) == TEXTS[f"tags_{case}"]


def test_half_precision_costs_what_it_costs_the_authors_code(image):
    logits = make_network("dape_tiny.pth").half()(make_tagger_input(image).half())
    assert read_error(logits.float()) < 6e-3
    thresholds = torch.tensor(TEXTS["thresholds"])
    assert join_tags(logits[0], TEXTS["tags"], thresholds, ()) == TEXTS["tags_dape"]


def test_a_batch_is_its_images(image):
    network = make_network("dape_tiny.pth")
    batch = make_tagger_input(torch.cat([image, image.flip(-1), image.flip(-2)]))
    singles = torch.cat([network(single) for single in batch.split(1)])
    torch.testing.assert_close(network(batch), singles, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("size", [(1, 1), (20, 8000), (8000, 20)])
def test_images_of_any_shape_are_squashed(size):
    flat = make_tagger_input(torch.full((1, 3, *size), 0.5))
    assert flat.shape == (1, 3, 384, 384)
    mean, deviation = torch.tensor([IMAGENET_MEAN, IMAGENET_DEVIATION]).view(2, 3, 1, 1)
    torch.testing.assert_close(flat, ((0.5 - mean) / deviation).expand_as(flat))


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
    assert {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.txt")} == {
        "ram_tag_list.txt": "5d96d2f7225527480ad773aaac76b6e5c08a18adf6eae9ca7d2ab923d5e7bd8b",
        "ram_tag_list_threshold.txt": "b6f81d0de1bc7f9c251af512c413eae976c77dbfbadf700d4e3d90510f4c6447",
    }
    names, thresholds = read_tag_list()
    assert len(set(names)) == len(names) == len(thresholds) == TaggerSizes().tags
    assert not [name for name in names if "," in name]
    never = [name for name, threshold in zip(names, thresholds, strict=True) if threshold == 1]
    assert ", ".join(never) == "body, cocktail table, French, group, lie, show, see, set, stop, use"
    assert thresholds.dtype == torch.float32
    recorded = dict(zip(TEXTS["tags"], torch.tensor(TEXTS["thresholds"]), strict=True))
    ours = dict(zip(names, thresholds, strict=True))
    assert {name: ours[name] for name in recorded} == recorded
