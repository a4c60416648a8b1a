"""Each package that a command imports is declared where the command runs; what others bring does not count."""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.host import ROOT, environment, host_path
from tools.release.licences import read_extras
from tools.train_grpo import environment as train_environment

PACKAGES = {"PIL": "pillow", "skimage": "scikit-image", "xdist": "pytest-xdist", "yaml": "pyyaml"}
"""Module -> the package that holds it, where their names differ."""

INSTALLED_BY_HAND = {"pyiqa"}
"""Its license forbids commercial use. The tools name it where it is missing."""

PLAIN = [
    f"tools/{name}.py"
    for name in ("host/__main__", "host/chromium", "release/pack", "train_grpo/environment")
]

TRAINERS = ["tools/train_grpo/__main__.py", "tools/train_sr/__main__.py"]

TOOLS = [
    path.relative_to(ROOT).as_posix()
    for path in ROOT.glob("tools/**/*.py")
    if path.parent.name not in {"train_grpo", "train_sr"}
]


def names(lines) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


def extra(*chosen: str) -> set[str]:
    return {name for key in chosen for name in read_extras()[key]}


def host_packages() -> set[str]:
    lines = (host_path() / "requirements.txt").read_text("utf-8").splitlines()
    return names(line for line in lines if line and not line.startswith("#"))


def host() -> set[str]:
    """What ComfyUI brings: its own modules, and the packages that it asks for."""
    paths = host_path().iterdir()
    return host_packages() | {path.stem for path in paths if path.is_dir() or path.suffix == ".py"}


WHERE = {
    "plain Python": (set, PLAIN),
    "coz": (host_packages, ["coz/**/*.py"]),
    "ComfyUI": (host, ["__init__.py", "tools/convert.py", "nodes/**/*.py"]),
    "evaluate": (lambda: host() | extra("eval"), ["tools/evaluate/__main__.py"]),
    "training": (
        lambda: names(train_environment.TORCH) | extra("train"),
        [*TRAINERS, "tools/release/locks.py", "tests/train/measure.py"],
    ),
    "all of .venv": (
        lambda: host() | names(environment.TORCH) | extra(*environment.EXTRAS),
        [*TOOLS, "benchmarks/*.py", "tests/**/*.py"],
    ),
}
"""Where code runs -> what is declared there, and the files that the commands start from."""


def imports(path: Path) -> Iterator[tuple[Path, str]]:
    """Each import anywhere in a file: the folder that it starts from, and its dotted name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((ROOT, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.parents[node.level - 1]
            start = f"{package.name}." if node.level else ""
            module = f"{node.module}." if node.module else ""
            folder = package.parent if node.level else ROOT
            yield from ((folder, f"{start}{module}{alias.name}") for alias in node.names)


def own_files(folder: Path, name: str) -> list[Path]:
    """Our files that an import runs."""
    parts = name.split(".")
    paths = [folder.joinpath(*parts[: i + 1]) for i in range(len(parts))]
    files = [file for path in paths for file in (path.with_suffix(".py"), path / "__init__.py")]
    return [file for file in files if file.is_file()]


def find_undeclared(files: list[Path], declared: set[str]) -> dict[str, set[str]]:
    """Package -> the files that import it, over all files that ``files`` lead to."""
    found = defaultdict(set)
    seen, waiting = set(), list(files)
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for folder, name in imports(path):
            top = name.partition(".")[0]
            package = canonicalize_name(PACKAGES.get(top, top))
            if files := own_files(folder, name):
                waiting += files
            elif top not in sys.stdlib_module_names and not {top, package} & declared:
                found[package].add(path.name)
    return dict(found)


@pytest.mark.parametrize("where", WHERE)
def test_each_import_is_declared(where):
    declare, patterns = WHERE[where]
    files = [[*ROOT.glob(pattern)] for pattern in patterns]
    assert all(files)
    optional = INSTALLED_BY_HAND | ({"ray"} if where == "evaluate" else set())  # --ray: extra scale
    assert find_undeclared([*chain(*files)], declare() | optional) == {}
