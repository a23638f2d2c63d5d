"""Masks on somebody's own faces: a folder tree or a CSV in, a folder tree of masked faces out.

Colour stays colour: the fabric then gets a hue. The work can be interrupted and started again; faces that are there,
and faces that were refused, are not tried twice.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from edge.errors import SourceError
from edge_quantize.datasets.own_faces import Face, faces_of, to_png
from edge_quantize.masks import landmarks
from edge_quantize.masks import sets as mask_sets
from edge_quantize.masks import synthesis as masks
from edge_quantize.masks.templates import KINDS, read_template

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.types import U8

REFUSED: Final = "refused.jsonl"
"""Faces without a mask, one JSON object a line: class, name, reason."""
LOTS: Final = "lots.json"
"""What the masks of a folder were drawn with: those of one folder are not half of one seed, half of another."""
_LARGE: Final = 160
"""From this side on a picture is searched as a photograph."""
_SHEET: Final = 12


@dataclass(frozen=True, slots=True)
class Masked:
    """What became of a run: how many faces wear a mask, and why the others do not, by class."""

    made: int
    faces: int
    refused: dict[str, dict[str, int]]

    @property
    def share(self) -> float:
        """Share of the faces that wear a mask."""
        return self.made / self.faces


_mesh: Any = None


def _start_worker() -> None:
    global _mesh  # noqa: PLW0603 - one face mesh a process: it cannot be sent between them
    cv2.setNumThreads(1)
    _mesh = landmarks.open_face_mesh()


def _work(face: Face, out: Path, seed: int, templates: tuple[str, ...]) -> tuple[Face, str | None, int]:
    """Mask one face; (the face, why not, its kind of mask)."""
    try:
        image = face.read()
    except SourceError:
        return face, "unreadable", 0
    large = min(image.shape[:2]) >= _LARGE and image.ndim == 3
    points = landmarks.find_in_photo(_mesh, image) if large else landmarks.find(_mesh, image)
    if points is None:
        return face, "no landmarks", 0
    # Lots follow from the seed and the face's name, so the order of the work does not matter.
    number = zlib.crc32(f"{face.label}/{face.name}".encode())
    drawn = mask_sets.draw_accepted(number & 0x7FFFFFFF, image, points, seed)
    if isinstance(drawn, str):
        return face, drawn, 0
    template = read_template(templates[number % len(templates)]) if templates else None
    to_png(masks.render(image, drawn, template), target(out, face))
    return face, None, int(drawn["kind"])


def target(out: Path, face: Face) -> Path:
    """Where the masked face goes."""
    return out / face.label / f"{face.name}.png"


def _templates(source: Path | None) -> tuple[str, ...]:
    """One PNG, or all of a folder; each is opened once so that a bad one is refused before the work."""
    if source is None:
        return ()
    found = sorted(source.glob("*.png")) if source.is_dir() else [source]
    if not found:
        msg = f"{source}: no mask templates (*.png) in this folder"
        raise SourceError(msg)
    for path in found:
        read_template(str(path))
    return tuple(str(path) for path in found)


def _known_refusals(path: Path) -> dict[tuple[str, str], str]:
    if not path.exists():
        return {}
    known = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            one = json.loads(line)
            known[one["label"], one["name"]] = one["reason"]
        except (ValueError, KeyError, TypeError):
            continue  # a line cut off when the run was killed: that face is tried again
    return known


def _note_lots(out: Path, seed: int, templates: tuple[str, ...]) -> None:
    """Write what masks are drawn with. Raises SourceError where those of the folder were drawn with something else."""
    digests = [hashlib.sha256(Path(one).read_bytes()).hexdigest() for one in templates]
    wanted, path = {"seed": seed, "templates": digests}, out / LOTS
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:  # a folder of an earlier version does not tell
        before = None if (out / REFUSED).exists() else wanted
    except (OSError, ValueError):
        before = None
    if before != wanted:
        msg = f"{out}: holds masks of another --seed, --template or version: --again draws all anew; or another --out"
        raise SourceError(msg)
    path.write_text(json.dumps(wanted) + "\n", encoding="utf-8")


def mask_tree(
    source: Path,
    out: Path,
    *,
    seed: int = 1,
    templates: Path | None = None,
    processes: int = 2,
    again: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Masked:
    """Put a mask on each face of a folder tree or CSV.

    Args:
        source: see `own_faces`.
        out: gets `<class>/<name>.png`, `refused.jsonl`, `rejects.json` and a contact sheet a kind of mask.
        seed: another seed, other masks.
        templates: own masks, one PNG or a folder of them, instead of the drawn ones.
        processes: worker processes.
        again: remove what a run before has left there, and begin anew.
        progress: told (faces done, faces in all).

    Raises:
        SourceError: nothing to read, a bad template, or the target cannot be written, or holds other masks.

    """
    here, there = source.resolve(), out.resolve()
    if here == there or here in there.parents:
        msg = f"{out}: lies in {source}, whose faces would be taken for masked ones: give another --out"
        raise SourceError(msg)
    faces, made_of = faces_of(source), _templates(templates)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{out}: {error.strerror}: give another --out"
        raise SourceError(msg) from error
    if again and (out / REFUSED).exists():  # all of them, before anything new: a run may be broken off
        for label in {face.label for face in faces}:
            for path in (out / label).rglob("*.png"):
                path.unlink()
        (out / REFUSED).unlink()
        (out / LOTS).unlink(missing_ok=True)
    _note_lots(out, seed, made_of)
    refused = _known_refusals(out / REFUSED)
    todo = [f for f in faces if (f.label, f.name) not in refused and not target(out, f).exists()]
    shown: dict[int, list[Face]] = {}
    done = len(faces) - len(todo)
    work = partial(_work, out=out, seed=seed, templates=made_of)
    # 'spawn': a forked face mesh inherits locks of threads that do not exist in the child.
    with (
        (out / REFUSED).open("a", encoding="utf-8") as log,
        get_context("spawn").Pool(processes, initializer=_start_worker) as pool,
    ):
        for face, reason, kind in pool.imap_unordered(work, todo, chunksize=8):
            if reason is None:
                shown.setdefault(kind, []).append(face)
            else:
                refused[face.label, face.name] = reason
                log.write(json.dumps({"label": face.label, "name": face.name, "reason": reason}) + "\n")
            done += 1
            progress(done, len(faces))
    for kind, some in shown.items():
        name = "own" if made_of else KINDS[kind]
        to_png(_sheet(some[: _SHEET * 4], out), out / f"sheet-{name}.png")
    table: dict[str, dict[str, int]] = {}
    for label in sorted({f.label for f in faces}):
        table[label] = dict(Counter(why for (of, _), why in sorted(refused.items()) if of == label))
    (out / "rejects.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return Masked(sum(target(out, f).exists() for f in faces), len(faces), table)


def _sheet(faces: list[Face], out: Path) -> U8:
    """Pictures above their masked selves, 96 pixels each, BGR."""

    def tile(image: Any) -> U8:  # noqa: ANN401 - OpenCV's types
        bgr = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        small: U8 = cv2.resize(bgr, (96, 96), interpolation=cv2.INTER_AREA).astype(np.uint8)
        return small

    pairs = [np.concatenate([tile(f.read()), tile(cv2.imread(str(target(out, f))))]) for f in faces]
    blank = np.zeros_like(pairs[0])
    pairs += [blank] * (-len(pairs) % _SHEET)
    rows = [np.concatenate(pairs[i : i + _SHEET], axis=1) for i in range(0, len(pairs), _SHEET)]
    sheet: U8 = np.concatenate(rows)
    return sheet
