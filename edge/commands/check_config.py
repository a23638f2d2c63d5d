"""`edge check-config`: every problem of a file with its line, then bundle, certificates, kill switch."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edge import config as settings
from edge.errors import BackendError, BundleError, ConfigError, install
from edge.process.shown import shown

if TYPE_CHECKING:
    from pathlib import Path

    from edge.config import Config, Problem


def run_check_config(path: Path, *, as_json: bool = False) -> int:
    """Print every problem; returns 0, or 2 with problems. Raises ConfigError for what is no text, unless `as_json`."""
    problems: list[settings.Problem] = []
    try:
        config = settings.load(path)
    except settings.ConfigProblems as error:
        problems = error.problems
    except ConfigError as error:  # no file, or none that is text
        if not as_json:
            raise
        problems = [settings.Problem(None, "file", shown(error))]
    else:
        problems = _model_problems(path, config) + _tls_problems(path, config) + _switch_problems(path, config)
        problems = [p._replace(message=shown(p.message)) for p in problems]
    if as_json:
        print(json.dumps({"file": str(path), "ok": not problems, "problems": [p._asdict() for p in problems]}))
    elif problems:
        for p in problems:
            print(f"{shown(path)}:{p.line or 1}: {p.key}: {p.message}")
        print(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}")
    else:
        noise = "exact counts, no noise" if config.privacy.noise == "off" else f"epsilon {config.privacy.epsilon:g}"
        print(
            f"{shown(path)}: ok: {config.device.site}/{config.device.id}, {config.window.seconds:g} s windows, {noise}"
        )
    return ConfigError.exit_code if problems else 0


def _model_problems(path: Path, config: Config) -> list[Problem]:
    """What the start would find wrong with the bundle: signature, checksums, model files, golden answers."""
    from edge.commands.doctor.service import checked_bundle

    try:
        checked_bundle(config)
    except (ConfigError, BundleError) as error:
        # Configuration errors of the bundle's users begin with their key.
        key = str(error).partition(":")[0] if isinstance(error, ConfigError) else "models.bundle"
        message = str(error).removeprefix(f"{key}: ")
        return [settings.Problem(settings.line_of(path, *key.split(".")), key, message)]
    except ImportError as error:
        print(f"edge: the bundle was not checked: {error}: {install('device')}", file=sys.stderr)
    except BackendError as error:  # says itself what to install
        print(f"edge: the bundle was not checked: {error}", file=sys.stderr)
    return []


def _tls_problems(path: Path, config: Config) -> list[Problem]:
    """What a connection would find wrong with this device's certificate, key and CA."""
    from edge.publisher.tls import certificate_end, tls_problems

    files = None if config.mqtt is None else config.mqtt.tls
    if files is None:
        return []
    told = tls_problems(files)
    end = certificate_end(files)
    if end is not None and end < datetime.now(UTC):
        told.append(f"mqtt.tls.cert: {files.cert} ended on {end.date()}: renew it")
    found = [line.split(": ", 1) for line in told]
    return [settings.Problem(settings.line_of(path, *key.split(".")), key, message) for key, message in found]


def _switch_problems(path: Path, config: Config) -> list[Problem]:
    """A kill switch that would work on a bench and not in the unit."""
    from edge.commands.doctor.service import unseen_switch

    key, why = "kill_switch.file", unseen_switch(config)
    return [] if why is None else [settings.Problem(settings.line_of(path, *key.split(".")), key, why)]
