"""Prepare a release and try it as a user gets it: make release VERSION=x.y.z

It sets the version and the date, packs the archive with comfy-cli as the registry does, unpacks it into a
clean ComfyUI in a folder with spaces and umlauts, without git and without a network, runs the first
template, an old workflow, an old chain and tools/verify.py there, and runs comfy-cli's own checks. Only if
all this succeeds are the files of this repository changed. It publishes nothing: pushing the tag does.
"""

import argparse
import contextlib
import datetime
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tools import host
from tools.host import HOST_FOLDER, PACK_NAME, ROOT, HostError
from tools.host.client import PromptError, ServerClient, run_prompt
from tools.host.environment import python_path, run, scratch_folder, venv_python_path
from tools.host.server import serve
from tools.host.workflow import FIRST_TEMPLATE, find_node, read_prompt

from .pack import MAX_PACK_MB, list_packed_files

COMFY_CLI_VERSION = "1.23.0"
"""Version of comfy-cli. Publishing runs its `node pack` and `node validate`."""

TESTED_VERSIONS = (min(host.COMFYUI_RELEASES), host.DEFAULT_VERSION)
USER_FOLDER = "Zoom für alle, größer"
OLD_WORKFLOW = ROOT / "tests" / "data" / "workflows" / "before_start_here.json"
OLD_CHAIN = ROOT / "tests" / "data" / "before_house" / "chain"
OLD_CHAIN_FRAMES = 3
MAX_START_SECONDS = 1800
"""Time limit for the start of a server whose Python files are not compiled yet, on a busy machine."""

VERSION_PLACES = {
    "pyproject.toml": r'^version = "(.+)"',
    "coz/chain/zoom_chain.py": r'^__version__ = "(.+)"',
    "js/diagnostics.js": r'^export const PACK_VERSION = "(.+)"',
    "CITATION.cff": r"^version: (.+)",
}
"""File -> pattern of the line that states the pack's version."""

NODE_VERSION = re.compile(r'("cnr_id": "chain-of-zoom",\s+"ver": ")[^"]+')
"""Matches the version of the pack that a node of a workflow needs."""

CHANGELOG_HEADING = re.compile(r"^## \[(.+)\] - (.+)$", re.MULTILINE)
UNRELEASED = "unreleased"


def set_version(root: Path, version: str, day: str) -> None:
    """Write version and day into every file that states them.

    Raises:
        HostError: If the version is not three numbers, or not above the last one, or the CHANGELOG says
            nothing about it.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise HostError(f"expected VERSION=x.y.z, three numbers, got {version or 'nothing'}")
    changelog = (root / "CHANGELOG.md").read_text("utf-8")
    newest, state = CHANGELOG_HEADING.search(changelog).groups()
    if newest != version and state != UNRELEASED:
        raise HostError(
            f"CHANGELOG.md begins with {newest} of {state}: put '## [{version}] - {UNRELEASED}' above it, and what changed"
        )
    older = [parse_version(found[1]) for found in CHANGELOG_HEADING.finditer(changelog)][1:]
    if older and parse_version(version) <= max(older):
        raise HostError(f"expected a version above those of CHANGELOG.md, got {version}")
    heading = CHANGELOG_HEADING.sub(f"## [{version}] - {day}", changelog, count=1)
    (root / "CHANGELOG.md").write_text(heading, "utf-8")
    for name, pattern in VERSION_PLACES.items():
        text = (root / name).read_text("utf-8")
        found = re.search(pattern, text, re.MULTILINE)
        text = text[: found.start(1)] + version + text[found.end(1) :]
        (root / name).write_text(text, "utf-8")
    for path in [*(root / "workflows").rglob("*.json"), *(root / "subgraphs").glob("*.json")]:
        text = path.read_text("utf-8")
        path.write_text(NODE_VERSION.sub(rf"\g<1>{version}", text), "utf-8")


def parse_version(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def copy_tracked_files(target: Path) -> None:
    """Copy the tracked files, with uncommitted changes, into a new repository, because comfy-cli reads git."""
    listed = subprocess.check_output(["git", "-C", ROOT, "ls-files", "-z"], encoding="utf-8")
    for name in listed.split("\0")[:-1]:
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)
    for arguments in (["init", "--quiet"], ["add", "--all", "--force"]):
        subprocess.run(["git", "-C", target, *arguments], check=True)


def run_comfy(folder: Path, *arguments: str) -> str:
    """Run comfy-cli in a folder and return its output. Its settings are kept out of the home folder."""
    venv = HOST_FOLDER / f"comfy-cli-{COMFY_CLI_VERSION}"
    python = venv_python_path(venv)
    if not (venv / "ready").exists():
        print(f"comfy-cli {COMFY_CLI_VERSION}: installing", flush=True)
        run([python_path(), "-m", "uv", "venv", "--clear", "--python", python_path(), venv])
        install = [python_path(), "-m", "uv", "pip", "install", "--python", python]
        run([*install, f"comfy-cli=={COMFY_CLI_VERSION}"])
        (venv / "ready").touch()
    home = dict.fromkeys(("HOME", "USERPROFILE", "APPDATA", "XDG_CONFIG_HOME"), str(venv / "home"))
    quiet = {"DO_NOT_TRACK": "1", "PYTHONUTF8": "1", "NO_COLOR": "1"}
    result = subprocess.run(
        [python, "-m", "comfy_cli", "--skip-prompt", "--no-json", *arguments],
        cwd=folder,
        env={**os.environ, **home, **quiet},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    if result.returncode:
        raise HostError(f"comfy {' '.join(arguments)} failed:\n{result.stdout}")
    return result.stdout


def pack_archive(repository: Path) -> Path:
    """Pack the archive, and require that it holds the files that `make pack` lists and is small enough."""
    run_comfy(repository, "node", "pack")
    archive = repository / "node.zip"
    with zipfile.ZipFile(archive) as file:
        packed = sorted(file.namelist())
        size = sum(entry.file_size for entry in file.infolist()) / 1e6
    if packed != list_packed_files(repository):
        raise HostError("comfy node pack packs other files than make pack lists")
    if size > MAX_PACK_MB:
        raise HostError(f"the pack has {size:.1f} MB, the limit is {MAX_PACK_MB} MB")
    print(
        f"Archive: {len(packed)} files, {size:.1f} MB, zipped {archive.stat().st_size / 1e6:.1f} MB"
    )
    return archive


def validate(repository: Path) -> None:
    shown = run_comfy(repository, "node", "validate")
    if "All validation checks passed" not in shown or "Warning" in shown:
        raise HostError(f"comfy node validate found something:\n{shown}")
    print("comfy node validate: passed")


@contextlib.contextmanager
def isolate(comfyui: Path) -> Iterator[None]:
    """Let processes that start in the block use this ComfyUI, without git, package index and network."""
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    unreachable = dict.fromkeys(proxies, "http://127.0.0.1:9")
    before = dict(os.environ)
    local = {"NO_PROXY": "127.0.0.1", "PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1", "PATH": ""}
    os.environ.update(unreachable | local | {"COMFYUI_PATH": str(comfyui)})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def try_archive(archive: Path, version: str, folder: Path) -> None:
    """Install the archive into a clean ComfyUI of this version in ``folder``, and run the examples there."""
    print(f"ComfyUI {version} in '{USER_FOLDER}':", flush=True)
    comfyui = folder / USER_FOLDER / f"ComfyUI {version}"
    unwanted = shutil.ignore_patterns(".git", "output", "user", "temp", "*.db")
    shutil.copytree(host.host_path(version), comfyui, ignore=unwanted, symlinks=True)
    shutil.rmtree(comfyui / "custom_nodes")
    pack = comfyui / "custom_nodes" / PACK_NAME
    with zipfile.ZipFile(archive) as file:
        file.extractall(pack)
    with isolate(comfyui):
        install = [python_path(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        requirements = ["--requirement", pack / "requirements.txt"]
        subprocess.run([*install, *requirements], check=True)
        home = comfyui.with_name("Eigene Dateien")
        shutil.copytree(OLD_CHAIN, home / "output" / "old chain")
        with serve(folder=home, timeout=MAX_START_SECONDS) as url:
            run_examples(url, pack)
        print("- tools/verify.py", flush=True)
        shutil.rmtree(home)
        line = [python_path(), pack / "tools" / "verify.py", "--size", "64", "--out", home]
        done = subprocess.run(
            line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
        )
        if done.returncode or not (home / "verify.json").is_file():
            raise HostError(f"tools/verify.py failed in ComfyUI {version}:\n{done.stdout}")


def run_examples(url: str, pack: Path) -> None:
    """Run the first template and an old workflow, and load an old chain."""
    for workflow in (pack / FIRST_TEMPLATE.relative_to(ROOT), OLD_WORKFLOW):
        print(f"- {workflow.name}", flush=True)
        prompt = read_prompt(workflow)
        loop = find_node(prompt, "CoZChainLoop")
        result = run_prompt(url, prompt)
        images = result.outputs[f"{loop}.0.0.coz_collect"]["images"]
        expected = prompt[loop]["inputs"]["steps"] + 1
        if len(images) != expected or not all(map(ServerClient(url).download, images)):
            raise HostError(f"{workflow.name}: expected {expected} frames, but found {len(images)}")
    print("- an old chain", flush=True)
    load = {"class_type": "CoZLoadChain", "inputs": {"folder": "old chain"}}
    show = {"class_type": "PreviewImage", "inputs": {"images": ["load", 2]}}
    images = run_prompt(url, {"load": load, "show": show}).outputs["show"]["images"]
    if len(images) != OLD_CHAIN_FRAMES:
        raise HostError(
            f"expected {OLD_CHAIN_FRAMES} frames of the old chain, but found {len(images)}"
        )


def list_missing_owner_values(root: Path) -> list[str]:
    """Return a sentence for each value that is still missing and that only the owner knows."""
    text = (root / "pyproject.toml").read_text("utf-8")
    missing = []
    if '\nPublisherId = ""' in text:
        missing.append(
            "PublisherId in pyproject.toml is empty: write the id of your publisher there, what stands after "
            "the @ on your page of registry.comfy.org."
        )
    if "/PUBLISHER/" in text:
        missing.append(
            "The repository address in pyproject.toml is a placeholder: write your GitHub account in place of "
            "PUBLISHER in Repository and Icon."
        )
    return missing


def release(version: str) -> list[str]:
    """Prepare the release, and return the sentences about missing values."""
    day = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    with scratch_folder() as scratch:
        repository = scratch / "repository"
        copy_tracked_files(repository)
        set_version(repository, version, day)
        archive = pack_archive(repository)
        for comfyui in TESTED_VERSIONS:
            try_archive(archive, comfyui, scratch / comfyui)
        validate(repository)
    set_version(ROOT, version, day)
    print(
        f"Version {version} of {day} is set in this repository; nothing is committed or published"
    )
    return list_missing_owner_values(ROOT)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("version", help="three numbers, such as 0.2.0")
    options = parser.parse_args()
    try:
        missing = release(options.version)
    except (HostError, PromptError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped: nothing was changed")
    if missing:
        sys.exit(
            "\n".join(
                ["Fill in these values, which only the owner knows, and run this again:", *missing]
            )
        )
    print(f"To publish: git commit -a, git tag v{options.version}, git push --tags")


if __name__ == "__main__":
    main()
