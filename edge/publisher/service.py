"""The publisher service: from the outbox to the broker. Composition and nothing else.

One thread drives everything. What is in flight is forgotten when the connection ends, and the outbox says
again what is unsent; the subscriber's key (device, boot_id, seq) makes the second copy harmless.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge import __version__
from edge.contract import Status, Topics, encode
from edge.errors import BrokerRefused, BrokerUnavailable, ConfigError, EdgeError, StorageError
from edge.outbox.outbox import Outbox
from edge.outbox.runtime_files import VisionFile, clock_marker, read_command, read_vision, write_command
from edge.outbox.sqlite import explained
from edge.process.clock import Clock, SystemClock, clock_error
from edge.process.lifeline import stdin_ended
from edge.process.logs import event
from edge.process.systemd_notify import Notifier
from edge.publisher.dispatch import Desk
from edge.publisher.health import CertificateWatch, runs
from edge.publisher.session import V5, V311, Session, open_session
from edge.publisher.web import Web, open_web
from edge.publisher.web.snapshot import Photographer

if TYPE_CHECKING:
    from types import FrameType

    from edge.config import Config

log = logging.getLogger("edge.publisher")

FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 60.0
STOP_S: Final = 1.5
"""How long an orderly stop waits for what is in flight, and again for its goodbye."""
HARD_STOP_S: Final = 4.0
"""A stop that something still blocks then (name resolution cannot be interrupted) is made by force."""
STEP_S: Final = 0.2
SHOW_S: Final = 1.0


def run_publisher(
    config: Config, *, drain_timeout: float | None = None, lifeline: bool = False, clock: Clock | None = None
) -> int:
    """Publish until SIGTERM (returns 0) or, with `lifeline`, until standard input ends and all is drained.

    After the end of the lifeline: 0 when everything is published, 75 when `drain_timeout` s pass first, the
    rows kept. Neither vision nor the outbox need exist yet. Raises ConfigError without an `mqtt` section.
    """
    if config.mqtt is None:
        msg = "mqtt: there is nothing to publish to: give the configuration an [mqtt] section"
        raise ConfigError(msg)
    return Publisher(config, drain_timeout=drain_timeout, lifeline=lifeline, clock=clock).run()


class Publisher:
    """The service's state: one outbox, one session, and when to try either again."""

    def __init__(
        self, config: Config, *, drain_timeout: float | None, lifeline: bool, clock: Clock | None = None
    ) -> None:
        if config.mqtt is None:
            msg = "mqtt: there is nothing to publish to: give the configuration an [mqtt] section"
            raise ConfigError(msg)
        self._config, self._mqtt = config, config.mqtt
        self._runtime = Path(config.storage.runtime)
        self._topics = Topics(self._mqtt.root, config.device.site, config.device.id)
        self._clock = clock or SystemClock(clock_marker(self._runtime))
        self._drain_timeout, self._lifeline = drain_timeout, lifeline
        self._outbox: Outbox | None = None
        self._session: Session | None = None
        self._certificate_days = CertificateWatch(self._mqtt.tls, self._clock)
        self._desk = Desk(
            self._topics,
            self._clock,
            hold=hold_seconds(config),
            runtime=self._runtime,
            certificate_days=self._certificate_days,
            home_assistant=self._mqtt.home_assistant,
        )
        self._photographer = Photographer(self._topics, self._clock, self._desk.labels.message)
        self._web: Web | None = None
        self._show_at = 0.0
        self._first = V311 if self._mqtt.protocol == "3.1.1" else V5
        self._version: int = self._first
        self._connected_once = False
        self._boot_id: str | None = None
        self._retry_at, self._delay = 0.0, FIRST_RETRY_S
        self._refused = False
        self._outbox_failed_at = self._outbox_retry_at = 0.0
        self._outbox_delay = FIRST_RETRY_S
        self._said = ""
        self._stopping = False
        self._drain_until: float | None = None
        self._notifier = Notifier()

    # ---- the loop

    def run(self) -> int:
        """Serve until told to stop; see `run_publisher`."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        self._web = open_web(self._config.web)
        log.info(event("start", version=__version__, outbox=self._config.storage.outbox, host=self._mqtt.host))
        try:
            return self._serve()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self._web is not None:
                self._web.close()
            if self._outbox is not None:
                self._outbox.close()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._lifeline:
            return  # Ctrl-C reaches the whole foreground group; the lifeline's end says when
        self._stopping = True
        timer = threading.Timer(HARD_STOP_S, os._exit, (0,))  # all that matters is on disk already
        timer.daemon = True
        timer.start()

    def _serve(self) -> int:
        self._notifier.ready("not connected yet")
        while not self._stopping:
            self._notifier.worked()
            self._watch_lifeline()
            if self._overdue():
                self._say_stopped()
                refused = self._refused or self._desk.refused
                return (BrokerRefused if refused else BrokerUnavailable).exit_code
            try:
                self._attend_outbox()
                if self._outbox is not None:
                    self._desk.tend(self._outbox)
                if self._session is not None:
                    self._desk.send(self._outbox, self._session, self._figures())
                self._show()
                if self._drained():
                    break
                self._attend_broker()
            except StorageError as error:
                self._lose_outbox(error)
            except (BrokerUnavailable, BrokerRefused) as error:
                self._lost(error)
            except ConfigError as error:  # a certificate renewed badly; at the start it is the user's to mend
                if not self._connected_once:
                    raise
                self._lost(error)
        self._say_stopped()
        return 0

    def _stop_now(self) -> bool:
        self._watch_lifeline()
        return self._stopping or (self._drain_until is not None and time.monotonic() >= self._drain_until)

    def _pause(self, seconds: float) -> None:
        """Sleep in short steps, so that a signal or the lifeline's end is not kept waiting."""
        end = time.monotonic() + seconds
        while not self._stop_now() and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, STEP_S))

    # ---- the lifeline and the drain

    def _watch_lifeline(self) -> None:
        if not self._lifeline or self._drain_until is not None:
            return
        if stdin_ended():
            wait = self._drain_timeout
            self._drain_until = float("inf") if wait is None else time.monotonic() + wait
            self._retry_at, self._delay = 0.0, FIRST_RETRY_S
            self._desk.drain()
            log.info(event("drain", timeout_s=wait))

    def _drained(self) -> bool:
        if self._drain_until is None:
            return False
        if self._outbox is None:
            return not Path(self._config.storage.outbox).exists()
        return self._desk.idle and self._outbox.stats().unsent == 0

    def _overdue(self) -> bool:
        if self._drain_until is None or time.monotonic() < self._drain_until:
            return False
        why = self._said or "no acknowledgement"
        log.error(event("drain-timeout", after_s=self._drain_timeout, why=why, next="the rows are kept"))
        return True

    # ---- the outbox

    def _attend_outbox(self) -> None:
        path = Path(self._config.storage.outbox)
        figures = self._figures()
        if figures and figures.trouble not in {None, "full", "busy"} and runs(figures, self._clock.monotonic()):
            # Here nothing may be to be written, and yet a file held open would be in the way of a repair.
            if self._outbox is not None:
                error = StorageError(f"outbox {path}: vision cannot write it ({figures.trouble}): see its log")
                error.trouble = str(figures.trouble)
                raise error
            return
        if self._outbox is not None and self._outbox.replaced():
            log.warning(event("outbox-replaced", path=path, next="reopened; see vision's log for why"))
            self._drop_outbox()
        if self._outbox is None and time.monotonic() >= self._outbox_retry_at:
            self._open_outbox(path)
        if self._outbox is not None:
            boot = self._outbox.current_boot()
            if boot != self._boot_id:
                self._boot_id = boot
                self._greet_anew()

    def _open_outbox(self, path: Path) -> None:
        with explained(path):
            if not (path.exists() and path.stat().st_size):
                return
        outbox = Outbox(path, clock=self._clock)
        try:
            if self._desk.trouble is not None:
                outbox.check_writable()
                self._desk.mark(outbox)
                log.info(event("outbox-back", path=path))
                self._notifier.status("the outbox is back")
        except StorageError:
            outbox.close()
            raise
        self._outbox, self._desk.trouble, self._said = outbox, None, ""
        self._recall_pause(outbox)

    def _lose_outbox(self, error: StorageError) -> None:
        """Close it, so that its filesystem can be repaired, and keep the connection: the broker is told why."""
        self._complain("outbox-unusable", error)
        if self._outbox is not None:
            self._outbox.close()
            self._outbox = None
        self._desk.trouble = error.trouble
        self._outbox_retry_at = time.monotonic() + self._grown_outbox_delay()

    def _drop_outbox(self) -> None:
        if self._outbox is not None:
            self._outbox.close()
        self._outbox = None
        self._desk.forget()
        if self._session is not None:
            # What is in flight belongs to the old file: its answers must not mark the new one's rows.
            self._session.close()
            self._session = None

    def _grown_outbox_delay(self) -> float:
        """Seconds until the next try, doubled each time."""
        now = time.monotonic()
        again = now - self._outbox_failed_at < 2 * LONGEST_RETRY_S
        self._outbox_delay = min(LONGEST_RETRY_S, self._outbox_delay * 2) if again else FIRST_RETRY_S
        self._outbox_failed_at = now
        return self._outbox_delay

    def _recall_pause(self, outbox: Outbox) -> None:
        """After a power cut the runtime folder is empty: put the pause back that the outbox remembers."""
        try:
            if outbox.paused and read_command(self._runtime) is None:
                write_command(self._runtime, "pause")
                log.info(event("command", command="pause", why="asked for before the restart"))
        except StorageError as error:
            self._complain("pause-unwritten", error)

    def _figures(self) -> VisionFile | None:
        try:
            return read_vision(self._runtime)
        except StorageError as error:
            self._complain("vision-file", error)
            return None

    def _show(self) -> None:
        """A new snapshot for page and metrics, once a second."""
        if self._web is None or time.monotonic() < self._show_at:
            return
        self._show_at = time.monotonic() + SHOW_S
        self._web.tell(
            self._photographer.take(
                self._outbox,
                self._figures(),
                self._desk.delivery,
                connected=self._session is not None,
                clock_error=clock_error(clock_marker(self._runtime)),
                certificate_days=self._certificate_days(),
                trouble=self._desk.trouble,
            )
        )

    # ---- the broker

    def _attend_broker(self) -> None:
        if self._session is None:
            if time.monotonic() < self._retry_at:
                self._pause(min(STEP_S, self._retry_at - time.monotonic()))
                return
            self._connect()
            return
        self._session.step(STEP_S)
        self._desk.receive(self._outbox, self._session)

    def _connect(self) -> None:
        since = self._clock.utcnow()
        birth = Status(state="online", boot_id=self._boot_id, version=__version__, since=since)
        will = self._topics("status"), encode(birth.model_copy(update={"state": "offline"}))
        version, self._version = self._version, self._first  # unless this succeeds, begin with 5 again
        session = open_session(
            self._mqtt,
            self._config.device.id,
            will=will,
            prefer=version,
            fall_back=self._mqtt.protocol == "auto",
            stopping=self._stop_now,
        )
        if self._stop_now():
            session.abandon()
            return
        if session.version != version:
            log.warning(
                event(
                    "mqtt-3.1.1",
                    host=self._mqtt.host,
                    next="broker does not answer MQTT 5; live is not retained",
                )
            )
        self._notifier.status(f"connected to {self._mqtt.host}:{self._mqtt.port}")
        self._session, self._version, self._said = session, session.version, ""
        self._delay, self._connected_once, self._refused = FIRST_RETRY_S, True, False
        self._desk.greet(session, birth)
        log.info(event("connected", host=self._mqtt.host, port=self._mqtt.port, mqtt="5" if session.v5 else "3.1.1"))

    def _greet_anew(self) -> None:
        """A new run of vision: birth and will carry its boot_id, and a will is fixed at CONNECT."""
        if self._session is not None:
            self._session.close()
            self._session = None
            self._desk.forget()
        self._retry_at = 0.0

    def _lost(self, error: EdgeError) -> None:
        if self._session is not None:
            self._session.abandon()
        self._session = None
        self._desk.forget()
        self._complain("no-broker", error)
        self._refused = not isinstance(error, BrokerUnavailable)
        self._retry_at = time.monotonic() + self._delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._delay = min(LONGEST_RETRY_S, self._delay * 2)

    def _complain(self, name: str, error: EdgeError) -> None:
        """Say it once, and again when it changes or, by the backoff, at most about once a minute."""
        text = str(error)
        level = logging.DEBUG if text == self._said and self._delay < LONGEST_RETRY_S else logging.WARNING
        self._said = text
        self._notifier.status(text)
        log.log(level, event(name, why=text))

    def _say_stopped(self) -> None:
        session, self._session = self._session, None
        self._notifier.stopping()
        log.info(event("stop"))
        if session is None:
            return
        try:
            self._settle(session)
            farewell = Status(state="stopped", boot_id=self._boot_id, version=__version__, since=self._clock.utcnow())
            mid = session.publish(self._topics("status"), encode(farewell), retain=True)
            end = time.monotonic() + STOP_S
            while time.monotonic() < end and not any(ack.mid == mid for ack in session.acks):
                session.step(STEP_S)
        except EdgeError as error:
            log.warning(event("stop-unheard", why=error))
            session.abandon()
        else:
            session.close()

    def _settle(self, session: Session) -> None:
        end = time.monotonic() + STOP_S
        while not self._desk.idle and time.monotonic() < end:
            session.step(STEP_S)
            self._desk.receive(self._outbox, session)


def hold_seconds(config: Any) -> float:  # noqa: ANN401 - the section may leave it open
    """How long unsynced rows wait for the clock: as configured, else 900 s, and 0 for a replay."""
    configured = config.clock.hold_seconds
    if configured is not None:
        return float(configured)
    return 900.0 if config.live else 0.0
