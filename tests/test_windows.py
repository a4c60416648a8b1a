"""Windows' rules, kept by code that is tested on Linux: names, paths, texts and files."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import PurePosixPath

import pytest

from coz.chain.folder import UNSAFE_NAME, read_chain, require_valid_prefix, write_chain
from coz.chain.schema import MAX_STEPS
from tools.host import ROOT

AT_RUN_TIME = [ROOT / "__init__.py", *ROOT.glob("coz/**/*.py"), *ROOT.glob("nodes/**/*.py")]
TOOLS = sorted((ROOT / "tools").rglob("*.py"))

DEVICES = [
    *("con", "prn", "aux", "nul", "conin$", "conout$"),
    *(f"{port}{number}" for port in ("com", "lpt") for number in "123456789¹²³"),
]
"""Microsoft's list, "Naming Files, Paths, and Namespaces"."""

MAX_PATH = 260
"""Characters of a whole path, where long paths are not switched on."""

INSTALLED = r"C:\Users\a name of twenty ch\Documents\ComfyUI_windows_portable\ComfyUI\custom_nodes\chain-of-zoom"

POSIX = {
    *("os.fork", "os.kill", "os.killpg", "os.setsid", "os.uname", "os.getuid", "os.geteuid"),
    *("os.chown", "os.mkfifo", "os.sysconf", "os.O_NOFOLLOW", "os.symlink", "os.link"),
    *("signal.SIGKILL", "signal.SIGALRM", "signal.alarm", "time.tzset"),
    *("symlink_to", "hardlink_to", "link_to", "readlink", "lchmod", "chmod"),
}
POSIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix"}


def of_each(paths):
    return pytest.mark.parametrize(
        "path", paths, ids=lambda path: path.relative_to(ROOT).as_posix()
    )


@pytest.mark.parametrize("form", ["{}", "{}.txt", "{}.tar.gz", "a/{}/b", "a\\{}", "{} .txt"])
def test_no_folder_has_the_name_of_a_device(form):
    for name in [*DEVICES, *(name.upper() for name in DEVICES)]:
        with pytest.raises(ValueError, match="some systems do not allow"):
            require_valid_prefix(form.format(name))


@pytest.mark.parametrize(
    "name", ["console", "com", "com10", "lpt0x", "auxiliary", "nullable", "a.con", "conin"]
)
def test_names_that_only_look_like_a_device_s(name):
    require_valid_prefix(name)


def test_a_chain_s_folder_has_a_name_for_every_system(make_chain, tmp_path):
    folder = write_chain(make_chain(steps=MAX_STEPS, size=16), tmp_path, "con", 1)
    names = [folder.name, *(path.name for path in folder.iterdir())]
    assert not any(map(UNSAFE_NAME.search, names))
    assert len({name.lower() for name in names}) == len(names) == MAX_STEPS + 4


def test_a_chain_with_the_line_ends_of_windows_is_read(make_chain, tmp_path):
    folder = write_chain(make_chain(), tmp_path, "chain", 1)
    record = (folder / "chain.json").read_bytes()
    assert b"\r" not in record
    (folder / "chain.json").write_bytes(record.replace(b"\n", b"\r\n"))
    assert read_chain(folder).prompts == ("text 0", "text 1", "text 2")


def shipped() -> list[PurePosixPath]:
    line = [sys.executable, "tools/release/pack.py"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    found = re.findall(r"^ +[\d.]+ [kM]?B  (.+)$", done.stdout, re.MULTILINE)
    return [PurePosixPath(name) for name in found if " files; the limit" not in name]


def test_every_file_of_the_pack_can_lie_on_windows():
    paths = shipped()
    assert PurePosixPath("nodes/host/images.py") in paths
    for path in paths:
        assert not any(map(UNSAFE_NAME.search, path.parts)), path
        assert len(f"{INSTALLED}\\{path}") < MAX_PATH, path
        assert not (ROOT / path).is_symlink(), path
    folded = Counter(str(path).lower() for path in paths)
    assert [name for name, count in folded.items() if count > 1] == []


def posix_only(source: str) -> set[str]:
    """What a file uses that Windows does not have, or for which it asks for a privilege."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & POSIX_MODULES
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} & POSIX_MODULES
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & POSIX
        elif isinstance(node, ast.Attribute):
            found |= {ast.unparse(node), node.attr} & POSIX
    return found


@of_each(AT_RUN_TIME)
def test_nothing_is_used_that_windows_does_not_have(path):
    assert posix_only(path.read_text("utf-8")) == set()


NO_TEXT = {"Image.open", "av.open", "tarfile.open"}


def without_encoding(source: str) -> list[str]:
    """Texts read or written in the system's own encoding, which on Windows is not UTF-8."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        name = function.rpartition(".")[2]
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        is_method = isinstance(node.func, ast.Attribute)
        places = {"read_text": 1, "write_text": 2}.get(name)
        if name == "open" and function not in NO_TEXT:
            given = [ast.unparse(argument) for argument in node.args][not is_method :]
            mode = given[0] if given else keywords.get("mode", "'r'")
            is_text = bool(re.fullmatch(r"'[rwax][+t]*'", mode))
        elif places:
            is_text = len(node.args) < places
        else:
            is_text = "True" in {keywords.get("text"), keywords.get("universal_newlines")}
        if is_text and "encoding" not in keywords:
            found.append(ast.unparse(node))
    return found


@of_each(AT_RUN_TIME + TOOLS)
def test_every_text_names_its_encoding(path):
    assert without_encoding(path.read_text("utf-8")) == []


RENAMES = {"os.replace", "os.rename", "shutil.move"}


def list_calls(*nodes: ast.AST) -> list[str]:
    """The names of the functions that are called anywhere in these."""
    found = [call for node in nodes for call in ast.walk(node) if isinstance(call, ast.Call)]
    return [ast.unparse(call.func) for call in found]


def renamed_while_open(source: str) -> list[str]:
    """Renames within a block that holds a file open: on Windows the file could not be moved."""
    return [
        name
        for block in ast.walk(ast.parse(source))
        if isinstance(block, ast.With)
        and any(name.rpartition(".")[2] == "open" for name in list_calls(*block.items))
        for name in list_calls(*block.body)
        if name in RENAMES or name.endswith((".rename", ".unlink"))
    ]


@of_each(AT_RUN_TIME + TOOLS)
def test_no_file_is_renamed_or_removed_while_it_is_open(path):
    assert renamed_while_open(path.read_text("utf-8")) == []


def test_files_take_the_place_of_others_by_os_replace():
    """Everywhere the same, where ``os.rename`` is not."""
    trees = [ast.parse(path.read_text("utf-8")) for path in AT_RUN_TIME]
    assert RENAMES.intersection(list_calls(*trees)) == {"os.replace"}
