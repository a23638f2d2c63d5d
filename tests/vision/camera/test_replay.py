"""Replay: every frame, in order, with its own time; bad input gets a sentence."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from threading import Event
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from edge.errors import SourceError
from edge.vision.camera import replay as replay_module
from edge.vision.camera.multi import MultiCamera
from edge.vision.camera.pictures import read_still
from edge.vision.camera.replay import Replay

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
        writer.write(np.full((48, 64, 3), 20 * i % 256, np.uint8))
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


def noisy_film(path: Path, codec: str, count: int = 40) -> Path:
    """A film none of whose frames is small: a cut or a hole hits a known share of them."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10.0, (160, 120))
    assert writer.isOpened()
    rng = np.random.default_rng(3)
    for _ in range(count):
        writer.write(rng.integers(0, 256, (120, 160, 3), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(("name", "codec"), [("clip.avi", "MJPG"), ("clip.avi", "XVID"), ("clip.mkv", "mp4v")])
@pytest.mark.parametrize("zeros", [False, True], ids=["cut", "zeros"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_film_gives_its_good_frames_and_counts_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, codec: str, share: float, *, zeros: bool
) -> None:
    path = noisy_film(tmp_path / name, codec)
    whole = path.read_bytes()
    kept = int(len(whole) * share)
    good = frames(Replay(path))
    path.write_bytes(whole[:kept] + bytes(len(whole) - kept if zeros else 0))
    replay = Replay(path)
    seen = frames(replay)
    assert 10 * share <= len(seen) <= 40 * share + 1
    # Up to the damage every frame is what it was; the one that was cut in two may be a patchwork.
    assert all(np.array_equal(a.image, b.image) for a, b in zip(seen[:-1], good[: len(seen) - 1], strict=True))
    assert [f.index for f in seen] == list(range(len(seen)))
    assert replay.drops == {"undecodable": 40 - len(seen)}
    assert f'cause=undecodable why="{path}: {len(seen)} of 40 stated frames decoded"' in caplog.text


def test_an_mp4_goes_on_after_a_hole_that_is_counted_and_not_watched(tmp_path: Path) -> None:
    path = noisy_film(tmp_path / "clip.mp4", "mp4v", 100)
    data = bytearray(path.read_bytes())
    start, end = len(data) * 4 // 10, len(data) * 5 // 10
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    replay = Replay(path)
    seen = frames(replay)
    assert 85 <= len(seen) < 100
    assert seen[-1].t == pytest.approx(9.9, abs=0.01)
    assert replay.drops == {"undecodable": 100 - len(seen)}
    assert max(f.duration for f in seen) < 0.15, "the hole was not watched"
    assert max(b.t - a.t for a, b in pairwise(seen)) > 0.5


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_gif_is_counted_though_it_states_no_length(data: Path, tmp_path: Path, share: float) -> None:
    whole = (data / "clips" / "head-pose-face-detection-male.gif").read_bytes()
    path = tmp_path / "cut.gif"
    path.write_bytes(whole[: int(len(whole) * share)])
    replay = Replay(path)
    seen = frames(replay)
    assert 62 * share - 6 < len(seen) < 62 * share + 6
    assert replay.drops["undecodable"] >= 1


def portrait(size: int = 96) -> NDArray[np.integer[Any]]:
    """A picture with smooth and with busy parts, as cameras give."""
    wave = np.add.outer(np.sin(np.arange(size) / 9), np.cos(np.arange(size) / 5)) * 50 + 128
    noise = np.random.default_rng(1).integers(-20, 20, (size, size, 3))
    image: NDArray[np.uint8] = np.clip(wave[..., None] + noise, 0, 255).astype(np.uint8)
    return image


KINDS = {
    "png": (".png", portrait(), []),
    "png-grey": (".png", portrait()[..., 0], []),
    "png-16": (".png", portrait().astype(np.uint16) * 257, []),
    "jpeg": (".jpg", portrait(), []),
    "jpeg-grey": (".jpg", portrait()[..., 0], []),
    "jpeg-progressive": (".jpg", portrait(), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    "jpeg-restarts": (".jpg", portrait(), [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
    "webp": (".webp", portrait(), []),
    "bmp": (".bmp", portrait(), []),
    "tiff": (".tif", portrait(), []),
    "ppm": (".ppm", portrait(), []),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_picture_is_refused_wherever_it_is_cut(tmp_path: Path, kind: str) -> None:
    """OpenCV hands out no part of a picture; would a version do so, this fails."""
    ending, image, how = KINDS[kind]
    whole = cv2.imencode(ending, image, how)[1].tobytes()
    path = tmp_path / f"a{ending}"
    path.write_bytes(whole)
    assert read_still(path).shape == (96, 96, 3)
    for kept in {1, *range(2, len(whole) - 16, len(whole) // 60), *range(len(whole) - 16, len(whole))}:
        path.write_bytes(whole[:kept])
        with pytest.raises(SourceError, match="truncated"):
            read_still(path)


@pytest.mark.parametrize("kind", [k for k in KINDS if k.startswith(("png", "jpeg"))])
def test_a_picture_whose_tail_was_never_written_is_refused(tmp_path: Path, kind: str) -> None:
    """An interrupted copy that kept the length; libjpeg would show grey from there on and only warn."""
    ending, image, how = KINDS[kind]
    whole = cv2.imencode(ending, image, how)[1].tobytes()
    path = tmp_path / f"a{ending}"
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        kept = int(len(whole) * share)
        path.write_bytes(whole[:kept] + bytes(len(whole) - kept))
        with pytest.raises(SourceError, match="truncated"):
            read_still(path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_follows_a_whole_picture_does_not_matter(tmp_path: Path, kind: str) -> None:
    """Phones append a film to a picture, cameras pad."""
    ending, image, how = KINDS[kind]
    whole = cv2.imencode(ending, image, how)[1].tobytes()
    path = tmp_path / f"a{ending}"
    path.write_bytes(whole)
    alone = read_still(path)
    path.write_bytes(whole + bytes(2048) + b"\xff\xda film")
    assert np.array_equal(read_still(path), alone)


def test_a_thumbnail_inside_a_jpeg_is_not_its_end(tmp_path: Path) -> None:
    thumb = cv2.imencode(".jpg", portrait(32))[1].tobytes()
    whole = cv2.imencode(".jpg", portrait())[1].tobytes()
    segment = b"\xff\xe5" + (len(thumb) + 2).to_bytes(2) + thumb
    path = tmp_path / "a.jpg"
    path.write_bytes(whole[:2] + segment + whole[2:])
    assert read_still(path).shape == (96, 96, 3)
    path.write_bytes((whole[:2] + segment + whole[2:-1000]) + bytes(1000))
    with pytest.raises(SourceError, match="truncated"):
        read_still(path)


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


def test_a_paced_replay_goes_on_after_a_pause_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abcd":
        picture(tmp_path / f"{name}.png", np.zeros((4, 4, 3), np.uint8))
    now = [100.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(replay_module, "time", clock)
    replay = Replay(tmp_path, realtime=True, still_seconds=1.0)
    assert replay.read(0.1) is not None
    now[0] += 600
    MultiCamera([replay, replay], Event()).rested(300)  # both of them
    shown = []
    while not replay.ended:
        if replay.read(0.1) is not None:
            shown.append(now[0])
    assert shown == pytest.approx([701.0, 702.0, 703.0], abs=0.11)


def test_a_gif_keeps_its_own_times(data: Path) -> None:
    seen = frames(Replay(data / "clips" / "head-pose-face-detection-female-and-male.gif"))
    assert len(seen) == 56
    assert all(b.t > a.t for a, b in pairwise(seen))
    assert all(abs(b.t - a.t - a.duration) < 1e-6 for a, b in pairwise(seen))
    assert 2 < seen[-1].t + seen[-1].duration < 30


def test_looking_what_a_film_is_imports_no_other_plugins(tmp_path: Path) -> None:
    """Pillow would import all it has before it says that a film is no picture: a tenth of a service's start."""
    path = film(tmp_path / "film.mp4")
    code = (
        "import sys; from pathlib import Path; from edge.vision.camera.pictures import picture_kind\n"
        f"assert picture_kind(Path({str(path)!r})) is None\n"
        "print(*(name for name in sys.modules if name.endswith('ImagePlugin')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = {name.removeprefix("PIL.").removesuffix("ImagePlugin") for name in done.stdout.split()}
    assert names == {"Avif", "Bmp", "Gif", "Jpeg", "Png", "Ppm", "Tiff", "WebP"}
