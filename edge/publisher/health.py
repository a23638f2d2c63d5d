"""The `health` payload, put together from vision's figures, the outbox and the board."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from edge.contract import Health, OutboxFigures, Percentiles, PrivacyFigures
from edge.process.logs import event
from edge.publisher.board import power, soc_celsius
from edge.publisher.tls import certificate_days

if TYPE_CHECKING:
    from edge.outbox.rows import OutboxStats
    from edge.outbox.runtime_files import VisionFile
    from edge.process.clock import Clock
    from edge.publisher.tls import TlsFiles

log = logging.getLogger("edge.publisher")

STALE_S: Final = 10.0
"""A vision file older than this is a service that does not run: its rate is 0."""
ENDING_DAYS: Final = 30
"""A certificate that ends sooner is warned of, once a day."""


def runs(figures: VisionFile | None, monotonic: float) -> bool:
    """Whether a vision service runs, by its last figures and the clock now."""
    return figures is not None and figures.state == "running" and monotonic - figures.updated <= STALE_S


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
        fps=figures.fps if runs(figures, clock.monotonic()) else 0.0,
        invoke_ms=Percentiles(p50=figures.invoke_ms.p50, p95=figures.invoke_ms.p95),
        drops=figures.drops,
        restarts=figures.restarts,
        outbox=OutboxFigures(
            unsent=stats.unsent,
            oldest_s=stats.oldest_s,
            waiting=figures.waiting,
            trouble=trouble or figures.trouble,
        ),
        soc_c=soc_celsius(),
        scene=figures.scene,
        time_quality=clock.time_quality(),
        paused=figures.paused,
        versions=figures.versions,
        certificate_days=certificate_days,
        under_voltage=supply and supply.under_voltage,
        privacy=PrivacyFigures(**figures.privacy.model_dump()) if figures.privacy else None,
        detector=figures.detector,
    )


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
