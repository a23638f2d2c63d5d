"""A file that is damaged or taken away under vision costs no window that is still in its hands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from edge.config import StorageSection
from edge.errors import StorageError
from edge.outbox.outbox import Outbox
from edge.outbox.writer import OutboxWriter
from edge.process.clock import SystemClock
from edge.vision.recorder import Recorder
from tests.support.appliance import closing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge.outbox.rows import Key


def recorder(folder: Path) -> Recorder:
    """Of a run that has begun."""
    made = Recorder(
        StorageSection(outbox=folder / "outbox.db", runtime=folder), SystemClock(), "policy", "lobby/kiosk-07"
    )
    made.begin()
    return made


def rows(folder: Path) -> list[tuple[Key, Key | None]]:
    """Key and predecessor of each row."""
    with Outbox(folder / "outbox.db") as outbox:
        return [(row.key, row.prev) for row in outbox.unsent()]


def test_damage_in_the_middle_of_a_run(tmp_path: Path) -> None:
    run = recorder(tmp_path)
    run.put(closing())
    before = run.boot_id
    assert run._outbox is not None
    run._outbox._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (tmp_path / "outbox.db").write_bytes(b"\xa5" * 65536)
    run._outbox._db.execute("PRAGMA shrink_memory")  # or it would be a while before SQLite reads the file again
    run.put(closing())
    run.close()
    assert run.boot_id != before
    assert rows(tmp_path) == [((run.boot_id, 1), (before, 1))]
    assert (tmp_path / "outbox.db.damaged-1").stat().st_size >= 65536
    assert (tmp_path / "outbox.generation").read_text() == "1\n"


def test_the_file_is_taken_away(tmp_path: Path) -> None:
    run = recorder(tmp_path)
    run.put(closing())
    before = run.boot_id
    for name in ("outbox.db", "outbox.db-wal", "outbox.db-shm"):
        (tmp_path / name).rename(tmp_path / f"{name}.away")
    run.put(closing())
    run.put(closing())
    run.close()
    assert rows(tmp_path) == [((run.boot_id, 1), (before, 1)), ((run.boot_id, 2), (before, 1))]


def test_a_commit_that_failed_only_in_its_answer_is_not_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = recorder(tmp_path)
    run.put(closing())
    commit = OutboxWriter.commit

    def unanswered(*window: Any, **of: Any) -> int:  # noqa: ANN401 - handed on
        commit(*window, **of)
        msg = "disk I/O error"
        raise StorageError(msg)

    monkeypatch.setattr(OutboxWriter, "commit", unanswered)
    run.put(closing())
    assert (run.waiting, run.trouble) == (1, "unusable")
    monkeypatch.setattr(OutboxWriter, "commit", commit)
    run.put(closing())
    run.close()
    assert (run.waiting, run.trouble) == (0, None)
    assert [key for key, _ in rows(tmp_path)] == [(run.boot_id, seq) for seq in (1, 2, 3)]


def take_away(folder: Path) -> None:
    """The outbox, not the ledger."""
    for file in folder.glob("outbox.db*"):
        if file.is_file():
            file.unlink()


def damage(folder: Path) -> None:
    """The outbox is damaged while nobody runs."""
    take_away(folder)
    (folder / "outbox.db").write_bytes(b"\xa5" * 65536)


@pytest.mark.parametrize("harm", [damage, take_away])
def test_a_start_without_its_outbox_knows_of_the_run_before_and_of_a_pause(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    first = recorder(tmp_path)
    for _ in range(3):
        first.put(closing())
    first.remember(paused=True)
    first.close()
    harm(tmp_path)
    idle = recorder(tmp_path)
    assert idle.paused
    idle.close()
    with Outbox(tmp_path / "outbox.db") as outbox:
        assert outbox.paused, "the publisher asks it"
        outbox.paused = False  # as for a resume while vision does not run
    again = recorder(tmp_path)
    assert not again.paused, "an outbox that knows is believed"
    again.put(closing())
    again.close()
    assert rows(tmp_path) == [((again.boot_id, 1), (first.boot_id, 3))]


def test_a_resume_is_remembered_too(tmp_path: Path) -> None:
    run = recorder(tmp_path)
    run.remember(paused=True)
    run.remember(paused=False)
    run.close()
    damage(tmp_path)
    again = recorder(tmp_path)
    assert not again.paused
    again.close()


def test_another_device_s_run_is_not_named_as_the_one_before(tmp_path: Path) -> None:
    run = recorder(tmp_path)
    run.put(closing())
    run.close()
    damage(tmp_path)
    other = Recorder(
        StorageSection(outbox=tmp_path / "outbox.db", runtime=tmp_path), SystemClock(), "policy", "lobby/kiosk-08"
    )
    other.begin()
    other.put(closing())
    other.close()
    assert rows(tmp_path) == [((other.boot_id, 1), None)]


def test_a_ledger_of_before_it_noted_these_is_read(tmp_path: Path) -> None:
    run = recorder(tmp_path)
    run.put(closing())
    run.close()
    old = json.loads(run.ledger.path.read_bytes())
    for name in ("paused", "last"):
        del old[name]
    for name in ("ran", "by_ran"):
        del old["budget"][name]
    run.ledger.path.write_text(json.dumps(old | {"of a later version": 1}))
    again = recorder(tmp_path)
    again.close()
    assert not again.paused
    assert not run.ledger.path.with_name("ledger.json.damaged").exists()


def test_an_older_copy_of_the_file_is_not_gone_on_with(tmp_path: Path) -> None:
    """Its numbers would be given a second time."""
    run = recorder(tmp_path)
    run.put(closing())
    with Outbox(tmp_path / "outbox.db") as outbox:
        outbox._db.execute("VACUUM INTO ?", (str(tmp_path / "copy"),))
    run.put(closing())
    before = run.boot_id
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"outbox.db{suffix}").unlink()
    (tmp_path / "copy").rename(tmp_path / "outbox.db")
    run.put(closing())
    run.close()
    assert [key for key, _ in rows(tmp_path)] == [(before, 1), (run.boot_id, 1)]
    assert run.boot_id != before


def test_the_folder_is_taken_away_and_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    run = recorder(folder)
    folder.rename(tmp_path / "unplugged")
    run.put(closing())
    run.put(closing())
    with pytest.raises(StorageError, match=r"create the folder.*2 windows could not be recorded"):
        run.commit(last=True)
    (tmp_path / "unplugged").rename(folder)
    run.close()
    assert [key for key, _ in rows(folder)] == [(run.boot_id, 1), (run.boot_id, 2)]
