"""Make the template's thumbnail out of what ``make demo`` wrote: python -m tools.thumbnail [DIR]"""

import sys
from pathlib import Path

from PIL import Image

from .host import ROOT
from .workflow import TEMPLATE

PANELS = 4
GAP = 8
SIDE = 400  # of a panel; the template browser shows the square at 230 to 350 pixels
QUALITY = 88


def thumbnail(strip: Image.Image) -> Image.Image:
    """The first four scales of a strip, two by two."""
    side = strip.height
    sheet = Image.new("RGB", (2 * SIDE + GAP, 2 * SIDE + GAP), "white")
    for i in range(PANELS):
        left = i * (side + GAP)
        panel = strip.crop((left, 0, left + side, side)).resize((SIDE, SIDE))
        sheet.paste(panel, (i % 2 * (SIDE + GAP), i // 2 * (SIDE + GAP)))
    return sheet


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "demo"
    with Image.open(folder / "strip.png") as strip:
        thumbnail(strip).save(TEMPLATE.with_suffix(".jpg"), quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main()
