"""A job of the evaluation, pictures of noise, and the scores of a meter."""

import numpy as np
from PIL import Image

from coz.resample import resize
from tools.evaluate.arms import read_arms
from tools.evaluate.job import Job
from tools.evaluate.prompts import make_prompts
from tools.host import ROOT
from tools.image_file import to_png

WORKFLOWS = ROOT / "workflows"
SD3_VLM = WORKFLOWS / "3 Chain-of-Zoom SD3 + VLM.json"


def noise(width, height, mode="RGB", seed=0):
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[..., 0])


def job(arm="nearest", image="a.png", **changes):
    fields = {
        "image": image,
        "arm": arm,
        "picture": to_png(noise(64, 64)),
        "ground_truth": None,
        "prompts": make_prompts(*read_arms(arm, SD3_VLM), 64, 2, 0),
        "steps": 2,
        "scale": 4.0,
        "seed": 0,
        "metrics": ("psnr",),
        "key": "k" * 64,
        "frames_key": "m",
    }
    return Job(**fields | changes)


def measured(meter, sr, truth, lq=None, source=None):
    lq = resize(sr, sr.shape[-2] // 4, sr.shape[-1] // 4).clamp(0, 1) if lq is None else lq
    source = lq if source is None else source
    scores, _ = meter.measure(sr, lq=lq, source=source, ground_truth=truth)
    return scores
