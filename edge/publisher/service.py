"""The publisher service: from the outbox to the broker. Composition and nothing else.

One thread drives everything. What is in flight is forgotten when the connection ends, and the outbox says
again what is unsent; the subscriber's key (device, boot_id, seq) makes the second copy harmless.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge import __version__
from edge.contract import Status, Topics, encode
from edge.errors import BrokerRefused, BrokerUnavailable, ConfigError, EdgeError, StorageError
from edge.outbox.runtime_files import VisionFile, clock_marker, read_vision
from edge.process.clock import Clock, SystemClock, clock_error
from edge.process.lifeline import stdin_ended
from edge.process.logs import event
from edge.process.systemd_notify import Notifier
from edge.publisher.backoff import Backoff
from edge.publisher.dispatch import Dispatcher
from edge.publisher.health import CertificateWatch
from edge.publisher.mqtt_client import Flooded
from edge.publisher.outbox_watch import OutboxWatch
from edge.publisher.session import V5, V311, Session, open_session
from edge.publisher.web import Web, open_web
from edge.publisher.web.snapshot import Photographer

if TYPE_CHECKING:
    from types import FrameType

    from edge.config import Config

log = logging.getLogger("edge.publisher")

STOP_S: Final = 1.5
"""How long an orderly stop waits for what is in flight, and again for its goodbye."""
HARD_STOP_S: Final = 4.0
"""A stop that something still blocks then (name resolution cannot be interrupted) is made by force."""
FLAPS: Final = 3
"""After so many connections in a row that the broker ended early, the log says what that may be."""
STEP_S: Final = 0.2
SPOKE_5_S: Final = 3600.0
"""So long after a connection with MQTT 5 a broker's silence to it is not taken for a broker that has none."""
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
        self._session: Session | None = None
        self._certificate_days = CertificateWatch(self._mqtt.tls, self._clock)
        self._dispatcher = Dispatcher(
            self._topics,
            self._clock,
            hold=hold_seconds(config),
            runtime=self._runtime,
            certificate_days=self._certificate_days,
            home_assistant=self._mqtt.home_assistant,
        )
        self._watch = OutboxWatch(config, self._clock, self._dispatcher, self._complain)
        self._photographer = Photographer(self._topics, self._clock, self._dispatcher.labels.message)
        self._web: Web | None = None
        self._show_at = 0.0
        self._first = V311 if self._mqtt.protocol == "3.1.1" else V5
        self._version: int = self._first
        self._spoke: int | None = None
        self._spoke_5_until = -math.inf
        self._connected_once = False
        self._backoff = Backoff()
        self._refused = False
        self._flaps = 0
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
            self._watch.close()

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
                refused = self._refused or self._dispatcher.refused
                return (BrokerRefused if refused else BrokerUnavailable).exit_code
            try:
                self._attend_outbox()
                self._dispatcher.tend(self._watch.outbox)
                if self._session is not None:
                    self._dispatcher.send(self._watch.outbox, self._session, self._figures())
                self._show()
                if self._drained():
                    break
                self._attend_broker()
            except StorageError as error:
                self._watch.lose(error)
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
            self._backoff = Backoff()
            self._dispatcher.drain()
            log.info(event("drain", timeout_s=wait))

    def _drained(self) -> bool:
        if self._drain_until is None:
            return False
        return self._dispatcher.idle and self._watch.drained()

    def _overdue(self) -> bool:
        if self._drain_until is None or time.monotonic() < self._drain_until:
            return False
        why = self._said or "no acknowledgement"
        log.error(event("drain-timeout", after_s=self._drain_timeout, why=why, next="the rows are kept"))
        return True

    def _attend_outbox(self) -> None:
        had, trouble = self._watch.outbox is not None, self._dispatcher.trouble
        anew = self._watch.attend(self._figures())
        if not had and self._watch.outbox is not None:
            self._said = ""
            if trouble is not None:
                self._notifier.status("the outbox is back")
        if anew:
            self._greet_anew()

    # ---- what vision says, and what is shown of it

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
                self._watch.outbox,
                self._figures(),
                self._dispatcher.delivery,
                connected=self._session is not None,
                clock_error=clock_error(clock_marker(self._runtime)),
                certificate_days=self._certificate_days(),
                trouble=self._dispatcher.trouble,
            )
        )

    # ---- the broker

    def _attend_broker(self) -> None:
        if self._session is None:
            if self._backoff.left:
                self._pause(min(STEP_S, self._backoff.left))
                return
            self._connect()
            return
        self._session.step(STEP_S)
        self._dispatcher.receive(self._watch.outbox, self._session)
        self._dispatcher.delivery.check()

    def _connect(self) -> None:
        since = self._clock.utcnow()
        birth = Status(state="online", boot_id=self._watch.boot_id, version=__version__, since=since)
        will = self._topics("status"), encode(birth.model_copy(update={"state": "offline"}))
        version, self._version = self._version, self._first  # unless this succeeds, begin with 5 again
        session = open_session(
            self._mqtt,
            self._config.device.id,
            will=will,
            prefer=version,
            fall_back=self._mqtt.protocol == "auto",
            spoke_5=self._clock.monotonic() < self._spoke_5_until,
            stopping=self._stop_now,
        )
        if self._stop_now():
            session.abandon()
            return
        if session.version not in {version, self._spoke}:
            log.warning(
                event(
                    "mqtt-3.1.1",
                    host=self._mqtt.host,
                    next="broker does not answer MQTT 5; live is not retained",
                )
            )
        self._notifier.status(f"connected to {self._mqtt.host}:{self._mqtt.port}")
        self._session, self._spoke, self._said = session, session.version, ""
        if session.v5:
            self._spoke_5_until = math.inf
        if not session.guessed:
            self._version = session.version
        self._connected_once, self._refused = True, False
        self._dispatcher.greet(session, birth)
        log.info(event("connected", host=self._mqtt.host, port=self._mqtt.port, mqtt="5" if session.v5 else "3.1.1"))

    def _greet_anew(self) -> None:
        """Connect once more, without a pause; see `OutboxWatch.attend` for why."""
        if self._session is not None:
            self._session.close()
            self._session = None
        self._dispatcher.forget()
        self._backoff.now()

    def _lost(self, error: EdgeError) -> None:
        session, self._session = self._session, None
        # The name may be given to another broker, which is silent to 5.
        self._spoke_5_until = min(self._spoke_5_until, self._clock.monotonic() + SPOKE_5_S)
        if session is not None:
            session.abandon()
            self._dispatcher.lost(early=not session.proven, flooded=isinstance(error, Flooded))
            if session.proven:  # a login alone is none: there are brokers that take it and then hang up
                self._backoff.shrink()
            self._flaps = 0 if session.held else self._flaps + 1
            if self._flaps == FLAPS:
                why = "the broker takes the login and ends the connection within a minute"
                log.warning(event("flapping", times=FLAPS, why=why, next="see its log; two devices with this id?"))
        self._complain("no-broker", error)
        self._refused = not isinstance(error, BrokerUnavailable)
        self._backoff.fail()

    def _complain(self, name: str, error: EdgeError) -> None:
        """Say it once, and again when it changes or, by the backoff, at most about once a minute."""
        text = str(error)
        level = logging.DEBUG if text == self._said and not self._backoff.longest else logging.WARNING
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
            farewell = Status(
                state="stopped", boot_id=self._watch.boot_id, version=__version__, since=self._clock.utcnow()
            )
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
        while not self._dispatcher.idle and time.monotonic() < end:
            session.step(STEP_S)
            self._dispatcher.receive(self._watch.outbox, session)


def hold_seconds(config: Any) -> float:  # noqa: ANN401 - the section may leave it open
    """How long unsynced rows wait for the clock: as configured, else 900 s, and 0 for a replay."""
    configured = config.clock.hold_seconds
    if configured is not None:
        return float(configured)
    return 900.0 if config.live else 0.0
