"""A snapshot as Prometheus metrics; names and units by https://prometheus.io/docs/practices/naming/."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from edge import __version__
from edge.publisher.board import power
from edge.types import FrameRate, Scene, TimeQuality

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.core import Metric

    from edge.publisher.web.snapshot import Snapshot

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def metrics(snapshot: Snapshot) -> bytes:
    """The text exposition format, version 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(snapshot))
    return generate_latest(registry)


class _Snapshot(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        yield from _service(self._snapshot)
        yield from _delivery(self._snapshot)
        yield from _machine(self._snapshot)


def _gauge(name: str, text: str, value: float | None) -> Iterator[Metric]:
    """Nothing at all for what is not known: a 0 would be a lie."""
    if value is not None:
        yield GaugeMetricFamily(f"edge_{name}", text, value=float(value))


def _gauges(name: str, text: str, label: str, values: Mapping[str, float | None]) -> Iterator[Metric]:
    family = GaugeMetricFamily(f"edge_{name}", text, labels=[label])
    for key, value in values.items():
        if value is not None:
            family.add_metric([key], float(value))
    yield family


def _counter(name: str, text: str, value: float) -> Iterator[Metric]:
    yield CounterMetricFamily(f"edge_{name}", text, value=float(value))


def _service(snapshot: Snapshot) -> Iterator[Metric]:
    told, figures = snapshot.health, snapshot.figures
    names = {"site": snapshot.topics.site, "device": snapshot.topics.device, "version": __version__}
    if figures is not None:
        names |= {"backend": figures.backend, "bundle": figures.versions.get("bundle", "")}
    yield InfoMetricFamily("edge", "Who this is", value=names)
    yield from _gauge("snapshot_timestamp_seconds", "When these figures were taken", snapshot.at.timestamp())
    if told is None or figures is None:
        return
    rates = _one_of(get_args(FrameRate), told.rate)
    yield from _gauges("frame_rate", "1 for whether frames come, and whether a blank look keeps up", "rate", rates)
    invoke = figures.invoke_ms
    shares = {"0.5": invoke.p50, "0.95": invoke.p95, "0.99": invoke.p99}
    seconds = {share: None if ms is None else ms / 1000 for share, ms in shares.items()}
    yield from _gauges("invoke_seconds", "One model on a blank chip, each 10 s, over 1 to 2 hours", "quantile", seconds)
    if figures.development is not None:
        stages = {stage: ms / 1000 for stage, ms in figures.development.stage_ms.items()}
        yield from _gauges("stage_seconds", "Mean a frame; development only: it scales with faces", "stage", stages)
    drops = CounterMetricFamily(
        "edge_dropped_frames", "Frames lost, by causes that no face can cause", labels=["cause"]
    )
    for cause, n in told.drops.items():
        drops.add_metric([cause], n)
    yield drops
    yield from _counter("worker_restarts", "Edge TPU workers started again", told.restarts)
    yield from _gauges("scene", "1 for what the camera sees", "scene", _one_of(get_args(Scene), told.scene))
    yield from _gauge("paused", "1 while the camera is closed on request", told.paused)
    qualities = _one_of(get_args(TimeQuality), told.time_quality)
    yield from _gauges("time_quality", "1 for how far the clock is to be believed", "quality", qualities)
    if told.privacy is not None:
        yield from _gauge("privacy_epsilon_today", "Epsilon spent since UTC midnight", told.privacy.spent_today)
    yield from _gauge("certificate_days", "Until the device's certificate ends", told.certificate_days)


def _one_of(names: tuple[str, ...], now: str) -> dict[str, float | None]:
    return {name: float(name == now) for name in names}


def _delivery(snapshot: Snapshot) -> Iterator[Metric]:
    stats, told = snapshot.stats, snapshot.delivery
    if stats is not None:
        yield from _gauge("outbox_unsent", "Windows that wait for the broker", stats.unsent)
        yield from _gauge("outbox_oldest_seconds", "Age of the oldest of them, 0 without any", stats.oldest_s)
        yield from _counter("outbox_dropped", "Windows lost to the size bound", stats.dropped)
        yield from _counter("outbox_refused", "Windows that could not be sent", stats.refused)
    yield from _gauge("outbox_unusable", "1 while windows cannot be stored or marked", snapshot.trouble is not None)
    yield from _gauge("broker_connected", "1 while a session is open", told.connected)
    yield from _counter("broker_connections", "Sessions opened", told.connections)
    yield from _counter("publishes_taken", "Messages that the broker took", told.taken)
    yield from _counter("publishes_not_taken", "Messages that it answered with a refusal", told.not_taken)
    last = told.last_taken.timestamp() if told.last_taken else None
    yield from _gauge("last_publish_timestamp_seconds", "When it took the last one", last)
    puback = {str(share): seconds for share, seconds in told.puback_s.items()}
    yield from _gauges("puback_seconds", "From a publish to its acknowledgement, over 1 to 2 hours", "quantile", puback)


def _machine(snapshot: Snapshot) -> Iterator[Metric]:
    if snapshot.health is not None:
        yield from _gauge("soc_celsius", "Temperature of the SoC", snapshot.health.soc_c)
    error = snapshot.clock_error
    yield from _gauge("clock_offset_seconds", "What the kernel still slews", error and error.offset_s)
    yield from _gauge("clock_error_most_seconds", "The most the clock can be off", error and error.most_s)
    supply = power()
    if supply is not None:
        yield from _gauge("under_voltage", "1 while the supply is too weak", supply.under_voltage)
        yield from _gauge("under_voltage_since_start", "1 if it ever was", supply.under_voltage_before)
        yield from _gauge("throttled", "1 while the processor is slowed down", supply.throttled)
