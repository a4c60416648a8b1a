"""Write the tables of the help pages from the schemas of the nodes: python -m tools.docs.help_tables

The first line of a page is the node's description. The tables hold the tooltips of its inputs and
outputs; what is optional or advanced, the defaults, ranges and options come from the schema as well.
The Chinese pages take the texts of locales/zh/nodeDefs.json.
"""

import asyncio
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from tools.host import ROOT
from tools.host.in_process import load_pack

DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
INPUTS_WITH_COMFYUI_OPTIONS = ("sampler_name", "scheduler")
"""Inputs whose options depend on the version of ComfyUI, and are therefore not listed."""
LARGEST_SHOWN_MAXIMUM = 2**32
"""Ranges with a larger maximum, which only seeds have, are not shown."""


class Words(NamedTuple):
    """The words and format strings of a language for the tables."""

    page: str
    headings: tuple[str, str]
    meaning: str
    only: str
    space: str
    comma: str
    colon: str
    optional: str
    advanced: str
    default: str
    values: str
    range: str
    step: str
    switch: tuple[str, str]


ENGLISH = Words(
    "{}.md", ("Inputs", "Outputs"), "What it is", "Only with ", " ", ", ", ": ", "Optional.",
    "Advanced.", "Default {}{}.", " ({})", "{:g} to {:g}", ", steps of {}",
    ("Default off.", "Default on."),
)  # fmt: skip
CHINESE = Words(
    "{}/zh.md", ("输入", "输出"), "说明", "仅用于 ", "", "、", "：", "可选。", "高级选项。",
    "默认 {}{}。", "（{}）", "{:g} 到 {:g}", "，步长 {}", ("默认关闭。", "默认开启。"),
)  # fmt: skip


def list_public_schemas(pack: ModuleType) -> list[Any]:
    extension = asyncio.run(pack.comfy_entrypoint())
    nodes = asyncio.run(extension.get_node_list())
    return [s for s in (node.define_schema() for node in nodes) if not s.is_dev_only]


def list_inputs(inputs: list, prefix: str = "", option: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield (key, input, option) of each input, and of those nested in options of dynamic combos.

    The key of a nested input is PARENT_CHILD, as in nodeDefs.json. Its option is the one that it belongs to.
    """
    for item in inputs:
        yield prefix + item.id, item, option
        for each in item.options if item.io_type == DYNAMIC_COMBO else ():
            yield from list_inputs(each.inputs, f"{prefix}{item.id}_", each.key)


def get_text(item: Any) -> dict[str, str]:
    text = {"name": item.display_name or item.id}
    return text | ({"tooltip": item.tooltip} if item.tooltip else {})


def get_texts(schema: Any) -> dict[str, Any]:
    """Return the English texts of a node, in the form of nodeDefs.json."""
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {key: get_text(item) for key, item, _ in list_inputs(schema.inputs)},
        "outputs": {str(i): get_text(item) for i, item in enumerate(schema.outputs)},
    }


def describe_values(item: Any, words: Words) -> Iterator[str]:
    """Yield what the schema adds to an input's tooltip: optional, advanced, default, range and options.

    Options that the tooltip explains are not listed again.
    """
    fields = item.as_dict()
    options, default, most = (fields.get(key) for key in ("options", "default", "max"))
    if item.io_type == DYNAMIC_COMBO:
        options = [option["key"] for option in options]
        default = options[0]
    if item.optional and (fields.get("forceInput") or not hasattr(item, "default")):
        yield words.optional
    if fields.get("advanced"):
        yield words.advanced
    if default in (None, "") or isinstance(default, dict):
        return
    if isinstance(default, bool):
        yield words.switch[default]
        return
    values = ""
    if most is not None and most <= LARGEST_SHOWN_MAXIMUM:
        default, step = f"{default:g}", fields.get("step", 1)
        values = words.range.format(item.min, most) + (words.step.format(step) if step > 1 else "")
    elif (
        options
        and item.id not in INPUTS_WITH_COMFYUI_OPTIONS
        and not any(f"{o}: " in item.tooltip for o in options)
    ):
        values = words.comma.join(options)
    yield words.default.format(default, values and words.values.format(values))


def make_row(item: Any, text: dict[str, str], words: Words, values: Iterable[str]) -> str:
    """Make the row of an input or output.

    The row contains {}, to be replaced by the options to which the input belongs.
    """
    name = f"`{item.display_name or item.id}`"
    name = name if words is ENGLISH else f"{text['name']} {name}"
    meaning = words.space.join([text["tooltip"], *values])
    return f"| {name} | {{}}{meaning} |\n"


def format_options(options: list[str], words: Words) -> str:
    """Format the options before an input's meaning: "Only with *a*, *b*: ", or "" if there are none."""
    listed = words.comma.join(f"*{option}*" for option in options)
    return words.only + listed + words.colon if options else ""


def render_page(page: str, schema: Any, texts: dict[str, Any], words: Words) -> str:
    """Return a page with the first line and the tables that the schema and its texts give."""
    options: dict[str, list[str]] = {}
    for key, item, option in list_inputs(schema.inputs):
        # Options may have different inputs of one name, which share a Chinese text.
        text = get_text(item) if words is ENGLISH else texts["inputs"][key]
        row = make_row(item, text, words, describe_values(item, words))
        options.setdefault(row, []).extend([option] if option else [])
    inputs = [row.replace("{}", format_options(names, words), 1) for row, names in options.items()]
    outputs = [
        make_row(item, texts["outputs"][str(i)], words, []).replace("{}", "", 1)
        for i, item in enumerate(schema.outputs)
    ]
    page = texts["description"] + page[page.index("\n") :]
    for heading, rows in zip(words.headings, (inputs, outputs), strict=True):
        title = f"| {heading.removesuffix('s')} | {words.meaning} |\n|---|---|\n"
        table = f"\n## {heading}\n\n{title}{''.join(rows)}"
        page, count = re.subn(rf"\n## {heading}\n\n(\|.*\n)*", lambda _, new=table: new, page)
        if rows and not count:
            raise ValueError(f"{words.page.format(schema.node_id)} has no '## {heading}'")
    return page


def render_pages(schemas: list[Any]) -> Iterator[tuple[Path, str]]:
    """Yield each help page and what should be in it."""
    chinese = json.loads((ROOT / "locales/zh/nodeDefs.json").read_text("utf-8"))
    for schema in schemas:
        for words, texts in ((ENGLISH, get_texts(schema)), (CHINESE, chinese[schema.node_id])):
            path = ROOT / "js/docs" / words.page.format(schema.node_id)
            yield path, render_page(path.read_text("utf-8"), schema, texts, words)


def main() -> None:
    for path, text in render_pages(list_public_schemas(load_pack(on_cpu=True))):
        path.write_text(text, "utf-8", newline="\n")


if __name__ == "__main__":
    main()
