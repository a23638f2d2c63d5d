"""Other people's files: upright, told apart by content, and nothing invented. The same on every pin set."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from edge.config.load import _kind_of
from edge.errors import ConfigError, SourceError
from edge.vision.camera.container import _CLUSTER, _SEGMENT, _number, contents
from edge.vision.camera.jpeg import jpeg_ends
from edge.vision.camera.pictures import read_still
from edge.vision.camera.replay import Replay
from edge.vision.service import Vision

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.config import Config
    from edge.types import U8, Frame

CORNERS = np.zeros((48, 64, 3), np.uint8)
CORNERS[:24, :32] = 60, 120, 250
CORNERS[:24, 32:] = 250, 60, 20
CORNERS[24:, :32] = 20, 200, 60
"""BGR, no two corners alike: every turn and mirror shows."""


def frames(replay: Replay) -> list[Frame]:
    seen: list[Frame] = []
    while (frame := replay.read(0)) is not None:
        seen.append(frame)
    replay.close()
    return seen


def film(path: Path, codec: str = "mp4v", count: int = 12) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10.0, (64, 48))
    assert writer.isOpened()
    for i in range(count):
        writer.write(np.clip(CORNERS.astype(int) + i, 0, 255).astype(np.uint8))
    writer.release()
    return path


def images(count: int) -> list[Image.Image]:
    return [
        Image.fromarray(np.clip(CORNERS[..., ::-1].astype(int) + 5 * i, 0, 255).astype(np.uint8)) for i in range(count)
    ]


# ---- orientation


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_still_is_turned_once_as_its_exif_says(tmp_path: Path, ending: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    hows: dict[str, dict[str, Any]] = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}
    how = hows.get(ending, {})
    path = tmp_path / f"a.{ending}"
    images(1)[0].save(path, exif=exif, **how)
    laid = images(1)[0]
    laid.getexif()[0x0112] = orientation
    wanted = np.asarray(ImageOps.exif_transpose(laid))[..., ::-1]
    got = read_still(path)
    assert got.shape == wanted.shape
    assert np.abs(got.astype(int) - wanted).mean() < 3


@pytest.mark.parametrize(
    ("matrix", "turns"), [((1, 0, 0, 1), 0), ((0, 1, -1, 0), 1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 3)]
)
@pytest.mark.parametrize("ending", ["mp4", "mov"])
def test_a_phones_film_is_turned_once_as_its_header_says(
    tmp_path: Path, ending: str, matrix: tuple[int, int, int, int], turns: int
) -> None:
    path = film(tmp_path / f"a.{ending}")
    data = bytearray(path.read_bytes())
    a, b, c, d = (n << 16 for n in matrix)
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    seen = frames(Replay(path))
    wanted = np.rot90(CORNERS, -turns)
    assert len(seen) == 12
    assert seen[0].image.shape == wanted.shape
    assert np.abs(seen[0].image.astype(int) - wanted).mean() < 12


def test_an_animations_exif_turns_every_frame(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    first, *rest = images(4)
    first.save(tmp_path / "a.webp", save_all=True, append_images=rest, duration=100, lossless=True, exif=exif)
    assert {f.image.shape for f in frames(Replay(tmp_path / "a.webp"))} == {(64, 48, 3)}


# ---- still or film


@pytest.mark.parametrize("name", ["photo.jfif", "photo", "photo.mp4", "photo.png"])
def test_a_jpeg_is_a_still_by_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(cv2.imencode(".jpg", CORNERS)[1].tobytes())
    assert [(f.still, f.duration) for f in frames(Replay(path, still_seconds=3))] == [(True, 3)]


@pytest.mark.parametrize("name", ["film.jpg", "film", "film.tif"])
def test_a_film_is_a_film_by_any_name(tmp_path: Path, name: str) -> None:
    film(tmp_path / "a.mp4").rename(tmp_path / name)
    assert [f.still for f in frames(Replay(tmp_path / name))] == [False] * 12


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "mp4"])
def test_what_moves_by_one_frame_only_is_a_still(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    if ending == "mp4":
        film(path, count=1)
    else:
        images(1)[0].save(path, save_all=True)
    assert [(f.still, f.duration) for f in frames(Replay(path))] == [(True, 1.0)]


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_an_animation_is_a_film_with_its_own_times(tmp_path: Path, ending: str) -> None:
    first, *rest = images(5)
    how: dict[str, Any] = {"lossless": True} if ending == "webp" else {}
    first.save(tmp_path / f"a.{ending}", save_all=True, append_images=rest, duration=[100, 200, 300, 100, 100], **how)
    replay = Replay(tmp_path / f"a.{ending}")
    seen = frames(replay)
    assert [round(f.t, 3) for f in seen] == [0, 0.1, 0.3, 0.6, 0.7]
    assert not any(f.still for f in seen)
    assert all(
        np.abs(f.image.astype(int) - np.asarray(i)[..., ::-1]).mean() < 8 for f, i in zip(seen, images(5), strict=True)
    )
    assert replay.drops == {}


def test_an_animation_that_was_cut_is_counted(tmp_path: Path) -> None:
    first, *rest = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8)) for i in range(6)]
    path = tmp_path / "a.png"
    first.save(path, save_all=True, append_images=rest, duration=100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    replay = Replay(path)
    assert 1 < len(frames(replay)) < 6
    assert replay.drops == {"undecodable": 1}


def test_each_page_of_a_tiff_is_a_still(tmp_path: Path) -> None:
    first, *rest = images(3)
    first.save(tmp_path / "a.tif", save_all=True, append_images=rest)
    seen = frames(Replay(tmp_path / "a.tif", still_seconds=2))
    assert [(f.t, f.still) for f in seen] == [(0, True), (2, True), (4, True)]
    assert [np.array_equal(f.image, np.asarray(i)[..., ::-1]) for f, i in zip(seen, images(3), strict=True)] == [
        True
    ] * 3


def test_a_heic_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(SourceError, match=r"HEIC.*save it as JPEG"):
        Replay(tmp_path / "a.jpg")


def bomb(path: Path, side: int = 20_000) -> Path:
    """A PNG of few bytes and more pixels than anybody decodes."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", rows) + part(b"IEND", b""))
    return path


def test_a_picture_of_too_many_pixels_is_refused_and_in_a_folder_left_out(tmp_path: Path) -> None:
    large = bomb(tmp_path / "a.png")
    with pytest.raises(SourceError, match=r"a\.png: .* give a smaller picture"):
        Replay(large)
    cv2.imwrite(str(tmp_path / "b.png"), CORNERS)
    replay = Replay(tmp_path)
    assert len(frames(replay)) == 1
    assert replay.drops == {"undecodable": 1}


def test_an_edit_list_that_claims_four_billion_parts_holds_nobody_up(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 8
    content[at : at + 4] = b"\xff" * 4
    path.write_bytes(content)
    assert len(frames(Replay(path))) == 12


def test_what_a_folder_holds_besides_stills_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "photo").write_bytes(cv2.imencode(".jpg", CORNERS)[1].tobytes())
    film(tmp_path / "film.mp4")
    first, *rest = images(3)
    first.save(tmp_path / "moves.webp", save_all=True, append_images=rest, duration=100)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "deeper").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    assert len(frames(Replay(tmp_path))) == 1
    assert 'files="deeper, film.mp4, moves.webp, notes.txt, pipe.jpg"' in caplog.text
    (tmp_path / "photo").unlink()
    with pytest.raises(SourceError, match=r"no picture in this folder, only deeper, film\.mp4"):
        Replay(tmp_path)
    with pytest.raises(SourceError, match="neither a file nor a folder"):
        Replay(tmp_path / "pipe.jpg")


def test_a_source_in_which_nobody_could_vote_says_why(
    tmp_path: Path, settings: Callable[..., Config], portraits: dict[str, U8], caplog: pytest.LogCaptureFixture
) -> None:
    def told(source: Path) -> list[str]:
        caplog.clear()
        Vision(settings(source)).run()
        return [r.getMessage() for r in caplog.records if "no_vote_possible" in r.message]

    (line,) = told(film(tmp_path / "short.mp4", count=2))
    assert "2 " in line
    assert "a vote needs 3 looks 0.2 s apart" in line
    (tmp_path / "dark.png").write_bytes(cv2.imencode(".png", np.zeros((96, 96, 3), np.uint8))[1].tobytes())
    assert "1 dark" in told(tmp_path / "dark.png")[0]
    (tmp_path / "face.png").write_bytes(cv2.imencode(".png", next(iter(portraits.values())))[1].tobytes())
    assert told(tmp_path / "face.png") == []


# ---- nothing invented


def stretched(path: Path) -> None:
    """Give a Matroska film a varying rate: the frames of its second half are six times as far apart."""
    data = bytearray(path.read_bytes())
    at, n = 0, 0
    while at < len(data):
        mark, width = _number(bytes(data), at, keep=True)
        size, more = _number(bytes(data), at + width, keep=False)
        at += width + more
        if mark == 0x1549A966 or mark in {_SEGMENT, _CLUSTER}:  # Info too: it holds the duration
            continue
        if mark == 0x4489:
            data[at : at + size] = struct.pack(">d" if size == 8 else ">f", 12_000.0)
        if mark == 0xA3:
            time = 100 * n if n < 20 else 2000 + 500 * (n - 20)
            data[at + 1 : at + 3] = time.to_bytes(2)
            n += 1
        at += size
    assert n == 40
    path.write_bytes(data)


def test_a_varying_rate_loses_nothing(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", count=40)
    stretched(path)
    assert contents(path).whole
    replay = Replay(path)
    seen = frames(replay)
    assert len(seen) == 40
    assert seen[-1].t == pytest.approx(11.5, abs=0.01)
    assert replay.drops == {}
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    cut = Replay(path)
    assert len(frames(cut)) < 40
    assert cut.drops == {"undecodable": 1}, "how many are gone is not known"


def test_a_webm_that_states_no_count_loses_nothing(tmp_path: Path) -> None:
    path = film(tmp_path / "a.webm", "VP80", 40)
    replay = Replay(path)
    assert len(frames(replay)) == 40
    assert replay.drops == {}


def test_a_recording_whose_sizes_were_never_filled_in_is_whole(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", count=40)
    data = bytearray(path.read_bytes())
    at = data.index(_SEGMENT.to_bytes(4)) + 4
    data[at : at + 8] = b"\x01" + b"\xff" * 7
    path.write_bytes(data)
    replay = Replay(path)
    assert len(frames(replay)) == 40
    assert replay.drops == {}


def test_the_repeats_of_an_avi_are_not_lost(tmp_path: Path) -> None:
    path = film(tmp_path / "a.avi", "MJPG", 20)
    data = bytearray(path.read_bytes())
    at = data.index(b"00dc", data.index(b"movi"))
    for _ in range(9):  # before the tenth frame, three chunks that say: as before
        at += 8 + (size := int.from_bytes(data[at + 4 : at + 8], "little")) + size % 2
    data[at:at] = (b"00dc" + bytes(4)) * 3
    head = data.index(b"strh") + 40
    data[head : head + 4] = (23).to_bytes(4, "little")
    path.write_bytes(data)
    assert contents(path)[:2] == (23, 3)
    replay = Replay(path)
    assert len(frames(replay)) == 20
    assert replay.drops == {}


# ---- names


@pytest.mark.parametrize(
    "name", ["2026-11-21T10:00:00.mp4", "rtsp:x.mp4", "http:x", "%03d.mp4", os.fsdecode(b"caf\xe9.mp4")]
)
def test_a_path_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    film(tmp_path / "a.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert _kind_of(name) == "replay"
    assert len(frames(Replay(Path(name)))) == 12


def test_an_address_that_is_not_watched_is_refused_without_its_password() -> None:
    assert _kind_of("RTSP://u:hunter2@192.0.2.1/x") == "rtsp"
    with pytest.raises(ConfigError, match="only rtsp://") as caught:
        _kind_of("http://u:hunter2@192.0.2.1/x")
    assert "hunter2" not in str(caught.value)


# ---- JPEG


@pytest.mark.parametrize("filler", [b"\0", b"\0" * 700, b"\xff" * 9, b"\xff\x01", b"\xff\xff\x01", b"junk", b"\xff\0"])
def test_filler_between_segments_is_skipped_as_libjpeg_does(tmp_path: Path, filler: bytes) -> None:
    whole = cv2.imencode(".jpg", CORNERS)[1].tobytes()
    path = tmp_path / "a.jpg"
    at = 2
    while whole[at + 1] != 0xDA:
        path.write_bytes(whole[:at] + filler + whole[at:])
        assert np.array_equal(read_still(path), cv2.imdecode(np.frombuffer(whole, np.uint8), 1))
        at += 2 + int.from_bytes(whole[at + 2 : at + 4])
    assert not jpeg_ends(path.read_bytes()[:-2] + bytes(2)), "a tail that was never written still shows"
