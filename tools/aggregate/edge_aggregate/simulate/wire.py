"""A window's payload as text: what `edge.contract.encode` writes, without building its models.

A test holds every payload to `encode(decode_counts(payload))`, byte by byte; the models would take most of the time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from edge.contract import EARLIEST
from edge.types import CELLS, ROUTES
from edge_aggregate.simulate.plan import DAY_MS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.types import Scene, TimeQuality
    from edge_aggregate.simulate.plan import Plan

EARLIEST_MS: Final = round(EARLIEST.timestamp() * 1000)

_CELLS: Final = ",".join(f'"{cell}":%s' for cell in CELLS)
_ROWS: Final = "{" + ",".join(f'"{route}":{{{_CELLS}}}' for route in ROUTES) + "}"
_NOTHING: Final = _ROWS % (("null",) * len(CELLS) * len(ROUTES))
_NO_DRAWS: Final = _ROWS % ((0,) * len(CELLS) * len(ROUTES))


class Window(NamedTuple):
    """A closed window as it will be sent. Times in milliseconds; `start_ms` is its label, `closed_ms` when it was.

    `prev` is (boot_id, last_seq) or None. `cells` and `draws`: 16 places, unmasked's eight, then masked's.
    """

    site: str
    device: str
    boot_id: str
    seq: int
    prev: tuple[str, int] | None
    start_ms: int
    length_ms: int
    closed_ms: int
    quality: TimeQuality
    cells: Sequence[int | None]
    draws: Sequence[int]
    coverage: float
    scene: Scene
    flush: bool
    exhausted: bool


@lru_cache(1024)
def _date(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, UTC).date().isoformat()


def stamp(ms: int) -> str:
    """RFC 3339, as `edge.contract.utc_text` writes it."""
    day, rest = divmod(ms, DAY_MS)
    date = _date(day)
    seconds, rest = divmod(rest, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if rest:
        return f"{date}T{hours:02}:{minutes:02}:{seconds:02}.{rest:03}Z"
    return f"{date}T{hours:02}:{minutes:02}:{seconds:02}Z"


_start = lru_cache(64)(stamp)
"""Windows of one hour begin together."""


class Writer:
    """Writes payloads of one fleet: what they have in common is made once."""

    def __init__(self, plan: Plan) -> None:
        mechanism, epsilon = ("none", "null") if plan.epsilon is None else ("discrete-laplace", float(plan.epsilon))
        privacy = (
            f'"privacy":{{"mechanism":"{mechanism}","epsilon":{epsilon},"unit":"one class per track per window",'
            f'"min_count":{plan.min_count},"exhausted":'
        )
        models = plan.classifier
        self._privacy = {value: f"{privacy}{text}}}" for value, text in ((False, "false"), (True, "true"))}
        self._models = (
            f'"models":{{"gate":"{models.gate}","fer_unmasked":"{models.fer_unmasked}",'
            f'"fer_masked":"{models.fer_masked}","route":"gate"}}'
        )

    def payload(self, w: Window) -> str:
        """ASCII: nothing in a simulated payload is anything else."""
        suppressed, visitors = w.cells.count(None), 0
        counts, draws = _NOTHING, _NO_DRAWS
        if suppressed < len(w.cells):
            counts = _ROWS % tuple("null" if cell is None else cell for cell in w.cells)
            draws = _ROWS % tuple(w.draws)
            visitors = sum(filter(None, w.cells))
        prev = "null" if w.prev is None else f'{{"boot_id":"{w.prev[0]}","last_seq":{w.prev[1]}}}'
        return (
            f'{{"schema":"edge.counts/1","site":"{w.site}","device":"{w.device}","boot_id":"{w.boot_id}","seq":{w.seq},'
            f'"prev":{prev},"window":{{"start":"{_start(w.start_ms)}","seconds":{w.length_ms / 1000},'
            f'"time_quality":"{w.quality}"}},"counts":{counts},'
            f'"suppressed_cells":{suppressed},"visitors":{visitors},"coverage":{w.coverage},'
            f'"scene":"{w.scene}",{self._privacy[w.exhausted]},{self._models},'
            f'"flush":{"true" if w.flush else "false"},"noise_draws":{draws}}}'
        )
