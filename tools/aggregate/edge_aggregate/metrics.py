"""What a subscriber counts, for Prometheus: read when it is asked for, on this machine only."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from edge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from edge_aggregate.subscribe import Subscriber

HOST: Final = "127.0.0.1"
PREFIX: Final = "edge_aggregate_"

_COUNTERS: Final = (
    ("messages", "Messages that came, of every topic."),
    ("segments", "Segments of the landing log written."),
    ("commits", "Batches committed to the store."),
    ("windows", "Windows that were new to the store."),
    ("duplicates", "Messages that repeat a window."),
    ("conflicts", "Messages that contradict a window: somebody forges, or a device counts twice under one number."),
    ("fleet", "Status and health messages kept."),
    ("store_errors", "Commits that failed and are tried again."),
    ("landing_errors", "Segments that could not be written and are tried again."),
    ("connections", "Connections to the broker that came to a subscription."),
)


@dataclass(slots=True)
class Figures:
    """What is counted since the start, for `/metrics`; `oldest_ms`: when the oldest unacknowledged message came."""

    messages: int = 0
    segments: int = 0
    commits: int = 0
    windows: int = 0
    duplicates: int = 0
    conflicts: int = 0
    dead: Counter[str] = field(default_factory=Counter)
    fleet: int = 0
    store_errors: int = 0
    landing_errors: int = 0
    connections: int = 0
    connected: bool = False
    unacknowledged: int = 0
    oldest_ms: int | None = None
    committed_ms: int | None = None
    lag_ms: int = 0
    """Between a message's coming and its commit, of the newest commit's first message."""


class Collector:
    """`Figures` as metrics, at the moment they are asked for."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        figures = self._figures
        for name, text in _COUNTERS:
            yield CounterMetricFamily(PREFIX + name, text, value=getattr(figures, name))
        dead = CounterMetricFamily(PREFIX + "dead_letters", "Messages refused, by what is wrong.", labels=["kind"])
        for kind, count in sorted(figures.dead.copy().items()):
            dead.add_metric([kind], count)
        yield dead
        oldest = figures.oldest_ms
        waiting = 0.0 if oldest is None else max(0.0, time.time() - oldest / 1000)
        for name, text, value in (
            ("connected", "Whether there is a connection to the broker.", float(figures.connected)),
            ("unacknowledged", "Messages that are not committed yet.", figures.unacknowledged),
            ("oldest_unacknowledged_seconds", "How long the oldest of them has waited.", waiting),
            ("lag_seconds", "From coming to commit, of the newest batch's first message.", figures.lag_ms / 1000),
            ("last_commit_time_seconds", "When the newest commit was, since 1970.", (figures.committed_ms or 0) / 1000),
        ):
            yield GaugeMetricFamily(PREFIX + name, text, value=value)


@contextmanager
def served(subscriber: Subscriber, port: int | None) -> Iterator[None]:
    """Answer on `http://127.0.0.1:PORT/metrics` meanwhile; nothing without a port. Raises ConfigError."""
    if port is None:
        yield
        return
    registry = CollectorRegistry()
    registry.register(Collector(subscriber.figures))
    try:
        server, thread = start_http_server(port, HOST, registry)
    except OSError as error:
        msg = f"--metrics-port {port}: {HOST}:{port} cannot be used ({error.strerror}): name another"
        raise ConfigError(msg) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(1)
