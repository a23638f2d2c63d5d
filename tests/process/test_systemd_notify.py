"""What a service manager hears, read from a real datagram socket as systemd does."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from edge.process.systemd_notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def test_ready_status_and_stopping(heard: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC")
    notifier = Notifier()
    notifier.ready("12 fps")
    notifier.status("dark")
    notifier.worked()  # nobody asked for a watchdog
    notifier.stopping()
    assert heard() == ["READY=1\nSTATUS=12 fps", "STATUS=dark", "STOPPING=1"]


def test_work_feeds_the_watchdog_and_not_more_often_than_needed(
    heard: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    notifier = Notifier()
    assert heard() == []  # nothing by itself
    for _ in range(100):
        notifier.worked()
    assert heard() == ["WATCHDOG=1"]
    monkeypatch.setenv("WATCHDOG_USEC", "0")
    eager = Notifier()
    for _ in range(3):
        eager.worked()
    assert heard() == ["WATCHDOG=1"] * 3


def test_another_process_s_watchdog_is_not_fed(heard: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_PID", "1")
    Notifier().worked()
    assert heard() == []


def test_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0edge-test-{os.getpid()}")
        Notifier({"NOTIFY_SOCKET": f"@edge-test-{os.getpid()}"}).stopping()
        assert sock.recv(64) == b"STOPPING=1"


def test_nobody_listening_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Notifier({}).ready("")
    assert not caplog.records
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("")
    assert "notify_unheard message=READY" in caplog.text
