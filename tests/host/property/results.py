"""What a node may answer: a valid result, or a sentence that names the input and the value."""

import json
import math
import re
from pathlib import PurePath

import av
import torch

from coz.geometry import Target, place_first_frame

from .inputs import Conditioning, Model
from .values import Chain, Picture

STEPS = ("CoZCropCenterZoom", "CoZColorFix", "CoZConsistency", "CoZSRStep", "CoZRefineStep")
SAME_SIZE = dict.fromkeys(STEPS, "image") | {"CoZUpscaleStep": "zoomed", "CoZInvSRStep": "zoomed"}
"""Of which input the first output has the height and width."""

HOST_SAYS = "clip input is invalid: None"
"""By the host's own CLIP Text Encode, which encodes the texts of two backbones."""


def is_picture(image) -> None:
    kind = image.ndim, image.shape[-1], image.dtype, image.device.type
    assert kind == (4, 3, torch.float32, "cpu")
    assert image.numel()
    assert image.isfinite().all()
    assert 0 <= image.min() <= image.max() <= 1


def is_chain(chain) -> None:
    for frame in chain.frames:
        is_picture(frame.movedim(1, -1))
    again = type(chain).from_json(chain.to_json(), chain.frames)
    assert json.loads(again.to_json()) == json.loads(chain.to_json())


def is_video(video) -> None:
    with av.open(video.get_stream_source()) as file:
        (stream,) = file.streams.video
        assert sum(1 for _ in file.decode(stream)) >= 2


def is_box(box) -> None:
    assert box.keys() == {"x", "y", "width", "height"}
    assert all(type(value) is int for value in box.values())
    assert min(box["x"], box["y"]) >= 0
    assert min(box["width"], box["height"]) >= 1


def is_figure(value) -> None:
    assert type(value) is float


def is_conditioning(conditioning) -> None:
    for cond, options in conditioning:
        assert cond.isfinite().all()
        pooled = options.get("pooled_output")
        assert pooled is None or pooled.isfinite().all()


def is_text(text) -> None:
    assert isinstance(text, str)


def is_there(value) -> None:
    assert value is not None


CHECKS = dict.fromkeys(("MODEL", "VAE", "CLIP", "UPSCALE_MODEL", "COZ_TAGGER"), is_there)
CHECKS |= {"IMAGE": is_picture, "COZ_CHAIN": is_chain, "VIDEO": is_video, "BOUNDING_BOX": is_box}
CHECKS |= {"FLOAT": is_figure, "STRING": is_text, "CONDITIONING": is_conditioning}


def is_valid(schema, case: dict, values: list) -> None:
    announces_nan = any("NaN" in (output.tooltip or "") for output in schema.outputs)
    for output, (value,) in zip(schema.outputs, values, strict=True):
        CHECKS[output.io_type](value)
        if output.io_type == "FLOAT" and math.isnan(value):
            assert announces_nan
        if output.id.startswith("center_"):
            assert 0 <= value <= 1
    if schema.node_id in SAME_SIZE:
        name = SAME_SIZE[schema.node_id]
        assert values[0][0].shape[1:3] == case[name].shape[1:3]
        if name == "image":
            assert len(values[0][0]) == case[name].shape[0]
    if schema.node_id in {"CoZFitImage", "CoZChainLoop"} and not {"mask", "chain"} & case.keys():
        size = case["image"].shape[1:3]
        target = Target(case["center_x"], case["center_y"])
        first = place_first_frame(*size, case["size"], case["frame"], target)
        assert values[0][0].shape[1:3] == (first.height, first.width)


def names_input_and_value(schema, case: dict, message: str) -> bool:
    names = {part for name in case for part in (name, name.rpartition(".")[2])}
    names |= {item.id for item in schema.inputs}
    texts = [value for value in case.values() if isinstance(value, str)]
    files = [PurePath(text).name for text in texts]
    chosen = any(len(text) > 2 and text in message for text in texts + files)
    named = any(re.search(rf"\b{name}s?\b", message, re.IGNORECASE) for name in names)
    number = re.search(r"\d|\bnan\b|\binf|shape \(\)", message)
    absent = any(isinstance(value, Model) and value.name is None for value in case.values())
    unconnected = any(
        item.id not in case and f"{item.id} is not" in message for item in schema.inputs
    )
    told = number or chosen or unconnected or any(repr(text) in message for text in texts)
    return HOST_SAYS in message or (
        (named or chosen) and bool(told or (absent and "empty" in message))
    )


def is_unchanged(given, spec) -> None:
    """The input is, bit for bit, what its description makes."""
    if isinstance(spec, list):
        for one, its in zip(given, spec, strict=True):
            is_unchanged(one, its)
    elif isinstance(spec, Picture | Conditioning):
        torch.testing.assert_close(given, spec.make(), rtol=0, atol=0, equal_nan=True)
    elif isinstance(spec, Chain):
        for number, frame in enumerate(given.frames):
            expected = frame_of(spec, number)
            torch.testing.assert_close(frame, expected, rtol=0, atol=0)


def frame_of(spec: Chain, number: int) -> torch.Tensor:
    size = spec.frame if number else spec.source
    return Picture((1, *size, 3), content=spec.content, seed=number).make().movedim(-1, 1)
