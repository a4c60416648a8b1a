import pytest

from coz.text.answer import EXCLUDED_PHRASES
from tools.train_grpo import rewards


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("87", 0.87),
        ("0", 0.0),
        ("100", 1.0),
        ("72.5", 0.725),
        ("Score: 87", 0.87),
        ("**Score:** 87.", 0.87),
        ("My rating is 40, for 3 of 5 words fit.", 0.4),
        ("87/100", 0.87),
        ("I would give it 87 out of 100.", 0.87),
        ("8.5/10", 0.85),
        ("First 20/100, on second thought 60/100", 0.6),
        ("<think>90 or 95?</think>70", 0.7),
        ("85%", 0.85),
        ("Score (0 to 100): 87", 0.87),
        ("**Score** (0-100):\n**87**", 0.87),
        ("On a scale from 0 to 100 I give 87.", 0.87),
        ("Score: 0", 0.0),
        ("", None),
        ("excellent", None),
        ("nan", None),
        ("101", None),
        ("-5", None),
        ("Score: -5", None),
        ("0.85", None),
        ("60 to 70", None),
        ("Score: 60-70", None),
        ("Score: 60 to 70", None),
        ("Score (1-10): 8", None),
        ("Score (0 to 100):", None),
        ("Score: 1,000", None),
        ("120/100", None),
        ("3/7", None),
        ("0x10", None),
        ("1.2.3", None),
    ],
)
def test_critic_answers(answer, score):
    assert rewards.read_critic_score(answer) == (score if score is None else pytest.approx(score))


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("moss, bark, wet stone", 1.0),
        ("", 1.0),
        ("The second image shows moss", 0.0),
        ("moss in the SECOND\n IMAGE", 0.0),
        ("a zoom-in of moss", 0.0),
        ("a zoom in of moss", 0.0),
        ("a zoomed\u2011in leaf", 0.0),
        ("a zoom instrument", 1.0),
        ("second imagery", 1.0),
        ("twenty-second image", 0.0),
        ("the 1st photographs", 0.0),
        *((phrase, 0.0) for phrase in EXCLUDED_PHRASES),
    ],
)
def test_phrases_are_excluded(text, reward):
    assert rewards.score_phrase_exclusion(text) == reward


def test_phrases_are_the_callers():
    assert rewards.score_phrase_exclusion("a blurry leaf", ["blurry"]) == 0
    assert rewards.score_phrase_exclusion("the first image", ["blurry", " "]) == 1
    assert rewards.score_phrase_exclusion("the first image", []) == 1
    assert rewards.score_phrase_exclusion("a (b) c", ["(b)"]) == 0


# 3-grams: of n words n - 2, and how many of them are new.
@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("", 0.0),
        ("moss moss", 0.0),
        ("moss bark stone", 0.0),
        ("moss moss moss", 0.0),
        ("moss moss moss moss", -1 / 2),
        ("moss " * 128, -125 / 126),
        ("a b c a b c", -1 / 4),
        ("A b C a B c", -1 / 4),
        ("a b c, a b c", 0.0),
        ("one two three four five six", 0.0),
    ],
)
def test_repetition(text, reward):
    assert rewards.score_repetition(text) == pytest.approx(reward)


def test_repetition_of_other_lengths():
    assert rewards.score_repetition("a a b b", ngram=1) == pytest.approx(-1 / 2)
    assert rewards.score_repetition("a a a", ngram=2) == pytest.approx(-1 / 2)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("wet moss on bark", 0.0),
        ("café, naïve, Ærø, straße", 0.0),
        ("moss, bark", -0.5),
        ("", -1.0),
        (" .,;", -1.0),
        ("1 2 3 4", 0.0),
        ("苔藓 树皮 石头 绿色", -1.0),
        ("moss bark stone мох", -3 / 16),
        ("wet moss, bark, “stone” – №", 0.0),
    ],
)
def test_form_of_an_answer(text, reward):
    assert rewards.score_answer_form(text) == pytest.approx(reward)


def test_form_of_an_answer_of_any_length():
    assert rewards.score_answer_form("moss", least_words=0) == 0
    assert rewards.score_answer_form("moss", least_words=2) == -0.5


@pytest.mark.parametrize(
    ("text", "good", "bad", "reward"),
    [
        ("moss", [], [], None),
        ("Moss, bark", ["bark moss"], [], 1.0),
        ("moss, bark", [], ["bark moss"], -1.0),
        ("moss, bark", ["moss stone"], ["rust iron"], 0.5),
        ("moss, bark", ["rust", "moss bark"], ["moss stone"], 0.5),
        ("", ["moss"], ["bark"], 0.0),
    ],
)
def test_preference(text, good, bad, reward):
    assert rewards.score_preference(text, good, bad) == reward


def test_image_feedback():
    better, worse = (rewards.score_image_feedback(score, 50) for score in (51, 49))
    assert rewards.score_image_feedback(50, 50) == 0
    assert better == -worse == pytest.approx(0.7616, abs=1e-4)
    assert rewards.score_image_feedback(52, 50, spread=2) == better
    assert rewards.score_image_feedback(float("nan"), 50) is None
