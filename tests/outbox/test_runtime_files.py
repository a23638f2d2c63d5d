"""The two runtime files: whole or absent, on schema or refused; and the clock's verdict."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

import edge.process.clock
from edge.errors import StorageError
from edge.outbox.runtime_files import (
    COMMAND_FILE,
    VISION_FILE,
    Development,
    InvokeMs,
    VisionFile,
    read_command,
    read_vision,
    write_command,
    write_vision,
)
from edge.process.clock import FRESH_S, ClockError, SystemClock, clock_error, kernel_says_synced, mark

if TYPE_CHECKING:
    from pathlib import Path

FIGURES = VisionFile(
    boot_id="a" * 32,
    state="running",
    updated=12.5,
    backend="cpu",
    rate="ok",
    invoke_ms=InvokeMs(p50=None, p95=None),
    drops={"camera_lost": 3},
    restarts=0,
    scene="ok",
    time_quality="synced",
    paused=False,
    versions={"edge": "0"},
)


def test_vision_file_round_trip_and_rights(tmp_path: Path) -> None:
    assert read_vision(tmp_path) is None
    write_vision(tmp_path, FIGURES)
    assert read_vision(tmp_path) == FIGURES
    assert stat.S_IMODE((tmp_path / VISION_FILE).stat().st_mode) == 0o640
    verbose = FIGURES.model_copy(
        update={"development": Development(frames=3, faces=2, routes={"masked": 1}, stage_ms={"detect": 2.5})}
    )
    write_vision(tmp_path, verbose)
    assert read_vision(tmp_path) == verbose
    assert [p.name for p in tmp_path.iterdir()] == [VISION_FILE]


def test_a_clip_that_is_looped_for_months_has_figures(tmp_path: Path) -> None:
    many = Development(frames=10**10, faces=10**11, routes={"masked": 10**11}, stage_ms={}, drops={"too_small": 10**10})
    write_vision(tmp_path, FIGURES.model_copy(update={"development": many}))
    found = read_vision(tmp_path)
    assert found is not None
    assert found.development == many


def test_undeclared_or_wrong_figures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        VisionFile.model_validate({**FIGURES.model_dump(), "track": 7})
    for text in (
        "",
        "{",
        "[]",
        FIGURES.model_dump_json().replace("cpu", "cpu\\u0000").replace('"ok"', '"fast"'),
    ):
        (tmp_path / VISION_FILE).write_text(text)
        with pytest.raises(StorageError, match=r"vision\.json is not what it should be .* delete it"):
            read_vision(tmp_path)


def test_commands_count_and_a_pause_outlives_an_identify(tmp_path: Path) -> None:
    assert read_command(tmp_path) is None
    states = [(c.number, c.command, c.paused) for c in (write_command(tmp_path, n) for n in ("identify", "pause"))]
    states += [(c.number, c.command, c.paused) for c in (write_command(tmp_path, n) for n in ("identify", "resume"))]
    assert states == [(1, "identify", False), (2, "pause", True), (3, "identify", True), (4, "resume", False)]
    (tmp_path / COMMAND_FILE).write_text("torn")
    assert write_command(tmp_path, "pause").paused
    found = read_command(tmp_path)
    assert found is not None
    assert found.paused


def test_a_folder_that_is_missing_or_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot be written .*storage\.runtime"):
        write_vision(tmp_path / "missing", FIGURES)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be read"):
        read_vision(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError):
        write_vision(tmp_path, FIGURES)


def test_where_the_kernel_may_not_be_asked_a_fresh_marker_is_its_answer(tmp_path: Path) -> None:
    marker = tmp_path / "clock-synced"
    clock = SystemClock(marker, synced=lambda: None)
    assert clock.time_quality() == "unsynced"
    marker.touch()
    assert clock.time_quality() == "synced"
    for age in (FRESH_S + 1, -FRESH_S - 1):  # nobody touches it any more; the clock was set back
        os.utime(marker, (time.time() - age,) * 2)
        assert clock.time_quality() == "holdover"


def test_how_well_the_clock_is_synced_crosses_into_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker, error = tmp_path / "clock-synced", ClockError(-0.25e-3, 0.5)
    monkeypatch.setattr(edge.process.clock, "_kernel", lambda: (False, error))
    mark(marker)
    assert not marker.exists()
    assert clock_error(marker) is None, "an unset clock knows no error"
    monkeypatch.setattr(edge.process.clock, "_kernel", lambda: (True, error))
    mark(marker)
    monkeypatch.setattr(edge.process.clock, "_kernel", lambda: None)
    assert clock_error(marker) == error
    marker.write_text("")  # touched by a service that could ask
    assert clock_error(marker) is None


def test_a_marker_that_root_made_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.process.clock, "_kernel", lambda: (True, ClockError(0.0, 0.5)))
    marker, elsewhere = tmp_path / "clock-synced", tmp_path / "elsewhere"
    elsewhere.write_text("another's")
    elsewhere.chmod(0o400)
    os.link(elsewhere, marker)
    mark(marker)
    assert elsewhere.read_text() == "another's", "never written into"
    assert marker.read_text() == "0.000000000 0.500000"


def test_asking_leaves_no_marker(tmp_path: Path) -> None:
    marker = tmp_path / "clock-synced"
    assert SystemClock(marker, remember=False, synced=lambda: True).time_quality() == "synced"
    assert not marker.exists()


def test_clock_remembers_a_sync_for_all_services(tmp_path: Path) -> None:
    assert kernel_says_synced() in {True, False, None}
    marker = tmp_path / "clock-synced"
    state = [False]
    first, second = (SystemClock(marker, synced=lambda: state[0]) for _ in range(2))
    assert first.time_quality() == "unsynced"
    state[0] = True
    assert first.time_quality() == "synced"
    state[0] = False
    assert first.time_quality() == second.time_quality() == "holdover"
    marker.unlink()
    assert second.time_quality() == "unsynced"
    assert len(first.kernel_boot_id) == 32
    assert first.utcnow().tzinfo is not None
    assert first.monotonic() <= first.monotonic()
