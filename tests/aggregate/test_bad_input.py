"""What users give by mistake, and strangers on purpose: one line says what is wrong; no traceback, no waiting."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from edge_aggregate.decode import Row, decode_line
from edge_aggregate.ingest import ingest_files
from edge_aggregate.store import open_store
from edge_aggregate.web.auth import VERIFIED_AT_ONCE, BasicAuth, hash_password
from starlette.applications import Starlette

from tests.support.refused import refused
from tests.support.windows import DAY, window, write_log

FULL = Path("/dev/full")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """One with two days of a site."""
    lines = [window(h + 1, start=DAY + timedelta(hours=h), cells={"masked_happy": 12}) for h in range(48)]
    path = tmp_path / "store.db"
    with open_store(str(path), create=True) as opened:
        ingest_files(opened, [write_log(tmp_path / "log.jsonl", lines)])
    return path


@pytest.mark.parametrize("pattern", ["**x", "x" * 5000, ""])
def test_patterns_that_are_none_are_told(pattern: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give paths" in (message := refused(capsys, "ingest", "--store", tmp_path / "s", "--files", pattern)) or (
        "is a folder" in message
    )


def test_a_pipe_is_not_waited_for(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for arguments in (
        ("ingest", "--store", store, "--files", pipe),
        ("check", pipe),
        ("index", "--store", store, "--sites", pipe),
        ("serve", "--store", store, "--passwords", pipe),
    ):
        notes = int(arguments[0] == "serve")  # that without TLS a password is asked for on loopback only
        assert "is no regular file" in refused(capsys, *arguments, notes=notes)


def test_a_name_that_is_no_utf8_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jsonl"))
    write_log(path, [window(1)])
    assert "rename it" in refused(capsys, "ingest", "--store", tmp_path / "s.db", "--files", tmp_path / "*.jsonl")
    assert "rename it" in refused(capsys, "check", path)


@pytest.mark.parametrize("rows", [[], [("schema", "abc")], [("other", 1)]])
@pytest.mark.parametrize("tables", [("mine",), ("meta", "windows", "segments")])
def test_another_programs_database_is_told_and_stays_as_it_is(
    tables: tuple[str, ...], rows: list[tuple[str, object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.db"
    database = sqlite3.connect(path)
    for table in tables:
        database.execute(f"CREATE TABLE {table} (key, value)")
    database.executemany(f"INSERT INTO {tables[0]} VALUES (?, ?)", rows)  # noqa: S608 - our own names
    database.commit()
    database.close()
    before = path.read_bytes()
    log = write_log(tmp_path / "log.jsonl", [window(1)])
    for arguments in (("ingest", "--store", path, "--files", log), ("index", "--store", path)):
        assert "another program" in refused(capsys, *arguments)
    assert path.read_bytes() == before, "not even its journal is another"


def test_a_store_without_a_name_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = write_log(tmp_path / "log.jsonl", [window(1)])
    assert "address is empty" in refused(capsys, "ingest", "--store", "", "--files", log)
    refused(capsys, "ingest", "--store", "x" * 5000, "--files", log)


@pytest.mark.parametrize(
    "arguments",
    [
        "--from 0001-01-01 --zone Asia/Tokyo",
        "--from 0001-01-01T00:00:00Z --to 2026-04-01 --zone America/New_York",
        "--from 9999-12-30 --to 9999-12-31T23:59:59Z --by day",
        "--from 0002-01-01 --to 9998-12-31 --by day",
        "--last 99999w --by day",
    ],
)
def test_times_at_the_end_of_time_are_told(arguments: str, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "years" in (message := refused(capsys, "index", "--store", store, *arguments.split())) or "days" in message


@pytest.mark.parametrize("listen", ["127.0.0.1:\u00b2", "127.0.0.1:" + "9" * 5000, "127.0.0.1:65536"])
def test_ports_that_are_none_are_told(listen: str, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "HOST:PORT" in refused(capsys, "serve", "--store", store, "--listen", listen)


def test_a_certificate_that_is_none_is_told(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.jsonl"
    message = refused(
        capsys, "serve", "--store", store, "--tls-cert", path, "--tls-key", path, "--listen", "127.0.0.1:0"
    )
    assert "give a PEM certificate" in message


@pytest.mark.parametrize("name", ["a:b", "", "#a", "a\nb", " a"])
def test_names_that_a_password_file_cannot_hold_are_told(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a name is" in refused(capsys, "serve", "--hash-password", name)


def test_no_password_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_aggregate", "serve", "--hash-password", "anna"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # no terminal to ask at
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("edge-aggregate: --hash-password: no password was typed")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [("index", "--json"), ("export",)])
def test_a_full_disk_behind_the_output_is_told(arguments: tuple[str, ...], store: Path) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edge_aggregate", arguments[0], "--store", str(store), *arguments[1:]],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 74
    assert done.stderr.splitlines()[-1] == "edge-aggregate: output: No space left on device"


def test_a_terminal_without_dashes_shows_figures(store: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_aggregate", "index", "--store", str(store)],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "lobby" in done.stdout


class Counted(BasicAuth):
    """Knows how many passwords were looked at at once."""

    now = peak = 0
    lock = threading.Lock()

    def _verify(self, name: str, password: str) -> bool:
        with self.lock:
            self.now += 1
            self.peak = max(self.peak, self.now)
        try:
            return super()._verify(name, password)
        finally:
            with self.lock:
                self.now -= 1


def test_a_flood_of_passwords_does_not_take_every_thread_and_the_memory() -> None:
    auth = Counted(Starlette(), {"anna": hash_password("right")})
    known: list[bool] = []

    async def ask(number: int) -> None:
        known.append(await auth._known("Basic " + base64.b64encode(f"anna:{number}".encode()).decode()))

    async def flood() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(12):
                tasks.start_soon(ask, number)

    anyio.run(flood)
    assert known == [False] * 12
    assert 1 <= auth.peak <= VERIFIED_AT_ONCE


def test_a_coverage_of_minus_nothing_is_nothing() -> None:

    rows = []
    for coverage in (0.0, -0.0):
        found = decode_line(json.dumps(window(1, coverage=coverage)).encode())
        assert isinstance(found, Row)
        rows.append(found)
    assert repr(rows[0]) == repr(rows[1]), "equal rows have one digest, whichever came first"
