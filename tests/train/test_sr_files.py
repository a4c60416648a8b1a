"""The files of a trained SR LoRA: read again, and in CoZ Load SR LoRA of the real host."""

import re
from math import isfinite

import pytest
import torch
from safetensors import safe_open

from coz.weights.read import read_weights
from coz.weights.vae import rename_vae_weight
from tests.support.random_weights import relative_error
from tests.support.small_models import make_vae
from tools.train_sr.distil import add_distil_loras
from tools.train_sr.losses import load_lpips
from tools.train_sr.network import (
    GENERATOR,
    REGULARIZER,
    VAE_ENCODER,
    OneStepNetwork,
    list_modulations,
)
from tools.train_sr.sd3 import load_transformer_and_vae
from tools.train_sr.weights import (
    ENCODER_FILE,
    LORA_FILE,
    export,
    export_upstream,
    load_lora,
    load_vae_encoder,
)

from .test_sr_network import inputs, read_losses, train
from .tiny_sd3 import make_config


def make_network(config, seed=0, shift="reference", rank=4):
    made = OneStepNetwork(*load_transformer_and_vae(config), shift)
    add_distil_loras(made, rank, seed)
    return made


@torch.no_grad()
def disturb(network):
    generator = torch.Generator().manual_seed(8)
    for parameter in network.list_parameters(GENERATOR, REGULARIZER, VAE_ENCODER):
        parameter += torch.randn(parameter.shape, generator=generator) / 20
    return network


@pytest.fixture
def config(sr_parts, tmp_path):
    return make_config(tmp_path, sr_parts)


@torch.no_grad()
def enlarge(network):
    return network.enlarge(*inputs())[1]


def to_frame(image):
    """(1, 3, H, W) in [-1, 1] as the host's image."""
    return (image / 2 + 0.5).clamp(0, 1).movedim(1, -1)


def run_step(model, vae, image):
    """CoZ SR Step with the text of ``inputs``."""
    import nodes

    _, text, pooled = inputs()
    step = nodes.NODE_CLASS_MAPPINGS["CoZSRStep"]
    with torch.inference_mode():
        return step.execute(model, vae, [[text, {"pooled_output": pooled}]], to_frame(image))[0]


def load_trained(config, folder, name):
    """The untrained (MODEL, VAE), and what CoZ Load SR LoRA makes of it with the files of a result."""
    import comfy.sd
    import folder_paths

    import nodes

    for kind in ("loras", "vae"):
        folder_paths.add_model_folder_path(kind, str(folder))
    transformer, vae = load_transformer_and_vae(config)
    model = comfy.sd.load_diffusion_model_state_dict(
        transformer.state_dict(), model_options={"dtype": torch.float32}
    )
    given = model, make_vae(vae.state_dict(), 16)
    files = [f"{name}/{file}" for file in (LORA_FILE, ENCODER_FILE)]
    with torch.inference_mode():
        return given, nodes.NODE_CLASS_MAPPINGS["CoZLoadSRLoRA"].execute(*given, *files).result


def test_exported_files_give_the_same_network(config, tmp_path):
    network = disturb(make_network(config))
    export(network, tmp_path)
    plain, vae = load_transformer_and_vae(config)
    load_vae_encoder(vae, tmp_path / ENCODER_FILE)
    again = OneStepNetwork(plain, vae)
    add_distil_loras(again, 4, 1)
    load_lora(again, tmp_path / LORA_FILE)
    assert all(
        map(torch.equal, again.list_parameters(GENERATOR), network.list_parameters(GENERATOR))
    )
    with torch.no_grad():  # the merged encoder differs by float32's rounding
        assert relative_error(again.encode(inputs()[0]), network.encode(inputs()[0])) < 1e-5
    assert relative_error(enlarge(again), enlarge(network)) < 1e-4
    assert relative_error(enlarge(make_network(config)), enlarge(network)) > 1e-2


def test_upstream_files_hold_the_same_weights(config, tmp_path):
    network = disturb(make_network(config))
    export(network, tmp_path)
    export_upstream(network, tmp_path, 7)
    factors = torch.load(tmp_path / "model_7.pkl", weights_only=True)
    assert [tuple(f.shape) for f in factors] == [(768, 4), (4, 128)] * 3
    ours, theirs = (read_weights(tmp_path / name) for name in (LORA_FILE, "model_7.pkl"))
    assert theirs.lora.keys() == ours.lora.keys()
    assert all(torch.equal(theirs.lora[name], ours.lora[name]) for name in ours.lora)
    assert ours._replace(lora=0) == theirs._replace(lora=0)
    ours, theirs = (read_weights(tmp_path / n).vae for n in (ENCODER_FILE, "vae_encoder_7.pt"))
    assert theirs.keys() == ours.keys()
    for name in ours:  # 1e-3: float16 keeps 11 bits
        assert relative_error(theirs[name].float(), ours[name].float()) < 1e-3


def test_upstream_files_are_whole_or_not_there(config, tmp_path, small_files):
    network = make_network(config)
    with small_files(1000), pytest.raises(OSError, match="too large"):
        export_upstream(network, tmp_path, 7)
    assert not [*tmp_path.glob("model_7*"), *tmp_path.glob("vae_encoder_7*")]


@pytest.mark.parametrize("shift", ["reference", "symmetric"])
def test_the_node_gives_the_result_of_training(sr_parts, pack, tmp_path, shift):
    """The LoRA of 20 updates. Trap 7: its file states its latent convention, and CoZ SR Step follows it."""
    config = make_config(
        tmp_path, sr_parts, out=shift, latent_shift=shift, steps=20, accumulation=1
    )
    network = train(config).network
    network.use(GENERATOR)
    given, loaded = load_trained(config, tmp_path, f"{shift}/result")
    image, expected = inputs()[0], to_frame(enlarge(network))
    assert relative_error(run_step(*loaded, image), expected) < 1e-3
    assert relative_error(run_step(*given, image), expected) > 1e-2


def test_a_bfloat16_run_trains_and_exports_float32_loras(sr_parts, tmp_path):
    config = make_config(tmp_path, sr_parts, precision="bf16", steps=4, accumulation=1)
    network, result = train(config).network, config.out / "result"
    assert all(isfinite(value) for entry in read_losses(config) for value in entry.values())
    loras = network.get_loras()
    assert {weight.dtype for weight in loras.values()} == {torch.float32}
    weights = [*network.transformer.named_parameters(), *network.vae.named_parameters()]
    assert {w.dtype for name, w in weights if name not in loras} == {torch.bfloat16}
    file = read_weights(result / LORA_FILE).lora
    names = [f"transformer.{name}" for name in list_modulations(network.transformer)]
    for name, down, up in zip(names, *[iter(network.list_parameters(GENERATOR))] * 2, strict=True):
        for factor, weight in (("A", down), ("B", up)):
            assert torch.equal(file[f"{name}.lora_{factor}.weight"], weight)
            assert not torch.equal(weight, weight.bfloat16())  # it has digits that bfloat16 has not
    encoder = read_weights(result / ENCODER_FILE).vae
    layers = {n: m for n, m in network.vae.named_modules() if hasattr(m, "get_delta_weight")}
    assert len(layers) == 31
    for name, layer in layers.items():
        expected = layer.base_layer.weight.float() + layer.get_delta_weight(VAE_ENCODER)
        found = encoder[rename_vae_weight(f"{name}.weight")].view_as(expected)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_metadata(config, tmp_path):
    export(make_network(config, shift="symmetric"), tmp_path)
    for name, kind in ((LORA_FILE, "coz lora"), (ENCODER_FILE, "coz vae encoder")):
        with safe_open(tmp_path / name, "pt") as file:
            metadata = file.metadata()
        assert (metadata["kind"], metadata["latent_shift"]) == (kind, "symmetric")
        assert (metadata["format"], metadata["rank"]) == ("chain-of-zoom/1", "4")
    assert read_weights(tmp_path / LORA_FILE).latent_shift == "symmetric"


def test_files_that_do_not_fit(config, tmp_path):
    network = make_network(config, shift="symmetric")
    export(network, tmp_path)
    with pytest.raises(ValueError, match="was trained with latent_shift symmetric: set it so"):
        load_lora(make_network(config), tmp_path / LORA_FILE)
    with pytest.raises(ValueError, match=re.escape("is (4, 128), not (8, 128); set rank to 4")):
        load_lora(make_network(config, shift="symmetric", rank=8), tmp_path / LORA_FILE)
    with pytest.raises(ValueError, match=r"has no transformer_blocks\.0\.norm1\.linear"):
        load_lora(network, tmp_path / ENCODER_FILE)
    with pytest.raises(ValueError, match=r"start_vae_encoder: sr_lora\.safetensors does not fit"):
        load_vae_encoder(load_transformer_and_vae(config)[1], tmp_path / LORA_FILE)


def test_lpips_is_that_of_torchmetrics(config):
    """The file's weights are in the network; nothing is downloaded."""
    from torchmetrics.functional.image.lpips import _NoTrainLpips

    network = load_lpips(config.lpips)
    weights = torch.load(config.lpips, weights_only=True)
    oracle = _NoTrainLpips(net="vgg", pnet_rand=True)
    state = {n: weights["features." + ".".join(n.split(".")[-2:])] for n in oracle.net.state_dict()}
    oracle.net.load_state_dict(state)
    first, second = (torch.rand(2, 3, 32, 32) * 2 - 1 for _ in range(2))
    assert torch.equal(network(first, second), oracle(first, second))
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_another_file_than_vgg16(config, tmp_path):
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "alex.pth")
    with pytest.raises(ValueError, match=r"alex.pth: expected torchvision's VGG16"):
        load_lpips(tmp_path / "alex.pth")
    with pytest.raises(
        FileNotFoundError, match=r"vgg\.pth: expected a weight file, but found none"
    ):
        load_lpips(tmp_path / "vgg.pth")


def test_merged_transformer_of_diffusers_in_load_diffusion_model(config, pack, tmp_path):
    """OracleZoom's file is such: its LoRAs are merged into the transformer."""
    import folder_paths

    import nodes

    network = disturb(make_network(config))
    adapted = enlarge(network)
    network.transformer.fuse_lora(adapter_names=[GENERATOR])
    network.transformer.unload_lora()
    merged = OneStepNetwork(network.transformer, load_transformer_and_vae(config)[1])
    network.transformer.save_pretrained(tmp_path)
    folder_paths.add_model_folder_path("diffusion_models", str(tmp_path))
    loaded = nodes.NODE_CLASS_MAPPINGS["UNETLoader"]().load_unet(
        "diffusion_pytorch_model.safetensors", "default"
    )
    image = inputs()[0]
    result = run_step(
        loaded[0], make_vae(load_transformer_and_vae(config)[1].state_dict(), 16), image
    )
    assert relative_error(result, to_frame(enlarge(merged))) < 1e-3
    assert relative_error(enlarge(network), adapted) < 1e-4  # what was merged is the LoRA
