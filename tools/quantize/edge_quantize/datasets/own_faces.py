"""Faces of other data sets: a folder for each class, or a CSV in the form of FER2013's.

faces/happy/001.png          any picture OpenCV reads, grey or colour, one face filling it (AffectNet's 96 × 96, say)
faces/happy/publictest/1.png one to test on, as a row of the CSV whose Usage is PublicTest; or `privatetest/`
fer2013.csv                  emotion,pixels,Usage with 48 × 48 numbers a row
"""

from __future__ import annotations

import codecs
import csv
import re
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge.errors import SourceError
from edge.types import EMOTIONS
from edge.vision.camera.pictures import STILLS, read_still

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge.types import U8

COLUMNS: Final = ("emotion", "pixels")
USAGES: Final = ("", "training", "publictest", "privatetest")
"""What a CSV's `Usage` may say, in upper or lower case; the first two are to train on."""
_TESTS: Final = USAGES[2:]
_SIDE: Final = 48
_PIXEL: Final = re.compile(r"0*[0-9]{1,3}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Face:
    """One face to come: its class, a name that is unique in the class, and where it lies.

    A face to test on has its usage before its name, `publictest/1`, so that its masked version is to test on, too.
    """

    label: str
    name: str
    source: Path
    pixels: str | None = None
    """The row's numbers when the source is a CSV; its line is the last part of the name."""
    usage: str = ""
    """One of `USAGES`."""

    def read(self) -> U8:
        """Its picture, u8 (H, W) grey or (H, W, 3) BGR. Raises SourceError for one that cannot be read."""
        if self.pixels is not None:
            return _row(self.pixels, f"{self.source}, line {self.name.rpartition('/')[2]}")
        image = read_still(self.source)
        plain = (image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all()
        return np.ascontiguousarray(image[..., 0]) if plain else image


def _row(text: str, where: str) -> U8:
    words = text.split()
    try:
        numbers = np.array(words, dtype=np.int64)
        fits = bool(((numbers >= 0) & (numbers <= 255)).all())
    except (ValueError, OverflowError):  # no number, or one beyond 64 bits
        fits = False
    if not fits:
        wrong = next((n for n, word in enumerate(words) if not _PIXEL.fullmatch(word) or int(word) > 255), 0)
        msg = f"{where}, column pixels: number {wrong + 1} is {words[wrong][:20]!a}, not 0 to 255"
        raise SourceError(msg)
    if numbers.size != _SIDE**2:
        msg = f"{where}, column pixels: {numbers.size} pixels; {_SIDE**2} from 0 to 255 are needed"
        raise SourceError(msg)
    return numbers.reshape(_SIDE, _SIDE).astype(np.uint8)


def faces_of(source: Path) -> list[Face]:
    """List the faces of a folder tree or a CSV, without reading the pictures.

    Raises:
        SourceError: it is missing, holds none, or the CSV has other columns or classes.

    """
    if source.suffix.lower() == ".csv":
        found = list(_of_csv(source))
    elif source.is_dir():
        found = [face for folder in sorted(p for p in source.iterdir() if p.is_dir()) for face in _of_folder(folder)]
    else:
        msg = f"{source}: neither a folder with a folder for each class nor a .csv"
        raise SourceError(msg)
    if not found:
        msg = f"{source}: no pictures: a folder for each class is expected, e.g. {source}/happy/001.png"
        raise SourceError(msg)
    return found


def _of_folder(folder: Path) -> Iterator[Face]:
    """Faces of a class, named by where they lie in its folder: `001`, `a/001`; with the suffix where two share that."""
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in STILLS]
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    often = Counter(names)
    for path, name in zip(paths, names, strict=True):
        first = path.relative_to(folder).parts[0].lower()
        usage = first if first in _TESTS else ""
        yield Face(folder.name, name if often[name] == 1 else path.relative_to(folder).as_posix(), path, usage=usage)


def _of_csv(path: Path) -> Iterator[Face]:
    csv.field_size_limit(sys.maxsize)
    try:
        with path.open("rb") as raw:
            if raw.read(2) in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
                msg = f"{path}: not UTF-8 text but UTF-16: save it as UTF-8"
                raise SourceError(msg)
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                msg = f"{path}, line 1: no column {missing[0]!r}; expected emotion,pixels,Usage"
                raise SourceError(msg)
            for row in rows:
                label = row["emotion"]
                if label not in _FER2013_LABELS:
                    msg = f"{path}, line {rows.line_num}, column emotion: {label!a:.40}, not 0 to {len(EMOTIONS) - 1}"
                    raise SourceError(msg)
                usage = (row.get("Usage") or "").strip().lower()
                if usage not in USAGES:  # or rows meant for a test would be trained on
                    msg = (
                        f"{path}, line {rows.line_num}, column Usage: {usage!a:.40} is none of Training, PublicTest, "
                        "PrivateTest"
                    )
                    raise SourceError(msg)
                name = f"{usage}/{rows.line_num}" if usage in _TESTS else str(rows.line_num)
                yield Face(_FER2013[int(label)], name, path, row["pixels"] or "", usage)
    except UnicodeDecodeError as error:
        msg = f"{path}: not UTF-8 text (Latin-1 or Windows-1252?): save it as UTF-8"
        raise SourceError(msg) from error
    except (OSError, csv.Error) as error:
        msg = f"{path}: not a CSV that can be read ({error})"
        raise SourceError(msg) from error


_FER2013: Final = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The CSV's own order of classes, which is not ours."""
_FER2013_LABELS: Final = {str(number) for number in range(len(_FER2013))}


def to_png(image: U8, path: Path) -> None:
    """Write a picture. Raises SourceError when it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part.png")
    if not cv2.imwrite(str(draft), image):
        msg = f"{path}: cannot be written"
        raise SourceError(msg)
    draft.replace(path)
