"""What strangers send: each of the contract's refusals, made from a window that would have been taken."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from edge.contract import CELL_LIMIT, DEPTH_LIMIT, SIZE_LIMIT
from edge_aggregate.simulate.wire import stamp

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

_DAY_MS: Final = 86_400_000
_GAP: Final = 1_000_000
"""Numbers that a device may leave out and be believed."""


class Hostile(NamedTuple):
    """A message that is a dead letter for every subscriber: `fault` names it, `kind` what it is refused for.

    `topic` None: the device's own. `line` is what a landing log has instead of an envelope around it.
    """

    fault: str
    kind: str
    payload: bytes = b""
    topic: str | None = None
    line: bytes | None = None


def _set(path: str, value: object) -> Callable[[dict[str, Any], Random], None]:
    *parents, last = path.split(".")

    def change(body: dict[str, Any], _: Random) -> None:
        for parent in parents:
            body = body[parent]
        body[last] = value

    return change


def _negative(body: dict[str, Any], _: Random) -> None:
    body["flush"] = False
    body["counts"]["unmasked"]["happy"] = -1
    body["visitors"] = _sum(body)


def _no_sum(body: dict[str, Any], rng: Random) -> None:
    body["visitors"] = _sum(body) + rng.randrange(1, 100)


def _too_many(body: dict[str, Any], _: Random) -> None:
    body["counts"]["unmasked"]["happy"] = CELL_LIMIT + 1
    body["visitors"] = _sum(body)


def _sum(body: dict[str, Any]) -> int:
    return sum(value for row in body["counts"].values() for value in row.values() if value is not None)


def _noise_without_epsilon(body: dict[str, Any], _: Random) -> None:
    body["privacy"]["mechanism"] = "none" if body["privacy"]["epsilon"] is not None else "discrete-laplace"


def _missing_field(body: dict[str, Any], rng: Random) -> None:
    del body[rng.choice(("boot_id", "seq", "window", "counts", "privacy", "models", "prev", "scene"))]


_CHANGES: Final[dict[str, Callable[[dict[str, Any], Random], None]]] = {
    "negative-cell": _negative,
    "visitors-no-sum": _no_sum,
    "cell-beyond-limit": _too_many,
    "cell-no-integer": _set("counts.masked.sad", "7"),
    "mechanism-and-epsilon": _noise_without_epsilon,
    "epsilon-zero": _set("privacy", {"mechanism": "discrete-laplace", "epsilon": 0.0, "unit": "x", "min_count": 1}),
    "epsilon-negative": _set("privacy.epsilon", -1.0),
    "draws-beyond-limit": _set("noise_draws.unmasked.happy", 10**6 + 1),
    "seq-beyond-limit": _set("seq", 2**63),
    "seq-zero": _set("seq", 0),
    "prev-beyond-limit": _set("prev", {"boot_id": "0" * 32, "last_seq": 2**63}),
    "seconds-beyond-limit": _set("window.seconds", 10**9),
    "seconds-negative": _set("window.seconds", -1),
    "coverage-beyond-one": _set("coverage", 1.5),
    "start-before-2020": _set("window.start", "2019-12-31T23:59:59Z"),
    "start-year-one": _set("window.start", "0001-01-01T00:00:00+14:00"),
    "start-no-day": _set("window.start", "2026-02-30T00:00:00Z"),
    "start-without-offset": _set("window.start", "2026-11-21T10:00:00"),
    "boot-id-no-hex": _set("boot_id", "Z" * 32),
    "schema-unknown": _set("schema", "edge.counts/9"),
    "scene-unknown": _set("scene", "<script>alert(1)</script>"),
    "field-missing": _missing_field,
}
"""Payloads that are JSON and break a rule: all are refused by the decoder."""

_RAW: Final[dict[str, Callable[[bytes, Random], bytes]]] = {
    "no-json": lambda _, rng: rng.choice((b"hello", b"{", b"", b"'); DROP TABLE windows;--")),
    "no-object": lambda _, rng: rng.choice((b"7", b"null", b"[]", b'"text"')),
    "no-utf8": lambda body, _: body[:-1] + b',"x":"\xff\xfe\xed\xa0\x80"}',
    "half-surrogate": lambda body, _: body[:-1] + rb',"x":"\ud800"}',
    "nan": lambda body, _: body[:-1] + b',"x":NaN}',
    "infinity": lambda body, _: body.replace(b'"coverage":', b'"coverage":Infinity,"x":'),
    "number-huge": lambda body, _: body[:-1] + b',"x":' + b"9" * 5000 + b"}",
    "deep": lambda *_: b'{"a":' * (100 * DEPTH_LIMIT // 2),
    "deep-extra": lambda body, _: body[:-1] + b',"x":' + b"[" * 3 * DEPTH_LIMIT + b"]" * 3 * DEPTH_LIMIT + b"}",
    "oversize": lambda body, _: body[:-1] + b',"x":"' + b"a" * SIZE_LIMIT + b'"}',
    "cut-off": lambda body, rng: body[: rng.randrange(10, len(body) - 10)],
    "control-characters": lambda body, _: (
        body.replace(b'"ok"', b'"\x1b[2J"').replace(b'"dark"', b'"\x1b[2J"') + b"\x00"
    ),
}

_LINES: Final[dict[str, Callable[[str, str, bytes], bytes]]] = {
    "line-no-json": lambda *_: b"not json",
    "line-cut-off": lambda topic, received, body: (
        b'{"topic":"%s","received":"%s","payload":%s' % (topic.encode(), received.encode(), body)
    ),
    "line-without-received": lambda topic, _, body: b'{"topic":"%s","payload":%s}' % (topic.encode(), body),
    "line-received-no-time": lambda topic, _, body: (
        b'{"topic":"%s","received":"yesterday","payload":%s}' % (topic.encode(), body)
    ),
    "line-received-beyond": lambda topic, _, body: (
        b'{"topic":"%s","received":"0001-01-01T00:00:00+14:00","payload":%s}' % (topic.encode(), body)
    ),
    "line-topic-no-text": lambda _, received, body: (
        b'{"topic":{"a":1},"received":"%s","payload":%s}' % (received.encode(), body)
    ),
    "line-payload-number": lambda topic, received, _: (
        b'{"topic":"%s","received":"%s","payload":7}' % (topic.encode(), received.encode())
    ),
    "line-no-utf8": lambda topic, received, body: (
        b'{"topic":"%s\xff","received":"%s","payload":%s}' % (topic.encode(), received.encode(), body)
    ),
}
"""Lines of a log that are no envelope; a broker cannot bring them."""

_OF_MESSAGES: Final = (
    *_CHANGES,
    *_RAW,
    "topic-other-device",
    "topic-other-site",
    "topic-no-id",
    "start-in-future",
    "seq-gap",
    "prev-gap",
)
FAULTS: Final = (*_OF_MESSAGES, *_LINES)
"""All their names."""


class Strangers:
    """Makes them; each fault comes before any comes again, so that a small log has all it can."""

    def __init__(self, rng: Random, *, lines: bool) -> None:
        self._rng = rng
        self._ahead_ms = 0 if lines else 100 * 366 * _DAY_MS  # a broker's subscriber has a clock of its own
        self._faults = list(FAULTS if lines else _OF_MESSAGES)
        self._left: list[str] = []

    def send(self, topic: str, payload: bytes, received_ms: int) -> Hostile:
        """The next one, in place of this payload, received then."""
        rng = self._rng
        if not self._left:
            self._left = rng.sample(self._faults, len(self._faults))
        fault = self._left.pop()
        if fault in _CHANGES:
            body = json.loads(payload)
            _CHANGES[fault](body, rng)
            return Hostile(fault, "payload", _bytes(body))
        if fault in _RAW:
            return Hostile(fault, "payload", _RAW[fault](payload, rng))
        if fault in _LINES:
            line = _LINES[fault](topic, stamp(received_ms), payload)
            return Hostile(fault, "envelope", line=line)
        return self._elsewhere(fault, topic, payload, received_ms)

    def _elsewhere(self, fault: str, topic: str, payload: bytes, received_ms: int) -> Hostile:
        """A payload that could be true, if it came elsewhere, or another day, or after a million others."""
        body = json.loads(payload)
        body["boot_id"] = f"{self._rng.getrandbits(128):032x}"
        root, site, device, leaf = topic.rsplit("/", 3)
        if fault.startswith("topic-"):
            other = {
                "topic-other-device": f"{root}/{site}/kiosk-other/{leaf}",
                "topic-other-site": f"{root}/elsewhere/{device}/{leaf}",
                "topic-no-id": f"{root}/{site}/Kiosk 7/{leaf}",
            }[fault]
            return Hostile(fault, "topic", _bytes(body), other)
        if fault == "start-in-future":
            ahead = self._rng.randrange(_DAY_MS + 60_000, 400 * _DAY_MS)
            body["window"]["start"] = stamp(received_ms + self._ahead_ms + ahead)
            return Hostile(fault, "future", _bytes(body))
        if fault == "seq-gap":
            body["seq"] = self._rng.randrange(_GAP + 2, 2**63)
        else:
            before = f"{self._rng.getrandbits(128):032x}"
            body |= {"seq": 1, "prev": {"boot_id": before, "last_seq": self._rng.randrange(_GAP + 1, 2**63)}}
        return Hostile(fault, "gap", _bytes(body))


def _bytes(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
