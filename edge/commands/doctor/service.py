"""Configuration, models, and what the vision service says of itself."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge.commands.doctor.finding import Finding
from edge.errors import BackendError, EdgeError, StorageError, install
from edge.outbox.runtime_files import read_vision
from edge.publisher.health import runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge.bundle.manifest import Bundle
    from edge.config import Config
    from edge.outbox.runtime_files import VisionFile

_BLIND = "nobody is counted, and the windows say so"
_PRIVATE: Final = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - nothing is laid there
_SEEN_S: Final = 15.0
"""After so long vision has seen a kill switch, put the camera away and said so."""
TRIAL: Final = Path("/opt/edge/trial.json")
"""What `edge-release` keeps while a release is on trial."""


def configuration(path: Path, config: Config) -> Iterator[Finding]:
    """What is allowed and yet not what a kiosk should run with."""
    yield Finding("ok", "config", f"{path}: {config.device.site}/{config.device.id}, {config.device.mode}")
    if config.device.mode == "development":
        yield Finding(
            "warning",
            "config",
            'device.mode is "development"',
            "verbose figures and pictures of faces may be written",
            'say mode = "production" on a kiosk',
        )
    if config.privacy.noise == "off" or config.privacy.min_count <= 1:
        yield Finding(
            "warning",
            "config",
            f"privacy.noise is {config.privacy.noise!r}, min_count {config.privacy.min_count}",
            "a count of one may tell of a person",
            "leave [privacy] at its defaults where the public passes",
        )
    if (unseen := unseen_switch(config)) is not None:
        yield Finding("error", "config", f"kill_switch.file: {unseen}", "it closes no camera", "name /etc/edge/pause")
    for secret in [*((config.mqtt.password_file, config.mqtt.tls and config.mqtt.tls.key) if config.mqtt else ())]:
        if secret is not None and _open_to_all(secret):
            yield Finding(
                "warning",
                "config",
                f"{secret} can be read by every user of this machine",
                "who reads it can publish as this device",
                f"chmod o= {secret}",
            )


def unseen_switch(config: Config) -> str | None:
    """Why the unit of a kiosk would never see the kill switch's file, or None; a bench runs in no unit."""
    file = config.kill_switch.file
    folders = [folder for folder in _PRIVATE if file.parent.resolve().is_relative_to(folder)]
    if config.device.mode == "development" or not folders:
        return None
    return f"{file} lies below {folders[0]}, of which the unit has one of its own (PrivateTmp): put it elsewhere"


def trial(file: Path = TRIAL) -> Iterator[Finding]:
    """A release that nobody has confirmed yet; `edge-release` writes and removes the file."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        new, old = told["to"], told["from"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, LookupError, TypeError):
        new, old = "a release", None
    what = f"{new} is on trial and not confirmed"
    why = f"it goes back to {old or 'what was before'} by itself, at the next boot at the latest"
    mend = "none while a playbook watches it; else /opt/edge/bin/edge-release revert, and provision.yml again"
    yield Finding("warning", "release", what, why, mend)


def _age(file: Path) -> float | None:
    """Seconds since it was laid there, or None where there is none."""
    try:
        return time.time() - file.lstat().st_ctime
    except OSError:
        return None


def _open_to_all(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o007)
    except OSError:  # not there, or in a folder that keeps this user out: others too, then
        return False


def checked_bundle(config: Config) -> tuple[Bundle, str]:
    """The configured bundle, and the runtime that ran it (`litert 2.3.0`).

    Signature, checksums, model files and golden answers are checked as a start checks them.

    Raises ConfigError (the key), BundleError, BackendError (no runtime), ImportError (nothing of it installed).
    """
    from edge.bundle.golden import check_golden
    from edge.bundle.manifest import load_bundle
    from edge.inference.cpu import CpuBackend
    from edge.vision.detect.choose import judge, open_detector
    from edge.vision.model_roles import needed_roles

    bundle = load_bundle(config.models.bundle, config.models.public_key)
    roles = needed_roles(bundle, config)
    backend = CpuBackend(bundle, roles, threads=1, choice=config.models.runtime)
    check_golden(bundle, backend, roles, judge)
    bundle.crop(open_detector(bundle, backend=backend, **config.detector.model_dump()).kind)
    for role in roles if config.models.accelerator == "edgetpu" else ():
        bundle.read_edgetpu(role)
    return bundle, backend.runtime


def models(config: Config) -> Iterator[Finding]:
    """The bundle computes rightly, and whose it is."""
    try:
        bundle, runtime = checked_bundle(config)
    except ImportError as error:
        yield Finding("error", "models", str(error), "vision does not start", install("device"))
        return
    except BackendError as error:
        yield Finding("error", "models", str(error), "vision does not start", "see the message")
        return
    except EdgeError as error:
        yield Finding("error", "models", str(error), "vision does not start", "install the bundle again")
        return
    signed = f"signed by {bundle.signed.key_id}" if bundle.signed else "signature not asked for"
    yield Finding("ok", "models", f"{bundle.manifest.name}: golden answers right with {runtime}, {signed}")
    if bundle.signed is None and config.device.mode == "production":
        yield Finding(
            "warning",
            "models",
            "models.public_key is not set",
            "any bundle whose checksums are right is used, whoever made it",
            "name the maker's minisign key: docs/operate.md, Keys",
        )


def figures(config: Config) -> VisionFile | None:
    """What a running vision service says; None when none runs."""
    try:
        found = read_vision(config.storage.runtime)
    except StorageError:
        return None
    return found if runs(found, time.monotonic()) else None


def vision(config: Config, told: VisionFile | None) -> Iterator[Finding]:
    """How the running service does."""
    if told is None:
        yield Finding(
            "warning",
            "vision",
            f"does not run, or cannot write to {config.storage.runtime}",
            "nothing is counted",
            "systemctl status edge-vision; journalctl -u edge-vision -n 30",
        )
        return
    yield Finding("ok", "vision", f"runs on {told.backend}, rate {told.rate}, scene {told.scene}")
    there = _age(config.kill_switch.file)
    if there is not None and not told.paused and there > _SEEN_S:
        what = f"the kill switch {config.kill_switch.file} is there, and vision does not see it"
        mend = "let kill_switch.file lie where the service sees it, as /etc/edge/pause; systemctl restart edge-vision"
        yield Finding("error", "vision", what, "the camera looks, and visitors are counted", mend)
    elif there is not None:
        mend = f"remove {config.kill_switch.file} once the camera may look again"
        yield Finding("warning", "vision", f"the kill switch {config.kill_switch.file} is there", _BLIND, mend)
    elif told.paused:
        yield Finding("warning", "vision", "is paused", _BLIND, "publish to cmd/resume, or close the contact")
    elif told.scene != "ok":
        mend = {
            "dark": "give it light, or wait for the morning",
            "covered": "clean the lens, and see what stands before it",
            "frozen": "unplug the camera and plug it in again; journalctl -u edge-vision -n 30",
        }[told.scene]
        yield Finding("warning", "vision", f"the scene is {told.scene}", _BLIND, mend)
    if told.privacy is not None and told.privacy.exhausted:
        yield Finding(
            "warning",
            "vision",
            "the day's privacy budget is spent",
            "windows go out empty until UTC midnight",
            "longer windows, a smaller privacy.epsilon, or a larger daily_epsilon: docs/privacy.md",
        )
