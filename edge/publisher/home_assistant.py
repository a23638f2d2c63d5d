"""How Home Assistant is told of this device: one retained message with all its entities.

Keys: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload. Every value is taken from payloads that
are published anyway, so nothing more leaves the device than without Home Assistant.
"""

from __future__ import annotations

import json
import logging
import random
from typing import TYPE_CHECKING, Final, get_args

from edge import __version__
from edge.process.logs import event
from edge.types import CELLS, EMOTIONS, ROUTES, FrameRate, Scene, TimeQuality

if TYPE_CHECKING:
    from edge.contract import Topics
    from edge.process.clock import Clock
    from edge.publisher.session import Incoming

log = logging.getLogger("edge.publisher")

RESPREAD_S: Final = 10.0
"""Within so many seconds of Home Assistant's birth all devices answer, and not all at once."""
HANG_UPS: Final = 2
"""After the broker hung up on the message so often it is left out for `LEFT_OUT_S`: it is 10 kB, limits may be less."""
LEFT_OUT_S: Final = 3600.0

_PER_WINDOW: Final = {"state_class": "measurement", "unit_of_measurement": "visitors"}
_PERCENT: Final = {"state_class": "measurement", "unit_of_measurement": "%"}
_DIAGNOSTICS: Final[dict[str, tuple[str, str, dict[str, object]]]] = {
    "rate": ("Frame rate", "rate", {"device_class": "enum", "options": list(get_args(FrameRate))}),
    "backend": ("Backend", "backend", {}),
    "scene": ("Scene", "scene", {"device_class": "enum", "options": list(get_args(Scene))}),
    "clock": ("Clock", "time_quality", {"device_class": "enum", "options": list(get_args(TimeQuality))}),
    "inference": ("Inference p95", "invoke_ms.p95", {"device_class": "duration", "unit_of_measurement": "ms"}),
    "unsent": ("Unsent windows", "outbox.unsent", {"state_class": "measurement"}),
    "oldest": ("Oldest unsent window", "outbox.oldest_s", {"device_class": "duration", "unit_of_measurement": "s"}),
    "trouble": ("Outbox trouble", "outbox.trouble", {}),
    "restarts": ("Worker restarts", "restarts", {"state_class": "total_increasing"}),
    "heat": ("Processor", "soc_c", {"device_class": "temperature", "unit_of_measurement": "°C"}),
    "certificate": ("Certificate", "certificate_days", {"device_class": "duration", "unit_of_measurement": "d"}),
}
"""Name, place in `health`, what else Home Assistant wants to know; a null there shows as unknown."""


class Announcer:
    """Decides when the message is due: with each connection, and after Home Assistant has started.

    `prefix` is Home Assistant's discovery prefix; None: it is told nothing.
    """

    def __init__(self, prefix: str | None, topics: Topics, clock: Clock) -> None:
        self._prefix, self._topics, self._clock = prefix, topics, clock
        self._due_at: float | None = None
        self._hang_ups, self._left_out_until = 0, 0.0
        self.subscriptions = () if prefix is None else (f"{prefix}/status",)

    def connected(self) -> None:
        """A connection has begun."""
        self._due_at = None if self._prefix is None else 0.0

    def hear(self, message: Incoming) -> None:
        """Take note of Home Assistant's birth; a retained one is old."""
        if message.topic in self.subscriptions and message.payload == b"online" and not message.retained:
            self._due_at = self._clock.monotonic() + random.uniform(0, RESPREAD_S)  # noqa: S311 - jitter

    def survived(self) -> None:
        """The connection outlived the message: an acknowledgement says little, Mosquitto sends one and hangs up."""
        self._hang_ups = 0

    def hung_up(self) -> None:
        """The connection broke on the message: chance once, its size when it happens again."""
        self._hang_ups += 1
        if self._hang_ups >= HANG_UPS:
            self._hang_ups, self._left_out_until = 0, self._clock.monotonic() + LEFT_OUT_S
            size = len(discovery(self._topics))
            log.error(event("announcement-left-out", bytes=size, next="raise the broker's packet size limit"))

    def due(self) -> tuple[str, bytes] | None:
        """Topic and payload if it is time, once."""
        if self._due_at is None or self._clock.monotonic() < max(self._due_at, self._left_out_until):
            return None
        self._due_at = None
        return f"{self._prefix}/device/{self._topics.device}/config", discovery(self._topics)


def discovery(topics: Topics) -> bytes:
    """The message: counts per class, index and visitors of each released window, diagnostics, pause and identify."""
    live, health = topics("live"), topics("health")
    parts = {cell: _sensor(cell.capitalize(), live, _released(cell), **_PER_WINDOW) for cell in CELLS}
    index = (
        f"{{% set n, happy = {_released(*EMOTIONS)}, {_released('happy')} %}}"
        "{{ [0, [100 * (happy or 0) / n, 100] | min] | max | round(1) if n and n > 0 else none }}"
    )
    parts |= {
        "index": {**_sensor("Happiness index", live, "", **_PERCENT), "value_template": index},
        "visitors": _sensor("Visitors", live, "value_json.visitors", **_PER_WINDOW),
        "coverage": _sensor("Coverage", live, "(100 * value_json.coverage) | round(1)", **_PERCENT),
        "window": _sensor("Window", live, "value_json.window.start", device_class="timestamp"),
        "power": {
            **_sensor("Under-voltage", health, "{true: 'ON', false: 'OFF'}.get(value_json.under_voltage)"),
            "platform": "binary_sensor",
            "device_class": "problem",
            "entity_category": "diagnostic",
        },
        "pause": {
            **_sensor("Pause", health, "value_json.paused | string | lower"),
            "platform": "switch",
            "command_topic": topics("cmd/paused"),
            "payload_on": "true",
            "payload_off": "false",
            "icon": "mdi:camera-off",
        },
        "identify": {
            "platform": "button",
            "name": "Identify",
            "command_topic": topics("cmd/identify"),
            "device_class": "identify",
            "entity_category": "config",
        },
    }
    for key, (name, place, more) in _DIAGNOSTICS.items():
        parts[key] = _sensor(name, health, f"value_json.{place}", entity_category="diagnostic", **more)
    online = "{{ 'online' if value_json.state == 'online' else 'offline' }}"
    message = {
        "device": {
            "identifiers": [f"edge-{topics.device}"],
            "name": f"{topics.site} {topics.device}",
            "model": "edge-fer",
            "sw_version": __version__,
            "suggested_area": topics.site,
        },
        "origin": {"name": "edge-fer", "sw_version": __version__},
        "components": {key: part | {"unique_id": f"edge-{topics.device}-{key}"} for key, part in parts.items()},
        "availability": [{"topic": topics("status"), "value_template": online}],
        "qos": 1,
    }
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def _sensor(name: str, topic: str, expression: str, **more: object) -> dict[str, object]:
    template = f"{{{{ {expression} }}}}"
    return {"platform": "sensor", "name": name, "state_topic": topic, "value_template": template, **more}


def _released(*cells: str) -> str:
    """The sum of what both routes released of these cells; none where nothing was."""
    values = [f"value_json.counts.{route}.{cell}" for cell in cells for route in ROUTES]
    known = f"([{', '.join(values)}] | reject('none') | list)"
    return f"({known} | sum if {known} else none)"
