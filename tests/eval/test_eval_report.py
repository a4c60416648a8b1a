import base64
import csv
import io
import os
import re
from html.parser import HTMLParser
from itertools import product
from math import inf

import numpy as np
import pytest
from PIL import Image

from tests.support.random_scores import random_png, random_result, write_store
from tools.evaluate.blind import write_blind
from tools.evaluate.metrics import METRICS
from tools.evaluate.pictures import MAX_SIDE_PIXELS, choose_cases, crop_view, encode_webp
from tools.evaluate.plots import draw_curves, draw_scatters
from tools.evaluate.report import write_report
from tools.evaluate.scores import gather_scores
from tools.evaluate.store import read_results
from tools.evaluate.table import summarize_scores

HOSTILE = "`*_&'.png" if os.name == "nt" else '<script>alert(1)</script>"|`*_&.png'
ARMS = ("bicubic", "chain-null", "&lt;i&gt; 'it' $x$")
SIDE = 64


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Eight pictures and three arms with hostile names and words; one picture failed for one arm."""
    out = tmp_path_factory.mktemp("store")
    chance = np.random.default_rng(1)
    frames = [random_png(chance, SIDE) for _ in range(2)]
    results = []
    for i, (a, arm) in product(range(8), enumerate(ARMS)):
        words = {
            "prompt": "=1+1" if i == 1 else "</style><script>alert(2)</script>, Katze, 猫",
            "missing": {"niqe": "pyiqa is not installed"},
        }
        scores = [{"psnr": 20 + i + 2 * a, "sharpness": 5.0 * a + i}] * 2
        made = {"scores": scores, "frames": frames}
        if (i, a) == (7, 2):
            made = {"scores": [], "error": "out of <memory>"}
        image = f"folder/{i}.png" if i else HOSTILE
        results.append(random_result(image, arm, seed=i, **words, **made))
    write_store(out, results, arms=ARMS, side=SIDE)
    write_report(out)
    return out


def test_the_table_says_which_way_is_better_and_what_is_missing(store):
    text = (store / "table.md").read_text("utf-8")
    assert "| scale | arm | PSNR (dB) ↑ |" in text
    assert "| 4× | bicubic | 23.00 [21.57, 24.43] |" in text
    assert r"| 4× | &#38;lt;i&#38;gt; 'it' \$x\$ | **27.00** [25.57, 28.43] |" in text
    assert "| niqe | pyiqa is not installed | 24 |" in text
    assert "| folder/7.png | &#38;lt;i&#38;gt;" in text
    assert "out of &#60;memory&#62;" in text
    assert "1 of 8 images are left out" in text


def test_the_csv_file(store):
    raw = (store / "scores.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(raw.decode("utf-8-sig").splitlines()))
    assert len(rows) == 23 * 2
    assert list(rows[0]) == ["image", "arm", "factor", "prompt", "seed", "psnr", "sharpness"]
    assert rows[0]["image"] == HOSTILE
    row = next(row for row in rows if row["image"] == "folder/1.png")
    assert (row["prompt"], row["factor"], row["seed"], row["psnr"]) == ("'=1+1", "4", "1", "21.0")
    assert not re.search(r'(^|,)"?[=+@-]', raw.decode("utf-8-sig"), re.MULTILINE)


def test_the_page_shows_hostile_text_as_text(store):
    page = Page((store / "report.html").read_text("utf-8"))
    assert "script" not in dict(page.tags)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert f"256× · {HOSTILE}" not in page.text
    assert f"16× · {HOSTILE}" in page.text
    assert "&lt;i&gt; 'it' $x$" in page.text
    assert "out of <memory>" in page.text
    assert "python -m tools.evaluate" in page.text


def test_the_page_holds_all_it_shows(store):
    page = Page((store / "report.html").read_text("utf-8"))
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert all(p["src"].startswith("data:image/") and p["alt"] for p in pictures)
    # The best and worst picture of three arms: the same two for all, at 16x; with input and crop.
    assert len(pictures) == 2 * (3 + 2)
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert re.match("data:|#", attributes.get(name, "#"))


def test_without_naturalness_the_axis_is_called_sharpness(store):
    page = Page((store / "report.html").read_text("utf-8"))
    assert "Sharpness against fidelity" in page.text
    assert "No naturalness metric was measured" in page.text


def test_best_and_worst(store):
    results = read_results(store)
    found, unshown_count = choose_cases(store, results, gather_scores(results, ARMS))
    assert unshown_count == 0
    assert [(case.image, case.factor) for case in found] == [(HOSTILE, 16), ("folder/6.png", 16)]
    assert found[0].badges[0] == ("worst", "bicubic, 20.00")
    assert [arm.arm for arm in found[1].arms] == list(ARMS)
    assert ("best", "chain-null, 28.00") in found[1].badges
    assert found[1].side == SIDE // 16


def test_a_value_below_zero_keeps_its_sign(tmp_path):
    frame = random_png(np.random.default_rng(0), SIDE)
    results = [
        random_result(f"{value}.png", "one", [{"maniqa": value}] * 2, frames=[frame] * 2)
        for value in (-0.25, 0.5)
    ]
    write_store(tmp_path, results, arms=("one",), side=SIDE)
    found, _ = choose_cases(tmp_path, results, gather_scores(results))
    badges = [badge for case in found for badge in case.badges]
    assert badges == [("worst", "one, -0.250"), ("best", "one, 0.500")]


def test_the_window_is_the_middle():
    picture = Image.new("L", (512, 512))
    picture.putpixel((255, 255), 10)
    picture.putpixel((256, 256), 20)
    assert [crop_view(picture, 256).getpixel(p) for p in ((0, 0), (1, 1))] == [10, 20]
    assert crop_view(picture, 4).size == (128, 128)
    assert crop_view(Image.new("L", (64, 64)), 256).size == (1, 1)


def test_pictures_have_no_metadata():
    picture = Image.new("RGB", (1024, 1024), "red")
    exif = Image.Exif()
    exif[0x010E] = "chain-null"
    picture.info["exif"] = exif.tobytes()
    picture.info["comment"] = "chain-null"
    data = base64.b64decode(encode_webp(picture).partition(",")[2])
    with Image.open(io.BytesIO(data)) as file:
        assert file.size == (MAX_SIDE_PIXELS, MAX_SIDE_PIXELS)
        assert file.getpixel((0, 0)) == (255, 0, 0)
    assert b"chain" not in data


def test_plots_take_the_colours_of_the_page_and_tell_their_numbers():
    results = [
        random_result(f"{i}.png", arm, [{"psnr": value}])
        for arm, value in (("one", 20.0), ("two", inf))
        for i in range(8)
    ]
    scores = gather_scores(results)
    cells = summarize_scores(scores)
    (plot,) = draw_curves(scores, cells)
    assert 'aria-label="PSNR (dB) against scale. one: 20 at 4×"' in plot.svg
    assert "var(--arm-0)" in plot.svg
    assert "var(--ink)" in plot.svg
    assert not re.search("#0[14a]0[25b]", plot.svg)
    assert plot.note == "∞ is not drawn: two."
    assert plot.svg == draw_curves(scores, cells)[0].svg


def test_scatters_turn_lower_is_better_around():
    results = [
        random_result(f"{i}.png", arm, [{"lpips": lpips, "niqe": niqe}])
        for arm, lpips, niqe in (("good", 0.1, 3.0), ("bad", 0.5, 9.0))
        for i in range(6)
    ]
    scores = gather_scores(results)
    (plot,) = draw_scatters(scores, summarize_scores(scores), METRICS["lpips"], METRICS["niqe"])
    uses = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)" style="fill: var\(--arm-(\d)', plot.svg)
    place = {number: (float(x), float(y)) for x, y, number in uses}
    assert place["0"][0] > place["1"][0]  # good is to the right
    assert place["0"][1] < place["1"][1]  # and above


def test_all_failed_is_a_report_too(tmp_path):
    results = [random_result("a.png", arm, [], error="no memory") for arm in ("one", "two")]
    write_store(tmp_path, results, arms=("one", "two"), side=SIDE)
    write_report(tmp_path)
    assert "| a.png | one | no memory |" in (tmp_path / "table.md").read_text("utf-8")
    with pytest.raises(ValueError, match="two arms or more"):
        write_blind(tmp_path, 3, 0)
