"""Configs and the critic's book-keeping, without any training."""

from pathlib import Path

import pytest
import yaml

from tools.host import ROOT
from tools.train_grpo.config import Config, Critic, read_config
from tools.train_grpo.critic import CriticError, Judge, Question, fill_missing


@pytest.fixture
def read(tmp_path):
    def from_text(**told):
        path = tmp_path / "config.yaml"
        least = {"data": "pairs", "out": "run", "critic": {"model": "m"}}
        path.write_text(yaml.safe_dump(least | told))
        return read_config(path)

    return from_text


def test_folders_are_seen_from_the_config(read, tmp_path):
    config = read(out="/elsewhere")
    assert (config.data, config.out) == (tmp_path / "pairs", Path("/elsewhere"))


def test_weights_are_the_papers_unless_told(read):
    weights = {"critic": 1.0, "phrase_exclusion": 0.5, "repetition": 0.5}
    found = read(rewards={"answer_form": 2}).rewards
    assert found.items() >= weights.items()
    assert (found["answer_form"], found["image_feedback"]) == (2.0, 0.0)


def test_a_number_may_be_written_with_an_exponent(tmp_path):
    text = "{data: a, out: b, critic: {model: m}, training: {learning_rate: 1e-5, run_name: 1e-x}}"
    (tmp_path / "config.yaml").write_text(text)
    assert read_config(tmp_path / "config.yaml").training == {
        "learning_rate": 1e-5,
        "run_name": "1e-x",
    }


def test_example_states_the_defaults():
    config = read_config(ROOT / "tools/train_grpo/config.yaml")
    default = Config(data=config.data, out=config.out, critic=Critic(model="m"))
    own = {"critic": {"url", "model"}, "training": True}
    assert config.model_dump(exclude=own) == default.model_dump(exclude=own)


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ({"modle": "x"}, "modle does not exist in a config: did you mean model?"),
        ({"critic": {"urls": "x"}}, "critic.urls does not exist in a config: did you mean url?"),
        ({"rewards": {"critics": 1}}, "rewards.critics does not exist in a config: did you mean critic?"),
        ({"lora": {"r": "8"}}, "lora.r must be a valid integer, got '8'"),
        ({"lora": {"dropout": True}}, "lora.dropout must be a valid number, got True"),
        ({"seeds": 3}, "seeds must be a valid list, got 3"),
        ({"seeds": [0, 0]}, "seeds must be different numbers, at least one, got [0, 0]"),
        ({"seeds": [0.5]}, "seeds.0 must be a valid integer, got 0.5"),
        ({"data": None}, "data is not a valid path, got None"),
        ({"critic": {}}, "critic.model is missing"),
        ({"critic": None}, "critic must be a valid dictionary or instance of Critic, got None"),
        ({"rewards": {"image_feedback": 1}}, "feedback.workflow is missing"),
        ({"training": {"seed": 1}}, "training.seed is set from the rest of the config"),
        ({"training": {"hub_token": "hf_x"}}, "training.hub_token would be saved in the run"),
        ({"feedback": {"spread": 0}}, "feedback.spread must be greater than 0, got 0"),
        ({"ngram": 0}, "ngram must be greater than or equal to 1, got 0"),
    ],
)  # fmt: skip
def test_mistakes(read, told, error):
    with pytest.raises(ValueError) as raised:
        read(**told)
    assert error in str(raised.value)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("- 1", "the config must be a valid dictionary"),
        ("a: [", "is not valid YAML"),
        ("out: x", "data is missing"),
    ],
)
def test_files_that_are_no_config(tmp_path, text, error):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=error):
        read_config(tmp_path / "config.yaml")
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_config(tmp_path / "none.yaml")


def test_a_missing_score_is_the_mean_of_its_pair():
    assert fill_missing([0.2, None, 0.4, None], "aaab") == pytest.approx([0.2, 0.3, 0.4, 0.3])
    assert fill_missing([None, None], "ab") == [None, None]
    assert fill_missing([], "") == []


def asked(*words):
    return [Question("pair", (), text) for text in words]


def test_each_question_is_asked_once_and_silence_is_worth_nothing():
    seen = []

    def answers(questions):
        seen.extend(question.words for question in questions)
        return ["50"] * len(questions)

    verdict = Judge(Critic(), answers)(asked("moss", " ", "moss", "bark"))
    assert verdict.scores == [0.5, 0.0, 0.5, 0.5]
    assert seen == ["moss", "bark"]


def test_what_the_critic_does_not_say_is_counted():
    verdict = Judge(Critic(), lambda _: ["50", "what?", None, "70"])(asked(*"abcd"))
    assert verdict.scores == [0.5, None, None, 0.7]
    assert (verdict.failed_share, verdict.unreadable_share) == (0.25, 0.25)


def test_patience_ends_and_begins_anew():
    said = iter([["no"], ["no"], ["5"], ["no"], ["no"], ["no way"]])
    judge = Judge(Critic(patience=3), lambda _: next(said))
    for _ in range(5):
        judge(asked("a"))
    with pytest.raises(CriticError, match="no score in 3 batches, but answers such as 'no way'"):
        judge(asked("a"))
    with pytest.raises(CriticError, match="no longer answers"):
        Judge(Critic(), lambda _: [None])(asked("a"))
