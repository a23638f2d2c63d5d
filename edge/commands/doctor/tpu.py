"""The Edge TPU: on the bus, open to the service's user, known to udev under both ids, and computing rightly."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge.commands.doctor.finding import Finding
from edge.errors import BackendError, EdgeError
from edge.inference import coral, libedgetpu

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge.config import Config
    from edge.inference.coral import Device
    from edge.outbox.runtime_files import VisionFile

USER: Final = "edge-vision"
RULES: Final = tuple(Path(p) / "udev/rules.d" for p in ("/etc", "/run", "/usr/lib", "/lib"))
USB3: Final = 5000
"""Mbit/s."""
_SLOW: Final = "the CPU counts instead, more slowly"
_ANOTHER: Final = "libedgetpu is built for another runtime than the one installed: take the pair in docs/hardware.md"
_FITTING: Final = "install libedgetpu1-std 16.0tf2.19.1-1 of github.com/feranick/libedgetpu: docs/hardware.md"


def tpu(config: Config, told: VisionFile | None, rules: tuple[Path, ...] = RULES) -> Iterator[Finding]:
    """Nothing is said against a device whose configuration or bundle asks for no TPU."""
    if config.models.accelerator == "cpu":
        yield Finding("ok", "tpu", 'models.accelerator = "cpu": not used')
        return
    devices = coral.list_devices()
    if not devices:
        wanted = config.models.accelerator == "edgetpu"
        if wanted or (told is not None and told.backend.startswith(("cpu:", "edgetpu"))):
            mend = "plug it into a USB 3 port, with its own cable; on a Pi, a powered hub; see dmesg"
            why = "vision does not start" if wanted else _SLOW
            yield Finding("error", "tpu", "none on USB (1a6e:089a, 18d1:9302) or PCIe", why, mend)
        else:
            yield Finding("ok", "tpu", "none on USB or PCIe: the CPU counts")
        return
    for device in devices:
        yield from _device(device)
    if any(device.kind == "usb" for device in devices):
        yield from _udev(rules)
    yield from library(config)
    yield from _computes(config, told)


def library(config: Config, admindir: Path | None = None) -> Iterator[Finding]:
    """Whether libedgetpu's package, from dpkg's database in `admindir`, fits the runtime that a worker takes."""
    from edge.inference.tflite import runtime, runtime_name

    found = libedgetpu.package(admindir)
    if found is None:
        return
    try:
        taken = runtime_name(runtime(config.models.runtime, delegate=True))
    except BackendError:  # `models` has said so
        return
    package, fit = " ".join(found), libedgetpu.fits(found[1], taken)
    if fit is False:
        what = f"{package} does not fit {taken}, which its worker takes"
        yield Finding("error", "tpu", what, f"the worker crashes with the first model, and {_SLOW}", _FITTING)
    else:
        says = "fits" if fit else "says not which runtime it is built for, and meets"
        yield Finding("ok", "tpu", f"{package} {says} {taken}, which its worker takes")


def _device(device: Device) -> Iterator[Finding]:
    yield Finding("ok", "tpu", f"{device.path}: {device.detail}")
    speed = _read(Path(device.path) / "speed")
    if device.kind == "usb" and speed.isdecimal() and int(speed) < USB3:
        mend = "use a USB 3 port (blue) and a USB 3 cable"
        yield Finding("warning", "tpu", f"runs at {speed} Mbit/s", "each face takes several times as long", mend)
    node = _node(device)
    if node is not None and node.exists() and not _may_open(node):
        yield Finding(
            "error",
            "tpu",
            f"{node} is closed to user {_user()}",
            _SLOW,
            "install 99-edge-tpu.rules, udevadm control --reload && udevadm trigger, plug the stick in again",
        )


def _node(device: Device) -> Path | None:
    if device.kind == "pci":
        return Path(device.path)
    bus, number = (_read(Path(device.path) / name) for name in ("busnum", "devnum"))
    return Path(f"/dev/bus/usb/{int(bus):03}/{int(number):03}") if bus and number else None


def _user() -> str:
    """The service's own user, where it exists; else whoever asks."""
    try:
        return pwd.getpwnam(USER).pw_name
    except KeyError:
        return pwd.getpwuid(os.geteuid()).pw_name


def _may_open(node: Path) -> bool:
    """Whether that user may read and write the node, by its owner, group and mode."""
    user, held = pwd.getpwnam(_user()), node.stat()
    if user.pw_uid == 0:
        return True
    if held.st_uid == user.pw_uid:
        bits = stat.S_IRUSR | stat.S_IWUSR
    elif held.st_gid in os.getgrouplist(user.pw_name, user.pw_gid):
        bits = stat.S_IRGRP | stat.S_IWGRP
    else:
        bits = stat.S_IROTH | stat.S_IWOTH
    return held.st_mode & bits == bits


def _udev(folders: tuple[Path, ...]) -> Iterator[Finding]:
    text = "\n".join(_read(rule) for folder in folders for rule in sorted(folder.glob("*.rules")))
    lacking = sorted(ids for ids in coral.USB_IDS if not all(part in text for part in ids.split(":")))
    if lacking:
        yield Finding(
            "warning",
            "tpu",
            f"no udev rule names {' or '.join(lacking)}",
            "the stick changes its id with its first use, and then belongs to root",
            "install 99-edge-tpu.rules: docs/operate.md, As systemd services",
        )


def _computes(config: Config, told: VisionFile | None) -> Iterator[Finding]:
    """By the running service's word, since a stick serves one process; else by golden answers in a worker."""
    if told is not None:
        if told.backend.startswith("edgetpu"):
            yield Finding(
                "ok", "tpu", f"in use by the vision service ({told.backend}), detector {told.detector or 'unknown'}"
            )
        else:
            mend = "journalctl -u edge-vision | grep 'edgetpu_failed'; stop vision and ask again for a test"
            yield Finding("error", "tpu", f"the vision service counts on {told.backend}", _SLOW, mend)
        return
    from edge.bundle.manifest import load_bundle
    from edge.inference.cpu import CpuBackend
    from edge.inference.edgetpu import EdgeTpuBackend
    from edge.vision.detect.choose import judge
    from edge.vision.model_roles import needed_roles

    try:
        bundle = load_bundle(config.models.bundle, config.models.public_key)
        roles = needed_roles(bundle, config)
        if any(bundle.entry(role).edgetpu is None for role in roles):
            mend = "edge-quantize compile, on an x86-64 machine"
            yield Finding("warning", "tpu", f"{bundle.manifest.name} is not compiled for it", _SLOW, mend)
            return
        choice = config.models.runtime
        cpu = CpuBackend(bundle, roles, threads=1, choice=choice)
        backend = EdgeTpuBackend(bundle, roles, cpu, judge, choice=choice)
    except EdgeError as error:
        yield Finding("error", "tpu", str(error), _SLOW, "install the bundle again")
        return
    try:
        if backend.wait():
            yield Finding("ok", "tpu", f"{backend.name}: golden answers right ({', '.join(roles)})")
        else:
            mend = _ANOTHER if "SIG" in backend.trouble else "see the message; plug it in again; see power above"
            yield Finding("error", "tpu", backend.trouble, _SLOW, mend)
    finally:
        backend.close()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
