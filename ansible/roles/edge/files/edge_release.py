#!/usr/bin/python3
"""Releases on a device: put one there, try it, keep it or go back. A power cut at any point leaves one that runs.

    edge-release stage TARBALL SHA256         unpack to releases/<version>, virtual environment included
    edge-release check VERSION                would it start with the candidate configuration? Signature and models too
    edge-release switch VERSION               on trial: the next boot undoes it, or half an hour, unless it is confirmed
    edge-release rollback                     on trial: the release before this one, with its configuration
    edge-release confirm VERSION              end the trial of this very release: every boot starts it from now on
    edge-release revert | status | remove

`current` points to what runs. A trial is a file, `trial.json`, written before anything is touched and removed by
`confirm`: while it exists, `revert` (with which every boot begins, and the trial's own timer ends) restores the
configuration it names and `current`.
Certificates are part of it, since the configuration names a folder of their own for each set of them.
Standard library only: it runs before there is a virtual environment, and when the one there is broken.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import subprocess
import sys
import tarfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

OPT = Path("/opt/edge")
PROGRAM = OPT / "bin/edge-release"
RELEASES, CURRENT, PREVIOUS, TRIAL = OPT / "releases", OPT / "current", OPT / "previous", OPT / "trial.json"
CONFIG, CANDIDATE = Path("/etc/edge/config.toml"), Path("/etc/edge/candidate.toml")
KEPT_CONFIG = OPT / "trial-config.toml"
TLS = Path("/etc/edge/tls")
"""Below it a folder for each set of certificates, named by what is in it; from before, the files themselves."""
VISION_FILE = Path("/run/edge/vision.json")
ETC, STATE = Path("/etc"), Path("/var/lib/edge")
LINKS = {
    "systemd/system/edge.target": "edge.target",
    "systemd/system/edge-vision.service": "edge-vision.service",
    "systemd/system/edge-publisher.service": "edge-publisher.service",
    "systemd/system/edge-clock.service": "edge-clock.service",
    "systemd/system/edge-clock.timer": "edge-clock.timer",
    "sysusers.d/edge.conf": "sysusers.conf",
    "tmpfiles.d/edge.conf": "tmpfiles.conf",
    "udev/rules.d/99-edge-tpu.rules": "99-edge-tpu.rules",
    "systemd/journald.conf.d/edge.conf": "journald.conf",
    "systemd/system.conf.d/edge.conf": "watchdog.conf",
}
"""Links below /etc into `current/systemd`: going back takes the units along."""
JOURNALD = "systemd/journald.conf.d/edge.conf"
PULL, PULL_CACHE = ("edge-pull.timer", "edge-pull.service"), Path("/var/cache/edge-pull")
"""What pull.yml adds."""
GPIO_MADE = OPT / "made-group-gpio"
"""Raspberry Pi OS has this group; elsewhere systemd-sysusers makes it, for its new member."""
SERVICES = ("edge-vision.service", "edge-publisher.service")
STARTED_S = 180.0  # as the units' TimeoutStartSec
TRIAL_S = 1800
"""How long a trial may stand that nobody confirms. The playbook says more where its batches are large."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
"""Of releases and bundles: one folder's name, so never a way out of the folder it lies in."""
VISION_FILE_BYTES = 64 * 1024


class Refused(Exception):
    """What is wrong and what to do, in one line."""


def _sync() -> None:
    os.sync()  # files and the folders that name them


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.chmod(mode)
    if path == CONFIG:
        shutil.chown(fresh, "root", "edge")
    fresh.replace(path)
    _sync()


def _link(link: Path, target: Path) -> None:
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(target, link.parent))
    fresh.replace(link)
    _sync()


def _version(link: Path) -> str | None:
    return link.readlink().name if link.is_symlink() else None


def _name(name: object, of: str) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        msg = f"{str(name)[:80]!r} is no name of a {of}: letters, digits, . + _ -, at first a letter or digit"
        raise Refused(msg)
    return name


def _release(version: str) -> Path:
    release = RELEASES / _name(version, "release")
    if not (release / "complete").exists():
        msg = f"release {version} is not on this device ({release}): stage it first"
        raise Refused(msg)
    return release


def _discard(release: Path) -> None:
    """Remove a release, its mark first: what a power cut leaves of it is rubbish, and is not taken for whole."""
    (release / "complete").unlink(missing_ok=True)
    _sync()
    shutil.rmtree(release)


def _prune(*keep: str) -> None:
    """Remove every release but the one that runs, the one before it and those to keep; none while a trial stands."""
    for release in () if TRIAL.exists() else RELEASES.glob("*"):
        if release.name not in (_version(CURRENT), _version(PREVIOUS), *keep):
            _discard(release)


def _run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401 - subprocess's own
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@contextmanager
def _alone() -> Iterator[None]:
    """One change at a time: a trial's end by itself and its confirmation may come in the same moment."""
    folder = os.open(TRIAL.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return _run("systemctl", *arguments)


def _active() -> bool:
    return all(not _systemctl("is-active", "--quiet", service).returncode for service in SERVICES)


def _pip() -> Path:
    """Debian's own pip, run from its wheel: a copy in each release would take as long as all the rest."""
    wheels = sorted(Path("/usr/share/python-wheels").glob("pip-*.whl"))
    if not wheels:
        msg = "no pip in /usr/share/python-wheels: apt-get install python3-venv"
        raise Refused(msg)
    return wheels[-1] / "pip"


def stage(tarball: Path, sha256: str) -> str:
    """Unpack a release and make its virtual environment from the tarball, which is used up; returns its version."""
    with tarball.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        msg = f"{tarball}: sha256 is {found[:12]}…, not {sha256[:12]}…: copy it again"
        raise Refused(msg)
    with tarfile.open(tarball) as archive:
        try:
            about = json.load(archive.extractfile("release.json"))  # type: ignore[arg-type]
            version, bundle = _name(about["version"], "release"), _name(about["bundle"], "bundle")
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{tarball}: has no release.json as build_release.py writes it: build it again"
            raise Refused(msg) from error
        python = ".".join(map(str, sys.version_info[:2]))
        if about["python"] != python:
            msg = f"{tarball}: is for Python {about['python']}, this device has {python}: build it for this target"
            raise Refused(msg)
        release = RELEASES / version
        marker = release / "complete"
        with _alone():
            _prune(version)  # those that failed: with nothing confirmed since, they would fill the card
        if marker.exists() and marker.read_text() == sha256:
            tarball.unlink()
            return version
        if release.name in (_version(CURRENT), _version(PREVIOUS)):
            msg = f"release {release.name} is in use and differs from {tarball}: give the new one another version"
            raise Refused(msg)
        if release.exists():
            _discard(release)
        release.mkdir(parents=True)
        # Python 3.11.2, bookworm's, has no filters yet.
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        archive.extractall(release)  # noqa: S202 - its checksum was given
    venv = release / "venv"
    steps = (
        (sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(venv)),
        (
            *(str(venv / "bin/python"), str(_pip()), "--quiet", "--disable-pip-version-check", "install", "--no-index"),
            *("--no-deps", "--require-hashes", "--ignore-installed", "--find-links", str(release / "wheels")),
            *("-r", str(release / "requirements.txt")),
        ),
    )
    for step in steps:
        done = _run(*step)
        if done.returncode:
            msg = f"{' '.join(step[:4])} …: {(done.stderr or done.stdout).strip()}"
            raise Refused(msg)
    shutil.rmtree(release / "wheels")
    (release / "bundle").symlink_to(Path("models") / bundle)
    if _run("getent", "group", "gpio").returncode:
        GPIO_MADE.touch()
    _run("systemd-sysusers", str(release / "systemd/sysusers.conf"))
    _sync()
    _write(marker, sha256.encode())  # last: without it the folder is rubbish from a power cut
    tarball.unlink()
    return release.name


def check(version: str) -> str:
    """Ask the release itself, as the user who may read the most: the publisher has the key."""
    edge = str(_release(version) / "venv/bin/edge")
    user: dict[str, Any] = {"user": "edge-publisher", "group": "edge", "extra_groups": []}
    user["env"] = os.environ | {"PYTHONNOUSERSITE": "1"}  # as the units do: its home is not only its own
    done = _run(edge, "check-config", "--config", str(CANDIDATE), cwd="/", **user)
    said = (done.stdout + done.stderr).strip()
    if done.returncode:
        raise Refused(said)
    return said


def _boot_id() -> str | None:
    """What vision's figures say, the newer of both places: an earlier release had no folder for each writer.

    A link, a FIFO or a file without end that a service has put there leads root nowhere and holds nobody up.
    """
    found: list[tuple[float, bytes]] = []
    for path in (VISION_FILE, VISION_FILE.parent / "vision" / VISION_FILE.name):
        with suppress(OSError):
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                status = os.fstat(file)
                if stat.S_ISREG(status.st_mode):
                    found.append((status.st_mtime, os.read(file, VISION_FILE_BYTES)))
            finally:
                os.close(file)
    try:
        boot = json.loads(max(found)[1])["boot_id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return boot if isinstance(boot, str) and re.fullmatch(r"[\w-]{1,64}", boot) else None


def _take_up() -> None:
    """Let systemd and udev have the units, folders and rules of the release that is current."""
    _systemctl("daemon-reload")
    _run("systemd-tmpfiles", "--create", str(ETC / "tmpfiles.d/edge.conf"))
    _run("udevadm", "control", "--reload")
    _run("udevadm", "trigger", "--subsystem-match=usb", "--subsystem-match=apex")


def _logs() -> bytes:
    """What the release that is current wants of journald."""
    with suppress(OSError):
        return (ETC / JOURNALD).read_bytes()
    return b""


def _log_anew(before: bytes) -> None:
    """Let journald have that, where it changed: it reads it at its own start only, and keeps what was logged."""
    if _logs() != before:
        _systemctl("try-restart", "systemd-journald.service")


def _start() -> str:
    """Restart both services with what is current and wait for vision's first figures; returns its new boot_id."""
    _systemctl("stop", "edge.target", *SERVICES)
    _systemctl("reset-failed", *SERVICES)  # its restarts are the last release's
    before = _boot_id()
    _take_up()
    _systemctl("enable", "edge.target")
    _systemctl("start", "--no-block", "edge.target")
    end = time.monotonic() + STARTED_S
    while time.monotonic() < end:
        boot = _boot_id()
        if boot not in (None, before) and _active():
            return str(boot)
        for service in SERVICES:
            shown = _systemctl("show", "-p", "NRestarts", "--value", service).stdout.strip()
            if shown not in ("", "0", "1"):  # once may be a camera that the last run had not let go yet
                journal = _run("journalctl", "-u", service, "-n", "15", "-o", "cat", "--no-pager").stdout.strip()
                msg = f"{service} ended twice after its start:\n{journal}"
                raise Refused(msg)
        time.sleep(0.5)
    msg = f"the services did not start within {STARTED_S:g} s: journalctl -u edge-vision -u edge-publisher"
    raise Refused(msg)


def _trial() -> dict[str, Any] | None:
    """From which release to which the trial goes that is under way."""
    return dict(json.loads(TRIAL.read_text())) if TRIAL.exists() else None


def _start_timer(name: str, within: int) -> None:
    """Let systemd undo this very trial, should whoever began it go away: no rescue reaches a device that is cut off.

    A boot ends it too, and forgets this; so does whatever ends the trial.
    """
    timer = (f"--unit=edge-trial-{name}", f"--on-active={within}", "--timer-property=AccuracySec=1s", "--collect")
    said = "--description=Edge: the end of a trial that nobody confirmed"
    done = _run("systemd-run", "--quiet", *timer, said, str(PROGRAM), "revert", f"--trial={name}")
    if done.returncode:
        msg = f"systemd-run: {done.stderr.strip()}: nothing was switched, since this trial would have no end of its own"
        raise Refused(msg)


def _stop_timer(trial: dict[str, Any]) -> None:
    _systemctl("stop", f"edge-trial-{trial.get('name')}.timer")  # an earlier edge-release gave none


def switch(version: str, config: bytes | None = None, *, within: int = TRIAL_S) -> dict[str, object]:
    """Begin a trial of a release, with the candidate configuration unless told otherwise, and start it.

    It is undone after `within` seconds, unless it is confirmed before.
    """
    with _alone():
        release = _release(version)
        if (standing := _trial()) is not None:
            msg = f"another trial is under way: edge-release confirm {standing['to']}, or revert"
            raise Refused(msg)
        trial = {"from": _version(CURRENT), "to": version, "name": secrets.token_hex(4)}
        _start_timer(trial["name"], within)
        logs = _logs()
        if CONFIG.exists():
            _write(KEPT_CONFIG, CONFIG.read_bytes(), 0o600)
        _write(TRIAL, json.dumps(trial).encode())
        _write(CONFIG, CANDIDATE.read_bytes() if config is None else config, 0o640)
        _link(CURRENT, release)
        for place, file in LINKS.items():
            (ETC / place).parent.mkdir(parents=True, exist_ok=True)
            if not (ETC / place).is_symlink():
                (ETC / place).symlink_to(CURRENT / "systemd" / file)
    _log_anew(logs)
    return {"version": version, "boot_id": _start()}


def rollback(*, within: int = TRIAL_S) -> dict[str, object]:
    """Try the release before this one, with the certificates of today: its own may have ended, or be another CA's."""
    version = _version(PREVIOUS)
    if version is None:
        msg = "there is no release before this one"
        raise Refused(msg)
    config = (RELEASES / version / "config.toml").read_bytes()
    folder = re.compile(re.escape(bytes(TLS)) + rb"(/[0-9a-f]{16})?(?=/(ca|device)\.)")
    today = folder.search(CONFIG.read_bytes())
    return switch(version, folder.sub(today[0], config) if today else config, within=within)


def confirm(version: str) -> dict[str, object]:
    """End the trial of this release: every boot starts it. Older releases than the one before it are removed.

    So are the certificates that it does not use.
    Refused when it is not on trial: a boot has undone that since, and what was seen of it does not run any more.
    """
    with _alone():
        _confirm(version)
    return status()


def _confirm(version: str) -> None:
    trial = _trial()
    if trial is None or trial["to"] != version:
        now = "nothing is" if trial is None else f"{trial['to']} is"
        msg = f"release {version} is not on trial, {now}, and {_version(CURRENT)} runs: switch to it again"
        raise Refused(msg)
    before = trial["from"]
    if before not in (None, version):
        shutil.copy2(KEPT_CONFIG, RELEASES / before / "config.toml")
        _link(PREVIOUS, RELEASES / before)
    TRIAL.unlink()
    KEPT_CONFIG.unlink(missing_ok=True)
    _sync()
    _stop_timer(trial)
    _prune()
    config = CONFIG.read_bytes()
    for old in TLS.glob("*"):
        if bytes(old) not in config:
            shutil.rmtree(old) if old.is_dir() else old.unlink()


def revert(*, boot: bool, trial: str | None = None) -> dict[str, object]:
    """Undo an unconfirmed switch, of this name if one is given; without one, nothing happens."""
    with _alone():
        logs, undone = _logs(), _trial()
        if undone is None or trial not in (None, undone.get("name")):
            return status()
        if undone["from"] is None:  # the first release of this device: there is nothing to go back to
            _systemctl("stop", "edge.target", *SERVICES)
            CURRENT.unlink(missing_ok=True)
            CONFIG.unlink(missing_ok=True)
        else:
            if KEPT_CONFIG.exists():
                _write(CONFIG, KEPT_CONFIG.read_bytes(), 0o640)
            _link(CURRENT, RELEASES / undone["from"])
        TRIAL.unlink()
        KEPT_CONFIG.unlink(missing_ok=True)
        _sync()
    print(f"edge-release: {undone['to']} was not confirmed: back to {undone['from'] or 'nothing'}", file=sys.stderr)
    _stop_timer(undone)
    _log_anew(logs)
    if boot:
        _take_up()  # this boot began with those of the other release
    elif undone["from"] is not None:
        return status() | {"boot_id": _start()}
    return status()


def remove() -> dict[str, object]:
    """Leave nothing behind: services, links, users, counts, configuration, certificates, and this program."""
    for unit in ("edge.target", *SERVICES, "edge-clock.timer", "edge-revert.service", PULL[0]):
        _systemctl("disable", "--now", unit)  # each by itself: one that is not there fails all of a call
    _systemctl("stop", "edge-trial-*.timer")
    logs = _logs()
    for place in (*LINKS, *(f"systemd/system/{unit}" for unit in ("edge-revert.service", *PULL))):
        (ETC / place).unlink(missing_ok=True)
    _log_anew(logs)
    groups = ("edge", "gpio") if GPIO_MADE.exists() else ("edge",)
    for folder in ("sysusers.d", "systemd/journald.conf.d", "systemd/system.conf.d"):  # Debian has them not
        with suppress(OSError):  # others use it
            (ETC / folder).rmdir()
    for tree in (CONFIG.parent, STATE, VISION_FILE.parent, PULL_CACHE):
        shutil.rmtree(tree, ignore_errors=True)
    _systemctl("daemon-reload")
    for user in ("edge-vision", "edge-publisher"):
        _run("userdel", user)
    for group in groups:
        _run("groupdel", group)
    for tree in (RELEASES, OPT):  # this program last: a removal that is cut off can be asked for again
        shutil.rmtree(tree, ignore_errors=True)
    return {"removed": True}


def status() -> dict[str, object]:
    """What runs, what is there, what is on trial, and whether the candidate configuration is in use."""
    same = CONFIG.exists() and CANDIDATE.exists() and CONFIG.read_bytes() == CANDIDATE.read_bytes()
    return {
        "current": _version(CURRENT),
        "previous": _version(PREVIOUS),
        "trial": (_trial() or {}).get("to"),
        "releases": {marker.parent.name: marker.read_text() for marker in sorted(RELEASES.glob("*/complete"))},
        "candidate_in_use": same,
        "boot_id": _boot_id(),
        "active": _active(),
    }


def main() -> int:
    """Run one command; its answer is one JSON object."""
    parser = argparse.ArgumentParser(prog="edge-release", description="Releases of the edge appliance on this device.")
    commands = parser.add_subparsers(required=True, dest="command")
    added = {name: commands.add_parser(name) for name in ("stage", "check", "switch", "rollback", "confirm", "revert")}
    added["stage"].add_argument("tarball", type=Path)
    added["stage"].add_argument("sha256")
    for name in ("check", "switch", "confirm"):
        added[name].add_argument("version")
    for name in ("switch", "rollback"):
        told = "undone by itself after this many seconds, unless confirmed before (%(default)s)"
        added[name].add_argument("--within", type=int, default=TRIAL_S, help=told)
    added["revert"].add_argument("--boot", action="store_true", help="before the services start")
    added["revert"].add_argument("--trial", help="this one alone: another that stands meanwhile is left alone")
    for name in ("status", "remove"):
        commands.add_parser(name)
    arguments = vars(parser.parse_args())
    command = arguments.pop("command")
    os.umask(0o022)
    try:
        answer: Any = globals()[command](**arguments)
    except (Refused, OSError, tarfile.TarError) as error:
        print(f"edge-release: {error}", file=sys.stderr)
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
