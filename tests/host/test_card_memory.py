"""What stays in a simulated card's memory, and what the host can free there."""

import sys

import pytest
import torch

from tests.support.host_with_card import HostWithCard

SIDE = 8192
MOST_BYTES = 3e9


@pytest.fixture
def host():
    return HostWithCard("gpu only")


@pytest.mark.parametrize("scale", [pytest.param(2, marks=pytest.mark.long), 4])
def test_keep_true_to_source_takes_3_gb_for_8192_pixels_a_side(
    pack, nodes_of, host, monkeypatch, scale
):
    banded = sys.modules[f"{pack.__name__}.coz.fidelity.banded_resize"]
    monkeypatch.setattr(banded, "MAX_PIXELS_AT_ONCE", 1)  # as for that many pixels
    node = nodes_of("check.keep_true_to_source").CoZKeepTrueToSource
    with host.running() as card, torch.inference_mode():
        # Tall, because some figures are summed in bands of rows.
        height, width = 4096, 8
        generator = torch.Generator().manual_seed(0)
        image, source = (
            card.put(torch.rand(1, height // n, width // n, 3, generator=generator))
            for n in (1, scale)
        )
        node.execute(image, source, 0.5, 2)  # the matrices, which grow less, are on the card now
        before = card.memory.live
        card.memory.restart_peak()
        result = node.execute(image, source, 0.5, 2)
        taken = card.memory.peak - before + image.nbytes + source.nbytes
        assert result.args[0].device == card.device
    assert taken * SIDE**2 / (height * width) <= MOST_BYTES


def test_a_loaded_chain_is_in_memory_once(nodes_of, host, make_chain, tmp_path, monkeypatch):
    from coz.chain.folder import read_chain, write_chain

    saved = write_chain(make_chain(40, 30, 32, steps=4), tmp_path, "chain", 1)
    chain = read_chain(saved)
    monkeypatch.setattr("folder_paths.output_directory", str(tmp_path))
    with host.running() as card, torch.inference_mode():
        card.memory.restart_peak()
        before = card.memory.live
        result = nodes_of("view.saved_chain").CoZLoadChain.execute(saved.name)
        peak = card.memory.peak - before
        loaded, source, scales, _ = result.args
        assert torch.equal(scales.cpu(), torch.cat(chain.frames[1:]).movedim(1, -1))
        assert torch.equal(loaded.frames[2].cpu(), chain.frames[2])
        assert len(card.work.transfers) == 4  # two up, and two down for these tests
    assert peak == source.nbytes + scales.nbytes


def test_a_finished_chain_and_its_batch_are_in_memory_once(nodes_of, host, make_chain):
    """The host holds the images of the steps too, until it needs the memory."""
    collect = nodes_of("loop.collect")
    chain = make_chain(40, 30, 32, steps=4)
    with host.running() as card, torch.inference_mode():
        images = [card.put(frame.movedim(1, -1)) for frame in chain.frames]
        before = card.memory.live
        frames, scales = collect.join_frames(images)
        assert [frame.shape for frame in frames] == [frame.shape for frame in chain.frames]
        assert torch.equal(scales.cpu(), torch.cat(chain.frames[1:]).movedim(1, -1))
        assert card.memory.live - before == scales.nbytes
        source = images[0].nbytes
        del images
        assert card.memory.live == source + scales.nbytes
