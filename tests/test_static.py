"""What the code may not do, read from the code itself."""

import ast
import re
from graphlib import TopologicalSorter

import pytest

from tools.host import ROOT
from tools.release.licences import CONDITIONAL_LICENSES, LICENSES_FILE, REASONS_FOR_USE, read_extras

PYTHON = [ROOT / "__init__.py", *ROOT.glob("coz/**/*.py"), *ROOT.glob("nodes/**/*.py")]
MOST_LINES = 300
"""Of a file."""

SCRIPTS = sorted((ROOT / "js").rglob("*.js"))

RUNS_CODE = {"eval", "exec", "compile", "__import__", "breakpoint"}
"""As a name; the method re.compile is another thing."""

MODULES = {
    *("subprocess", "os.system", "pty", "ctypes", "multiprocessing", "runpy", "code", "pdb"),
    *("pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"),
    *("socket", "ssl", "http", "urllib", "requests", "httpx", "ftplib", "smtplib", "webbrowser"),
    *("huggingface_hub", "transformers", "pip", "importlib", "torch.hub"),
}
"""Whose purpose is to run code, to unpickle it or to reach the network."""

ALLOWED = {
    ("coz/weights/weight_file.py", "pickle.PROTO"),  # the first byte of a pickle
}

CALLS = {
    *("system", "popen", "spawnv", "execv", "fork", "posix_spawn", "startfile", "save_pickle"),
    *("create_subprocess_exec", "create_subprocess_shell", "urlopen", "urlretrieve"),
    *("ClientSession", "open_connection", "create_connection"),
}


def forbidden(source: str, name: str = "") -> set[str]:
    """What a file does that none may: each as it is written."""
    tree, found = ast.parse(source), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in RUNS_CODE:
            found.add(node.id)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {name.name for name in node.names}
            roots = {node.module.partition(".")[0], node.module}
            roots |= {f"{node.module}.{name}" for name in names}
            if roots & MODULES or names & CALLS:
                found.add(f"from {node.module}")
        elif isinstance(node, ast.Import):  # under its own name each use of it is seen
            found |= {n.name for n in node.names if n.asname and n.name in MODULES}
        elif isinstance(node, ast.Attribute) and (name, ast.unparse(node)) not in ALLOWED:
            if ast.unparse(node.value) in MODULES or node.attr in CALLS:
                found.add(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            is_safe = "weights_only=True" in map(ast.unparse, node.keywords)
            found |= set() if is_safe else {"torch.load"}
    return found


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_code_is_run_no_pickle_read_and_no_network_reached(path):
    name = path.relative_to(ROOT).as_posix()
    assert forbidden(path.read_text("utf-8"), name) == set()


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')", "exec(x)", "compile(x, '', 'exec')", "__import__('os')", "f = eval",
        "import os\nos.system('x')", "import os as o\no.system('x')", "import os\nos.popen('x')",
        "import subprocess\nsubprocess.run([])", "from subprocess import run",
        "import pickle\npickle.load(f)", "import pickle\npickle.loads(f)",
        "import importlib\nimportlib.import_module(x)", "import torch\ntorch.load(f)",
        "import torch\ntorch.load(f, weights_only=False)", "import torch\ntorch.load(f, weights_only=x)",
        "import urllib.request\nurllib.request.urlopen(x)", "from urllib.request import urlopen",
        "import requests\nrequests.get(x)", "import socket\nsocket.socket()",
        "from huggingface_hub import hf_hub_download", "from transformers import AutoModel",
        "import subprocess as s\ns.run([])", "from os import system", "from torch import hub",
        "import aiohttp\naiohttp.ClientSession()", "import asyncio\nasyncio.create_subprocess_exec('x')",
    ],
)  # fmt: skip
def test_each_of_these_would_be_seen(source):
    assert forbidden(source)


HTML = re.compile(
    r"\b(eval|Function|innerHTML|outerHTML|insertAdjacentHTML|srcdoc|DOMParser|document\.write(ln)?|"
    r"createContextualFragment|setHTMLUnsafe|XMLHttpRequest|WebSocket|sendBeacon|fetch\(|javascript:|"
    r"__proto__)|\b(setTimeout|setInterval)\(\s*['\"`]|\.on\w+\s*=\s*['\"`]|['\"`]on[a-z]+['\"`],|"
    r"https?://(?!www\.w3\.org/)|['\"`]//"
)
"""What runs a text as code, takes a text for HTML, or reaches another server than the page's own."""


def without_comments(script: str) -> str:
    return re.sub(r"/\*.*?\*/|(?<![:'\"`])//[^\n]*", "", script, flags=re.DOTALL)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_text_becomes_html_or_code(path):
    assert not HTML.search(without_comments(path.read_text("utf-8")))


@pytest.mark.parametrize(
    "script",
    [
        "eval(x)", "new Function(x)", "x.innerHTML = y", "x.insertAdjacentHTML(y)", "document.writeln(x)",
        "setTimeout('x')", 'x.onclick = "y"', "x.setAttribute('onclick', y)", 'x.src = "https://example.org"',
        'x.src = "//example.org"', "window.fetch(x)", "new WebSocket(x)", "a = `javascript:${x}`",
    ],
)  # fmt: skip
def test_each_of_these_would_be_seen_in_a_script(script):
    assert HTML.search(without_comments(script))


def test_scripts_import_only_the_own_and_the_hosts():
    for path in SCRIPTS:
        script = without_comments(path.read_text("utf-8"))
        for source in re.findall(r"\bfrom\s+\"(.+?)\"|\bimport\(\"?(.+?)\"?\)", script):
            (target,) = filter(None, source)
            assert re.fullmatch(r"(\.\./)+scripts/(app|api)\.js|\.{1,2}/[\w/]+\.js", target), path


def test_only_one_folder_uses_internals_of_the_frontend():
    """Whatever is reached through its app; extension.js registers with it."""
    users = {
        path.relative_to(ROOT / "js").parts[0]
        for path in SCRIPTS
        if "scripts/app.js" in path.read_text("utf-8")
    }
    assert users == {"host", "extension.js"}
    outside = [path for path in SCRIPTS if path.parent.name != "host"]
    assert [path.name for path in outside if "LiteGraph" in path.read_text("utf-8")] == []


def test_one_rule_of_pyright_is_ignored_in_coz():
    comments = [
        line.strip()
        for path in (ROOT / "coz").rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
        if re.search(r"type: ignore|pyright:|# noqa", line)
    ]
    # numpy states no type for what Pillow's pictures give it.
    assert {line.partition("#")[2].strip() for line in comments} == {
        "pyright: ignore[reportUnknownMemberType]"
    }


def test_nothing_is_needed_beside_the_host():
    assert "\ndependencies = []\n" in (ROOT / "pyproject.toml").read_text("utf-8")
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


def listed() -> dict[str, dict[str, str]]:
    """Heading -> package -> what LICENSES.md says of it."""
    sections = LICENSES_FILE.read_text("utf-8").split("\n## ")[1:]
    return {
        section.split("\n")[0]: dict(re.findall(r"^\| ([\w.-]+) \| (\S.*) \|$", section, re.M))
        for section in sections
    }


def test_the_license_of_every_dependency_is_listed():
    sections = listed()
    for extra, names in read_extras().items():
        assert sorted(names) == [n for n in sections[f"Extra `{extra}`"] if n != "Package"], (
            "python -m tools.release.licences"
        )
    assert len(sections) == len(read_extras()) + 1
    for package, license in [pair for names in sections.values() for pair in names.items()]:
        if package == "Package":
            continue
        identifier, _, reason = license.partition(": ")
        assert re.fullmatch(r"[A-Za-z0-9.-]+( (AND|OR) [A-Za-z0-9.-]+)*", identifier), package
        assert bool(reason) == bool(CONDITIONAL_LICENSES.search(identifier)), package
        assert not reason or REASONS_FOR_USE[package] == reason
    assert (ROOT / "LICENSE").read_text("utf-8").lstrip().startswith("Apache License")


def test_what_ships_states_its_license():
    for folder, pattern, license in (
        ("models", "*.safetensors", "CC0"),
        ("pictures", "*.[jp][pn]g", "CC0"),
        ("coz/networks", "*.txt", "Apache-2.0"),
    ):
        notes = (ROOT / folder / "README.md").read_text("utf-8")
        for path in (ROOT / folder).glob(pattern):
            assert f"`{path.name}`" in notes
        assert license in notes


def test_the_algorithm_is_one_page():
    assert (ROOT / "coz" / "zoom.py").read_text("utf-8").count("\n") <= 60


def test_no_function_of_a_node_is_longer_than_a_page():
    lengths = {
        f"{path.name}: {node.name}": node.end_lineno - node.lineno + 1
        for path in (ROOT / "nodes").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name != "define_schema"
    }
    assert {name: length for name, length in lengths.items() if length > 60} == {}


@pytest.mark.parametrize("combo", ["backbone", "prompting"])
def test_no_node_asks_which_option_is_chosen(combo):
    asked = [
        f"{path.name}:{node.lineno}"
        for path in (ROOT / "nodes").rglob("*.py")
        if path.parent.name not in {"backbones", "text_sources"}
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Compare) and f"{combo}['{combo}']" in ast.unparse(node)
    ]
    assert asked == []


LAYERS = {
    "coz": [
        *("geometry", "latent", "inversion", "ensemble", "text", "resample", "color", "detail"),
        *("chain", "tiles", "zoom", "render", "fidelity", "networks", "weights"),
    ],
    "nodes": [
        *("host", "step", "load", "view", "check", "text_sources", "backbones", "loop"),
        "full_image",
    ],
}
"""The layers of each package from the bottom up: a layer imports only from those before it."""


def own_imports(package: str) -> dict[str, set[str]]:
    """Module -> the modules of the same package that it imports, anywhere in it."""
    found = {}
    for path in (ROOT / package).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts).removesuffix(".__init__")
        found[module] = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                target = [*parts[: len(parts) - node.level], *filter(None, [node.module])]
                names = [".".join([*target, name.name]) for name in node.names]
                found[module] |= {*names, ".".join(target)}
    return {module: imported & found.keys() - {package} for module, imported in found.items()}


@pytest.mark.parametrize("package", LAYERS)
def test_a_layer_imports_only_from_those_below_it(package):
    upward = {
        (module, imported)
        for module, all_imported in own_imports(package).items()
        for imported in all_imported
        if module != package
        and (layer := module.split(".")[1]) != (other := imported.split(".")[1])
        and LAYERS[package].index(other) > LAYERS[package].index(layer)
    }
    assert upward == set()


@pytest.mark.parametrize("package", [*LAYERS, "tools"])
def test_no_module_imports_itself_by_way_of_others(package):
    imports = {module: imported - {module} for module, imported in own_imports(package).items()}
    TopologicalSorter(imports).prepare()


@pytest.mark.parametrize(("package", "most"), [("coz", 7), ("nodes", 2), ("tools", 6)])
def test_the_rooms_are_few_and_their_files_short(package, most):
    assert len([*(ROOT / package).glob("*.py")]) <= most
    if package != "tools":
        lengths = {
            path.name: len(path.read_text("utf-8").splitlines())
            for path in [*(ROOT / package).rglob("*.py"), *(ROOT / "js").rglob("*.js")]
        }
        assert {name for name, length in lengths.items() if length > MOST_LINES} == set()
