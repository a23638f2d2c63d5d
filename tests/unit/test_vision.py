"""A run of the vision service, in process: the windows it commits, however it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edge.errors import StorageError
from edge.outbox import Outbox
from edge.runtime import read_vision, write_command
from edge.vision import Vision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edge.config import Config
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


def reports(config: Config) -> list[WindowReport]:
    with Outbox(config.storage.outbox) as outbox:
        return [row.report() for row in outbox.unsent()]


def total(report: WindowReport) -> int:
    return sum(cell or 0 for row in report.counts.values() for cell in row.values())


def test_a_run_commits_the_windows_of_its_clip(settings: Callable[..., Config], stills: Path) -> None:
    config = settings(stills, window={"seconds": 2.0}, privacy=EXACT)
    Vision(config).run()
    seen = reports(config)
    assert [r.seconds for r in seen] == [2.0, 2.0, 2.0]
    assert [total(r) for r in seen] == [2, 2, 0]
    assert [(r.coverage, r.scene) for r in seen] == [(1.0, "ok"), (1.0, "ok"), (0.0, "dark")]
    assert seen[0].counts == seen[1].counts  # the same people, the same answers
    figures = read_vision(config.storage.runtime)
    assert figures is not None
    assert figures.state == "ended"


def test_stop_commits_the_partial_window(settings: Callable[..., Config], stills: Path) -> None:
    config = settings(stills, camera={"loop": True}, privacy=EXACT)

    def seen(frame: Frame, _: Sequence[Track]) -> None:
        if frame.index == 2:
            service.stop()

    service = Vision(config, on_frame=seen)
    service.run()
    (only,) = reports(config)
    assert (only.seconds, total(only), only.coverage) == (3.0, 3, 1.0)


def test_an_outbox_that_cannot_be_written_keeps_the_windows_and_says_so(
    settings: Callable[..., Config], stills: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(stills, window={"seconds": 2.0})

    def full(*_: object) -> int:
        msg = "disk full"
        raise StorageError(msg)

    service = Vision(config)
    monkeypatch.setattr(service._outbox, "commit", full)
    with pytest.raises(StorageError, match="3 windows could not be recorded") as caught:
        service.run()
    assert caught.value.exit_code == 74


def test_a_disk_that_is_mended_takes_every_window_in_order(
    settings: Callable[..., Config], stills: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(stills, window={"seconds": 2.0}, privacy=EXACT)
    service = Vision(config)
    commit, calls = service._outbox.commit, []

    def once(close: object) -> int:
        calls.append(close)
        if len(calls) == 1:
            msg = "disk full"
            raise StorageError(msg)
        return commit(close)  # type: ignore[arg-type]

    monkeypatch.setattr(service._outbox, "commit", once)
    service.run()
    assert [total(r) for r in reports(config)] == [2, 2, 0]


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
