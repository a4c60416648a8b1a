"""Plan an evaluation: make the jobs of its arms and images, and find those that are done."""

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tools.image_file import read_size

from .arms import Arm
from .inputs import Protocol, make_inputs
from .job import Job, Result, add_scores, get_meter
from .prompts import SCALE, make_prompts
from .state import FRAME_FILES, SCORE_FILES, read_code_versions
from .store import (
    frame_path,
    input_path,
    read_frames,
    read_result,
    truth_path,
    write_input,
    write_settings,
)

LIBRARIES = ("piq", "torchmetrics", "pyiqa")


class Plan:
    """The jobs of one evaluation.

    Attributes:
        images: The names of the images that can be used.
    """

    def __init__(
        self, out: Path, folder: Path, protocol: Protocol, metrics: Sequence[str], seed: int
    ):
        self.out = out
        self.folder = folder
        self.protocol = protocol
        self.metrics = tuple(metrics)
        self.seed = seed
        self.images: list[str] = []
        self.versions = read_code_versions(FRAME_FILES)
        self.metric_versions = {
            name: read_version(name) for name in LIBRARIES
        } | read_code_versions(SCORE_FILES)
        missing = get_meter(self.metrics).missing
        # Part of a job's key, so that a metric is measured once its weights have been downloaded.
        self.measurable = [name for name in self.metrics if name not in missing]

    def add(self, image: str) -> None:
        """Make x_0 and the ground truth of an image and add it to the plan.

        Raises:
            ImageError: If the image or its ground truth cannot be used.
        """
        write_input(self.out, image, *make_inputs(self.folder, image, self.protocol))
        self.images.append(image)

    def make_job(self, arm: Arm, image: str) -> Job:
        picture = input_path(self.out, image).read_bytes()
        truth = truth_path(self.out, image)
        ground_truth = truth.read_bytes() if truth.exists() else None
        prompts = make_prompts(arm, read_size(picture)[0], self.protocol.steps, self.seed)
        frames_key = digest(image, arm.name, picture, prompts, self.protocol.steps, self.versions)
        return Job(
            image=image,
            arm=arm.name,
            picture=picture,
            ground_truth=ground_truth,
            prompts=prompts,
            steps=self.protocol.steps,
            scale=SCALE,
            seed=self.seed,
            metrics=self.metrics,
            key=digest(
                frames_key,
                ground_truth,
                self.metrics,
                self.measurable,
                self.metric_versions,
                self.seed,
            ),
            frames_key=frames_key,
        )

    def write_settings_and_list_waiting(
        self, arms: Sequence[Arm], more_settings: dict[str, Any]
    ) -> list[tuple[Arm, str]]:
        """Write the settings of this run; return the arms and images that have no result yet.

        Args:
            arms: The arms to run on every image.
            more_settings: Settings for the report that the plan does not know.
        """
        waiting, keys = [], []
        for arm in arms:
            for image in self.images:
                job = self.make_job(arm, image)
                keys.append(job.key)
                if not self.is_done(job):
                    waiting.append((arm, image))
        write_settings(self.out, more_settings | self.collect_settings(arms), keys)
        return waiting

    def is_done(self, job: Job) -> bool:
        result = read_result(self.out, job)
        return (
            result is not None
            and result.key == job.key
            and result.error is None
            and all(frame_path(self.out, result, k).exists() for k in range(1, job.steps + 1))
        )

    def measure_again(self, job: Job) -> Result | None:
        """Measure the stored frames of a job again; return None if there are none."""
        result = read_result(self.out, job)
        if result is None or result.made != job.frames_key or result.error is not None:
            return None
        texts = tuple(row.prompt for row in result.rows)
        try:
            result = add_scores(job, replace(result, frames=read_frames(self.out, result)), texts)
        except OSError:  # a frame is missing
            return None
        return None if result.error else result

    def collect_settings(self, arms: Sequence[Arm]) -> dict[str, Any]:
        """Return the settings of the run for the report."""
        return {
            "arms": [arm.name for arm in arms],
            "pictures": len(self.images),
            "protocol": self.protocol.describe(),
            "steps": self.protocol.steps,
            "scale": SCALE,
            "seed": self.seed,
            "versions": self.versions,
            "machine": {
                "system": platform.platform(),
                "Python": platform.python_version(),
                "cores": os.cpu_count(),
            },
        }


def digest(*parts: Any) -> str:
    """Return the sha256 of nested parts, in which bytes are replaced by their own hash."""
    return hashlib.sha256(
        json.dumps(parts, sort_keys=True, default=_hash_bytes).encode()
    ).hexdigest()


def _hash_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
