"""What a host may be called, and which hosts are this machine. The one definition of both."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
"""Underscores are none of DNS's host names and of many container networks'."""

_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]+")
"""As a last label: resolvers take such a name for an address, with fewer than four numbers too."""


def is_loopback(host: str) -> bool:
    """Whether what is sent to this host stays on this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_problem(host: str) -> str | None:
    """Why this is neither a host's name nor an address, and what to write; None when it is one.

    The text repeats nothing of `host`, which may be a URL with a password.
    """
    if not host:
        return "is empty: give a name or an address"
    if "://" in host or "/" in host or "@" in host:
        return 'is a URL: give the name alone, e.g. "broker.example"'
    if host != host.strip():
        return "begins or ends with a space: take it away"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _name_problem(host)
    return None


def _name_problem(host: str) -> str | None:
    if host.startswith("[") and host.endswith("]"):
        return 'is in brackets: an IPv6 address stands without, e.g. "::1"'
    if ":" in host:
        return "holds a colon: the port has a key of its own; an IPv6 address must be complete"
    try:
        name = host.encode("ascii" if host.isascii() else "idna").decode("ascii")
    except UnicodeError:
        return "is no host name: a label is empty, over 63 characters long, or not of letters"
    labels = name.removesuffix(".").split(".")
    too_long = max(map(len, labels)) > 63 or len(name) > 253
    wrong = {
        "is no host name: a label between two dots is empty": "" in labels,
        "is no host name: over 253 characters, or over 63 between two dots": too_long,
        "is no host name: letters, digits, hyphens and dots make one": not all(map(_LABEL.fullmatch, labels)),
        "is no address: IPv4 has four numbers from 0 to 255": _NUMBER.fullmatch(labels[-1]) is not None,
    }
    return next((problem for problem, found in wrong.items() if found), None)
