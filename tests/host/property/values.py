"""What may reach a node, as small descriptions: they are what a failing case prints."""

import math
from typing import NamedTuple

import torch
from hypothesis import strategies as st

PLAIN = ["noise", "flat", "gradient", "extremes"]
STRANGE = ["negative", "bright", "denormal", "NaN", "one NaN", "infinite", "one infinite"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
CHANNELS = [3, 4, 1]
BROKEN = ["no batch", "a video", "no channels", "no pixels", "no picture"]
"""Shapes that are no batch of pictures."""


class Picture(NamedTuple):
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    content: str = "noise"
    seed: int = 0
    strided: bool = False
    """Planes one after the other, as a node may hand them on."""

    def make(self) -> torch.Tensor:
        x = torch.rand(self.shape, generator=torch.Generator().manual_seed(self.seed))
        if self.strided and x.ndim > 2:
            x = x.movedim(-1, 1).contiguous().movedim(1, -1)
        flat = x.view(-1) if x.is_contiguous() else x
        match self.content:
            case "flat":
                x = torch.full_like(x, (self.seed % 3) / 2)
            case "gradient":
                x = torch.linspace(0, 1, max(1, x.numel()))[: x.numel()].reshape(self.shape)
            case "extremes":
                x = x.round()
            case "negative":
                x = x * 3 - 2
            case "bright":
                x = x * 60000
            case "denormal":
                x = x * 1e-40
            case "NaN":
                x = torch.full_like(x, math.nan)
            case "infinite":
                x = torch.full_like(x, -math.inf if self.seed % 2 else math.inf)
            case "one NaN" | "one infinite" if x.numel():
                flat[(0,) * flat.ndim] = math.nan if self.content == "one NaN" else math.inf
        return x.to(self.dtype)


class Chain(NamedTuple):
    """A chain's record: what is not of ``windows`` was planned, not edited."""

    source: tuple[int, int]
    frame: tuple[int, int]
    windows: tuple[tuple[float, float, float, float], ...]
    scale: float
    prompts: tuple[str, ...]
    target: tuple[float, float]
    content: str
    agreements: tuple[float, ...] = ()


def often(likely, *rare, one_in: int = 12):
    """The first strategy, and one of the others once in so many times."""
    return st.integers(1, one_in).flatmap(lambda k: likely if k < one_in else st.one_of(*rare))


def sides(most: int):
    """Mostly small: what breaks at 700 pixels and not at 40 is rare, and takes long."""
    small, middle = min(most, 24), min(most, 96)
    return often(st.integers(1, small), st.integers(1, middle), st.integers(1, most), one_in=4)


@st.composite
def shapes(draw, most: int, batch: int):
    b, c = draw(often(st.just(1), st.integers(2, batch), one_in=6)), draw(st.sampled_from(CHANNELS))
    h, w = draw(sides(most)), draw(sides(most))
    match draw(often(st.just(""), st.just("two channels"), st.sampled_from(BROKEN), one_in=20)):
        case "two channels":
            return (b, h, w, 2)
        case "no batch":
            return (h, w, c)
        case "a video":
            return (b, 2, h, w, c)
        case "no channels":
            return (b, h, w, 0)
        case "no pixels":
            return draw(st.sampled_from([(b, 0, w, c), (b, h, 0, c)]))
        case "no picture":
            return (0, h, w, c)
    return (b, h, w, c)


contents = often(st.sampled_from(PLAIN), st.sampled_from(STRANGE), one_in=6)


def pictures(most: int = 700, batch: int = 3):
    kind = st.sampled_from(DTYPES), contents, st.integers(0, 9), st.booleans()
    return st.builds(Picture, shapes(most, batch), *kind)


def boxes(least: int, most: int):
    """A window as the host's nodes hand it on."""
    value = st.integers(least, most)
    return st.fixed_dictionaries(dict.fromkeys(("x", "y", "width", "height"), value))


def masks(most: int = 700):
    side = sides(most)
    usual = st.tuples(st.integers(1, 2), side, side)
    broken = st.sampled_from([(), (5,), (0, 4, 4), (1, 0, 4), (1, 2, 3, 4)])
    shape = often(usual, st.tuples(side, side), broken, one_in=10)
    return st.builds(Picture, shape, st.sampled_from(DTYPES), contents, st.integers(0, 9))


texts = often(
    st.sampled_from(["", "a cat", "(orange:1.2) fur, {a|b}", "-", "one\ntwo\n\n-\nfive"]),
    st.text(max_size=40),
    st.text(st.characters(), min_size=1, max_size=40),
    st.just("a\r\nb\x85c\u2028d\0e"),
    st.just("\ud800 half of a character"),
    st.just("word " * 2000),
    one_in=4,
)

fractions = often(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0]), one_in=2)


@st.composite
def chains(draw, most: int = 700):
    """Of a loop, or edited by hand: all that ``read_record`` lets through."""
    side = sides(most)
    source, frame = draw(st.tuples(side, side)), draw(st.tuples(side, side))
    steps = draw(often(st.integers(0, 2), st.integers(0, 16), one_in=6))
    scale = draw(often(st.sampled_from([4.0, 2.0, 1.5]), st.floats(1.01, 100), one_in=3))
    windows = []
    whole = draw(st.booleans())
    for k in range(steps + 1):
        h, w = frame if k else source
        if whole:
            size = max(1.0, w // scale), max(1.0, h // scale)
            x, y = (draw(st.integers(0, int(a - b))) for a, b in ((w, size[0]), (h, size[1])))
        else:
            size = draw(st.floats(1, w)), draw(st.floats(1, h))
            x, y = draw(st.floats(0, w - size[0])), draw(st.floats(0, h - size[1]))
        windows.append((float(x), float(y), float(size[0]), float(size[1])))
    prompts = tuple(draw(texts) for _ in range(min(steps, 2))) + ("fur",) * max(0, steps - 2)
    measured = draw(often(st.just(()), st.just((30.5,) * steps), st.just((math.nan,) * steps)))
    content = draw(st.sampled_from(PLAIN))
    target = draw(fractions), draw(fractions)
    return Chain(source, frame, tuple(windows), scale, prompts, target, content, measured)
