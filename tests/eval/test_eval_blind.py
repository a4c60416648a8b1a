import json
import shutil
from itertools import product
from math import log

import numpy as np
import pytest
from scipy.optimize import minimize

from tests.support.random_scores import random_png, random_result, write_store
from tools.evaluate.answers import Answer, rank_arms, read_answers
from tools.evaluate.blind import PAGE, choose_pairs, write_blind
from tools.evaluate.bradley import fit_strengths
from tools.evaluate.report import KEY_FILE, write_report
from tools.evaluate.scores import gather_scores

ARMS = ("bicubic", "chain-null", "&lt;i&gt; 'it' $x$")


def scores_for(arms, images, factors=4):
    pairs = product(range(images), arms)
    results = [random_result(f"{i}.png", arm, [{"psnr": 1.0}] * factors) for i, arm in pairs]
    return gather_scores(results, arms)


@pytest.mark.parametrize("pairs", [1, 7, 24, 60, 6 * 4 * 10])
def test_the_design_is_balanced(pairs):
    chosen = choose_pairs(scores_for(("a", "b", "c", "d"), 10), pairs, 3)
    assert len({pair.id for pair in chosen}) == len(chosen) == pairs
    meetings = [tuple(sorted((p.left, p.right))) for p in chosen]
    for counts, cells in (
        (meetings, 6),
        ([p.factor for p in chosen], 4),
        ([p.image for p in chosen], 10),
        (list(zip(meetings, [p.factor for p in chosen], strict=True)), 24),
    ):
        seen = [counts.count(value) for value in set(counts)] + [0] * (cells - len(set(counts)))
        assert max(seen) - min(seen) <= 1
    asked = {(m, p.factor, p.image) for m, p in zip(meetings, chosen, strict=True)}
    assert len(asked) == pairs
    for meeting in set(meetings):
        lefts = [p.left for p in chosen if {p.left, p.right} == {*meeting}]
        assert abs(2 * lefts.count(meeting[0]) - len(lefts)) <= 1


def test_another_seed_is_another_order():
    scores = scores_for(("a", "b", "c"), 5)
    one, same, other = (choose_pairs(scores, 12, seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_more_pairs_than_there_are():
    with pytest.raises(ValueError, match=r"1 to 6 pairs here \(1 pairs of arms, 2 scales"):
        choose_pairs(scores_for(("a", "b"), 3, factors=2), 7, 0)


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    """A store with a page of 12 pairs, and its key."""
    out = tmp_path_factory.mktemp("blind")
    frames = [random_png(np.random.default_rng(1), 64)] * 2
    results = [
        random_result(f"folder/{i}.png", arm, [{"psnr": 20.0 + i}] * 2, frames=frames)
        for i, arm in product(range(3), ARMS)
    ]
    write_store(out, results, arms=ARMS, side=64)
    write_blind(out, 12, 5)
    return out, json.loads((out / KEY_FILE).read_text("utf-8"))


def test_the_page_does_not_tell_the_arms(blind):
    out, key = blind
    text = (out / PAGE).read_text("utf-8")
    assert len(key["pairs"]) == 12
    for arm in key["arms"]:
        assert arm not in text
    for pair in key["pairs"]:
        assert pair["id"] in text
        assert pair["image"] not in text


def saved(path, key, choose=lambda pair: "same", judge="Anna", run=None, **more):
    answers = [{"pair": p["id"], "answer": choose(p), "seconds": 2.0} for p in key["pairs"]]
    content = {"run": run or key["run"], "judge": judge, "answers": answers} | more
    path.write_text(json.dumps(content), "utf-8")
    return path


def test_answers_become_a_table(blind):
    out, key = blind
    file = saved(out / "answers.json", key, lambda p: "left" if p["left"] > p["right"] else "right")
    judged = read_answers(out, [file])
    # By name: chain-null over bicubic over the one in brackets; each meets each four times.
    assert [line[0] for line in judged.lines] == ["chain-null", "bicubic", "&lt;i&gt; 'it' $x$"]
    counts = [("8", "0", "0"), ("4", "0", "4"), ("0", "0", "8")]
    assert [line[3:6] for line in judged.lines] == counts
    notes = "\n".join(judged.notes)
    assert "every answer went the same way" in notes
    assert "of one judge, so the intervals say nothing about other people" in notes
    assert "&#38;lt;i&#38;gt;" in (out / "blind.md").read_text("utf-8")
    write_report(out)
    page = (out / "report.html").read_text("utf-8")
    assert "People’s judgement" in page
    assert "&amp;lt;i&amp;gt; &#39;it&#39; $x$" in page


def test_judgement_of_an_older_page_is_not_shown(blind, tmp_path):
    out = shutil.copytree(blind[0], tmp_path / "store")
    read_answers(out, [saved(out / "answers.json", blind[1])])
    write_blind(out, 12, 5)  # the same once more
    write_report(out)
    assert "People’s judgement" in (out / "report.html").read_text("utf-8")
    write_blind(out, 6, 5)
    write_report(out)
    assert "People’s judgement" not in (out / "report.html").read_text("utf-8")


def test_what_cannot_be_counted_is_said_in_a_line_each(blind):
    out, key = blind
    good, twice = (saved(out / f"{name}.json", key) for name in ("good", "twice"))
    other = saved(out / "other.json", key, judge="Ben", run="0" * 16)
    cut = b'{"run": "' + key["run"].encode()
    unread = {"damaged": cut, "listed": b"[1, 2]", "deep": b"[" * 100_000, "latin": b"\xff\xfe\x00"}
    for name, content in unread.items():
        (out / f"{name}.json").write_bytes(content)
    one = key["pairs"][0]["id"]
    answers = [("nowhere", "left", 1), (one, "left", 1), (one, "right", 1), (one, "both", 1)]
    answers += [(one, "left", float("nan")), (one, "left", -1), ([one], "left", 1)]
    answers = [dict(zip(("pair", "answer", "seconds"), each, strict=True)) for each in answers]
    judge = "<script>alert(3)</script>" * 9
    odd = saved(out / "odd.json", key, judge=judge, answers=[*answers, 7])
    files = [good, twice, other, *(out / f"{name}.json" for name in unread), odd]
    judged = read_answers(out, [*files, out / "none.json"])
    assert judged.notes[-10:] == (
        "twice.json: left out, good.json has the same judge's answers",
        "other.json: left out, it belongs to another blind.html",
        "damaged.json: left out, it is not a file that the page saved",
        "listed.json: left out, it is not a file that the page saved",
        "deep.json: left out, it is not a file that the page saved",
        "latin.json: left out, it is not a file that the page saved",
        "odd.json: 1 answers left out: their pairs are not in the key",
        "odd.json: 1 answers left out: their pairs were answered before",
        "odd.json: 5 answers left out: damaged",
        "none.json: left out, it cannot be read: No such file or directory",
    )
    assert "13 answers to 12 pairs by 2 judges" in judged.notes[0]
    with pytest.raises(ValueError, match=r"no answer counts; other\.json: left out"):
        read_answers(out, [other])


def test_answers_without_a_key_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"there is no blind_key\.json"):
        read_answers(tmp_path, [])


def all_met(k):
    return ~np.eye(k, dtype=bool)


@pytest.mark.parametrize(
    ("won", "games"), [(7, 10), (0, 10), (10, 10), (5.5, 10), (900, 1000), (7e6, 1e7)]
)
def test_two_have_a_closed_form(won, games):
    wins = np.array([[0, won], [games - won, 0.0]])
    one, two = fit_strengths(wins, all_met(2))
    p = (won + 0.5) / (games + 1)
    assert one - two == pytest.approx(log(p / (1 - p)), abs=1e-8)
    assert one + two == pytest.approx(0, abs=1e-8)


def test_it_is_the_maximum_of_the_likelihood():
    wins = np.random.default_rng(0).integers(0, 12, (5, 5)) * all_met(5)

    def loss(theta):
        return ((wins + 0.5 * all_met(5)) * np.log1p(np.exp(theta - theta[:, None]))).sum()

    expected = minimize(loss, np.zeros(5), tol=1e-10).x
    assert fit_strengths(wins, all_met(5)) == pytest.approx(expected - expected.mean(), abs=1e-4)


def test_several_at_once_are_as_one_by_one():
    wins = np.random.default_rng(0).integers(0, 12, (6, 4, 4)) * all_met(4)
    together = fit_strengths(wins, all_met(4))
    for single, row in zip(wins, together, strict=True):
        assert fit_strengths(single, all_met(4)) == pytest.approx(row, abs=1e-8)


def key_of(pairs, arms):
    return {
        "arms": arms,
        "pairs": [
            {"id": str(i), "image": "a", "factor": 4.0, "left": left, "right": right}
            for i, (left, right) in enumerate(pairs)
        ],
    }


def answers_of(choices, judge="x"):
    return [Answer(judge, str(i), choice, 1.0) for i, choice in enumerate(choices)]


def test_groups_that_never_met_are_told():
    key = key_of([("a", "b"), ("a", "b"), ("c", "d"), ("c", "d")], ["a", "b", "c", "d", "e"])
    judged = rank_arms(key, answers_of(["left", "right", "left", "same"]))
    assert any("cannot be compared: a, b; c, d." in note for note in judged.notes)
    assert "e is in none of the answers." in judged.notes
    assert [line[0] for line in judged.lines] == ["c", "a", "b", "d"]
    strength = {line[0]: float(line[1]) for line in judged.lines}
    assert strength["a"] == strength["b"] == 0
    # 1.5 of 2, and half a win for each besides.
    assert strength["c"] - strength["d"] == pytest.approx(log(2 / 1), abs=0.01)


def test_ties_are_half_a_win_each_and_the_interval_holds_the_truth():
    key = key_of([("weak", "strong")] * 400, ["weak", "strong"])
    choices = np.where(np.random.default_rng(0).random(400) < 0.7, "right", "left")
    choices[:100] = "same"
    best = rank_arms(key, answers_of(choices.tolist())).lines[0]
    won = (choices == "right").sum()
    p = (won + 50 + 0.5) / 401
    assert best[0] == "strong"
    assert float(best[1]) == pytest.approx(log(p / (1 - p)) / 2, abs=0.005)
    assert best[3:] == (str(won), "100", str(300 - won), f"{(won + 50) / 400:.0%} of 400")
    low, high = map(float, best[2].strip("[]").split(","))
    # Half the log-odds; ties vary less than wins do.
    values = np.where(choices == "same", 0.5, choices == "right")
    error = values.std() / 20 / (p * (1 - p)) / 2
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_judges_who_disagree_widen_the_interval():
    key = key_of([("a", "b")] * 40, ["a", "b"])
    ten = [f"judge {i}" for i in range(10)]
    agree = [x for who in ten for x in answers_of(["left"] * 28 + ["right"] * 12, who)]
    differ = [x for who in ten[:7] for x in answers_of(["left"] * 40, who)]
    differ += [x for who in ten[7:] for x in answers_of(["right"] * 40, who)]

    def width(answers):
        low, high = map(float, rank_arms(key, answers).lines[0][2].strip("[]").split(","))
        return high - low

    assert rank_arms(key, agree).lines[0][1] == rank_arms(key, differ).lines[0][1]
    assert width(differ) > 1.5 * width(agree)
