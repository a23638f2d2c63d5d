"""What is committed stays committed, numbered without gaps, whoever dies and whatever the disk does."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from edge.errors import StorageError
from edge.outbox.outbox import BATCH, KEEP_DAYS, Outbox
from edge.outbox.sqlite import ASIDE_KEPT, put_aside
from edge.outbox.writer import BOOTS, open_for_vision
from edge.types import Vote
from edge.vision.privacy import Policy
from tests.support.appliance import Committing, closing, vision

if TYPE_CHECKING:
    from pathlib import Path

    from edge.outbox.rows import Row

HAPPY = [Vote("unmasked", "happy")] * 3
NOISY = Policy("discrete-laplace", Fraction(1), 10)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_identity_is_fixed_in_the_commit(tmp_path: Path) -> None:
    with vision(tmp_path, "a" * 32) as outbox:
        assert [outbox.commit(closing(HAPPY)) for _ in range(3)] == [1, 2, 3]
    with vision(tmp_path, "b" * 32):
        pass  # a run that records nothing is nobody's predecessor
    with vision(tmp_path, "c" * 32) as outbox:
        assert outbox.commit(closing(HAPPY)) == 1
        assert outbox.current_boot() == "c" * 32
    with Outbox(tmp_path / "outbox.db") as outbox:
        rows = outbox.unsent()
    assert [(row.key, row.prev) for row in rows] == [
        (("a" * 32, 1), None),
        (("a" * 32, 2), None),
        (("a" * 32, 3), None),
        (("c" * 32, 1), ("a" * 32, 3)),
    ]
    assert rows[0].report().counts["unmasked"]["happy"] == 3
    assert stat.S_IMODE((tmp_path / "outbox.db").stat().st_mode) == 0o660


def test_flush_at_the_change_of_date_and_after_a_clock_set_back(tmp_path: Path) -> None:
    ends = [NOW, NOW + timedelta(hours=12), NOW + timedelta(hours=13), NOW - timedelta(days=300), NOW]
    with vision(tmp_path) as outbox:
        for end in ends:
            outbox.commit(closing(HAPPY, NOISY, end=end))
        assert [row.report().flush for row in outbox.unsent()] == [False, True, False, True, True]


def test_sent_rows_stay_for_replay_and_are_pruned_after_30_days(tmp_path: Path) -> None:
    with vision(tmp_path) as outbox:
        for _ in range(BATCH + 5):
            outbox.commit(closing())
        assert len(outbox.unsent()) == BATCH
        first = outbox.unsent(1)[0].key
        assert outbox.unsent(1, excluding=[first])[0].seq == 2
        assert outbox.last_released() is None
        outbox.mark_sent([("a" * 32, 1), ("a" * 32, 3)])
        assert [row.seq for row in outbox.unsent(2)] == [2, 4]
        assert [(row.seq, row.sent) for row in outbox.between("a" * 32, 1, 3)] == [
            (1, True),
            (2, False),
            (3, True),
        ]
        last = outbox.last_released()
        assert last is not None
        assert last.seq == 3
        today = NOW.date()
        for day in range(KEEP_DAYS + 1):
            assert outbox.prune(today + timedelta(days=day)) == 0
            assert outbox.prune(today + timedelta(days=day)) == 0, "the same day again"
        assert outbox.prune(today + timedelta(days=KEEP_DAYS + 1)) == 2
        assert outbox.stats().unsent == BATCH + 3
        outbox.refuse([("a" * 32, 2)])
        assert outbox.stats().refused == 1
        assert outbox.between("a" * 32, 1, 3) == []


def test_a_clock_that_jumps_by_a_year_empties_no_ring(tmp_path: Path) -> None:
    today = NOW.date()
    with vision(tmp_path) as outbox:
        outbox.commit(closing())
        outbox.prune(today)
        outbox.mark_sent([("a" * 32, 1)])
        for jump in (365, -365, 0, 365):
            assert outbox.prune(today + timedelta(days=jump)) == 0
        outbox._db.execute("UPDATE rows SET sent_at = 1763683200")  # as version 0.1 wrote it
        for day in range(KEEP_DAYS + 1):
            assert outbox.prune(today + timedelta(days=day)) == 0
        assert outbox.prune(today + timedelta(days=KEEP_DAYS + 1)) == 1


def test_a_pause_and_the_run_before_are_remembered(tmp_path: Path) -> None:
    with vision(tmp_path) as outbox:
        assert not outbox.paused
        outbox.paused = True
    with Outbox(tmp_path / "outbox.db") as outbox:
        assert outbox.paused
    with Committing(tmp_path / "outbox.db") as outbox:
        outbox.begin_boot("b" * 32, "k", prev=("9" * 32, 7))
        outbox.commit(closing())
        assert outbox.unsent()[0].prev == ("9" * 32, 7)
        outbox.begin_boot("c" * 32, "k", prev=("9" * 32, 7))
        outbox.commit(closing())
        assert outbox.unsent()[1].prev == ("b" * 32, 1), "what the file knows comes first"


def test_a_label_is_decided_once(tmp_path: Path) -> None:
    with vision(tmp_path) as outbox:
        outbox.commit(closing(time_quality="unsynced"))
        outbox.label(("a" * 32, 1), NOW, "synced")
        outbox.label(("a" * 32, 1), NOW + timedelta(days=1), "unsynced")
        assert outbox.unsent()[0].label == (NOW, "synced")


def test_the_size_bound_takes_sent_rows_first_and_counts_what_it_loses(tmp_path: Path) -> None:
    with vision(tmp_path, max_bytes=200_000) as outbox:
        for _ in range(40):
            outbox.commit(closing())
        outbox.mark_sent([("a" * 32, seq) for seq in range(20, 41)])
        while outbox.between("a" * 32, 20, 40):
            outbox.commit(closing())
            assert outbox.stats().dropped == 0
        for _ in range(200):
            last = outbox.commit(closing())
        assert outbox.stats().dropped > 0
        assert outbox.unsent(1)[0].seq > 1
        assert outbox.between("a" * 32, last, last), "the newest is never dropped"
        assert (tmp_path / "outbox.db").stat().st_size < 300_000


def test_runs_without_a_window_fill_no_outbox(tmp_path: Path) -> None:
    """A camera that hangs at each start, and a watchdog that starts vision again, for months."""
    with vision(tmp_path) as outbox:
        outbox.commit(closing())
        earlier = [(f"{n:032x}",) for n in range(3 * BOOTS)]
        outbox._db.executemany("INSERT INTO boots (boot_id, kernel_boot_id) VALUES (?, 'k')", earlier)
        outbox.begin_boot("b" * 32, "k")
        assert outbox._db.execute("SELECT count(*) FROM boots").fetchone()[0] <= BOOTS + 2
        outbox.commit(closing())
        assert outbox.unsent()[-1].prev == ("a" * 32, 1), "the last run that has one is not forgotten"
        assert outbox.current_boot() == "b" * 32


CHILD = textwrap.dedent("""
    import sys
    from pathlib import Path
    sys.path[:0] = sys.argv[2:]
    from tests.support.appliance import closing, vision
    outbox = vision(Path(sys.argv[1]), sys.stdin.readline().strip())
    while True:
        sys.stdout.write(f"{outbox.commit(closing())}\\n")
        sys.stdout.flush()
""")


def test_sigkill_while_committing_loses_no_acknowledged_window(tmp_path: Path) -> None:
    boots = [f"{n:032x}" for n in range(1, 6)]
    acknowledged = {}
    for n, boot in enumerate(boots):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), *(p for p in sys.path if p)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(boot + "\n")
        child.stdin.flush()
        lines = [child.stdout.readline() for _ in range(3)]
        time.sleep(0.02 * n)
        child.kill()
        lines += [line for line in child.stdout if line.endswith("\n")]
        child.wait(10)
        child.stdin.close()
        child.stdout.close()
        acknowledged[boot] = int(lines[-1])
    previous = None
    with Outbox(tmp_path / "outbox.db") as outbox:
        for boot in boots:
            found: list[Row] = []
            while batch := outbox.between(boot, len(found) + 1, 10**9):
                found += batch
            # One more than acknowledged may be there: committed, and killed before it could say so.
            assert len(found) - acknowledged[boot] in {0, 1}
            assert [row.seq for row in found] == list(range(1, len(found) + 1))
            assert {row.prev for row in found} == {previous}
            previous = boot, len(found)


def test_a_damaged_outbox_is_put_aside_whole_by_vision_only(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    for generation, rubbish in ((1, b"no database at all" * 300), (2, b"SQLite format 4" * 300)):
        path.write_bytes(rubbish)
        (tmp_path / "outbox.db-wal").write_bytes(b"wal")
        with pytest.raises(StorageError, match=r"not a database.*edge vision"):
            Outbox(path)
        outbox, found = open_for_vision(path, runtime=tmp_path)
        assert found == generation
        outbox.close()
        with vision(tmp_path) as fresh:
            assert fresh.commit(closing()) == 1
        assert (tmp_path / f"outbox.db.damaged-{generation}").read_bytes() == rubbish
        assert (tmp_path / "outbox.generation").read_text() == f"{generation}\n"


def test_a_card_that_goes_on_failing_is_not_filled_by_what_was_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    for number in range(1, ASIDE_KEPT + 4):
        path.write_bytes(b"%d" % number)
        path.with_name("outbox.db-wal").write_bytes(b"%d" % number)
        assert put_aside(path, tmp_path) == number
    kept = range(4, ASIDE_KEPT + 4)
    names = {f"outbox.db.damaged-{n}{suffix}" for n in kept for suffix in ("", "-wal")}
    assert {file.name for file in tmp_path.glob("outbox.db*")} == names
    assert (tmp_path / f"outbox.db.damaged-{kept[-1]}").read_bytes() == b"%d" % kept[-1]
    assert (tmp_path / "outbox.generation").read_text() == f"{kept[-1]}\n"


def test_a_page_overwritten_is_found_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with vision(tmp_path) as outbox:
        for _ in range(40):
            outbox.commit(closing())
    with path.open("r+b") as file:
        file.seek(4096 * 4)
        file.write(b"\xa5" * 4096 * 4)
    fresh, generation = open_for_vision(path)
    fresh.close()
    assert generation == 1


def test_the_publisher_sees_that_the_file_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    vision(tmp_path).close()
    with Outbox(path) as reader:
        assert not reader.replaced()
        path.rename(tmp_path / "away")
        assert reader.replaced()
        vision(tmp_path, "b" * 32).close()
        assert reader.replaced()


def test_a_schema_of_another_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    vision(tmp_path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=7")
    db.close()
    for opening in (Outbox, open_for_vision):
        with pytest.raises(StorageError, match=r"schema 7.*install the version"):
            opening(path)
    assert [p.name for p in tmp_path.glob("*damaged*")] == []


def test_missing_folder_missing_file_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="create the folder"):
        open_for_vision(tmp_path / "none" / "outbox.db")
    with pytest.raises(StorageError, match="cannot be opened"):
        Outbox(tmp_path / "outbox.db")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError):
        open_for_vision(tmp_path / "folder")


def test_locked_by_another(tmp_path: Path) -> None:
    with vision(tmp_path) as outbox:
        outbox.commit(closing())
        other = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        outbox._db.execute("PRAGMA busy_timeout=100")
        with pytest.raises(StorageError, match=r"locked.*stop that process"):
            outbox.commit(closing())
        assert len(outbox.unsent()) == 1, "reading goes on"
        other.execute("ROLLBACK")
        other.close()
        assert outbox.commit(closing()) == 2


def test_full_by_page_count(tmp_path: Path) -> None:
    with vision(tmp_path) as outbox:
        outbox.commit(closing())
        pages = outbox._db.execute("PRAGMA page_count").fetchone()[0]
        outbox._db.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(StorageError, match=r"full.*make room"):  # noqa: PT012 - the one that fails is any of them
            for _ in range(50):
                last = outbox.commit(closing())
        outbox._db.execute("PRAGMA max_page_count=100000")
        assert outbox.commit(closing()) == last + 1
        assert [row.seq for row in outbox.between("a" * 32, 1, 99)] == list(range(1, last + 2))


mounts = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root, to mount a small tmpfs"
)


@mounts
def test_full_and_read_only_filesystem(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", folder], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with vision(folder) as outbox:
            last = 0
            with pytest.raises(StorageError, match=r"make room|disk"):  # noqa: PT012 - the one that fails is any of them
                for _ in range(2000):
                    last = outbox.commit(closing())
            assert last > 0
            assert outbox.between("a" * 32, last, last), "what was recorded is there"
            assert outbox.stats().unsent == last
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        with pytest.raises(StorageError, match=r"(write access|cannot be)"):
            open_for_vision(folder / "outbox.db")
        subprocess.run(["mount", "-o", "remount,rw,size=4m", folder], check=True)
        with vision(folder, "b" * 32) as outbox:
            assert outbox.commit(closing()) == 1
            assert outbox.unsent(10**6)[-1].prev == ("a" * 32, last)
    finally:
        subprocess.run(["umount", "-l", folder], check=False)
