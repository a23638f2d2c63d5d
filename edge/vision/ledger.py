"""What vision must remember and nobody else may touch: noised values not yet released, and what the day has cost.

One small JSON file in a folder that only this user can enter (`outbox.db.ledger/`), replaced as a whole and
synced. A window is drawn into it once, when it closes; whatever happens to the outbox afterwards, the drawn values are
the only ones there will ever be, and what they cost is spent.
"""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.errors import StorageError
from edge.outbox.sqlite import explained
from edge.process.logs import event
from edge.process.shared_files import Unsafe, is_folder, read_small, replace_small
from edge.types import WindowReport  # noqa: TC001 - pydantic reads the annotation
from edge.vision.privacy import flush_day

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from edge.process.clock import Clock

log = logging.getLogger("edge.vision")

LIMIT: Final = 16 * 1024 * 1024
"""Bytes; a thousand waiting windows are two million."""
SHORTEST_DAY_S: Final = 12 * 3600.0
"""A new day's budget begins no sooner on the monotonic clock, whatever the wall clock says."""
DAY_S: Final = 24 * 3600.0
"""Seconds of running after which a new day's budget begins while the clock is not set, whatever date it shows."""

_Whole = Annotated[int, Field(ge=-(10**12), le=10**12)]


class _Part(BaseModel):
    # What a later version adds is passed over: a trial that is undone must not find its ledger damaged.
    model_config = ConfigDict(extra="ignore", strict=True)


class Waiting(_Part):
    """A closed window, drawn, that is perhaps not in the outbox yet; `kernel`: whose monotonic times it has."""

    kernel: str
    report: WindowReport


class Budget(_Part):
    """What a UTC day has cost, and since when (monotonic seconds of `kernel`) it is the day.

    `ran`: seconds this service has run since, through restarts and power cuts. `by_ran`: those before it made it a day,
    as no date did.
    """

    day: str = ""
    spent: Annotated[str, Field(pattern=r"^\d{1,30}(/\d{1,30})?$")] = "0"
    kernel: str = ""
    since: float = 0.0
    ran: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    by_ran: bool = False


class _File(_Part):
    version: Literal[1] = 1
    policy: str = ""
    held: dict[str, dict[str, tuple[_Whole, _Whole]]] = {}
    flush_day: str | None = None
    budget: Budget = Budget()
    waiting: list[Waiting] = []
    paused: bool = False
    last: (
        tuple[str, Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")], Annotated[int, Field(ge=1, le=2**53 - 1)]] | None
    ) = None


class Ledger:
    """The open ledger of the outbox at `outbox`; `policy` names what values were noised under.

    When the policy differs from the last run's, what was held is discarded, since it must not be released under another
    statement. Raises StorageError, here and in `save`.
    """

    def __init__(self, outbox: Path, clock: Clock, policy: str) -> None:
        self.path = outbox.with_name(f"{outbox.name}.ledger") / "ledger.json"
        self._clock = clock
        self._unsynced_since: float | None = None
        self.fresh = False
        """There was none: what the outbox has of an older version is to be taken over."""
        found = self._read()
        self.held = found.held if found.policy == policy else {}
        self.flush_day = found.flush_day
        self.waiting = found.waiting
        self.paused = found.paused
        """What was commanded last. The outbox says it too, and is believed unless it is a new one."""
        self.last = found.last
        """Whose run recorded a window last (`site/device`), its boot_id and its seq then."""
        self._policy, self._budget = policy, found.budget
        self._counted_to = clock.monotonic()

    def _read(self) -> _File:
        self._make_folder()
        with explained(self.path):
            for torn in self.path.parent.glob(f".{self.path.name}.*"):  # the power went while one was written
                torn.unlink(missing_ok=True)
            try:
                return _File.model_validate_json(read_small(self.path, LIMIT), strict=False)
            except FileNotFoundError:
                self.fresh = True
                return _File()
            except (Unsafe, ValidationError, RecursionError) as error:
                return self._put_aside(str(error).splitlines()[0])

    def _put_aside(self, why: str) -> _File:
        """Nobody knows what the day has cost: fail towards "all of it"."""
        aside = self.path.with_name(f"{self.path.name}.damaged")
        with explained(self.path):
            self.path.replace(aside)
        log.error(
            event("ledger_damaged", file=aside, why=why, next="nothing is counted until tomorrow if there is a budget")
        )
        spent = Budget(
            day=self._today(), spent=str(10**12), kernel=self._clock.kernel_boot_id, since=self._clock.monotonic()
        )
        return _File(budget=spent)

    def _make_folder(self) -> None:
        folder = self.path.parent
        with explained(folder):
            if not is_folder(folder):
                folder.mkdir(mode=0o700)
            found = folder.stat()
            if found.st_uid != os.geteuid() or found.st_mode & 0o022:
                msg = (
                    f"{folder} must belong to the vision service and be writable by nobody else: "
                    f"chown it, chmod 700 {folder}"
                )
                raise StorageError(msg)

    def inherit(self, policy: str | None, held: object, day: str | None, spent: object) -> None:
        """Take over what an older version kept in the outbox, where it can be read."""
        try:
            match spent:
                case [str(when), str(cost)]:
                    budget = Budget(day=when, spent=cost)
                case _:
                    budget = Budget()
            old = _File.model_validate({"held": held or {}, "flush_day": day, "budget": budget}, strict=False)
        except ValidationError:
            return
        self.held = old.held if policy == self._policy else {}
        self.flush_day, self._budget = old.flush_day, old.budget

    def leave(self) -> None:
        """Forget, for good, what was counted under another name; what the day has cost stays spent."""
        self.held, self.waiting = {}, []
        self.save(())

    def closed(self, report: WindowReport, held: dict[str, dict[str, tuple[int, int]]]) -> Waiting:
        """Take note of a window that was drawn just now, and of what it left."""
        self.held = held
        self.flush_day = flush_day(report.start + timedelta(seconds=report.seconds))
        return Waiting(kernel=self._clock.kernel_boot_id, report=report)

    def save(self, waiting: Iterable[Waiting]) -> None:
        """Make it last, with the windows that are not in the outbox yet."""
        self._count_time()
        content = _File(
            policy=self._policy,
            held=self.held,
            flush_day=self.flush_day,
            budget=self._budget,
            waiting=list(waiting),
            paused=self.paused,
            last=self.last,
        )
        with explained(self.path):
            if not is_folder(self.path.parent):
                self._make_folder()
            replace_small(self.path, content.model_dump_json().encode(), mode=0o600, durable=True)

    # ---- the day's budget

    def _today(self) -> str:
        return self._clock.utcnow().date().isoformat()

    def _count_time(self) -> None:
        now = self._clock.monotonic()
        ran = self._budget.ran + max(0.0, now - self._counted_to)
        self._budget, self._counted_to = self._budget.model_copy(update={"ran": ran}), now

    def begins_by_running(self, day: str) -> bool:
        """Whether a day of running has passed of which the clock, never set, knows nothing.

        One that begins at the same date each time it is switched on would never reach the next.
        """
        self._count_time()
        return self._budget.ran >= DAY_S and self._clock.time_quality() == "unsynced" and not self._dated(day)

    def spent(self, day: str) -> Fraction:
        """Epsilon spent of the budget from which a window that starts on `day` (UTC, YYYY-MM-DD) is paid."""
        return Fraction(0) if self._begins(day) else Fraction(self._budget.spent)

    def spend(self, day: str, epsilon: Fraction) -> None:
        """Add to it; the caller saves."""
        self._count_time()  # what ran until now is the old day's
        if self._begins(day):
            self._budget = Budget(
                day=day,
                kernel=self._clock.kernel_boot_id,
                since=self._clock.monotonic(),
                by_ran=not self._dated(day),
            )
        self._budget = self._budget.model_copy(update={"spent": str(Fraction(self._budget.spent) + epsilon)})

    def _begins(self, day: str) -> bool:
        return self._dated(day) or self.begins_by_running(day)

    def _dated(self, day: str) -> bool:
        """Whether `day` has a budget of its own by its date. A clock that is set forth and back gives none."""
        budget = self._budget
        if day == budget.day or (budget.by_ran and self._clock.time_quality() == "unsynced"):
            return False  # its dates were found not to go on: until it is set only running counts
        if not budget.day:
            return True
        if budget.kernel != self._clock.kernel_boot_id:
            if day > budget.day:
                return True
            if self._clock.time_quality() == "unsynced":
                # A clock that starts in the past until it is set: the day it is set to may have a budget of its own.
                self._unsynced_since = self._unsynced_since or self._clock.monotonic()
                return self._clock.monotonic() - self._unsynced_since >= SHORTEST_DAY_S
            # Back in time after a power cut: the old budget goes on, and from now on time is counted again.
            now = {"kernel": self._clock.kernel_boot_id, "since": self._clock.monotonic()}
            self._budget = budget.model_copy(update=now)
            return False
        return self._clock.monotonic() - budget.since >= SHORTEST_DAY_S
