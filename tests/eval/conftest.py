import pytest

from .jobs import noise


@pytest.fixture
def folder(tmp_path):
    """Of pictures: a.png, and sub/ with nothing in it."""
    place = tmp_path / "pictures"
    (place / "sub").mkdir(parents=True)
    noise(700, 600).save(place / "a.png")
    return place


@pytest.fixture(scope="session")
def photo(photo):
    return photo[..., 100:292, 150:342].contiguous()
