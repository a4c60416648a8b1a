"""Read the photographs of the Debian package budgie-backgrounds, whose copyright file states CC0."""

import hashlib
import io
import subprocess
import tarfile
from functools import cache
from pathlib import PurePath

from tools.host.environment import HOST_FOLDER, HostError

PACKAGE = "budgie-backgrounds_3.0-1_all.deb"
SHA256 = "b91c2d5209558bc11d8d3a161f22a608857e3f8c735980cfab0d6650b03014ca"
FOLDER = HOST_FOLDER / "train_lite"
AR_HEADER_BYTES = 60
"""Size of the header before each member of an ar archive, which a Debian package is."""


@cache
def read_backgrounds() -> dict[str, bytes]:
    """Return the package's JPEG files by their names without suffix; download the package if it is missing."""
    path = FOLDER / PACKAGE
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        name, version, _ = PACKAGE.split("_")
        command = ["apt-get", "download", f"{name}={version}"]
        try:
            subprocess.run(command, cwd=FOLDER, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            raise HostError(
                f"the training photographs are missing: put {PACKAGE} of Debian 13 into {FOLDER}"
            ) from None
    package = path.read_bytes()
    found = hashlib.sha256(package).hexdigest()
    if found != SHA256:
        raise HostError(f"{path} has the sha256 {found}, expected {SHA256}: delete it")
    start = package.index(b"data.tar.xz")  # a member of an ar archive
    size = int(package[start + 48 : start + 58])
    contents = package[start + AR_HEADER_BYTES : start + AR_HEADER_BYTES + size]
    photographs = {}
    with tarfile.open(fileobj=io.BytesIO(contents)) as files:
        for member in files:
            file = files.extractfile(member) if member.name.endswith(".jpg") else None
            if file:
                photographs[PurePath(member.name).stem] = file.read()
    return photographs
