"""What the control host sees of a device at the broker, and what it makes the broker forget. Needs paho-mqtt.

gate.py see --boot-id ID …: wait until that run's `counts`, or its `status` online and its `health`, is there.
gate.py forget …: delete what the broker retains of a device that was removed.
"""

from __future__ import annotations

import argparse
import json
import secrets
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

RETAINED = ("status", "health", "live")


def _connect(arguments: argparse.Namespace) -> mqtt.Client:
    # A client id of the certificate's own name, which the broker wants, and of this one call: gates run side by side,
    # and with a device's certificate (pull mode) the publisher holds the plain name.
    name = f"{arguments.tls.name}.gate-{secrets.token_hex(4)}"
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5)
    context = ssl.create_default_context(cafile=str(arguments.tls.with_name("ca.crt")))
    context.load_cert_chain(arguments.tls.with_suffix(".crt"), arguments.tls.with_suffix(".key"))
    client.tls_set_context(context)
    client.connect(arguments.host, arguments.port)
    while not client.is_connected():
        if client.loop(0.2):
            sys.exit(f"gate: {arguments.host}:{arguments.port} hung up: is {arguments.tls}.crt one of its CA?")
    return client


def see(arguments: argparse.Namespace) -> int:
    """0 once the run is there, 1 when it was not within `seconds`."""
    seen: set[str] = set()

    def on_message(_client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        try:
            payload: Any = json.loads(message.payload)
            found = payload["boot_id"] == arguments.boot_id and payload.get("state", "online") == "online"
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return  # retained by somebody else: what is waited for comes beside it
        if found:
            seen.add(message.topic.rpartition("/")[2])

    def listen() -> mqtt.Client:
        client = _connect(arguments)
        client.on_message = on_message
        client.subscribe([(f"{arguments.topic}/{leaf}", 1) for leaf in ("counts", "status", "health")])
        return client

    client = listen()
    end = time.monotonic() + arguments.seconds
    while time.monotonic() < end and "counts" not in seen and not {"status", "health"} <= seen:
        if client.loop(0.2):
            client = listen()
    said = f"{arguments.topic}: {' and '.join(sorted(seen)) or 'nothing'} of boot {arguments.boot_id}"
    if "counts" in seen or {"status", "health"} <= seen:
        print(said)
        return 0
    print(f"gate: {said} within {arguments.seconds} s; wanted: counts, or status and health", file=sys.stderr)
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
    arguments = parser.parse_args()
    try:
        return see(arguments) if arguments.command == "see" else forget(arguments)
    except OSError as error:
        print(f"gate: {arguments.host}:{arguments.port}: {error}: broker, name and certificates?", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
