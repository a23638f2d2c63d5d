"""Runs as a service of the same sandbox: tries what it must not be able to do; the answers go to /run/edge/probe.json.

Each answer is "done" or the name of the error.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import site
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def _try(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return "done"


def _connect() -> None:
    socket.create_connection(("10.77.0.10", 8883), timeout=5).close()


def _read_key() -> None:
    for folder in Path("/etc/edge/tls").iterdir():
        (folder / "device.key").read_bytes()


def _write(path: str) -> str:
    return _try(lambda: Path(path, "probe").write_text("x"))


def _adjtimex() -> None:
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512)) < 0:
        raise OSError(ctypes.get_errno(), "adjtimex")


def _make_node() -> None:
    os.mknod("/run/edge/node", 0o600 | 0o020000, os.makedev(1, 1))


def _others() -> list[str]:
    mine = os.getuid()
    return [p for p in os.listdir("/proc") if p.isdigit() and Path("/proc", p).stat().st_uid != mine]  # noqa: PTH208


def _unshare() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(0x10000000) < 0:
        raise OSError(ctypes.get_errno(), "unshare")


ANSWERS = {
    "connect": _try(_connect),
    "inet_socket": _try(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()),
    "packet_socket": _try(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()),
    "interfaces": [line.partition(":")[0].strip() for line in Path("/proc/self/net/dev").read_text().splitlines()[2:]],
    "null": _try(lambda: Path("/dev/null").open("wb").close()),
    "camera": _try(lambda: Path("/dev/video0").open("rb").close()),
    "make_node": _try(_make_node),
    "write_code": _try(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()),
    "clock": _try(_adjtimex),
    "key": _try(_read_key),
    "config": _try(lambda: Path("/etc/edge/config.toml").read_bytes()),
    "setuid": _try(lambda: os.setuid(0)),
    "namespace": _try(_unshare),
    "other_processes": len(_others()),
    "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
    "write": {p: _write(p) for p in ("/var/lib/edge", "/run/edge", "/etc/edge", "/opt/edge", "/srv", "/")},
    "write_home": _write("/root"),
    "uid": os.getuid(),
    "home_s_code": bool(site.ENABLE_USER_SITE),
}


Path("/run/edge/probe.json").write_text(json.dumps(ANSWERS))
