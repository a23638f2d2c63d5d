"""What a broker's refusal (CONNACK, PUBACK) means and what to do about it.

One table of MQTT 5 reason codes; paho maps the five of MQTT 3.1.1 onto them.
"""

from __future__ import annotations

from typing import Final

from edge.errors import BrokerRefused, BrokerUnavailable

NO_SUBSCRIBER: Final = 0x10
FAILURE: Final = 0x80
"""Reason codes from here on are failures (MQTT 5, section 2.4)."""
UNSUPPORTED_VERSION: Final = 0x84
NOT_AUTHORISED: Final = 0x87
TAKEN_OVER: Final = 0x8E
QUOTA: Final = 0x97

_WAIT: Final = {
    0x80: "unspecified error: see the broker's log",
    0x83: "implementation specific error: see the broker's log",
    0x88: "server unavailable",
    0x89: "server busy",
    QUOTA: "quota exceeded: raise the broker's limits if this stays",
    0x9F: "connection rate exceeded",
}
_MEND: Final = {
    0x81: "malformed packet: is this an MQTT broker?",
    0x82: "protocol error: is this an MQTT broker?",
    UNSUPPORTED_VERSION: "unsupported protocol version: it must speak MQTT 5 or 3.1.1",
    0x85: "client identifier not valid: device.id must be one the broker accepts",
    0x86: "bad user name or password: mend mqtt.username and mqtt.password_file",
    NOT_AUTHORISED: "not authorised: mend the credentials, the certificate, the client id or the broker's ACL",
    0x8A: "banned: ask the broker's administrator",
    0x8C: "bad authentication method: the broker asks for one that is not supported",
    0x90: "topic name invalid: mend mqtt.root or the broker's topic rules",
    0x95: "packet too large: raise the broker's packet size limit",
    0x99: "payload format invalid: see the broker's log",
    0x9A: "retain not supported: the retained status needs it",
    0x9B: "QoS not supported: the broker must take QoS 1",
    0x9C: "use another server: mend mqtt.host",
    0x9D: "server moved: mend mqtt.host",
}
REASONS: Final = {**_WAIT, **_MEND}
"""Reason code → what it means and what to do."""


def refusal(code: int, host: str, port: int) -> BrokerRefused | BrokerUnavailable:
    """The error for a CONNACK reason code: BrokerUnavailable where waiting helps, else BrokerRefused."""
    kind = BrokerUnavailable if code in _WAIT else BrokerRefused
    text = REASONS.get(code, "unknown reason: see the broker's log")
    return kind(f"broker {host}:{port} refused the connection (0x{code:02X}, {text})")
