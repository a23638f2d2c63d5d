"""`edge doctor`: what is wrong with the things the appliance stands on, why it matters, how to mend it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edge.commands.doctor.finding import EXIT_CODES, Finding
from edge.process.shown import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def run_doctor(path: Path, *, as_json: bool = False) -> int:
    """Print what `examine` finds; returns 0 when all is well, 1 with warnings, 2 with errors."""
    findings = []
    for found in examine(path):
        finding = found._replace(what=shown(found.what), why=shown(found.why), mend=shown(found.mend))
        findings.append(finding)
        if not as_json:
            print(f"{finding.level:8}{finding.check:9}{finding.what}", flush=True)
            for name, text in (("why", finding.why), ("mend", finding.mend)):
                if text:
                    print(f"{'':17}{name + ':':6}{text}")
    worst = max((f.level for f in findings), key=EXIT_CODES.__getitem__)
    if as_json:
        print(json.dumps({"worst": worst, "findings": [f._asdict() for f in findings]}))
    return EXIT_CODES[worst]


def examine(path: Path) -> Iterator[Finding]:
    """Every check, one after the other; what needs the configuration is left out where that is wrong."""
    from edge import config as settings
    from edge.commands.doctor import device, service
    from edge.commands.doctor.broker import broker
    from edge.commands.doctor.tpu import tpu
    from edge.errors import ConfigError

    yield from service.trial()
    try:
        config = settings.load(path)
    except ConfigError as error:
        problems = error.problems if isinstance(error, settings.ConfigProblems) else []
        for what in [f"{path}:{p.line or 1}: {p.key}: {p.message}" for p in problems] or [str(error)]:
            yield Finding("error", "config", what, "neither service starts", "mend this line")
        yield from device.board()
        return
    yield from service.configuration(path, config)
    yield from service.models(config)
    figures = service.figures(config)
    yield from service.vision(config, figures)
    yield from device.cameras(config, running=figures is not None)
    yield from tpu(config, figures)
    yield from device.board()
    yield from device.clock(config)
    yield from device.storage(config)
    yield from broker(config)
