"""What the control host sees of a device at the broker, and what it makes the broker forget. Needs paho-mqtt.

gate.py see --boot-id ID …: wait until that run's `status` is online, its `counts` or its `health` say that it sees, and
it has lasted.
gate.py forget …: delete what the broker retains of a device that was removed.
"""

from __future__ import annotations

import argparse
import json
import secrets
import ssl
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

RETAINED = ("status", "health", "live")
BLIND = ("covered", "frozen")


def _context(tls: Path) -> ssl.SSLContext:
    """Judges as strictly as the appliance does, or the gate would revert what works: edge/publisher/tls.py says why.

    Said again here: on a control host there is no `edge` to import, only paho-mqtt.
    """
    context = ssl.create_default_context(cafile=str(tls.with_name("ca.crt")))
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.with_suffix(".crt"), tls.with_suffix(".key"))
    return context


def _connect(arguments: argparse.Namespace) -> mqtt.Client:
    # A client id of the certificate's own name, which the broker wants, and of this one call: gates run side by side,
    # and with a device's certificate (pull mode) the publisher holds the plain name.
    name = f"{arguments.tls.name}.gate-{secrets.token_hex(4)}"
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5)
    client.tls_set_context(_context(arguments.tls))
    client.connect(arguments.host, arguments.port)
    while not client.is_connected():
        if client.loop(0.2):
            sys.exit(f"gate: {arguments.host}:{arguments.port} hung up: is {arguments.tls}.crt one of its CA?")
    return client


def _trouble(leaf: str, payload: dict[str, Any]) -> str | None:
    """Why this message does not let its run be confirmed. Dark and paused ones do: kiosks are updated at night."""
    if leaf == "status":
        return None if payload["state"] == "online" else "not online"
    if payload.get("paused"):
        return None
    if payload.get("rate") == "none":  # the first figures come before any frame; a release from before `rate` has none
        return "no frames come"
    return f"the camera is {payload['scene']}" if payload.get("scene") in BLIND else None


class Watched:
    """What a run has said of itself, and whether another one followed it."""

    def __init__(self, boot_id: str) -> None:
        self.told: dict[str, str | None] = {}
        self.again = False
        self._boot_id, self._saw = boot_id, False

    def hear(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        """Take note of a message."""
        leaf = message.topic.rpartition("/")[2]
        try:
            payload: Any = json.loads(message.payload)
            boot, trouble = payload["boot_id"], _trouble(leaf, payload)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return  # retained by somebody else: what is waited for comes beside it
        if boot == self._boot_id:
            self.told[leaf] = trouble
            self._saw |= leaf == "health" and trouble is None
        elif self.told and not message.retain and (leaf == "health" or (leaf == "status" and trouble is None)):
            self.again = True  # it was said just now, and is no late window or will

    @property
    def well(self) -> bool:
        """Whether it is online and sees: `counts` say so before the minute's `health`, but grow old."""
        eyes = ("health",) if self._saw else ("counts", "health")
        return self.told.get("status", "") is None and None in (self.told.get(leaf, "") for leaf in eyes)


def see(arguments: argparse.Namespace) -> int:
    """0 once the run is well and as old as `hold`; 1 when vision starts anew, or it is not well for `seconds`."""
    run = Watched(arguments.boot_id)

    def listen() -> mqtt.Client:
        client = _connect(arguments)
        client.on_message = run.hear
        client.subscribe([(f"{arguments.topic}/{leaf}", 1) for leaf in ("counts", "status", "health")])
        return client

    client = listen()
    now = time.monotonic()
    old_enough = now + arguments.began + arguments.hold - time.time()
    end = now + arguments.seconds
    while now < end and not run.again:
        if run.well:
            if now >= old_enough:
                print(f"{arguments.topic}: {' and '.join(sorted(run.told))} of boot {arguments.boot_id}")
                return 0
            end = now + arguments.seconds
        if client.loop(0.2):
            run.told.clear()  # comes again, if the broker does
            time.sleep(0.2)
            with suppress(OSError, SystemExit):
                client = listen()
        now = time.monotonic()
    said = "vision ended and was started again"
    if not run.again:
        said = ", ".join(f"{leaf}: {trouble or 'well'}" for leaf, trouble in sorted(run.told.items())) or "nothing came"
        said += f" within {arguments.seconds:g} s; wanted: status online, and counts or health of a camera that sees"
    print(f"gate: {arguments.topic}: boot {arguments.boot_id}: {said}", file=sys.stderr)
    return 1


def forget(arguments: argparse.Namespace) -> int:
    """0 once the broker has acknowledged."""
    client = _connect(arguments)
    discovery = f"homeassistant/device/{arguments.topic.rpartition('/')[2]}/config"
    topics = (*(f"{arguments.topic}/{leaf}" for leaf in RETAINED), discovery)
    waiting = [client.publish(topic, b"", qos=1, retain=True) for topic in topics]
    while not all(message.rc <= 0 and message.is_published() for message in waiting):
        if client.loop(0.2):
            sys.exit(f"gate: {arguments.host}:{arguments.port} hung up: see its log, then run this again")
    return 0


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("command", choices=("see", "forget"))
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls", type=Path, required=True, help="DIR/NAME: DIR/NAME.crt and .key, DIR/ca.crt")
    parser.add_argument("--topic", required=True, help="<root>/v1/<site>/<device>")
    parser.add_argument("--boot-id")
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--began", type=float, default=time.time(), help="when the run did, by this host's clock (now)")
    parser.add_argument("--hold", type=float, default=0, help="seconds that it must have lasted (%(default)s)")
    arguments = parser.parse_args()
    try:
        return see(arguments) if arguments.command == "see" else forget(arguments)
    except OSError as error:
        print(f"gate: {arguments.host}:{arguments.port}: {error}: broker, name and certificates?", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
