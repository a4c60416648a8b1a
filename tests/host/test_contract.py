"""What the pack uses of the host beyond comfy_api.latest, and whether this host and newer ones have it.

On a new release of ComfyUI the failing tests name what moved and the file of ours that it concerns.
What newer versions were read to have stands in tests/data/host_signatures.json; nothing of it was run.
"""

import ast
import importlib
import inspect
import json
import re
import textwrap
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import NamedTuple

import pytest

from tools.host import comfyui_version, host_path

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
NODES = ROOT / "nodes"
RECORDED = "0.30.0"
VERSION = comfyui_version(host_path())

HOST = {path.stem for path in host_path().glob("*.py")} | {
    path.name for path in host_path().iterdir() if path.is_dir()
}
DOCUMENTED = "comfy_api.latest"

SIGNATURES = json.loads((DATA / "host_signatures.json").read_text("utf-8"))
CALLS: dict[str, dict] = SIGNATURES["calls"]
"""Name in the host -> its parameters in ComfyUI 0.30, and what was read of newer versions.

Names that no import shows are asked of objects that the host hands over: with them stand the files
of nodes/ that do so.
"""
CALLED: list[dict] = SIGNATURES["called"]
"""Our methods that the host calls, from where and how."""


class Use(NamedTuple):
    name: str
    file: str
    call: str
    """Such as "(_, seed)"; empty where it is not called."""

    def __str__(self) -> str:
        return f"{self.name}{self.call} of nodes/{self.file}"


def uses(source: str, file: str) -> set[Use]:
    """What a file takes of the host by its imports."""
    tree = ast.parse(source)
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                bound[alias.asname or whole] = whole
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def name_of(node: ast.AST) -> str:
        if isinstance(node, ast.Attribute):
            owner = name_of(node.value)
            if isinstance(node.value, ast.Call):  # of an object, where a class is called
                owner = name_of(node.value.func)
                owner = owner if owner.rpartition(".")[2][:1].isupper() else ""
            return f"{owner}.{node.attr}" if owner else ""
        name = bound.get(node.id, "") if isinstance(node, ast.Name) else ""
        is_hosts = name.partition(".")[0] in HOST and not f"{name}.".startswith(f"{DOCUMENTED}.")
        return name if is_hosts else ""

    found: set[Use] = set()
    parts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if id(node) not in parts and (name := name_of(node)):
            call = calls.get(id(node))
            found.add(Use(name, file, form(call) if call else ""))
    return found


def form(call: ast.Call) -> str:
    given = ["*" if isinstance(value, ast.Starred) else "_" for value in call.args]
    given += [keyword.arg or "**" for keyword in call.keywords]
    return f"({', '.join(given)})"


def of_pack() -> list[Use]:
    """What the files of nodes/ take of the host by their imports."""
    found = {
        use
        for path in NODES.rglob("*.py")
        for use in uses(path.read_text("utf-8"), path.relative_to(NODES).as_posix())
    }
    return sorted(found)


def of_objects() -> list[Use]:
    """What they ask of the objects that the host hands over."""
    found = set()
    for name, known in CALLS.items():
        for file in known.get("files", ()):
            tree = ast.parse((NODES / file).read_text("utf-8"))
            calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and node.attr == name.rpartition(".")[2]:
                    call = calls.get(id(node))
                    found.add(Use(name, file, form(call) if call else ""))
    return sorted(found)


def find(name: str) -> tuple[object, bool, bool]:
    """What the running host has under a dotted name.

    And whether it is called with ``self`` first; and whether it is an attribute that a class sets
    on its objects: then the class itself is found.
    """
    first, *rest = name.split(".")
    found, is_method, is_set, path = importlib.import_module(first), False, False, first
    for part in rest:
        if inspect.ismodule(found) and not hasattr(found, part):
            with suppress(ModuleNotFoundError):
                importlib.import_module(f"{path}.{part}")
        if hasattr(found, part):
            is_method = isinstance(
                inspect.getattr_static(found, part), FunctionType
            ) and inspect.isclass(found)
            found = getattr(found, part)
        elif is_set_by(found, part):
            is_set = True
        else:
            raise AttributeError(f"{path} has no {part}")
        path += f".{part}"
    return found, is_method, is_set


def is_set_by(owner, name: str) -> bool:
    return inspect.isclass(owner) and any(
        re.search(rf"\b(self|{each.__name__})\.{name}\b[^=(]*=", inspect.getsource(each))
        for each in owner.__mro__[:-1]
    )


KINDS = {"*": inspect.Parameter.VAR_POSITIONAL, "**": inspect.Parameter.VAR_KEYWORD}


def render(found, is_method: bool) -> str:
    """Parameters without ``self``, types and defaults: "lora, to_load, log_missing="."""
    stars = {kind: text for text, kind in KINDS.items()}
    return ", ".join(
        stars.get(p.kind, "") + p.name + ("" if p.default is p.empty else "=")
        for p in [*inspect.signature(found).parameters.values()][is_method:]
    )


def read(parameters: str) -> inspect.Signature:
    """The signature that ``render`` wrote."""
    return inspect.Signature(
        inspect.Parameter(
            text.strip("*="),
            KINDS.get(re.match(r"\**", text)[0], inspect.Parameter.POSITIONAL_OR_KEYWORD),
            default=None if text.endswith("=") else inspect.Parameter.empty,
        )
        for text in filter(None, parameters.split(", "))
    )


def bind(signature: inspect.Signature, call: str, is_method: bool = False) -> None:
    """Raise TypeError where a call of that form does not fit."""
    given = re.findall(r"\*{1,2}|\w+", call)
    places = [None] * (is_method + given.count("_"))
    names = {each: None for each in given if each.isidentifier() and each != "_"}
    (signature.bind_partial if "*" in call else signature.bind)(*places, **names)


def moved(use: Use) -> str:
    """What is wrong with it on this host; empty where nothing is."""
    try:
        found, is_method, _ = find(use.name)
        if use.call:
            bind(inspect.signature(found), use.call, is_method)
    except (AttributeError, ImportError, TypeError) as error:
        return f"ComfyUI {VERSION} has another {use}: {error}"
    return ""


def listed(uses: list[Use]) -> list:
    """The uses as parameters; a host that runs no VLM does not import nodes/host/qwen.py."""
    marks = dict.fromkeys(["host/qwen.py", "host/qwen_weights.py"], pytest.mark.since("0.27"))
    return [pytest.param(use, marks=marks.get(use.file, ()), id=str(use)) for use in uses]


def test_every_import_of_the_host_is_in_the_list():
    imported = {use.name for use in of_pack()}
    assert {name for name, known in CALLS.items() if "files" not in known} <= imported
    assert imported <= CALLS.keys(), "add it to tests/data/host_signatures.json"


def test_the_root_module_takes_nothing_of_the_host():
    assert uses((ROOT / "__init__.py").read_text("utf-8"), "__init__.py") == set()


def test_every_file_of_the_list_asks_what_stands_there():
    asked = {(use.name, use.file) for use in of_objects()}
    assert asked == {
        (name, file) for name, known in CALLS.items() for file in known.get("files", ())
    }


@pytest.mark.parametrize("use", listed(of_pack() + of_objects()))
def test_this_host_has(pack, use):
    assert not moved(use)


@pytest.mark.skipif(VERSION != RECORDED, reason=f"the list is of ComfyUI {RECORDED}")
@pytest.mark.parametrize("name", CALLS)
def test_the_list_has_this_hosts_parameters(pack, name):
    found, is_method, is_set = find(name)
    is_caught = isinstance(found, type) and issubclass(found, BaseException)
    is_called = callable(found) and not (inspect.ismodule(found) or is_set or is_caught)
    assert CALLS[name]["parameters"] == (render(found, is_method) if is_called else None)


@pytest.mark.parametrize("use", of_pack() + of_objects(), ids=str)
def test_newer_hosts_were_read_to_have(use):
    known = CALLS[use.name]
    for newer in known["read"]:
        parameters = newer["parameters"]
        if use.call:
            bind(read(known["parameters"] if parameters == "same" else parameters), use.call)


@pytest.mark.since("0.27")
def test_what_the_extractor_looks_for_was_read_in_newer_hosts(nodes_of):
    for function, needed in nodes_of("host.qwen").USED.items():
        known = CALLS[f"{function.__module__}.{function.__qualname__}"]
        for parameters in (known["parameters"], *(newer["parameters"] for newer in known["read"])):
            if parameters != "same":
                assert needed <= read(parameters).parameters.keys()


def listed_called() -> list:
    return [
        pytest.param(
            known,
            marks=pytest.mark.since("0.27") if known["ours"].startswith("nodes.host.qwen") else (),
            id=f"{known['ours']} by {known['caller']}",
        )
        for known in CALLED
    ]


@pytest.mark.skipif(VERSION != RECORDED, reason=f"the list is of ComfyUI {RECORDED}")
@pytest.mark.parametrize("known", listed_called())
def test_this_host_calls_ours_as_listed(pack, known):
    tree = ast.parse(textwrap.dedent(inspect.getsource(find(known["caller"])[0])))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    forms = {form(call) for call in calls if ast.unparse(call.func).endswith(known["as"])}
    assert forms == ({known["call"]} if known["call"] else set())


@pytest.mark.parametrize("known", listed_called())
def test_ours_take_what_this_and_newer_hosts_hand(pack, known):
    module, _, path = known["ours"].partition(":")
    ours = importlib.import_module(f"{pack.__name__}.{module}")
    for part in path.split("."):
        ours = getattr(ours, part)
    is_method = "." in path
    for call in (known["call"], *(newer["call"] for newer in known["read"])):
        if call not in {None, "same"}:
            bind(inspect.signature(ours), call, is_method)


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (Use("comfy.gone.thing", "a.py", ""), "comfy has no gone"),
        (Use("comfy.sd.gone", "a.py", ""), "comfy.sd has no gone"),
        (Use("gone", "a.py", ""), "No module named .gone"),
        (Use("comfy.sd.CLIP.gone", "a.py", "()"), "comfy.sd.CLIP has no gone"),
        (Use("folder_paths.get_full_path", "a.py", "(_)"), "missing a required argument"),
        (Use("folder_paths.get_full_path", "a.py", "(_, _, _)"), "too many positional arguments"),
        (Use("folder_paths.get_full_path", "a.py", "(_, _, gone)"), "unexpected keyword .*gone"),
        (Use("comfy.sd.CLIP.decode", "a.py", "(_, gone, **)"), "unexpected keyword .*gone"),
    ],
)
def test_what_moved_is_named(pack, use, error):
    told = moved(use)
    assert told.startswith(f"ComfyUI {VERSION} has another {use.name}{use.call} of nodes/a.py: ")
    assert re.search(error, told)
