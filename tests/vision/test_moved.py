"""An outbox of another site or id (a changed configuration, an image of another kiosk's card) is not gone on with."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge.config import StorageSection
from edge.errors import StorageError
from edge.outbox.outbox import Outbox
from edge.outbox.writer import OutboxWriter
from edge.types import Vote
from edge.vision.privacy import Policy
from edge.vision.recorder import Recorder
from edge.vision.service import Vision
from tests.support.appliance import closing
from tests.vision.test_ledger import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.config import Config
    from edge.outbox.rows import Key

HAPPY = [Vote("unmasked", "happy")] * 3
HELD_BACK = Policy("off", Fraction(1), 10)
HERE, OTHER_ID, OTHER_SITE = "lobby/kiosk-01", "lobby/kiosk-02", "arcade/kiosk-01"
TODAY = Clock().now.date().isoformat()


def recorder(folder: Path, owner: str, clock: Clock | None = None) -> Recorder:
    """Of a run that has begun."""
    made = Recorder(StorageSection(outbox=folder / "outbox.db", runtime=folder), clock or Clock(), "policy", owner)
    made.begin()
    return made


def record(folder: Path, owner: str, windows: int = 1) -> str:
    """A run of so many windows; its boot_id."""
    run = recorder(folder, owner)
    for _ in range(windows):
        run.put(closing(HAPPY))
    run.close()
    return run.boot_id


def rows(file: Path) -> list[tuple[Key, Key | None]]:
    """Key and predecessor of each row that is unsent."""
    with Outbox(file) as outbox:
        return [(row.key, row.prev) for row in outbox.unsent()]


@pytest.mark.parametrize("owner", [OTHER_ID, OTHER_SITE])
def test_it_is_put_aside_whole_and_a_new_one_begins(tmp_path: Path, owner: str) -> None:
    before = record(tmp_path, HERE, 2)
    run = record(tmp_path, owner)
    # Of another device nothing is claimed; the same one elsewhere still says how far it had come.
    assert rows(tmp_path / "outbox.db") == [((run, 1), (before, 2) if owner == OTHER_SITE else None)]
    assert rows(tmp_path / "outbox.db.moved-1") == [((before, 1), None), ((before, 2), None)]
    with Outbox(tmp_path / "outbox.db") as outbox, Outbox(tmp_path / "outbox.db.moved-1") as moved:
        assert (outbox.owner, moved.owner) == (owner, HERE)
        assert outbox.between(before, 1, 2) == [], "nothing of it can be asked for"
    assert not (tmp_path / "outbox.generation").exists(), "it is not damaged"
    again = record(tmp_path, owner)
    assert rows(tmp_path / "outbox.db")[1:] == [((again, 1), (run, 1))]


def test_a_name_that_does_not_stay_leaves_the_outbox_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A trial of another site that is undone, night after night: more of them than files are kept."""
    caplog.set_level("INFO")
    before = record(tmp_path, HERE, 2)
    tried = [record(tmp_path, owner) for _ in range(6) for owner in (OTHER_SITE, HERE)]
    found = rows(tmp_path / "outbox.db")
    assert [key for key, _ in found] == [(before, 1), (before, 2), *((run, 1) for run in tried[1::2])]
    assert [prev for _, prev in found[2:]] == [(before, 2), *((run, 1) for run in tried[1:-2:2])]
    (aside,) = [file for file in tmp_path.glob("outbox.db.moved-*") if not file.name.endswith(("-wal", "-shm"))]
    assert [key for key, _ in rows(aside)] == [(run, 1) for run in tried[::2]]
    assert "event=outbox_back" in caplog.text


def test_of_what_lies_aside_damage_and_other_names_are_passed_over(tmp_path: Path) -> None:
    before = record(tmp_path, HERE)
    record(tmp_path, OTHER_ID)
    (tmp_path / "outbox.db.moved-7").write_bytes(b"no database" * 1000)
    record(tmp_path, OTHER_SITE)
    run = record(tmp_path, HERE)
    assert [key for key, _ in rows(tmp_path / "outbox.db")] == [(before, 1), (run, 1)]
    assert (tmp_path / "outbox.db.moved-7").exists()


def test_an_outbox_of_an_older_version_is_whoevers_it_lies_with(tmp_path: Path) -> None:
    before = record(tmp_path, HERE)
    with OutboxWriter(tmp_path / "outbox.db") as outbox:
        outbox._db.execute("DELETE FROM meta WHERE name = 'owner'")
    run = record(tmp_path, OTHER_ID)
    assert rows(tmp_path / "outbox.db") == [((before, 1), None), ((run, 1), (before, 1))]
    record(tmp_path, HERE)
    assert (tmp_path / "outbox.db.moved-1").exists()


def test_the_days_budget_goes_on_and_what_was_held_back_does_not(tmp_path: Path) -> None:
    run = recorder(tmp_path, HERE)
    run.put(closing(HAPPY, HELD_BACK))
    run.ledger.spend(TODAY, Fraction(5))
    run.ledger.save(())
    run.close()
    assert run.ledger.held["unmasked"]["happy"] == (3, 0)
    for owner in (OTHER_ID, OTHER_SITE, HERE):
        run = recorder(tmp_path, owner)
        assert run.ledger.spent(TODAY) == 5, "a name gives nobody a budget"
        assert run.ledger.held == {}, "it was counted elsewhere"
        run.close()


@pytest.mark.parametrize("recorded", [True, False])
def test_a_window_that_waits_in_the_ledger_is_not_recorded_elsewhere(tmp_path: Path, *, recorded: bool) -> None:
    """A power cut right after its commit leaves it there too."""
    clock = Clock()
    run = recorder(tmp_path, HERE, clock)
    waiting = run.ledger.closed(*closing(HAPPY)({}, None))
    if recorded:
        assert run._outbox is not None
        run._outbox.commit(waiting.report)
    run.ledger.save([waiting])
    run.close()
    moved = recorder(tmp_path, OTHER_ID, clock)
    assert moved.waiting == 0
    moved.close()
    assert rows(tmp_path / "outbox.db") == []
    assert len(rows(tmp_path / "outbox.db.moved-1")) == recorded


@pytest.mark.parametrize("renamed", range(4))
def test_a_power_cut_on_the_way_keeps_nothing_of_the_old_name_and_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    """After so many of -wal, -shm and database are renamed."""
    disk, later = tmp_path / "disk", tmp_path / "later"
    disk.mkdir()
    run = recorder(disk, HERE)
    rename, done = Path.rename, 0

    def cut(path: Path, target: Path) -> Path:
        nonlocal done
        if not path.name.startswith("outbox.db"):  # the ledger's
            return rename(path, target)
        if done == renamed == 0 or (rename(path, target) and (done := done + 1) == renamed):
            shutil.copytree(disk, later)  # what the card has
            msg = "the power goes"
            raise StorageError(msg)
        return target

    with Outbox(disk / "outbox.db"):  # the publisher, for whom SQLite leaves all in the -wal
        run.put(closing(HAPPY, HELD_BACK))
        run.close()
        monkeypatch.setattr(Path, "rename", cut)
        with pytest.raises(StorageError, match="the power goes"):
            recorder(disk, OTHER_ID)
        monkeypatch.undo()
    again = recorder(later, OTHER_ID)
    assert (again.ledger.held, again.waiting) == ({}, 0)
    again.close()
    assert rows(later / "outbox.db") == []
    assert len(rows(later / "outbox.db.moved-1")) == 1


def test_a_pause_outlives_a_new_name(tmp_path: Path) -> None:
    record(tmp_path, HERE)
    with Outbox(tmp_path / "outbox.db") as outbox:
        outbox.paused = True
    for owner in (OTHER_ID, OTHER_ID):
        run = recorder(tmp_path, owner)
        assert run.paused
        run.close()


@pytest.mark.parametrize("said", ["", "nobody", "lobby/kiosk-01\n", "x" * 10**6, "lobby/\x1b[31m"])
def test_a_name_that_is_none_is_anothers(tmp_path: Path, said: str, caplog: pytest.LogCaptureFixture) -> None:
    record(tmp_path, HERE)
    with OutboxWriter(tmp_path / "outbox.db") as outbox:
        outbox.belong(said)
    record(tmp_path, HERE)
    assert len(rows(tmp_path / "outbox.db")) == 1
    (line,) = [record.getMessage() for record in caplog.records if "outbox_moved" in record.getMessage()]
    assert " of=? now=lobby/kiosk-01 " in line


def test_anothers_file_under_a_run_is_put_aside_too(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    record(other, OTHER_ID)
    run = recorder(tmp_path, HERE)
    run.put(closing(HAPPY))
    before = run.boot_id
    for suffix in ("-wal", "-shm", ""):
        (tmp_path / f"outbox.db{suffix}").unlink()
    (other / "outbox.db").rename(tmp_path / "outbox.db")
    run.put(closing(HAPPY))
    run.close()
    assert rows(tmp_path / "outbox.db") == [((run.boot_id, 1), (before, 1))]
    assert (tmp_path / "outbox.db.moved-1").exists()


def test_the_service_says_whose_its_outbox_is(settings: Callable[..., Config], tmp_path: Path) -> None:
    import cv2
    import numpy as np

    still = tmp_path / "still.png"
    cv2.imwrite(str(still), np.zeros((64, 64, 3), np.uint8))
    for site in ("lobby", "arcade"):
        Vision(settings(still, device={"site": site, "id": "kiosk-01"})).run()
        with Outbox(tmp_path / "outbox.db") as outbox:
            assert outbox.owner == f"{site}/kiosk-01"
    assert (tmp_path / "outbox.db.moved-1").exists()
