"""The vision service: cameras → pipeline → window → privacy → ledger → outbox. Composition only."""

from __future__ import annotations

import contextlib
import logging
import time
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from edge.bundle.manifest import load_bundle
from edge.errors import StorageError
from edge.inference.choose import open_backend
from edge.outbox.runtime_files import Claim, clock_marker
from edge.process.clock import SystemClock
from edge.process.lifeline import stdin_ended
from edge.process.logs import event
from edge.process.systemd_notify import Notifier
from edge.types import ModelsStatement, Route, Track, Vote, WindowReport
from edge.vision.camera import Paced, open_cameras
from edge.vision.detect.choose import chosen_kind, describe, judge, open_detector
from edge.vision.figures import FRAMELESS, Figures, Probe, budget
from edge.vision.kill_switch import PauseSwitch
from edge.vision.model_roles import needed_roles
from edge.vision.pipeline import Pipeline
from edge.vision.privacy import Policy, flush_day, flush_due, release, tally, windows_a_day
from edge.vision.recorder import Recorder
from edge.vision.route import FER_ROLE, ROLES, Router
from edge.vision.track import SIGHTINGS, SPACING
from edge.vision.window import MAX_GAP, Timeline, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edge.config import Config
    from edge.process.clock import Clock
    from edge.types import Frame, Scene
    from edge.vision.camera import Camera
    from edge.vision.privacy import Accumulators

    Close = Callable[[Accumulators, str | None], tuple[WindowReport, Accumulators]]

log = logging.getLogger("edge.vision")

POLL: Final = 0.25
"""Seconds between looks at `command.json`, and the longest wait for a frame."""
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
        self._clock = clock or SystemClock(clock_marker(runtime))
        self._bundle = load_bundle(config.models.bundle, config.models.public_key)
        signed = self._bundle.signed
        log.info(event("bundle", name=self._bundle.manifest.name, signed_by=signed.key_id if signed else "unchecked"))
        self._roles = roles = ROLES[config.models.strategy]
        self._detector = chosen_kind(self._bundle, config.detector.kind)
        wanted = needed_roles(self._bundle, config)
        self._backend = open_backend(
            self._bundle, wanted, config.models.accelerator, judge, runtime=config.models.runtime
        )
        log.info(event("detector", chosen=describe(self._detector, self._backend.name)))
        self._pipelines = self._look_with(Router(self._backend, config.models.strategy))
        digests = {role: self._bundle.digest(role) if role in roles else None for role in ROLES["gate"]}
        self._models = ModelsStatement(**digests, route=config.models.strategy)
        p = config.privacy
        daily = (
            None
            if p.noise == "off"
            else p.daily_epsilon or windows_a_day(config.window.seconds) * Fraction(str(p.epsilon))
        )
        self._policy = Policy(p.noise, p.epsilon, p.min_count, daily)
        self._claim = Claim(runtime)
        owner = f"{config.device.site}/{config.device.id}"
        self._recorder = Recorder(config.storage, self._clock, self._policy.key, owner)
        kill = config.kill_switch
        self._switch = PauseSwitch(kill.file, kill.gpio, runtime, before=self._recorder.paused)
        self._paused, self._paused_at = self._switch.cause() is not None, 0.0
        self._camera: Camera | None = None if self._paused else open_cameras(config.camera)
        self._resting: Camera | None = None
        self._live = self._camera.live if self._camera else all(c.kind != "replay" for c in config.camera)
        self._timeline = Timeline(self._clock, config.window.seconds, live=self._live)
        self._window = self._fresh(self._timeline.start)
        self._recorder.begin()
        self._recorder.remember(paused=self._switch.commanded)
        self._stopping = False
        self._polled = -POLL
        self._drops: dict[str, int] = {}
        self._notifier = Notifier()
        blank = open_detector(self._bundle, backend=self._backend, **self._found_with(live=self._live))
        self._figures = Figures(
            runtime,
            self._notifier,
            Probe(self._backend, roles, blank),
            bundle=self._bundle.manifest.name,
            development=config.device.mode == "development",
        )
        self._turns: tuple[int, ...] = ()

    def stop(self) -> None:
        """Ask the run to end after the frame in hand; callable from a signal handler."""
        self._stopping = True

    def run(self, *, lifeline: bool = False) -> None:
        """Count until the source ends, `stop` is called, or, with `lifeline`, standard input ends.

        The partial window is committed before it returns. Raises SourceError, BackendError, StorageError.
        """
        self._notifier.ready(f"{self._backend.name}, {self._bundle.manifest.name}")
        try:
            while not self._stopping and not (lifeline and stdin_ended()):
                self._obey()
                self._backend.attend()
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
                self._recorder.commit()
                self._tell()
                self._feed()
        finally:
            self._finish()

    def _feed(self) -> None:
        """Feed systemd's watchdog, unless the driver of a camera hangs: then a restart is what helps."""
        if self._live and self._camera is not None:
            turns = self._camera.turns
            if any(now == then for now, then in zip(turns, self._turns, strict=False)):
                return
            self._turns = turns
        self._notifier.worked()

    def _rest(self) -> None:
        """Paused: a live camera's time goes by as `paused`, a replay's stands still."""
        if self._live:
            now = self._clock.monotonic()
            self._watch(now)
            for pipeline in self._pipelines:
                pipeline.span = now, now + MAX_GAP, "paused"
        time.sleep(POLL)

    # ---- one frame

    def _see(self, frame: Frame) -> None:
        self._watch(frame.t)
        try:
            pipeline = self._pipelines[frame.camera]
            tracks = pipeline.see(frame)
            self._window.watched = True
            self._window.looked |= pipeline.span is not None and pipeline.span[2] == "ok"
            if self._on_frame is not None:
                self._on_frame(frame, tracks)
        finally:
            if frame.release is not None:
                frame.release()
        if self._live:  # while it was busy with faces no other frame could be looked at
            now = self._clock.monotonic()
            for other in self._pipelines:
                other.hold(frame.t, now + MAX_GAP, len(self._pipelines))
        self._figures.see(frame, tracks, live=self._live)

    def _watch(self, until: float) -> None:
        """Credit the time of each camera's last frame to the open window, up to `until`."""
        for pipeline in self._pipelines:
            pipeline.credit(self._window, until)

    # ---- windows

    def _fresh(self, start: float) -> Window:
        return Window(start, self._timeline.next_cut(start), len(self._pipelines))

    def _close_until(self, t: float) -> None:
        while self._window.end <= t:
            self._close(self._window.end)

    def _close(self, end: float) -> None:
        """Close the window at window time `end`: it is drawn, waits for its commit, and the next window opens."""
        self._watch(end)
        window, votes = self._window, [vote for pipeline in self._pipelines for vote in pipeline.votes()]
        self._window = self._fresh(end)
        self._recorder.put(self._report(window, end, votes))
        if self._recorder.given_up:
            self._drops["windows"] = self._recorder.given_up

    def _report(self, window: Window, end: float, votes: list[Vote]) -> Close:
        start, seconds = self._timeline.utc(window.start), end - window.start
        label_end = self._timeline.utc(end)
        # The label of a window that starts at midnight may say some microseconds before.
        quality, day = self._timeline.quality(), flush_day(start)

        def close(held: Accumulators, flushed: str | None) -> tuple[WindowReport, Accumulators]:
            ledger = self._recorder.ledger
            exhausted = not self._policy.affords(ledger.spent(day))
            # Noise is drawn and paid for whatever the frames showed: that somebody came must not decide it.
            seen = window.looked if self._policy.noise == "off" else window.watched
            counted = seen and not exhausted
            flush = flush_due(label_end, flushed) or (counted and ledger.begins_by_running(day))
            if counted:
                ledger.spend(day, self._policy.cost)
            counts, draws, kept = release(tally(votes) if counted else None, held, self._policy, flush=flush)
            report = WindowReport(
                start=start,
                seconds=seconds,
                time_quality=quality,
                mono_start=self._timeline.mono(window.start),
                mono_end=self._timeline.mono(end),
                counts=counts,
                noise_draws=draws,
                flush=flush,
                coverage=window.told_coverage(end),
                scene=window.scene(end),
                privacy=self._policy.statement(exhausted=exhausted),
                models=self._models,
            )
            return report, kept

        return close

    def _finish(self) -> None:
        self._notifier.stopping()
        ends = [pipeline.span[1] for pipeline in self._pipelines if pipeline.span]
        end = self._clock.monotonic() if self._live else max(ends, default=self._window.start)
        self._camera = self._camera or self._resting
        try:
            self._close_until(end)
            if end - self._window.start > SHORTEST:
                self._close(end)
            if not self._live and not any(pipeline.vote_possible for pipeline in self._pipelines):
                self._say_why_nobody_voted(end)
            self._recorder.close()
        finally:
            with contextlib.suppress(StorageError):
                self._tell(ended=True)
            if self._camera is not None:  # after the window: each that hangs takes seconds, and a stop may have no more
                self._camera.close()
            self._backend.close()
            self._claim.let_go()

    def _say_why_nobody_voted(self, end: float) -> None:
        """A replay that could not have counted anybody is no replay of an empty room."""
        seen: dict[Scene, int] = {}
        for pipeline in self._pipelines:
            seen |= {scene: seen.get(scene, 0) + n for scene, n in pipeline.scenes.items()}
        what = ", ".join(f"{n} {scene}" for scene, n in seen.items()) or "none"
        log.warning(
            event(
                "no_vote_possible",
                why=f"{end:.3g} s, frames: {what}; a vote needs {SIGHTINGS} looks {SPACING:g} s apart in one window, "
                "or a still",
                next="give a longer film or a longer window; a dark, covered or frozen picture is not searched",
            )
        )

    # ---- commands and figures

    def _obey(self) -> None:
        now = time.monotonic()
        if now - self._polled < POLL:
            return
        self._polled = now
        cause = self._switch.cause()
        self._recorder.remember(paused=self._switch.commanded)
        if (cause is not None) != self._paused:
            self._paused = cause is not None
            log.info(event("paused" if self._paused else "resumed", cause=cause))
            if self._paused:
                self._put_away()
                self._paused_at = now
            else:
                resting: object = self._resting
                if isinstance(resting, Paced):
                    resting.rested(now - self._paused_at)
                self._camera, self._resting = self._resting or open_cameras(self._config.camera), None

    def _put_away(self) -> None:
        """A device is closed, and opened again after the pause; a replay rests where it is."""
        camera, self._camera = self._camera, None
        if camera is None or not self._live:
            self._resting = camera
            return
        camera.close()
        for pipeline in self._pipelines:
            pipeline.forget()
        self._drops = _added(self._drops, camera.drops)  # the next one counts from 0

    def _look_with(self, router: Router) -> list[Pipeline]:
        """One pipeline a camera, each with a detector of its own: it remembers where it found faces."""
        config, bundle = self._config, self._bundle
        override = config.models.uncertain_below
        thresholds: dict[Route, float] = {"unmasked": 0.0, "masked": 0.0}
        for route in thresholds:
            if (role := FER_ROLE[route]) in bundle.roles:
                thresholds[route] = bundle.entry(role).uncertain_below if override is None else override
        pipelines = []
        for section in config.camera:
            options = self._found_with(live=section.kind != "replay")
            detector = open_detector(bundle, backend=self._backend, **options)
            pipelines.append(Pipeline(detector, router, bundle.crop(detector.kind), thresholds, section.privacy_masks))
        return pipelines

    def _found_with(self, *, live: bool) -> dict[str, Any]:
        """Options of a detector; a replay has all the time it needs, and its answers do not depend on the machine."""
        section = self._config.detector
        return section.model_dump() | {"budget_ms": (section.budget_ms or "auto") if live else None}

    def _scene(self) -> Scene:
        """What health says: the first camera's trouble, else `ok`. A live camera without frames is `frozen`."""
        if self._paused:
            return "paused"
        scenes: list[Scene] = []
        for pipeline in self._pipelines:
            lost = self._live and not self._comes(pipeline)
            scenes.append("frozen" if lost else pipeline.span[2] if pipeline.span else "ok")
        return next((scene for scene in scenes if scene != "ok"), "ok")

    def _comes(self, pipeline: Pipeline) -> bool:
        """Whether frames come; a replay's last one is as good as the first."""
        return pipeline.span is not None and (not self._live or pipeline.span[1] >= self._clock.monotonic() - FRAMELESS)

    def _tell(self, *, ended: bool = False) -> None:
        if not (ended or self._figures.due()):
            return
        day = flush_day(self._timeline.utc(self._window.start))
        self._figures.tell(
            ended=ended,
            updated=self._clock.monotonic(),
            backend=self._backend,
            detector=describe(self._detector, self._backend.name),
            recorder=self._recorder,
            scene=self._scene(),
            frames_come=not self._paused and any(map(self._comes, self._pipelines)),
            time_quality=self._timeline.quality(),
            paused=self._paused,
            privacy=budget(self._policy, self._recorder.ledger.spent(day), self._config.window.seconds),
            drops=self._all_drops(),
            pipelines=self._pipelines,
        )

    def _all_drops(self) -> dict[str, int]:
        return _added(self._drops, *(p.drops for p in self._pipelines), self._camera.drops if self._camera else {})


def _added(*counts: Mapping[str, int]) -> dict[str, int]:
    total: dict[str, int] = {}
    for counted in counts:
        total |= {cause: total.get(cause, 0) + n for cause, n in counted.items()}
    return total


def _make_folder(path: object) -> None:
    from pathlib import Path

    folder = Path(str(path))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"runtime folder {folder}: {error.strerror}: create it or mend storage.runtime"
        raise StorageError(msg) from error
