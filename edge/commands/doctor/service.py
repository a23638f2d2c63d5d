"""Configuration, models, and what the vision service says of itself."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from edge.commands.doctor.finding import Finding
from edge.errors import BackendError, EdgeError, StorageError, install
from edge.outbox.runtime_files import read_vision
from edge.publisher.health import runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge.bundle.manifest import Bundle
    from edge.config import Config
    from edge.outbox.runtime_files import VisionFile

_BLIND = "nobody is counted, and the windows say so"


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
    for secret in [*((config.mqtt.password_file, config.mqtt.tls and config.mqtt.tls.key) if config.mqtt else ())]:
        if secret is not None and _open_to_all(secret):
            yield Finding(
                "warning",
                "config",
                f"{secret} can be read by every user of this machine",
                "who reads it can publish as this device",
                f"chmod o= {secret}",
            )


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
    if os.path.lexists(config.kill_switch.file):
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
