"""A simulated fleet on a broker: what devices say, at the pace asked for, and their answers to replays."""

from __future__ import annotations

import secrets
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from edge.contract import (
    EVENT_TYPE,
    ContractError,
    Health,
    OutboxFigures,
    Percentiles,
    PrivacyFigures,
    ReplayAnswer,
    ReplayCommand,
    Status,
    Topics,
    decode,
    encode,
    parse_topic,
)
from edge.errors import BrokerRefused
from edge_aggregate.simulate.sender import Sender
from edge_aggregate.simulate.spool import Spool
from edge_aggregate.simulate.wire import stamp

if TYPE_CHECKING:
    from collections.abc import Callable

    import paho.mqtt.client as mqtt

    from edge_aggregate.broker import Broker
    from edge_aggregate.simulate.device import Device
    from edge_aggregate.simulate.fleet import Fleet, Message
    from edge_aggregate.simulate.plan import Plan
    from edge_aggregate.simulate.wire import Window

BEAT_S: Final = 60.0
"""Between two `health` of a device."""
VERSION: Final = "simulated"
_LOOK_S: Final = 0.05
_REPLAYS: Final = 10_000
"""Waiting at once; more are not answered, as a device would not."""


class Pace(NamedTuple):
    """How fast. `rate`: windows' messages a second, at most. `speed`: seconds of the fleet's time in one of ours.

    None: as fast as the broker takes them. `live`: never before its time by this machine's clock, and without an end.
    `stay_s`: how long replays are answered after the last message.
    """

    rate: float | None = None
    speed: float | None = None
    live: bool = False
    stay_s: float = 0.0


def wall_ms() -> int:
    """Milliseconds since 1970, UTC, by this machine's clock."""
    return time.time_ns() // 1_000_000


class Publisher:
    """One run: `run` it once. Raises BrokerUnavailable, BrokerRefused and ConfigError."""

    def __init__(self, plan: Plan, fleet: Fleet, broker: Broker, pace: Pace) -> None:
        self._plan, self._fleet, self._pace = plan, fleet, pace
        self._sender = Sender(broker, f"edge-simulate-{secrets.token_hex(4)}")
        self._spool = Spool()
        self._devices = {device.name: device for device in fleet.devices}
        self._announced: dict[str, str] = {}
        """Device → the run whose birth was announced."""
        self._beats: deque[tuple[float, Device]] = deque()
        self._replays: deque[tuple[Device, ReplayCommand, str, bytes | None]] = deque()
        self._scenes: dict[str, Window] = {}
        self._begun = time.monotonic()
        self._sent = 0
        self._look_at = 0.0
        self.replayed = 0
        """Rows that were sent again."""

    def run(self, stopping: Callable[[], bool]) -> None:
        """Publish everything, or until `stopping`; what is under way then is sent at once, as devices drain."""
        self._fleet.kept = self._keep
        self._sender.open(stopping)
        if stopping():
            return
        try:
            self._sender.subscribe((f"{self._plan.root}/v1/+/+/cmd/replay", 1))
            self._begun = time.monotonic()
            self._birth()
            for message in self._fleet.paced(self._now, stopping, endless=self._pace.live):
                if message is None:
                    self._idle(_LOOK_S)
                    continue
                self._publish(message)
                if time.monotonic() >= self._look_at:
                    self._idle(0)
                    self._look_at = time.monotonic() + _LOOK_S
            self._stay(stopping)
            self._farewell()
        finally:
            self._sender.close()
            self._spool.close()

    def _now(self) -> int | None:
        """How far the fleet's time may go; None: to its end."""
        now: int | None = None
        if self._pace.speed is not None:
            now = self._plan.start_ms + round((time.monotonic() - self._begun) * 1000 * self._pace.speed)
        if self._pace.live:
            now = wall_ms() if now is None else min(now, wall_ms())
        return now

    def _stay(self, stopping: Callable[[], bool]) -> None:
        end = time.monotonic() + self._pace.stay_s
        self._sender.settle()
        self._heard()
        while time.monotonic() < end and not stopping():
            self._idle(_LOOK_S)

    def _idle(self, seconds: float) -> None:
        """What devices do besides: beats, replays."""
        self._sender.step(seconds)
        while self._sender.incoming:
            message = self._sender.incoming.popleft()
            self._sender.acknowledge([message.mid])
            self._command(message)
        while self._replays:
            self._replay(*self._replays.popleft())
        now = time.monotonic()
        while self._beats and self._beats[0][0] <= now:
            _, device = self._beats.popleft()
            self._health(device)
            self._beats.append((now + BEAT_S, device))
        self._heard()

    def _heard(self) -> None:
        if self._sender.unheard is not None:
            msg = (
                f"nobody is subscribed to {self._sender.unheard}, or it may not be written to: "
                "start the subscriber first, and let this client write there"
            )
            raise BrokerRefused(msg)

    # ---- what devices say

    def _birth(self) -> None:
        """All are there; their beats are spread over a minute."""
        now = time.monotonic()
        for number, device in enumerate(self._fleet.devices):
            self._announce(device)
            self._health(device)
            self._beats.append((now + BEAT_S * (1 + number / len(self._fleet.devices)), device))

    def _farewell(self) -> None:
        for device in self._fleet.devices:
            self._status(device, "stopped")
        self._sender.settle()

    def _topic(self, device: Device, leaf: str) -> str:
        return device.topic.removesuffix("counts") + leaf

    def _announce(self, device: Device) -> None:
        self._announced[device.name] = device.boot_id
        self._status(device, "online")

    def _status(self, device: Device, state: str) -> None:
        now = datetime.now(UTC)
        status = Status(state=state, boot_id=device.boot_id, version=VERSION, since=now)  # type: ignore[arg-type]
        self._sender.send(self._topic(device, "status"), encode(status), retain=True)

    def _health(self, device: Device) -> None:
        last = self._scenes.get(device.name)
        epsilon = self._plan.epsilon or 0.0
        day = -(-86_400 // self._plan.seconds)
        health = Health(
            boot_id=device.boot_id,
            backend="cpu",
            rate="none" if last is not None and last.scene in {"paused", "frozen"} else "ok",
            invoke_ms=Percentiles(p50=11.0, p95=14.0),
            drops=dict.fromkeys(("camera_lost", "undecodable", "truncated", "windows"), 0),
            restarts=0,
            outbox=OutboxFigures(unsent=0, oldest_s=0.0),
            soc_c=55.0,
            scene="ok" if last is None else last.scene,
            time_quality=device.clock.kind,
            paused=last is not None and last.scene == "paused",
            versions={"edge": VERSION, "bundle": VERSION},
            privacy=PrivacyFigures(
                epsilon=epsilon,
                spent_today=epsilon * min(device.spent, day),
                day_bound=epsilon * day,
                exhausted=last is not None and last.exhausted,
            ),
            detector="blazeface on cpu",
        )
        self._sender.send(self._topic(device, "health"), encode(health), retain=True)

    def _publish(self, message: Message) -> None:
        window = message.window
        if window is None:
            self._sender.send(message.topic, message.payload)
            return
        device = self._devices[window.device]
        if self._announced[device.name] != device.boot_id:
            self._announce(device)
        self._wait_for_rate()
        self._counts(
            message.topic, message.payload, window.site, window.device, window.boot_id, window.seq, _end(window)
        )
        if not message.contradicts:
            self._spool.sent(window.device, window.boot_id, window.seq)
        self._scenes[device.name] = window
        # The last released window again, as long as a dashboard may show it.
        left = (2 * window.length_ms - max(0, wall_ms() - window.closed_ms)) // 1000
        if left >= 1 and not message.contradicts:
            self._sender.send(self._topic(device, "live"), message.payload, retain=True, expiry=left)
            if self._pace.live:
                self._health(device)

    def _wait_for_rate(self) -> None:
        self._sent += 1
        if self._pace.rate is not None:
            due = self._begun + self._sent / self._pace.rate
            while (wait := due - time.monotonic()) > 0:
                self._idle(min(wait, _LOOK_S))

    def _counts(self, topic: str, payload: bytes, site: str, device: str, boot_id: str, seq: int, end: str) -> None:
        user = [
            ("specversion", "1.0"),
            ("id", f"{boot_id}/{seq}"),
            ("source", f"/{site}/{device}"),
            ("type", EVENT_TYPE),
            ("time", end),
        ]
        self._sender.send(topic, payload, user=user, must_be_heard=True)

    # ---- replays

    def _keep(self, window: Window, payload: bytes | None, *, lost: bool) -> None:
        self._spool.keep(window.device, window.boot_id, window.seq, payload)
        if lost and payload is not None:  # the broker took it, and lost it
            self._spool.sent(window.device, window.boot_id, window.seq)

    def _command(self, message: mqtt.MQTTMessage) -> None:
        """Whatever is wrong with it, it is not answered."""
        if message.retain or len(self._replays) >= _REPLAYS:
            return
        try:
            topics, _ = parse_topic(message.topic)
            command = decode(ReplayCommand, bytes(message.payload))
        except ContractError:
            return
        device = self._devices.get(topics.device)
        if device is None or device.site.name != topics.site:
            return
        asked = getattr(message.properties, "ResponseTopic", None)
        answer_to = _answer_to(topics, command, asked)
        self._replays.append((device, command, answer_to, getattr(message.properties, "CorrelationData", None)))

    def _replay(self, device: Device, command: ReplayCommand, answer_to: str, correlation: bytes | None) -> None:
        sent = 0
        last = min(command.to, self._spool.last(device.name, command.boot_id))
        for seq in range(command.from_, last + 1):
            row = self._spool.row(device.name, command.boot_id, seq)
            if row is None:
                continue
            sent += 1
            if row.sent:  # an unsent one comes by itself
                end = _end_of(row.payload)
                self._counts(device.topic, row.payload, device.site.name, device.name, command.boot_id, seq, end)
                self.replayed += 1
        answer = ReplayAnswer(id=command.id, sent=sent, gone=command.to - command.from_ + 1 - sent)
        self._sender.send(answer_to, encode(answer), correlation=correlation)


def _end(window: Window) -> str:
    return stamp(window.start_ms + window.length_ms)


def _end_of(payload: bytes) -> str:
    from edge.contract import cloudevents, decode_counts

    return dict(cloudevents(decode_counts(payload)))["time"]


def _answer_to(topics: Topics, command: ReplayCommand, asked: str | None) -> str:
    """Where a device answers: as asked, but under its root only on its own `reply/…`."""
    own = topics(f"reply/{command.id}")
    if not asked or asked.startswith("$") or any(character in asked for character in "+#\0"):
        return own
    if f"{asked}/".startswith(f"{topics.root}/") and not asked.startswith(topics("reply/")):
        return own
    return asked
