"""Replay: every frame, in order, with its own time; bad input gets a sentence."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from edge.camera import open_camera
from edge.camera.replay import Replay, read_still
from edge.errors import SourceError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edge.types import Frame


def frames(replay: Replay, limit: int = 10_000) -> list[Frame]:
    out: list[Frame] = []
    while not replay.ended and len(out) < limit:
        frame = replay.read(0.0)
        assert frame is not None
        out.append(frame)
    replay.close()
    return out


def film(path: Path, count: int = 10, fps: float = 10.0) -> Path:
    """A lossless-enough film whose frame i has the grey level 20 × i."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (64, 48))
    assert writer.isOpened()
    for i in range(count):
        writer.write(np.full((48, 64, 3), 20 * i, np.uint8))
    writer.release()
    return path


def picture(path: Path, image: NDArray[np.integer[Any]]) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


def test_a_film_comes_whole_in_order_and_with_its_times(tmp_path: Path) -> None:
    seen = frames(Replay(film(tmp_path / "clip.mp4")))
    assert [f.index for f in seen] == list(range(10))
    assert np.allclose([float(f.image.mean()) for f in seen], [20 * i for i in range(10)], atol=4)
    assert np.allclose([f.t for f in seen], [i / 10 for i in range(10)], atol=1e-3)
    assert np.allclose([f.duration for f in seen], 0.1, atol=1e-3)
    assert not any(f.still for f in seen)


def test_a_loop_goes_on_where_the_clip_ended(tmp_path: Path) -> None:
    seen = frames(Replay(film(tmp_path / "clip.mp4", 4), loop=True), limit=10)
    assert len(seen) == 10
    assert [f.index for f in seen] == list(range(10))
    assert np.allclose([f.t for f in seen], [i / 10 for i in range(10)], atol=2e-3)
    assert np.allclose([float(f.image.mean()) for f in seen], [20 * (i % 4) for i in range(10)], atol=4)


def test_stills_last_as_long_as_they_are_told(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        picture(tmp_path / f"{name}.png", np.full((4, 4, 3), ord(name), np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    seen = frames(Replay(tmp_path, still_seconds=2.5))
    assert [(f.t, f.duration, f.still, int(f.image[0, 0, 0])) for f in seen] == [
        (0.0, 2.5, True, 97),
        (2.5, 2.5, True, 98),
        (5.0, 2.5, True, 99),
    ]


def test_one_bad_picture_of_a_folder_is_dropped_and_counted(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "b.png").write_bytes(b"")
    picture(tmp_path / "c.png", np.zeros((4, 4, 3), np.uint8))
    replay = Replay(tmp_path)
    assert [f.t for f in frames(replay)] == [0.0, 1.0]
    assert replay.drops == {"undecodable": 1}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.png", b"", "empty"),
        ("cut.png", b"\x89PNG\r\n\x1a\n\x00\x00", "truncated"),
        ("text.jpg", b"not a picture", "no picture"),
        ("empty.mp4", b"", "no video"),
        ("text.mp4", b"not a video at all", "no video"),
        ("cut.gif", b"GIF89a\x01", "no video|not one frame"),
    ],
)
def test_a_file_without_a_picture_is_refused_by_name(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError, match=says) as caught:
        Replay(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 66


def test_a_folder_of_bad_pictures_is_refused(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(SourceError, match="not one frame"):
        Replay(tmp_path)


def test_an_empty_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no picture in this folder"):
        Replay(tmp_path)
    with pytest.raises(SourceError, match="no such file"):
        Replay(tmp_path / "gone.mp4")


def test_a_truncated_mp4_has_lost_its_index_and_is_refused(tmp_path: Path) -> None:
    whole = film(tmp_path / "clip.mp4", 40).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="no video"):
        Replay(cut)


def test_a_partly_decodable_film_gives_its_good_frames_and_counts_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (320, 240))
    rng = np.random.default_rng(3)
    for _ in range(40):
        writer.write(rng.integers(0, 256, (240, 320, 3), np.uint8))
    writer.release()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    replay = Replay(path)
    seen = frames(replay)
    assert 10 < len(seen) < 30
    assert [f.index for f in seen] == list(range(len(seen)))
    assert replay.drops == {"undecodable": 40 - len(seen)}


@pytest.mark.parametrize("kind", [".png", ".jpg"])
def test_a_truncated_picture_is_refused_wherever_it_is_cut(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    whole = picture(tmp_path / f"a{kind}", noise).read_bytes()
    assert read_still(tmp_path / f"a{kind}").shape == (64, 64, 3)
    for share in (0.02, 0.1, 0.5, 0.9, 0.99):
        cut = tmp_path / f"cut{kind}"
        cut.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(SourceError, match="truncated"):
            read_still(cut)


@pytest.mark.parametrize(
    ("image", "value"),
    [
        (np.full((5, 7), 100, np.uint8), 100),
        (np.full((5, 7, 4), 100, np.uint8), 100),
        (np.full((5, 7), 100 * 256, np.uint16), 100),
        (np.full((5, 7, 3), 100 * 256, np.uint16), 100),
    ],
    ids=["grey", "rgba", "grey16", "bgr16"],
)
def test_every_kind_of_picture_becomes_bgr_u8(tmp_path: Path, image: NDArray[np.integer[Any]], value: int) -> None:
    got = read_still(picture(tmp_path / "a.png", image))
    assert (got.shape, got.dtype.name) == ((5, 7, 3), "uint8")
    assert (got == value).all()


def test_an_8k_picture_and_a_single_pixel_are_read(tmp_path: Path) -> None:
    assert read_still(picture(tmp_path / "big.jpg", np.zeros((4320, 7680, 3), np.uint8))).shape == (4320, 7680, 3)
    assert read_still(picture(tmp_path / "dot.png", np.zeros((1, 1, 3), np.uint8))).shape == (1, 1, 3)


def test_a_paced_replay_waits_for_the_time_of_a_frame(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png", np.zeros((4, 4, 3), np.uint8))
    replay = Replay(tmp_path, realtime=True, still_seconds=3600)
    assert replay.read(0.01) is not None
    assert replay.read(0.01) is None
    assert not replay.ended
    replay.close()
    replay.close()
    assert replay.ended


def test_kinds_that_are_not_built_are_refused() -> None:
    with pytest.raises(SourceError, match="not in this version"):
        open_camera("rtsp", "x", loop=False, realtime=False, still_seconds=1)
    with pytest.raises(SourceError, match=r"needs camera\.source"):
        open_camera("replay", None, loop=False, realtime=False, still_seconds=1)


def test_a_gif_keeps_its_own_times(data: Path) -> None:
    seen = frames(Replay(data / "clips" / "head-pose-face-detection-female-and-male.gif"))
    assert len(seen) == 56
    assert all(b.t > a.t for a, b in pairwise(seen))
    assert all(abs(b.t - a.t - a.duration) < 1e-6 for a, b in pairwise(seen))
    assert 2 < seen[-1].t + seen[-1].duration < 30
