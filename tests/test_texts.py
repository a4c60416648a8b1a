"""Every node's words: in its schema, in English and Chinese, on its help pages."""

import asyncio
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HELP = ROOT / "js" / "docs"

ZOOM_ALIASES = {"zoom in", "magnify", "enlarge", "chain of zoom"}
"""Words for what Chain Loop does, and no other node.

The frontend ranks all nodes that have an alias in common by how often they are used.
"""

I18N_SYNTAX = re.compile("[@{}|%]")
"""What the frontend's message compiler does not take for plain text."""

CHINESE = re.compile("[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def schemas(pack):
    extension = asyncio.run(pack.comfy_entrypoint())
    nodes = asyncio.run(extension.get_node_list())
    return [s for s in (node.define_schema() for node in nodes) if not s.is_dev_only]


def inputs_of(inputs, prefix=""):
    """(key, input) of all inputs; the frontend looks a nested one up as parent_child."""
    for item in inputs:
        yield prefix + item.id, item
        if item.io_type == "COMFY_DYNAMICCOMBO_V3":
            for option in item.options:
                yield from inputs_of(option.inputs, f"{prefix}{item.id}_")


def text_of(item):
    text = {"name": item.display_name or item.id}
    return text | ({"tooltip": item.tooltip} if item.tooltip else {})


def texts_of(schema):
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {key: text_of(item) for key, item in inputs_of(schema.inputs)},
        "outputs": {str(i): text_of(item) for i, item in enumerate(schema.outputs)},
    }


def locale(language, file):
    return json.loads((ROOT / "locales" / language / file).read_text(encoding="utf-8"))


def leaves(texts, path=""):
    if isinstance(texts, str):
        return {path: texts}
    return {k: v for key, sub in texts.items() for k, v in leaves(sub, f"{path}/{key}").items()}


def test_nodes_are_described(schemas):
    assert [s.node_id for s in schemas if not s.description] == []


def test_inputs_have_a_tooltip(schemas):
    inputs = [(s.node_id, *pair) for s in schemas for pair in inputs_of(s.inputs)]
    assert [f"{node}: {key}" for node, key, item in inputs if not item.tooltip] == []


def test_nodes_are_found_by_what_people_type(schemas):
    aliases = {s.node_id: s.search_aliases for s in schemas}
    assert {node: words for node, words in aliases.items() if len(set(words)) < 3} == {}
    assert [n for n, words in aliases.items() if ZOOM_ALIASES & set(words)] == ["CoZChainLoop"]
    assert ZOOM_ALIASES | {"upscale", "super resolution"} <= set(aliases["CoZChainLoop"])


def test_english_stands_in_the_schemas_alone():
    # The frontend shows a node's own text where no file translates it.
    assert [path.name for path in (ROOT / "locales").iterdir()] == ["zh"]


def test_chinese_texts_are_complete(schemas):
    chinese = leaves(locale("zh", "nodeDefs.json"))
    assert chinese.keys() == leaves({s.node_id: texts_of(s) for s in schemas}).keys()
    assert [path for path, text in chinese.items() if not CHINESE.search(text)] == []


def test_chinese_menu_names_every_category(schemas):
    names = locale("zh", "main.json")["nodeCategories"]
    assert names.keys() == {part for s in schemas for part in s.category.split("/")}


def test_translations_hold_no_message_syntax():
    texts = leaves(locale("zh", "nodeDefs.json"))
    assert [path for path, text in texts.items() if I18N_SYNTAX.search(text)] == []


def test_help_pages_are_of_public_nodes(schemas):
    pages = {path.relative_to(HELP).as_posix() for path in HELP.rglob("*.md")}
    expected = {page for s in schemas for page in (f"{s.node_id}.md", f"{s.node_id}/zh.md")}
    assert pages == expected


@pytest.mark.parametrize("page", ["{}.md", "{}/zh.md"])
def test_help_tables_name_every_input_and_output_in_order(schemas, page):
    for schema in schemas:
        text = (HELP / page.format(schema.node_id)).read_text(encoding="utf-8")
        # An input that several options of a combo have stands in the table once.
        inputs = dict(inputs_of(schema.inputs)).values()
        names = [item.display_name or item.id for item in [*inputs, *schema.outputs]]
        assert re.findall(r"^\|[^|`]*`([^`]+)`", text, re.MULTILINE) == names, schema.node_id


@pytest.mark.parametrize("page", ["{}.md", "{}/zh.md"])
def test_help_pages_show_their_node(schemas, page):
    pictures = {f"{schema.node_id}.jpg" for schema in schemas}
    assert {path.name for path in HELP.glob("*.jpg")} == pictures
    for schema in schemas:
        text = (HELP / page.format(schema.node_id)).read_text(encoding="utf-8")
        assert re.findall(r"!\[.+\]\((.+)\)", text) == [f"{schema.node_id}.jpg"]


LINK = re.compile(r"\]\((?:<([^>]+)>|([^)\s]+))\)")
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def anchors_of(text):
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_of_the_pages_lead_somewhere(page):
    for marked, plain in LINK.findall((ROOT / page).read_text("utf-8")):
        link = marked or plain
        if link.startswith("https:"):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target.read_text("utf-8")), link


def test_readme_is_short_and_names_every_node(schemas):
    readme = (ROOT / "README.md").read_text("utf-8")
    assert readme.count("\n") <= 130
    assert [s.display_name for s in schemas if f"**{s.display_name}**" not in readme] == []
