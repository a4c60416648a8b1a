"""The simulated card keeps a GPU's rules and counts exactly."""

import gc

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


@MODES
def test_a_list_of_values_on_the_card_becomes_a_tensor(a, mode):
    with mode():
        made = torch.tensor([a[1, 2], 7.5, a[0, 1]], device=a.device)
    assert made.device == a.device
    assert made.cpu().tolist() == [6, 7.5, 1]


def test_numpy_raises(a):
    with pytest.raises(TypeError, match="convert"):
        a.numpy()
    with pytest.raises(TypeError, match="convert"):
        a.__array__()


@MODES
def test_a_cpu_tensor_without_dimensions_is_taken(a, mode):
    with mode():
        assert (a * torch.tensor(2.0)).tolist() == (a.cpu() * 2).tolist()
        assert torch.where(a > 1, a, torch.tensor(0.0)).device == a.device


@MODES
def test_cpu_indices_are_taken_and_copied(card, a, mode):
    with mode():
        assert a[torch.tensor([2, 0])][:, 0].tolist() == [8, 0]
    assert [t.bytes for t in card.work.transfers if t.to_card] == [16]


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
    "repeat_interleave to a known size": (
        0,
        lambda a: a[0].repeat_interleave(a[0].long(), output_size=6),
    ),
}


@MODES
@pytest.mark.parametrize(("count", "read"), READS.values(), ids=READS.keys())
def test_reads_are_counted(card, a, count, read, mode):
    with mode():
        read(a)
    assert card.work.scalar_reads == count


@MODES
def test_transfers_are_counted_with_their_bytes(card, a, mode):
    with mode():
        a.cpu()
        a.tolist()
        a.to("cpu", torch.float64)
        torch.ones(5).to(card.device)
        torch.ones(5, dtype=torch.float64).to(a)
        a[0].copy_(torch.ones(4))
        torch.empty(3, 4).copy_(a)
        torch.tensor([1.0, 2], device=card.device)
        a.to(card.device)
        a.clone()
    moved = [(t.to_card, t.bytes, t.blocks) for t in card.work.transfers]
    down = [(False, n, True) for n in (48, 48, 96)]
    up = [(True, n, True) for n in (20, 20, 16)]
    assert moved == [*down, *up, (False, 48, True), (True, 8, True)]


@MODES
def test_pinned_copies_do_not_block(card, a, mode):
    with mode():
        pinned = torch.ones(5).pin_memory()
        assert pinned.is_pinned()
        assert not torch.ones(5).is_pinned()
        pinned[1:].to(card.device, non_blocking=True)
        pinned.to(card.device)
        torch.ones(5).to(card.device, non_blocking=True)
        a.to("cpu", non_blocking=True)
        torch.empty(3, 4).copy_(a, non_blocking=True)
        torch.empty(3, 4).pin_memory().copy_(a, non_blocking=True)
    blocks = [t.blocks for t in card.work.transfers]
    assert blocks == [False, True, True, False, True, False]


@MODES
def test_flops_are_torchs(card, a, mode):
    with mode():
        a @ a.mT
        F.linear(a[None], a)
        F.conv2d(a[None, None], a[None, None, :2, :2])
        F.scaled_dot_product_attention(a[None, None], a[None, None], a[None, None])
        a + a
    assert card.work.flops == 2 * 3 * 4 * 3 * 2 + 2 * (2 * 3) * 4 + 2 * 2 * 3 * 3 * 4


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


@MODES
def test_a_full_card_raises(card, mode):
    with mode():
        x = torch.zeros(2**17, device=card.device)
        with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
            x.double()
        assert card.memory.live == 2**19
        del x
        gc.collect()  # the exception had it too
        torch.zeros(2**18, device=card.device)
    gc.collect()
    assert card.memory.live == 0


@MODES
def test_generators_know_their_device(card, mode):
    with mode():
        on_card = torch.Generator(device=card.device).manual_seed(3)
        on_cpu = torch.Generator().manual_seed(3)
        drawn = torch.randn(4, generator=on_card, device=card.device).tolist()
        again = torch.randn(4, generator=on_card.manual_seed(3), device=card.device).tolist()
        assert drawn == again != torch.randn(4, generator=on_cpu).tolist()
        for generator, device in ((on_cpu, card.device), (on_card, "cpu")):
            with pytest.raises(RuntimeError, match="for generator"):
                torch.randn(4, generator=generator, device=device)


def test_the_highest_seed_is_valid(card):
    for seed in (2**64 - 1, -(2**63)):
        torch.manual_seed(seed)
        assert torch.Generator(device=card.device).manual_seed(seed)


def test_the_cards_numbers_are_not_the_cpus(card):
    torch.manual_seed(0)
    drawn, of_cpu = torch.rand(4, device=card.device).tolist(), torch.rand(4).tolist()
    torch.manual_seed(0)
    assert drawn == torch.rand(4, device=card.device).tolist() != of_cpu
    assert torch.rand(4).tolist() == of_cpu


@MODES
def test_two_cards_meet_as_little_as_a_card_and_the_cpu(card, a, mode):
    from tests.support.simulated_card import Card

    with Card(100, index=1) as other, mode():
        b = a.to(other.device)
        assert (b.device, b.tolist()) == (torch.device("card", 1), a.tolist())
        assert [(t.to_card, t.bytes) for t in other.work.transfers] == [(True, 48), (False, 48)]
        assert (other.memory.live, (b.sum() + 1).device) == (48, b.device)
        for meet in (lambda: a + b, lambda: a * b.sum(), lambda: b.index_select(0, a[0].long())):
            with pytest.raises(RuntimeError, match=r"card:[01] and card:[01]"):
                meet()
        with pytest.raises(torch.OutOfMemoryError):
            b.double()
        kernels = other.work.kernels
        a.copy_(b)
        assert (other.work.kernels, len(card.work.transfers)) == (kernels, 2)


@MODES
def test_bytes_read_are_those_of_the_operands(card, a, mode):
    with mode():
        for count, kernel in (
            (48 + 48, lambda: a + a),
            (48, lambda: a.sum()),
            (16, lambda: a[0] * 2),
            (4, lambda: a[0, :1].expand(3, 4) + 1),  # one value
            (8 + 16, lambda: a[a.new_tensor([1], dtype=torch.int64)]),  # the index and one row
            (48, lambda: torch.empty_like(a).copy_(a)),
            (0, lambda: a.zero_()),
            (0, lambda: a.view(4, 3)),
        ):
            before = card.work.copy()
            kernel()
            assert card.work.since(before).bytes_read == count


@pytest.fixture
def hollow():
    from tests.support.simulated_card import Card

    with Card(2**40, has_values=False) as card:
        yield card


@MODES
def test_without_values_large_tensors_take_no_memory(hollow, mode):
    with mode():
        weight = torch.empty(2**15, 2**15).to(hollow.device)  # 4 GiB
        result = F.linear(weight[:3].half(), weight.half()[:5])
        assert hollow.memory.peak == 2**32 + 3 * 2**16 + 2**31 + 3 * 5 * 2
        back = weight.to("cpu", torch.float64)
        assert (result.shape, result.dtype, back.dtype) == ((3, 5), torch.float16, torch.float64)
        assert back[0].sum() == 0  # the other pages stay untouched
    assert hollow.work.flops == 2 * 3 * 5 * 2**15
    assert [t.bytes for t in hollow.work.transfers] == [2**32, 2**33]


@MODES
def test_without_values_small_tensors_hold_them_until_a_large_one_comes_in(hollow, mode):
    with mode():
        sizes = torch.tensor([3, 4], device=hollow.device)
        assert (sizes * 2).tolist() == [6, 8]
        assert sizes.repeat_interleave(sizes).tolist() == [3, 3, 3, 4, 4, 4, 4]
        large = torch.ones(2**20, device=hollow.device)
        assert large.sum().item() == 0
        assert large.nonzero().shape == (0, 1)
        sizes.add_(large[:2].long())
        assert sizes.tolist() == [0, 0]


@MODES
def test_without_values_large_matrices_are_not_copied_within_the_cpu(hollow, mode):
    with mode():
        assert torch.zeros(2**18).copy_(torch.ones(2**18)).sum() == 2**18
        assert torch.zeros(2**18 + 1).copy_(torch.ones(2**18 + 1)).sum() == 0
        image = torch.full((1, 2**19, 3), torch.nan)  # as memory that was in use before may be
        image.copy_(torch.ones(1, 2**19, 3))
        assert image.sum() == 3 * 2**19
        image = torch.ones(2**20)
        image.copy_(torch.ones(2**20, device=hollow.device))
        assert image.sum() == 0


@MODES
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_products_are_in_tf32_where_torch_is_allowed_to(card, a, mode, precision):
    third = card.put(torch.full((1, 4, 1), 1 / 3))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with mode():
            product = torch.bmm(a[None], third).flatten().tolist()
    finally:
        torch.set_float32_matmul_precision(before)
    rounded = 1365 / 4096 if precision == "high" else 1 / 3  # 1365 has 11 bits
    assert product == pytest.approx([rounded * (6 + 16 * row) for row in range(3)], rel=1e-6)


@MODES
def test_without_float64_it_is_refused(mode):
    from tests.support.simulated_card import Card

    wide = torch.ones(3, dtype=torch.float64)
    with Card(has_float64=False) as card, mode():
        x = card.put(torch.ones(3))
        for make in (
            lambda: x.double(),
            lambda: wide.to(card.device),
            lambda: wide.to(x),  # in one step
            lambda: x.copy_(wide),
            lambda: torch.zeros(3, dtype=torch.float64, device=card.device),
        ):
            with pytest.raises(TypeError, match="float64"):
                make()
        assert wide.float().to(x).device == card.device
        assert x.cpu().double().dtype == torch.float64
