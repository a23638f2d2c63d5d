"""Pictures from files, told by their content: stills, animations, pages; each the way up its header says.

OpenCV decodes, Pillow reads headers and animations: OpenCV releases differ in whose orientation they follow (WebP's
only from 4.14 on) and show the first picture of an animation as if it were all.
"""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

import cv2
import numpy as np
from PIL import Image, ImageSequence

from edge.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge.types import U8

Kind = Literal["still", "animation", "pages", "film"]

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
"""What is taken for a picture when its content does not say."""
_STILL: Final = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n|BM|P[1-6][\s#]|RIFF.{4}WEBP|II\*\0|MM\0\*", re.DOTALL)
_TIFF: Final = (b"II*\0", b"MM\0*")
_EXIF_ORIENTATION: Final = 0x0112
_LEAST: Final = 0.02
"""Seconds a picture of an animation lasts at least; browsers show those that ask for less for .1 s."""
_UNSTATED: Final = 0.1


def kind_of(path: Path) -> Kind:
    """What a file is, by its content; by its suffix where the content says nothing. Raises SourceError."""
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError as error:
        msg = f"{path}: {error.strerror}: give a file that can be read"
        raise SourceError(msg) from error
    if head.startswith(b"GIF8"):
        return "still" if _count(path) == 1 else "film"
    if not _STILL.match(head):
        return "still" if path.suffix.lower() in SUFFIXES else "film"
    if _count(path) < 2 or head.startswith(b"\xff\xd8"):  # the second picture in a phone's JPEG is no second moment
        return "still"
    return "pages" if head.startswith(_TIFF) else "animation"


def _count(path: Path) -> int:
    """Pictures in a file; 0 where Pillow cannot tell."""
    try:
        with _opened(path) as image:
            return int(getattr(image, "n_frames", 1))
    except (OSError, ValueError, SyntaxError, EOFError):
        return 0


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # OpenCV has a bound of its own
        with Image.open(path) as image:
            yield image


def read_still(path: Path) -> U8:
    """One picture as uint8 BGR (H, W, 3), upright by its header; grey, alpha and 16-bit pictures are converted.

    Raises SourceError for a file that is missing, empty, cut off or no picture. Damage inside a JPEG, WebP or
    uncompressed picture cannot be seen: these formats carry no checksum.
    """
    data = _content(path)
    if not data.startswith(b"GIF8"):
        return _upright(_decoded(path, data), path, data)
    for image, _ in read_animation(path):
        return image
    msg = f"{path}: not one frame could be decoded: give another file"
    raise SourceError(msg)


def read_pages(path: Path) -> list[U8]:
    """Every page of a TIFF as uint8 BGR (H, W, 3). Raises SourceError."""
    data = _content(path)
    good, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if not good:
        msg = f"{path}: its pages cannot be decoded (truncated or damaged): give another file"
        raise SourceError(msg)
    return [np.asarray(page, np.uint8) for page in pages]


def read_animation(path: Path) -> Iterator[tuple[U8, float]]:
    """Each picture of an animation as uint8 BGR (H, W, 3), and how many seconds it lasts. Raises SourceError."""
    try:
        with _opened(path) as image:
            for picture in ImageSequence.Iterator(image):
                colour = np.asarray(picture.convert("RGB"), np.uint8)
                asked = float(picture.info.get("duration", 0)) / 1000  # WebP's is known once it is decoded
                yield colour[:, :, ::-1].copy(), asked if asked >= _LEAST else _UNSTATED
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        msg = f"{path}: {error}: the animation cannot be decoded (truncated or damaged): give another file"
        raise SourceError(msg) from error


def _content(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"{path}: {error.strerror}: give a picture that can be read"
        raise SourceError(msg) from error
    if not data:
        msg = f"{path}: the file is empty (0 bytes): give another picture"
        raise SourceError(msg)
    return data


def _decoded(path: Path, data: bytes) -> U8:
    """The picture as it is stored (a TIFF: upright, OpenCV turns those whatever it is told)."""
    if not _jpeg_ends(data):
        msg = f"{path}: the picture ends before its end mark (truncated): copy the file again"
        raise SourceError(msg)
    try:
        image: cv2.typing.MatLike | None = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error as error:  # e.g. more pixels than OpenCV decodes
        msg = f"{path}: {error.err}: give a smaller picture"
        raise SourceError(msg) from error
    if image is None:
        msg = f"{path}: no picture OpenCV can decode (truncated, damaged, or another format): give another file"
        raise SourceError(msg)
    return image.astype(np.uint8, copy=False)


def _upright(image: U8, path: Path, data: bytes) -> U8:
    """The picture turned and mirrored as its EXIF orientation (1 to 8) says."""
    if data.startswith(_TIFF):
        return image
    try:
        with _opened(path) as header:
            orientation = int(header.getexif().get(_EXIF_ORIENTATION, 1))
    except (OSError, ValueError, TypeError, SyntaxError, EOFError):  # a header that Pillow cannot read says nothing
        return image
    if orientation in {5, 6, 7, 8}:
        image = image.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        image = image[::-1]
    if orientation in {2, 3, 6, 7}:
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


_MARKER: Final = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
"""A JPEG marker with its fill bytes (ITU-T T.81, B.1.1.2). What lies before it is passed over, as libjpeg does."""
_SCAN_END: Final = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
"""A marker inside scan data that is neither a stuffed byte nor a restart."""
_ALONE: Final = frozenset((0x01, *range(0xD0, 0xD9)))
"""Markers without a length: TEM, restarts, start of image."""


def _jpeg_ends(data: bytes) -> bool:
    """Tell whether a JPEG has its end-of-image mark; True for another format.

    OpenCV refuses what stops short, but a copy that was interrupted may keep the file's length and hold
    zeros from there on: libjpeg decodes those to grey and only warns. What follows the mark is not looked at.
    """
    if not data.startswith(b"\xff\xd8"):
        return True
    at, pattern = 2, _MARKER
    while (found := pattern.search(data, at)) is not None:
        marker, at, pattern = found[1][0], found.end(), _MARKER
        if marker == 0xD9:
            return True
        if marker in _ALONE:
            continue
        at += int.from_bytes(data[at : at + 2])
        if marker == 0xDA:  # start of scan
            pattern = _SCAN_END
    return False
