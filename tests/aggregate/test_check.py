"""`edge-aggregate check` on logs with every fault the contract names."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from edge_aggregate.cli import main

from edge.contract import counts_payload, encode
from tests.support.appliance import EXACT, closing

if TYPE_CHECKING:
    from pathlib import Path

BOOT, OLD = "a" * 32, "b" * 32


def entry(seq: int, *, boot: str = BOOT, prev: tuple[str, int] | None = None, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """A log line of one window; `changes` overwrite fields of the payload."""
    report, _ = closing((), EXACT)({}, None)
    payload = counts_payload(
        report,
        site="lobby",
        device="kiosk-07",
        boot_id=boot,
        seq=seq,
        prev=prev,
        start=datetime(2026, 11, 21, 9, tzinfo=UTC),
    )
    return {
        "topic": "edge/v1/lobby/kiosk-07/counts",
        "received": f"2026-11-21T10:00:{seq:02d}Z",
        "payload": json.loads(encode(payload)) | changes,
    }


def run(path: Path, entries: list[Any], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Findings of a log of these entries (strings are written as they are)."""
    path.write_text("\n".join(e if isinstance(e, str) else json.dumps(e) for e in entries))
    assert main(["check", str(path), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_counts_windows_duplicates_gaps_and_lost_tails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = entry(1, prev=(OLD, 5))
    found = run(tmp_path / "log", [one, one, entry(4), entry(3, boot=OLD)], capsys)
    assert (found["windows"], found["duplicates"], found["conflicts"], found["dead"]) == (3, 1, 0, [])
    assert found["missing"] == 2 + 4  # seq 2 and 3 of this boot; 1, 2, 4 and 5 of the one before


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("not json", "not JSON"),
        ('{"topic": "x"}', "received"),
        (entry(2) | {"topic": "edge/v1/lobby/other/counts"}, "topic says lobby/other"),
        (entry(2) | {"topic": "somewhere/else"}, "none of this contract"),
        (entry(2, visitors="many"), "visitors"),
        (entry(2, visitors=1), "add up to 0"),
        ("[" * 100_000, "not JSON: recursion limit"),
        ("[" * 600_000, "bytes, 524288 are allowed"),
        ('{"a":' * 100_000, "not JSON: recursion limit"),
        (json.dumps(entry(2))[:-1] + ', "x": ' + "9" * 5000 + "}", "number out of range"),
        (json.dumps(entry(2))[:-1] + ', "x": NaN}', "not JSON"),
        (entry(2) | {"topic": {"a": 1}}, "topic is no text"),
        (entry(2) | {"payload": 7}, "neither an object nor a text"),
        (entry(2) | {"payload": "[" * 100_000}, "65536 are allowed"),
        (entry(2) | {"payload": "[" * 60_000}, "recursion limit"),
        (entry(2) | {"received": "0001-01-01T00:00:00+14:00"}, "received: a time beyond"),
        (entry(2) | {"received": 7}, "received: expected"),
        (entry(2) | {"topic": "edge\x1b[2J"}, r"'edge\x1b[2J'"),
        (
            entry(2, window={"start": "0001-01-01T00:00:00+14:00", "seconds": 1, "time_quality": "synced"}),
            "beyond the calendar",
        ),
        (entry(2) | {"payload": entry(1)["payload"] | {"seq": 2**63}}, "seq"),
        (entry(2) | {"payload": entry(2)["payload"] | {"prev": {"boot_id": OLD, "last_seq": 2**63}}}, "prev.last_seq"),
    ],
)
def test_dead_letters_have_a_line_and_a_reason(
    bad: Any,  # noqa: ANN401
    reason: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = run(tmp_path / "log", [entry(1), bad, entry(3)], capsys)
    assert found["windows"] == 2, "the lines around it are read"
    ((line, why),) = found["dead"]
    assert line == 2
    assert reason in why


def test_a_conflict_keeps_one_window_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(tmp_path / "log", [entry(1), entry(1, coverage=0.5)], capsys)
    assert (found["windows"], found["conflicts"], found["dead"]) == (1, 1, [])
    assert found["conflicting"] == [[str(tmp_path / "log"), 2, f"kiosk-07 {BOOT}/1"]]


def test_the_counts_are_those_of_ingest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    run(log, [entry(1), entry(1), entry(1, coverage=0.5), *["no"] * 4], capsys)
    assert main(["check", str(log)]) == 0
    checked = capsys.readouterr().out.splitlines()[-1]
    assert main(["ingest", "--store", str(tmp_path / "store.db"), "--files", str(log)]) == 0
    ingested = capsys.readouterr().out.splitlines()[-1]
    assert ingested.endswith("1 windows, 1 duplicates, 1 conflicts, 4 dead letters")
    assert checked == "1 windows, 1 duplicates, 1 conflicts, 0 missing, 4 dead letters"


def test_dead_letters_that_are_not_listed_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_aggregate.store.merge.DEAD_KEPT", 5)
    found = run(tmp_path / "log", [entry(1), entry(1, coverage=0.5), *["no"] * 12], capsys)
    assert (len(found["dead"]), found["unlisted"]) == (5, 7)
    assert main(["check", str(tmp_path / "log")]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("1 conflicts, 0 missing, 12 dead letters, the first 7 of them not listed")


def test_a_log_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none")]) == 66
    assert "none" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [b"\xff\xfe\xfd", b'"\xed\xa0\x80"', b'{"topic": "\\ud800"}'])
def test_bytes_that_are_no_text_are_a_dead_letter(
    bad: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = json.dumps(entry(1)).encode() + b"\n"
    (tmp_path / "log").write_bytes(line + bad + b"\n" + json.dumps(entry(2)).encode())
    assert main(["check", str(tmp_path / "log"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["windows"], [number for number, _ in found["dead"]]) == (2, [2])


def test_a_log_with_a_byte_order_mark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_text(json.dumps(entry(1)), encoding="utf-8-sig")
    assert main(["check", str(tmp_path / "log"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["windows"], found["dead"]) == (1, [])
    (tmp_path / "log").write_text(json.dumps(entry(1)), encoding="utf-16")
    assert main(["check", str(tmp_path / "log")]) == 66
    assert "is UTF-16: save it as UTF-8" in capsys.readouterr().err


def test_the_smallest_received_is_kept_as_an_instant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """21:00+12:00 lies before 10:00Z, though its text is greater."""
    late = entry(1, prev=(OLD, 9)) | {"received": "2026-11-21T10:00:00Z"}
    early = entry(1) | {"received": "2026-11-21T21:00:00+12:00"}
    found = run(tmp_path / "log", [late, early], capsys)
    assert (found["conflicts"], found["missing"]) == (1, 0), "the earlier one knows of no lost tail"


def test_a_log_of_several_files_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a subscriber writes it: the conflict lies across two of its segments."""
    one, other = [json.dumps(entry(1)), "x"], [json.dumps(entry(3)), json.dumps(entry(1, coverage=0.5))]
    (tmp_path / "1.jsonl").write_text("\n".join(one))
    (tmp_path / "2.jsonl").write_text("\n".join(other))
    assert main(["check", f"{tmp_path}/*.jsonl"]) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{tmp_path}/1.jsonl:2: dead letter: not JSON")
    assert second.startswith(f"{tmp_path}/2.jsonl:2: conflict: another payload for kiosk-07 {BOOT}/1")
    assert last == "2 windows, 0 duplicates, 1 conflicts, 1 missing, 1 dead letters"
    assert main(["check", str(tmp_path)]) == 66
    assert "is a folder: name its files, as in" in capsys.readouterr().err
