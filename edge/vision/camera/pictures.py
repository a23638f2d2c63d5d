"""Pictures by their content, not their name: stills, pages and animations, upright.

Pillow says what a file is, how it lies (EXIF) and how many pictures it holds; OpenCV decodes the common stills, since
it refuses every one that was cut off, and Pillow the rest. Neither release of OpenCV is asked to turn anything.
"""

from __future__ import annotations

import io
import struct
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cv2
import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from edge.errors import SourceError
from edge.vision.camera.jpeg import jpeg_ends, without_leading_filler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from edge.types import U8

_PLUGINS: Final = {
    "JPEG": JpegImagePlugin,
    "PNG": PngImagePlugin,
    "GIF": GifImagePlugin,
    "WEBP": WebPImagePlugin,
    "TIFF": TiffImagePlugin,
    "BMP": BmpImagePlugin,
    "PPM": PpmImagePlugin,
    "AVIF": AvifImagePlugin,
}
"""What is opened. Imported by name: Pillow would else import all of its forty before it says that a film is none."""
_FORMATS: Final = tuple(_PLUGINS)
_BY_OPENCV: Final = {"JPEG", "MPO", "PNG", "WEBP", "BMP", "PPM"}
_HEIC: Final = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
STILLS: Final = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".pbm", ".pnm",
    ".gif", ".avif", ".heic", ".heif",
}  # fmt: skip
"""Names of pictures: a file so named that is none is damaged, any other is something else."""
SHORT: Final = 0.02
USUAL: Final = 0.1
"""Seconds: browsers show a frame that asks for less than `SHORT` for so long."""

_DAMAGE: Final = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError, struct.error)
"""What Pillow raises on a damaged picture; UnidentifiedImageError is an OSError."""

_TURNED: Final[dict[int, tuple[int | None, int | None]]] = {  # EXIF: (rotation, then flip)
    2: (None, 1),
    3: (cv2.ROTATE_180, None),
    4: (None, 0),
    5: (cv2.ROTATE_90_CLOCKWISE, 1),
    6: (cv2.ROTATE_90_CLOCKWISE, None),
    7: (cv2.ROTATE_90_CLOCKWISE, 0),
    8: (cv2.ROTATE_90_COUNTERCLOCKWISE, None),
}


class Kind(NamedTuple):
    """What a file holds. `moves`: an animation, else stills; `format` is Pillow's name of it."""

    format: str
    moves: bool


def picture_kind(path: Path) -> Kind | None:
    """What kind of picture a file is by its content; None for a film, a text, an empty or a damaged file.

    Raises SourceError for a file that cannot be read, is a HEIC, or has more pixels than are decoded.
    """
    data = _content(path, 64)
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC:
        msg = f"{path}: a HEIC picture, which is not decoded here: save it as JPEG or PNG"
        raise SourceError(msg)
    if data.startswith(b"\xff\xd8"):
        return Kind("JPEG", moves=False)
    try:
        with _opened(path) as image:
            kind = image.format or ""
            several = getattr(image, "is_animated", False)
            return Kind(kind, moves=several and kind in {"GIF", "WEBP", "PNG", "AVIF"})
    except Image.DecompressionBombError as error:
        raise _too_large(path, error) from error
    except _DAMAGE:
        return None


def read_still(path: Path) -> U8:
    """The first picture of a file as uint8 BGR (H, W, 3), upright; grey, alpha and 16 bits are converted.

    Raises SourceError for a file that is missing, empty, cut off or no picture. Damage inside a JPEG, WebP or
    uncompressed picture cannot be seen: these formats carry no checksum.
    """
    return next(read_pages(path))


def read_pages(path: Path) -> Iterator[U8]:
    """Each page of a TIFF, the one picture of any other still; see `read_still`."""
    data = _content(path)
    if not data:
        msg = f"{path}: the file is empty (0 bytes): give another picture"
        raise SourceError(msg)
    if not jpeg_ends(data):
        msg = f"{path}: the picture ends before its end mark (truncated): copy the file again"
        raise SourceError(msg)
    data = without_leading_filler(data)
    pages = 0
    try:
        with _opened(io.BytesIO(data)) as image:
            if image.format in _BY_OPENCV:
                yield _by_opencv(path, data, _orientation(image))
                return
            for page in range(getattr(image, "n_frames", 1) if image.format == "TIFF" else 1):
                image.seek(page)
                yield _bgr(image)
                pages += 1
    except UnidentifiedImageError:
        yield _by_opencv(path, data, 1)
    except Image.DecompressionBombError as error:
        raise _too_large(path, error) from error
    except _DAMAGE as error:
        where = f"page {pages + 1}: " if pages else ""
        msg = f"{path}: {where}the picture is truncated or damaged ({error}): copy the file again"
        raise SourceError(msg) from error


def animation_frames(path: Path) -> Iterator[tuple[float, float, U8] | None]:
    """(t, duration, uint8 BGR) of each frame of an animation, in seconds; None last where it could not go on."""
    t = 0.0
    try:
        with _opened(path) as image:
            first = 1 if image.info.get("default_image") else 0  # what an APNG shows where nothing moves
            turn = _orientation(image)
            for number in range(first, getattr(image, "n_frames", 1)):
                image.seek(number)
                image.load()
                seconds = float(image.info.get("duration") or 0) / 1000
                seconds = seconds if seconds >= SHORT else USUAL
                yield t, seconds, _turn(_bgr(image, upright=False), turn)
                t += seconds
    except (*_DAMAGE, Image.DecompressionBombError):
        yield None


def _too_large(path: Path, error: Image.DecompressionBombError) -> SourceError:
    return SourceError(f"{path}: {error}: give a smaller picture")


def _content(path: Path, limit: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        msg = f"{path}: {error.strerror}: give a file that can be read"
        raise SourceError(msg) from error


@contextmanager
def _opened(source: Path | io.BytesIO) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        # Of odd metadata and large pictures; what is too large is an error.
        warnings.simplefilter("ignore")
        with Image.open(source, formats=_FORMATS) as image:
            yield image


def _orientation(image: Image.Image) -> int:
    """EXIF's 1 to 8; 1 where it is absent or unreadable."""
    try:
        value = image.getexif().get(0x0112, 1)
    except (OSError, ValueError, SyntaxError, EOFError, KeyError, TypeError, IndexError):
        return 1
    return value if isinstance(value, int) else 1


def _turn(image: U8, orientation: int) -> U8:
    rotation, flip = _TURNED.get(orientation, (None, None))
    out: cv2.typing.MatLike = image
    if rotation is not None:
        out = cv2.rotate(out, rotation)
    if flip is not None:
        out = cv2.flip(out, flip)
    return out.astype(np.uint8, copy=False)


def _by_opencv(path: Path, data: bytes, orientation: int) -> U8:
    try:
        image: cv2.typing.MatLike | None = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error as error:  # e.g. more pixels than OpenCV decodes
        msg = f"{path}: {error.err}: give a smaller picture"
        raise SourceError(msg) from error
    if image is None:
        msg = f"{path}: no picture that can be decoded (truncated, damaged, or another format): give another file"
        raise SourceError(msg)
    return _turn(image.astype(np.uint8, copy=False), orientation)


def _bgr(image: Image.Image, *, upright: bool = True) -> U8:
    image.load()
    one: Image.Image = ImageOps.exif_transpose(image) if upright else image
    if one.mode.startswith("I"):  # 16 bits, which Pillow would clip
        return _grey_bgr(np.asarray(one).astype(np.float64) / 256)
    if one.mode == "F":
        grey = np.asarray(one)
        return _grey_bgr(grey * 255.0 if grey.max(initial=0) <= 1 else grey)
    return np.ascontiguousarray(np.asarray(one.convert("RGB"))[..., ::-1])


def _grey_bgr(grey: NDArray[np.floating[Any]]) -> U8:
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
