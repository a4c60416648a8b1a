"""Pairs out of chains that CoZ Save Chain wrote: what any backbone of the nodes made, SD3 too."""

from collections.abc import Iterator
from pathlib import Path

from coz.chain.folder import RECORD_NAME, UNFINISHED_PREFIX, read_chain
from coz.render.pillow import to_pillow
from coz.resample import crop, resize

from .pairs import encoded, row
from .photo import UnusableError


def chain_folders(folder: Path) -> list[Path]:
    """The folders below, or the folder itself, that hold a saved chain."""
    found = (path.parent for path in folder.rglob(RECORD_NAME))
    return sorted(place for place in found if not place.name.startswith(UNFINISHED_PREFIX))


def chain_pairs(folder: Path, name: str) -> Iterator[dict]:
    """The rows of a saved chain: of each step the frame before it and its window enlarged.

    Raises:
        UnusableError: If it cannot be read, or has no steps.
    """
    try:
        chain = read_chain(folder)
    except ValueError as error:
        raise UnusableError(str(error)) from error
    if not chain.steps:
        raise UnusableError("a chain of no steps")
    for step in range(1, chain.steps + 1):
        frame = chain.frames[step]
        zoomed = resize(crop(frame, chain.windows[step]), *frame.shape[-2:]).clamp(0, 1)
        origin = {
            "file": name,
            "backbone": ", ".join(chain.models),
            "window": list(chain.window_in(step + 1, 0)),
            "target": list(chain.target),
            "seed": chain.seeds[step - 1],
        }
        views = (encoded(to_pillow(view)) for view in (frame, zoomed))
        yield row(f"{name}#{step}", *views, max(chain.magnification(step + 1)), origin)
