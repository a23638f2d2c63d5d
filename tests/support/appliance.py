"""Stand-ins for the neighbours of the wire in tests: a configuration, a vision that commits windows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self, cast

from edge.config import WebSection
from edge.outbox.runtime_files import InvokeMs, VisionFile
from edge.outbox.writer import DEFAULT_MAX_BYTES, OutboxWriter, open_for_vision
from edge.types import ModelsStatement, TimeQuality, Vote, WindowReport
from edge.vision.privacy import Accumulators, Policy, flush_day, flush_due, release, tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edge.config import Config
    from edge.process.clock import Clock

EXACT = Policy("off", Fraction(1), 1)
DIGEST = "sha256:" + "0123456789abcdef" * 4


@dataclass
class TlsFiles:
    """`mqtt.tls`."""

    ca: Path
    cert: Path | None
    key: Path | None

    @classmethod
    def of(cls, folder: Path, name: str) -> Self:
        """ca.crt, NAME.crt and NAME.key of a folder."""
        return cls(folder / "ca.crt", folder / f"{name}.crt", folder / f"{name}.key")


def configuration(
    folder: Path,
    port: int,
    *,
    hold: float | None = None,
    web: int | None = None,
    **mqtt: Any,  # noqa: ANN401 - any field of the section
) -> Config:
    """The parts of a configuration that the publisher reads, everything inside `folder`."""
    section = {
        "host": "127.0.0.1",
        "port": port,
        "root": "edge",
        "tls": None,
        "username": None,
        "password_file": None,
        "insecure": False,
        "protocol": "auto",
        "home_assistant": None,
    }
    return cast(
        "Config",
        SimpleNamespace(
            device=SimpleNamespace(id="kiosk-07", site="lobby"),
            live=False,
            mqtt=SimpleNamespace(**(section | mqtt)),
            storage=SimpleNamespace(outbox=folder / "outbox.db", runtime=folder, max_bytes=64 * 1024 * 1024),
            clock=SimpleNamespace(hold_seconds=hold),
            web=None if web is None else WebSection(port=web),
        ),
    )


def closing(
    votes: Sequence[Vote] = (),
    policy: Policy = EXACT,
    *,
    end: datetime | None = None,
    seconds: float = 3600.0,
    time_quality: TimeQuality = "synced",
    mono_end: float = 3600.0,
) -> Callable[[Accumulators, str | None], tuple[WindowReport, Accumulators]]:
    """What vision hands to its recorder for one window."""
    end = end or datetime.now(UTC)

    def close(held: Accumulators, day: str | None) -> tuple[WindowReport, Accumulators]:
        flush = flush_due(end, day)
        released, draws, kept = release(tally(votes), held, policy, flush=flush)
        report = WindowReport(
            start=end - timedelta(seconds=seconds),
            seconds=seconds,
            time_quality=time_quality,
            mono_start=mono_end - seconds,
            mono_end=mono_end,
            counts=released,
            noise_draws=draws,
            flush=flush,
            coverage=0.98,
            scene="ok",
            privacy=policy.statement(),
            models=ModelsStatement(DIGEST, DIGEST, DIGEST, "gate"),
        )
        return report, kept

    return close


class Committing(OutboxWriter):
    """A run of vision without eyes: what it holds back between two windows is in RAM."""

    held: Accumulators = {}  # noqa: RUF012 - replaced, never changed
    day: str | None = None

    def commit(  # type: ignore[override] # drawn here, for the tests' convenience
        self, close: Callable[[Accumulators, str | None], tuple[WindowReport, Accumulators]]
    ) -> int:
        """Draw a window and record it."""
        report, self.held = close(self.held, self.day)
        self.day = flush_day(report.start + timedelta(seconds=report.seconds))
        return super().commit(report)


def vision(
    folder: Path, boot_id: str = "a" * 32, *, max_bytes: int = DEFAULT_MAX_BYTES, clock: Clock | None = None
) -> Committing:
    """An outbox in which a run of vision has begun."""
    open_for_vision(folder / "outbox.db", clock=clock)[0].close()
    outbox = Committing(folder / "outbox.db", max_bytes=max_bytes, clock=clock)
    outbox.begin_boot(boot_id, "0" * 32 if clock is None else clock.kernel_boot_id)
    return outbox


def vision_file() -> VisionFile:
    """A vision file of a healthy service."""
    return VisionFile(
        boot_id="a" * 32,
        state="running",
        updated=time.monotonic(),
        backend="cpu",
        rate="ok",
        invoke_ms=InvokeMs(p50=1.5, p95=2.5),
        drops={"camera_lost": 3},
        restarts=0,
        scene="ok",
        time_quality="synced",
        paused=False,
        versions={"edge": "0", "bundle": datetime.now(UTC).date().isoformat()},
    )
