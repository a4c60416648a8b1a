"""The lock files fit what is declared, on every system, and only torch's part is missing in them."""

import re
import subprocess
import sys
import zipfile
from importlib.metadata import version
from itertools import product

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.host import DEFAULT_VERSION, environment, host_path
from tools.host.environment import ROOT
from tools.release import locks
from tools.release.licences import read_requirements
from tools.train_grpo import environment as train_environment

HOST_PYTHONS, TRAIN_PYTHONS = ("3.10", "3.11", "3.12", "3.13"), ("3.11", "3.12", "3.13")
SYSTEMS = [("linux", "x86_64"), ("linux", "aarch64"), ("win32", "AMD64"), ("darwin", "arm64")]


def comfyui_lines() -> list[str]:
    path = host_path(DEFAULT_VERSION) / "requirements.txt"
    if not path.exists():
        pytest.skip(f"COMFYUI_PATH is in place of ComfyUI {DEFAULT_VERSION}")
    lines = path.read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def declared(*extras: str) -> list[Requirement]:
    return [Requirement(line) for extra in extras for line in read_requirements()[extra]]


@pytest.mark.parametrize("lock", [environment.LOCK, train_environment.LOCK])
def test_a_lock_holds_versions_and_nothing_of_torch_or_of_a_machine(lock):
    head, *lines = (ROOT / lock).read_text("utf-8").splitlines(keepends=True)
    assert head == locks.HEAD
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[a-z0-9.]+( ; [^/:@]+)?\n", line)
    left_out = "nvidia|cuda|torch==|torchvision==|torchaudio==|triton=="
    assert not [line for line in lines if re.match(left_out, line)]


@pytest.mark.parametrize(
    ("lock", "python", "system"),
    [
        *product([environment.LOCK], HOST_PYTHONS, SYSTEMS),
        *product([train_environment.LOCK], TRAIN_PYTHONS, SYSTEMS),
    ],
    ids=str,
)
def test_a_lock_has_one_version_of_each_declared_package(lock, python, system):
    platform, machine = system
    place = {
        "python_version": python,
        "python_full_version": f"{python}.5",
        "sys_platform": platform,
        "platform_machine": machine,
        "platform_system": {"linux": "Linux", "win32": "Windows", "darwin": "Darwin"}[platform],
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    lines = (ROOT / lock).read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    here = [pin for pin in pins if not pin.marker or pin.marker.evaluate(place)]
    versions = {pin.name: next(iter(pin.specifier)).version for pin in here}
    assert len(versions) == len(here)
    if lock == environment.LOCK:
        wanted = declared(*environment.EXTRAS) + [Requirement(line) for line in comfyui_lines()]
    else:
        wanted = declared("train")
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        if not locks.NOT_LOCKED.fullmatch(name):
            assert requirement.specifier.contains(versions[name]), requirement


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index of our own for uv: makes wheels that hold nothing but what they need."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("UV_DEFAULT_INDEX", folder.as_uri())  # in place of PyPI
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))

    def add(name, release, *needs):
        info = f"{name}-{release}.dist-info"
        needed = "".join(f"Requires-Dist: {need}\n" for need in needs)
        with zipfile.ZipFile(folder / f"{name}-{release}-py3-none-any.whl", "w") as wheel:
            about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n{needed}"
            wheel.writestr(f"{info}/METADATA", about)
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")

    return add


def test_a_lock_is_for_every_system_and_agrees_with_torch(index, tmp_path):
    linux = "triton; sys_platform == 'linux'"
    index("torch", "2.0", "solver<2", linux, "nvidia-nccl", "cuda-toolkit")
    for name in ("triton", "nvidia_nccl", "cuda_toolkit", "colours"):
        index(name, "1.0")
    index("solver", "1.5")
    index("solver", "2.0")
    index("tests", "1.0", "colours; sys_platform == 'win32'", "torch", "torchmetrics")
    index("torchmetrics", "1.0")
    asked = tmp_path / "requirements.txt"
    asked.write_text("tests\nsolver", "utf-8")
    assert locks.compile_lock("3.10", ("torch==2.0",), [asked]) == (
        f"{locks.HEAD}colours==1.0 ; sys_platform == 'win32'\nsolver==1.5\ntests==1.0\n"
        "torchmetrics==1.0\n"
    )


UV = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable]


@pytest.fixture
def lock(index, tmp_path, monkeypatch):
    monkeypatch.delenv("NEWEST_PACKAGES", raising=False)
    for release in ("1.0", "2.0"):
        index("coz_tested", release)
    path = tmp_path / "lock.txt"
    path.write_text("coz-tested==1.0\n", "utf-8")
    return path


def test_the_locked_versions_are_chosen(lock):
    chosen = environment.choose_versions(UV, ["coz-tested"], lock)
    assert chosen == ["--constraints", lock]
    line = [*UV, "--dry-run", "coz-tested", *chosen]
    assert " + coz-tested==1.0\n" in subprocess.run(line, capture_output=True, text=True).stderr


def test_the_newest_are_chosen_where_the_lock_does_not_fit_or_on_request(lock, monkeypatch, capsys):
    assert environment.choose_versions(UV, ["coz-tested>1"], lock) == ["--upgrade"]
    message = "locks/lock.txt does not fit these packages: installing the newest\n"
    assert capsys.readouterr().out == message
    monkeypatch.setenv("NEWEST_PACKAGES", "1")
    assert environment.choose_versions(UV, ["coz-tested"], lock) == ["--upgrade"]
    assert capsys.readouterr().out == ""


def test_what_no_version_fits_is_an_error(lock, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(environment.ContradictionError, match="you require coz-tested>2"):
        environment.choose_versions(UV, ["coz-tested>2"], lock)
    assert capsys.readouterr().out == ""


def test_what_moved_is_said_by_package():
    old = locks.read_versions("# A comment\na==1\nb==1 ; python_version < '3'\nb==2\nc==1\n")
    new = locks.read_versions("a==1\nb==3\nd==1\n")
    assert locks.list_changes(old, new) == ["b 1, 2 -> 3", "c 1 -> none", "d none -> 1"]


def test_what_is_installed_is_compared_with_the_lock_for_this_python(tmp_path):
    lock = tmp_path / "lock.txt"
    pinned = f"pytest==0.1\npluggy=={version('pluggy')}\nold==1 ; python_version < '3'\nabsent==1\n"
    lock.write_text(pinned, "utf-8")
    line = [sys.executable, "-m", "tools.release.locks", "moved", str(lock)]
    head, *moved = subprocess.check_output(line, cwd=ROOT, text=True).splitlines()
    assert head == f"{lock.as_posix()}: {len(moved)} packages changed version"
    assert f"- pytest 0.1 -> {version('pytest')}" in moved
    assert f"- ruff none -> {version('ruff')}" in moved
    assert "- absent 1 -> none" in moved
    names = {entry.split()[1] for entry in moved}
    assert not names & {"old", "pluggy", "pip", "uv", "torch", "torchvision", "triton"}
