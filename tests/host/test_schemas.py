"""The schemas of the nodes, and which methods of ours accept what newer hosts may hand over.

Ids, inputs, their order and their defaults are promises: saved workflows and API prompts hold them.
Methods of objects accept keywords that they do not know. Methods of a node's schema do not: with
``**kwargs`` in ``validate_inputs`` the host would check no limit and no list of the node's inputs.
"""

import inspect
import json
from dataclasses import is_dataclass
from operator import attrgetter

import pytest

from tests.conftest import DATA
from tools.host import ROOT

from .executor import validate
from .prompts import make_node
from .test_contract import HOST

FROZEN = json.loads((DATA / "frozen_nodes.json").read_text("utf-8"))
NODES = ROOT / "nodes"
SCHEMA_METHODS = {"define_schema", "execute", "validate_inputs", "fingerprint_inputs"}
SCHEMA_METHODS |= {"check_lazy_status"}
CALLED_WITHOUT_A_BASE = {"Network.__init__", "Network.preprocess_embed", "load_patcher"}
"""Of host.qwen: the host calls them although no base class of its own has them."""

MODULES = sorted(
    ".".join(path.relative_to(NODES).with_suffix("").parts)
    for path in NODES.rglob("*.py")
    if path.stem != "__init__"
)


def is_hosts(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in HOST


def classes_below_the_hosts(module) -> list[type]:
    return [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if cls.__module__ == module.__name__ and any(map(is_hosts, cls.__mro__))
    ]


def overrides(cls: type) -> dict[str, inspect.Signature]:
    """Methods that the class itself defines in place of one of the host's that takes arguments."""
    found = {}
    for name in vars(cls):
        base = next((base for base in cls.__mro__[1:] if name in vars(base)), object)
        theirs = getattr(base, name, None)
        if not is_hosts(base) or not inspect.isroutine(theirs):
            continue
        if len(inspect.signature(theirs).parameters) > 1:
            found[name] = inspect.signature(getattr(cls, name))
    return found


def accepts_any_keyword(signature: inspect.Signature) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())


def test_what_the_host_calls_accepts_keywords_it_does_not_know(nodes_of):
    closed = []
    for home in MODULES:
        module = nodes_of(home)
        called = CALLED_WITHOUT_A_BASE if home == "host.qwen" else ()
        signatures = {name: inspect.signature(attrgetter(name)(module)) for name in called}
        for cls in classes_below_the_hosts(module):
            if not is_dataclass(cls):
                signatures |= {
                    f"{cls.__name__}.{name}": signature
                    for name, signature in overrides(cls).items()
                    if name not in SCHEMA_METHODS
                }
        closed += [name for name, given in signatures.items() if not accepts_any_keyword(given)]
    assert closed == []


def test_the_walk_finds_what_the_host_calls(nodes_of):
    found = {
        f"{cls.__name__}.{method}"
        for name in ("host.cache", "host.qwen")
        for cls in classes_below_the_hosts(nodes_of(name))
        if not is_dataclass(cls)
        for method in overrides(cls)
    }
    assert found == {
        *("ExpansionCache.should_cache", "ExpansionCache.on_lookup", "ExpansionCache.on_store"),
        *("ExpansionCache.on_prompt_end", "Network.logits"),
        *("ClipModel.__init__", "ClipModel.generate", "TextEncoder.__init__"),
        *("Tokenizer.__init__", "Tokenizer.tokenize_with_weights"),
    }


def test_schema_methods_name_inputs_of_the_schema_alone(our_nodes):
    for cls in our_nodes.values():
        offered = {i.id for i in cls.GET_SCHEMA().inputs}
        for name in SCHEMA_METHODS & vars(cls).keys():
            parameters = inspect.signature(getattr(cls, name)).parameters.values()
            named = {p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
            assert named <= offered, f"{cls.__name__}.{name}"


def test_no_validate_inputs_takes_all_keywords(our_nodes):
    validated = [cls for cls in our_nodes.values() if "validate_inputs" in vars(cls)]
    assert {cls.__name__ for cls in validated} >= {"CoZLoadSRLoRA", "CoZLoadChain"}
    for cls in validated:
        assert not accepts_any_keyword(inspect.signature(cls.validate_inputs)), cls.__name__


def test_the_host_still_checks_the_limits_of_a_node_that_validates(pack):
    inputs = {"vlm_name": None, "lora_name": "none", "lora_strength": 3.0}
    prompt = {
        "load": make_node("CoZLoadPromptExtractor", **inputs),
        "show": make_node("PreviewAny", source=["load", 0]),
    }
    is_valid, errors = validate(prompt)
    assert not is_valid
    (error,) = errors["load"]["errors"]
    assert error["details"].startswith("lora_strength")
    assert error["message"] == "Value 3.0 bigger than max of 2.0"


def test_public_nodes_are_the_frozen_ones(our_nodes):
    """tests/host/property/test_nodes.py lists the others."""
    public = {node_id for node_id, cls in our_nodes.items() if not cls.GET_SCHEMA().is_dev_only}
    assert public == FROZEN.keys()


@pytest.mark.parametrize("node_id", FROZEN)
def test_a_node_is_as_it_was_frozen(node, node_id):
    schema, frozen = node(node_id).GET_SCHEMA(), FROZEN[node_id]
    assert schema.category == frozen["category"]
    inputs = [(item.id, getattr(item, "default", None)) for item in schema.inputs]
    assert inputs == [*frozen["inputs"].items()]
    assert [output.id for output in schema.outputs] == frozen["outputs"]
    combos = {item.id: item for item in schema.inputs if "DYNAMICCOMBO" in item.io_type}
    assert combos.keys() == frozen.get("options", {}).keys()
    for name, options in frozen.get("options", {}).items():
        found = [(option.key, [i.id for i in option.inputs]) for option in combos[name].options]
        assert found[: len(options)] == [*options.items()]  # later options are appended


def test_execute_takes_what_the_schema_offers(our_nodes):
    for cls in our_nodes.values():
        schema = cls.GET_SCHEMA()
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
