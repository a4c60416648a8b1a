"""What is released: the files of the pack, its version, and the values that only the owner knows."""

import re
import shutil
import subprocess

import pytest

import coz
from tools.host import ROOT, HostError
from tools.release import release
from tools.release.pack import list_packed_files
from tools.release.release import VERSION_PLACES


def read_version(root, place):
    return re.search(VERSION_PLACES[place], (root / place).read_text("utf-8"), re.M)[1]


@pytest.fixture
def repository(tmp_path):
    for name in (*VERSION_PLACES, "CHANGELOG.md", "subgraphs/Chain-of-Zoom.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def test_a_version_is_set_everywhere_and_again(repository):
    for day in ("2031-01-02", "2031-01-03"):
        release.set_version(repository, "7.8.9", day)
        assert {read_version(repository, place) for place in VERSION_PLACES} == {"7.8.9"}
        changelog = (repository / "CHANGELOG.md").read_text("utf-8")
        assert release.CHANGELOG_HEADING.findall(changelog)[0] == ("7.8.9", day)
    assert '"ver": "7.8.9"' in (repository / "subgraphs" / "Chain-of-Zoom.json").read_text("utf-8")
    message = r"CHANGELOG\.md begins with 7\.8\.9 of 2031-01-03: put '## \[8"
    with pytest.raises(HostError, match=message):
        release.set_version(repository, "8.0.0", "2031-02-01")


@pytest.mark.parametrize("version", ["", "1.2", "v1.2.3", "1.2.3-rc1"])
def test_no_other_version_is_accepted(repository, version):
    before = (repository / "pyproject.toml").read_bytes()
    with pytest.raises(HostError, match=r"expected VERSION=x\.y\.z, three numbers"):
        release.set_version(repository, version, "2031-01-02")
    assert (repository / "pyproject.toml").read_bytes() == before


def test_a_version_is_above_the_last_one(repository):
    changelog = repository / "CHANGELOG.md"
    changelog.write_text("## [0.3.0] - unreleased\n\n## [0.2.0] - 2031-01-01\n", "utf-8")
    with pytest.raises(HostError, match=r"above those of CHANGELOG\.md, got 0\.2\.0"):
        release.set_version(repository, "0.2.0", "2031-01-02")
    release.set_version(repository, "0.3.0", "2031-01-02")
    assert changelog.read_text("utf-8").startswith("## [0.3.0] - 2031-01-02\n")


def test_the_owner_s_values_are_named_until_they_are_filled(tmp_path):
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    (tmp_path / "pyproject.toml").write_text(project, "utf-8")
    publisher, address = release.list_missing_owner_values(tmp_path)
    assert publisher.startswith("PublisherId in pyproject.toml is empty")
    assert address.startswith("The repository address in pyproject.toml is a placeholder")
    filled = project.replace('PublisherId = ""', 'PublisherId = "me"').replace(
        "/PUBLISHER/", "/me/"
    )
    (tmp_path / "pyproject.toml").write_text(filled, "utf-8")
    assert release.list_missing_owner_values(tmp_path) == []


def test_coz_has_all_that_it_offers():
    assert set(coz.__all__) <= set(dir(coz))


def test_built_in_models_have_at_most_four_mebibytes():
    sizes = [path.stat().st_size for path in (ROOT / "models").glob("*.safetensors")]
    assert len(sizes) == 2
    assert max(sizes) <= 4 * 2**20


def test_version_is_stated_alike():
    assert {read_version(ROOT, place) for place in VERSION_PLACES} == {coz.__version__}


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
