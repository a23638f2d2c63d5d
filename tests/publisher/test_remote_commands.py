"""What strangers may ask for, how often, and where the answer may go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from edge.contract import Topics
from edge.errors import StorageError
from edge.outbox.outbox import Outbox
from edge.outbox.runtime_files import COMMAND_FILE, read_command
from edge.publisher.remote_commands import ASKS, SWITCHES, Commands
from edge.publisher.session import Incoming
from tests.publisher.test_dispatch import Clock
from tests.support.appliance import vision

if TYPE_CHECKING:
    from pathlib import Path

TOPICS = Topics("edge", "lobby", "kiosk-07")


def replay(response_topic: str | None = None, to: int = 2) -> Incoming:
    """A replay command."""
    ask = {"id": "r-1", "boot_id": "b" * 32, "from": 1, "to": to}
    return Incoming(TOPICS("cmd/replay"), json.dumps(ask).encode(), False, response_topic, None)  # noqa: FBT003


def command(name: str) -> Incoming:
    """Another one."""
    return Incoming(TOPICS(f"cmd/{name}"), b"", False, None, None)  # noqa: FBT003


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (None, "edge/v1/lobby/kiosk-07/reply/r-1"),
        ("answers/here", "answers/here"),
        ("edgewise/answers", "edgewise/answers"),
        ("edge/v1/lobby/kiosk-07/reply/mine", "edge/v1/lobby/kiosk-07/reply/mine"),
        *(
            (wrong, "edge/v1/lobby/kiosk-07/reply/r-1")
            for wrong in (
                "edge",
                "edge/answers",
                "edge/v1/lobby/kiosk-07/counts",
                "edge/v1/lobby/kiosk-07/status",
                "edge/v1/lobby/kiosk-07/cmd/pause",
                "edge/v1/lobby/kiosk-07/reply/Mine/../status",
                "edge/v1/lobby/kiosk-08/reply/r-1",
                "homeassistant/device/kiosk-07/config",
                "answers/#",
                "$SYS/broker",
            )
        ),
    ],
)
def test_answers_go_under_reply_or_outside_the_root(tmp_path: Path, asked: str | None, answered: str) -> None:
    commands = Commands(TOPICS, Clock(), tmp_path, "homeassistant")
    commands.take(replay(asked), "cmd/replay")
    assert [waiting.answer_to for waiting in commands.replays] == [answered]


@pytest.mark.parametrize(("to", "taken"), [(2**63 - 1, 1), (2**63, 0), (10**30, 0)])
def test_no_seq_beyond_what_the_outbox_holds(tmp_path: Path, to: int, taken: int) -> None:
    commands = Commands(TOPICS, Clock(), tmp_path)
    commands.take(replay(to=to), "cmd/replay")
    assert len(commands.replays) == taken


def test_a_flood_of_pauses_is_written_seldom_and_the_last_one_counts(tmp_path: Path) -> None:
    clock = Clock()
    commands = Commands(TOPICS, clock, tmp_path)
    vision(tmp_path).close()
    with Outbox(tmp_path / "outbox.db") as outbox:
        for n in range(4000):
            commands.take(command("resume" if n % 2 else "pause"), "cmd/resume" if n % 2 else "cmd/pause")
            commands.tend(outbox)
        commands.take(command("pause"), "cmd/pause")
        commands.tend(outbox)
        most, seconds = SWITCHES
        assert (now := read_command(tmp_path)) is not None
        assert now.number == most
        clock.pass_time(seconds)
        commands.tend(outbox)
        assert (now := read_command(tmp_path)) is not None
        assert (now.number, now.paused, outbox.paused) == (most + 1, True, True)
        commands.tend(outbox)
        assert (now := read_command(tmp_path)) is not None
        assert now.number == most + 1, "nothing waits any more"
    assert sum(file.stat().st_size for file in tmp_path.glob("outbox.db*")) < 512 * 1024


def test_an_identify_ends_no_pause_though_the_file_that_says_so_is_gone(tmp_path: Path) -> None:
    commands = Commands(TOPICS, Clock(), tmp_path)
    vision(tmp_path).close()
    with Outbox(tmp_path / "outbox.db") as outbox:
        for name in ("pause", "identify"):
            (tmp_path / COMMAND_FILE).unlink(missing_ok=True)
            commands.take(command(name), f"cmd/{name}")
            commands.tend(outbox)
            now = read_command(tmp_path)
            assert now is not None
            assert (now.command, now.paused, outbox.paused) == (name, True, True)


def test_an_outbox_that_takes_no_pause_does_not_hold_it_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    commands = Commands(TOPICS, Clock(), tmp_path)
    vision(tmp_path).close()
    with Outbox(tmp_path / "outbox.db") as outbox:
        outbox._db.execute("PRAGMA query_only=ON")
        commands.take(command("pause"), "cmd/pause")
        with pytest.raises(StorageError):
            commands.tend(outbox)
    now = read_command(tmp_path)
    assert now is not None
    assert now.paused
    assert "command-lost" not in caplog.text


def test_a_flood_of_replays_is_refused(tmp_path: Path) -> None:
    """Its log lines are muted by `edge.process.logs`, like all others."""
    clock = Clock()
    commands = Commands(TOPICS, clock, tmp_path)
    for _ in range(4000):
        commands.take(replay(), "cmd/replay")
        if commands.replays:
            commands.replays.popleft()  # worked off at once
    most, seconds = ASKS
    clock.pass_time(seconds)
    commands.take(replay(), "cmd/replay")
    commands.take(replay(), "cmd/replay")
    assert len(commands.replays) == 1
    clock.pass_time(3600)
    for _ in range(4000):
        commands.take(replay(), "cmd/replay")
    assert len(commands.replays) == most
