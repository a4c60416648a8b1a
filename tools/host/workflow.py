"""Convert workflow files that the frontend saved into prompts that the server runs."""

import json
from pathlib import Path
from typing import Any

from . import ROOT

FIRST_TEMPLATE = ROOT / "workflows" / "1 Start here - zoom into a picture (no downloads).json"
WORKFLOWS = sorted((ROOT / "workflows").rglob("*.json"))

Prompt = dict[str, dict[str, Any]]
"""Node id -> {"class_type": ..., "inputs": {name: value or [node id, output index]}}."""

ACTIVE_MODE = 0  # the mode of a node that is neither muted nor bypassed
NOTE_TYPES = {"Note", "MarkdownNote"}
SEED_CONTROL_VALUES = {"fixed", "increment", "decrement", "randomize"}
COMPARE_TYPE = "IMAGECOMPARE"
EMPTY_COMPARE_VALUE = {"__value__": ["", ""]}
"""The value that the frontend submits for Image Compare's view, which it does not save."""


def read_prompt(path: Path) -> Prompt:
    """Read a workflow as a prompt (see ``to_prompt``), or a file that is in the API format already."""
    workflow = json.loads(path.read_text("utf-8"))
    return to_prompt(workflow) if "nodes" in workflow else workflow


def to_prompt(workflow: dict[str, Any]) -> Prompt:
    """Convert a workflow from the frontend's format 0.4 to the API format.

    It leaves out notes, muted and bypassed nodes, and their links. It does not support subgraphs.
    """
    nodes = {
        node["id"]: node
        for node in workflow["nodes"]
        if node["mode"] == ACTIVE_MODE and node["type"] not in NOTE_TYPES
    }
    links = {
        link: [str(source), slot] for link, source, slot, *_ in workflow["links"] if source in nodes
    }
    return {
        str(node_id): {
            "class_type": node["type"],
            "inputs": read_widget_values(node)
            | {
                entry["name"]: links[entry["link"]]
                for entry in node["inputs"]
                if entry["link"] in links
            },
        }
        for node_id, node in nodes.items()
    }


def read_widget_values(node: dict[str, Any]) -> dict[str, Any]:
    """Return widget name -> value. The file lists the values by position, without names."""
    named: dict[str, Any] = {}
    values = iter(node.get("widgets_values", []))
    for entry in node["inputs"]:
        if "widget" not in entry:
            continue
        if entry.get("type") == COMPARE_TYPE:
            named[entry["widget"]["name"]] = EMPTY_COMPARE_VALUE
            continue
        value = next(values)
        if named and value in SEED_CONTROL_VALUES and "seed" in list(named)[-1]:
            # Skip the value of control_after_generate, which the frontend adds behind a seed.
            value = next(values)
        named[entry["widget"]["name"]] = value
    return named


def find_node(prompt: Prompt, class_type: str) -> str:
    """Return the id of the prompt's only node of that class."""
    (node_id,) = (key for key, node in prompt.items() if node["class_type"] == class_type)
    return node_id
