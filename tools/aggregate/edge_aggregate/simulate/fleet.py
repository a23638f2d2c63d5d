"""All devices of a plan as one stream of messages, in the order of receipt. What is kept in memory is what is late."""

from __future__ import annotations

import heapq
import json
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from edge_aggregate.simulate.device import Device, policy
from edge_aggregate.simulate.faults import Weather
from edge_aggregate.simulate.hostile import Strangers
from edge_aggregate.simulate.traffic import Site
from edge_aggregate.simulate.wire import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edge_aggregate.simulate.device import Counted
    from edge_aggregate.simulate.hostile import Hostile
    from edge_aggregate.simulate.plan import Plan
    from edge_aggregate.simulate.truth import Truth
    from edge_aggregate.simulate.wire import Window


FOREVER_MS: Final = 1 << 60
TAIL_MS: Final = 60_000
"""A log goes on so long after the plan's end: a window that ends with it is still received, one that is late is not."""


class Message(NamedTuple):
    """What is received: of a device's `window`, or of somebody who `contradicts` it; else `hostile`."""

    received_ms: int
    topic: str
    payload: bytes
    window: Window | None = None
    contradicts: bool = False
    hostile: Hostile | None = None


class Kept(Protocol):
    """Takes a closed window's payload, None where it is gone on the device; `lost`: it never comes by itself."""

    def __call__(self, window: Window, payload: bytes | None, *, lost: bool) -> None:
        """As the class says."""
        ...


def _nobody(window: Window, payload: bytes | None, *, lost: bool) -> None:
    pass


def _no_clock() -> None:
    return None


class Fleet:
    """Iterate over `messages` once; `truth` is told of everything."""

    def __init__(self, plan: Plan, truth: Truth) -> None:
        rng = Random(f"edge {plan.seed}")  # noqa: S311 - a simulation
        self._plan, self._truth, self._rng = plan, truth, rng
        self.sites = [Site(number, plan, rng) for number in range(plan.site_count)]
        rules = policy(plan)
        self.devices = [
            Device(number, self.sites[number % len(self.sites)], plan, rules, rng) for number in range(plan.devices)
        ]
        self._writer = Writer(plan)
        self._weather = Weather(plan, rng)
        self._strangers = Strangers(rng, lines=plan.lines)
        self._waiting: list[tuple[int, int, Message]] = []
        self._number = 0
        self._until_ms = FOREVER_MS
        self.kept: Kept = _nobody
        """Told of each window as it is closed."""

    def places(self) -> str:
        """The sites file of these sites, TOML."""
        return "".join(
            f'[sites.{site.name}]\nname = "Site {number}"\nzone = "{site.place.zone}"\ncity = "{site.place.city}"\n'
            f"latitude = {site.latitude:.4f}\nlongitude = {site.longitude:.4f}\n"
            f'hours = {{ mon-sun = "{site.opens:02}:00-{site.closes:02}:00" }}\n\n'
            for number, site in enumerate(self.sites, 1)
        )

    def messages(self) -> Iterator[Message]:
        """All that is received by the plan's end: what is late then has not come yet."""
        return (message for message in self.paced(_no_clock) if message is not None)

    def paced(
        self, now: Callable[[], int | None], stopping: Callable[[], bool] = lambda: False, *, endless: bool = False
    ) -> Iterator[Message | None]:
        """Messages whose time has come, and None whenever the next one's has not.

        `now` says how far the fleet's time may go, in milliseconds; None: to the end. An `endless` fleet goes on after
        the plan's end. Once it is `stopping`, no window is closed any more, and what is under way comes at once.
        """
        waiting, truth = self._waiting, self._truth
        end = FOREVER_MS if endless else self._plan.end_ms
        self._until_ms = end + TAIL_MS
        due = [(device.next_ms, number) for number, device in enumerate(self.devices)]
        heapq.heapify(due)
        while due[0][0] <= end and not stopping():
            until = now()
            if until is not None and due[0][0] > until:
                yield self._out() if waiting and waiting[0][0] <= until else None
                continue
            at, number = due[0]
            device = self.devices[number]
            found = device.step()
            if device.missed is not None:
                truth.missed(device.site.name, *device.missed)
                device.missed = None
            if found is not None:
                self._send(device, found)
            heapq.heapreplace(due, (device.next_ms, number))
            while waiting and waiting[0][0] <= at:
                yield self._out()
            truth.reach(at)
        while waiting:
            until = None if stopping() else now()
            yield None if until is not None and waiting[0][0] > until else self._out()

    def _out(self) -> Message:
        message = heapq.heappop(self._waiting)[2]
        self._truth.received(message.received_ms)
        return message

    def _push(self, message: Message) -> None:
        self._number += 1
        heapq.heappush(self._waiting, (message.received_ms, self._number, message))

    def _send(self, device: Device, found: Counted) -> None:
        window = found.window
        delivery = self._weather.deliver(device, window).by(self._until_ms)
        payload = self._writer.payload(window).encode()
        for received_ms in delivery.times:
            self._push(Message(received_ms, device.topic, payload, window))
        kept: Sequence[int | None] = window.cells
        duplicates, conflicts = len(delivery.times) - 1, 0
        first_ms = delivery.times[0] if delivery.times else 0
        if delivery.conflict_ms is not None:
            after = delivery.conflict_ms >= first_ms
            other, cells = _contradicted(payload, window, after=after)
            self._push(Message(delivery.conflict_ms, device.topic, other, window, contradicts=True))
            conflicts = 1
            if not after:
                kept, duplicates, conflicts = cells, 0, len(delivery.times)
                first_ms = delivery.conflict_ms
        self.kept(window, None if delivery.loss == "gone" else payload, lost=bool(delivery.loss))
        self._truth.window(found, delivery, kept, received_ms=first_ms, duplicates=duplicates, conflicts=conflicts)
        if self._rng.random() < self._plan.faults.hostile:
            received_ms = window.closed_ms + self._rng.randrange(60_000)
            one = self._strangers.send(device.topic, payload, received_ms)
            self._truth.hostile(one)
            self._push(Message(received_ms, one.topic or device.topic, one.payload, hostile=one))


def _contradicted(payload: bytes, window: Window, *, after: bool) -> tuple[bytes, list[int | None]]:
    """Another payload for the same key: some happy faces more, and its cells.

    What comes first is kept, and of two in the same millisecond the one with the smaller digest. Of a broker nobody
    knows the milliseconds: digests are made to agree with the order.
    """
    body = json.loads(payload)
    row = body["counts"]["unmasked"]
    cells = list(window.cells)
    place = list(row).index("happy")
    if cells[place] is None:
        body["suppressed_cells"] -= 1
        body["noise_draws"]["unmasked"]["happy"] = 0
    mine = sha256(payload).digest()
    while True:
        cells[place] = row["happy"] = (cells[place] or 0) + 1
        body["visitors"] = sum(cell for cell in cells if cell is not None)
        other = json.dumps(body, separators=(",", ":")).encode()
        if (sha256(other).digest() > mine) == after:
            return other, cells
