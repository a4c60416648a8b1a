import re
import subprocess
import sys
from pathlib import Path

from coz import __version__
from tools.release.pack import list_packed_files
from tools.release.release import VERSION_PLACES

ROOT = Path(__file__).parent.parent

BLOCK_HOST = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"comfy", "comfy_api", "comfy_execution", "comfy_extras",
                                      "execution", "folder_paths", "nodes", "server"}:
            raise ModuleNotFoundError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
import coz
assert set(coz.__all__) <= set(dir(coz))
"""


def test_coz_imports_without_comfyui():
    subprocess.run([sys.executable, "-c", BLOCK_HOST], cwd=ROOT, check=True)


def test_built_in_models_have_at_most_four_mebibytes():
    sizes = [path.stat().st_size for path in (ROOT / "models").glob("*.safetensors")]
    assert len(sizes) == 2
    assert max(sizes) <= 4 * 2**20


def test_version_is_stated_alike():
    stated = {
        re.search(pattern, (ROOT / name).read_text("utf-8"), re.M)[1]
        for name, pattern in VERSION_PLACES.items()
    }
    assert stated == {__version__}


def test_pack_holds_what_a_user_needs(tmp_path):
    wanted = [
        "CHANGELOG.md", "LICENSE", "README.md", "__init__.py", "coz/chain/zoom_chain.py", "js/coz.js",
        "js/docs/CoZChainLoop.md", "locales/zh/nodeDefs.json", "models/coz_lite_x4.safetensors",
        "models/sheet.jpg", "nodes/step/crop_center_zoom.py", "pictures/a.jpg", "pyproject.toml",
        "requirements.txt", "subgraphs/a.json", "tools/convert.py", "tools/verification/step.py",
        "tools/verify.py", "workflows/1 Zoom (a).json",
    ]  # fmt: skip
    unwanted = [
        ".ci/run", ".comfyignore", ".github/workflows/test.yml", ".gitignore", "CITATION.cff",
        "CONTRIBUTING.md", "Makefile", "SECURITY.md",
        "benchmarks/chain.py", "locks/host.txt", "tests/data/a.npz", "tests/chain/test_zoom_chain.py",
        "tools/host/__main__.py",
    ]  # fmt: skip
    for name in [*wanted, *unwanted, "untracked.bin"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".comfyignore").write_bytes((ROOT / ".comfyignore").read_bytes())
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "--", *wanted, *unwanted], cwd=tmp_path, check=True)
    assert list_packed_files(tmp_path) == wanted
