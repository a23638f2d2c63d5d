"""The publisher's hold on the outbox, where it decides what a pause is worth after a power cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.outbox.outbox import Outbox
from edge.outbox.runtime_files import COMMAND_FILE, read_command, write_command
from edge.publisher.dispatch import Dispatcher
from edge.publisher.outbox_watch import OutboxWatch
from tests.publisher.test_dispatch import Clock
from tests.publisher.test_remote_commands import TOPICS
from tests.support.appliance import configuration, vision

if TYPE_CHECKING:
    from pathlib import Path

    from edge.errors import EdgeError


def open_once(folder: Path) -> None:
    """The publisher finds the outbox, and lets it go again."""

    def complain(name: str, error: EdgeError) -> None:
        raise AssertionError(name) from error

    clock = Clock()
    watch = OutboxWatch(
        configuration(folder, 1883), clock, Dispatcher(TOPICS, clock, hold=0.0, runtime=folder), complain
    )
    assert watch.attend(None)
    watch.close()


def test_a_pause_that_came_without_an_outbox_outlives_a_power_cut(tmp_path: Path) -> None:
    write_command(tmp_path, "pause")
    vision(tmp_path).close()  # the first outbox there is, or a new one in a damaged one's place
    open_once(tmp_path)
    (tmp_path / COMMAND_FILE).unlink()  # the power goes, and with it what lies in RAM
    open_once(tmp_path)
    found = read_command(tmp_path)
    assert found is not None
    assert found.paused


def test_a_resume_that_came_without_an_outbox_does_too(tmp_path: Path) -> None:
    with vision(tmp_path) as outbox:
        outbox.paused = True
    write_command(tmp_path, "resume")
    open_once(tmp_path)
    with Outbox(tmp_path / "outbox.db") as outbox:
        assert not outbox.paused
