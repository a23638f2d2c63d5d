"""One kiosk: its windows, runs and clock, and what it holds back, by the rules of docs/contract.md.

Time here is true time in milliseconds; the device's labels are its clock's. The same rules are the appliance's own in
`edge.vision`, which the aggregator does not import; a test holds the two to each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from edge_aggregate.simulate.noise import Laplace
from edge_aggregate.simulate.plan import DAY_MS
from edge_aggregate.simulate.wire import EARLIEST_MS, Window

if TYPE_CHECKING:
    from random import Random

    from edge.types import Scene, TimeQuality
    from edge_aggregate.simulate.plan import Plan
    from edge_aggregate.simulate.traffic import Drawn, Site

CELLS: Final = 16
_NONE: Final = (0,) * CELLS
_SHORTEST_MS: Final = 1000
"""A run's last window that is shorter is not recorded."""
HOLD_MS: Final = 15 * 60_000
"""The publisher waits so long for the clock before it sends a window `unsynced`."""
_SHORTEST_DAY_MS: Final = 12 * 3_600_000
_COVERAGE_STEPS: Final = 20
_RESTING: Final[tuple[tuple[Scene, float], ...]] = (("covered", 0.001), ("frozen", 0.001), ("paused", 0.001))
"""What a window is besides lit and watched, and how often."""


class Policy(NamedTuple):
    """What is done to counts; `noise` None: none is added. `day` is how many windows a UTC day pays for, None: all."""

    noise: Laplace | None
    min_count: int
    day: int | None

    @property
    def exact(self) -> bool:
        """Neither noise nor threshold."""
        return self.noise is None and self.min_count <= 1


def policy(plan: Plan) -> Policy:
    """Of a plan: a day pays for as many windows as it has, so that restarts cost counts and not privacy."""
    if plan.epsilon is None:
        return Policy(None, plan.min_count, None)
    return Policy(Laplace(plan.epsilon), plan.min_count, -(-86_400 // plan.seconds))


class Clock:
    """How a device's label stands to true time, and for how many windows still.

    A window that closed while the publisher waited for the clock is labelled `synced` later, but it was cut by a clock
    that was not set: `unset` counts windows that are off the grid.
    """

    __slots__ = ("kind", "offset_ms", "unset", "windows")

    def __init__(self) -> None:
        self.kind: TimeQuality = "synced"
        self.offset_ms = self.windows = self.unset = 0

    def label(self, ms: int) -> int:
        """What the device calls this moment."""
        return ms + self.offset_ms

    def close(self) -> TimeQuality:
        """A window ends: its quality. With the last one the clock is set."""
        kind = self.kind
        self.unset = max(0, self.unset - 1)
        if self.windows > 0:
            self.windows -= 1
            if not self.windows:
                self.kind, self.offset_ms = "synced", 0
        return kind


class Counted(NamedTuple):
    """A window, the visitors who came in it, and whether they were counted."""

    window: Window
    came: Drawn
    counted: bool


class Device:
    """A kiosk. `next_ms` is when something happens to it: call `step` then, and not before."""

    __slots__ = (
        "_budget_day",
        "_budget_since_ms",
        "_drawn",
        "_ends_ms",
        "_flush_day",
        "_grid",
        "_held",
        "_policy",
        "_prev",
        "_restarts",
        "_rng",
        "_starts_ms",
        "boot_id",
        "clock",
        "fate",
        "missed",
        "name",
        "next_ms",
        "seq",
        "site",
        "spent",
        "topic",
    )

    def __init__(self, number: int, site: Site, plan: Plan, rules: Policy, rng: Random) -> None:
        self.site, self.name = site, f"kiosk-{number + 1:06d}"
        self.topic = f"{plan.root}/v1/{site.name}/{self.name}/counts"
        self._rng, self._policy = rng, rules
        self._grid = plan.seconds * 1000
        self._restarts = plan.restarts / DAY_MS
        self._held, self._drawn = [0] * CELLS, [0] * CELLS
        self._flush_day: int | None = None
        self._budget_day, self._budget_since_ms, self.spent = -1, 0, 0
        self.clock = Clock()
        self.boot_id, self.seq = "", 0
        self._prev: tuple[str, int] | None = None
        self.missed: tuple[int, Drawn] | None = None
        """Visitors whom nobody looked at, and since when: before the power came back."""
        self.fate: object = None
        """What becomes of its messages: `faults`' own."""
        self._starts_ms = self._ends_ms = self.next_ms = 0
        self.boot(plan.start_ms + rng.randrange(self._grid))

    # ---- runs

    def boot(self, at_ms: int) -> None:
        """Begin a run."""
        self.renew()
        self._starts_ms = at_ms
        self._ends_ms = self._cut(at_ms, first=True)
        self._plan_next()

    def renew(self) -> None:
        """The outbox is lost and a new one begun: a run of its own, in which the open window ends."""
        if self.seq:
            self._prev = self.boot_id, self.seq
        self.boot_id, self.seq = f"{self._rng.getrandbits(128):032x}", 0

    def lose_clock(self, kind: TimeQuality, windows: int) -> None:
        """For so many windows: `holdover`, or with the power gone a clock that is not set: 1970, or hours behind."""
        clock = self.clock
        clock.kind, clock.windows, clock.offset_ms = kind, windows, 0
        if kind == "unsynced":
            behind = self._rng.randrange(60_000, 12 * 3_600_000)
            clock.offset_ms = -self._starts_ms if self._rng.random() < 0.5 else -behind
            clock.unset = windows + HOLD_MS // self._grid + 1
            self._budget_since_ms = self._starts_ms
            self.boot(self._starts_ms)

    def _cut(self, at_ms: int, *, first: bool) -> int:
        """When a window that starts now ends: on the grid of UTC where the clock is set."""
        if self.clock.unset:
            return at_ms + self._grid
        ahead = self._grid - at_ms % self._grid
        if not first and ahead < self._grid / 2:
            ahead += self._grid
        return at_ms + ahead

    def _plan_next(self) -> None:
        self.next_ms = self._ends_ms
        if self._restarts > 0:
            restart = self._starts_ms + round(self._rng.expovariate(self._restarts))
            self.next_ms = min(restart, self._ends_ms)

    # ---- windows

    def step(self) -> Counted | None:
        """What happens at `next_ms`: a window ends; or a run, with a short window or, without power, with none."""
        now, rng = self.next_ms, self._rng
        if now == self._ends_ms:
            closed = self._close(now)
            self._starts_ms = now
            self._ends_ms = self._cut(now, first=False)
            self._plan_next()
            return closed
        if rng.random() < 0.7:  # an update: the service ends its window in peace
            counted = self._close(now) if now - self._starts_ms > _SHORTEST_MS else None
            down = rng.randrange(20_000, 120_000)
            self.missed = now, self.site.visitors(rng, now, now + down)
        else:  # the plug is pulled: what was counted in RAM never was
            counted = None
            down = rng.randrange(60_000, 6 * 3_600_000)
            self.missed = self._starts_ms, self.site.visitors(rng, self._starts_ms, now + down)
        self.boot(now + down)
        return counted

    def _close(self, now: int) -> Counted:
        rng, site = self._rng, self.site
        start, rules = self._starts_ms, self._policy
        came = site.visitors(rng, start, now)
        lit = site.opened(start, now)
        scene, coverage = self._look(lit)
        label = self.clock.label(start)
        day = (self.clock.label(now) + 500) // DAY_MS
        quality = self.clock.close()
        flush, self._flush_day = self._flush_day is not None and day != self._flush_day, day
        # Without noise a window is only counted when a frame could be searched; with it, whenever there was a frame.
        seen = scene != "paused" and (rules.noise is not None or coverage > 0)
        exhausted = not self._affords(label // DAY_MS, start)
        counted = seen and not exhausted
        if counted:
            self.spent += 1
        watched = counted and coverage > 0
        cells, draws = self._release((came.read if watched else _NONE) if counted else None, flush=flush)
        self.seq += 1
        window = Window(
            site.name,
            self.name,
            self.boot_id,
            self.seq,
            self._prev,
            max(label, EARLIEST_MS) if quality == "unsynced" else label,
            now - start,
            now,
            quality,
            cells,
            draws,
            coverage,
            scene,
            flush,
            exhausted,
        )
        return Counted(window, came, watched)

    def _look(self, lit: float) -> tuple[Scene, float]:
        """The scene that held longest, and the share of the window that was looked at, in twentieths."""
        chance = self._rng.random()
        for scene, often in _RESTING:
            if chance < often:
                return scene, 0.0
            chance -= often
        if lit <= 0:
            return "dark", 0.0
        seen = lit if chance < 0.9 else lit * 0.9
        steps = max(1, round(seen * _COVERAGE_STEPS))  # whoever was counted was looked at
        return "ok" if lit >= 0.5 else "dark", steps / _COVERAGE_STEPS

    def _affords(self, day: int, start_ms: int) -> bool:
        """Whether the day pays for one more window. A clock that is set forth and back buys no new day."""
        if self._policy.day is None:
            return True
        forward = day > self._budget_day or start_ms - self._budget_since_ms >= _SHORTEST_DAY_MS
        if day != self._budget_day and (self._budget_day < 0 or forward):
            self._budget_day, self._budget_since_ms, self.spent = day, start_ms, 0
        return self.spent < self._policy.day

    def _release(self, votes: list[int] | tuple[int, ...] | None, *, flush: bool) -> tuple[list[int | None], list[int]]:
        """Released cells and the draws in them; the rest is held back. None: nobody could be counted, nothing drawn."""
        held, drawn = self._held, self._drawn
        cells: list[int | None] = [None] * CELLS
        draws = [0] * CELLS
        if votes is None:
            if flush:
                for i in range(CELLS):
                    if held[i] or drawn[i]:
                        cells[i], draws[i] = held[i], drawn[i]
                        held[i] = drawn[i] = 0
            return cells, draws
        noise, least = self._policy.noise, self._policy.min_count
        if noise is not None:
            for i, draw in enumerate(noise.window(self._rng)):
                value = draw + held[i] + votes[i]
                if flush or value >= least:
                    cells[i], draws[i] = value, drawn[i] + 1
                    held[i] = drawn[i] = 0
                else:
                    held[i] = value
                    drawn[i] += 1
            return cells, draws
        exact = self._policy.exact
        for i in range(CELLS):
            value = held[i] + votes[i]
            if exact or flush or value >= least:
                cells[i], held[i] = value, 0
            else:
                held[i] = value
        return cells, draws
