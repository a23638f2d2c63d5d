"""The machine: cameras, power, heat, clock, disk."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge.commands.doctor.finding import Finding
from edge.errors import EdgeError, StorageError
from edge.outbox.runtime_files import clock_marker
from edge.process.clock import SystemClock
from edge.process.privileges import as_owner_of
from edge.process.shared_files import is_folder
from edge.publisher.board import SYSFS, power, soc_celsius

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge.config import Config
    from edge.config.camera import CameraSection

FRAME_S: Final = 6.0
"""How long a first frame may take."""
HOT: Final = 80.0
"""°C from which a Raspberry Pi slows down (its documentation: soft limit 60 to 80, hard limit 85)."""
LITTLE: Final = 32 * 2**20
_USER: Final = "edge-vision"
_ASIDE: Final = {
    "damaged": "check the SD card; keep or delete the file",
    "moved": "counted under another site or id: send it (docs/operate.md, Another site or id) or delete the file",
}
"""Outboxes that vision has put aside, and what to do with one."""


def cameras(config: Config, *, running: bool) -> Iterator[Finding]:
    """Each camera gives a frame; one that a running service holds is left alone."""
    for section in config.camera:
        name = f"{section.kind} {_public(section)}"
        yield from _unverified(section, name)
        if section.kind in {"v4l2", "picamera2"}:
            yield from _member("video")
        if running and section.kind != "replay":
            yield Finding("ok", "camera", f"{name}: in use by the vision service")
            continue
        try:
            from edge.vision.camera import open_camera

            camera = open_camera(section)
        except ImportError as error:
            what = f"{name}: {error.name} is not installed"
            yield Finding("error", "camera", what, "vision does not start", "see docs/operate.md, Cameras")
            continue
        except EdgeError as error:
            mend = "see docs/operate.md, Cameras"
            yield Finding("error", "camera", str(error), "vision does not start without its camera", mend)
            continue
        try:
            end = time.monotonic() + FRAME_S
            while (frame := camera.read(0.5)) is None and not camera.ended and time.monotonic() < end:
                pass
            if frame is None:
                mend = "plug it in again; try another cable or port; see dmesg"
                yield Finding("error", "camera", f"{name}: opens and gives no frame", "nobody is counted", mend)
                continue
            height, width = frame.image.shape[:2]
            if frame.release is not None:
                frame.release()
            yield Finding("ok", "camera", f"{name}: {width}x{height}")
        except EdgeError as error:
            yield Finding("error", "camera", str(error), "nobody is counted", "plug it in again; see dmesg")
        finally:
            camera.close()


def _public(section: CameraSection) -> str:
    """The source without what may be a password."""
    from edge.vision.camera.rtsp import address

    return address(section.source or "") if section.kind == "rtsp" else section.source or "default"


def _unverified(section: CameraSection, name: str) -> Iterator[Finding]:
    """What rtsps:// does not do."""
    if section.unverified_tls:
        from edge.vision.camera import UNVERIFIED

        what = f"{name}: encrypted, and nobody verifies which camera answers"
        yield Finding("warning", "camera", what, "whoever answers gets the password and can show faces", UNVERIFIED)


def _member(group: str) -> Iterator[Finding]:
    """Where the service's own user exists, it has to be in the group that owns the device."""
    try:
        user, members = pwd.getpwnam(_USER), grp.getgrnam(group)
    except KeyError:
        return
    if _USER not in members.gr_mem and user.pw_gid != members.gr_gid:
        yield Finding(
            "error",
            "camera",
            f"user {_USER} is not in group {group}",
            "the service may not open the device, even if root may",
            f"usermod --append --groups {group} {_USER}; systemctl restart edge-vision",
        )


def board(sysfs: Path = SYSFS) -> Iterator[Finding]:
    """Supply and heat."""
    supply, heat = power(sysfs), soc_celsius(sysfs)
    if supply is None:
        yield Finding("ok", "power", "this board does not say how its supply is")
    elif supply.under_voltage or supply.under_voltage_before:
        yield Finding(
            "error" if supply.under_voltage else "warning",
            "power",
            "under-voltage now" if supply.under_voltage else "under-voltage since the last start",
            "cameras and Edge TPUs drop off the bus, SD cards get damaged",
            "use the board's own supply (Pi 4: 5.1 V 3 A, Pi 5: 5 A), a short cable, or a powered hub for the Edge TPU",
        )
    else:
        yield Finding("ok", "power", "no under-voltage since the start")
    if heat is not None and heat >= HOT:
        yield Finding("warning", "heat", f"{heat:g} °C", "the processor slows down", "give it air or a heat sink")
    elif heat is not None:
        yield Finding("ok", "heat", f"{heat:g} °C")


def clock(config: Config) -> Iterator[Finding]:
    """Whether windows get a time that can be believed."""
    quality = SystemClock(clock_marker(config.storage.runtime), remember=False).time_quality()
    if quality == "synced":
        yield Finding("ok", "clock", "synced")
        return
    yield Finding(
        "warning" if quality == "holdover" else "error",
        "clock",
        f"{quality}: it says {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC",
        "unsynced windows are left out of every index, and TLS fails by a wrong date",
        "timedatectl set-ntp true; allow UDP port 123; systemctl status edge-clock.timer",
    )


def storage(config: Config) -> Iterator[Finding]:
    """Room and rights for the outbox, what waits in it, and the runtime folder."""
    path, runtime = config.storage.outbox, config.storage.runtime
    folder = path.parent
    if not is_folder(folder.resolve()) or not os.access(folder, os.W_OK | os.X_OK):
        mend = f"systemd-tmpfiles --create, or: install -d -o {_USER} -g edge -m 3770 {folder}"
        yield Finding("error", "disk", f"{folder} is not there or not writable", "no window can be kept", mend)
        return
    free = shutil.disk_usage(folder).free
    if free < config.storage.max_bytes:
        yield Finding(
            "error" if free < LITTLE else "warning",
            "disk",
            f"{free // 2**20} MiB free at {folder}, the outbox may grow to {config.storage.max_bytes // 2**20}",
            "windows are lost when it is full",
            "make room, or lower storage.max_bytes",
        )
    else:
        yield Finding("ok", "disk", f"{free // 2**20} MiB free at {folder}")
    for kind, mend in _ASIDE.items():
        for file in sorted(folder.glob(f"{path.name}.{kind}-*[0-9]")):
            why = "its unsent windows were not published"
            yield Finding("warning", "disk", f"{file} was put aside", why, mend)
    yield from _waiting(config)
    if config.device.mode == "production" and is_folder(runtime.resolve()) and not _in_ram(runtime):
        why = "figures written each second wear an SD card, and what should end with the power does not"
        yield Finding("warning", "disk", f"{runtime} is no tmpfs", why, "let storage.runtime lie below /run")


def _waiting(config: Config) -> Iterator[Finding]:
    """The outbox can be read; what waits in it, and what was lost."""
    from edge.outbox.outbox import Outbox
    from edge.outbox.sqlite import explained

    path = config.storage.outbox
    try:
        with as_owner_of(path.parent), explained(path):
            if not path.exists():
                return
            with Outbox(path) as outbox:
                stats = outbox.stats()
    except StorageError as error:
        yield Finding("error", "outbox", str(error), "no window can be kept", "see the message")
        return
    late = stats.unsent and stats.oldest_s > 2 * config.window.seconds + 60 and config.mqtt is not None
    yield Finding(
        "warning" if late else "ok",
        "outbox",
        f"{stats.unsent} windows wait, the oldest for {stats.oldest_s:.0f} s",
        *(("nobody sees them", "see broker below; journalctl -u edge-publisher -n 30") if late else ()),
    )
    if stats.dropped or stats.refused:
        what = f"{stats.dropped} windows dropped for room, {stats.refused} could not be sent"
        mend = "raise storage.max_bytes; see row-unsendable in the publisher's log"
        yield Finding("warning", "outbox", what, "they are lost to every index", mend)


def _in_ram(folder: Path) -> bool:
    """Whether the file system that holds `folder` is a tmpfs."""
    best, kind = "", ""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, place, name, *_ = line.split(" ")
        if folder.resolve().is_relative_to(place) and len(place) >= len(best):
            best, kind = place, name
    return kind in {"tmpfs", "ramfs"}
