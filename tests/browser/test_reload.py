"""What nodes show of a run, after the page is loaded again; test_viewer_back.py has CoZ Zoom Viewer."""

from .picker import build, chain, node, run_it, wait_for_picture
from .test_closing import STOPPED, TEXTS, wait_for_text
from .test_report import REPORT, TABLE


def test_the_picture_the_texts_and_the_table_are_there_again(editor):
    nodes = chain("rocket.jpg", between="ImageInvert", size=64, steps=4, scale=4, stop_below=99)
    build(editor, "classic", nodes | {"report": REPORT})
    run_it(editor)
    wait_for_picture(editor, 640, 427)
    loop = editor.run(f"{node('CoZChainLoop')}.id")
    wait_for_text(editor, loop, STOPPED)
    editor.settle(60)  # the frontend takes its own text away a moment later
    texts, table = editor.run(TEXTS, loop), editor.run(TABLE)
    editor.reload()
    wait_for_picture(editor, 640, 427)
    wait_for_text(editor, loop, STOPPED)
    editor.page.wait_for_function(f"({TABLE})().cells.length")
    assert editor.run(TEXTS, loop) == texts
    assert editor.run(TABLE) == table
