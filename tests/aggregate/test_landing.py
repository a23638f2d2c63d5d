"""The landing log: what a line says is what the message said, and nothing that was acknowledged is ever lost."""

from __future__ import annotations

import errno
import json
import os
import time
from typing import TYPE_CHECKING

import pytest
from edge_aggregate.batches import Batches
from edge_aggregate.decode import decode_line, decode_message
from edge_aggregate.ingest import ingest_files
from edge_aggregate.landing import Landing, Message, line_of
from edge_aggregate.metrics import Figures
from edge_aggregate.store import Store, open_store
from edge_aggregate.store.fleet import HealthRow
from hypothesis import example, given
from hypothesis import strategies as st

from edge.errors import StorageError
from tests.support.windows import dump, window

if TYPE_CHECKING:
    from pathlib import Path

TOPIC = "edge/v1/lobby/kiosk-1/counts"
NOW_MS = 1_772_500_000_123


def message(seq: int, **fields: object) -> Message:
    line = window(seq, **fields)  # type: ignore[arg-type]
    return Message(seq, line["topic"], json.dumps(line["payload"]).encode(), NOW_MS)


HOSTILE = [
    b"",
    b"{",
    b"null",
    b"[1]",
    b'"text"',
    b"\xff\xfe{}",
    b"\xef\xbb\xbf{}",
    b'{"a":\n1,\r\n"b":2}',
    b'{"base64": "aGk="}',
    b'{"a": 1}, "topic": "edge/v1/x/y/counts", "z": {}',
    b'{"a": NaN}',
    b'{"a": "\\ud800"}',
    b'{"a": 1, "a": 2}',
    b'{"a":' * 199 + b"1" + b"}" * 199,
    b'{"a":' * 200 + b"1" + b"}" * 200,
    b'{"a":' * 500 + b"1" + b"}" * 500,
    b'{"a": "' + b"x" * 70_000 + b'"}',
    b"\x00" * 65_000,
    '{"ä": "\u2028"}'.encode(),
    b'{"a": 1e999}',
    b'{"a": ' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("payload", HOSTILE, ids=lambda p: repr(p[:24]))
@pytest.mark.parametrize("topic", [TOPIC, 'edge/"v1', "edge/\n/ä", "x" * 300])
def test_a_line_says_what_the_message_said(payload: bytes, topic: str) -> None:
    line, body = line_of(Message(1, topic, payload, NOW_MS))
    assert b"\n" not in line
    assert b"\r" not in line
    entry = json.loads(line)
    assert entry["topic"] == topic
    assert entry["received"] == "2026-03-03T01:06:40.123Z"
    assert decode_line(line) == decode_message(topic, NOW_MS, body)


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: json.dumps({"a": text}).encode()))
@example(b'{"payload": {}}')
def test_whatever_comes_is_read_back_alike(payload: bytes) -> None:
    line, body = line_of(Message(1, TOPIC, payload, NOW_MS))
    assert b"\n" not in line
    assert decode_line(line) == decode_message(TOPIC, NOW_MS, body)
    written = json.loads(line)["payload"]
    if not isinstance(written, dict):
        assert written.encode() == payload


def test_a_window_is_the_same_from_the_wire_and_from_the_log(tmp_path: Path) -> None:
    """Counted from the segment's own batch, or by reading its file: the same store."""
    landing = Landing(tmp_path / "log", "aggregator")
    messages = [message(seq, cells={"unmasked_happy": 10 + seq}) for seq in (1, 2, 4)]
    messages += [Message(9, TOPIC, payload, NOW_MS) for payload in HOSTILE]
    segment = landing.write(messages)
    with open_store(":memory:", create=True) as wire, open_store(":memory:", create=True) as log:
        wire.merge([segment.batch])
        ingest_files(log, [segment.path])
        assert dump(wire) == dump(log)
        assert dump(wire)["windows"]
        assert wire.progress(str(segment.path)) == log.progress(str(segment.path))
        assert ingest_files(wire, [segment.path]).skipped == 1
    assert segment.mids == [1, 2, 4, *[9] * len(HOSTILE)]


def test_names_sort_by_time_and_are_one_subscribers_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (Landing(tmp_path, who) for who in ("aggregator", "aggregator"))
    clock = iter([3_000_000_000_000_000_000, 2_000_000_000_000_000_000, 3_000_000_000_000_000_000])
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    first, second = (one.write([message(seq)]).path for seq in (1, 2))
    third = other.write([message(3)]).path
    assert first < second, "a clock that is set back does not unsort them"
    assert third.parent == first.parent
    assert first.parent.name == "2065-01-24"
    assert len({first.name, second.name, third.name}) == 3
    assert not list(tmp_path.rglob("*.tmp"))


def test_what_was_landed_and_not_counted_is_found_again(tmp_path: Path) -> None:
    """Of two runs that crashed, and of one that did not, across midnight: exactly what the store does not have."""
    landing, other = Landing(tmp_path, "a"), Landing(tmp_path, "b")
    segments = [landing.write([message(seq)]) for seq in range(1, 5)]
    others = [other.write([message(seq, device="kiosk-2")]) for seq in range(1, 4)]
    yesterday = segments[0].path.parent.with_name("2020-01-01")
    yesterday.mkdir()
    for segment in segments[:3]:
        moved = yesterday / segment.path.name
        segment.path.rename(moved)
        segment.path = moved
        segment.batch.progress = segment.batch.progress._replace(name=str(moved))
    with open_store(":memory:", create=True) as store:
        store.merge([segment.batch for segment in segments[:2]])
        store.merge([segment.batch for segment in others])
        assert Landing(tmp_path, "a").unsettled(store) == [segments[2].path, segments[3].path]
        ingest_files(store, Landing(tmp_path, "a").unsettled(store))
        assert Landing(tmp_path, "a").unsettled(store) == []
        assert store.engine.fetch("SELECT COUNT(*), SUM(duplicates) FROM windows") == [(7, 0)]


def test_a_failure_that_was_over_long_ago_gives_up_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fleet's rows could not be written, then could; nothing was committed until the store fails again."""
    held, now, acknowledged = True, 100.0, list[int]()

    def opened() -> Store:
        if held:
            msg = "another program writes"
            raise StorageError(msg)
        return open_store(str(tmp_path / "store.db"), create=True)

    monkeypatch.setattr(time, "monotonic", lambda: now)
    batches = Batches(Landing(tmp_path / "log", "a"), opened, Figures(), batch=100, every=0)
    batches.add_fleet(HealthRow("kiosk-1", "lobby", "{}", NOW_MS))
    batches.tend(acknowledged.extend)
    held, now = False, 101.0
    batches.tend(acknowledged.extend)
    batches.close()
    held, now = True, 200.0
    batches.add(7, TOPIC.encode(), message(1).payload)
    batches.tend(acknowledged.extend)
    now = 200.1
    batches.tend(acknowledged.extend)
    assert not acknowledged
    held, now = False, 200.6
    batches.tend(acknowledged.extend)
    assert acknowledged == [7], "and the wait is the first again"
    batches.close()


def test_drafts_of_the_dead_are_cleared_and_others_left(tmp_path: Path) -> None:
    landing = Landing(tmp_path, "a")
    folder = landing.write([message(1)]).path.parent
    old, young, foreign = folder / "old.tmp", folder / "young.tmp", folder / "notes.txt"
    for file in (old, young, foreign):
        file.write_text("half a line")
    os.utime(old, (0, 0))
    with open_store(":memory:", create=True) as store:
        assert len(landing.unsettled(store)) == 1
    assert sorted(path.suffix for path in folder.iterdir()) == [".jsonl", ".tmp", ".txt"]
    assert young.exists()


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_disk_that_fails_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    landing = Landing(tmp_path, "a")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync" if step == "fsync" else "pathlib.Path.rename", full)
        with pytest.raises(StorageError, match="the disk is full: make room; nothing is acknowledged"):
            landing.write([message(1)])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert landing.write([message(1)]).path.is_file()


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        Landing(tmp_path / "file" / "log", "a")
