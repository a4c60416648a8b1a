"""Find the images of an evaluation, and make x_0 and the ground truth of each."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from coz.geometry import FrameMode, Window, place_first_frame
from coz.render.pillow import from_pillow, to_pillow
from coz.resample import crop, resize
from tools.image_file import ImageError, open_image, to_png

from .job import MIDDLE

X0_SIDE_PIXELS = 512
"""Side of x_0, as in the paper."""

MIN_SIDE_PIXELS = 64
MAX_STEPS = 4
"""The fourth step shows 2 x 2 of the 512 x 512 pixels of x_0; one pixel could not be centered."""

MIN_TRUTH_FACTOR = 4
"""The smallest ratio of a ground truth's size to its image's: the factor of the first scale."""

FRAME_MODE: FrameMode = "whole picture square"


@dataclass(frozen=True)
class Protocol:
    """How x_0 and the ground truth are made from an image."""

    steps: int
    ground_truth: Path | None = None
    """A folder with images of the same names, whose size is a whole multiple of the image's."""
    scale_down: int = 0
    """Factor by which to downscale the image, which itself is then the ground truth; 0 for no downscaling."""

    @property
    def multiple(self) -> int:
        """The number that x_0's side is a multiple of: then every window has whole, centered pixels."""
        return max(16, 2 * 4**self.steps)

    def describe(self) -> str:
        """Describe the protocol for the report."""
        if self.scale_down:
            return (
                f"x_0 is the middle square of each image, downscaled {self.scale_down}x (bicubic); the "
                "square itself is the ground truth"
            )
        text = "x_0 is each image, resized (Lanczos) and cropped around the middle to 512 x 512"
        if self.ground_truth:
            return f"{text}, or only cropped if it is smaller; ground truth from {self.ground_truth.name}"
        return text


def find_images(folder: Path, skipped: Path) -> tuple[list[str], list[str]]:
    """Return the names of the images below ``folder``, and those of the other files that are not hidden.

    Args:
        folder: A folder, or one image file.
        skipped: A folder to skip.

    Raises:
        ImageError: If there is no such folder, or no image in it.
    """
    if folder.resolve() == skipped.resolve():
        raise ImageError(f"--out must differ from the folder of the images, {folder}")
    if folder.is_file():
        return [folder.name], []
    if not folder.is_dir():
        raise ImageError(f"there is no folder {folder}")
    endings = {
        ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN
    }
    found = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
        and skipped.resolve() not in path.resolve().parents
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    pictures = sorted(name for name in found if Path(name).suffix.lower() in endings)
    if not pictures:
        inside = f"{len(found)} files, none of them an image" if found else "nothing"
        raise ImageError(f"there is no image in {folder}: it holds {inside}")
    return pictures, sorted(set(found) - set(pictures))


def make_inputs(folder: Path, name: str, protocol: Protocol) -> tuple[bytes, bytes | None]:
    """Make the PNG files of x_0 and of its ground truth, if the protocol has one.

    Raises:
        ImageError: If the image or its ground truth cannot be used.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ImageError("its name is not valid Unicode: rename it") from error
    picture = open_image(folder if folder.is_file() else folder / name)
    width, height = picture.size
    if min(width, height) < MIN_SIDE_PIXELS:
        raise ImageError(
            f"it is {width} x {height}: at least {MIN_SIDE_PIXELS} pixels a side are needed"
        )
    if protocol.scale_down:
        x_0, truth = downscale_to_x0(from_pillow(picture), protocol)
    elif protocol.ground_truth:
        other = open_image(find_truth(protocol.ground_truth, name))
        x_0, truth = crop_pair(from_pillow(picture), from_pillow(other), protocol)
    else:
        return encode_frame(resize_middle(from_pillow(picture), X0_SIDE_PIXELS)), None
    return encode_frame(x_0), encode_frame(truth)


def find_truth(folder: Path, name: str) -> Path:
    """Find the image of that name in the folder, with the same suffix or another.

    Raises:
        ImageError: If there is none, or several.
    """
    path = folder / name
    if path.is_file():
        return path
    same = [p for p in path.parent.glob("*") if p.stem == path.stem and p.is_file()]
    if len(same) != 1:
        found = f"but {', '.join(sorted(p.name for p in same))}" if same else "with any suffix"
        raise ImageError(f"there is no ground truth {name} in {folder}, {found}")
    return same[0]


def downscale_to_x0(picture: Tensor, protocol: Protocol) -> tuple[Tensor, Tensor]:
    factor = protocol.scale_down
    height, width = picture.shape[-2:]
    side = round_side(min(height, width) // factor, protocol)
    if not side:
        raise ImageError(
            f"it is {width} x {height}: --scale-down {factor} with {protocol.steps} steps needs "
            f"{factor * protocol.multiple} pixels a side"
        )
    truth = crop_middle(picture, side, factor)
    return resize(truth, side, side, "bicubic"), truth


def crop_pair(picture: Tensor, truth: Tensor, protocol: Protocol) -> tuple[Tensor, Tensor]:
    (height, width), (full_height, full_width) = picture.shape[-2:], truth.shape[-2:]
    factor = full_width // width
    if factor < MIN_TRUTH_FACTOR or (full_height, full_width) != (factor * height, factor * width):
        raise ImageError(
            f"its ground truth is {full_width} x {full_height} and the image {width} x {height}: "
            f"it must be 4, 5, 6, ... times as wide and as high, such as {4 * width} x {4 * height}"
        )
    side = round_side(min(height, width), protocol)
    if not side:
        raise ImageError(
            f"it is {width} x {height}: with a ground truth, {protocol.steps} steps need "
            f"{protocol.multiple} pixels a side"
        )
    return crop_middle(picture, side, 1), crop_middle(truth, side, factor)


def round_side(side: int, protocol: Protocol) -> int:
    return min(side, X0_SIDE_PIXELS) // protocol.multiple * protocol.multiple


def crop_middle(picture: Tensor, side: int, factor: int) -> Tensor:
    """Crop the middle square of side * factor pixels, or resize a larger image to it."""
    height, width = picture.shape[-2:]
    if min(height, width) >= X0_SIDE_PIXELS * factor:
        return resize_middle(picture, side * factor)
    length = side * factor
    x, y = (width - length) // 2 // factor * factor, (height - length) // 2 // factor * factor
    return crop(picture, Window(x, y, length, length))


def resize_middle(picture: Tensor, side: int) -> Tensor:
    """Resize with Lanczos and crop around the middle, as in the paper."""
    first = place_first_frame(*picture.shape[-2:], side, FRAME_MODE, MIDDLE)
    return resize(picture, side, side, "lanczos", first.window)


def encode_frame(frame: Tensor) -> bytes:
    return to_png(to_pillow(frame))
