"""Logs: one line an event, fields in the journal, a storm becomes a count, a warning says what to do."""

from __future__ import annotations

import ast
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import edge
from edge.process.logs import LINES, SPAN_S, Journal, Line, WarningRateLimit, event, fields
from edge.process.shown import without_secrets

SOURCES = sorted(Path(edge.__file__).parent.rglob("*.py"))


def record(message: str, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("edge.vision", level, "", 0, message, None, None)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True), st.text()))
def test_what_goes_into_a_line_comes_out_of_it(given_fields: dict[str, str]) -> None:
    line = event("x", **given_fields)
    assert fields(line) == {"event": "x"} | {key: without_secrets(value) for key, value in given_fields.items()}
    assert len(Line().format(record(line)).splitlines()) == 1


def test_the_journal_gets_the_fields(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "socket"))
        handler = Journal(str(tmp_path / "socket"))
        handler.emit(record(event("camera_lost", name="/dev/video0", next="check it\nPRIORITY=0"), logging.ERROR))
        told = journal.recv(4096).decode().splitlines()
        assert told == [
            'MESSAGE=event=camera_lost name=/dev/video0 next="check it\\nPRIORITY=0"',
            "PRIORITY=3",
            "SYSLOG_IDENTIFIER=edge",
            "LOGGER=edge.vision",
            "EDGE_EVENT=camera_lost",
            "EDGE_NAME=/dev/video0",
            "EDGE_NEXT=check it PRIORITY=0",
        ], "no value can forge a field"
    handler.emit(record("event=x"))  # nobody listens any more, and nothing is raised
    handler.close()


def test_without_a_journal_lines_go_to_standard_error() -> None:
    code = (
        "import logging; from edge.process import logs; logs.set_up(logging.INFO); "
        "logging.getLogger('edge.x').info('event=a')"
    )
    for stream in ("", "0:0"):
        environ = {**os.environ, "JOURNAL_STREAM": stream}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
        assert done.stderr == "INFO edge.x event=a\n"


def test_a_storm_becomes_a_count() -> None:
    now = [0.0]
    limit = WarningRateLimit(lambda: now[0])
    said = [limit.filter(record(event("drop", n=n), logging.WARNING)) for n in range(LINES + 7)]
    assert said == [True] * LINES + [False] * 7
    assert limit.filter(record(event("other"), logging.WARNING)), "each event for itself"
    assert all(limit.filter(record(event("window_committed"))) for _ in range(2 * LINES)), "receipts all pass"
    now[0] = SPAN_S
    later = record(event("drop", n=99), logging.WARNING)
    assert limit.filter(later)
    assert later.getMessage() == "event=drop n=99 muted=7"
    again = record(event("drop", n=100), logging.WARNING)
    assert limit.filter(again)
    assert "muted" not in again.getMessage()


def test_every_line_is_an_event_and_every_warning_says_what_is_next() -> None:
    """`next` says it, or `why` carries an EdgeError, whose text ends in what to do."""
    found = 0
    for path in SOURCES:
        for call in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            owner = call.func.value
            if not (isinstance(owner, ast.Name) and owner.id == "log"):
                continue
            made = call.args[-1]
            assert isinstance(made, ast.Call), (path, call.lineno)
            assert isinstance(made.func, ast.Name), (path, call.lineno)
            assert made.func.id == "event", (path, call.lineno)
            found += 1
            if call.func.attr in {"warning", "error"}:
                keys = {keyword.arg for keyword in made.keywords}
                assert keys & {"next", "why"}, (path, call.lineno)
    assert found > 30


def test_every_warning_has_its_line_in_the_table_of_alarms() -> None:
    """Whoever reads one in the journal finds there what it means."""
    text = (Path(edge.__file__).parents[1] / "docs/operate.md").read_text(encoding="utf-8")
    table = text.partition("## Alarms")[2].partition("\n## ")[0]
    lacking = set()
    for path in SOURCES:
        for call in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args):
                continue
            said: ast.expr | None = call if call.func.attr.endswith("complain") else None
            if call.func.attr in {"warning", "error"}:
                said = call.args[-1]
            name = said.args[0] if isinstance(said, ast.Call) and said.args else None
            if isinstance(name, ast.Constant) and f"`{name.value!s}" not in table:
                lacking.add(name.value)
    assert not lacking


def test_no_name_and_no_line_ends_the_journal(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "socket"))
        handler = Journal(str(tmp_path / "socket"))
        handler.emit(record(event("frame_dropped", why=os.fsdecode(b"caf\xe9.jpg: empty"))))
        assert b"EDGE_WHY=caf\\udce9.jpg: empty\n" in journal.recv(4096)
        handler.emit(record('another program says path="C:\\new\\x"'))
        assert b"EDGE_PATH=" in journal.recv(4096)
        misfit = logging.LogRecord("paho", logging.WARNING, "", 0, "%d rows", ("many",), None)
        logging.raiseExceptions, kept = False, logging.raiseExceptions
        try:
            assert WarningRateLimit().filter(misfit)
            handler.emit(misfit)
        finally:
            logging.raiseExceptions = kept
        handler.close()
