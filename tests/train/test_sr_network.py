"""One network with adapters, against three networks, and the traps of switching adapters."""

import copy

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin

from tools.train_sr import loop
from tools.train_sr.dataset import open_crops
from tools.train_sr.distil import add_distil_loras, load_distillation
from tools.train_sr.network import GENERATOR, REGULARIZER, VAE_ENCODER, OneStepNetwork
from tools.train_sr.sd3 import load_timesteps, load_transformer_and_vae

from .tiny_sd3 import make_config

CPU = torch.device("cpu")


def make_accelerator(config):
    plugin = GradientAccumulationPlugin(num_steps=config.accumulation)
    return Accelerator(cpu=True, gradient_accumulation_plugin=plugin)


def train(config):
    task = load_distillation(config, CPU)
    crops = open_crops(config), open_crops(config, held_out=True)
    loop.train(config, task, *crops, make_accelerator(config))
    return task


def read_losses(config):
    return loop.LossLog(config.out / "losses.jsonl", config.steps).read()


@pytest.fixture
def config(sr_parts, tmp_path):
    return lambda **changes: make_config(tmp_path, sr_parts, **changes)


@pytest.fixture
def network(config):
    made = OneStepNetwork(*load_transformer_and_vae(config()))
    add_distil_loras(made, 4, 0)
    with torch.no_grad():  # with B = 0, as at the start, adapters change nothing
        for parameter in made.list_parameters(GENERATOR, REGULARIZER):
            parameter += (
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) / 9
            )
    return made


def inputs(seed=5):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, 3, 32, 32, generator=generator) * 2 - 1
    text = torch.randn(1, 5, 4096, generator=generator)
    return image, text, torch.randn(1, 2048, generator=generator)


def list_gradients(network, *names):
    return [parameter.grad for parameter in network.list_parameters(*names)]


def train_three_networks(config):
    """Three networks, one for each role, whose adapters are never switched, in plain torch."""
    task, crops = load_distillation(config, CPU), open_crops(config)
    roles = {role: copy.deepcopy(task.network) for role in (GENERATOR, REGULARIZER, "base")}
    for role, network in roles.items():
        network.use(*[role] * (role != "base"))
    generator, regularizer = roles[GENERATOR], roles[REGULARIZER]
    groups = [
        generator.list_parameters(GENERATOR),
        regularizer.list_parameters(REGULARIZER),
        generator.list_parameters(VAE_ENCODER),
    ]
    optimizers = [torch.optim.AdamW(group, lr=0.01, weight_decay=1e-2) for group in groups]
    batches = loop.read_batches(config, crops, make_accelerator(config), 0)
    log = []
    for number in range(config.steps * config.accumulation):
        batch, rng = next(batches), loop.make_generator(config.seed, 1, number)
        text, high = (batch["text"], batch["pooled"]), batch["high"]
        z, image = generator.enlarge(batch["low"], *text, rng)
        noised, t = task.add_noise(z.detach(), rng)
        with torch.no_grad():
            fake = regularizer.predict(noised, t, *text)
            real = roles["base"].predict(noised, t, *text)
            pull = (fake - real) / (z - real).abs().mean((1, 2, 3), keepdim=True)
        losses = {
            "mse": F.mse_loss(image, high),
            "lpips": task.lpips(image, high).mean(),
            "vsd": F.mse_loss(z, (z - pull).detach()),
        }
        ((losses["mse"] + 2 * losses["lpips"] + losses["vsd"]) / config.accumulation).backward()
        noised, t = task.add_noise(z.detach(), rng)
        losses["regularizer"] = F.mse_loss(regularizer.predict(noised, t, *text), z.detach())
        (losses["regularizer"] / config.accumulation).backward()
        log.append({name: loss.item() for name, loss in losses.items()})
        if number % config.accumulation:
            for group, optimizer in zip(groups, optimizers, strict=True):
                torch.nn.utils.clip_grad_norm_(group, 1)
                optimizer.step()
                optimizer.zero_grad()
    return groups, log


def test_one_network_equals_three(config):
    groups, expected = train_three_networks(config())
    network = train(config()).network
    for name, group in zip((GENERATOR, REGULARIZER, VAE_ENCODER), groups, strict=True):
        assert all(map(torch.equal, network.list_parameters(name), group))
    losses = read_losses(config())
    assert losses[0]["vsd"] == expected[0]["vsd"] == expected[1]["vsd"] == 0 < losses[-1]["vsd"]
    for step, entry in enumerate(losses):
        pair = expected[2 * step : 2 * step + 2]
        for name in pair[0]:
            assert entry[name] == pytest.approx((pair[0][name] + pair[1][name]) / 2, rel=1e-6)


def test_only_the_loras_move(config):
    transformer, vae = load_transformer_and_vae(config())
    network = train(config(steps=1)).network
    for before, now in ((transformer, network.transformer), (vae, network.vae)):
        frozen = {n.replace(".base_layer", ""): p for n, p in now.named_parameters()}
        assert all(torch.equal(weight, frozen[name]) for name, weight in before.named_parameters())
    begin = OneStepNetwork(*load_transformer_and_vae(config()))
    add_distil_loras(begin, 4, config().seed)
    before, now = begin.get_loras(), network.get_loras()
    # the last block has one modulation that is not of this class; 31 layers of the encoder
    assert len(now) == 2 * (2 * 3 + 31)
    # at first A gets no gradient, as B is 0, but weight decay
    assert all(not torch.equal(before[name], now[name]) for name in now)


@pytest.mark.parametrize("left", [(REGULARIZER,), ()])
def test_backward_uses_the_adapters_of_forward(network, left):
    """Trap 1: a checkpointed block runs again in backward, with what is active then."""
    gradients = []
    for adapters in ((GENERATOR,), left):
        network.use(GENERATOR)
        latent, image = network.enlarge(*inputs())
        network.use(*adapters)
        (image.square().mean() + latent.square().mean()).backward()
        assert network.active == adapters
        gradients.append([g.clone() for g in list_gradients(network, GENERATOR, VAE_ENCODER)])
        for parameter in network.list_parameters(GENERATOR, VAE_ENCODER):
            parameter.grad = None
    assert all(map(torch.equal, *gradients))
    assert all(gradient is None for gradient in list_gradients(network, REGULARIZER))


def test_switching_keeps_what_is_trained(network):
    """Trap 2: PEFT turns the gradients of adapters off that are not active."""
    for adapters in ((REGULARIZER,), (), (GENERATOR,), ()):
        network.use(*adapters)
        parameters = network.list_parameters(GENERATOR, REGULARIZER, VAE_ENCODER)
        assert all(parameter.requires_grad for parameter in parameters)


def test_a_frozen_adapter_stays_frozen(network):
    """Trap 3: PEFT turns the gradients of all active adapters on."""
    network.set_trained(REGULARIZER)
    network.use(GENERATOR, REGULARIZER)
    latent, _ = network.enlarge(*inputs())
    latent.square().mean().backward()
    assert all(gradient is None for gradient in list_gradients(network, GENERATOR))
    assert all(gradient is not None for gradient in list_gradients(network, REGULARIZER))


def test_loras_are_float32_in_a_bfloat16_network(config):
    """Traps 4 and 6: PEFT makes them bfloat16, and diffusers casts only those that get gradients."""
    made = OneStepNetwork(*load_transformer_and_vae(config(precision="bf16")))
    add_distil_loras(made, 4, 0)
    assert made.transformer.pos_embed.proj.weight.dtype == torch.bfloat16
    assert {weight.dtype for weight in made.get_loras().values()} == {torch.float32}
    before = [p.clone() for p in made.list_parameters(GENERATOR)]
    latent, _ = made.enlarge(*inputs())
    latent.square().mean().backward()
    torch.optim.AdamW(made.list_parameters(GENERATOR), lr=5e-5).step()
    moved = [
        not torch.equal(a, b) for a, b in zip(before, made.list_parameters(GENERATOR), strict=True)
    ]
    assert all(moved)


def test_layers_of_the_lora(network):
    """Trap 5: the context norm of the last block is of another class."""
    names = {n.partition(".lora_")[0] for n in network.get_loras() if f".{GENERATOR}." in n}
    assert names == {
        "transformer_blocks.0.norm1.linear",
        "transformer_blocks.0.norm1_context.linear",
        "transformer_blocks.1.norm1.linear",
    }


@pytest.mark.parametrize("shift", ["reference", "symmetric"])
def test_latent_conventions(config, shift):
    """Trap 7, and Chain-of-Zoom's formulas."""
    made = OneStepNetwork(*load_transformer_and_vae(config()), shift)
    image = inputs()[0]
    with torch.no_grad():
        mean = made.vae.encode(image).latent_dist.mode()
        z = made.encode(image)
        assert torch.allclose(z, (mean - 0.0609 * (shift == "symmetric")) * 1.5305, atol=1e-6)
        expected = made.vae.decode(z / 1.5305 + 0.0609).sample
        assert torch.allclose(made.decode(z), expected, atol=1e-6)


def test_timesteps_are_those_of_the_sampler(config):
    timesteps = load_timesteps(config().model)
    assert (len(timesteps), timesteps[0]) == (1000, 1000)
    assert timesteps.median() == pytest.approx(750.5, abs=0.5)
    assert timesteps.min() == pytest.approx(8.93, abs=0.01)
