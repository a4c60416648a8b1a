"""Files of RAM and DAPE, as published, converted, wrong and damaged."""

import pytest
import torch
from safetensors.torch import save_file

from coz.weights import weight_file
from coz.weights.ram import convert_dape
from coz.weights.read import read_dape, read_tagger, read_weights, read_with_standard_keys
from tests.support.random_ram import as_published, dape, ram
from tests.support.random_weights import are_equal
from tools.convert import convert

HEAD = "tagging_head.encoder.layer.0.crossattention.self.query"
QKV = "visual_encoder.layers.0.blocks.0.attn.qkv"


@pytest.fixture(scope="module")
def weights():
    return ram()


@pytest.fixture
def files(tmp_path, weights):
    torch.save(as_published(weights), tmp_path / "ram.pth")
    torch.save(dape(weights), tmp_path / "dape.pth")
    return tmp_path


@pytest.mark.parametrize("limit", [0, 2**30], ids=["mapped", "read"])
def test_of_rams_file_only_what_rates_the_tags_is_kept(files, weights, limit, monkeypatch):
    monkeypatch.setattr(weight_file, "MAX_READ_BYTES", limit)
    assert are_equal(read_tagger(files / "ram.pth"), weights)


def test_a_large_file_is_mapped_and_a_small_one_is_not(files, monkeypatch):
    size = (files / "ram.pth").stat().st_size
    load, seen = torch.load, []
    monkeypatch.setattr(torch, "load", lambda *a, **k: (seen.append(k["mmap"]), load(*a, **k))[1])
    for limit in (size - 1, size):
        monkeypatch.setattr(weight_file, "MAX_READ_BYTES", limit)
        read_tagger(files / "ram.pth")
    assert seen == [True, False]


def test_large_files_of_older_formats_are_read(files, weights, monkeypatch):
    monkeypatch.setattr(weight_file, "MAX_READ_BYTES", 0)
    renamed = {name.replace("tagging_head", "vision_multi"): w for name, w in weights.items()}
    for content in (as_published(weights), {"model": renamed}):
        torch.save(content, files / "old.pth", _use_new_zipfile_serialization=False)
        assert are_equal(read_tagger(files / "old.pth"), weights)


def test_the_converted_file_holds_the_weights_in_half_precision(files, weights):
    use = convert(files / "ram.pth", files / "ram.safetensors", None, None)
    assert use.startswith("CoZ Load Tagger takes it, as tagger_name.")
    found = read_tagger(files / "ram.safetensors")
    assert {weight.dtype for weight in found.values()} == {torch.float16}
    assert are_equal({name: w.float() for name, w in found.items()}, weights)
    assert read_with_standard_keys(files / "ram.safetensors").kind == "ram"


def test_dape_is_merged_at_an_eighth_into_query_and_value(weights):
    keyed = convert_dape(dape(weights))
    assert (keyed.kind, keyed.rank, keyed.alpha) == ("dape", 8, 1)
    factors = dape(weights)
    for end in "AB":
        query, value = factors[f"{QKV}.lora_{end}"].chunk(2)
        assert torch.equal(keyed.tensors[f"{QKV}.q.lora_{end}.weight"], query)
        assert torch.equal(keyed.tensors[f"{QKV}.v.lora_{end}.weight"], value)
    assert len(keyed.tensors) == 3 * (2 * 8 + 4)
    assert {t.item() for name, t in keyed.tensors.items() if name.endswith("alpha")} == {1.0}


def test_a_lora_of_the_shared_weights_is_added(weights):
    factors = dape(weights)
    shared = HEAD.replace("tagging_head", "tag_encoder")
    one = {f"{shared}.lora_{end}": factors[f"{HEAD}.lora_{end}"].flip(0) for end in "AB"}
    tensors = convert_dape(factors | one).tensors
    down, up = tensors[f"{HEAD}.lora_A.weight"], tensors[f"{HEAD}.lora_B.weight"]
    pairs = [(f[f"{n}.lora_B"], f[f"{n}.lora_A"]) for f, n in ((factors, HEAD), (one, shared))]
    expected = sum(up @ down for up, down in pairs) / 8
    found = up @ down * tensors[f"{HEAD}.alpha"] / len(down)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_deeper_tag_encoder_and_the_decoder_are_left_out(weights):
    places = "tag_encoder.encoder.layer.7.cross", "text_decoder.bert.encoder.layer.0."
    layers = [f"{place}attention.self.query" for place in places]
    more = {f"{layer}.lora_{end}": torch.ones(8, 8) for layer in layers for end in "AB"}
    found, expected = (convert_dape(dape(weights) | added).tensors for added in (more, {}))
    assert are_equal(found, expected)


def test_dape_is_read_and_converted(files, weights):
    expected = convert_dape(dape(weights)).tensors
    assert are_equal(read_dape(files / "dape.pth"), expected)
    use = convert(files / "dape.pth", files / "dape.safetensors", None, None)
    assert use == "CoZ Load Tagger takes it, as dape_name."
    assert are_equal(read_dape(files / "dape.safetensors"), expected)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_one_taken_for_the_other_is_named(files, suffix):
    if suffix == "safetensors":
        for name in ("ram", "dape"):
            convert(files / f"{name}.pth", files / f"{name}.safetensors", None, None)
    with pytest.raises(ValueError, match="but found DAPE, a LoRA for it; choose it as dape_name"):
        read_tagger(files / f"dape.{suffix}")
    with pytest.raises(ValueError, match="but found RAM itself; choose it as tagger_name"):
        read_dape(files / f"ram.{suffix}")
    for name in ("ram", "dape"):
        with pytest.raises(ValueError, match="choose it in CoZ Load Tagger"):
            read_weights(files / f"{name}.{suffix}")


@pytest.mark.parametrize("read", [read_tagger, read_dape])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"a": torch.zeros(1)}}, "but found nothing; take"),
        ({"a": torch.zeros(1)}, "but found a; take"),
        ([torch.zeros(1)], "but found nothing; take"),
    ],
)
def test_another_file_is_named(tmp_path, read, content, message):
    path = tmp_path / "x.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=rf"^x.pth: expected .*{message}"):
        read(path)


@pytest.mark.parametrize("limit", [0, 2**30], ids=["mapped", "read"])
@pytest.mark.parametrize("name", ["ram.pth", "dape.pth"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_named(files, name, share, limit, monkeypatch):
    monkeypatch.setattr(weight_file, "MAX_READ_BYTES", limit)
    whole = (files / name).read_bytes()
    (files / name).write_bytes(whole[: int(len(whole) * share)])
    for read in (read_tagger, read_dape):
        with pytest.raises(ValueError, match=f"^{name}: .* damaged file; .* download it again"):
            read(files / name)


def test_ram_plus_plus_is_named(files, weights):
    plus = weights | {"label_embed": torch.zeros(51 * 9, 512), "reweight_scale": torch.ones(())}
    torch.save({"model": plus}, files / "plus.pth")
    with pytest.raises(ValueError, match=r"found RAM\+\+, .*; take ram_swin_large_14m.pth"):
        read_tagger(files / "plus.pth")


@pytest.mark.parametrize(
    ("name", "weight", "message"),
    [
        ("fc.weight", None, r"expected fc.weight of RAM to be \(1, 32\), but found none"),
        ("visual_encoder.norm.bias", torch.zeros(7), r"to be \(64,\), but found \(7,\)"),
        ("label_embed", torch.zeros(()), "expected all weights of RAM"),
        ("visual_encoder.patch_embed.norm.weight", None, r"one is missing .*\('.*patch_embed.norm"),
        ("visual_encoder.layers.9999999999.blocks.0.x", torch.zeros(1), "one is missing"),
        ("visual_encoder.extra", torch.zeros(1), "RAM alone, but found visual_encoder.extra besides"),
    ],
)  # fmt: skip
def test_a_weight_that_does_not_fit_is_named(files, weights, name, weight, message):
    changed = {key: w for key, w in weights.items() if key != name}
    if weight is not None:
        changed[name] = weight
    save_file(changed, files / "x.safetensors")
    if "label_embed" not in name:
        message += ".*; take ram_swin_large_14m.pth"
    with pytest.raises(ValueError, match=message):
        read_tagger(files / "x.safetensors")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (f"{HEAD}.lora_B", None, f"expected {HEAD} to have two LoRA factors"),
        (f"{HEAD}.lora_B", torch.zeros(3), f"expected {HEAD} to have two LoRA factors"),
        (f"{HEAD}.lora_B", torch.zeros(32, 3), rf"expected {HEAD} to have LoRA factors that fit"),
        (f"{QKV}.lora_A", torch.zeros(1, 8), f"expected {QKV}.q to have LoRA factors that fit"),
    ],
)
def test_a_factor_that_does_not_fit_is_named(files, weights, name, tensor, message):
    factors = {key: t for key, t in dape(weights).items() if key != name}
    if tensor is not None:
        factors[name] = tensor
    torch.save(factors, files / "dape.pth")
    with pytest.raises(ValueError, match=rf"^dape.pth: {message}.*; take DAPE.pth"):
        read_dape(files / "dape.pth")
