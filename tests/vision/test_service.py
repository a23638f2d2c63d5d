"""A run of the vision service, in process: the windows it commits, however it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from edge.errors import StorageError
from edge.outbox.outbox import Outbox
from edge.outbox.runtime_files import read_command, read_vision, write_command
from edge.outbox.writer import OutboxWriter
from edge.vision.detect.haar import Haar
from edge.vision.service import Vision
from tests.support.appliance import vision
from tests.support.processes import on_one_day

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edge.config import Config
    from edge.outbox.rows import Row
    from edge.types import U8, Frame, Track, WindowReport

EXACT: dict[str, object] = {"noise": "off", "min_count": 1}


@pytest.fixture
def stills(tmp_path: Path, portraits: dict[str, U8]) -> Path:
    """Six pictures: four portraits, then darkness twice."""
    folder = tmp_path / "stills"
    folder.mkdir()
    for i, who in enumerate(("astronaut", "hopper", "astronaut", "hopper")):
        cv2.imwrite(str(folder / f"{i}.png"), portraits[who])
    for i in (4, 5):
        cv2.imwrite(str(folder / f"{i}.png"), np.zeros((64, 64, 3), np.uint8))
    return folder


def rows(config: Config) -> list[Row]:
    with Outbox(config.storage.outbox) as outbox:
        return outbox.unsent()


def reports(config: Config) -> list[WindowReport]:
    return [row.report() for row in rows(config)]


def total(report: WindowReport) -> int:
    return sum(cell or 0 for row in report.counts.values() for cell in row.values())


def test_a_run_commits_the_windows_of_its_clip(settings: Callable[..., Config], stills: Path) -> None:
    config = settings(stills, window={"seconds": 2.0}, privacy=EXACT)
    Vision(config).run()
    seen = reports(config)
    assert [r.seconds for r in seen] == [2.0, 2.0, 2.0]
    assert [total(r) for r in seen] == [2, 2, 0]
    assert set(seen[2].counts["unmasked"].values()) == {None}, "unknown, not zero"
    assert [(r.coverage, r.scene) for r in seen] == [(1.0, "ok"), (1.0, "ok"), (0.0, "dark")]
    assert seen[0].counts == seen[1].counts  # the same people, the same answers
    figures = read_vision(config.storage.runtime)
    assert figures is not None
    assert figures.state == "ended"


def test_a_spent_budget_sends_windows_out_empty_and_outlives_a_restart(
    settings: Callable[..., Config], stills: Path
) -> None:
    on_one_day()
    config = settings(stills, window={"seconds": 2.0}, privacy={"daily_epsilon": 1.5, "min_count": 1})
    Vision(config).run()
    first, second, dark = reports(config)
    assert [r.privacy.exhausted for r in (first, second, dark)] == [False, True, True]
    assert {v for row in second.counts.values() for v in row.values()} == {None}
    figures = read_vision(config.storage.runtime)
    assert figures is not None
    assert figures.privacy is not None
    assert figures.privacy.model_dump() == {"epsilon": 1, "spent_today": 1, "day_bound": 1, "exhausted": True}
    Vision(config).run()
    assert [r.privacy.exhausted for r in reports(config)[3:]] == [True] * 3


def test_stop_commits_the_partial_window(settings: Callable[..., Config], stills: Path) -> None:
    config = settings(stills, camera={"loop": True}, privacy=EXACT)

    def seen(frame: Frame, _: Sequence[Track]) -> None:
        if frame.index == 2:
            service.stop()

    service = Vision(config, on_frame=seen)
    service.run()
    (only,) = reports(config)
    assert (only.seconds, total(only), only.coverage) == (3.0, 3, 1.0)


def test_a_second_one_beside_it_is_refused(settings: Callable[..., Config], stills: Path) -> None:
    config = settings(stills, privacy=EXACT)
    service = Vision(config)
    with pytest.raises(StorageError, match="another `edge vision` runs: stop that one"):
        Vision(config)
    service.run()
    Vision(config).run()
    assert len({row.boot_id for row in rows(config)}) == 2, "what was refused left no trace"


def test_an_outbox_that_cannot_be_written_keeps_the_windows_and_says_so(
    settings: Callable[..., Config], stills: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(stills, window={"seconds": 2.0})

    def full(*_: object) -> int:
        msg = "disk full"
        raise StorageError(msg)

    service = Vision(config)
    monkeypatch.setattr(OutboxWriter, "commit", full)
    with pytest.raises(StorageError, match="3 windows could not be recorded") as caught:
        service.run()
    assert caught.value.exit_code == 74


def test_a_disk_that_is_mended_takes_every_window_in_order(
    settings: Callable[..., Config], stills: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(stills, window={"seconds": 2.0}, privacy=EXACT)
    service = Vision(config)
    commit = OutboxWriter.commit
    calls: list[WindowReport] = []

    def once(outbox: OutboxWriter, report: WindowReport, *of: Any) -> int:  # noqa: ANN401 - handed on
        calls.append(report)
        if len(calls) == 1:
            msg = "disk full"
            raise StorageError(msg)
        return commit(outbox, report, *of)

    monkeypatch.setattr(OutboxWriter, "commit", once)
    service.run()
    assert [total(r) for r in reports(config)] == [2, 2, 0]
    assert calls[0] is calls[1], "drawn once"


def test_a_pause_holds_the_replay_and_a_resume_goes_on(settings: Callable[..., Config], stills: Path) -> None:
    config = settings(stills, privacy=EXACT)
    config.storage.runtime.mkdir()
    write_command(config.storage.runtime, "pause")
    indices: list[int] = []
    service = Vision(config, on_frame=lambda frame, _: indices.append(frame.index))
    rest, rests = service._rest, []

    def resting() -> None:
        assert not indices  # nothing is seen while paused
        rests.append(1)
        if len(rests) == 1:
            write_command(config.storage.runtime, "resume")
        rest()

    service._rest = resting  # type: ignore[method-assign]
    service.run()
    assert rests
    assert indices == list(range(6))
    (only,) = reports(config)
    assert (only.seconds, total(only)) == (6.0, 4)


def test_a_pause_from_before_a_power_cut_holds(settings: Callable[..., Config], stills: Path) -> None:
    config = settings(stills)
    with vision(config.storage.outbox.parent) as outbox:
        outbox.paused = True
    seen: list[int] = []
    service = Vision(config, on_frame=lambda frame, _: seen.append(frame.index))
    rest = service._rest

    def resting() -> None:
        assert not seen
        write_command(config.storage.runtime, "resume")
        rest()

    service._rest = resting  # type: ignore[method-assign]
    service.run()
    assert seen == list(range(6))
    assert read_command(config.storage.runtime), "it has rested"


def crowd(portrait: U8, columns: int, rows: int, cell: int) -> U8:
    """A picture of one person many times over, each head filling most of its cell."""
    (box,) = Haar(rotations=(0.0,)).detect(portrait, thorough=True)
    (x, y), reach = (round(c) for c in box.centre), round(box.w)
    head = portrait[max(0, y - reach) : y + reach, max(0, x - reach) : x + reach]
    face = cv2.resize(head, (cell, cell), interpolation=cv2.INTER_AREA)
    return np.tile(face, (rows, columns, 1)).astype(np.uint8)


def test_forty_faces_at_once_are_forty_votes(
    settings: Callable[..., Config], portraits: dict[str, U8], tmp_path: Path
) -> None:
    source = tmp_path / "crowd.png"
    cv2.imwrite(str(source), crowd(portraits["astronaut"], 8, 5, 160))
    config = settings(source, privacy=EXACT, detector={"rotations": (0.0,)})
    tracks: list[int] = []
    Vision(config, on_frame=lambda _, seen: tracks.append(len(seen))).run()
    assert tracks == [40]
    (only,) = reports(config)
    assert total(only) == 40
    figures = read_vision(config.storage.runtime)
    assert figures is not None
    assert figures.drops == {}


def test_faces_too_small_to_read_are_counted_not_classified(
    settings: Callable[..., Config], portraits: dict[str, U8], tmp_path: Path
) -> None:
    source = tmp_path / "far.png"
    cv2.imwrite(str(source), crowd(portraits["astronaut"], 2, 1, 60))
    config = settings(source, privacy=EXACT, detector={"rotations": (0.0,), "min_face": 20})
    Vision(config).run()
    (only,) = reports(config)
    assert total(only) == 0
    figures = read_vision(config.storage.runtime)
    assert figures is not None
    assert figures.development is not None
    assert figures.development.drops == {"too_small": 1}
    assert figures.drops == {}, "published, it would tell that somebody was there"


@pytest.mark.parametrize("masked", [0, 1])
def test_two_cameras_count_apart_and_a_masked_face_is_nobody(
    settings: Callable[..., Config], stills: Path, masked: int
) -> None:
    config = settings(stills, privacy=EXACT, detector={"rotations": (0.0,)})
    everywhere = (((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),)
    (camera,) = config.camera
    both = [camera, camera]
    both[masked] = camera.model_copy(update={"privacy_masks": everywhere})
    config = config.model_copy(update={"camera": tuple(both)})
    pictures: list[tuple[int, int, int]] = []
    Vision(config, on_frame=lambda f, tracks: pictures.append((f.camera, len(tracks), int(f.image.max())))).run()
    (only,) = reports(config)
    assert total(only) == 4
    assert {n for camera, n, _ in pictures if camera == masked} == {0}
    assert {top for camera, _, top in pictures if camera == masked} == {0}
    # Four of six pictures of one camera are ok, and a camera that may see nothing covers nothing.
    assert (only.seconds, only.scene) == (6.0, "covered")
    assert only.coverage == 0.35, "4 / 12, in twentieths"
