"""Prompts that SD3's text encoders embed during a training, against embeddings that were stored."""

import shutil

import pytest
import torch
from diffusers import SD3Transformer2DModel

from tests.support.random_sd3 import POOLED_WIDTH, TEXT_WIDTH, save_text_encoders, sd3_transformer
from tests.support.random_weights import randomise
from tools.train_grpo.config import read_config
from tools.train_sr.config import CrossScaleConfig
from tools.train_sr.cross_scale import load_cross_scale
from tools.train_sr.dataset import open_crops
from tools.train_sr.prepare import encode_prompts
from tools.train_sr.preview import draw_preview
from tools.train_sr.texts import Texts

from .test_sr_network import CPU, read_losses, train
from .tiny_sd3 import make_config, save_crops, write_config

STEPS = 3


@pytest.fixture(scope="module")
def parts(sr_parts, tmp_path_factory):
    """A tiny SD3 with text encoders, and a data set with the embeddings that they make."""
    folder = tmp_path_factory.mktemp("texts")
    model = save_text_encoders(folder / "sd3")
    shutil.copytree(sr_parts["model"] / "vae", model / "vae")
    widths = {"joint_attention_dim": TEXT_WIDTH, "pooled_projection_dim": POOLED_WIDTH}
    transformer = SD3Transformer2DModel.from_config({**sd3_transformer(2).config, **widths})
    randomise(transformer, 0).save_pretrained(model / "transformer")
    data = save_crops(folder / "crops", side=64)
    shutil.rmtree(data / "texts")
    encode_prompts([f"text {i}" for i in range(6)], data, str(model))
    return sr_parts | {"model": model, "data": data}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_live_text_encoders_give_the_losses_of_stored_embeddings(parts, tmp_path, precision):
    losses = {}
    for cached in (True, False):
        config = make_config(
            tmp_path,
            parts,
            **{"out": f"run-{cached}", "text_cached": cached, "precision": precision},
            **{"steps": STEPS, "batch": 2, "accumulation": 1},
        )
        task = train(config)
        losses[cached] = read_losses(config)
        assert draw_preview(task.network, task.texts, open_crops(config, held_out=True), 1)
    assert len(losses[False]) == STEPS
    for live, stored in zip(losses[False], losses[True], strict=True):
        assert live == pytest.approx(stored, rel=1e-4)


def test_live_embeddings_depend_on_the_prompt(parts, tmp_path):
    texts = Texts(make_config(tmp_path, parts, text_cached=False), CPU)
    text, pooled = texts.embed({"prompt": ["text 0", "text 1"]})
    assert (text.shape, pooled.shape) == ((2, 589, TEXT_WIDTH), (2, POOLED_WIDTH))
    assert not text.is_inference()  # backward could not keep such a tensor
    assert not torch.equal(text[0], text[1])
    assert not torch.equal(pooled[0], pooled[1])


def test_two_zooms_with_live_text_encoders(parts, tmp_path):
    losses = []
    result = {"start_lora": tmp_path / "first" / "result" / "sr_lora.safetensors"}
    train(make_config(tmp_path, parts, out="first", steps=1, accumulation=1))
    for cached in (True, False):
        path = write_config(tmp_path / "two.yaml", parts | result, text_cached=cached)
        config = read_config(path, CrossScaleConfig)
        crops = open_crops(config), open_crops(config, held_out=True)
        task = load_cross_scale(config, CPU, *crops)
        batch = {"low": crops[0][0]["low"][None], "high": crops[0][0]["high"][None]}
        batch |= {n: crops[0][0][n][None] for n in ("text", "pooled") if n in crops[0][0]}
        batch["prompt"] = [crops[0][0]["prompt"]]
        losses.append(
            task.compute_gradients(batch, torch.Generator(), lambda loss: loss.backward())
        )
    assert losses[0].keys() == losses[1].keys()
    for name, loss in losses[0].items():
        assert losses[1][name].item() == pytest.approx(loss.item(), rel=1e-4)
