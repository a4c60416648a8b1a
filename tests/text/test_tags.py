import pytest
import torch

from coz.text.tags import find_unknown_tags, join_tags, split_tags

NAMES = ["cat", "orange", "French", "sea view", "body"]


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("", []),
        (" , ,\n,", []),
        ("cat", ["cat"]),
        (" Cat ,sea view，\nFRENCH\ufeff, ", ["cat", "sea view", "french"]),
    ],
)
def test_a_list_of_tags_is_split_at_commas_and_lines(text, tags):
    assert split_tags(text) == tags


def test_unknown_tags_are_named_once_in_their_order():
    assert find_unknown_tags(["dog", "french", "owl", "dog"], NAMES) == ["dog", "owl"]


def test_tags_above_their_threshold_are_joined_in_the_order_of_the_list():
    logits = torch.tensor([0.9, 0.5, 0.71, 0.99, 0.2]).logit()
    thresholds = torch.tensor([0.8, 0.6, 0.7, 0.65, 0.1])
    assert join_tags(logits, NAMES, thresholds, ()) == "cat, French, sea view, body"
    assert join_tags(logits, NAMES, thresholds, ["french", "dog"]) == "cat, sea view, body"
    assert join_tags(logits, NAMES, thresholds + 1, ()) == ""


def test_a_probability_that_equals_its_threshold_is_not_above_it():
    assert join_tags(torch.zeros(1), ["cat"], torch.tensor([0.5]), ()) == ""
    assert join_tags(torch.full((1,), 100.0), ["cat"], torch.tensor([1.0]), ()) == ""


def test_half_precision_is_compared_in_single_precision():
    logit = torch.tensor([0.62109375], dtype=torch.float16)
    threshold = logit.float().sigmoid() - 1e-5  # in float16 both are the same number
    assert join_tags(logit, ["cat"], threshold, ()) == "cat"
