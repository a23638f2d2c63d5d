"""`edge demo`: the whole path on one machine: faces → appliance → broker → subscriber.

Standard output carries each received `counts` payload as one JSON line and nothing else; what is going on is
told on standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge import config as settings
from edge.commands.demo.broker import own_broker
from edge.commands.demo.subscriber import Broker, counts
from edge.contract import encode
from edge.errors import ConfigError, EdgeError
from edge.outbox.runtime_files import read_vision
from edge.process.shown import shown

if TYPE_CHECKING:
    from edge.commands.demo.broker import Kind
    from edge.contract import Counts

LAST_WORDS_S: Final = 3.0
"""How long the subscriber waits for what the broker still holds after the appliance has ended."""

PRIVACY: Final = {
    "off": (
        'noise = "off"\nmin_count = 1',
        "EXACT counts: noise off and no threshold, for this demo only. A kiosk adds noise.",
    ),
    "default": (
        'noise = "discrete-laplace"\nepsilon = 1.0\nmin_count = 10',
        "NOISED counts: epsilon 1 per window, released from 10 on. With so few visitors most cells stay null.",
    ),
}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _choices() -> tuple[float, str]:
    """(window seconds, privacy) from DEMO_WINDOW and DEMO_PRIVACY. Raises ConfigError for anything else."""
    text, privacy = os.environ.get("DEMO_WINDOW") or "10", os.environ.get("DEMO_PRIVACY") or "off"
    try:
        window = float(text)
    except ValueError:
        window = 0.0
    if not 1 <= window <= 3600:
        msg = f"DEMO_WINDOW={text}: give seconds from 1 to 3600"
        raise ConfigError(msg)
    if privacy not in PRIVACY:
        msg = f"DEMO_PRIVACY={privacy}: give {' or '.join(PRIVACY)}"
        raise ConfigError(msg)
    return window, privacy


def _configure(folder: Path, source: str, port: int, window: float, privacy: str) -> Path:
    config = settings.development(source)
    bundle, kind = config.models.bundle.resolve(), config.camera[0].kind
    path = folder / "config.toml"
    path.write_text(
        f"""[device]
id = "demo"
site = "desk"
purpose = "demonstration"
mode = "development"
[camera]
kind = "{kind}"
source = {json.dumps(source, ensure_ascii=False)}
[models]
bundle = {json.dumps(str(bundle), ensure_ascii=False)}
[window]
seconds = {window}
[privacy]
{PRIVACY[privacy][0]}
[mqtt]
host = "127.0.0.1"
port = {port}
[storage]
outbox = "outbox.db"
runtime = "run"
[clock]
hold_seconds = 0
""",
        encoding="utf-8",
    )
    return path


class _Subscriber:
    """Prints what arrives, in a thread of its own."""

    def __init__(self, port: int) -> None:
        self.received: list[Counts] = []
        self.ready = threading.Event()
        self.failed: EdgeError | None = None
        self._stop = threading.Event()
        self._port = port
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            for payload in counts(
                Broker("127.0.0.1", self._port), stopping=self._stop.is_set, subscribed=self.ready.set
            ):
                self.received.append(payload)
                _clear_live_line()
                print(encode(payload).decode(), flush=True)
        except EdgeError as error:
            self.failed = error
            self.ready.set()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)


def _clear_live_line() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


class _Live:
    """One line about the pipeline: rewritten on a terminal, said every 5 s elsewhere."""

    def __init__(self, runtime: Path) -> None:
        self._runtime, self._told = runtime, 0.0

    def show(self) -> None:
        tty = sys.stderr.isatty()
        if time.monotonic() - self._told < (0.5 if tty else 5.0):
            return
        self._told = time.monotonic()
        with contextlib.suppress(EdgeError):
            figures = read_vision(self._runtime)
            if figures is None or figures.development is None:
                return
            seen = figures.development
            routes = ", ".join(f"{n} {route}" for route, n in seen.routes.items()) or "none yet"
            drops = ", ".join(f"{n} {cause}" for cause, n in seen.drops.items()) or "none"
            line = (
                f"  {seen.fps:5.1f} fps | frame {seen.frames} | faces looked at {seen.faces} ({routes}) | "
                f"drops: {drops} | scene {figures.scene}"
            )
            print(f"\r\x1b[2K{line}" if tty else line, end="" if tty else "\n", file=sys.stderr, flush=True)


def run_demo(*, source: str | None, seconds: float, broker_kind: Kind = "auto") -> int:
    """Run the demo; 0 when windows arrived and the appliance ended well. `seconds` bounds a live camera."""
    window, privacy = _choices()
    with tempfile.TemporaryDirectory(prefix="edge-demo-") as name:
        folder = Path(name)
        live = source is not None and settings.camera_of(source).kind != "replay"
        clip = _built_in(folder) if source is None else source if live else str(Path(source).resolve())
        with own_broker(folder, broker_kind) as (broker, port):
            path = _configure(folder, clip, port, window, privacy)
            settings.load(path)
            _say(f"broker      {broker} on 127.0.0.1:{port}")
            built_in = "built-in clip: two public-domain portraits, one also masked (40 s)"
            _say(f"source      {built_in if source is None else shown(source)}")
            _say(f"windows     {window:g} s (DEMO_WINDOW)")
            _say(f"privacy     {PRIVACY[privacy][1]} (DEMO_PRIVACY={'|'.join(PRIVACY)})")
            subscriber = _Subscriber(port)
            if not subscriber.ready.wait(20) or subscriber.failed:
                raise subscriber.failed or EdgeError("the demo's subscriber could not subscribe within 20 s")
            code = _appliance(folder, path, seconds if live else None)
            time.sleep(LAST_WORDS_S)
            subscriber.stop()
    return _summary(subscriber.received, code)


def _built_in(folder: Path) -> str:
    from edge.commands.demo.clip import compose

    compose(folder / "clip.mp4")
    return str(folder / "clip.mp4")


def _appliance(folder: Path, path: Path, seconds: float | None) -> int:
    """`edge run` until the clip ends, or for `seconds` of a live camera; returns its exit code."""
    with (folder / "edge.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-m", "edge", "run", "--config", str(path)], stderr=log
        )
    began, live = time.monotonic(), _Live(folder / "run")
    try:
        while process.poll() is None:
            if seconds is not None and time.monotonic() - began > seconds:
                process.send_signal(signal.SIGTERM)
                seconds = None
            live.show()
            time.sleep(0.1)
    except KeyboardInterrupt:
        process.terminate()
    code = process.wait()
    _clear_live_line()
    text = (folder / "edge.log").read_text("utf-8", "replace").splitlines()
    for line in text:
        if line.startswith(("WARNING", "ERROR", "edge:")):
            _say(line)
    return code


def _summary(received: list[Counts], code: int) -> int:
    cells: dict[str, int] = {}
    for payload in received:
        for route, row in payload.counts.table().items():
            for cell, value in row.items():
                if value:
                    cells[f"{cell} ({route})"] = cells.get(f"{cell} ({route})", 0) + value
    _say("")
    _say(f"{len({p.key for p in received})} windows received, {sum(p.visitors for p in received)} visitors counted")
    for name, value in sorted(cells.items(), key=lambda item: -item[1]):
        _say(f"  {value:4d}  {name}")
    if code == 0 and not received:
        _say("nothing arrived at the subscriber")
        return 1
    return code
