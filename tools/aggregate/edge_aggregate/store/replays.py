"""Numbers that never came: which of them are worth asking for, what came of it, and who may ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from edge_aggregate.store.engine import Engine

AGAIN_MS: Final = (0, 900_000, 3_600_000, 21_600_000, 86_400_000)
"""How long after so many tries a device that did not answer, or whose rows did not come, is asked again."""


class Gap(NamedTuple):
    """Numbers of one boot, both ends included. `lost`: the device said that it has none of them.

    Between a window that began at `after_ms` (None: none) and one that began at `before_ms`. `state` is what the device
    last said of itself, None where nobody heard.
    """

    boot: int
    site: str
    device: str
    boot_id: str
    first_seq: int
    last_seq: int
    after_ms: int | None
    before_ms: int
    lost: bool
    tries: int
    asked_ms: int | None
    state: str | None

    @property
    def missing(self) -> int:
        """How many numbers."""
        return self.last_seq - self.first_seq + 1

    def due(self, now_ms: int) -> bool:
        """Whether it is to be asked for (again)."""
        if self.lost or self.state in ("offline", "stopped"):
            return False
        wait = AGAIN_MS[min(self.tries, len(AGAIN_MS) - 1)]
        return self.asked_ms is None or not self.asked_ms - wait < now_ms < self.asked_ms + wait


def numbers(first: int, last: int) -> str:
    """Numbers of a run as people write them."""
    return f"{first}" if first == last else f"{first} to {last}"


_GAPS: Final = """
SELECT g.boot, s.name, d.name, b.boot_id, g.first_seq, g.last_seq, g.after_ms, g.before_ms,
  EXISTS (SELECT 1 FROM replays l WHERE l.boot = g.boot AND l.gone = 1 AND l.first_seq <= g.first_seq
    AND l.last_seq >= g.last_seq),
  COALESCE(r.tries, 0), r.asked_ms, f.state
FROM gaps g JOIN boots b ON b.id = g.boot JOIN devices d ON d.id = b.device JOIN sites s ON s.id = g.site
LEFT JOIN replays r ON r.boot = g.boot AND r.first_seq = g.first_seq AND r.last_seq = g.last_seq
LEFT JOIN fleet f ON f.device = d.name
ORDER BY g.before_ms DESC, d.name, g.first_seq
"""


def read_gaps(engine: Engine) -> list[Gap]:
    """Every gap, the newest first: of old ones a device is least likely to have the rows. Raises StorageError."""
    return [gap._replace(lost=bool(gap.lost)) for gap in map(Gap._make, engine.fetch(_GAPS))]


def note_asked(engine: Engine, gap: Gap, now_ms: int) -> None:
    """A device was asked for it. Raises StorageError."""
    with engine.writing():
        engine.run(
            "INSERT INTO replays VALUES (?, ?, ?, ?, 1, 0) ON CONFLICT (boot, first_seq, last_seq)"
            " DO UPDATE SET asked_ms = excluded.asked_ms, tries = replays.tries + 1",
            (gap.boot, gap.first_seq, gap.last_seq, now_ms),
        )


def note_gone(engine: Engine, gap: Gap, now_ms: int) -> None:
    """The device has none of it. Raises StorageError."""
    with engine.writing():
        engine.run(
            "INSERT INTO replays VALUES (?, ?, ?, ?, 1, 1) ON CONFLICT (boot, first_seq, last_seq)"
            " DO UPDATE SET gone = 1",
            (gap.boot, gap.first_seq, gap.last_seq, now_ms),
        )


def forget_closed(engine: Engine) -> None:
    """Drop what is known of boots that miss nothing any more. Raises StorageError."""
    with engine.writing():
        engine.run("DELETE FROM replays WHERE boot NOT IN (SELECT boot FROM gaps)")


def take_lease(engine: Engine, name: str, holder: str, now_ms: int, for_ms: int) -> bool:
    """Whether `holder` alone may do it for so long from now: it had the lease, or nobody. Raises StorageError."""
    with engine.writing():
        taken = engine.run(
            "INSERT INTO leases VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET holder = excluded.holder,"
            " until_ms = excluded.until_ms WHERE leases.holder = excluded.holder OR leases.until_ms <= ?"
            " OR leases.until_ms > ?",
            (name, holder, now_ms + for_ms, now_ms, now_ms + 10 * for_ms),
        )
    return taken > 0


def drop_lease(engine: Engine, name: str, holder: str) -> None:
    """Let the next one. Raises StorageError."""
    with engine.writing():
        engine.run("DELETE FROM leases WHERE name = ? AND holder = ?", (name, holder))
