"""Figures held to a second reading of docs/contract.md: brute force over the log, nothing of the aggregator's."""

from __future__ import annotations

import hashlib
import math
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from edge_aggregate.figures import figures
from edge_aggregate.ingest import ingest_files
from edge_aggregate.periods import Period
from edge_aggregate.store import open_store

from edge.contract import decode_counts, encode
from edge.types import CELLS, ROUTES
from tests.support.windows import DAY, window, write_log

if TYPE_CHECKING:
    from pathlib import Path

DAY_MS: Final = 86_400_000
Z: Final = 1.959963984540054
Line = dict[str, Any]


def ms(text: str) -> int:
    """Milliseconds since 1970."""
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def summed(payload: Line, table: str, cells: set[str]) -> int:
    """The sum of some cells over both routes; what was not released is none."""
    return sum(payload[table][route][cell] or 0 for route in ROUTES for cell in cells)


def counted(lines: list[Line]) -> tuple[dict[Any, Line], dict[Any, int]]:
    """By key the payload that counts, and how many lines repeat it."""
    keys: dict[Any, list[tuple[int, str, Line]]] = defaultdict(list)
    for line in lines:
        payload = line["payload"]
        digest = hashlib.sha256(encode(decode_counts(payload))).hexdigest()
        keys[payload["device"], payload["boot_id"], payload["seq"]].append((ms(line["received"]), digest, payload))
    kept = {key: min(claims, key=lambda claim: claim[:2]) for key, claims in keys.items()}
    doubled = {key: sum(digest == kept[key][1] for _, digest, _ in claims) - 1 for key, claims in keys.items()}
    return {key: payload for key, (_, _, payload) in kept.items()}, doubled


def gaps(windows: dict[Any, Line]) -> list[tuple[str, int, int]]:
    """(site, start of the window that came next, how many are missing before it)."""
    runs: dict[Any, dict[int, Line]] = defaultdict(dict)
    claims: dict[Any, list[tuple[int, int, str]]] = defaultdict(list)
    for (device, boot, seq), payload in windows.items():
        runs[device, boot][seq] = payload
        if payload["prev"]:
            claim = (-payload["prev"]["last_seq"], ms(payload["window"]["start"]), payload["site"])
            claims[device, payload["prev"]["boot_id"]].append(claim)
    found = []
    for run in runs.keys() | claims.keys():
        last = 0
        for seq in sorted(runs.get(run, {})):
            payload = runs[run][seq]
            found.append((payload["site"], ms(payload["window"]["start"]), seq - last - 1))
            last = seq
        if claims[run]:
            claimed, start, site = min(claims[run])
            found.append((site, start, max(0, -claimed - last)))
    return found


def oracle(windows: dict[Any, Line], doubled: dict[Any, int], site: str, start: int, end: int) -> dict[str, Any]:
    """What `index --json` must say of a site."""
    mine = {
        key: payload
        for key, payload in windows.items()
        if payload["site"] == site and start <= ms(payload["window"]["start"]) < end
    }
    synced = [payload for payload in mine.values() if payload["window"]["time_quality"] != "unsynced"]
    classes = set(CELLS) - {"uncertain"}
    happy = sum(summed(payload, "counts", {"happy"}) for payload in synced)
    n = sum(summed(payload, "counts", classes) for payload in synced)
    figure: dict[str, Any] = {
        "happy": happy,
        "n": n,
        "index": min(max(happy / n, 0), 1) if n > 0 else None,
        "windows": len(mine),
        "unsynced": len(mine) - len(synced),
        "duplicates": sum(doubled[key] for key in mine),
        "missing": sum(gap for where, at, gap in gaps(windows) if where == site and start <= at < end),
    }
    if n <= 0:
        return figure | {"low": None, "high": None}
    p = min(max(happy / n, 1 / (n + 2)), 1 - 1 / (n + 2))
    v = p * (1 - p) / n
    for payload in synced:
        if (epsilon := payload["privacy"]["epsilon"]) is None:
            continue
        q = math.exp(-epsilon)
        k_happy, k_all = summed(payload, "noise_draws", {"happy"}), summed(payload, "noise_draws", classes)
        v += 2 * q / (1 - q) ** 2 * (k_happy * (1 - 2 * p) + k_all * p * p) / n**2
    n_eff = p * (1 - p) / v
    stretch = 1 + Z * Z / n_eff
    centre = (p + Z * Z / (2 * n_eff)) / stretch
    half = Z * math.sqrt(p * (1 - p) / n_eff + Z * Z / (4 * n_eff**2)) / stretch
    # No band leaves out the share itself, which Wilson's around a clamped p would where nobody is happy.
    return figure | {"low": min(centre - half, figure["index"]), "high": max(centre + half, figure["index"])}


def fleet(rng: random.Random) -> list[Line]:
    """Three days of three devices: two at one site, one that moves; all that may go wrong does."""
    lines = []
    for device in range(3):
        for hour in range(72):
            boot = f"{device}{'ab'[hour >= 40] * 31}"
            fields: Line = {
                "start": DAY + timedelta(hours=hour),
                "device": f"kiosk-{device}",
                "boot": boot,
                "prev": (f"{device}{'a' * 31}", 40 + rng.randrange(2)) if hour >= 40 else None,
                "site": "hall" if device == 0 or (device == 1 and hour > 30) else "lobby",
                "cells": {f"{r}_{c}": rng.randrange(10, 40) for r in ROUTES for c in CELLS if rng.random() < 0.3},
                "flush": hour % 24 == 23,
                "epsilon": [1.0, 0.5, None][device],
                "min_count": [10, 1, 0][device],
                "quality": "unsynced" if rng.random() < 0.05 else "holdover" if rng.random() < 0.05 else "synced",
            }
            fields["draws"] = {name: rng.randrange(1, 9) for name in fields["cells"]}
            seq = hour % 40 + 1
            if rng.random() < 0.08:
                continue
            line = window(seq, **fields)
            lines.append(line)
            while rng.random() < 0.2:
                lines.append(line)
            received = datetime.fromisoformat(line["received"])
            if rng.random() < 0.1:  # another payload: of another site and day, at another time or the same
                moved = fields | {"site": "attic", "start": fields["start"] - timedelta(hours=rng.randrange(48))}
                moved |= {"epsilon": 2.0, "prev": (f"{device}{'d' * 31}", 3)}
                late = timedelta(minutes=rng.choice([-60, 0, 0, 60]))
                lines.append(window(seq, **moved, received=received + late))
            if rng.random() < 0.1:  # the same instant by another clock
                twin = dict(line)
                twin["received"] = (received + timedelta(hours=5)).isoformat().replace("+00:00", "+05:00")
                lines.append(twin)
    lines.append(window(1, device="kiosk-9", site="attic", start=DAY + timedelta(days=4)))  # all days are over
    return lines


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_what_the_contract_says_however_the_log_came(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    lines = fleet(rng)
    rng.shuffle(lines)
    first, log = ms(DAY.isoformat()), counted(lines)
    with open_store(":memory:", create=True) as store:
        for part in range(5):  # each file contradicts what others brought
            path = write_log(tmp_path / f"{part}.jsonl", lines[part::5])
            ingest_files(store, [path], batch_lines=rng.choice([7, 1000]))
        for day in range(-2, 4):
            for length in (1, 3):
                start, end = first + day * DAY_MS, first + min(day + length, 4) * DAY_MS
                for figure in figures(store, Period(start, end), ["attic", "hall", "lobby"]):
                    for name, value in oracle(*log, figure.site, start, end).items():
                        assert getattr(figure, name) == pytest.approx(value, abs=1e-9), (figure.site, day, name)
        for _ in range(8):  # cut anywhere, which changes bands only
            start = first + rng.randrange(3 * DAY_MS)
            end = start + rng.randrange(1, 3 * DAY_MS)
            for figure in figures(store, Period(start, end), ["attic", "hall", "lobby"]):
                wanted = oracle(*log, figure.site, start, end)
                for name in wanted.keys() - {"low", "high"}:
                    assert getattr(figure, name) == wanted[name], (figure.site, name)
