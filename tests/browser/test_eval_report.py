import itertools
import json

import numpy as np
import pytest

from tests.support.random_scores import random_png, random_result, write_store
from tools.evaluate.answers import read_answers
from tools.evaluate.blind import PAGE, write_blind
from tools.evaluate.report import KEY_FILE, write_report

pytestmark = pytest.mark.tools
ARMS = ("bicubic", "chain-null", "&lt;i&gt; 'it' $x$")
PAIRS = 9


@pytest.fixture(autouse=True)
def no_complaints():
    """In place of that of the package, which opens the frontend: the pages are files."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    out = tmp_path_factory.mktemp("store")
    chance = np.random.default_rng(0)
    results = []
    texts = {"prompt": "<img src=x onerror=\"document.title='owned'\">" + "word" * 60}
    texts["missing"] = {"lpips": "no " + "weights" * 40}
    for i, (a, arm) in itertools.product(range(6), enumerate(ARMS)):
        scores = [dict.fromkeys(("psnr", "ssim", "gmsd", "niqe"), 10.0 + i + a)] * 4
        frames = [random_png(chance, 64)] * 4
        name = f"{'long name ' * 12}{i}.png"
        results.append(random_result(name, arm, scores, frames=frames, **texts))
    write_store(out, results, arms=ARMS, side=64)
    write_blind(out, PAIRS, 0)
    write_report(out)
    return out


@pytest.fixture
def open_page(browser, store):
    """Opens a page of the store without a network; tells what it complained about at the end."""
    complaints = []
    with browser.new_context(viewport={"width": 390, "height": 800}) as context:
        context.set_offline(True)

        def opened(name):
            page = context.new_page()
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("requestfailed", lambda request: complaints.append(request.url[:100]))
            page.goto((store / name).as_uri())
            return page

        yield opened
    assert complaints == []


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def loaded(page):
    """How many pictures are to be seen, if all of them are."""
    widths = page.evaluate(
        """async () => {
            const shown = [...document.images].filter(image => image.checkVisibility())
            await Promise.all(shown.map(image => image.decode()))
            return shown.map(image => image.naturalWidth)
        }"""
    )
    assert all(widths)
    return len(widths)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report(open_page, scheme):
    page = open_page("report.html")
    page.emulate_media(color_scheme=scheme)
    assert page.title() == "Chain-of-Zoom evaluation: 3 arms, 6 images"
    assert fits(page)
    # Best and worst are the same two pictures for all arms, at 256x and at 16x.
    assert loaded(page) == 2 * 2 * (2 + len(ARMS))
    plots = page.locator("svg[role=img]")
    assert plots.count() == 4 + 4  # a metric each; naturalness against fidelity, a scale each
    assert all(box["height"] > 100 for box in (plot.bounding_box() for plot in plots.all()))
    ink = page.locator("svg text").first.evaluate("text => getComputedStyle(text).fill")
    assert ink == {"light": "rgb(29, 29, 27)", "dark": "rgb(233, 232, 227)"}[scheme]


def test_people_judge_with_the_keyboard(open_page, store, tmp_path):
    key = json.loads((store / KEY_FILE).read_text("utf-8"))
    source = (store / PAGE).read_text("utf-8")
    assert not any(arm in source for arm in ARMS)
    page = open_page(PAGE)
    page.get_by_label("Your name, if you like").fill("</script>Anna")
    page.get_by_role("button", name="Begin").click()
    count = page.locator("#count")
    pressed = ["ArrowLeft", "ArrowRight", " "] * 3
    meant = {"ArrowLeft": "left", "ArrowRight": "right", " ": "same"}
    for i, press in enumerate(pressed):
        assert count.inner_text() == f"{i + 1} of {PAIRS}"
        assert loaded(page) == 4
        assert fits(page)
        if i == 4:
            page.reload()
            assert count.inner_text() == "5 of 9"
        if i == 6:
            page.get_by_role("button", name="Right is better").click()
            page.keyboard.press("Backspace")
            assert page.locator(".chosen").inner_text() == "Right is better"
        page.keyboard.press(press)
    assert page.get_by_text(f"You judged {PAIRS} of {PAIRS} pairs.").is_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save answers.json").click()
    assert download.value.suggested_filename == "answers.json"
    file = tmp_path / "answers.json"
    download.value.save_as(file)
    saved = json.loads(file.read_text("utf-8"))
    assert (saved["run"], saved["judge"]) == (key["run"], "</script>Anna")
    assert [entry["pair"] for entry in saved["answers"]] == [pair["id"] for pair in key["pairs"]]
    assert [entry["answer"] for entry in saved["answers"]] == [meant[press] for press in pressed]
    assert all(0 <= entry["seconds"] < 60 for entry in saved["answers"])

    judged = read_answers(store, [file])
    won = dict.fromkeys(ARMS, 0)
    for pair, press in zip(key["pairs"], pressed, strict=True):
        if press != " ":
            won[pair[meant[press]]] += 1
    assert {line[0]: int(line[3]) for line in judged.lines} == won
    assert judged.notes[0].startswith("9 answers to 9 pairs by 1 judge,")


def test_who_stops_early_saves_what_there_is(open_page, store, tmp_path):
    page = open_page(PAGE)
    page.get_by_role("button", name="Begin").click()
    page.get_by_role("button", name="The same").click()
    page.get_by_role("button", name="Finish here").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save answers.json").click()
    download.value.save_as(tmp_path / "answers.json")
    saved = json.loads((tmp_path / "answers.json").read_text("utf-8"))
    assert len(saved["answers"]) == 1
    assert len(saved["judge"]) >= 8  # a random name
    page.get_by_role("button", name="Back to the pairs").click()
    assert page.locator("#count").inner_text() == "2 of 9"
