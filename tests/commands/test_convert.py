import hashlib
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from coz.weights.lora import pair_factors
from coz.weights.read import read_weights, read_with_standard_keys
from coz.weights.vae import rename_vae_weights
from tests.conftest import DATA
from tests.support.random_ram import as_published, ram
from tests.support.random_sd3 import autoencoder, with_coz_encoder
from tests.support.random_weights import are_equal
from tests.support.small_models import small_sd3
from tools import convert as tool
from tools.host import ROOT

SR_LORA = DATA / "sr_lora_2block.pkl"
VAE_ENCODER = DATA / "sr_vae_encoder_small.pt"


def metadata(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


@pytest.fixture(scope="module")
def osediff_file(tmp_path_factory):
    """The smallest file of OSEDiff's form."""
    torch.manual_seed(0)
    unet = {
        "mid_block.attentions.0.proj_in.lora_A.default_others.weight": torch.randn(4, 8),
        "mid_block.attentions.0.proj_in.lora_B.default_others.weight": torch.randn(8, 4),
        "conv_in.weight": torch.randn(8, 4, 3, 3),
        "conv_in.bias": torch.randn(8),
    }
    vae = {
        "encoder.conv_in.lora_A.default_encoder.weight": torch.randn(4, 3, 3, 3),
        "encoder.conv_in.lora_B.default_encoder.weight": torch.randn(32, 4, 1, 1),
    }
    path = tmp_path_factory.mktemp("osediff") / "osediff.pkl"
    torch.save({"rank_unet": 4, "state_dict_unet": unet, "state_dict_vae": vae}, path)
    return path


def save_vae(folder, width):
    """Save a random VAE of SD3's kind, and its encoder with a LoRA, both in half precision.

    Returns:
        Its network, which has the LoRA in it, and the path of the encoder.
    """
    vae = autoencoder(width=width).half()
    save_file(vae.state_dict(), folder / "diffusers.safetensors")
    adapted = with_coz_encoder(vae.float()).half()
    torch.save(adapted.encoder.state_dict(), folder / "vae_encoder_20001.pt")
    return adapted.float(), folder / "vae_encoder_20001.pt"


def patched(model):
    """The weights of a host's model that has patches, with them."""
    import comfy.lora

    state = model.model.state_dict()
    return {
        key: comfy.lora.calculate_weight(patches, state[key].clone(), key)
        for key, patches in model.patches.items()
    }


@pytest.mark.parametrize("kind", ["coz lora", "coz vae encoder", "osediff"])
def test_converted_files_are_read_as_the_original(tmp_path, osediff_file, kind):
    files = {"coz lora": SR_LORA, "coz vae encoder": VAE_ENCODER, "osediff": osediff_file}
    source, out = files[kind], tmp_path / "out.safetensors"
    tool.convert(source, out, None, None)
    original, converted = read_weights(source), read_weights(out)
    for part in ["lora", "replacements", "vae", "vae_diff"]:
        assert are_equal(getattr(converted, part), getattr(original, part)), part
    assert (converted.kind, *converted[5:]) == (original.kind, *original[5:])
    assert original.kind == kind
    assert not list(tmp_path.glob("*.part"))


def test_metadata_names_the_source(tmp_path):
    tool.convert(SR_LORA, tmp_path / "out.safetensors", None, None)
    assert metadata(tmp_path / "out.safetensors") == {
        "format": "chain-of-zoom/1",
        "kind": "coz lora",
        "source_sha256": hashlib.sha256(SR_LORA.read_bytes()).hexdigest(),
        "rank": "4",
        "alpha": "4.0",
        "latent_shift": "reference",
    }
    tool.convert(VAE_ENCODER, tmp_path / "vae.safetensors", None, None)
    assert metadata(tmp_path / "vae.safetensors").items() >= {("alpha", "8.0"), ("rank", "4")}
    assert "latent_shift" not in metadata(tmp_path / "vae.safetensors")


def test_the_hosts_own_lora_loader_gives_the_same_weights(pack, tmp_path, caplog):
    import comfy.lora
    import comfy.sd
    import comfy.utils

    out, model = tmp_path / "out.safetensors", small_sd3()
    tool.convert(SR_LORA, out, None, None)
    converted = comfy.utils.load_torch_file(str(out))
    stock, _ = comfy.sd.load_lora_for_models(model, None, converted, 0.75, 0)
    places = comfy.lora.model_lora_keys_unet(model.model, {})
    own = model.clone()
    own.add_patches(comfy.lora.load_lora(read_weights(SR_LORA).lora, places), 0.75)
    assert are_equal(patched(stock), patched(own))
    assert not caplog.records, "the host reports keys that it does not load"
    pairs, _ = pair_factors(read_weights(SR_LORA).lora)
    weights, state = patched(own), model.model.state_dict()
    assert weights.keys() == {places[layer] for layer in pairs}
    for layer, (down, up) in pairs.items():
        expected = state[places[layer]] + 0.75 * up @ down
        torch.testing.assert_close(weights[places[layer]], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "limit"),
    # A factor's largest error, relative: half of the last bit of a mantissa of 8 or 4 bits.
    [("bf16", 2**-8), ("fp8_e4m3fn", 2**-4)],
)
def test_dtype_casts_weights_and_keeps_what_they_add(tmp_path, dtype, limit):
    """The factors of this LoRA are a thousandth of its original's: below float8's own numbers."""
    small = [1e-3 * tensor for tensor in torch.load(SR_LORA, weights_only=True)]
    torch.save(small, tmp_path / "small.pkl")
    original = read_weights(tmp_path / "small.pkl").lora
    out = tmp_path / "out.safetensors"
    use = tool.convert(tmp_path / "small.pkl", out, None, tool.DTYPES[dtype])
    weights = read_weights(out)
    for name, tensor in weights.lora.items():
        is_alpha = name.endswith(".alpha")
        assert tensor.dtype == (torch.float32 if is_alpha else tool.DTYPES[dtype])
    pairs, alphas = pair_factors(weights.lora)
    for layer, (down, up) in pair_factors(original)[0].items():
        scale, (found_down, found_up) = float(alphas[f"{layer}.alpha"]) / 4, pairs[layer]
        found = scale * found_up.float() @ found_down.float()
        assert (found - up @ down).norm() <= 2 * limit * (up @ down).norm()
    assert (weights.rank, weights.alpha) == (4, 4.0)
    cost = float(re.search(r"differ by ([\d.]+)%", use)[1]) / 100
    assert 0 < cost < limit


def test_a_weight_that_float8_cannot_hold_is_refused(tmp_path):
    encoder = torch.load(VAE_ENCODER, weights_only=True)
    encoder["conv_in.base_layer.weight"][0, 0, 0, 0] = 500
    torch.save(encoder, tmp_path / "large.pt")
    with pytest.raises(ValueError, match=r"encoder\.conv_in\.weight holds (499|500).*take another"):
        tool.convert(tmp_path / "large.pt", tmp_path / "o.safetensors", None, torch.float8_e4m3fn)
    assert not (tmp_path / "o.safetensors").exists()


def test_whole_vae_in_the_hosts_own_loader(pack, tmp_path):
    """Of SD3's full width: the host takes no other."""
    import comfy.sd
    import comfy.utils

    network, encoder = save_vae(tmp_path, 128)
    out = tmp_path / "out.safetensors"
    use = tool.convert(encoder, out, tmp_path / "diffusers.safetensors", None)
    assert use == "Load VAE takes it."
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(out)), dtype=torch.float32)
    vae.throw_exception_if_invalid()
    image = torch.rand(1, 32, 32, 3)
    latent = vae.encode(image)
    with torch.no_grad():
        expected = network.encode(image.movedim(-1, 1) * 2 - 1).latent_dist.mode()
        pixels = network.decode(expected).sample.movedim(1, -1) / 2 + 0.5
    # 1e-4: float32 through 20 layers, sums in another order (LoRA merged or beside).
    torch.testing.assert_close(latent, expected, rtol=0, atol=1e-4 * expected.abs().max().item())
    torch.testing.assert_close(vae.decode(expected), pixels.clamp(0, 1), rtol=0, atol=1e-4)


def test_whole_vae_is_the_same_from_any_base(tmp_path):
    _, source = save_vae(tmp_path, 32)
    plain = load_file(tmp_path / "diffusers.safetensors")
    host = {name: weight.contiguous() for name, weight in rename_vae_weights(plain).items()}
    save_file(host, tmp_path / "host.safetensors")
    checkpoint = {f"first_stage_model.{name}": weight for name, weight in host.items()}
    others = ["model.diffusion_model.x", "first_stage_model.loss", "encoder.conv_in.weight"]
    checkpoint |= {name: torch.zeros(1) for name in others}
    save_file(checkpoint, tmp_path / "checkpoint.safetensors")
    encoder = read_weights(source).vae
    for base in ["diffusers", "host", "checkpoint"]:
        out = tmp_path / "out.safetensors"
        tool.convert(source, out, tmp_path / f"{base}.safetensors", None)
        assert are_equal(load_file(out), {**host, **encoder}), base
        assert are_equal(read_weights(out).vae, {**host, **encoder}), base
    assert not are_equal({**host, **encoder}, host)


def test_osediffs_vae_part_is_added_to_the_base(tmp_path, osediff_file):
    name = "encoder.conv_in.weight"
    base = {name: torch.randn(32, 3, 3, 3), "decoder.conv_in.weight": torch.ones(1)}
    save_file(base, tmp_path / "base.safetensors")
    tool.convert(osediff_file, tmp_path / "out.safetensors", tmp_path / "base.safetensors", None)
    whole = load_file(tmp_path / "out.safetensors")
    assert whole.keys() == base.keys()
    assert torch.equal(whole[name], base[name] + read_weights(osediff_file).vae_diff[name])


@pytest.mark.parametrize(
    ("source", "base", "out", "message"),
    [
        (SR_LORA, None, "out.pkl", r"out\.pkl: expected a name that ends in \.safetensors"),
        (SR_LORA, "base", "out.safetensors", "expected VAE weights, but found none; take"),
        (VAE_ENCODER, "base", "out.safetensors", r"of the base VAE to be .*, but found none; take"),
        (VAE_ENCODER, "base", "base.safetensors", r"base\.safetensors: expected a new file, but it"),
        (VAE_ENCODER, "no", "out.safetensors", r"no\.safetensors: expected a weight file, but found"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_refused(tmp_path, source, base, out, message):
    save_file({"decoder.conv_in.weight": torch.ones(1)}, tmp_path / "base.safetensors")
    base = base and tmp_path / f"{base}.safetensors"
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        tool.convert(source, tmp_path / out, base, None)
    assert {path.name for path in tmp_path.iterdir()} == {"base.safetensors"}


def test_a_prompt_lora_loads_in_the_hosts_text_encoder(pack, tmp_path):
    import comfy.lora

    layer = "model.layers.0.self_attn.q_proj"
    tensors = {
        f"base_model.model.{layer}.lora_A.weight": torch.randn(8, 16),
        f"base_model.model.{layer}.lora_B.weight": torch.randn(16, 8),
    }
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"r": 8, "lora_alpha": 32}')
    out = tmp_path / "out.safetensors"
    tool.convert(tmp_path / "adapter_model.safetensors", out, None, None)
    key = f"qwen25_3b.transformer.{layer}.weight"
    zeros = torch.zeros(16, 16)
    places = comfy.lora.model_lora_keys_clip(SimpleNamespace(state_dict=lambda: {key: zeros}), {})
    (patch,) = comfy.lora.load_lora(load_file(out), places).items()
    assert patch[0] == key
    weight = comfy.lora.calculate_weight([(1.0, patch[1], 1.0, None, None)], zeros.clone(), key)
    down, up = tensors.values()
    torch.testing.assert_close(weight, 4 * up @ down)
    with pytest.raises(ValueError, match="CoZ Load Prompt Extractor"):
        read_weights(out)
    assert read_with_standard_keys(out).alpha == 32


@pytest.mark.parametrize("isolated", [[], ["-I"]], ids=["by path", "by path, isolated"])
def test_runs_by_path_from_anywhere(tmp_path, isolated):
    line = [sys.executable, *isolated, ROOT / "tools" / "convert.py", VAE_ENCODER, "o.safetensors"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "only CoZ Load SR LoRA takes it, Load VAE does not" in done.stdout
    assert "--vae" in done.stdout
    assert read_weights(tmp_path / "o.safetensors").kind == "coz vae encoder"


def test_an_error_is_one_line(tmp_path):
    page = tmp_path / "page.pkl"
    page.write_text("<!DOCTYPE html>")
    line = [sys.executable, "-m", "tools.convert", page, tmp_path / "out.safetensors"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"error: page\.pkl: expected .*, but found a web page; .*\n", done.stderr)


MEASURE = """
import resource, sys
from pathlib import Path
from coz.weights import weight_file
from tools import convert
weight_file.MAX_READ_BYTES = 10**8
convert.MIN_BYTES_WITH_BAR = 0
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
convert.convert(Path(sys.argv[1]), Path(sys.argv[2]), None, None)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_the_optimizer_of_rams_file_is_not_read(tmp_path):
    content = as_published(ram())
    size = 4 * 10**8
    content["optimizer"]["state"][0]["exp_avg"] = torch.zeros(size // 4)
    torch.save(content, tmp_path / "ram.pth")
    line = [sys.executable, "-c", MEASURE, tmp_path / "ram.pth", tmp_path / "ram.safetensors"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "100%" in done.stderr
    assert int(done.stdout) < size / 4
    assert metadata(tmp_path / "ram.safetensors")["kind"] == "ram"
