"""The vision service: camera → detect → preprocess → route → track → window → privacy → outbox. Composition only."""

from __future__ import annotations

import contextlib
import logging
import secrets
import select
import sys
import time
from collections import deque
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import numpy as np

from edge import __version__, scene
from edge.backend.cpu import CpuBackend
from edge.bundle import check_golden, load_bundle
from edge.camera import open_camera
from edge.clock import SystemClock
from edge.detect.haar import Haar
from edge.errors import StorageError
from edge.figures import Rate
from edge.outbox import open_for_vision
from edge.preprocess import MIN_FACE, chip
from edge.privacy import Policy, flush_due, release, tally
from edge.route import ROLES, Router
from edge.runtime import Development, InvokeMs, VisionFile, read_command, write_vision
from edge.track import Tracker, chip_weight
from edge.types import ModelsStatement, Track, Vote, WindowReport
from edge.window import MAX_GAP, Timeline, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge.camera import Camera
    from edge.clock import Clock
    from edge.config import Config
    from edge.privacy import Accumulators
    from edge.types import Frame, Scene

    Close = Callable[[Accumulators, str | None], tuple[WindowReport, Accumulators]]

log = logging.getLogger("edge.vision")

POLL: Final = 0.25
"""Seconds between looks at `command.json`, and the longest wait for a frame."""
RETRY_COMMIT: Final = 5.0
WAITING_WINDOWS: Final = 1000
"""Windows kept in RAM while the outbox cannot be written; then the oldest is given up, and counted."""
SHORTEST: Final = 1e-3
"""A last window shorter than this (seconds) holds nothing and is not closed."""


class Vision:
    """One run of the service, from camera to outbox; `on_frame` sees each frame with its tracks (development)."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        on_frame: Callable[[Frame, Sequence[Track]], None] | None = None,
    ) -> None:
        """Check the bundle and its golden answers, then open outbox and camera; any EdgeError may be raised."""
        self._config, self._on_frame = config, on_frame
        runtime = config.storage.runtime
        _make_folder(runtime)
        self._clock = clock or SystemClock(runtime / "clock-synced")
        self._bundle = load_bundle(config.models.bundle, config.models.public_key)
        signed = self._bundle.signed
        log.info("bundle name=%s signed_by=%s", self._bundle.manifest.name, signed.key_id if signed else "unchecked")
        roles = ROLES[config.models.strategy]
        self._backend = CpuBackend(self._bundle, roles)
        check_golden(self._bundle, self._backend, roles)
        if config.models.accelerator == "auto":
            log.info("backend chosen=cpu reason=this version has no Edge TPU worker")
        self._router = Router(self._backend, config.models.strategy)
        threshold = config.models.uncertain_below
        self._tracker = Tracker(
            {
                "unmasked": self._threshold("fer_unmasked", threshold),
                "masked": self._threshold("fer_masked", threshold),
            }
        )
        self._detector = Haar(min_face=config.detector.min_face, rotations=config.detector.rotations)
        self._crop = self._bundle.crop(self._detector.kind)
        digests = {role: self._bundle.digest(role) if role in roles else None for role in ROLES["gate"]}
        self._models = ModelsStatement(**digests, route=config.models.strategy)
        p = config.privacy
        self._policy = Policy(p.noise, Fraction(str(p.epsilon)), p.min_count)
        self._outbox, damaged = open_for_vision(
            config.storage.outbox, max_bytes=config.storage.max_bytes, runtime=runtime, clock=self._clock
        )
        if damaged is not None:
            log.error("outbox_quarantined generation=%s next=keep the files for repair", damaged)
        self.boot_id = secrets.token_hex(16)
        self._camera: Camera | None = self._open_camera()
        self._live = self._camera.live
        self._timeline = Timeline(self._clock, config.window.seconds, live=self._live)
        self._window = self._fresh(self._timeline.start)
        self._outbox.begin_boot(self.boot_id, self._clock.kernel_boot_id, policy=self._policy.key)
        self._span: tuple[float, float, Scene] | None = None
        self._pending: deque[Close] = deque(maxlen=WAITING_WINDOWS)
        self._retry_at = 0.0
        self._stopping = False
        self._paused = False
        self._resting: Camera | None = None
        self._command = 0
        self._polled = self._written = -1.0
        self._rate = Rate()
        self._drops: dict[str, int] = {}
        self._faces = self._frames = 0
        self._routes: dict[str, int] = {}
        self._spent: dict[str, float] = {}
        self._scene: Scene = "ok"

    def stop(self) -> None:
        """Ask the run to end after the frame in hand; callable from a signal handler."""
        self._stopping = True

    def run(self, *, lifeline: bool = False) -> None:
        """Count until the source ends, `stop` is called, or, with `lifeline`, standard input ends.

        The partial window is committed before it returns. Raises SourceError, BackendError, StorageError.
        """
        try:
            while not self._stopping and not (lifeline and _stdin_ended()):
                self._obey()
                frame = self._camera.read(POLL) if self._camera else None
                if self._camera is None:
                    self._rest()
                if self._live:
                    self._close_until(self._clock.monotonic() if frame is None else frame.t)
                elif frame is not None:
                    self._close_until(frame.t)
                if frame is not None:
                    self._see(frame)
                elif self._camera is not None and self._camera.ended:
                    break
                self._commit()
                self._tell("running")
        finally:
            self._finish()

    def _rest(self) -> None:
        """Paused: a live camera's time goes by as `paused`, a replay's stands still."""
        if self._live:
            now = self._clock.monotonic()
            self._watch(now)
            self._span = now, now + MAX_GAP, "paused"
        time.sleep(POLL)

    # ---- one frame

    def _see(self, frame: Frame) -> None:
        began = time.perf_counter()
        self._scene = scene.look(frame.image)
        boxes = self._detector.detect(frame.image, thorough=frame.still)
        large = [b for b in boxes if b.w >= MIN_FACE]
        if len(large) < len(boxes):
            self._drops["too_small"] = self._drops.get("too_small", 0) + 1
        began = self._lap("detect", began)
        chips = (
            np.stack([chip(frame.image, b, self._crop) for b in large]) if large else np.empty((0, 48, 48), np.uint8)
        )
        began = self._lap("preprocess", began)
        numbers = self._tracker.associate(large, frame.t, still=frame.still)
        tracks: list[Track] = []
        if numbers:
            masked = self._router.masked(chips)
            routes = [self._tracker.gate(n, m, frame.t) for n, m in zip(numbers, masked, strict=True)]
            answers = self._router.expressions(chips, routes)
            for number, answer, one, box in zip(numbers, answers, chips, large, strict=True):
                tracks.append(self._tracker.express(number, answer, chip_weight(one, box.w), frame.t))
        self._lap("classify", began)
        self._watch(frame.t)
        length = frame.duration if frame.duration > 0 else MAX_GAP
        self._span = frame.t, frame.t + length, self._scene
        self._rate.tick()
        self._frames += 1
        self._faces += len(tracks)
        for track in tracks:
            self._routes[track.route] = self._routes.get(track.route, 0) + 1
        if self._on_frame is not None:
            self._on_frame(frame, tracks)

    def _lap(self, stage: str, began: float) -> float:
        now = time.perf_counter()
        self._spent[stage] = self._spent.get(stage, 0.0) + now - began
        return now

    def _watch(self, until: float) -> None:
        """Credit the last frame's span to the open window, up to `until`."""
        if self._span is not None:
            start, end, seen = self._span
            self._window.watch(start, min(end, until), seen)

    # ---- windows

    def _fresh(self, start: float) -> Window:
        return Window(start, self._timeline.next_cut(start))

    def _close_until(self, t: float) -> None:
        while self._window.end <= t:
            self._close(self._window.end)

    def _close(self, end: float) -> None:
        """Close the window at window time `end`: its votes wait for their commit, the next window opens."""
        self._watch(end)
        window, votes = self._window, self._tracker.votes()
        if len(self._pending) == WAITING_WINDOWS:
            self._drops["windows"] = self._drops.get("windows", 0) + 1
            log.error("window_given_up waiting=%d next=make room for the outbox", len(self._pending))
        self._pending.append(self._report(window, end, votes))
        self._window = self._fresh(end)
        self._commit()

    def _report(self, window: Window, end: float, votes: list[Vote]) -> Close:
        start, seconds = self._timeline.utc(window.start), end - window.start
        label_end = self._timeline.utc(end)
        quality = self._timeline.quality()

        def close(held: Accumulators, flush_day: str | None) -> tuple[WindowReport, Accumulators]:
            flush = flush_due(label_end, flush_day)
            counts, draws, kept = release(tally(votes), held, self._policy, flush=flush)
            report = WindowReport(
                start=start,
                seconds=seconds,
                time_quality=quality,
                mono_start=self._timeline.mono(window.start),
                mono_end=self._timeline.mono(end),
                counts=counts,
                noise_draws=draws,
                flush=flush,
                coverage=window.coverage(end),
                scene=window.scene(),
                privacy=self._policy.statement(),
                models=self._models,
            )
            return report, kept

        return close

    def _commit(self, *, last: bool = False) -> None:
        """Commit waiting windows in order. A failing outbox is tried again every 5 s; `last` raises instead."""
        if not self._pending or (time.monotonic() < self._retry_at and not last):
            return
        try:
            while self._pending:
                seq = self._outbox.commit(self._pending[0])
                self._pending.popleft()
                log.info("window_committed seq=%d waiting=%d", seq, len(self._pending))
        except StorageError as error:
            if last:
                msg = f"{error} ({len(self._pending)} windows could not be recorded)"
                raise StorageError(msg) from error
            self._retry_at = time.monotonic() + RETRY_COMMIT
            log.error("commit_failed waiting=%d retry_s=%g %s", len(self._pending), RETRY_COMMIT, error)

    def _finish(self) -> None:
        end = self._clock.monotonic() if self._live else (self._span[1] if self._span else self._window.start)
        camera = self._camera or self._resting
        if camera is not None:
            self._drops |= camera.drops
            camera.close()
        self._close_until(end)
        if end - self._window.start > SHORTEST:
            self._close(end)
        try:
            self._commit(last=True)
        finally:
            self._backend.close()
            self._outbox.close()
            with contextlib.suppress(StorageError):
                self._tell("ended", force=True)

    # ---- commands and figures

    def _obey(self) -> None:
        now = time.monotonic()
        if now - self._polled < POLL:
            return
        self._polled = now
        try:
            command = read_command(self._config.storage.runtime)
        except StorageError as error:
            log.warning("command_unreadable %s", error)
            return
        if command is None or command.number == self._command:
            return
        self._command = command.number
        if command.command == "identify":
            log.info("identify device=%s", self._config.device.id)
        if command.paused != self._paused:
            self._paused = command.paused
            log.info("paused=%s", str(self._paused).lower())
            if self._paused and self._camera is not None and self._live:
                self._camera.close()
            self._camera, self._resting = (None, self._camera) if self._paused else (self._resume(), None)

    def _resume(self) -> Camera:
        """A replay goes on where it paused; a device is opened again."""
        return self._resting if self._resting is not None and not self._live else self._open_camera()

    def _open_camera(self) -> Camera:
        c = self._config.camera
        return open_camera(c.kind, c.source, loop=c.loop, realtime=c.realtime, still_seconds=c.still_seconds)

    def _threshold(self, role: str, override: float | None) -> float:
        if override is not None:
            return override
        return self._bundle.entry(role).uncertain_below if role in self._bundle.roles else 0.0

    def _tell(self, state: str, *, force: bool = False) -> None:
        """Replace `vision.json`, at most once a second."""
        now = time.monotonic()
        if now - self._written < 1.0 and not force:
            return
        self._written = now
        drops = self._drops | (self._camera.drops if self._camera else {})
        figures = VisionFile(
            boot_id=self.boot_id,
            state="ended" if state == "ended" else "running",
            updated=self._clock.monotonic(),
            backend=self._backend.name,
            fps=round(self._rate.value, 2),
            invoke_ms=InvokeMs(p50=self._backend.invoke.at(0.5), p95=self._backend.invoke.at(0.95)),
            drops=drops,
            restarts=self._backend.restarts,
            scene="paused" if self._paused else self._scene,
            time_quality=self._timeline.quality(),
            paused=self._paused,
            versions={"edge": __version__, "bundle": self._bundle.manifest.name},
            development=self._verbose() if self._config.device.mode == "development" else None,
        )
        try:
            write_vision(self._config.storage.runtime, figures)
        except StorageError as error:
            log.warning("figures_unwritten %s", error)

    def _verbose(self) -> Development:
        n = max(1, self._frames)
        return Development(
            frames=self._frames,
            faces=self._faces,
            routes=dict(self._routes),
            stage_ms={stage: round(1000 * spent / n, 3) for stage, spent in self._spent.items()},
        )


def _stdin_ended() -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(ready) and not sys.stdin.buffer.read1(1)  # type: ignore[union-attr]


def _make_folder(path: object) -> None:
    from pathlib import Path

    folder = Path(str(path))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"runtime folder {folder}: {error.strerror}: create it or mend storage.runtime"
        raise StorageError(msg) from error
