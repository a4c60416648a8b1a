"""Run one job of an evaluation: one arm on one image, on a running ComfyUI.

Jobs and results can be pickled, and ``run_job`` needs only the URL of the ComfyUI. So it can run in
this process or on another machine.
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
from tools.host.client import PromptError, Run, ServerClient, run_prompt
from tools.host.workflow import Prompt
from tools.image_file import read_size

PICTURE_PLACEHOLDER, KEY_PLACEHOLDER = "{picture}", "{key}"
"""Placeholders in a job's prompts, for the name of its uploaded image and for its key."""

FRAMES_PREFIX = "coz_frames"
"""Prefix of the ids of the nodes that save x_1..x_n. Sorted by id, the nodes are in frame order."""

MIDDLE = Target(0.5, 0.5)


@dataclass(frozen=True)
class Job:
    """One arm on one image, with all that is needed to run and measure it."""

    image: str
    """The image's name: its path below IMAGES, with forward slashes and suffix."""
    arm: str
    picture: bytes
    """PNG of x_0, the arm's input: square, 8-bit RGB."""
    ground_truth: bytes | None
    """PNG, square, its side a whole multiple of x_0's."""
    prompts: tuple[Prompt, ...]
    """Prompts in the API format. Nodes whose ids begin with FRAMES_PREFIX save 16-bit PNGs."""
    steps: int
    scale: float
    seed: int
    metrics: tuple[str, ...]
    """Names in ``metrics.METRICS``."""
    key: str
    """sha256 of all of the above and the versions. The same key means the same result."""
    frames_key: str = ""
    """sha256 of all that the frames depend on. The same hash means the same frames."""


@dataclass(frozen=True)
class Row:
    """One scale of one result."""

    image: str
    arm: str
    factor: float
    """4, 16, 64, 256."""
    prompt: str
    """The text of the step. result.json has this field, so its name stays."""
    seed: int
    scores: dict[str, float]
    """Metric -> value, only of those that could be measured. For equal images some are infinite."""


@dataclass(frozen=True)
class Result:
    """The outcome of a job."""

    key: str
    image: str
    arm: str
    rows: tuple[Row, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    """Metric -> why it could not be measured and what to do, in one line."""
    frames: tuple[bytes, ...] = ()
    """16-bit PNGs of x_1..x_n; empty if the arm failed or the result was read from the store."""
    models: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    """The time that ComfyUI took for the arm, without the metrics."""
    error: str | None = None
    """Why the arm failed on this image, as the server reports it."""
    seed: int = 0
    made: str = ""
    """``Job.frames_key`` of its job. result.json has this field, so its name stays."""


def run_job(url: str, job: Job) -> Result:
    """Run the job's prompts on the ComfyUI at ``url`` and measure its frames.

    If the arm fails, the result has an ``error``.

    Raises:
        HostError: If this ComfyUI ends meanwhile. The job can be run on another one.
    """
    try:
        result, texts = _run(ServerClient(url), job)
    except OSError as error:
        raise HostError(f"ComfyUI ended during {job.arm} of {job.image}: {error}") from error
    return result if result.error else add_scores(job, result, texts)


def _run(host: ServerClient, job: Job) -> tuple[Result, tuple[str, ...]]:
    """Run the job and return its result without scores, and the text of each step."""
    started = time.monotonic()
    versions, error, runs, files = read_host_versions(host), None, [], ()
    try:
        name = host.upload(job.picture, f"{hashlib.sha256(job.picture).hexdigest()[:16]}.png")
        runs = [
            run_prompt(host.url, fill_placeholders(prompt, name, job.key)) for prompt in job.prompts
        ]
        files = tuple(host.download(file) for file in list_frames(runs))[-job.steps :]
    except (PromptError, requests.HTTPError) as problem:
        error = format_error(problem)
        read_host_versions(
            host
        )  # raises OSError if ComfyUI has ended, because then the arm did not fail
    seconds = time.monotonic() - started
    record = find_record(runs)
    texts = tuple(record.get("prompts", ("",) * job.steps))
    models = tuple(record.get("models", ())) or find_models(job.prompts)
    known = {"models": models, "versions": versions, "seconds": seconds}
    return replace(make_result(job, error), frames=() if error else files, **known), texts


def make_result(job: Job, error: str | None) -> Result:
    """Return the result of a job with what is known before it runs, and its error if it failed."""
    own = {"seed": job.seed, "made": job.frames_key, "models": find_models(job.prompts)}
    return Result(job.key, job.image, job.arm, error=error, **own)


def add_scores(job: Job, result: Result, texts: tuple[str, ...]) -> Result:
    """Add the scores of the frames, which the job made with these texts, to the result."""
    meter = get_meter(job.metrics)
    rows: list[Row] = []
    reasons: dict[str, dict[str, list[str]]] = {}
    try:
        if len(result.frames) != job.steps:
            raise ValueError(f"the arm made {len(result.frames)} frames in place of {job.steps}")
        for k, (sr, others) in enumerate(_pair_images(job, result.frames)):
            scores, absent = meter.measure(sr, **others)
            factor = job.scale ** (k + 1)
            for name, why in absent.items():
                reasons.setdefault(name, {}).setdefault(why, []).append(f"{factor:g}x")
            rows.append(Row(job.image, job.arm, factor, texts[k], job.seed, scores))
    except (
        ValueError,
        RuntimeError,
    ) as error:  # for example if the size of the frames is not that of x_0
        return replace(result, frames=(), error=str(error))
    missing = {name: explain_missing(whys, job.steps) for name, whys in reasons.items()}
    return replace(result, key=job.key, rows=tuple(rows), missing=meter.missing | missing)


def explain_missing(whys: dict[str, list[str]], steps: int) -> str:
    """Explain in one line why a metric is missing and, if it is missing only at some scales, at which.

    Args:
        whys: Reason -> the scales at which the metric is missing.
        steps: The number of all scales.
    """
    return "; ".join(
        why if len(scales) == steps else f"at {', '.join(scales)}: {why}"
        for why, scales in whys.items()
    )


def format_error(error: Exception) -> str:
    """Format the server's error in one line; for a refused prompt, list all its reasons."""
    text = str(error)
    try:
        answer = json.loads(text)
        parts = [answer["error"]["message"]] if answer.get("error") else []
        for node in answer["node_errors"].values():
            for reason in node["errors"]:
                parts.append(f"{node['class_type']}: {reason['message']}: {reason['details']}")
        text = "; ".join(parts) or text
    except (ValueError, TypeError, KeyError, AttributeError):
        pass  # the text is not JSON, but the message of a node
    return " ".join(text.split())


def find_models(prompts: tuple[Prompt, ...]) -> tuple[str, ...]:
    """Return the names of the weight files in the prompts' inputs, as a chain's record lists them."""
    endings = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".pt2", ".bin", ".pkl", ".gguf")
    values = [value for p in prompts for node in p.values() for value in node["inputs"].values()]
    names = [value for value in values if isinstance(value, str) and value.endswith(endings)]
    return tuple(dict.fromkeys(names))


def read_host_versions(host: ServerClient) -> dict[str, str]:
    """Return the versions of the software that runs there, and the device."""
    stats = host.get_stats()
    return {
        "chain-of-zoom": __version__,
        "ComfyUI": stats["system"]["comfyui_version"],
        "torch": stats["system"]["pytorch_version"],
        "Python": stats["system"]["python_version"].split()[0],
        "device": ", ".join(device["name"] for device in stats["devices"]),
    }


def fill_placeholders(prompt: Prompt, picture: str, key: str) -> Prompt:
    """Replace the placeholders of the image's name and of the job's key in the prompt."""
    names = {PICTURE_PLACEHOLDER: picture, KEY_PLACEHOLDER: key}

    def fill(value: Any) -> Any:
        return names.get(value, value) if isinstance(value, str) else value

    return {
        node_id: node | {"inputs": {name: fill(v) for name, v in node["inputs"].items()}}
        for node_id, node in prompt.items()
    }


def list_frames(runs: list[Run]) -> list[dict[str, str]]:
    """Return the saved frames, as the ui outputs name them."""
    outputs = {node: shown for run in runs for node, shown in run.outputs.items()}
    nodes = sorted(node for node in outputs if node.startswith(FRAMES_PREFIX))
    return [file for node in nodes for file in outputs[node]["images"]]


def find_record(runs: list[Run]) -> dict[str, Any]:
    """Return the record of the chain; empty if the prompts made none."""
    for run in runs:
        for shown in run.outputs.values():
            if "coz_chain" in shown:
                return json.loads(shown["coz_chain"][0])
    return {}


@functools.lru_cache(maxsize=1)
def get_meter(names: tuple[str, ...]):
    from .metrics import Meter  # loads its networks once per process

    return Meter(names)


def _pair_images(job: Job, files: tuple[bytes, ...]) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """Yield the frame of each scale, and the images that ``Meter.measure`` compares it with."""
    previous = x_0 = decode_own_png(job.picture)
    truth = None if job.ground_truth is None else decode_own_png(job.ground_truth)
    height, width = x_0.shape[-2:]
    for k, file in enumerate(files, 1):
        sr = decode_png(file, height, width).contiguous()
        lq = crop(previous, place_window(height, width, job.scale, MIDDLE)).contiguous()
        factor = job.scale**k
        source = crop(x_0, place_window(height, width, factor, MIDDLE)).contiguous()
        full = None if truth is None else crop_truth(truth, factor, width)
        yield sr, {"lq": lq, "source": source, "ground_truth": full}
        previous = sr


def crop_truth(truth: Tensor, factor: float, side: int) -> Tensor | None:
    """Resize the middle of the ground truth to a frame; return None if it has too few pixels."""
    full = truth.shape[-1]
    if full < side * factor:
        return None
    length = full / factor
    window = Window((full - length) / 2, (full - length) / 2, length, length)
    return resize(truth, side, side, box=window).clamp(0, 1).contiguous()


def decode_own_png(file: bytes) -> Tensor:
    """Decode to (1, 3, H, W) a PNG file that this evaluation wrote."""
    width, height = read_size(file)
    return decode_png(file, height, width).contiguous()
