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
from functools import cache
from types import FunctionType
from typing import NamedTuple

import pytest

from tests.conftest import DATA
from tools.host import ROOT, host_path, read_comfyui_version

NODES = ROOT / "nodes"
RECORDED = "0.30.0"
VERSION = read_comfyui_version(host_path())

HOST = {path.stem for path in host_path().glob("*.py")} | {
    path.name for path in host_path().iterdir() if path.is_dir()
}

SIGNATURES = json.loads((DATA / "host_signatures.json").read_text("utf-8"))
CALLS: dict[str, dict] = SIGNATURES["calls"]
"""Name in the host -> its parameters in ComfyUI 0.30, and what was read of newer versions.

What is asked of an object that the host hands over is found where its class is stated: by an
annotation, by the call that makes it, or as the base of a class of ours.
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
    """What a file takes of the host: by its imports, and of objects whose class it states."""
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

    def name_of(node: ast.AST | None) -> str:
        """The host's dotted name for an expression; empty where it is none of the host's."""
        if isinstance(node, ast.BinOp):  # an annotation "X | None"
            return name_of(node.left)
        if isinstance(node, ast.Attribute):
            owner = name_of(node.value)
            return f"{owner}.{node.attr}" if owner else ""
        name = bound.get(node.id, "") if isinstance(node, ast.Name) else ""
        is_hosts = name.partition(".")[0] in HOST and not f"{name}.".startswith("comfy_api.latest.")
        return name if is_hosts else ""

    def class_of(node: ast.AST | None) -> str:
        name = name_of(node.func if isinstance(node, ast.Call) else node)
        return name if name.rpartition(".")[2][:1].isupper() else ""

    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found: set[Use] = set()

    def add(name: str, node: ast.AST) -> None:
        call = calls.get(id(node))
        found.add(Use(name, file, form(call) if call else ""))

    def look_into(scope: ast.AST, objects: dict[str, str]) -> None:
        """Collect what a function or class asks of ``objects``, by name the class of each."""
        if isinstance(scope, ast.ClassDef):
            bases = [name for base in scope.bases if (name := class_of(base))]
            own = {node.name for node in scope.body if isinstance(node, ast.FunctionDef)}
            objects = objects | {"self": " ".join(bases), "super": " ".join(bases)}
            objects["own"] = " ".join(own)
        elif isinstance(scope, ast.FunctionDef):
            arguments = [*scope.args.args, *scope.args.kwonlyargs]
            stated = {each.arg: class_of(each.annotation) for each in arguments if each.annotation}
            for node in ast.walk(scope):
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    stated[node.target.id] = class_of(node.annotation)
                elif isinstance(node, ast.Assign) and (made := class_of(node.value)):
                    stated |= {each.id: made for each in node.targets if isinstance(each, ast.Name)}
            objects = objects | stated
        for node in ast.iter_child_nodes(scope):
            if isinstance(node, ast.Attribute):
                value = node.value
                if isinstance(value, ast.Call):  # "super().x", or of a new object
                    name = getattr(value.func, "id", "")
                    owner = objects.get(name, "") if name == "super" else class_of(value)
                else:
                    owner = objects.get(getattr(value, "id", ""), "")
                    if getattr(value, "id", "") == "self" and node.attr in objects["own"].split():
                        owner = ""
                names = [f"{each}.{node.attr}" for each in owner.split()]
                if node.attr == "__init__":
                    names = owner.split()
                known = [name for name in names if name in CALLS]
                if known or (len(names) == 1 and getattr(value, "id", "") != "self"):
                    add((known or names)[0], node)
            look_into(node, objects)

    look_into(tree, {"own": ""})
    stated = [getattr(node, "annotation", None) for node in ast.walk(tree)]
    stated += [getattr(node, "returns", None) for node in ast.walk(tree)]
    skipped = {id(part) for node in stated if node for part in ast.walk(node)}
    skipped |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if id(node) not in skipped and (name := name_of(node)):
            add(name, node)
    return found


def form(call: ast.Call) -> str:
    given = ["*" if isinstance(value, ast.Starred) else "_" for value in call.args]
    given += [keyword.arg or "**" for keyword in call.keywords]
    return f"({', '.join(given)})"


@cache
def of_pack() -> list[Use]:
    """What the files of nodes/ take of the host."""
    found = set()
    for path in NODES.rglob("*.py"):
        found |= uses(path.read_text("utf-8"), path.relative_to(NODES).as_posix())
    # All over nodes/ of what Expansion.node returns.
    found.add(Use("comfy_execution.graph_utils.Node.out", "host/expansion.py", "(_)"))
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


def misfit(signature: inspect.Signature, call: str, is_method: bool = False) -> str:
    """Why a call of that form does not fit; empty where it does."""
    given = re.findall(r"\*{1,2}|\w+", call)
    places = [None] * (is_method + given.count("_"))
    names = {each: None for each in given if each.isidentifier() and each != "_"}
    try:
        (signature.bind_partial if "*" in call else signature.bind)(*places, **names)
    except TypeError as error:
        return str(error)
    return ""


def moved(use: Use) -> str:
    """What is wrong with it on this host; empty where nothing is."""
    try:
        found, is_method, _ = find(use.name)
        wrong = use.call and misfit(inspect.signature(found), use.call, is_method)
    except (AttributeError, ImportError) as error:
        wrong = error
    return f"ComfyUI {VERSION} has another {use}: {wrong}" if wrong else ""


def test_all_that_is_used_of_the_host_is_in_the_list():
    used = {use.name for use in of_pack()}
    assert used - CALLS.keys() == set(), "add it to tests/data/host_signatures.json"
    assert CALLS.keys() - used == set(), "nothing of ours uses it any more"


def test_only_one_folder_uses_internals_of_the_host():
    """Beside the modules that every pack of nodes works with."""
    public = ("folder_paths.", "comfy.utils.", "comfy.model_management.", "comfy.cli_args.args.")
    outside = {use for use in of_pack() if not use.file.startswith("host/")}
    assert [str(use) for use in outside if not use.name.startswith((*public, "nodes."))] == []


def test_the_root_module_takes_nothing_of_the_host():
    assert uses((ROOT / "__init__.py").read_text("utf-8"), "__init__.py") == set()


def test_this_host_has_what_is_used(pack):
    assert [told for use in of_pack() if (told := moved(use))] == []


@pytest.mark.skipif(VERSION != RECORDED, reason=f"the list is of ComfyUI {RECORDED}")
def test_the_list_has_this_hosts_parameters(pack):
    def parameters(name):
        found, is_method, is_set = find(name)
        is_caught = isinstance(found, type) and issubclass(found, BaseException)
        is_called = callable(found) and not (inspect.ismodule(found) or is_set or is_caught)
        return render(found, is_method) if is_called else None

    recorded = {name: known["parameters"] for name, known in CALLS.items()}
    assert {name: parameters(name) for name in CALLS} == recorded


def test_newer_hosts_were_read_to_have_what_is_used():
    wrong = []
    for use in of_pack():
        known = CALLS[use.name]
        for newer in known["read"] if use.call else []:
            same = newer["parameters"] == "same"
            parameters = known["parameters"] if same else newer["parameters"]
            if told := misfit(read(parameters), use.call):
                wrong.append(f"{use}: {told}")
    assert wrong == []


def test_what_the_extractor_looks_for_was_read_in_newer_hosts(nodes_of):
    for function, needed in nodes_of("host.qwen").REQUIRED_PARAMETERS.items():
        known = CALLS[f"{function.__module__}.{function.__qualname__}"]
        for parameters in (known["parameters"], *(newer["parameters"] for newer in known["read"])):
            if parameters != "same":
                assert needed <= read(parameters).parameters.keys()


@pytest.mark.skipif(VERSION != RECORDED, reason=f"the list is of ComfyUI {RECORDED}")
def test_this_host_calls_ours_as_listed(pack):
    found = []
    for known in CALLED:
        tree = ast.parse(textwrap.dedent(inspect.getsource(find(known["caller"])[0])))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        forms = {form(call) for call in calls if ast.unparse(call.func).endswith(known["as"])}
        found.append((known["ours"], known["caller"], sorted(forms)))
    assert found == [
        (known["ours"], known["caller"], [known["call"]] if known["call"] else [])
        for known in CALLED
    ]


def test_ours_take_what_this_and_newer_hosts_hand(pack):
    wrong = []
    for known in CALLED:
        module, _, path = known["ours"].partition(":")
        ours = importlib.import_module(f"{pack.__name__}.{module}")
        for part in path.split("."):
            ours = getattr(ours, part)
        for call in (known["call"], *(newer["call"] for newer in known["read"])):
            if call not in {None, "same"}:
                told = misfit(inspect.signature(ours), call, is_method="." in path)
                wrong += [f"{known['ours']}{call}: {told}"] if told else []
    assert wrong == []
