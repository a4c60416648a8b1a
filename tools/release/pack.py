"""List the files of the pack's archive. comfy-cli packs all tracked files except those of .comfyignore."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_PACK_MB = 12


def list_packed_files(root: Path = ROOT) -> list[str]:
    """Return the names of the files that comfy-cli puts into the archive."""
    tracked = _list_files(root, "--cached")
    ignored = _list_files(root, "--cached", "--ignored", "--exclude-from=.comfyignore")
    return sorted(set(tracked) - set(ignored))


def _list_files(root: Path, *options: str) -> list[str]:
    line = ["git", "-C", str(root), "ls-files", "-z", *options]
    return subprocess.check_output(line, encoding="utf-8").split("\0")[:-1]


def main() -> None:
    sizes = {name: (ROOT / name).stat().st_size for name in list_packed_files()}
    for name, size in sizes.items():
        print(f"{size / 1e3:10.1f} kB  {name}")
    total = sum(sizes.values()) / 1e6
    print(f"{total:10.2f} MB  in {len(sizes)} files; the limit is {MAX_PACK_MB} MB")
    if total > MAX_PACK_MB:
        sys.exit(f"error: the pack is larger than {MAX_PACK_MB} MB")


if __name__ == "__main__":
    main()
