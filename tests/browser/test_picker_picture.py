"""The picture on the target picker: that of a run, of another tab.

tests/js/outputs.test.mjs has it after requests that failed.
"""

import pytest
from playwright.sync_api import expect

from tests.support.camera_files import oriented

from .conftest import each_renderer
from .picker import (
    build,
    chain,
    labels,
    load_image,
    note,
    point,
    run_it,
    set_values,
    source_of,
    target,
    wait_for_picture,
)


def test_what_comes_through_another_node_is_shown_after_a_run(editor):
    build(editor, "classic", chain("rocket.jpg", between="ImageInvert"))
    expect(note(editor)).to_have_text("run once to see the image")
    assert labels(editor) == []
    run_it(editor)
    for renderer, place in (("classic", 0.25), ("vue", 0.2)):
        editor.use_renderer(renderer)
        editor.settle(30)  # the node is drawn anew
        editor.page.mouse.click(*point(wait_for_picture(editor, 640, 427), place, place))
        assert target(editor) == pytest.approx([place, place], abs=3e-3)


@each_renderer
def test_another_picture_in_load_image_is_shown_at_once(editor, folder, renderer):
    pictures = folder / "input" / "my pictures"
    pictures.mkdir(exist_ok=True)
    oriented(pictures / "a wide [one].jpg", 1)
    oriented(pictures / "turned.jpg", 6)
    build(editor, renderer, chain() | {"source": load_image("my pictures/a wide [one].jpg")})
    wait_for_picture(editor, 60, 40)
    source = source_of(run_it(editor))
    assert (source["width"], source["height"]) == (60, 40)
    set_values(editor, "LoadImage", image="my pictures/turned.jpg")
    wait_for_picture(editor, 40, 60)
    source = source_of(run_it(editor))
    assert (source["width"], source["height"]) == (40, 60)

    oriented(pictures / "turned.jpg", 1, (50, 40))  # another picture of that name
    run_it(editor)
    wait_for_picture(editor, 50, 40)

    def choose_another():
        set_values(editor, "LoadImage", image="my pictures/a wide [one].jpg")

    run_it(editor, then=choose_another)
    wait_for_picture(editor, 60, 40)  # not what that run got


def test_a_picture_that_the_browser_cannot_show_is_shown(editor, folder):
    oriented(folder / "input" / "a.tif", 1)
    build(editor, "classic", chain() | {"source": load_image("a.tif")})
    wait_for_picture(editor, 60, 40)


def test_a_run_that_ended_while_its_tab_was_away_is_shown(editor):
    """The frontend keeps what it sent under the id of the loop's child, not of the loop."""
    build(editor, "classic", chain("rocket.jpg", between="ImageInvert"))
    expect(note(editor)).to_have_text("run once to see the image")
    editor.run(
        """async () => {
            const {output, workflow} = await app.graphToPrompt()
            const queued = await app.api.fetchApi('/prompt', {method: 'POST', body: JSON.stringify(
                {prompt: output, client_id: 'away', extra_data: {extra_pnginfo: {workflow}}})})
            const {prompt_id} = await queued.json()
            for (let ended; !ended; await new Promise(done => setTimeout(done, 100)))
                ended = (await (await app.api.fetchApi(`/history/${prompt_id}`)).json())[prompt_id]
            await app.loadGraphData(workflow)  // as the tab does
        }"""
    )
    wait_for_picture(editor, 640, 427)
