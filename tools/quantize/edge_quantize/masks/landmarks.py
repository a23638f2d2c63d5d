"""Facial landmarks of small grey faces, found once and cached.

A mask is placed by the jaw, the nose ridge and the cheeks of the face underneath. MediaPipe's face mesh (468 points;
Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019, arXiv:1907.06724) finds
them even on faces of 48 pixels, provided that the face is enlarged and stands in a flat grey surround: its detector
expects faces that fill a fraction of the picture, and FER2013's fill all of it. Several such presentations are tried in
turn, the one that works most often first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from edge.errors import SourceError, install
from edge_quantize.datasets.fer2013 import save_arrays

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

MESH_POINTS: Final[dict[str, int]] = {
    # Left and right are the picture's. The jaw runs from the left temple over the chin to the right temple.
    "jaw_0": 234, "jaw_1": 132, "jaw_2": 172, "jaw_3": 150, "jaw_4": 176, "chin": 152,
    "jaw_6": 400, "jaw_7": 379, "jaw_8": 397, "jaw_9": 361, "jaw_10": 454,
    "bridge_0": 168, "bridge_1": 6, "bridge_2": 197, "bridge_3": 195, "nose_tip": 4, "subnasale": 2,
    "mouth_left": 61, "mouth_right": 291, "lip_top": 0, "lip_upper": 13, "lip_lower": 14, "lip_bottom": 17,
    "eye_left_outer": 33, "eye_left_inner": 133, "eye_right_inner": 362, "eye_right_outer": 263,
    "under_eye_left": 117, "under_eye_right": 346, "cheek_left": 50, "cheek_right": 280,
}  # fmt: skip
"""Name of each kept point and its number in the face mesh; the order is the order of the cached arrays."""

POINT: Final[dict[str, int]] = {name: row for row, name in enumerate(MESH_POINTS)}
"""Row of each named point in an array of landmarks."""

_CHUNK: Final = 256
_GREY: Final = 128


@dataclass(frozen=True, slots=True)
class Presentation:
    """One way of showing a face to the face mesh."""

    size: int
    """Width in pixels to which the face is enlarged."""
    pad: float
    """Grey surround on each side, as a fraction of `size`."""
    equalise: bool = False
    turn: float = 0.0
    """Rotation of the picture before the search, in degrees, counter-clockwise."""


CASCADE: Final[tuple[Presentation, ...]] = (
    Presentation(96, 0.5),
    Presentation(144, 0.25),
    Presentation(96, 0.5, equalise=True),
    Presentation(96, 1.0),
    Presentation(192, 0.5),
    Presentation(96, 0.5, turn=20.0),
    Presentation(96, 0.5, turn=-20.0),
)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Landmarks of N faces."""

    points: NDArray[np.float32]
    """(N, 31, 2) x and y in pixels of the source picture; zeros where nothing was found."""
    found: NDArray[np.bool_]
    """(N,) whether the points may be used."""


def open_face_mesh() -> Any:  # noqa: ANN401 - mediapipe has no types
    """Open MediaPipe's face mesh for single pictures.

    Raises:
        SourceError: mediapipe is not installed.

    """
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        from mediapipe.python.solutions import face_mesh
    except ImportError as error:
        message = f"placing masks needs mediapipe, which does not import ({error}): {install('host')}"
        raise SourceError(message) from error
    return face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1, min_detection_confidence=0.1)


def _matrix(height: int, width: int, view: Presentation) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Affine map (2, 3) from source pixels to the presented picture, and that picture's (width, height)."""
    factor = view.size / width
    margin = view.pad * view.size
    canvas = (round(view.size + 2 * margin), round(height * factor + 2 * margin))
    turn = cv2.getRotationMatrix2D((canvas[0] / 2, canvas[1] / 2), view.turn, 1.0)
    # The half pixels keep pixel centres on pixel centres when enlarging.
    shift = margin + (factor - 1) / 2
    place = np.array([[factor, 0, shift], [0, factor, shift], [0, 0, 1]], dtype=np.float64)
    return np.asarray(turn @ place, dtype=np.float64), canvas


def _plausible(points: NDArray[np.float64], height: int, width: int) -> bool:
    """Tell a face that fills the picture from a false find: upright, of a believable size, eyes inside."""
    eyes = points[[POINT["eye_left_outer"], POINT["eye_right_outer"]]]
    if not (np.all(eyes > -0.1 * width) and np.all(eyes[:, 0] < 1.1 * width) and np.all(eyes[:, 1] < height)):
        return False
    span = points[POINT["jaw_10"]] - points[POINT["jaw_0"]]
    drop = points[POINT["chin"]] - points[POINT["bridge_0"]]
    jaw_width = float(np.hypot(*span))
    face_height = float(np.hypot(*drop))
    if not 0.25 * width < jaw_width < 1.6 * width or not 0.25 * width < face_height < 1.6 * width:
        return False
    # Chin below the bridge, and the right temple right of the left one: not upside down, tilted by 60 degrees at most.
    return bool(drop[1] > 0.5 * face_height and span[0] > 0.5 * jaw_width)


def find(mesh: Any, image: NDArray[np.uint8]) -> NDArray[np.float32] | None:  # noqa: ANN401
    """Find the landmarks of the face that fills a picture.

    Args:
        mesh: what `open_face_mesh` gave.
        image: u8, (H, W) grey or (H, W, 3) BGR.

    Returns:
        (31, 2) x and y in pixels of the picture, or None when no presentation shows a plausible face.

    """
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    height, width = grey.shape[:2]
    for view in CASCADE:
        matrix, canvas = _matrix(height, width, view)
        shown = cv2.equalizeHist(grey) if view.equalise else grey
        shown = cv2.warpAffine(shown, matrix, canvas, flags=cv2.INTER_CUBIC, borderValue=(_GREY,))
        faces = mesh.process(cv2.cvtColor(shown, cv2.COLOR_GRAY2RGB)).multi_face_landmarks
        if not faces:
            continue
        landmark = faces[0].landmark
        seen = np.array([(landmark[n].x, landmark[n].y) for n in MESH_POINTS.values()], dtype=np.float64)
        seen = seen * canvas - 0.5
        back = cv2.invertAffineTransform(matrix)
        points = seen @ back[:, :2].T + back[:, 2]
        if _plausible(points, height, width):
            kept: NDArray[np.float32] = points.astype(np.float32)
            return kept
    return None


def find_in_photo(mesh: Any, photo: NDArray[np.uint8]) -> NDArray[np.float32] | None:  # noqa: ANN401
    """Find the landmarks (31, 2), in pixels, of the one face in a photograph (u8, (H, W, 3) BGR) of any size."""
    faces = mesh.process(cv2.cvtColor(photo, cv2.COLOR_BGR2RGB)).multi_face_landmarks
    if not faces:
        return find(mesh, photo)
    landmark = faces[0].landmark
    points = np.array([(landmark[n].x, landmark[n].y) for n in MESH_POINTS.values()], dtype=np.float64)
    return (points * (photo.shape[1], photo.shape[0]) - 0.5).astype(np.float32)


_mesh: Any = None


def _start_worker() -> None:
    global _mesh  # noqa: PLW0603 - one face mesh a process: it cannot be sent between them
    cv2.setNumThreads(1)
    _mesh = open_face_mesh()


def _work(job: tuple[int, NDArray[np.uint8]]) -> tuple[int, NDArray[np.float32], NDArray[np.bool_]]:
    start, faces = job
    points = np.zeros((len(faces), len(POINT), 2), np.float32)
    found = np.zeros(len(faces), np.bool_)
    for row, face in enumerate(faces):
        marks = find(_mesh, face)
        if marks is not None:
            points[row], found[row] = marks, True
    return start, points, found


def load(path: Path) -> Landmarks:
    """Read a finished cache.

    Raises:
        SourceError: the file is missing, unreadable, unfinished or of another version.

    """
    try:
        with np.load(path) as cache:
            points, found, done = cache["points"], cache["found"], cache["done"]
    except (OSError, ValueError, KeyError) as error:
        message = f"no landmarks in {path} ({error}): run 'edge-quantize masks' first"
        raise SourceError(message) from error
    if points.shape[1:] != (len(POINT), 2) or not done.all():
        message = f"the landmarks in {path} are unfinished or of another version: run 'edge-quantize masks' again"
        raise SourceError(message)
    return Landmarks(points, found)


def find_all(
    images: NDArray[np.uint8],
    cache: Path,
    *,
    processes: int = 2,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Landmarks:
    """Find the landmarks of many faces, going on where an interrupted run stopped.

    Args:
        images: (N, 48, 48) u8.
        cache: the .npz file that is read if it fits, and written every few seconds.
        processes: worker processes.
        progress: called with (faces done, N).

    """
    total = len(images)
    points = np.zeros((total, len(POINT), 2), np.float32)
    found = np.zeros(total, np.bool_)
    done = np.zeros(total, np.bool_)
    if cache.exists():
        with np.load(cache) as old:
            if old["points"].shape == points.shape and "done" in old:
                points, found, done = old["points"], old["found"], old["done"]
    if done.all():
        return Landmarks(points, found)

    def jobs() -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for start in range(0, total, _CHUNK):
            if not done[start : start + _CHUNK].all():
                yield start, images[start : start + _CHUNK]

    # 'spawn': a forked face mesh inherits locks of threads that do not exist in the child.
    with get_context("spawn").Pool(processes, initializer=_start_worker) as pool:
        for number, (start, some_points, some_found) in enumerate(pool.imap_unordered(_work, jobs())):
            points[start : start + _CHUNK] = some_points
            found[start : start + _CHUNK] = some_found
            done[start : start + _CHUNK] = True
            if number % 8 == 0:
                save_arrays(cache, points=points, found=found, done=done)
            progress(int(done.sum()), total)
    save_arrays(cache, points=points, found=found, done=done)
    return Landmarks(points, found)
