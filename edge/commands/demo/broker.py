"""The demo's own broker on a free loopback port: Mosquitto when it is there, else amqtt (MQTT 3.1.1 only)."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final, Literal

from edge.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Kind = Literal["auto", "mosquitto", "amqtt"]
START_S: Final = 20.0

_AMQTT: Final = """
import asyncio, sys
from amqtt.broker import Broker
async def serve():
    broker = Broker({
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{sys.argv[1]}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    })
    await broker.start()
    await asyncio.Event().wait()
asyncio.run(serve())
"""


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def own_broker(folder: Path, kind: Kind = "auto") -> Iterator[tuple[str, int]]:
    """Run a broker for the length of the block; yields (its name, its port on 127.0.0.1).

    `auto` takes Mosquitto where it is installed, else amqtt. Raises BrokerUnavailable when the broker
    is not installed or does not come up.
    """
    port = _free_port()
    mosquitto = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if kind == "mosquitto" and not mosquitto:
        msg = "no broker: mosquitto is not installed: apt-get install mosquitto"
        raise BrokerUnavailable(msg)
    if mosquitto and kind != "amqtt":
        settings = folder / "mosquitto.conf"
        settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n", "utf-8")
        name, command = "Mosquitto", [mosquitto, "-c", str(settings)]
    else:
        name, command = "amqtt (MQTT 3.1.1 only)", [sys.executable, "-c", _AMQTT, str(port)]
    with (folder / "broker.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - fixed command, no shell
    try:
        end = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > end:
                said = (folder / "broker.log").read_text("utf-8", "replace").strip().splitlines()
                why = said[-1] if said else "no output"
                msg = f"no broker: {name} did not start ({why}): apt-get install mosquitto, or run make demo"
                raise BrokerUnavailable(msg)
            time.sleep(0.05)
        yield name, port
    finally:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
