"""Results on disk, and what they tell of what was not measured."""

from dataclasses import replace

import pytest

from tools.evaluate.job import Row, add_scores, make_result
from tools.evaluate.store import (
    frame_path,
    read_result,
    read_results,
    result_folder,
    write_result,
    write_settings,
)
from tools.image_file import to_png

from .jobs import job, noise


def result(**changes):
    rows = tuple(
        Row("a.png", "nearest", f, "", 0, {"psnr": v})
        for f, v in ((4.0, 20.5), (16.0, float("inf")))
    )
    made = replace(make_result(job(), None), rows=rows, frames=(b"one", b"two"), seconds=1.5)
    return replace(made, **changes)


def test_a_result_comes_back_from_the_store(tmp_path):
    write_result(tmp_path, result())
    assert read_results(tmp_path) == [result(frames=())]
    assert [frame_path(tmp_path, result(), k).read_bytes() for k in (1, 2)] == [b"one", b"two"]
    text = (result_folder(tmp_path, "nearest", "a.png") / "result.json").read_text("utf-8")
    assert '"psnr": "inf"' in text


def test_pictures_of_one_stem_do_not_collide(tmp_path):
    names = ["a.png", "a.jpg", "sub/a.png", "Sub/a.png", "x:y?/ä b.png"]
    folders = {str(result_folder(tmp_path, "nearest", name)).lower() for name in names}
    assert len(folders) == len(names)


def test_only_what_was_asked_for_last_is_read(tmp_path):
    for key, image in (("k1", "a.png"), ("k2", "b.png")):
        write_result(tmp_path, result(key=key, image=image))
    write_settings(tmp_path, {}, ["k2"])
    assert [found.image for found in read_results(tmp_path)] == ["b.png"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rows": [1]}', '{"rows": []}'])
def test_a_damaged_record_is_no_result(content, tmp_path):
    write_result(tmp_path, result())
    (result_folder(tmp_path, "nearest", "a.png") / "result.json").write_text(content)
    assert read_result(tmp_path, job()) is None
    assert read_results(tmp_path) == []


def test_a_full_disk_leaves_no_half_result(small_files, tmp_path):
    write_result(tmp_path, result())
    with small_files(100_000), pytest.raises(OSError, match="too large"):
        write_result(tmp_path, result(frames=(b"x" * 1000, b"x" * 300_000), key="new"))
    place = result_folder(tmp_path, "nearest", "a.png")
    assert [path.name for path in place.iterdir()] == ["x_1.png"]
    assert read_results(tmp_path) == []


def test_a_missing_metric_says_at_which_scales():
    work = job(ground_truth=to_png(noise(256, 256)), metrics=("psnr", "ms_ssim", "sharpness"))
    made = add_scores(work, replace(make_result(work, None), frames=(work.picture,) * 2), ("", ""))
    assert [sorted(row.scores) for row in made.rows] == [["psnr", "sharpness"], ["sharpness"]]
    no_truth = "needs a ground truth, but this frame has none"
    assert made.missing == {
        "psnr": f"at 16x: PSNR (dB) {no_truth}",
        "ms_ssim": f"at 4x: MS-SSIM needs 161 px a side, but the frame has 64; at 16x: MS-SSIM {no_truth}",
    }
    made = replace(made, frames=(work.picture,) * 2)
    without = add_scores(replace(work, ground_truth=None), made, ("", ""))
    assert without.missing["psnr"] == f"PSNR (dB) {no_truth}"
