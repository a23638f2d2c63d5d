"""Between the publisher and the broker: nothing gets through, little does, or connections break in mid-packet."""

from __future__ import annotations

import random
import secrets
from typing import TYPE_CHECKING

import pytest

from edge.outbox.outbox import Outbox
from edge.types import Vote
from tests.faults.proxy import Proxy
from tests.support.appliance import closing, vision
from tests.support.broker import Mosquitto, free_port, needs_mosquitto
from tests.support.wire import Ear, Service, wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.conftest import Done

pytestmark = needs_mosquitto
COUNTS = "edge/v1/lobby/kiosk-07/counts"
PATIENCE_S = 120


class Link:
    """A publisher that reaches its broker only through a proxy, and a subscriber beside the broker."""

    def __init__(self, folder: Path, proxy: Proxy, ear: Ear, service: Service) -> None:
        self.proxy, self.ear, self.service = proxy, ear, service
        self._folder = folder
        self.outbox = vision(folder)

    def commit(self, number: int) -> None:
        """Windows, committed."""
        for _ in range(number):
            self.outbox.commit(closing([Vote("unmasked", "happy")]))

    def arrives(self) -> None:
        """Wait until every window has arrived and is marked; none may differ between its copies."""
        with Outbox(self._folder / "outbox.db") as outbox:
            wait(lambda: outbox.stats().unsent == 0, PATIENCE_S, self.service.lines)
            last = outbox._db.execute("SELECT max(seq) FROM rows").fetchone()[0]
        wait(lambda: len(self.ear.keys()) == last, PATIENCE_S, self.service.lines)
        assert len({m.payload for m in self.ear.heard}) == last


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Link]:
    """A link that works, until told otherwise; keepalive 2 s."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    with (
        Mosquitto(tmp_path) as broker,
        Proxy(free_port(), broker.port, random.Random(seed)) as proxy,  # noqa: S311 - moments, no secrets
        Ear(broker.port, COUNTS) as ear,
        Service(tmp_path, proxy.port, "--keepalive", "2", "--retry", "1") as service,
    ):
        service.wait_for("event=connected", PATIENCE_S)
        made = Link(tmp_path, proxy, ear, service)
        yield made
        made.outbox.close()
        assert service.stop() == 0


def test_partition(link: Link, done: Done) -> None:
    link.commit(20)
    link.arrives()
    link.proxy.partitioned = True
    link.commit(100)
    # A half-open connection is noticed by its keepalive.
    link.service.wait_for("event=no-broker", PATIENCE_S)
    link.commit(20)
    link.proxy.partitioned = False
    link.arrives()
    done({"partition": 1}, committed=140, received=len(link.ear.heard))


def test_a_slow_link(link: Link, done: Done) -> None:
    link.proxy.delay, link.proxy.rate = 0.2, 50_000
    link.commit(100)
    link.arrives()
    done({"slow_link": 1}, committed=100, received=len(link.ear.heard))


def test_a_lossy_link(link: Link, done: Done) -> None:
    """Two connections that break after 20 kB or so, in the middle of a packet."""
    link.proxy.resets_left = 2
    link.commit(400)
    wait(lambda: link.proxy.resets == 2, PATIENCE_S, link.service.lines)
    link.arrives()
    done({"connection_cut": link.proxy.resets}, committed=400, received=len(link.ear.heard))
