"""One piece of work of an evaluation: one picture, one arm, on a running host.

Jobs and results can be pickled, and ``run_job`` needs nothing but the host's URL: so it runs in
this process as on another machine.
"""

import functools
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import requests
from torch import Tensor

from coz.chain.png import decode_png
from coz.chain.zoom_chain import __version__
from coz.geometry import Target, Window, place_window
from coz.resample import crop, resize
from tools.host import HostError
from tools.host.client import Files, PromptError, Run, run_prompt
from tools.host.workflow import Prompt
from tools.picture import size_of

PICTURE, KEY = "{picture}", "{key}"
"""Stand in a job's prompts for the name that its picture has on the host, and for its key."""

FRAMES = "coz_frames"
"""How the ids of the nodes begin that save x_1..x_n, in the order of their names."""

MIDDLE = Target(0.5, 0.5)


@dataclass(frozen=True)
class Job:
    """All that one piece of work needs: one picture, one arm."""

    image: str
    """The picture's name: its path below IMAGES, with forward slashes and suffix."""
    arm: str
    picture: bytes
    """PNG of x_0: square, 8-bit RGB, what the arm is given."""
    ground_truth: bytes | None
    """PNG, square, its side a whole multiple of x_0's."""
    prompts: tuple[Prompt, ...]
    """In the API format. Nodes whose ids begin with FRAMES save 16-bit PNGs."""
    steps: int
    scale: float
    seed: int
    metrics: tuple[str, ...]
    """Names in ``metrics.METRICS``."""
    key: str
    """sha256 over all of the above and the versions: same key, same result."""
    made: str = ""
    """The same without what only the metrics depend on: same frames."""


@dataclass(frozen=True)
class Row:
    """One scale of one result."""

    image: str
    arm: str
    factor: float
    """4, 16, 64, 256."""
    prompt: str
    seed: int
    scores: dict[str, float]
    """Metric's name -> value. What could not be measured is absent; equal pictures give inf."""


@dataclass(frozen=True)
class Result:
    """What came of a job."""

    key: str
    image: str
    arm: str
    rows: tuple[Row, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    """Metric's name -> why it could not be measured and what to do, in one line."""
    frames: tuple[bytes, ...] = ()
    """16-bit PNG of x_1..x_n; none where the arm failed, or read from the store."""
    models: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    """That the host took for the arm, without the metrics."""
    error: str | None = None
    """The arm failed on this picture: the server's own words."""
    seed: int = 0
    made: str = ""
    """As of ``Job``."""


def run_job(url: str, job: Job) -> Result:
    """Run the job's prompts on the host at ``url`` and measure what comes.

    An arm that fails is a result with an ``error``.

    Raises:
        HostError: If the host ends meanwhile. The job can be run on another one.
    """
    try:
        result, prompts = _run(Files(url), job)
    except OSError as error:
        raise HostError(f"ComfyUI ended during {job.arm} of {job.image}: {error}") from error
    return result if result.error else measured(job, result, prompts)


def _run(host: Files, job: Job) -> tuple[Result, tuple[str, ...]]:
    """What the host made, not measured, and the prompt of each step."""
    started = time.monotonic()
    versions, error, runs, files = versions_of(host), None, [], ()
    try:
        name = host.upload(job.picture, f"{hashlib.sha256(job.picture).hexdigest()[:16]}.png")
        runs = [run_prompt(host.url, filled(prompt, name, job.key)) for prompt in job.prompts]
        files = tuple(host.download(file) for file in saved(runs))[-job.steps :]
    except (PromptError, requests.HTTPError) as problem:
        error = words(problem)
        versions_of(host)  # that the host has ended is no fault of the arm
    seconds = time.monotonic() - started
    record = record_of(runs)
    prompts = tuple(record.get("prompts", ("",) * job.steps))
    models = tuple(record.get("models", ())) or models_of(job.prompts)
    made = {"models": models, "versions": versions, "seconds": seconds}
    return replace(failed(job, error), frames=() if error else files, **made), prompts


def failed(job: Job, error: str | None) -> Result:
    """What is known of a job without having run it."""
    own = {"seed": job.seed, "made": job.made, "models": models_of(job.prompts)}
    return Result(job.key, job.image, job.arm, error=error, **own)


def measured(job: Job, result: Result, prompts: tuple[str, ...]) -> Result:
    """The result with the scores of its frames, made by the job with these prompts."""
    meter = meter_of(job.metrics)
    rows: list[Row] = []
    reasons: dict[str, dict[str, list[str]]] = {}
    try:
        if len(result.frames) != job.steps:
            raise ValueError(f"the arm made {len(result.frames)} frames in place of {job.steps}")
        for k, (sr, views) in enumerate(_pictures(job, result.frames)):
            scores, absent = meter.measure(sr, **views)
            factor = job.scale ** (k + 1)
            for name, why in absent.items():
                reasons.setdefault(name, {}).setdefault(why, []).append(f"{factor:g}x")
            rows.append(Row(job.image, job.arm, factor, prompts[k], job.seed, scores))
    except (ValueError, RuntimeError) as error:  # such as frames of another size than x_0's
        return replace(result, frames=(), error=str(error))
    missing = {name: reason(whys, job.steps) for name, whys in reasons.items()}
    return replace(result, key=job.key, rows=tuple(rows), missing=meter.missing | missing)


def reason(whys: dict[str, list[str]], steps: int) -> str:
    """Why a metric is missing, in one line: at which scales, unless at all.

    Args:
        whys: Why -> at which scales.
    """
    return "; ".join(
        why if len(scales) == steps else f"at {', '.join(scales)}: {why}"
        for why, scales in whys.items()
    )


def words(error: Exception) -> str:
    """What the server said, in one line; of a prompt that it refused the reasons."""
    text = str(error)
    try:
        answer = json.loads(text)
        told = [answer["error"]["message"]] if answer.get("error") else []
        for node in answer["node_errors"].values():
            for reason in node["errors"]:
                told.append(f"{node['class_type']}: {reason['message']}: {reason['details']}")
        text = "; ".join(told) or text
    except (ValueError, TypeError, KeyError, AttributeError):
        pass  # no JSON: the words of a node
    return " ".join(text.split())


def models_of(prompts: tuple[Prompt, ...]) -> tuple[str, ...]:
    """The names of weight files that the prompts' constants hold, as a chain's record has them."""
    endings = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".pt2", ".bin", ".pkl", ".gguf")
    values = [value for p in prompts for node in p.values() for value in node["inputs"].values()]
    names = [value for value in values if isinstance(value, str) and value.endswith(endings)]
    return tuple(dict.fromkeys(names))


def versions_of(host: Files) -> dict[str, str]:
    """Of what runs at the host, and on which device."""
    told = host.stats()
    return {
        "chain-of-zoom": __version__,
        "ComfyUI": told["system"]["comfyui_version"],
        "torch": told["system"]["pytorch_version"],
        "Python": told["system"]["python_version"].split()[0],
        "device": ", ".join(device["name"] for device in told["devices"]),
    }


def filled(prompt: Prompt, picture: str, key: str) -> Prompt:
    """The prompt with names in place of PICTURE and KEY."""
    names = {PICTURE: picture, KEY: key}

    def value_of(value: Any) -> Any:
        return names.get(value, value) if isinstance(value, str) else value

    return {
        node_id: node | {"inputs": {name: value_of(v) for name, v in node["inputs"].items()}}
        for node_id, node in prompt.items()
    }


def saved(runs: list[Run]) -> list[dict[str, str]]:
    """The files of the frames, as ui outputs name them."""
    outputs = {node: shown for run in runs for node, shown in run.outputs.items()}
    nodes = sorted(node for node in outputs if node.startswith(FRAMES))
    return [file for node in nodes for file in outputs[node]["images"]]


def record_of(runs: list[Run]) -> dict[str, Any]:
    """The record of the chain, where the prompts made one."""
    for run in runs:
        for shown in run.outputs.values():
            if "coz_chain" in shown:
                return json.loads(shown["coz_chain"][0])
    return {}


@functools.lru_cache(maxsize=1)
def meter_of(names: tuple[str, ...]):
    from .metrics import Meter  # loads its networks, once for a process

    return Meter(names)


def _pictures(job: Job, files: tuple[bytes, ...]) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """For each scale the frame, and what ``Meter.measure`` compares it with."""
    previous = x_0 = decoded(job.picture)
    truth = None if job.ground_truth is None else decoded(job.ground_truth)
    height, width = x_0.shape[-2:]
    for k, file in enumerate(files, 1):
        sr = decode_png(file, height, width).contiguous()
        lq = crop(previous, place_window(height, width, job.scale, MIDDLE)).contiguous()
        factor = job.scale**k
        source = crop(x_0, place_window(height, width, factor, MIDDLE)).contiguous()
        full = None if truth is None else view_of(truth, factor, width)
        yield sr, {"lq": lq, "source": source, "ground_truth": full}
        previous = sr


def view_of(truth: Tensor, factor: float, side: int) -> Tensor | None:
    """The middle of the ground truth as a frame of (side, side); None where it is too coarse."""
    full = truth.shape[-1]
    if full < side * factor:
        return None
    length = full / factor
    window = Window((full - length) / 2, (full - length) / 2, length, length)
    return resize(truth, side, side, box=window).clamp(0, 1).contiguous()


def decoded(file: bytes) -> Tensor:
    """(1, 3, H, W) of a PNG file of this evaluation's own."""
    width, height = size_of(file)
    return decode_png(file, height, width).contiguous()
