import pytest

from .jobs import noise


@pytest.fixture
def folder(tmp_path):
    """Of pictures: a.png, and sub/ with nothing in it."""
    place = tmp_path / "pictures"
    (place / "sub").mkdir(parents=True)
    noise(700, 600).save(place / "a.png")
    return place


@pytest.fixture
def small_files():
    """No file can grow beyond 100 kB: what a full disk looks like to the one who writes."""
    resource = pytest.importorskip("resource", reason="Windows has no limit on files")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
