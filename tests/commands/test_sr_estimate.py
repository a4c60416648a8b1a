"""The memory that a training of super-resolution is said to need."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks

from tests.support.random_sd3 import sd3_medium
from tools.train_sr import estimate as measured
from tools.train_sr.__main__ import main
from tools.train_sr.config import CrossScaleConfig, DistilConfig
from tools.train_sr.estimate import GIB, LiveMemory, estimate, fuse_attention, print_estimate

META = torch.device("meta")


def make_config(config=DistilConfig, **changes):
    return config(data="data", out="out", lpips="vgg16.pth", **changes)


@pytest.fixture(scope="module")
def parts():
    """The parts of SD3-medium's training for some settings, each measured once."""
    found = {}

    def measure(**changes):
        key = tuple(sorted(changes.items()))
        if key not in found:
            found[key] = estimate(make_config(text_cached=True, **changes))
        return found[key]

    return measure


def test_tensors_count_as_long_as_they_live():
    weight = torch.empty(1000, 1000, device=META, requires_grad=True)
    with LiveMemory([weight]) as memory:
        view = weight.t()
        assert memory.live == 0
        doubled = view * 2
        result = doubled.relu()  # keeps its result for the gradient
        del view, doubled
        assert memory.live == 4e6
        assert memory.peak == 8e6
        result.sum().backward()
        del result
        assert memory.live == weight.grad.nbytes == 4e6
        assert memory.peak == 12e6 + 2 * 4  # the sum and its gradient
        weight.grad = None
        assert memory.live == 0


def test_attention_keeps_no_matrix():
    """Query, key and value are leaves: their output and a number for each row are kept."""
    query = torch.empty(1, 2, 4096, 64, device=META, requires_grad=True)
    usual = F.scaled_dot_product_attention
    with fuse_attention(), LiveMemory([query]) as memory:
        result = F.scaled_dot_product_attention(query, query, query)
        assert memory.peak == result.nbytes + 2 * 4096 * 4
    assert F.scaled_dot_product_attention is usual


def test_weights_count_once(parts):
    found = parts()
    values = [tensor.numel() for tensor in sd3_medium(META).state_dict().values()]
    assert found["SD3 transformer"] == 2 * sum(values)
    assert found["VAE"] / 2 == pytest.approx(83.8e6, rel=1e-3)
    assert found["LPIPS VGG16"] / 4 == pytest.approx(14.7e6, rel=2e-3)
    assert parts(precision="fp32")["SD3 transformer"] == 2 * found["SD3 transformer"]
    # Two LoRAs of the transformer and one of the VAE, each with a gradient and two averages.
    assert found["adapters, gradients and AdamW"] == 16 * (2 * 2_021_376 + 369_388)


def test_what_is_kept_is_what_autograd_saves(monkeypatch, parts):
    """At the end of the forward pass, little else lives than what hooks see."""
    kept = parts(checkpointing=False)["kept for the gradients"]
    saved, seen = {}, []

    def note(tensor):
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    compute = measured.Distillation.compute_gradients

    def compute_with_hooks(task, batch, rng, backward):
        networks = task.network.transformer, task.network.vae, task.lpips
        frozen = {t.untyped_storage()._cdata for n in networks for t in measured.list_tensors(n)}

        def count(loss):
            storages = [t.untyped_storage() for key, t in saved.items() if key not in frozen]
            seen.append(sum(storage.nbytes() for storage in storages))
            backward(loss)

        with saved_tensors_hooks(note, lambda tensor: tensor):
            compute(task, batch, rng, count)

    monkeypatch.setattr(measured.Distillation, "compute_gradients", compute_with_hooks)
    estimate(make_config(text_cached=True, checkpointing=False))
    assert kept == pytest.approx(seen[0], rel=0.01)


def test_two_zooms_keep_more_than_one(parts):
    found = estimate(make_config(CrossScaleConfig, start_lora="a.pkl", text_cached=True))
    trained, prior = 7_077_888, 2_021_376
    assert found["adapters, gradients and AdamW"] == 16 * trained + 4 * (trained + prior)
    assert found["kept for the gradients"] / GIB == pytest.approx(1.78, abs=0.01)
    assert found["SD3 transformer"] == parts()["SD3 transformer"]


def test_checkpointing_batch_and_precision_change_what_is_kept(parts):
    changes = {}, {"batch": 2}, {"checkpointing": False}, {"precision": "fp32"}
    usual, two, everything, fp32 = (parts(**c)["kept for the gradients"] / GIB for c in changes)
    assert usual == pytest.approx(1.23, abs=0.01)
    assert two == pytest.approx(2 * usual, rel=0.01)
    assert everything == pytest.approx(7.62, abs=0.01)
    assert fp32 == pytest.approx(1.85, abs=0.01)


def test_smaller_crops_keep_less(tmp_path, parts):
    (tmp_path / "prepare.json").write_text('{"size": 256}')
    config = make_config(text_cached=True).model_copy(update={"data": tmp_path})
    part = estimate(config)["kept for the gradients"] / parts()["kept for the gradients"]
    assert part == pytest.approx(0.275, abs=0.001)  # a quarter, and the text


def test_a_model_in_a_folder_has_its_own_size(tmp_path, parts):
    from tests.support.random_sd3 import clip_text, sd3_transformer, t5_xxl
    from tests.train.tiny_sd3 import save_tiny_sd3

    save_tiny_sd3(tmp_path)
    clip, t5 = clip_text(False, META).config, t5_xxl(META).config
    t5.num_layers = 1
    for number, config in (("", clip), ("_2", clip), ("_3", t5)):
        config.save_pretrained(tmp_path / f"text_encoder{number}")
    found = estimate(make_config(model=str(tmp_path), precision="fp32"))
    values = [t.numel() for t in sd3_transformer(2).state_dict().values()]
    assert found["SD3 transformer"] == 4 * sum(values)
    assert found["text encoders"] < 1.2 * GIB
    assert sum(found.values()) < sum(parts().values())


@pytest.mark.parametrize("command", ["distil", "cross-scale"])
def test_the_command_prints_it_and_does_not_train(command, tmp_path, monkeypatch, capsys):
    config = tmp_path / "run.yaml"
    config.write_text("{data: a, out: b, lpips: c, start_lora: d}")
    monkeypatch.setattr(measured, "estimate", lambda config: {type(config).__name__: GIB})
    monkeypatch.setattr(sys, "argv", ["train_sr", command, str(config), "--estimate"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    name = {"distil": "DistilConfig", "cross-scale": "CrossScaleConfig"}[command]
    assert capsys.readouterr().out.split() == [name, *["1.00", "GiB", "together", "1.00", "GiB"]]
    monkeypatch.setattr(sys, "argv", ["train_sr", command, str(config), "--card-gb", "0.5"])
    message = r"error: the training needs 1\.0 GiB, but the card has 0\.5"
    with pytest.raises(SystemExit, match=message):
        main()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("size", ["0", "-24", "nan"])
def test_a_card_without_memory_is_refused(size, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_sr", "distil", "run.yaml", f"--card-gb={size}"])
    with pytest.raises(SystemExit):
        main()
    assert (
        f"error: --card-gb must be above 0, got {size}: give the memory of the card, such as 24, or leave it out"
        in capsys.readouterr().err
    )


def test_what_does_not_fit_is_refused(monkeypatch, capsys):
    sizes = {"SD3 transformer": 4 * GIB, "text encoders": 10 * GIB, "temporary": GIB}
    monkeypatch.setattr(measured, "estimate", lambda config: sizes)
    print_estimate(make_config(), 15.0)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "temporary                          1.00 GiB",
        "together                          15.00 GiB",
    ]
    message = (
        r"needs 15\.0 GiB, but the card has 12\.0 GiB: set checkpointing: true, or text_cached: true "
        r"\(after prepare with --text-encoders\), or batch: 1, with more accumulation$"
    )
    with pytest.raises(ValueError, match=message):
        print_estimate(make_config(batch=2, checkpointing=False), 12.0)
    with pytest.raises(ValueError, match=r"8\.0 GiB: it needs a larger card"):
        print_estimate(make_config(text_cached=True), 8.0)
