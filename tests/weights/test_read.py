import json
import pickle
import re
import sys
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import load_file, save_file

from coz.weights.invsr import read_noise_predictor
from coz.weights.lora import pair_factors
from coz.weights.read import (
    read_dape,
    read_prompt_lora,
    read_tagger,
    read_vae,
    read_weights,
    read_with_standard_keys,
    require_safetensors,
)
from tests.conftest import DATA
from tests.support.gadgets import hostile_pickles
from tests.support.lying_files import lying_safetensors, safetensors
from tests.support.random_sd3 import sd3_transformer
from tests.support.random_weights import are_equal
from tools.convert import convert

SR_LAYER = "base_model.model.transformer_blocks.0.attn.to_q"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 68\n"
LANGUAGE_LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


def factors(layer, rank=4):
    return {
        f"{layer}.lora_A.weight": torch.randn(rank, 8),
        f"{layer}.lora_B.weight": torch.randn(8, rank),
    }


def save_adapter(folder, tensors, **config):
    path = folder / "adapter_model.safetensors"
    save_file(tensors, path)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8, **config}))
    return path


def unet():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 32),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=8,
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sr_lora_2block.pkl", "coz lora"), ("sr_vae_encoder_small.pt", "coz vae encoder")],
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_upstream_files_are_read_in_both_formats_of_torch(tmp_path, name, kind, is_zip):
    content = torch.load(DATA / name, weights_only=True)
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=is_zip)
    weights, golden = read_weights(tmp_path / name), read_weights(DATA / name)
    assert weights.kind == kind
    assert are_equal(weights.lora, golden.lora)
    assert are_equal(weights.vae, golden.vae)


@pytest.mark.parametrize("name", ["sr_lora_2block.pkl", "sr_vae_encoder_small.pt"])
def test_tensors_of_training_leave_their_gradients_behind(tmp_path, name):
    content = torch.load(DATA / name, weights_only=True)
    for tensor in content if isinstance(content, list) else content.values():
        tensor.requires_grad_()
    torch.save(content, tmp_path / name)
    weights = read_weights(tmp_path / name)
    assert not any(tensor.requires_grad for tensor in {**weights.lora, **weights.vae}.values())


def test_a_hostile_files_call_is_named(tmp_path):
    (tmp_path / "x.pt").write_bytes(hostile_pickles(tmp_path / "ran")["os.system"])
    with pytest.raises(ValueError, match=r"found a call of os\.system, which is never run"):
        read_weights(tmp_path / "x.pt")


READERS = [read_weights, read_prompt_lora, read_vae, read_tagger, read_dape, read_noise_predictor]


@pytest.mark.skipif(sys.platform == "win32", reason="the gadgets are a Unix shell's")
def test_no_gadget_of_any_family_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "ran"
    files = hostile_pickles(marker)
    assert len(files) == 85
    for name, content in files.items():
        for suffix in (".pkl", ".pt", ".safetensors"):
            path = tmp_path / f"x{suffix}"
            path.write_bytes(content)
            for read in READERS:
                with pytest.raises(ValueError, match=rf"^x\{suffix}: expected .*, but found"):
                    read(path)
                assert not marker.exists(), (name, suffix)


class Dressed:
    """A dict of the given items whose pickle gives it attributes of its own."""

    def __init__(self, content, **attributes):
        self.content, self.attributes = content, attributes

    def __reduce__(self):
        return OrderedDict, (), self.attributes, None, iter(self.content.items())


def test_what_a_pickle_puts_in_place_of_methods_is_not_called(tmp_path):
    path = tmp_path / "x.pt"
    weights = factors("transformer.transformer_blocks.0.attn.to_q")
    for weight in weights.values():
        weight.numel = weight.float = weight.detach = weight.flatten = 7
    for content in (weights, Dressed(weights, items=7, keys=7, values=7)):
        torch.save(content, path)
        assert read_weights(path).lora.keys() == weights.keys()
    torch.save(dict.fromkeys(("state_dict_unet", "state_dict_vae"), Dressed({}, items=7)), path)
    with pytest.raises(ValueError, match=r"^x\.pt: expected OSEDiff's UNet to hold LoRA layers"):
        read_weights(path)


class Rebuilt:
    """A tensor of four values that says to be of another shape."""

    def __init__(self, *place):
        self.place = place

    def __reduce__(self):
        storage = torch.zeros(4)._typed_storage()
        return torch._utils._rebuild_tensor_v2, (storage, *self.place, False, OrderedDict())


@pytest.mark.parametrize(
    "place",
    [
        (0, (10**13,), (1,)), (0, (2**62, 4), (1, 1)), (0, (5,), (1,)), (10**6, (4,), (1,)),
        (-1, (4,), (1,)), (0, (2, 2), (-1, 1)), (0, (4,), (10**15,)), (0, (-1,), (1,)),
        (0, (10**6, 10**6), (0, 0)),
    ],
)  # fmt: skip
def test_a_tensor_larger_than_its_file_is_refused(tmp_path, place):
    path = tmp_path / "x.pt"
    torch.save({"a.lora_A.weight": Rebuilt(*place)}, path)
    for read in READERS:
        with pytest.raises(ValueError, match=r"^x\.pt: expected "):
            read(path)


def test_headers_that_lie_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    lying = lying_safetensors()
    assert len(lying) == 42
    for name, content in lying.items():
        path.write_bytes(content)
        for read in READERS:
            with pytest.raises(ValueError, match=r"^x\.safetensors: expected ") as error:
                read(path)
            assert len(str(error.value)) < 600, name


def test_names_from_a_file_are_shown_short_and_as_text(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"\x1b[2J" + "a" * 10_000: torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"found \\x1b\[2Jaaa") as error:
        read_weights(path)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "pattern", ["(a+)+", "(a|a)*", "(a|a)" * 50, "a?" * 30 + "a" * 30, ".*" * 5 + "x", "[a.]{9}" * 9 + "x", "a" * 300],
)  # fmt: skip
def test_a_config_that_would_take_hours_is_refused(tmp_path, pattern):
    layer = factors("base_model.model." + "a." * 60 + "to_q")
    message = "of its config to be numbers, and rank_pattern and alpha_pattern to"
    with pytest.raises(ValueError, match=message):
        read_weights(save_adapter(tmp_path, layer, rank_pattern={pattern: 4}))


@pytest.mark.parametrize(
    "pattern", ["attn.to_q", r".*\.[0-9]+\..*(to_q|to_k)", rf"transformer_blocks\.({'|'.join(map(str, range(38)))})\..*",
    r"^(transformer_blocks).*\.(to_q|to_k|to_v|to_out|proj_in|proj_out|linear|conv_in|conv1|conv2)$"],
)  # fmt: skip
def test_patterns_that_people_write_are_read(tmp_path, pattern):
    layer = factors("base_model.model.transformer_blocks.12.attn.to_q")
    read_weights(save_adapter(tmp_path, layer, r=2, rank_pattern={pattern: 4}))


def test_a_layer_with_an_endless_name_is_refused(tmp_path):
    path = save_adapter(tmp_path, factors("base_model.model." + "a." * 10_000 + "to_q"))
    message = r"expected layer names of at most 128 characters, but found a\.a\.a"
    with pytest.raises(ValueError, match=message):
        read_weights(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pkl", b"", "found an empty file; download it again"),
        ("a.safetensors", b"", "found an empty file; download"),
        ("a.pkl", b"\n\n<!DOCTYPE html><html>", "found a web page; download the file itself"),
        ("a.safetensors", b"\xef\xbb\xbf<html>", "found a web page"),
        ("a.pt", LFS, "found a git-lfs pointer; run git lfs pull, or download the file itself"),
        ("a.pt", b"hello", r"found a file that begins with b'hello'; download it again"),
        ("a.safetensors", b"hello", r"found a file that begins with b'hello'"),
        ("a.safetensors", b"PK\x03\x04", "found a PyTorch file; rename it to end in .pt"),
        ("a.safetensors", pickle.dumps([1]), "found a PyTorch file; rename it"),
        ("a.pt", safetensors({}), r"found safetensors that ends in \.pt; rename it to end in \.safetensors"),
        ("a.safetensors", safetensors({}, length=1 << 40), "damaged or cut short; download"),
        ("a.pkl", pickle.dumps(["a"]), "damaged or cut short"),
    ],
)  # fmt: skip
def test_what_is_no_weight_file_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    for read in READERS:
        with pytest.raises(ValueError, match=rf"^{name}: expected .*{message}"):
            read(tmp_path / name)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_short_is_refused(tmp_path, is_zip, part):
    content = torch.load(DATA / "sr_lora_2block.pkl", weights_only=True)
    path = tmp_path / "a.pkl"
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ValueError, match=r"^a\.pkl: expected a PyTorch .*download it again$"):
        read_weights(path)


def test_another_zip_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pkl", "w") as archive:
        archive.writestr("a/model_20001.pkl", b"")
    with pytest.raises(ValueError, match=r"another zip archive, .*; unpack it"):
        read_weights(tmp_path / "a.pkl")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^a\.pkl: expected a weight file, but found none"):
        read_weights(tmp_path / "a.pkl")
    with pytest.raises(ValueError, match=f"^{tmp_path.name}: .* found a folder; name the file in"):
        read_weights(tmp_path)


@pytest.mark.parametrize("content", [3, "text", {"a": 3}, {3: torch.zeros(1)}, torch.zeros(3), ()])
def test_a_pickle_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="expected named tensors"):
        read_weights(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("make", "rename"),
    [
        (lambda: sd3_transformer(2), "transformer.{}".format),
        (unet, lambda name: f"lora_unet_{name.replace('.', '_')}"),
    ],
    ids=["SD3", "UNet"],
)
@pytest.mark.parametrize("use_rslora", [False, True])
def test_peft_adapters_count_as_in_peft(tmp_path, make, rename, use_rslora):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=use_rslora,
        target_modules=["to_q", "to_out.0", "add_q_proj", "linear", "conv1", "conv_in"],
        rank_pattern={"to_q": 2, r"attn\d?.to_out.0": 3},
        alpha_pattern={"to_out.0": 5, "transformer_blocks.1.norm1.linear": 7, "conv1": 9},
        init_lora_weights=False,
    )
    model = get_peft_model(make(), config)
    model.save_pretrained(tmp_path)
    weights = read_weights(tmp_path / "adapter_model.safetensors")
    pairs, alphas = pair_factors(weights.lora)
    expected = {
        rename(name.removeprefix("base_model.model.")): layer.get_delta_weight("default")
        for name, layer in model.named_modules()
        if hasattr(layer, "get_delta_weight")
    }
    assert pairs.keys() == expected.keys()
    for layer, (down, up) in pairs.items():
        product = (up.flatten(1) @ down.flatten(1)).reshape(expected[layer].shape)
        scale = float(alphas[f"{layer}.alpha"]) / down.shape[0]
        torch.testing.assert_close(scale * product, expected[layer], rtol=1e-5, atol=1e-6)
    assert weights.kind == "peft lora"
    assert (weights.rank, weights.alpha, weights.latent_shift) == (None, None, None)


def test_a_uniform_peft_adapter_states_its_rank_and_alpha(tmp_path):
    weights = read_weights(save_adapter(tmp_path, factors(SR_LAYER)))
    assert (weights.rank, weights.alpha) == (4, 8.0)
    assert weights.lora["transformer.transformer_blocks.0.attn.to_q.alpha"] == 8


@pytest.mark.parametrize(
    ("read", "layer"), [(read_weights, SR_LAYER), (read_prompt_lora, LANGUAGE_LAYER)]
)
def test_a_peft_adapter_without_its_config_is_refused(tmp_path, read, layer):
    path = save_adapter(tmp_path, factors(layer))
    (tmp_path / "adapter_config.json").unlink()
    message = (
        "adapter_model.safetensors: expected adapter_config.json beside it, which states the scale "
        f"of the LoRA, but found none; put the one that it was saved with into {tmp_path}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read(path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_dora": True}, "found use_dora=True in its config"),
        ({"bias": "all"}, "found bias=all"),
        ({"fan_in_fan_out": True}, "found fan_in_fan_out=True"),
        ({"peft_type": "LOHA"}, "found peft_type=LOHA"),
        ({"init_lora_weights": "pissa_niter_4"}, "found init_lora_weights=pissa_niter_4"),
        ({"lora_alpha": None}, r"numbers, .* found \[4, None, None, None\]; take the adapter_config.json"),
        ({"r": 8}, r"attn\.to_q to have rank 8, as its config says, but found 4"),
        ({"rank_pattern": {"to_q": 2}}, "to have rank 2, as its config says, but found 4"),
        ({"rank_pattern": {"(": 2}}, "of its config to be numbers"),
        ({"rank_pattern": [1]}, "of its config to be numbers"),
        ({"alpha_pattern": {"to_q": "x"}}, "of its config to be numbers"),
    ],
)  # fmt: skip
def test_a_peft_config_that_cannot_be_honoured_is_refused(tmp_path, config, message):
    with pytest.raises(ValueError, match=message):
        read_weights(save_adapter(tmp_path, factors(SR_LAYER), **config))


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00", "[" * 100_000])
def test_a_config_that_is_no_json_is_refused(tmp_path, text):
    path = save_adapter(tmp_path, factors(SR_LAYER))
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(ValueError, match="expected a JSON object as the LoRA's config, but found"):
        read_weights(path)


def test_more_than_lora_in_a_peft_adapter_is_refused(tmp_path):
    extra = {f"{SR_LAYER}.lora_magnitude_vector": torch.zeros(8)}
    with pytest.raises(ValueError, match=r"found 1 and other weights: .*lora_magnitude_vector"):
        read_weights(save_adapter(tmp_path, {**factors(SR_LAYER), **extra}))


@pytest.mark.parametrize("has_config", [True, False])
def test_a_prompt_lora_is_sent_to_its_own_node(tmp_path, has_config):
    path = save_adapter(tmp_path, factors(LANGUAGE_LAYER))
    if not has_config:
        (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match="language model; choose it in CoZ Load Prompt Extractor"):
        read_weights(path)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj"),
        ("model.language_model.layers.1.mlp.up_proj", "model.layers.1.mlp.up_proj"),
        ("language_model.layers.2.self_attn.o_proj", "model.layers.2.self_attn.o_proj"),
        ("layers.35.mlp.down_proj", "model.layers.35.mlp.down_proj"),
        ("model.visual.blocks.0.attn.qkv", "visual.blocks.0.attn.qkv"),
        ("visual.blocks.31.mlp.gate_proj", "visual.blocks.31.mlp.gate_proj"),
    ],
)
def test_a_prompt_lora_is_read_in_every_naming(tmp_path, layer, expected):
    tensors = factors(f"base_model.model.{layer}", 8)
    path = save_adapter(tmp_path, tensors, r=8, lora_alpha=32)
    down, up = tensors.values()
    keys = [f"text_encoders.transformer.{expected}.{e}" for e in ("lora_A.weight", "lora_B.weight")]
    keyed = read_with_standard_keys(path)
    assert (keyed.kind, keyed.rank, keyed.alpha) == ("peft lora", 8, 32.0)
    read = read_prompt_lora(path)
    assert keyed.tensors.keys() == read.keys()
    assert torch.equal(read.pop(keys[0]), down)
    assert torch.equal(read.pop(keys[1]), up)
    assert {key: float(alpha) for key, alpha in read.items()} == {
        f"text_encoders.transformer.{expected}.alpha": 32
    }
    convert(path, tmp_path / "converted.safetensors", None, None)
    assert read_prompt_lora(tmp_path / "converted.safetensors").keys() == {*keys, *read}


def test_a_lora_for_super_resolution_is_no_prompt_lora(tmp_path):
    save_adapter(tmp_path, factors(SR_LAYER))
    ordinary = factors("transformer.transformer_blocks.0.attn.to_q")
    save_file(ordinary, tmp_path / "ordinary.safetensors")
    torch.save([torch.randn(384, 4), torch.randn(4, 64)], tmp_path / "model_20001.pkl")
    for name in ("model_20001.pkl", "adapter_model.safetensors", "ordinary.safetensors"):
        message = f"^{name}: expected a LoRA for the prompt extractor.*SR L"
        with pytest.raises(ValueError, match=message):
            read_prompt_lora(tmp_path / name)


def test_safetensors_are_looked_at_without_being_read(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    require_safetensors(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"^a\.safetensors: .* damaged or cut short"):
        require_safetensors(path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"^a\.pt: expected safetensors, but found a PyTorch file"):
        require_safetensors(tmp_path / "a.pt")
    with pytest.raises(FileNotFoundError, match=r"^absent\.safetensors: "):
        require_safetensors(tmp_path / "absent.safetensors")


def test_an_ordinary_lora_passes_through(tmp_path):
    tensors = {
        "lora_unet_a.lora_down.weight": torch.zeros(4, 8),
        "lora_unet_a.lora_up.weight": torch.zeros(8, 4),
        "lora_unet_a.alpha": torch.tensor(2.0),
        "lora_te_b_self_attn_q_proj.lora_up.weight": torch.zeros(8, 4),
        "text_encoder.c.self_attn.q_proj.lora_A.weight": torch.zeros(4, 8),
        "vae.d": torch.zeros(1),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    torch.save(tensors, tmp_path / "a.pt")
    for name in ["a.safetensors", "a.pt"]:
        weights = read_weights(tmp_path / name)
        assert weights.lora.keys() == tensors.keys()
        assert weights.kind == "lora"
        assert weights[2:] == ({}, {}, {}, 4, 2.0, None)


def test_a_diffusers_lora_without_metadata_counts_once(tmp_path):
    save_file(factors("transformer.transformer_blocks.0.attn.to_q"), tmp_path / "a.safetensors")
    weights = read_weights(tmp_path / "a.safetensors")
    assert (weights.rank, weights.alpha) == (4, 4.0)
    assert len(weights.lora) == 2


def test_a_diffusers_lora_counts_as_its_metadata_says(tmp_path):
    from peft import LoraConfig

    model, alphas = sd3_transformer(2), {"1.attn.to_q": 3}
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["to_q"], alpha_pattern=alphas)
    model.add_adapter(config)
    model.save_lora_adapter(tmp_path, weight_name="a.safetensors")
    plain = load_file(tmp_path / "a.safetensors")
    named = {f"transformer.{name}": tensor for name, tensor in plain.items()}
    adapter = {f"transformer.{name}": value for name, value in config.to_dict().items()}
    metadata = {"lora_adapter_metadata": json.dumps(adapter, default=list)}
    save_file(named, tmp_path / "b.safetensors", {**metadata, "format": "pt"})
    lora = read_weights(tmp_path / "b.safetensors").lora
    added = {f"transformer.transformer_blocks.{i}.attn.to_q.alpha": a for i, a in ((0, 6), (1, 3))}
    assert {name: lora[name] for name in lora.keys() - named.keys()} == added


@pytest.mark.parametrize(
    ("read", "name", "message"),
    [
        (read_weights, "joint_blocks.0.weight", r"\.weight; a whole model belongs in"),
        (read_vae, "encoder.conv_in.weight", "expected a VAE with its decoder, but found encoder"),
    ],
)
def test_a_file_for_another_input_is_refused(tmp_path, read, name, message):
    save_file({name: torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.safetensors")


def save_converted(path, **metadata):
    """A LoRA with these words of tools/convert.py."""
    save_file(factors("transformer.a"), path, {"format": "chain-of-zoom/1", **metadata})


@pytest.mark.parametrize("latent_shift", ["reference", "symmetric", "none"])
def test_a_converted_file_states_its_latent_shift(tmp_path, latent_shift):
    save_converted(tmp_path / "a.safetensors", kind="lora", latent_shift=latent_shift)
    assert read_weights(tmp_path / "a.safetensors").latent_shift == latent_shift


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"kind": "lora", "latent_shift": "shifted"}, "but found shifted; convert or train it"),
        ({"kind": "new kind"}, r"tools/convert\.py, .*; convert the original again"),
        ({}, r"tools/convert\.py, .*; convert the original again"),
        ({"kind": "coz lora"}, r"tools/convert\.py, .*; convert the original again"),
    ],
)
def test_a_converted_file_of_another_version_is_refused(tmp_path, metadata, message):
    save_converted(tmp_path / "a.safetensors", **metadata)
    with pytest.raises(ValueError, match=rf"a\.safetensors: .*{message}"):
        read_weights(tmp_path / "a.safetensors")
