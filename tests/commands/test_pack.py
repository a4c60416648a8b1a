import re
import subprocess
import sys
from pathlib import Path

from coz import __version__

ROOT = Path(__file__).parents[2]

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


def test_version_is_stated_alike():
    stated = re.search('^version = "(.+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)[1]
    assert stated == __version__
