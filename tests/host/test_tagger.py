"""CoZ Load Tagger and CoZ Tag Prompt on small random weights of RAM, in the real host."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from coz.networks.ram_tagger import RAMTagger, make_tagger_input, read_tag_list
from coz.text.tags import join_tags
from coz.weights.read import read_tagger
from tests.conftest import DATA
from tests.support.host_with_card import PLACEMENTS, HostWithCard
from tests.support.images import noise
from tests.support.random_ram import SMALL, dape, ram

from .prompts import as_full_image, kept_prompt, make_node

GOLDEN = DATA / "dape"
EXPECTED = load_file(GOLDEN / "expected.safetensors")
TOLERANCE = 1e-5
HALF_TOLERANCE = 1.3e-3
NOTHING = "all tags are below their thresholds or excluded. Only prompt is used as the text"


@pytest.fixture(scope="module")
def golden_image():
    pixels = np.asarray(Image.open(GOLDEN / "input_512.png"))
    return torch.from_numpy(pixels.copy()).movedim(-1, 0)[None] / 255


@pytest.fixture(scope="module")
def host(nodes_of):
    return nodes_of("host.tagger")


def read_golden(dtype=torch.float32):
    return {name: w.to(dtype) for name, w in read_tagger(GOLDEN / "ram_tiny.pth").items()}


def read_error(logits, case):
    return (logits - EXPECTED[f"logits_{case}"]).abs().max().item()


def test_dape_as_patches_gives_the_recorded_logits_and_comes_off_again(host, golden_image):
    with torch.inference_mode():
        plain = host.make_tagger(read_golden())
        before = plain.rate(golden_image)
        for name, case in (("dape_tiny", "dape"),
                           ("dape_tiny_tagencoder_nonzero", "dape_tagencoder_nonzero")):  # fmt: skip
            patched = host.patch_tagger(plain, GOLDEN / f"{name}.pth", 1.0)
            assert read_error(patched.rate(golden_image), case) < TOLERANCE
        assert read_error(before, "ram") < TOLERANCE
        assert torch.equal(plain.rate(golden_image), before)
        absent = host.patch_tagger(plain, GOLDEN / "dape_tiny.pth", 0.0)
        assert read_error(absent.rate(golden_image), "ram") < TOLERANCE


def test_weights_in_half_precision_are_computed_in_single_precision(host, golden_image):
    with torch.inference_mode():
        tagger = host.make_tagger(read_golden(torch.float16))
        # These weights are exact in half precision; with DAPE in them they are not.
        assert read_error(tagger.rate(golden_image), "ram") < TOLERANCE
        tagger = host.patch_tagger(tagger, GOLDEN / "dape_tiny.pth", 1.0)
        error = read_error(tagger.rate(golden_image), "dape")
    assert TOLERANCE < error < HALF_TOLERANCE


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_card_gives_the_recorded_logits_wherever_the_weights_are(host, golden_image, placement):
    simulated = HostWithCard(placement)
    with simulated.running() as card, torch.inference_mode():
        tagger = host.make_tagger(read_golden())
        tagger = host.patch_tagger(tagger, GOLDEN / "dape_tiny.pth", 1.0)
        before = card.work.copy()
        logits = tagger.rate(golden_image.to(simulated.intermediate_device))
        assert (card.work.since(before).flops > 10**6) == (placement != "offloaded")
    assert logits.device.type == "cpu"
    assert read_error(logits, "dape") < TOLERANCE


def test_weights_that_do_not_fit_the_card_stay_behind(host, golden_image, monkeypatch):
    """As much as the host keeps free of a card leaves no place for the weights."""
    simulated = HostWithCard()
    with simulated.running(), torch.inference_mode():
        tagger = host.make_tagger(read_golden())
        tagger = host.patch_tagger(tagger, GOLDEN / "dape_tiny.pth", 1.0)
        half = tagger.patcher.model_size() // 2
        tagger.patcher.patch_model(simulated.card.device, lowvram_model_memory=half)
        monkeypatch.setattr("comfy.model_management.load_model_gpu", lambda patcher: None)
        logits = tagger.rate(golden_image)
        places = {weight.device for weight in tagger.patcher.model.parameters()}
    assert len(places) == 2
    assert read_error(logits, "dape") < TOLERANCE


@pytest.fixture(scope="module")
def weights():
    return ram()


@pytest.fixture
def execute(node):
    def run(*args, **kwargs):
        with torch.inference_mode():
            return node("CoZTagPrompt").execute(*args, **kwargs)[0]

    return run


@pytest.fixture
def said(nodes_of, monkeypatch):
    """The notices on the node."""
    lines = []
    module = nodes_of("step.tag_prompt")
    for name in ("give_notice", "give_notice_once"):
        monkeypatch.setattr(module, name, lines.append)
    return lines


@pytest.fixture(scope="module")
def tagger(node, tagger_folder):
    with torch.inference_mode():
        return node("CoZLoadTagger").execute("ram_small.pth")[0]


def make_images(count=1, height=40, width=56):
    return noise(count, height, width, 3)


def tag_plainly(weights, image, shift=0.0, excluded=()):
    """The tags of the network outside the host."""
    network = RAMTagger(SMALL)
    network.load_state_dict(weights)
    logits = network(make_tagger_input(image.movedim(-1, 1)))
    names, thresholds = read_tag_list()
    return [join_tags(row, names, thresholds + shift, excluded) for row in logits]


@pytest.mark.parametrize(
    ("image", "shift"),
    [
        *((make_images(), shift) for shift in (0.0, -0.2, 0.1)),
        *((make_images(1, *size), 0.0) for size in ((1, 1), (20, 8000), (8000, 20))),
        *((make_images().to(dtype), 0.0) for dtype in (torch.float16, torch.bfloat16)),
    ],
)
def test_the_text_is_the_tags_of_any_image_and_shift(execute, tagger, weights, image, shift):
    assert execute(tagger, image, shift) == tag_plainly(weights, image.float(), shift)[0]


def test_some_tags_are_found(execute, tagger):
    assert 100 < len(execute(tagger, make_images()).split(", ")) < 4500


def test_the_converted_file_gives_the_same_text(node, execute, tagger):
    with torch.inference_mode():
        converted = node("CoZLoadTagger").execute("ram_small.safetensors")[0]
    assert execute(converted, make_images()) == execute(tagger, make_images())
    for each in (tagger, converted):
        assert {w.dtype for w in each.patcher.model.parameters()} == {torch.float16}


@pytest.mark.parametrize("dape_name", ["DAPE.pth", "DAPE.safetensors"])
def test_dape_changes_the_tags_by_its_strength(node, execute, tagger, weights, dape_name):
    image = make_images()
    load = node("CoZLoadTagger").execute
    with torch.inference_mode():
        texts = {s: execute(load("ram_small.pth", dape_name, s)[0], image) for s in (0.0, 0.5, 1.0)}
        none = execute(load("ram_small.pth", "none", 1.0)[0], image)
    assert texts[0.0] == none == execute(tagger, image)
    assert len(set(texts.values())) == 3
    merged = {name: w.clone() for name, w in weights.items()}
    factors = dape(weights)
    for layer in {name.rpartition(".")[0] for name in factors} & {
        name.removesuffix(".weight") for name in weights
    }:
        down, up = factors[f"{layer}.lora_A"], factors[f"{layer}.lora_B"]
        change = merged[f"{layer}.weight"]
        if layer.endswith("qkv"):
            d = down.shape[1]
            change[:d] += up[:d] @ down[:8] / 8
            change[2 * d :] += up[d:] @ down[8:] / 8
        else:
            change += up @ down / 8
    (expected,) = tag_plainly({name: w.half().float() for name, w in merged.items()}, image)
    found, wanted = set(texts[1.0].split(", ")), set(expected.split(", "))
    assert len(found ^ wanted) <= 0.005 * len(wanted)  # half precision turns a tag at its threshold


def test_a_batch_gives_a_line_for_each_image(execute, tagger):
    batch = make_images(3)
    lines = execute(tagger, batch, prompt="a cat\nat home").split("\n")
    assert lines == [execute(tagger, single, prompt="a cat at home") for single in batch.split(1)]
    assert len(set(lines)) == 3
    assert all(line.endswith(", a cat at home") for line in lines)


def test_tags_are_excluded_in_any_case(execute, tagger, weights, said):
    first, second, *rest = execute(tagger, make_images()).split(", ")
    excluded = f" {second.upper()} ,\n{first},"
    assert execute(tagger, make_images(), exclude=excluded) == ", ".join(rest)
    assert said == []
    execute(tagger, make_images(2), exclude=f"{first}, no such tag，Nor THIS, no such tag")
    assert said == ["exclude names tags that RAM does not have: no such tag, nor this"]


def test_no_tag_is_an_empty_text_and_is_said(execute, tagger, said):
    assert execute(tagger, make_images(), 1.0) == ""
    assert execute(tagger, make_images(), 1.0, prompt="fur") == "fur"
    assert said == [f"No tag was found: {NOTHING}"] * 2
    assert execute(tagger, make_images(2), 1.0) == "-\n-"
    assert said[2:] == [f"No tag was found in 2 of 2 images: {NOTHING}"]


def test_a_nan_is_refused_in_an_image_and_in_the_weights(host, execute, tagger, weights):
    image = make_images()
    image[0, 3, 4, 1] = torch.nan
    with pytest.raises(ValueError, match="image holds 1 values that are NaN or infinite"):
        execute(tagger, image)
    broken = host.make_tagger(weights | {"fc.bias": torch.tensor([torch.nan])})
    with pytest.raises(ValueError, match="tagger made values that are NaN or infinite"):
        execute(broken, make_images())


@pytest.mark.parametrize("shift", [1.5, -1.01, float("nan")])
def test_a_shift_beyond_its_range_is_refused(execute, tagger, shift):
    with pytest.raises(ValueError, match="threshold_shift must be -1 to 1, got"):
        execute(tagger, make_images(), shift)


def test_another_object_is_refused(execute):
    with pytest.raises(ValueError, match="tagger must be a tagger from CoZ Load Tagger, got str"):
        execute("tagger", make_images())


def test_another_number_of_tags_is_refused(host):
    message = "expected RAM with 4585 tags, but found 61; take ram_swin"
    with pytest.raises(ValueError, match=message):
        host.load_tagger(GOLDEN / "ram_tiny.pth")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (SMALL._replace(width=16), r"its layer for .* is 8 x 8, but in tagger it is 16 x 16"),
        (SMALL._replace(depths=(2, 2, 2, 1)), "tagger has no visual_encoder.layers.3.blocks.1"),
    ],
)
def test_a_lora_of_other_sizes_is_refused(host, tagger_folder, sizes, message):
    narrow = host.make_tagger(ram(sizes))
    with pytest.raises(ValueError, match=rf"DAPE.pth does not fit tagger: {message}"):
        host.patch_tagger(narrow, tagger_folder / "DAPE.pth", 1.0)


def test_missing_files_are_named_before_the_run(node):
    check = node("CoZLoadTagger").validate_inputs
    assert check("ram_small.pth", "none") is True
    said = check("gone.pth", "DAPE.pth")
    start = "gone.pth is not in models/text_encoders. Put the file there and press R."
    assert said.startswith(start)
    assert "ram_swin_large_14m.pth of https://huggingface.co/xinyu1205" in said
    assert "DAPE.pth of https://huggingface.co/CSWRY/SeeSR" in check("ram_small.pth", "gone.pth")


TAGGER = {"tagger_name": "ram_small.pth", "dape_name": "DAPE.pth", "dape_strength": 1.0}


def tagged(prompt, exclude=""):
    """The prompt with tags as the texts of its loop."""
    prompt["tagger"] = make_node("CoZLoadTagger", **TAGGER)
    prompt["loop"]["inputs"] |= {
        "prompting": "tags (RAM/DAPE)",
        "prompting.tagger": ["tagger", 0],
        "prompting.exclude": exclude,
    }
    return prompt


@pytest.fixture
def asked(host, tagger_folder, before):
    """The images that a tagger rates."""
    images = []
    before(host.Tagger, "rate", lambda self, image: images.append(image))
    return images


def test_a_chain_with_tags_asks_once_for_each_step_and_is_reproduced(executor, keep, asked):
    host = executor("LRU")
    host.run(tagged(kept_prompt(steps=2, prompt="fur")))
    first = keep[-1]
    texts = first["prompts"].split("\n")
    assert len(asked) == len(texts) == 2
    assert all(text.endswith(", fur") and text.count(",") > 100 for text in texts)
    assert [*first["chain"].prompts] == texts
    host.run(tagged(kept_prompt(steps=2, prompt="fur")))
    assert len(asked) == 2
    host.run(tagged(kept_prompt(steps=3, prompt="fur")))
    assert len(asked) == 3
    host.run(kept_prompt(steps=2, step_prompts=first["prompts"]))
    assert torch.equal(keep[-1]["scales"], first["scales"])
    assert keep[-1]["prompts"] == first["prompts"]


def test_typed_lines_are_kept_and_their_steps_ask_nothing(executor, keep, asked):
    executor("CLASSIC").run(tagged(kept_prompt(steps=3, step_prompts="own\n\n-"), "Cat"))
    own, written, none = keep[-1]["prompts"].split("\n")
    assert (own, none) == ("own", "-")
    assert written.count(",") > 100
    assert len(asked) == 1


def test_full_image_asks_once_for_each_tile(executor, keep, asked):
    prompt = tagged(as_full_image(kept_prompt(prompt="fur"), scale=2.0, tile=256, overlap=32))
    prompt["source"] = make_node("EmptyImage", width=200, height=120, batch_size=1, color=123)
    prompt["scales"]["inputs"] = {"image": ["loop", 0], "prompts": ["loop", 1]}
    host = executor("CLASSIC")
    host.run(prompt)
    texts = keep[-1]["prompts"].split("\n")
    assert len(asked) == len(texts) > 1
    assert all(text.endswith(", fur") for text in texts)
    before = len(asked)
    prompt["loop"]["inputs"]["prompt"] = "hair"
    host.run(prompt)
    assert len(asked) == before
    assert all(text.endswith(", hair") for text in keep[-1]["prompts"].split("\n"))


def test_an_image_list_runs_once_for_each(executor, keep, give, asked):
    give("TestBatch", "IMAGE", make_images(2))
    inputs = {"tagger": ["tagger", 0], "image": ["list", 0], "threshold_shift": 0.0, "exclude": ""}
    prompt = {
        "batch": make_node("TestBatch"),
        "list": make_node("RebatchImages", images=["batch", 0], batch_size=1),
        "tagger": make_node("CoZLoadTagger", **TAGGER | {"dape_name": "none"}),
        "tag": make_node("CoZTagPrompt", **inputs),
        "kept": make_node("TestKeep", prompts=["tag", 0]),
    }
    host = executor("CLASSIC")
    host.run(prompt, "kept")
    assert len(keep) == len(asked) == 2
    assert host.ui("tag")["coz_text"] == [each["prompts"] for each in keep]
