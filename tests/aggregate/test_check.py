"""`edge-aggregate check` on logs with every fault the contract names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from edge_aggregate.cli import main

from edge.contract import counts_payload, encode
from edge.vision.privacy import nothing_held
from tests.support.appliance import EXACT, closing

if TYPE_CHECKING:
    from pathlib import Path

BOOT, OLD = "a" * 32, "b" * 32


def entry(seq: int, *, boot: str = BOOT, prev: tuple[str, int] | None = None, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """A log line of one window; `changes` overwrite fields of the payload."""
    report, _ = closing((), EXACT)(nothing_held(), None)
    payload = counts_payload(report, site="lobby", device="kiosk-07", boot_id=boot, seq=seq, prev=prev)
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
        ("not json", "Expecting value"),
        ('{"topic": "x"}', "received"),
        (entry(2) | {"topic": "edge/v1/lobby/other/counts"}, "topic says lobby/other"),
        (entry(2) | {"topic": "somewhere/else"}, "none of this contract"),
        (entry(2, visitors="many"), "visitors"),
    ],
)
def test_dead_letters_have_a_line_and_a_reason(
    bad: Any,  # noqa: ANN401
    reason: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = run(tmp_path / "log", [entry(1), bad], capsys)
    assert found["windows"] == 1
    ((line, why),) = found["dead"]
    assert line == 2
    assert reason in why


def test_a_conflict_keeps_one_window_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(tmp_path / "log", [entry(1), entry(1, coverage=0.5)], capsys)
    assert (found["windows"], found["conflicts"], len(found["dead"])) == (1, 1, 1)


def test_a_log_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none")]) == 66
    assert "none" in capsys.readouterr().err
