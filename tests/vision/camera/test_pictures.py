"""Files of strangers: told by their content, upright by their header, whole where browsers show them whole.

Runs on either pin set: OpenCV 4.11 and 4.14 differ in what they do by themselves.
"""

from __future__ import annotations

import logging
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from PIL import Image

from edge.vision import track
from edge.vision.camera import replay
from edge.vision.camera.pictures import kind_of, read_still
from edge.vision.camera.replay import Replay

if TYPE_CHECKING:
    from edge.types import U8, Frame


def frames(source: Path) -> list[Frame]:
    playing = Replay(source)
    out = []
    while not playing.ended:
        frame = playing.read(0.0)
        assert frame is not None
        out.append(frame)
    playing.close()
    assert not playing.drops
    return out


def corners() -> U8:
    """A picture, 64 wide and 48 high, each quarter another colour: no turn or mirror image looks like another."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32], image[:24, 32:], image[24:, :32], image[24:, 32:] = (0, 0, 250), (0, 250, 0), (250, 0, 0), 250
    return image


def seen_as(upright: U8, orientation: int) -> U8:
    """How a camera stores what is seen upright, by the definition of the EXIF tag: where row 0 and column 0 lie."""
    turned: dict[int, Any] = {
        1: upright,
        2: upright[:, ::-1],
        3: cv2.rotate(upright, cv2.ROTATE_180),
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: cv2.rotate(upright, cv2.ROTATE_90_COUNTERCLOCKWISE),
        7: cv2.rotate(upright, cv2.ROTATE_180).swapaxes(0, 1),
        8: cv2.rotate(upright, cv2.ROTATE_90_CLOCKWISE),
    }
    return np.ascontiguousarray(turned[orientation], np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_is_turned_as_its_header_says_once(tmp_path: Path, form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{form.lower()}"
    Image.fromarray(seen_as(corners(), orientation)[:, :, ::-1]).save(path, format=form, exif=exif, quality=95)
    found = read_still(path)
    assert found.shape == (48, 64, 3)
    assert np.abs(found.astype(int) - corners()).mean() < 8
    (frame,) = frames(path)
    assert np.array_equal(frame.image, found)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_film_is_turned_as_its_header_says(tmp_path: Path, turn: int) -> None:
    path = tmp_path / "film.mp4"
    stored = seen_as(corners(), {0: 1, 90: 6, 180: 3, 270: 8}[turn])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, stored.shape[1::-1])
    for _ in range(6):
        writer.write(stored)
    writer.release()
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 36  # version and flags, then times, ids and layer (ISO 14496-12, 8.3.2)
    a, b = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[turn]
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, -b * one, a * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    for frame in frames(path):
        assert frame.image.shape == (48, 64, 3)
        assert np.abs(frame.image.astype(int) - corners()).mean() < 25


@pytest.mark.parametrize(
    ("name", "form", "count", "kind"),
    [
        ("photo.jfif", "JPEG", 1, "still"),
        ("photo", "PNG", 1, "still"),
        ("photo.mp4", "WEBP", 1, "still"),
        ("one.gif", "GIF", 1, "still"),
        ("many.gif", "GIF", 4, "film"),
        ("moving.webp", "WEBP", 4, "animation"),
        ("moving.png", "PNG", 4, "animation"),
        ("moving", "PNG", 4, "animation"),
        ("scan.tif", "TIFF", 3, "pages"),
        ("scan.tif", "TIFF", 1, "still"),
        ("phone.jpg", "MPO", 2, "still"),
    ],
)
def test_a_file_is_what_it_holds_whatever_it_is_called(
    tmp_path: Path, name: str, form: str, count: int, kind: str
) -> None:
    path = tmp_path / name
    first, *rest = (Image.fromarray(np.full((32, 40, 3), 20 + 40 * k, np.uint8)) for k in range(count))
    several: dict[str, Any] = {"save_all": True, "append_images": rest, "duration": 200} if rest else {}
    first.save(path, format=form, **several)
    assert kind_of(path) == kind
    seen = frames(path)
    assert len(seen) == (1 if kind == "still" else count)
    assert all(frame.still == (kind in {"still", "pages"}) for frame in seen)
    assert np.allclose([float(f.image.mean()) for f in seen], [20 + 40 * k for k in range(len(seen))], atol=6)
    if kind in {"animation", "film"}:
        assert np.allclose([f.t for f in seen], [0.2 * k for k in range(count)], atol=0.02)


def jpeg_segments(whole: bytes) -> list[bytes]:
    """The segments of a JPEG before its scan, and the rest."""
    at, parts = 2, []
    while whole[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(whole[at + 2 : at + 4])
        parts.append(whole[at:end])
        at = end
    return [*parts, whole[at:]]


@pytest.mark.parametrize(
    "between",
    [b"\xff" * 7, b"\x00\x00", b"\xff\x01", b"\xff\xd0", b"no marker"],
    ids=["fill", "zeros", "TEM", "RST", "text"],
)
def test_what_libjpeg_passes_over_between_segments_is_no_damage(tmp_path: Path, between: bytes) -> None:
    whole = cv2.imencode(".jpg", corners())[1].tobytes()
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8" + between.join(jpeg_segments(whole)))
    assert np.array_equal(read_still(path), cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_COLOR))


def film(path: Path, count: int = 20) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    for k in range(count):
        writer.write(np.full((48, 64, 3), 10 * k % 250, np.uint8))
    writer.release()
    return path


def test_a_matroska_of_varying_rate_loses_nothing(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mkv")
    data = bytearray(path.read_bytes())
    # SimpleBlock: id A3, length, track 1 (81), a signed time in ms within the cluster. The last ten come late.
    at, found = data.index(b"\x1f\x43\xb6\x75"), 0
    while (at := data.find(b"\xa3", at + 1)) >= 0 and found < 20:
        head = at + 10 - data[at + 1].bit_length()
        if data[head] == 0x81 and struct.unpack(">h", data[head + 1 : head + 3])[0] == 100 * found:
            data[head + 1 : head + 3] = struct.pack(">h", 100 * found + 400 * max(0, found - 9))
            found += 1
    assert found == 20
    at = data.index(b"\x44\x89\x88") + 3  # Duration, a double in ms
    data[at : at + 8] = struct.pack(">d", 6400.0)
    path.write_bytes(data)
    seen = frames(path)  # and no drop
    assert len(seen) == 20
    assert seen[-1].t == pytest.approx(5.9, abs=0.02)


@pytest.mark.parametrize("name", ["2026-11-21T10:00:00.mp4", "rtsp:x.mp4", "http:x", "100%d.mp4", "a b\u00e9.mp4"])
def test_a_path_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    film(tmp_path / "x.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(frames(Path(name))) == 20


def test_a_name_that_is_no_utf8_is_read_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    film(tmp_path / "x.mp4").rename(tmp_path / name)
    assert len(frames(tmp_path / name)) == 20
    folder = tmp_path / os.fsdecode(b"d\xe9")
    folder.mkdir()
    Image.fromarray(corners()).save(folder / "a.png")
    (folder / name).write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        assert len(frames(folder)) == 1
    assert "caf\\udce9.mp4" in caplog.text
    caplog.text.encode()


def test_a_film_too_short_for_a_vote_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(frames(film(tmp_path / "short.mp4", 2))) == 2
    assert "event=no_vote_possible" in caplog.text
    assert "2 frames in 0.20 s" in caplog.text
    caplog.clear()
    frames(film(tmp_path / "long.mp4", 10))
    Image.fromarray(corners()).save(tmp_path / "a.png")
    frames(tmp_path / "a.png")
    assert "no_vote_possible" not in caplog.text
    assert replay.VOTE_FRAMES == track.SIGHTINGS
    assert pytest.approx((track.SIGHTINGS - 1) * track.SPACING) == replay.VOTE_SECONDS
