"""Masked renderings of whole data sets: drawn, refused or accepted, rendered, written.

Each face's parameters follow from (seed, row) alone, so a rendering does not depend on what else is rendered.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge.errors import SourceError
from edge_quantize.datasets.fer2013 import Rendered
from edge_quantize.masks import synthesis as masks
from edge_quantize.masks.templates import FROZEN_VARIANTS, KINDS, TRAINED_KINDS, UNSEEN_KIND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from edge.types import U8
    from edge_quantize.masks.landmarks import Landmarks

FROZEN: Final = Path(__file__).parents[1] / "frozen" / "fer2013-public.npz"
"""Per-image parameters of the frozen masked PublicTest."""
FROZEN_SHA256: Final = FROZEN.with_suffix(".sha256")
"""SHA-256 of its rendered array, u8 (N, 48, 48) in C order."""
FROZEN_SEED: Final = 20261121
_TRIES: Final = 9
_CHUNK: Final = 256


@dataclass(frozen=True, slots=True)
class MaskedSet:
    """Masked faces of a data set."""

    images: U8
    """(N, 48, 48)."""
    params: NDArray[np.void]
    """(N,) records of `masks.PARAMS`; `index` is the row in the data set."""
    rejects: dict[int, str]
    """Row of each face that got no mask, and why."""

    def save(self, path: Path) -> None:
        """Write the images, their rows and kinds as `load_rendered` reads them."""
        Rendered(self.images, self.params["index"].astype(np.int32), self.params["kind"]).save(path)


def draw_accepted(
    index: int,
    face: U8,
    points: NDArray[np.float32],
    seed: int,
    *,
    frozen: bool = False,
    lots: masks.Lots = masks.Lots(),  # noqa: B008 - frozen
) -> NDArray[np.void] | str:
    """Draw lots for a face until the mask sits well; the last refusal's reason when none of nine does."""
    rng = np.random.default_rng([seed, index])
    if frozen:
        # A fifth of the frozen set wears the family that nobody trains on, all of it shapes that nobody trains on.
        unseen = rng.random() < 1 / len(KINDS)
        kinds = (UNSEEN_KIND,) if unseen else tuple(range(len(TRAINED_KINDS)))
        lots = masks.Lots(kinds=kinds, variants=FROZEN_VARIANTS)
    reason: str | None = None
    for number in range(_TRIES):
        # A face that is hard to fit gets its mask where the landmarks say, or none at all.
        tried = lots if number < _TRIES // 2 else replace(lots, jitter=lots.jitter / 4)
        params = masks.draw_params(index, face, points, rng, tried)
        reason = masks.refusal(params, points, (face.shape[0], face.shape[1]))
        if reason is None:
            return params
    return str(reason)


_Job = tuple["NDArray[np.int64]", "U8", "NDArray[np.float32]", int, bool]
_Done = tuple["U8", "NDArray[np.void]", dict[int, str]]


def _work(job: _Job) -> _Done:
    rows, faces, points, seed, frozen = job
    cv2.setNumThreads(1)
    records, images, rejects = [], [], {}
    for row, face, marks in zip(rows, faces, points, strict=True):
        drawn = draw_accepted(int(row), face, marks, seed, frozen=frozen)
        if isinstance(drawn, str):
            rejects[int(row)] = drawn
        else:
            records.append(drawn)
            images.append(masks.render(face, drawn))
    return np.array(images, np.uint8).reshape(-1, *faces.shape[1:]), np.array(records, masks.PARAMS), rejects


def render_set(
    images: U8,
    rows: NDArray[np.int64],
    marks: Landmarks,
    seed: int,
    *,
    frozen: bool = False,
    processes: int = 2,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> MaskedSet:
    """Put a mask on each of the given faces.

    Args:
        images: u8 (N, 48, 48), the whole data set.
        rows: which of them.
        marks: landmarks of the whole data set.
        seed: another seed, another rendering.
        frozen: draw from the families and shapes of the frozen test set.
        processes: worker processes.
        progress: called with (faces done, faces in all).

    """
    seen = rows[marks.found[rows]]
    rejects = dict.fromkeys((int(r) for r in rows[~marks.found[rows]]), "no landmarks")

    def jobs() -> Iterator[_Job]:
        for start in range(0, len(seen), _CHUNK):
            some = seen[start : start + _CHUNK]
            yield some, images[some], marks.points[some], seed, frozen

    parts: list[_Done] = []
    with get_context("spawn").Pool(processes) as pool:
        for part in pool.imap(_work, jobs()):
            parts.append(part)
            progress(min(len(parts) * _CHUNK, len(seen)), len(seen))
    for part in parts:
        rejects |= part[2]
    return MaskedSet(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), rejects)


def digest(images: U8) -> str:
    """SHA-256 (hex) of the pixels in C order."""
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()


def freeze(made: MaskedSet) -> None:
    """Write the parameters and the checksum that freeze a rendering: to be committed, once."""
    FROZEN.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(FROZEN, params=made.params, seed=np.int64(FROZEN_SEED))
    FROZEN_SHA256.write_text(digest(made.images) + "\n", encoding="ascii")


def render_frozen(images: U8) -> MaskedSet:
    """Render the frozen masked PublicTest again, from the committed parameters; no landmarks needed.

    Args:
        images: u8 (32296, 48, 48), FER2013 as the data folder has it.

    Raises:
        SourceError: the pixels differ from those that were frozen.

    """
    with np.load(FROZEN, allow_pickle=False) as kept:
        params = kept["params"]
    made = np.stack([masks.render(images[p["index"]], p) for p in params])
    found, wanted = digest(made), FROZEN_SHA256.read_text(encoding="ascii").strip()
    if found != wanted:
        msg = (
            f"the frozen masked PublicTest renders to sha256 {found[:12]}…, not {wanted[:12]}…: FER2013's pixels, "
            "OpenCV or the mask code differ from what was frozen; figures would not be comparable"
        )
        raise SourceError(msg)
    return MaskedSet(made, params, {})


def reject_log(rejects: dict[int, str], labels: NDArray[np.uint8], names: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Count refusals by class and reason."""
    log: dict[str, dict[str, int]] = {}
    for number, name in enumerate(names):
        log[name] = dict(Counter(why for row, why in sorted(rejects.items()) if labels[row] == number))
    return log
