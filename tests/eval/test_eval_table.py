from math import inf

import numpy as np
import pytest

from tests.support.random_scores import random_result
from tools.evaluate.scores import gather_scores
from tools.evaluate.table import (
    MIN_IMAGES,
    count_decimals,
    escape_markdown,
    format_markdown,
    make_tables,
    summarize_scores,
)


def results_of(values, metric="psnr", arms=("one", "two")):
    """One scale; values[arm][picture]."""
    return [
        random_result(f"{i:03}.png", arm, [{metric: value}])
        for arm, row in zip(arms, values, strict=True)
        for i, value in enumerate(row)
    ]


def cells_of(values, metric="psnr", arms=("one", "two")):
    cells = summarize_scores(gather_scores(results_of(values, metric, arms), arms))
    return {arm: cell for (_, _, arm), cell in cells.items()}


def write(scores):
    return format_markdown(scores, make_tables(scores, summarize_scores(scores)))


def test_mean_and_interval_of_the_same_value_everywhere():
    cell = cells_of([[3.5] * 8, [2.5] * 8])["one"]
    assert (cell.mean, cell.low, cell.high, cell.image_count) == (3.5, 3.5, 3.5, 8)


def test_the_interval_is_that_of_a_normal_mean():
    values = np.random.default_rng(0).normal(30, 4, (2, 400))
    cell = cells_of(values)["one"]
    error = values[0].std() / 20
    assert cell.mean == pytest.approx(values[0].mean())
    assert cell.low == pytest.approx(cell.mean - 1.96 * error, abs=0.1 * error)
    assert cell.high == pytest.approx(cell.mean + 1.96 * error, abs=0.1 * error)


def test_best_is_judged_picture_by_picture():
    # The pictures differ by far more than the arms do: only pairs of the same picture tell.
    values = np.random.default_rng(0).normal(30, 10, 20)
    cells = cells_of([values, values + 0.1])
    assert cells["two"].low < cells["one"].high
    assert (cells["one"].best, cells["two"].best) == (False, True)


def test_lower_is_better_where_it_is():
    values = np.linspace(0.1, 0.5, 10)
    assert cells_of([values, values + 0.1], "lpips")["one"].best
    assert not any(cell.best for cell in cells_of([values, values + 1], "sharpness").values())


def test_no_best_where_the_pictures_do_not_say():
    values = np.random.default_rng(0).normal(30, 1, 20)
    swaps = np.where(np.arange(20) % 2, 1, -1)
    assert not any(cell.best for cell in cells_of([values, values + swaps]).values())
    few = [[1.0] * (MIN_IMAGES - 1), [2.0] * (MIN_IMAGES - 1)]
    assert not any(cell.best for cell in cells_of(few).values())
    assert cells_of([[*row, row[0]] for row in few])["two"].best


def test_every_arm_is_compared_on_the_same_pictures():
    results = results_of([[1.0, 2.0, 99.0], [3.0, 4.0, 5.0]])
    results[2] = random_result("002.png", "one", [], error="no memory")
    results += [random_result("003.png", "two", [{"psnr": 50.0}])]
    scores = gather_scores(results, ("two", "one", "never run"))
    assert scores.arms == ("two", "one")
    assert scores.images == ("000.png", "001.png")
    assert scores.left_out == ("002.png", "003.png")
    assert scores.failed == (("002.png", "one", "no memory"),)
    assert scores.unmade == (("003.png", "one"),)
    assert {c.mean for c in summarize_scores(scores).values()} == {1.5, 3.5}
    text = write(scores)
    assert "2 of 4 images are left out of all comparisons" in text
    assert "1 results failed, 1 are missing" in text
    assert "| 002.png | one | no memory |" in text


def test_an_arm_that_failed_everywhere_takes_no_picture_from_the_others():
    results = results_of([[1.0, 2.0], [3.0, 4.0]])
    results += [random_result(f"00{i}.png", "d_e_a_d", [], error="no memory") for i in range(2)]
    scores = gather_scores(results, ("d_e_a_d", "one", "two"))
    assert scores.arms == ("one", "two")
    assert scores.images == ("000.png", "001.png")
    assert (scores.failed_arms, scores.left_out) == (("d_e_a_d",), ())
    text = write(scores)
    assert r"Left out because they failed on every image: d\_e\_a\_d." in text
    assert "left out" not in text
    assert r"| 001.png | d\_e\_a\_d | no memory |" in text
    results += [random_result("002.png", "d_e_a_d", [{"psnr": 50.0}])]
    assert gather_scores(results).images == ()


def test_an_unfinished_run_is_told():
    results = results_of([[1.0], [2.0]])
    scores = gather_scores(results, asked=[*(result.key for result in results), "x", "y"])
    assert "The run is not finished: 2 results are missing." in write(scores)


def test_a_metric_that_one_picture_lacks_for_one_arm_is_compared_without_that_picture():
    results = results_of([[1.0, 2.0], [3.0, 4.0]])
    results[0] = random_result("000.png", "one", [{"ssim": 0.5}])
    cells = summarize_scores(gather_scores(results))
    assert (cells["psnr", 4, "two"].mean, cells["psnr", 4, "two"].image_count) == (4.0, 1)
    assert ("ssim", 4, "two") not in cells


def test_a_cell_of_fewer_pictures_than_others_says_so():
    results = results_of([[1.0, 2.0], [3.0, 4.0]])
    results[0] = random_result("000.png", "one", [{"psnr": 1.0}, {"psnr": 5.0}])
    results[2] = random_result("000.png", "two", [{"psnr": 3.0}, {"psnr": 6.0}])
    text = write(gather_scores(results))
    assert "| 4× | one | 1.50 [1.00, 2.00] |" in text
    assert "| 16× | one | 5.00 n = 1 |" in text
    assert "n = 1 to 2." in text


def test_equal_pictures_are_counted_apart():
    cells = cells_of([[30.0] * 7 + [inf], [inf] * 8, [30.0] * 8], arms=("b", "a", "c"))
    assert (cells["a"].mean, cells["a"].infinite_count, cells["a"].best) == (None, 8, True)
    assert (cells["b"].mean, cells["b"].low, cells["b"].infinite_count) == (30, 30, 1)
    text = write(gather_scores(results_of([[inf] * 8, [30.0] * 7 + [inf]])))
    assert "| 4× | one | **∞** in all 8 |" in text
    assert "| 4× | two | 30.00 [30.00, 30.00] and ∞ in 1 |" in text


@pytest.mark.parametrize(
    ("largest", "places"), [(0.0021, 5), (0.05, 4), (0.6, 3), (28.3, 2), (5000, 0), (0, 3)]
)
def test_numbers_are_as_long_as_they_must_be(largest, places):
    assert count_decimals([0.0, -largest, None, inf]) == places


def test_naturalness_comes_with_its_warning():
    scores = gather_scores(results_of([[5.0] * 6, [6.0] * 6], "niqe"))
    assert "can be gamed" in write(scores)


def test_text_in_a_markdown_table_is_text():
    assert escape_markdown("a|b\n<i>*c* `d`") == r"a&#124;b &#60;i&#62;\*c\* \`d\`"
