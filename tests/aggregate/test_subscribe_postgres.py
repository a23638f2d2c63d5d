"""Subscribers that share a store in PostgreSQL, and a database that goes away in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.broker import Mosquitto, needs_mosquitto
from tests.support.postgres import Postgres
from tests.support.subscriber import Devices, Process, until
from tests.support.windows import window

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.aggregate, needs_mosquitto]
STATUS = {"state": "online", "boot_id": None, "version": "1.0", "since": "2026-11-21T10:00:00Z"}


def test_two_share_a_database(tmp_path: Path, postgres: Postgres) -> None:
    address = postgres.address()
    with Mosquitto(tmp_path) as broker, Devices(broker.port) as devices:
        share = ("--share", "figures")
        one = Process(tmp_path, broker.port, *share, store=address, name="one").start()
        two = Process(tmp_path, broker.port, *share, store=address, name="two").start()
        try:
            for device in range(10):
                devices.count(range(1, 41), device=f"kiosk-{device}")
                devices.send(f"edge/v1/lobby/kiosk-{device}/status", STATUS)
            until(lambda: one.windows() == 400, "all, once", one)
            until(lambda: one.ask("SELECT COUNT(*) FROM fleet") == [(10,)], "and the fleet", one)
            assert (one.end(), two.end()) == (0, 0)
        finally:
            one.kill()
            two.kill()
        assert one.ask("SELECT SUM(duplicates) FROM windows") == [(0,)]
        assert one.ask("SELECT COUNT(*) FROM gaps") == [(0,)]
        assert len({path.name.split("-")[2] for path in one.landing.rglob("*.jsonl")}) == 2, "both had a part"


def test_a_database_that_dies_is_waited_for_without_acknowledging(tmp_path: Path) -> None:
    """SIGKILL to all of it: nothing is acknowledged meanwhile, and when it is back everything is in, once."""
    with (
        Postgres(settings=()) as server,
        Mosquitto(tmp_path) as broker,
        Devices(broker.port) as devices,
        Process(tmp_path, broker.port, store=server.address()) as process,
    ):
        devices.count(range(1, 21))
        until(lambda: process.windows() == 20, "before", process)
        server.kill()
        devices.count(range(21, 61))
        line = window(60)
        devices.send(line["topic"], b"{")
        until(lambda: "not acknowledged, tried again" in process.text, "it says so", process)
        server.start()
        until(lambda: process.windows() == 60, "after", process)
        assert process.ask("SELECT SUM(duplicates) FROM windows") == [(0,)]
        assert process.end() == 0
        assert "s3cr" not in process.text
        assert "Traceback" not in process.text
