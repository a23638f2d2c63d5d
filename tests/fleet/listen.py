"""At the broker with a certificate: `listen.py HOST TLS FILTER SECONDS WANTED` prints messages, one JSON line each.

`listen.py HOST TLS TOPIC SECONDS COUNT --publish` prints each PUBACK's reason code, or why there is no connection.
"""

from __future__ import annotations

import argparse
import json
import secrets
import ssl
import sys
import time
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("tls", type=Path)
    parser.add_argument("topic")
    parser.add_argument("seconds", type=float, nargs="?", default=30)
    parser.add_argument("wanted", type=int, nargs="?", default=1)
    parser.add_argument("--publish", action="store_true")
    parser.add_argument("--no-key", action="store_true")
    parser.add_argument("--session", help="a session of this name, which the broker keeps")
    return parser.parse_args()


def _client(arguments: argparse.Namespace) -> mqtt.Client:
    # The broker takes client ids of the certificate's own name only.
    name = f"{arguments.tls.name}.{arguments.session or secrets.token_hex(4)}"
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5)
    context = ssl.create_default_context(cafile=str(arguments.tls.with_name("ca.crt")))
    if not arguments.no_key:
        context.load_cert_chain(arguments.tls.with_suffix(".crt"), arguments.tls.with_suffix(".key"))
    client.tls_set_context(context)
    return client


def main() -> int:
    """Run it."""
    arguments = _arguments()
    client = _client(arguments)
    session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    if arguments.session:
        session.SessionExpiryInterval = 24 * 3600
    seen = 0

    def on_connect(*_: object) -> None:
        if not arguments.publish:
            client.subscribe(arguments.topic, 1)
            return
        for _message in range(arguments.wanted):
            client.publish(arguments.topic, b"{}", qos=1)

    def on_message(_client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        nonlocal seen
        seen += 1
        payload = json.loads(message.payload) if message.payload else None
        print(json.dumps({"topic": message.topic, "retained": message.retain, "payload": payload}), flush=True)

    def on_publish(_client: object, _data: object, _mid: int, reason: object, _properties: object) -> None:
        nonlocal seen
        seen += 1
        print(getattr(reason, "value", reason))

    client.on_connect, client.on_message, client.on_publish = on_connect, on_message, on_publish
    try:
        client.connect(arguments.host, 8883, clean_start=not arguments.session, properties=session)
        end = time.monotonic() + arguments.seconds
        while time.monotonic() < end and seen < arguments.wanted:
            if client.loop(0.2):
                print("hung up")
                return 1
    except OSError as error:
        print(error)
        return 1
    return 0 if seen >= arguments.wanted else 2


if __name__ == "__main__":
    sys.exit(main())
