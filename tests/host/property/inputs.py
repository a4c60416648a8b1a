"""A node's own schema as a strategy: a new node, input or option is tried without new code here."""

import math
from typing import NamedTuple

import torch
from hypothesis import strategies as st

from .values import CHANNELS, boxes, chains, fractions, masks, often, pictures, texts

SIDES = {"CoZFullImage": 40, "CoZSRStep": 64, "CoZRefineStep": 48, "CoZInvSRStep": 48}
SIDES |= dict.fromkeys(("CoZChainLoop", "CoZPromptExtractor", "CoZTagPrompt", "CoZZoomStrip"), 200)
SIDES |= {"CoZZoomVideo": 128, "CoZZoomViewer": 200, "CoZSaveChain": 200}
"""Most pixels of a picture's side, where 700 take too long."""

RANGES = {
    ("CoZChainLoop", "steps"): (1, 5),
    ("CoZChainLoop", "size"): (16, 96),
    ("CoZFitImage", "size"): (16, 700),
    ("CoZFullImage", "scale"): (1.5, 5),
    ("CoZFullImage", "passes"): (1, 2),
    ("CoZFullImage", "overlap"): (0, 40),
    ("CoZPromptExtractor", "max_tokens"): (1, 3),
    ("CoZRefineStep", "steps"): (1, 6),
    ("CoZZoomVideo", "seconds_per_step"): (0.1, 0.5),
    ("CoZZoomVideo", "fps"): (1, 12),
    ("CoZZoomVideo", "hold"): (0, 0.5),
    ("CoZZoomVideo", "width"): (0, 200),
    ("CoZZoomVideo", "height"): (0, 200),
    ("backbone", "sampling_steps"): (1, 2),
    ("prompting", "max_tokens"): (1, 2),
}
"""Parts of a schema's range that end in the time there is; of a nested input by its combo."""

MODELS = {"MODEL", "VAE", "CLIP", "UPSCALE_MODEL", "COZ_TAGGER", "CONTROL_NET"}


class Model(NamedTuple):
    """One of the host's objects that ``models`` makes, or None: a checkpoint may lack it."""

    kind: str
    name: str | None


class Conditioning(NamedTuple):
    shape: tuple[int, int, int] = (1, 77, 4096)
    pooled: int | None = 2048
    """Its width."""

    def make(self) -> list:
        generator = torch.Generator().manual_seed(0)
        cond, options = torch.rand(self.shape, generator=generator), {}
        if self.pooled is not None:
            options["pooled_output"] = torch.rand(1, self.pooled, generator=generator)
        return [[cond, options]]


def numbers(item, low, high):
    """Mostly in the range; what comes through a link may lie beyond, and be no number at all."""
    whole = item.io_type == "INT"
    inside = st.integers(low, high) if whole else st.floats(low, high)
    ends = st.sampled_from([item.default if low <= item.default <= high else low, low, high])
    beyond = [item.min - 1, *([] if whole else [math.nan, math.inf, -math.inf])]
    if high == item.max < 2**63:
        beyond.append(item.max + 1)
    usual = often(fractions, ends) if (low, high) == (0, 1) and not whole else inside
    return often(often(usual, ends, one_in=3), st.sampled_from(beyond), one_in=24)


def of_input(node_id: str, item, models: dict[str, list[str]], within: str = "", option: str = ""):
    kind = item.io_type
    if kind == "IMAGE":
        return pictures(SIDES.get(node_id, 700))
    if kind == "MASK":
        return masks(SIDES.get(node_id, 700))
    if kind == "BOUNDING_BOX":
        return often(boxes(0, 24), boxes(-9, 999))
    if kind == "COZ_CHAIN":
        return chains(SIDES.get(node_id, 700))
    if item.id == "restraint":
        return often(st.floats(0, 1), st.sampled_from([0, 1]), st.sampled_from([-0.1, math.nan]))
    if item.id == "denoise_steps":
        return often(st.just(""), st.sampled_from(["0.5, 0.3", "1\n0", "0.5, strong", "2"]), texts)
    if kind == "STRING":
        return often(st.just(item.default or "fur"), texts, one_in=2)
    if kind == "BOOLEAN":
        return st.booleans()
    if kind == "COMBO":
        return st.sampled_from(item.options) if item.options else st.just("missing")
    if kind == "CONDITIONING":
        odd = map(Conditioning, [(1, 1, 4096), (1, 200, 4096), (2, 77, 4096)])
        wrong = [Conditioning((1, 77, 768), 768), Conditioning(pooled=None)]
        return often(st.just(Conditioning()), *map(st.just, [*odd, *wrong]), one_in=6)
    if kind in MODELS:
        names = models[kind]
        if "InvSR" in node_id + option and kind != "CLIP":
            names = names[::-1]
        usual, *others = (st.just(Model(kind, name)) for name in names)
        if kind == "CLIP":
            others.append(st.just(Model(kind, None)))
        if item.id == "vlm":
            usual, others = others[0], [usual, *others[1:]]
        return often(usual, *others, one_in=6)
    if kind in {"INT", "FLOAT"}:
        default = (item.min, item.max)
        return numbers(item, *RANGES.get((within or node_id, item.id), default))
    raise NotImplementedError(f"{node_id}: {item.id} is a {kind}: add a strategy for it here")


@st.composite
def cases(draw, schema, models):
    """What one run of a node is given, by the names that a prompt has for it."""
    case = {}
    for item in schema.inputs:
        if item.optional and not draw(st.booleans()):
            continue
        if item.io_type == "COMFY_DYNAMICCOMBO_V3":
            option = draw(st.sampled_from(item.options))
            case[item.id] = option.key
            for nested in option.inputs:
                strategy = of_input(schema.node_id, nested, models, item.id, option.key)
                case[f"{item.id}.{nested.id}"] = draw(strategy)
            continue
        strategy = of_input(schema.node_id, item, models)
        if schema.is_input_list:
            strategy = st.lists(strategy, min_size=1, max_size=3)
        case[item.id] = draw(strategy)
    return related(draw, case)


def related(draw, case: dict) -> dict:
    """Half of the pictures of a case are to have to do with each other, as they mostly have."""
    if "window" in case:
        return with_surroundings(draw, case)
    found = [key for key in ("image", "crop") if key in case]
    other = [key for key in ("source", "reference", "zoomed", "previous_image") if key in case]
    if not found or not other or isinstance(case[found[0]], list) or draw(st.booleans()):
        return case
    first = case[found[0]]
    if len(first.shape) != 4:
        return case
    b, h, w, _ = first.shape
    if other[0] == "source":
        h, w = (max(1, side // draw(st.integers(1, 8))) for side in (h, w))
    shape = (b, h, w, draw(st.sampled_from(CHANNELS)))
    return case | {other[0]: case[other[0]]._replace(shape=shape)}


def with_surroundings(draw, case: dict) -> dict:
    """Mostly the window lies in the image, and the crop is what it shows."""
    image, crop = case.get("image"), case["crop"]
    if image is None or len(image.shape) != 4 or not draw(st.integers(0, 3)):
        return case
    b, height, width, _ = image.shape
    spans = []
    for side in (height, width):
        length = draw(st.integers(min(1, side), side))
        spans.append((draw(st.integers(0, side - length)), length))
    (y, h), (x, w) = spans
    window = {"x": x, "y": y, "width": w, "height": h}
    shape = (b, h, w, draw(st.sampled_from(CHANNELS)))
    return case | {"crop": crop._replace(shape=shape), "window": window}
