"""Make pairs from chains that CoZ Save Chain wrote, of any backbone."""

from collections.abc import Iterator
from pathlib import Path

from coz.chain.folder import RECORD_NAME, UNFINISHED_PREFIX, read_chain
from coz.render.pillow import to_pillow
from coz.resample import crop, resize

from .pairs import encode_view, make_row
from .photo import UnusableError


def find_chains(folder: Path) -> list[Path]:
    """Find the saved chains in a folder and below it."""
    found = (path.parent for path in folder.rglob(RECORD_NAME))
    return sorted(place for place in found if not place.name.startswith(UNFINISHED_PREFIX))


def make_chain_pairs(folder: Path, name: str) -> Iterator[dict]:
    """Make a row for each step of a saved chain: the frame before it, and its window enlarged.

    Raises:
        UnusableError: If the chain cannot be read, or has no steps.
    """
    try:
        chain = read_chain(folder)
    except ValueError as error:
        raise UnusableError(str(error)) from error
    if not chain.steps:
        raise UnusableError("the chain has no steps")
    for step in range(1, chain.steps + 1):
        frame = chain.frames[step]
        zoomed = resize(crop(frame, chain.windows[step]), *frame.shape[-2:]).clamp(0, 1)
        origin = {
            "file": name,
            "backbone": ", ".join(chain.models),
            "window": list(chain.find_window_in(step + 1, 0)),
            "target": list(chain.target),
            "seed": chain.seeds[step - 1],
        }
        views = (encode_view(to_pillow(view)) for view in (frame, zoomed))
        yield make_row(f"{name}#{step}", *views, max(chain.compute_magnification(step + 1)), origin)
