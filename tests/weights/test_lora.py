import re
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from coz.weights.chain_of_zoom import convert_coz_lora, convert_coz_vae_encoder
from coz.weights.lora import pair_factors, split_weights
from coz.weights.osediff import convert_osediff
from coz.weights.vae import rename_vae_weights
from tests.conftest import DATA
from tests.support.random_weights import are_equal

SD21_UNET = {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1] * 9 + [0] * 3,
    "transformer_depth_middle": 1,
}
UNET_LAYERS = (
    r"(to_[kqv]|to_out\.0|conv|conv1|conv2|conv_in|conv_shortcut|conv_out|proj_out|proj_in"
    r"|ff\.net\.2|ff\.net\.0\.proj)"
)
VAE_LAYERS = r"(conv|conv1|conv2|conv_in|conv_shortcut|conv_out|to_[kqv]|to_out\.0)"


@pytest.fixture
def sr_lora():
    return torch.load(DATA / "sr_lora_2block.pkl", weights_only=True)


@pytest.fixture
def vae_encoder():
    return torch.load(DATA / "sr_vae_encoder_small.pt", weights_only=True)


def change(lora, layer):
    down, up = pair_factors(lora)[0][layer]
    product = (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])
    return float(lora[f"{layer}.alpha"]) / down.shape[0] * product


def small_vae(**options):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[32, 32, 64, 64],
        layers_per_block=2,
        **options,
    ).requires_grad_(False)


def add_adapter(model, name, layers):
    """A LoRA as Chain-of-Zoom and OSEDiff make them: r given, alpha left at PEFT's default."""
    from peft import LoraConfig

    model.add_adapter(LoraConfig(r=4, init_lora_weights="gaussian", target_modules=layers), name)
    for layer, parameter in model.named_parameters():
        if f"lora_B.{name}" in layer:
            parameter.data.normal_(std=0.02)


def matching(model, pattern):
    return [name for name, _ in model.named_modules() if re.fullmatch(pattern, name)]


def choose_weights(model, pattern):
    return {name: w for name, w in model.state_dict().items() if re.search(pattern, name)}


@pytest.fixture(scope="module")
def osediff():
    """OSEDiff's networks, narrow, and the file that its save_model would write of them."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64, 128, 128),
        cross_attention_dim=64,
        attention_head_dim=(1, 2, 4, 4),
        use_linear_projection=True,
    ).requires_grad_(False)
    vae = small_vae()
    plain = {name: w.clone() for name, w in {**unet.state_dict(), **vae.state_dict()}.items()}
    for name, inside in [
        ("default_encoder", r"(down_blocks\..*|conv_in)"),
        ("default_decoder", r"(up_blocks\..*|conv_out)"),
        ("default_others", r"mid_block\..*"),
    ]:
        layers = matching(unet, inside)
        add_adapter(unet, name, [x for x in layers if re.search(rf"\b{UNET_LAYERS}$", x)])
    unet.set_adapter(["default_encoder", "default_decoder", "default_others"])
    for parameter in unet.conv_in.base_layer.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    layers = matching(vae, rf"encoder\..*\b{VAE_LAYERS}")
    add_adapter(vae, "default_encoder", [*layers, "quant_conv"])
    file = {
        "rank_unet": 4,
        "rank_vae": 4,
        "unet_lora_encoder_modules": ["conv_in"],
        "vae_lora_encoder_modules": layers,
        "state_dict_unet": choose_weights(unet, "lora|conv_in"),
        "state_dict_vae": choose_weights(vae, "lora"),
    }
    return SimpleNamespace(unet=unet, vae=vae, plain=plain, file=file)


def merged(model):
    """Each LoRA layer's weight with its change, from PEFT itself."""
    weights = {}
    for name, layer in model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            (adapter,) = layer.lora_A
            weights[f"{name}.weight"] = layer.base_layer.weight + layer.get_delta_weight(adapter)
    return weights


def test_sr_lora_gives_the_merged_weights_of_the_reference(sr_lora):
    golden = load_file(DATA / "sr_lora_2block_expected.safetensors")
    weights = split_weights(convert_coz_lora(sr_lora))
    layers = [name.removesuffix(".alpha") for name in weights.lora if name.endswith(".alpha")]
    names = [layer.removeprefix("transformer.") for layer in layers]
    assert {f"merged.{name}.weight" for name in names} == {n for n in golden if "merged" in n}
    for layer, name in zip(layers, names, strict=True):
        found = golden[f"base.{name}.weight"] + change(weights.lora, layer)
        torch.testing.assert_close(found, golden[f"merged.{name}.weight"], atol=1e-6, rtol=0)
    assert weights.kind == "coz lora"
    assert weights[2:] == ({}, {}, {}, 4, 4.0, "reference")


def test_sr_lora_of_sd3_medium_names_all_47_layers():
    down, up = torch.zeros(4, 1536), torch.zeros(1, 1).expand(9216, 4)
    keyed = convert_coz_lora([up.clone(), down] * 47).tensors
    layers = {name.removesuffix(".alpha") for name in keyed if name.endswith(".alpha")}
    block = "transformer.transformer_blocks.{}.norm1{}.linear"
    both = {block.format(i, norm) for i in range(23) for norm in ["", "_context"]}
    assert layers == {*both, block.format(23, "")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda list_: list_[:4], "expected 6 matrices .* width 128 .*, but found 4; take"),
        (lambda list_: [], "found a list of 0 entries, 0 of them matrices"),
        (lambda list_: [*list_[:5], 3], "found a list of 6 entries, 5 of them matrices"),
        (lambda list_: [*list_[:5], list_[5][0]], "5 of them matrices"),
        (lambda list_: list_[::-1], "expected"),
        (lambda list_: [*list_[:4], list_[4][:9], list_[5]], r"matrix 4 .* \(768, 4\), but .* \(9, 4\)"),
        (lambda list_: [*list_[:5], list_[5][:2]], r"matrix 5 .* \(4, 128\), but found \(2, 128\)"),
        (lambda list_: [torch.zeros(6, 4), torch.zeros(4, 1)], "expected 0 matrices"),
        (lambda list_: [t[:, :0] if i % 2 == 0 else t[:0] for i, t in enumerate(list_)], "0 of them"),
        (lambda list_: [torch.zeros(1).expand(768, 4), *list_[1:]], "5 of them matrices"),
        (lambda list_: [list_[0].to("meta"), *list_[1:]], "5 of them matrices"),
        (lambda list_: [list_[0].to_sparse(), *list_[1:]], "5 of them matrices"),
    ],
)  # fmt: skip
def test_sr_lora_of_another_shape_is_refused(sr_lora, change, message):
    with pytest.raises(ValueError, match=message):
        convert_coz_lora(change(sr_lora))


def test_vae_encoder_equals_the_reference(vae_encoder):
    golden = load_file(DATA / "sr_vae_encoder_small_expected.safetensors")
    merged = {n.removeprefix("merged."): w for n, w in golden.items() if "merged" in n}
    expected = rename_vae_weights(merged)
    weights = split_weights(convert_coz_vae_encoder(vae_encoder))
    assert weights.vae.keys() == expected.keys()
    for name, weight in weights.vae.items():
        torch.testing.assert_close(weight.float(), expected[name], rtol=1e-5, atol=1e-7)
    assert weights.kind == "coz vae encoder"
    assert (weights.lora, weights.replacements, weights.vae_diff) == ({}, {}, {})
    assert weights[5:] == (4, 8.0, None)


def test_vae_encoder_encodes_as_the_reference_in_the_hosts_own_encoder(pack, vae_encoder):
    from comfy.ldm.modules.diffusionmodules.model import Encoder

    golden = load_file(DATA / "sr_vae_encoder_small_expected.safetensors")
    sides = {"ch": 32, "ch_mult": (1, 1, 2), "in_channels": 3, "out_ch": 3, "z_channels": 4}
    encoder = Encoder(**sides, num_res_blocks=1, attn_resolutions=[], resolution=32)
    for layer in encoder.modules():
        if isinstance(layer, torch.nn.GroupNorm):
            layer.num_groups = 8  # the recorded encoder's, for its 32 channels; the host fixes 32
    weights = split_weights(convert_coz_vae_encoder(vae_encoder)).vae
    encoder.load_state_dict({name.removeprefix("encoder."): w for name, w in weights.items()})
    with torch.no_grad():
        moments = encoder(golden["input"])
    expected = golden["moments"]
    # 1e-5: the recorded tolerance, relative to the largest value.
    torch.testing.assert_close(moments, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("conv_out.base_layer.weight", "expected conv_out to have a base weight .* found none"),
        ("conv_in.lora_B.default_encoder.weight", r"conv_in .*, but found \[\(4, 3, 3, 3\)\]"),
        ("conv_out.lora_A.default_encoder.weight", "expected conv_out to have two LoRA factors"),
        ("conv_norm_out.weight", "found 19 LoRA layers, other weights: nothing, missing: encoder.norm_out"),
    ],
)  # fmt: skip
def test_vae_encoder_with_a_part_missing_is_refused(vae_encoder, name, message):
    del vae_encoder[name]
    with pytest.raises(ValueError, match=message):
        convert_coz_vae_encoder(vae_encoder)


def test_vae_encoder_with_strange_parts_is_refused(vae_encoder):
    with pytest.raises(ValueError, match=r"other weights: encoder\.unet\.weight"):
        convert_coz_vae_encoder({**vae_encoder, "unet.weight": torch.zeros(1)})
    second = vae_encoder["conv_in.lora_A.default_encoder.weight"]
    with pytest.raises(ValueError, match="one LoRA for conv_in, but found a second"):
        convert_coz_vae_encoder({**vae_encoder, "conv_in.lora_A.other.weight": second})
    other = {**vae_encoder, "conv_in.base_layer.weight": torch.zeros(32, 3, 1, 1)}
    with pytest.raises(ValueError, match=r"\(32, 3, 3, 3\), but found \(32, 3, 1, 1\)"):
        convert_coz_vae_encoder(other)


@pytest.mark.parametrize("has_quant_conv", [True, False])
def test_vae_names_equal_the_hosts_own_conversion(pack, has_quant_conv):
    from comfy.diffusers_convert import convert_vae_state_dict

    vae = small_vae(use_quant_conv=has_quant_conv, use_post_quant_conv=has_quant_conv).state_dict()
    first_names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    pattern = "|".join(first_names)
    old = {re.sub(pattern, lambda found: first_names[found[0]], n): w for n, w in vae.items()}
    assert old.keys() != vae.keys()
    for named in [vae, old]:
        host = rename_vae_weights(named)
        assert are_equal(host, convert_vae_state_dict(dict(named)))
        again = rename_vae_weights(host)
        assert again.keys() == host.keys()
        assert all(again[name] is host[name] for name in host)


def test_osediff_equals_peft_in_the_hosts_own_loader(pack, osediff):
    import comfy.lora
    from comfy.utils import unet_to_diffusers

    names = {n: f"diffusion_model.{host}" for n, host in unet_to_diffusers(SD21_UNET).items()}
    state = {names[name]: weight for name, weight in osediff.plain.items() if name in names}
    config = SimpleNamespace(unet_config=SD21_UNET)
    model = SimpleNamespace(state_dict=lambda: state, model_config=config)
    keyed = convert_osediff(osediff.file)
    weights = split_weights(keyed)
    places = comfy.lora.model_lora_keys_unet(model, {})
    expected = merged(osediff.unet)
    expected["conv_in.bias"] = osediff.unet.conv_in.base_layer.bias
    # As one file, in the stock loader: conv_in is in it as a whole weight.
    stock = comfy.lora.load_lora(keyed.tensors, places, log_missing=False)
    assert stock.keys() == {names[name] for name in expected}
    for name, weight in expected.items():
        key = names[name]
        patches = [(1.0, stock[key], 1.0, None, None)]
        patched = comfy.lora.calculate_weight(patches, state[key].clone(), key)
        torch.testing.assert_close(patched, weight, atol=1e-6, rtol=0)
    conv_in = "diffusion_model.input_blocks.0.0"
    assert weights.replacements.keys() == {f"{conv_in}.weight", f"{conv_in}.bias"}
    for key, weight in weights.replacements.items():
        assert torch.equal(weight, stock[key][1][0])
    alone = comfy.lora.load_lora(weights.lora, places)
    assert alone.keys() == stock.keys() - weights.replacements.keys()
    assert weights[5:] == (4, 8.0, None)


def test_osediffs_vae_part_equals_peft(osediff):
    weights = split_weights(convert_osediff(osediff.file))
    expected = rename_vae_weights(merged(osediff.vae))
    plain = {n: w for n, w in osediff.plain.items() if n.startswith(("enc", "quant"))}
    plain = rename_vae_weights(plain)
    assert "quant_conv.weight" in expected
    assert weights.vae == {}
    assert weights.vae_diff.keys() == expected.keys()
    for name, diff in weights.vae_diff.items():
        torch.testing.assert_close(plain[name] + diff, expected[name], atol=1e-6, rtol=0)


def test_osediff_without_a_lora_on_conv_in_keeps_its_weight(osediff):
    unet = {
        name.replace("base_layer.", ""): weight
        for name, weight in osediff.file["state_dict_unet"].items()
        if "conv_in.lora" not in name
    }
    replacements = split_weights(
        convert_osediff({**osediff.file, "state_dict_unet": unet})
    ).replacements
    trained = osediff.unet.conv_in.base_layer.weight
    assert torch.equal(replacements["diffusion_model.input_blocks.0.0.weight"], trained)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("state_dict_vae", lambda state: None, "two dicts of tensors, but found dict and NoneType"),
        ("state_dict_unet", lambda state: {"a": "b"}, "two dicts of tensors"),
        ("state_dict_unet", lambda state: {}, "found 0 LoRA layers and nothing"),
        (
            "state_dict_unet",
            lambda state: {n: w for n, w in state.items() if "base_layer" not in n},
            "conv_in.weight and conv_in.bias, but found .* and nothing",
        ),
        (
            "state_dict_unet",
            lambda state: {**state, "conv_in.base_layer.weight": torch.zeros(32, 3, 3, 3)},
            r"conv_in to have a base weight of \(32, 4, 3, 3\), but found \(32, 3, 3, 3\)",
        ),
        ("state_dict_vae", lambda state: {}, "found 0 and other weights: nothing"),
        (
            "state_dict_vae",
            lambda state: {n.replace("encoder.", "coder."): w for n, w in state.items()},
            "coder.conv_in and",
        ),
    ],
)
def test_osediff_with_a_part_missing_is_refused(osediff, part, change, message):
    with pytest.raises(ValueError, match=message):
        convert_osediff({**osediff.file, part: change(osediff.file[part])})


def test_inputs_are_unchanged(vae_encoder, osediff):
    before = {name: weight.clone() for name, weight in vae_encoder.items()}
    convert_coz_vae_encoder(vae_encoder)
    unet = dict(osediff.file["state_dict_unet"])
    convert_osediff(osediff.file)
    assert are_equal(vae_encoder, before)
    assert osediff.file["state_dict_unet"].keys() == unet.keys()
