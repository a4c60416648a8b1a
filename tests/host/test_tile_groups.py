"""Tiles of Full-Image SR that a GPU sharpens at once, on the simulated card."""

import json

import pytest
import torch

from coz.tiles.grid import join_grid, split_grid
from coz.tiles.plan import plan_tiles
from tests.support.host_with_card import HostWithCard
from tests.support.small_models import small_clip, small_sd3, small_vae

ROUNDING = 2e-6
"""A batch rounds otherwise than its images do one by one; back-projection adds up the differences."""


class Tiles:
    """One pass of Full-Image SR on a card with images on the CPU: its result and its work."""

    def __init__(self, nodes_of, node, monkeypatch):
        self.module, self.node, self.monkeypatch = nodes_of("full_image.tiles"), node, monkeypatch
        self.host = HostWithCard()
        self.picture = torch.rand(1, 96, 128, 3, generator=torch.Generator().manual_seed(0))
        self.is_loaded = False

    def run(self, chosen, tile, color_fix="wavelet", consistency=0.0, prompts="", max_group=None):
        if max_group:
            plan = self.module.TileUpscaler.plan_groups

            def limited(sharpener, windows):
                sharpener.max_group = max_group
                return plan(sharpener, windows)

            self.monkeypatch.setattr(self.module.TileUpscaler, "plan_groups", limited)
        layout = json.dumps(plan_tiles(*self.picture.shape[1:3], 4.0, tile, tile // 4))
        inputs = self.picture, prompts, 1, layout, chosen, 0, color_fix, consistency, self.picture
        with torch.inference_mode(), self.host.running() as card:
            if not self.is_loaded:
                self.node("CoZTiles").execute(*inputs)  # loads the weights
                self.is_loaded = True
            before = card.work.copy()
            result = self.node("CoZTiles").execute(*inputs)[0]
            self.monkeypatch.undo()
            return result, card.work.since(before)


@pytest.fixture
def tiles(nodes_of, node, monkeypatch):
    return Tiles(nodes_of, node, monkeypatch)


def count_uploads(work) -> int:
    return sum(transfer.to_card for transfer in work.transfers)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 3)])
def test_a_grid_is_split_into_what_was_joined(shape):
    images = torch.rand(shape[0] * shape[1], 3, 5, 4)
    grid = join_grid(images, *shape)
    assert grid.shape == (1, 3, 5 * shape[0], 4 * shape[1])
    assert torch.equal(grid[0, :, -5:, -4:], images[-1])
    assert torch.equal(split_grid(grid, *shape), images)


@pytest.mark.parametrize("consistency", [0.0, 0.5])
def test_a_group_has_the_values_of_its_tiles_and_few_kernels(tiles, upscale_model, consistency):
    with tiles.host.running():
        model = upscale_model(4)
    chosen = {"backbone": "upscale model", "upscale_model": model, "resampling": "bicubic"}
    together, few = tiles.run(chosen, 128, consistency=consistency)
    alone, many = tiles.run(chosen, 128, consistency=consistency, max_group=1)
    assert (together - alone).abs().max() < ROUNDING
    assert few.kernels < many.kernels / 5
    # 12 tiles, at most 10 of them in a row of 512 source pixels.
    assert (count_uploads(few), count_uploads(many)) == (2, 12)


@pytest.mark.parametrize("max_images", [1, 4])
def test_out_of_memory_makes_smaller_groups_first(tiles, upscale_model, max_images, caplog):
    with tiles.host.running():
        model = upscale_model(4)
    chosen = {"backbone": "upscale model", "upscale_model": model, "resampling": "bicubic"}
    expected, _ = tiles.run(chosen, 128)
    sizes = []

    def short_of_memory(_, args):
        sizes.append(len(args[0]))
        if len(args[0]) > max_images:
            raise torch.OutOfMemoryError("injected")

    caplog.clear()
    with model.model.register_forward_pre_hook(short_of_memory):
        found, _ = tiles.run(chosen, 128)
    assert max(sizes) == 10
    assert sizes[-1] <= max_images
    assert (found - expected).abs().max() < ROUNDING
    assert [text for text in caplog.messages if "memory" in text] == []  # the tiles stay whole


@pytest.mark.parametrize("prompts", ["", "a\nb\nc\nd\ne\nf"])
def test_one_step_diffusion_sharpens_tiles_of_any_text_at_once(tiles, prompts, caplog):
    tiles.picture = tiles.picture[:, :24, :32]
    with tiles.host.running():
        chosen = {"backbone": "one-step diffusion", "model": small_sd3(), "vae": small_vae(),
                  "clip": small_clip(), "latent_shift": "auto"}  # fmt: skip
    together, few = tiles.run(chosen, 64, prompts=prompts)
    alone, many = tiles.run(chosen, 64, prompts=prompts, max_group=1)
    assert (together - alone).abs().max() < 1e-4
    assert few.kernels < many.kernels / 2

    network, sizes = chosen["model"].model.diffusion_model, []

    def short_of_memory(_, args):
        sizes.append(len(args[0]))
        if len(args[0]) > 1:
            raise torch.OutOfMemoryError("injected")

    caplog.clear()
    with network.register_forward_pre_hook(short_of_memory):
        found, _ = tiles.run(chosen, 64, prompts=prompts)
    assert torch.equal(found, alone)
    assert max(sizes) > 1
    assert sizes[-1] == 1
    assert [text for text in caplog.messages if "tiles are at most" in text] == []
