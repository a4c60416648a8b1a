"""Two people on one server, each in a browser of their own, who queue the same graph at once."""

import pytest
from playwright.sync_api import expect

from .conftest import Editor, new_page
from .picker import build, chain, target, wait_for_picture
from .viewer import SHOWN, fly

# What reaches a page, and how its run ends.
LISTEN = """() => {
    window.heard = {texts: [], records: [], queued: 0, end: null}
    app.api.addEventListener('progress_text', ({detail}) => heard.texts.push(detail.text))
    app.api.addEventListener('status', ({detail}) => {
        heard.queued = Math.max(heard.queued, detail?.exec_info?.queue_remaining ?? 0) })
    app.api.addEventListener('executed', ({detail}) => {
        if (detail.output?.coz_chain) heard.records.push(JSON.parse(detail.output.coz_chain[0])) })
    for (const end of ['execution_success', 'execution_error'])
        app.api.addEventListener(end, () => { heard.end = end })
}"""
STEPS = (2, 3)
PLACES = ((0.25, 0.25), (0.75, 0.5))


def prompts_of(steps):
    return [f"page of {steps}, step {i + 1}" for i in range(steps)]


@pytest.fixture
def other(browser, url, editor):
    page = new_page(browser)
    yield Editor(page, url, editor.frontend)
    page.close()


def test_two_pages_at_once_show_each_their_own(editor, other):
    pages = (editor, other)
    renderer = "vue" if editor.frontend == "newest" else "classic"  # each once
    for page, steps, (x, y) in zip(pages, STEPS, PLACES, strict=True):
        prompts = "\n".join(prompts_of(steps))
        nodes = chain(size=256, steps=steps, step_prompts=prompts, center_x=x, center_y=y)
        build(page, renderer, nodes | {"viewer": SHOWN})
        wait_for_picture(page, 1000, 872)
        page.run(LISTEN)
    for page in pages:
        page.page.get_by_test_id("queue-button").click()
    for page, steps, place in zip(pages, STEPS, PLACES, strict=True):
        page.page.wait_for_function("heard.end")
        heard = page.run("heard")
        assert heard["end"] == "execution_success"
        prompts = prompts_of(steps)
        assert [record["prompts"] for record in heard["records"]] == [prompts] * 2
        others = f"of {sum(STEPS) - steps}"
        assert heard["texts"]
        assert not any(others in text for text in heard["texts"])
        assert target(page) == list(place)
        page.show_all()
        viewer = page.page.locator(".coz-viewer")
        fly(viewer, f"{2**steps}x")
        expect(viewer.locator(".prompt")).to_have_text(prompts[-1])
    assert max(page.run("heard.queued") for page in pages) == 2  # one waited for the other
    assert other.complaints == []
