"""Every node, on whatever its schema lets through: a valid result, or a sentence that says why not."""

import re

import pytest
from hypothesis import HealthCheck, given, settings

from tools.host import ROOT

from .inputs import cases
from .results import HOST_SAYS, is_unchanged, is_valid, names_input_and_value

NODES = sorted(
    node_id
    for path in (ROOT / "nodes").rglob("*.py")
    for node_id in re.findall(r'node_id="(\w+)"', path.read_text("utf-8"))
)

INSIDE = {"CoZChainInput", "CoZChainFrames", "CoZChainCheck", "CoZChainGate", "CoZChainCollect"}
INSIDE |= {"CoZFamilyCheck", "CoZAdaptedDenoise", "CoZTilePrompts", "CoZTileTexts", "CoZTiles"}
INSIDE |= {"CoZComplexityMap", "CoZFullImageCollect"}
"""Nodes that nobody can place: what reaches them is what those that make them hand on."""

SLOW = ("CoZChainLoop", "CoZFullImage", "CoZPromptExtractor", "CoZRefineStep", "CoZTagPrompt")
SHARE = dict.fromkeys((*SLOW, "CoZInvSRStep", "CoZUpscaleStep"), 0.65)
SHARE |= {"CoZLoadPromptExtractor": 0.1, "CoZLoadTagger": 0.1}
"""Of a profile's cases: slow nodes get less than others."""


def test_every_node_is_tried(our_nodes):
    assert our_nodes.keys() == set(NODES)
    assert {key for key, cls in our_nodes.items() if cls.GET_SCHEMA().is_dev_only} == INSIDE


@pytest.mark.parametrize("node_id", [node_id for node_id in NODES if node_id not in INSIDE])
def test_a_valid_result_or_a_sentence(node_id, node, run, models, saved_chains, record_property):
    schema = node(node_id).GET_SCHEMA()
    known = {kind: list(names) for kind, names in models.items()}
    counts = dict.fromkeys(("valid", "refused"), 0)

    @settings(
        max_examples=round(settings.default.max_examples * SHARE.get(node_id, 1)),
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(schema, known))
    def judge(case):
        answer = run(schema, case)
        if answer.error:
            is_sentence = answer.error == "ValueError" or HOST_SAYS in answer.message
            assert is_sentence, f"{answer.message}\n{answer.traceback}"
            assert names_input_and_value(schema, case, answer.message), answer.message
        else:
            is_valid(schema, case, answer.values)
        for name, value in answer.given.items():
            is_unchanged(value, case[name])
        counts["refused" if answer.error else "valid"] += 1

    try:
        judge()
    finally:
        record_property("cases", counts)
