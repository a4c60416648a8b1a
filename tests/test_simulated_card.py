"""What tests on the simulated card rely on: it refuses, counts waits and measures memory."""

import pytest
import torch
import torch.nn.functional as F

MODES = pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])


@pytest.fixture
def card():
    # Not at the top: it makes a device for the whole process.
    from tests.support.simulated_card import Card

    with Card(2**20) as card:
        yield card


@pytest.fixture
def a(card):
    return card.put(torch.arange(12.0).reshape(3, 4))


MEETINGS = {
    "add": lambda a, b: a + b,
    "in place": lambda a, b: a.add_(b),
    "out": lambda a, b: torch.mul(b, 2, out=a),
    "out on the CPU": lambda a, b: torch.mul(a, 2, out=b),
    "matmul": lambda a, b: a @ b.mT,
    "linear": lambda a, b: F.linear(a, b),
    "conv": lambda a, b: F.conv2d(a[None, None], b[None, None]),
    "cat": lambda a, b: torch.cat([a, b]),
    "where": lambda a, b: torch.where(a > 1, a, b),
    "index_select": lambda a, b: a.index_select(0, torch.tensor([0])),
    "index of a CPU tensor": lambda a, b: b[(a[:, 0] > 1)],
    "index_put of a CPU tensor": lambda a, b: a.__setitem__(torch.tensor([0]), b[:1]),
    "searchsorted": lambda a, b: torch.searchsorted(a[0], b),
    "searchsorted of a single": lambda a, b: torch.searchsorted(a[0], torch.tensor(3.0)),
    "single is written": lambda a, b: torch.tensor(0.0).add_(a.sum()),
    "attention": lambda a, b: F.scaled_dot_product_attention(a[None], b[None], b[None]),
    "lerp": lambda a, b: torch.lerp(a, a, b),
}


@MODES
@pytest.mark.parametrize("meet", MEETINGS.values(), ids=MEETINGS.keys())
def test_operands_of_two_devices_raise(a, meet, mode):
    with mode(), pytest.raises(RuntimeError, match="same device"):
        meet(a, torch.ones(3, 4))


READS = {
    "item": (1, lambda a: a[0, 0].item()),
    "float": (1, lambda a: float(a.sum())),
    "bool": (1, lambda a: bool((a > 1).any())),
    "nonzero": (1, lambda a: a.nonzero()),
    "mask": (1, lambda a: a[a > 3]),
    "two masks": (2, lambda a: a[a[:, 0] > 3, a[0] > 1]),
    "write by mask": (1, lambda a: a.__setitem__(a > 3, a.new_ones(8))),
    "masked_select": (1, lambda a: torch.masked_select(a, a > 3)),
    "equal": (1, lambda a: torch.equal(a, a)),
    "allclose": (1, lambda a: torch.allclose(a, a)),
    "unique": (1, lambda a: a.unique()),
    "bincount": (2, lambda a: a.flatten().long().bincount()),
    "repeat_interleave": (1, lambda a: a[0].repeat_interleave(a[0].long())),
    "in a loop": (3, lambda a: [float(row.max()) for row in a]),
    "none": (0, lambda a: a.max() * a[a[0, :2].long()].sum()),
    "known size": (0, lambda a: a[0].repeat_interleave(a[0].long(), output_size=6)),
}


@MODES
@pytest.mark.parametrize(("count", "read"), READS.values(), ids=READS.keys())
def test_reads_are_counted(card, a, count, read, mode):
    with mode():
        read(a)
    assert card.work.scalar_reads == count


@MODES
def test_memory_is_exact(card, mode):
    with mode():
        x = torch.zeros(1000, device=card.device)
        assert (card.memory.live, card.memory.peak) == (4000, 4000)
        y = x[10:].view(-1, 10).mT
        del x
        assert card.memory.live == 4000  # the view holds it
        z = y + 1
        assert card.memory.live == 4000 + 3960
        z = z.double()  # both are there while it is copied
        assert card.memory.live == 4000 + 7920
        assert card.memory.peak == 4000 + 3960 + 7920
        del y, z
        assert card.memory.live == 0
        card.memory.restart_peak()
        x = torch.zeros(10, device=card.device)
        x.mul_(2).add_(1)
        torch.mul(x, 2, out=x)
        assert card.memory.peak == 40
        x.sum().item()
        assert card.memory.peak == 44
