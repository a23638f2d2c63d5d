"""What a store does when the power, the disk or another program fails it: no batch that was acknowledged is lost."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from edge_aggregate.figures import figures
from edge_aggregate.ingest import ingest_files
from edge_aggregate.periods import last
from edge_aggregate.store import open_store
from edge_aggregate.store.upkeep import check_store

from edge.errors import StorageError
from tests.aggregate.test_store import messy_log
from tests.support.fleet_log import write_fleet_log
from tests.support.postgres import Postgres
from tests.support.windows import DAY, dump, window, write_log

if TYPE_CHECKING:
    from datetime import tzinfo
    from pathlib import Path

pytestmark = pytest.mark.aggregate

INGEST = """
import resource, sys
from pathlib import Path
from edge_aggregate.ingest import ingest_files
from edge_aggregate.store import open_store
from edge.errors import EdgeError
if sys.argv[3] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
def progress(path, lines, merged):
    print(path, lines, flush=True)
    sys.stdin.readline()
try:
    with open_store(sys.argv[1], create=True) as store:
        ingest_files(store, sorted(Path(sys.argv[2]).iterdir()), batch_lines=200, progress=progress)
except EdgeError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def ingesting(address: str, log: Path, limit: int = 0, *, waits: bool = False) -> subprocess.Popen[str]:
    """Another process, which says a line for every batch that is committed; then it `waits` for its standard input."""
    return subprocess.Popen(
        [sys.executable, "-c", INGEST, address, str(log), str(limit)],
        stdin=subprocess.PIPE if waits else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    write_fleet_log(folder, devices=10, hours=200, lines_a_segment=500)
    return folder


@pytest.fixture(scope="module")
def expected(log: Path) -> dict[str, list[str]]:
    with open_store(":memory:", create=True) as store:
        ingest_files(store, sorted(log.iterdir()))
        return dump(store)


def cut_and_go_on(address: str, log: Path, seed: int) -> None:
    """Kill the one that ingests, again and again, at random times; what it said was in must be in."""
    r = random.Random(seed)  # noqa: S311 - no secret
    for _ in range(6):
        process = ingesting(address, log)
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(r.randrange(1, 3))]
        time.sleep(r.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read().splitlines()
        process.wait()
        with open_store(address, read_only=True) as store:
            for line in filter(None, map(str.split, said)):
                progress = store.progress(line[0])
                assert progress is not None
                assert progress.lines >= int(line[1]), "an acknowledged batch is lost"


def test_a_process_killed_in_the_middle_of_commits_loses_no_batch(
    tmp_path: Path, log: Path, expected: dict[str, list[str]]
) -> None:
    path = str(tmp_path / "store.db")
    cut_and_go_on(path, log, 1)
    with open_store(path) as store:
        ingest_files(store, sorted(log.iterdir()))
        assert dump(store) == expected
        assert check_store(store) == []


def test_nor_does_a_server_whose_power_is_cut(postgres: Postgres, log: Path, expected: dict[str, list[str]]) -> None:
    _ = postgres  # or the reason why there is none
    with Postgres(settings=()) as server:
        address = server.address()
        process = ingesting(address, log, waits=True)
        assert process.stdout is not None
        said = process.stdout.readline().split()
        server.kill()
        _, error = process.communicate(timeout=120)  # its input ends: it goes on
        assert process.returncode == StorageError.exit_code
        assert error.count("\n") == 1, error
        assert "went away" in error
        server.start()
        with open_store(address) as store:
            progress = store.progress(said[0])
            assert progress is not None
            assert progress.lines >= int(said[1])
            ingest_files(store, sorted(log.iterdir()))
            assert dump(store) == expected


def test_a_full_disk_is_told_and_what_was_committed_is_kept(
    tmp_path: Path, log: Path, expected: dict[str, list[str]]
) -> None:
    path = str(tmp_path / "store.db")
    process = ingesting(path, log, 400_000)  # no file may be larger: as EFBIG, where a disk says ENOSPC
    said, error = process.communicate(timeout=300)
    assert process.returncode == StorageError.exit_code, error
    assert error.count("\n") == 1, error
    assert said, "some batches were in before"
    with open_store(path) as store:
        last = said.splitlines()[-1].split()
        progress = store.progress(last[0])
        assert progress is not None
        assert progress.lines >= int(last[1])
        assert check_store(store) == []
        ingest_files(store, sorted(log.iterdir()))
        assert dump(store) == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_small_disk_that_is_full_says_so(tmp_path: Path, log: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        with (
            open_store(str(disk / "store.db"), create=True) as store,
            pytest.raises(StorageError, match="the disk is full: make room; what was committed is kept"),
        ):
            ingest_files(store, sorted(log.iterdir()), batch_lines=200)
        with open_store(str(disk / "store.db"), read_only=True) as store:
            assert check_store(store) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_damaged_store_is_told_and_check_says_how(tmp_path: Path, log: Path) -> None:
    path = tmp_path / "store.db"
    with open_store(str(path), create=True) as store:
        ingest_files(store, sorted(log.iterdir()))
        store.engine.fetch("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40_000] = os.urandom(40_000)
    path.write_bytes(content)
    with open_store(str(path), read_only=True) as store:
        found = check_store(store)
    assert found
    assert all("\n" not in line for line in found)
    path.write_bytes(content[: len(content) // 3])
    with (
        pytest.raises(StorageError, match=r"is damaged: restore a backup, or ingest the landing log into a new file"),
        open_store(str(path)) as store,
    ):
        ingest_files(store, [write_log(tmp_path / "more.jsonl", messy_log(1))])


def test_a_store_that_another_program_locks_is_waited_for_and_then_told(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    lines = write_log(tmp_path / "log.jsonl", [window(1)])
    with open_store(path, create=True, busy_s=0.2) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="another program has been writing"):
            ingest_files(store, [lines])
        other.execute("ROLLBACK")
        other.close()
        assert ingest_files(store, [lines]).merged.windows == 1


class Never(datetime):
    """A host's clock that nobody may ask."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Never:
        msg = f"somebody asked the host for the time ({tz})"
        raise AssertionError(msg)


def test_a_host_whose_clock_is_wrong_counts_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = window(90, start=DAY + timedelta(days=400), received=DAY + timedelta(days=2))
    path = write_log(tmp_path / "log.jsonl", [*messy_log(2), ahead])
    modules = [
        module for name, module in sys.modules.items() if name.startswith("edge_aggregate") and "web" not in name
    ]
    for module in modules:
        if getattr(module, "datetime", None) is datetime:
            monkeypatch.setattr(module, "datetime", Never)
    monkeypatch.setattr(time, "time", Never.now)
    with open_store(":memory:", create=True) as store:
        ingest_files(store, [path])
        assert store.engine.fetch("SELECT COUNT(*) FROM dead WHERE kind = 'future' AND reason LIKE '%2027-04-06%'") == [
            (1,)
        ]
        (hall, lobby) = figures(store, last("9d", store.newest_ms))
        assert min(hall.windows, lobby.windows) > 20
        assert check_store(store) == []
