"""Ids, inputs, their order and their defaults are promises: saved workflows and API prompts hold them."""

import inspect
import json
from pathlib import Path

import pytest

FROZEN = json.loads((Path(__file__).parents[1] / "data" / "frozen_nodes.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def schemas(pack):
    import nodes

    ours = [
        c
        for c in nodes.NODE_CLASS_MAPPINGS.values()
        if c.__module__.startswith(f"{pack.__name__}.")
    ]
    return {schema.node_id: (schema, cls) for cls in ours for schema in [cls.GET_SCHEMA()]}


def test_public_nodes_are_the_frozen_ones(schemas):
    public = {node_id for node_id, (schema, _) in schemas.items() if not schema.is_dev_only}
    assert public == FROZEN.keys()
    assert schemas.keys() - public == {
        "CoZChainInput",
        "CoZChainFrames",
        "CoZChainCheck",
        "CoZChainGate",
        "CoZComplexityMap",
        "CoZFamilyCheck",
        "CoZAdaptedDenoise",
        "CoZChainCollect",
        "CoZTilePrompts",
        "CoZTileTexts",
        "CoZTiles",
        "CoZFullImageCollect",
    }


@pytest.mark.parametrize("node_id", FROZEN)
def test_a_node_is_as_it_was_frozen(schemas, node_id):
    schema, frozen = schemas[node_id][0], FROZEN[node_id]
    assert schema.category == frozen["category"]
    inputs = [(item.id, getattr(item, "default", None)) for item in schema.inputs]
    assert inputs == [*frozen["inputs"].items()]
    assert [output.id for output in schema.outputs] == frozen["outputs"]
    combos = {item.id: item for item in schema.inputs if "DYNAMICCOMBO" in item.io_type}
    assert combos.keys() == frozen.get("options", {}).keys()
    for name, options in frozen.get("options", {}).items():
        found = [(option.key, [i.id for i in option.inputs]) for option in combos[name].options]
        assert found[: len(options)] == [*options.items()]  # later options are appended


def test_execute_takes_what_the_schema_offers(schemas):
    for schema, cls in schemas.values():
        parameters = inspect.signature(cls.execute).parameters.values()
        named = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        offered = [i.id for i in schema.inputs]
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            assert offered[: len(named)] == named
        else:
            assert offered == named
        optional = {i.id for i in schema.inputs if i.optional}
        assert {p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD} >= optional - {
            f"{part}_{k}"
            for part in (
                "frame",
                "text",
                "preview_files",
                "agreement",
                "invented",
                "notices",
                "denoise",
            )
            for k in range(17)
        }
