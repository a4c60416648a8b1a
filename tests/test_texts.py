"""Every node's words: in its schema, in English and Chinese, on its help pages."""

import json
import re

import pytest

from tools.docs.help_tables import get_texts, list_inputs, list_public_schemas, render_pages
from tools.host import ROOT

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
    return list_public_schemas(pack)


def locale(language, file):
    return json.loads((ROOT / "locales" / language / file).read_text(encoding="utf-8"))


def leaves(texts, path=""):
    if isinstance(texts, str):
        return {path: texts}
    return {k: v for key, sub in texts.items() for k, v in leaves(sub, f"{path}/{key}").items()}


def test_nodes_are_described_and_inputs_have_a_tooltip(schemas):
    assert [s.node_id for s in schemas if not s.description] == []
    inputs = [(s.node_id, *found) for s in schemas for found in list_inputs(s.inputs)]
    assert [f"{node}: {key}" for node, key, item, _ in inputs if not item.tooltip] == []


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
    assert chinese.keys() == leaves({s.node_id: get_texts(s) for s in schemas}).keys()
    assert [path for path, text in chinese.items() if not CHINESE.search(text)] == []


def test_chinese_menu_names_every_category(schemas):
    names = locale("zh", "main.json")["nodeCategories"]
    assert names.keys() == {part for s in schemas for part in s.category.split("/")}


def test_texts_hold_no_message_syntax(schemas):
    texts = leaves({"zh": locale("zh", "nodeDefs.json")})
    texts |= leaves({"en": {s.node_id: get_texts(s) for s in schemas}})
    assert [path for path, text in texts.items() if I18N_SYNTAX.search(text)] == []


def test_help_pages_are_of_public_nodes(schemas):
    pages = {path.relative_to(HELP).as_posix() for path in HELP.rglob("*.md")}
    expected = {page for s in schemas for page in (f"{s.node_id}.md", f"{s.node_id}/zh.md")}
    assert pages == expected


def test_help_pages_are_generated(schemas):
    stale = [path for path, text in render_pages(schemas) if path.read_text("utf-8") != text]
    assert [str(path.relative_to(HELP)) for path in stale] == [], "run make docs"


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
