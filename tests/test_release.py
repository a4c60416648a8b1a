"""The version that make release sets, and the values that only the owner knows."""

import re
import shutil
from pathlib import Path

import pytest

from tools.host import HostError
from tools.release import release

ROOT = Path(__file__).parent.parent


@pytest.fixture
def repository(tmp_path):
    for name in (*release.VERSION_PLACES, "CHANGELOG.md", "subgraphs/Chain-of-Zoom.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def test_a_version_is_set_everywhere_and_again(repository):
    for day in ("2031-01-02", "2031-01-03"):
        release.set_version(repository, "7.8.9", day)
        for name, pattern in release.VERSION_PLACES.items():
            assert re.search(pattern, (repository / name).read_text("utf-8"), re.M)[1] == "7.8.9"
        headings = release.CHANGELOG_HEADING.findall(
            (repository / "CHANGELOG.md").read_text("utf-8")
        )
        assert headings[0] == ("7.8.9", day)
    assert '"ver": "7.8.9"' in (repository / "subgraphs" / "Chain-of-Zoom.json").read_text("utf-8")
    with pytest.raises(
        HostError, match=r"CHANGELOG\.md begins with 7\.8\.9 of 2031-01-03: put '## \[8"
    ):
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
