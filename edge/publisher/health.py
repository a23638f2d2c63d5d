"""The `health` payload, put together from vision's figures, the outbox and the board.

Its figures are taken on a beat of their own. Whatever else makes `health` go out (a window, a connection, a pause)
repeats the last ones: nobody with the right to send commands can look at a moment of their choice.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from edge.contract import Health, OutboxFigures, Percentiles, PrivacyFigures
from edge.outbox.runtime_files import InvokeMs, VisionFile
from edge.process.logs import event
from edge.publisher.board import power, soc_celsius
from edge.publisher.tls import certificate_days

if TYPE_CHECKING:
    from edge.outbox.rows import OutboxStats
    from edge.process.clock import Clock
    from edge.publisher.tls import TlsFiles
    from edge.types import Scene

log = logging.getLogger("edge.publisher")

BEAT_S: Final = 60.0
"""Seconds between two samples of the figures, on multiples of it."""
HEAT_STEP: Final = 5
"""Degrees."""
NAMES: Final = 4
"""Different versions that vision may claim in one life of the publisher; a release restarts both."""
STALE_S: Final = 10.0
"""A vision file older than this is a service that does not run: its rate is `none`."""
UNHEARD: Final = "none"
"""Backend of a vision service that nothing is known of."""
ENDING_DAYS: Final = 30
"""A certificate that ends sooner is warned of, once a day."""


def runs(figures: VisionFile | None, monotonic: float) -> bool:
    """Whether a vision service runs, by its last figures and the clock now.

    Figures from the future are those of another kernel boot, where the runtime folder is no tmpfs.
    """
    return figures is not None and figures.state == "running" and 0 <= monotonic - figures.updated <= STALE_S


def unheard(boot_id: str, clock: Clock, *, paused: bool) -> VisionFile:
    """In place of figures where vision gives none: nothing runs and no frame comes, so that `health` can say it."""
    made = VisionFile(
        boot_id=boot_id,
        state="ended",
        updated=0.0,
        backend="cpu",
        rate="none",
        invoke_ms=InvokeMs(p50=None, p95=None),
        drops={},
        restarts=0,
        scene="paused" if paused else "frozen",
        time_quality=clock.time_quality(),
        paused=paused,
        versions={},
    )
    return made.model_copy(update={"backend": UNHEARD})  # vision itself may not say so


def health(
    figures: VisionFile,
    stats: OutboxStats,
    clock: Clock,
    certificate_days: float | None,
    trouble: str | None = None,
) -> Health:
    """What `health` says now; `certificate_days` as `broker.certificate_days`, `trouble` the publisher's own."""
    supply = power()
    return Health(
        boot_id=figures.boot_id,
        backend=figures.backend,
        rate=figures.rate if runs(figures, clock.monotonic()) else "none",
        invoke_ms=Percentiles(p50=_two_digits(figures.invoke_ms.p50), p95=_two_digits(figures.invoke_ms.p95)),
        drops={str(cause): n for cause, n in figures.drops.items()},
        restarts=figures.restarts,
        outbox=OutboxFigures(
            unsent=stats.unsent,
            oldest_s=stats.oldest_s,
            waiting=figures.waiting,
            trouble=trouble or figures.trouble,
        ),
        soc_c=_in_steps(soc_celsius()),
        scene=figures.scene,
        time_quality=clock.time_quality(),
        paused=figures.paused,
        versions={str(part): name for part, name in figures.versions.items()},
        certificate_days=certificate_days,
        under_voltage=supply and supply.under_voltage,
        privacy=PrivacyFigures(**figures.privacy.model_dump()) if figures.privacy else None,
        detector=figures.detector,
    )


def _in_steps(celsius: float | None) -> float | None:
    """A processor that reads faces is warmer, by less than this."""
    return None if celsius is None else float(HEAT_STEP * round(celsius / HEAT_STEP))


def _two_digits(ms: float | None) -> float | None:
    return None if ms is None else float(f"{ms:.2g}")


class Sampler:
    """`health` as it may be said now: this beat's figures, and at once only what somebody asked for or must mend."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next = float("-inf")
        self._sample: Health | None = None
        self._whose: tuple[str, bool] | None = None
        self._scene: Scene = "ok"
        self._named: list[dict[str, str]] = []

    def __call__(
        self,
        figures: VisionFile,
        stats: OutboxStats,
        certificate_days: float | None,
        trouble: str | None = None,
    ) -> Health:
        """Arguments as of `health`."""
        now = self._clock.monotonic()
        fresh = health(figures, stats, self._clock, certificate_days, trouble)
        fresh = fresh.model_copy(update={"versions": self._known(fresh.versions)})
        whose = fresh.boot_id, fresh.backend == UNHEARD
        if self._sample is None or now >= self._next or whose != self._whose:
            self._next = (now // BEAT_S + 1) * BEAT_S
            self._sample, self._whose = fresh, whose
            if not fresh.paused:
                self._scene = fresh.scene
        scene: Scene = "paused" if fresh.paused else self._scene
        now_true = {"paused": fresh.paused, "scene": scene, "outbox": fresh.outbox, "time_quality": fresh.time_quality}
        return self._sample.model_copy(update=now_true)

    def _known(self, versions: dict[str, str]) -> dict[str, str]:
        """The names vision gives itself, which are all the free text it has: few are believed."""
        if versions not in self._named:
            if len(self._named) == NAMES:
                return self._named[-1]
            self._named.append(versions)
        return versions


class CertificateWatch:
    """Days until this device's certificate ends, each time it is called; None without one."""

    def __init__(self, files: TlsFiles | None, clock: Clock) -> None:
        self._files, self._clock = files, clock
        self._warn_at = 0.0

    def __call__(self) -> float | None:
        """Read the file again: it may have been renewed."""
        days, now = certificate_days(self._files, self._clock.utcnow()), self._clock.monotonic()
        if days is not None and days < ENDING_DAYS and now >= self._warn_at:
            self._warn_at = now + 86400
            log.warning(event("certificate-ending", days=days, next="renew mqtt.tls.cert; no restart is needed"))
        return days
