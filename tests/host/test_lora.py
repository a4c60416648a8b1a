"""CoZ Load SR LoRA in the host, with recorded results of diffusers and peft as oracles."""

from pathlib import PureWindowsPath

import pytest
import torch
from safetensors.torch import save_file

from tests.oracles.record import read as read_recorded
from tests.oracles.sd3 import ADAPTED_SHAPES, LATENT_SHIFTS, WIDER, draw_image, name_case
from tests.support.random_sd3 import coz_lora, draw_autoencoder, draw_coz_encoder
from tests.support.random_sd3 import draw_conditioning as conditioning
from tests.support.random_weights import relative_error
from tests.support.small_models import NARROW_ENCODER, WIDTH, make_vae, small_sd2
from tools.convert import convert

from .test_diffusion import assert_recorded

FILES = ("model_20001.pkl", NARROW_ENCODER)


@pytest.fixture
def load(node):
    def run(*args):
        with torch.inference_mode():
            return node("CoZLoadSRLoRA").execute(*args)

    return run


@pytest.mark.parametrize("shape", ADAPTED_SHAPES)
@pytest.mark.parametrize("latent_shift", LATENT_SHIFTS)
def test_published_files_give_the_reference(step, load, sd3, coz_files, latent_shift, shape):
    model, vae = load(sd3.model, sd3.vae, *FILES)
    found = step(model, vae, conditioning(), draw_image(shape), latent_shift)
    assert_recorded(found, name_case("files", shape, latent_shift))


def test_each_file_changes_the_result(step, load, sd3, coz_files):
    image, positive = torch.rand(1, 32, 32, 3), conditioning()
    plain = step(sd3.model, sd3.vae, positive, image)
    model, vae = load(sd3.model, sd3.vae, *FILES)
    first, second = (step(*pair, positive, image) for pair in ((model, sd3.vae), (sd3.model, vae)))
    assert min(relative_error(plain, first), relative_error(first, second)) > 1e-2
    # The connected model and vae stay as they were.
    assert torch.equal(step(sd3.model, sd3.vae, positive, image), plain)


def test_bfloat16_stays_close(step, load, load_sd3, coz_files):
    # 2e-2: bfloat16 keeps 8 bits; the error of about forty layers in a row, larger in narrow ones
    shape = (1, 64, 64, 3)
    weights = draw_autoencoder(width=WIDER)
    torch.save(draw_coz_encoder(weights), coz_files / "wider_encoder_20001.pt")
    vae = make_vae(weights, 16, torch.bfloat16, ch=WIDER)
    model, vae = load(load_sd3(torch.bfloat16).model, vae, FILES[0], "wider_encoder_20001.pt")
    found = step(model, vae, conditioning(), draw_image(shape))
    assert relative_error(found, read_recorded("sd3")[name_case("wider", shape)]) < 2e-2


def test_strength_is_a_share_of_the_change(step, load, sd3, coz_files):
    shape = (1, 32, 32, 3)
    model, vae = load(sd3.model, sd3.vae, FILES[0], "none", 0.5)
    assert vae is sd3.vae
    assert_recorded(step(model, vae, conditioning(), draw_image(shape)), name_case("half", shape))


def test_strength_0_changes_nothing(load, sd3, coz_files):
    result = load(sd3.model, sd3.vae, *FILES, 0.0)
    assert result[0] is sd3.model
    assert result[1] is sd3.vae


def test_auto_takes_the_latent_shift_of_the_file(load, sd3, coz_files):
    model, _ = load(sd3.model, sd3.vae, *FILES)
    assert model.clone().get_attachment("coz_latent_shift") == "reference"
    assert sd3.model.get_attachment("coz_latent_shift") is None


WIDE = "transformer.transformer_blocks.0.norm1.linear"
SD15 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


def factors(down, up, width, height):
    return {f"{down}.weight": torch.rand(4, width), f"{up}.weight": torch.rand(height, 4)}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (coz_lora(3), "does not fit model .SD3.: .* another number of blocks.*SD3-medium"),
        (coz_lora(1), "does not fit model .SD3.: .* another number of blocks.*SD3-medium"),
        (factors(f"{WIDE}.lora_A", f"{WIDE}.lora_B", 256, 1536),
         ".* 1536 x 256, but in model it is 768 x 128"),
        (factors(f"{SD15}.lora_down", f"{SD15}.lora_up", 320, 320),
         r"does not fit model \(SD3\): none of its layers is found in model\. "),
    ],
    ids=["deeper", "shallower", "wider", "of SD1.5"],
)  # fmt: skip
def test_a_lora_of_another_model(load, sd3, coz_files, tensors, message):
    torch.save(tensors, coz_files / "another.pkl")
    with pytest.raises(ValueError, match=f"^another.pkl {message}"):
        load(sd3.model, sd3.vae, "another.pkl")


def test_layers_whose_rows_the_host_reorders(load, sd3, coz_files, step):
    """As TSD-SR's file has them."""
    weights = {}
    for name in ("norm_out.linear", "transformer_blocks.1.norm1_context.linear"):
        weights[f"transformer.{name}.lora_A.weight"] = torch.rand(4, 128) / 10
        weights[f"transformer.{name}.lora_B.weight"] = torch.rand(256, 4) / 10
    save_file(weights, coz_files / "norm_out.safetensors")
    model, _ = load(sd3.model, sd3.vae, "norm_out.safetensors")
    image, positive = torch.rand(1, 32, 32, 3), conditioning()
    plain, changed = (step(each, sd3.vae, positive, image) for each in (sd3.model, model))
    assert relative_error(changed, plain) > 1e-3


def test_packed_weights_have_the_shape_that_they_stand_for(load, sd3, coz_files, monkeypatch):
    """GGUF's state dict has the bytes: 34 for 32 values."""
    packed = {name: weight.repeat(1, 2) if weight.ndim == 2 else weight
        for name, weight in sd3.model.model.state_dict().items()}  # fmt: skip
    monkeypatch.setattr(sd3.model.model, "state_dict", lambda: packed)
    load(sd3.model, sd3.vae, FILES[0])


def test_files_in_each_others_place(load, sd3, coz_files):
    message = r"narrow_encoder_20001\.pt holds no LoRA: its kind is coz vae encoder"
    with pytest.raises(ValueError, match=message):
        load(sd3.model, sd3.vae, FILES[1])
    message = r"model_20001\.pkl holds no VAE encoder: its kind is coz lora"
    with pytest.raises(ValueError, match=message):
        load(sd3.model, sd3.vae, FILES[0], FILES[0])


def test_encoder_on_another_vae(load, sd3, vae_4, coz_files):
    message = r"narrow_encoder_20001.pt does not fit vae: its encoder.conv_out"
    with pytest.raises(ValueError, match=message):
        load(sd3.model, vae_4, *FILES)


def test_converted_lora_in_the_stock_loader(node, step, load, sd3, coz_files):
    convert(coz_files / FILES[0], coz_files / "converted.safetensors", None, None)
    image, positive = torch.rand(1, 32, 32, 3), conditioning()
    model, _ = load(sd3.model, sd3.vae, FILES[0])
    stock_loader = node("LoraLoaderModelOnly")()
    (stock,) = stock_loader.load_lora_model_only(sd3.model, "converted.safetensors", 1.0)
    ours, _ = load(sd3.model, sd3.vae, "converted.safetensors")
    expected = step(model, sd3.vae, positive, image)
    assert torch.equal(step(stock, sd3.vae, positive, image), expected)
    assert torch.equal(step(ours, sd3.vae, positive, image), expected)


def test_behind_the_hosts_select_device_nodes(node, step, load, sd3, coz_files):
    image, positive = torch.rand(1, 32, 32, 3), conditioning()
    model, vae = load(sd3.model, sd3.vae, *FILES)
    expected = step(model, vae, positive, image)
    model = node("SelectModelDevice").execute(model, "default")[0]
    vae = node("SelectVAEDevice").execute(vae, "default")[0]
    assert torch.equal(step(model, vae, positive, image), expected)


def test_osediff_changes_unet_first_layer_and_vae(load, vae_4, coz_files, mm):
    generator = torch.Generator().manual_seed(5)
    rand = lambda *shape: torch.randn(shape, generator=generator) * 0.1  # noqa: E731
    factors = {"A": rand(4, 32, 3, 3), "B": rand(32, 4, 1, 1)}
    first = {"weight": rand(32, 4, 3, 3), "bias": rand(32)}
    unet = {f"conv_in.base_layer.{name}": weight for name, weight in first.items()}
    layer = "down_blocks.0.resnets.0.conv1"
    unet |= {f"{layer}.lora_{k}.default_encoder.weight": v for k, v in factors.items()}
    vae_factors = {"A": rand(4, 3, 3, 3), "B": rand(32, 4, 1, 1)}
    vae = {f"encoder.conv_in.lora_{k}.default_encoder.weight": v for k, v in vae_factors.items()}
    file = {"rank_unet": 4, "rank_vae": 4, "state_dict_unet": unet, "state_dict_vae": vae}
    torch.save(file, coz_files / "osediff.pkl")

    plain = small_sd2(family="SD15", model_channels=32, context_dim=768)
    before = {key: weight.clone() for key, weight in plain.model.state_dict().items()}
    vae_before = draw_autoencoder(4, WIDTH)["encoder.conv_in.weight"]
    model, vae = load(plain, vae_4, "osediff.pkl", "none", 0.5)

    def patched(patcher, key):
        mm.load_models_gpu([patcher])  # takes off what another clone put on
        return patcher.model.state_dict()[key].clone()

    def delta(parts):  # scaling 2.0: alpha 8, rank 4
        return 2.0 * (parts["B"].flatten(1) @ parts["A"].flatten(1)).view(-1, *parts["A"].shape[1:])

    host = "diffusion_model.input_blocks"
    for name, weight in first.items():
        expected = 0.5 * before[f"{host}.0.0.{name}"] + 0.5 * weight
        torch.testing.assert_close(patched(model, f"{host}.0.0.{name}"), expected)
    key = f"{host}.1.0.in_layers.2.weight"
    torch.testing.assert_close(patched(model, key), before[key] + 0.5 * delta(factors))
    expected = vae_before + 0.5 * delta(vae_factors)
    torch.testing.assert_close(patched(vae.patcher, "encoder.conv_in.weight"), expected)


def test_missing_file_is_named_with_link_and_folder(node):
    answer = node("CoZLoadSRLoRA").validate_inputs("absent.pkl", "none")
    assert answer.startswith("absent.pkl is not in models/loras. Put the file there")
    assert answer.endswith("/ckpt/SR_LoRA/model_20001.pkl")
    answer = node("CoZLoadSRLoRA").validate_inputs(None, "absent.pt")
    assert answer.startswith("absent.pt is not in models/vae or models/loras.")
    assert answer.endswith("/ckpt/SR_VAE/vae_encoder_20001.pt")


def test_files_in_subfolders_have_slashes_on_every_system(nodes_of, monkeypatch):
    """To the page a workflow's "a/b" would be missing where "a\\b" is listed."""
    files = nodes_of("host.files")
    names = ["z.safetensors", "sub\\coz.safetensors"]
    monkeypatch.setattr(files, "PurePath", PureWindowsPath)
    monkeypatch.setattr(files.folder_paths, "get_filename_list", lambda folder: names)
    assert files.list_files("coz", "loras") == ["sub/coz.safetensors", "z.safetensors"]


def test_a_workflow_saved_on_windows_finds_its_files(nodes_of, coz_files):
    (coz_files / "sub").mkdir()
    (coz_files / "sub" / "a.safetensors").touch()
    for name in ("sub/a.safetensors", "sub\\a.safetensors"):
        found = nodes_of("host.files").find_files(name, "loras")
        assert found == [coz_files / "sub" / "a.safetensors"]
