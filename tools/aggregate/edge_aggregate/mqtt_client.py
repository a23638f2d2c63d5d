"""paho's client, taught to read ahead and to hand counts over quickly, and one turn of its loop."""

from __future__ import annotations

import select
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MQTTErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

_READ: Final = 65_536
_COUNTS: Final = b"/counts"


class Client(mqtt.Client):
    """paho's client, with two short cuts: half of a subscriber's work would be its.

    It reads what the socket has at once, where paho asks the kernel four times for each message; and counts, whose
    properties say nothing that the payload does not, are handed over without taking these apart. The methods overridden
    are paho's own, by a leading underscore not public; the tests notice when a release has them no more.
    """

    ahead = b""
    _at = 0
    on_counts: Callable[[int, bytes, bytes], None] | None = None
    """Called with the packet's number (0 at QoS 0), topic and payload."""

    def _handle_publish(self) -> MQTTErrorCode:
        packet, qos = self._in_packet["packet"], self._in_packet["command"] >> 1 & 3
        end = 2 + (packet[0] << 8 | packet[1]) if len(packet) > 1 else 0
        if self.on_counts is None or qos > 1 or not packet.endswith(_COUNTS, 2, end):
            return super()._handle_publish()
        topic, mid = bytes(packet[2:end]), 0
        if qos:
            mid, end = packet[end] << 8 | packet[end + 1], end + 2
        size = shift = 0
        while True:  # the length of the properties, seven bits a byte
            byte = packet[end]
            size, shift, end = size | (byte & 0x7F) << shift, shift + 7, end + 1
            if byte < 0x80:
                break
        self.on_counts(mid, topic, bytes(packet[end + size :]))
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _sock_recv(self, bufsize: int) -> bytes:
        if not self.ahead:
            self.ahead, self._at = super()._sock_recv(_READ), 0
        part = self.ahead[self._at : self._at + bufsize]
        self._at += len(part)
        if self._at >= len(self.ahead):
            self.ahead = b""
        return part


def turn(client: Client, timeout: float) -> int:
    """Read what there is and write what waits, for up to `timeout` s; paho's code, 0 when all is well."""
    sock = client.socket()
    if sock is None:
        return mqtt.MQTT_ERR_NO_CONN
    pending = getattr(sock, "pending", None)  # TLS has read more than it gave
    waiting = [sock] if client.want_write() else []
    ready = select.select([sock], waiting, [], 0 if pending is not None and pending() else timeout)
    rc = mqtt.MQTT_ERR_SUCCESS
    if ready[0] or (pending is not None and pending()):
        rc = client.loop_read()
        while client.ahead and not rc:
            rc = client.loop_read()
    if not rc and client.want_write():
        rc = client.loop_write()
    return rc or client.loop_misc()


def hang_up(client: Client) -> None:
    """Close the socket without a goodbye."""
    sock = client.socket()
    if sock is not None:
        with suppress(OSError):
            sock.close()
