"""`edge-aggregate simulate`: its log is contract-true, its truth is what every other command finds in the log."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from math import exp
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from edge_aggregate.check import check_log
from edge_aggregate.cli import main
from edge_aggregate.decode import Dead, decode_line
from edge_aggregate.ingest import ingest_files
from edge_aggregate.simulate.device import Device, policy
from edge_aggregate.simulate.fleet import Fleet
from edge_aggregate.simulate.hostile import FAULTS, Strangers
from edge_aggregate.simulate.noise import Laplace
from edge_aggregate.simulate.plan import DAY_MS, Faults, Plan
from edge_aggregate.simulate.segments import line
from edge_aggregate.simulate.traffic import Site
from edge_aggregate.simulate.truth import Truth
from edge_aggregate.simulate.wire import stamp
from edge_aggregate.store import open_store

from edge.contract import decode_counts, encode
from edge.types import CELLS, ROUTES
from edge.vision.privacy import Policy, flush_day, flush_due, release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge_aggregate.simulate.fleet import Message
    from edge_aggregate.simulate.wire import Window

START = datetime(2026, 11, 1, tzinfo=UTC)
ROUGH = Faults(
    outages=0.1, duplicates=0.05, late=0.05, lost=0.02, clock_errors=0.05, hostile=0.1, conflicts=0.03
)  # fmt: skip
PLAN = Plan(devices=6, minutes=12 * 1440, start=START, sites=3, seed=5, restarts=0.5, faults=ROUGH)


def simulate(plan: Plan) -> tuple[list[Message], dict[str, Any]]:
    """All messages, and the last part of the truth."""
    truth = Truth(plan, {})
    messages = list(Fleet(plan, truth).messages())
    return messages, truth.end()


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        replace(PLAN, epsilon=None),
        replace(PLAN, epsilon=None, min_count=1, devices=2, sites=1),
        replace(PLAN, seconds=600, minutes=2880, epsilon=0.1, restarts=3.0),
    ],
    ids=["noise", "threshold", "exact", "short windows"],
)
def test_every_message_of_a_device_is_what_the_contract_encodes(plan: Plan) -> None:
    messages, totals = simulate(plan)
    seen: set[object] = set()
    for message in messages:
        if message.window is None:
            continue
        payload = decode_counts(message.payload)
        assert encode(payload) == message.payload
        assert message.topic == f"edge/v1/{payload.site}/{payload.device}/counts"
        seen |= {payload.window.time_quality, payload.scene, payload.flush, payload.prev is None}
        seen.add(f"exhausted {payload.privacy.exhausted}")
    assert {"synced", "holdover", "unsynced", "ok", "dark", True, False} <= seen
    assert totals["lines"] == len(messages)
    assert [m.received_ms for m in messages] == sorted(m.received_ms for m in messages)


def test_a_day_pays_for_as_many_windows_as_it_has() -> None:
    messages, _ = simulate(replace(PLAN, restarts=12.0, faults=Faults(hostile=0, conflicts=0)))
    assert any(m.window.exhausted for m in messages if m.window is not None)


def run(folder: Path, *options: str) -> tuple[Path, dict[str, Any]]:
    """The command's log (a folder) and truth."""
    log, truth = folder / "log", folder / "truth.json"
    common = ("--devices", "9", "--sites", "4", "--minutes", str(10 * 1440), "--start", "2026-11-01", "--seed", "7")
    assert main(["simulate", *common, "--out", str(log), "--truth", str(truth), *options]) == 0
    found: dict[str, Any] = json.loads(truth.read_text())
    return log, found


ROUGHLY = [
    f"--{name.replace('_', '-')}={value}"
    for name, value in {**{f: getattr(ROUGH, f) for f in Faults.__slots__}, "restarts": 0.5}.items()
]


@pytest.mark.parametrize(
    "options", [[], ["--epsilon=off"], ["--windows=900", "--epsilon=.5", "--minutes=4320"]], ids=str
)
def test_the_truth_is_what_the_log_holds(tmp_path: Path, options: list[str]) -> None:
    log, truth = run(tmp_path, *ROUGHLY, *options)
    whole, (segment,) = truth["whole"], sorted(log.glob("*.jsonl"))
    found = check_log(segment)
    dead = truth["dead_letters"]["lines"]
    for name in ("windows", "duplicates", "conflicts", "missing"):
        assert getattr(found, name) == whole[name] > 0
    assert len(found.dead) + found.unlisted == dead
    # Of a payload that lost its key, the first line is named; all are counted.
    assert 0 < len(found.conflicting) <= whole["conflicts"]
    assert dead > len(FAULTS) or options
    with open_store(str(tmp_path / "store"), create=True) as store:
        ingest_files(store, [segment])
        last = store.engine.fetch(
            "SELECT s.name, d.day, MAX(d.last_received_ms) FROM days d JOIN sites s ON s.id = d.site GROUP BY 1, 2"
        )
        kinds = dict(store.engine.fetch("SELECT kind, lines FROM dead_kinds"))
    assert kinds == truth["dead_letters"]["by_kind"]
    assert last
    for site, day, ms in last:
        assert truth["days"][stamp(day * DAY_MS)[:10]][site]["last_received"] == stamp(ms)


def test_every_site_and_day_of_the_truth_is_what_index_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, truth = run(tmp_path, *ROUGHLY)
    store = str(tmp_path / "store")
    assert main(["ingest", "--store", store, "--files", f"{log}/*.jsonl"]) == 0
    capsys.readouterr()
    checked = 0
    for day, sites in truth["days"].items():
        end = datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp() + 86_400
        to = datetime.fromtimestamp(end, UTC).isoformat()
        assert main(["index", "--store", store, "--from", f"{day}T00:00:00Z", "--to", to, "--json"]) == 0
        rows = {row["site"]: row for row in json.loads(capsys.readouterr().out)}
        for site, row in sites.items():
            if not row["windows"] and not row["missing"]:  # nothing of that day came
                continue
            counted = rows[site]
            for name in ("happy", "n", "windows", "unsynced", "duplicates", "missing"):
                assert counted[name] == row[name], (day, site, name)
            if row["seconds"]:
                assert counted["coverage"] == pytest.approx(row["covered_ppm_s"] / (row["seconds"] * 1e6))
            checked += 1
    assert checked >= 4 * 10


def test_what_replay_can_close_is_told(tmp_path: Path) -> None:
    replayable: list[tuple[Window, bytes]] = []
    truth = Truth(PLAN, {})
    fleet = Fleet(PLAN, truth)

    def kept(window: Window, payload: bytes | None, *, lost: bool) -> None:
        if lost and payload is not None:
            replayable.append((window, payload))

    fleet.kept = kept
    messages = list(fleet.messages())
    totals = truth.end()["whole"]
    assert replayable
    log = tmp_path / "log.jsonl"
    late = b"".join(
        b'{"topic":"edge/v1/%s/%s/counts","received":"2027-01-01T00:00:00Z","payload":%s}\n'
        % (window.site.encode(), window.device.encode(), payload)
        for window, payload in replayable
    )
    log.write_bytes(b"".join(map(line, messages)) + late)
    found = check_log(log)
    assert found.windows == totals["after_replay"]["windows"] == totals["windows"] + len(replayable)
    assert found.missing == totals["after_replay"]["missing"] < totals["missing"]
    with open_store(":memory:", create=True) as store:
        ingest_files(store, [log])
        ((summed,),) = store.engine.fetch("SELECT SUM(unmasked_happy + masked_happy) FROM days WHERE quality <> 2")
    assert int(summed) == totals["after_replay"]["happy"]


def test_what_is_late_at_the_end_has_not_come_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = replace(PLAN, minutes=14 * 1440, faults=replace(ROUGH, late=0.2))
    runs = {end: simulate(replace(plan, minutes=end * 1440)) for end in (14, 60)}
    for days, (messages, truth) in runs.items():
        end_ms = plan.start_ms + days * DAY_MS
        assert end_ms - 3_600_000 <= max(m.received_ms for m in messages) <= end_ms + 60_000, truth["last_received"]
    # Both fleets lived the same two weeks; what the longer one received later, the other's devices still have.
    at, (short, truth) = plan.end_ms, runs[14]
    later = [m.window for m in runs[60][0] if m.window is not None and m.window.closed_ms <= at and not m.contradicts]
    came = {(m.topic, m.window.boot_id, m.window.seq) for m in short if m.window is not None and not m.contradicts}
    all_keys = {(f"edge/v1/{w.site}/{w.device}/counts", w.boot_id, w.seq) for w in later}
    assert came < all_keys
    assert truth["whole"]["after_replay"]["windows"] >= len(all_keys) > truth["whole"]["windows"]
    # The newcomer's first look: the last week is the last of the fleet's, and not one after it.
    log, truth = run(tmp_path, "--late", ".2")
    assert main(["ingest", "--store", str(tmp_path / "store"), "--files", f"{log}/*.jsonl"]) == 0
    capsys.readouterr()
    assert main(["index", "--store", str(tmp_path / "store"), "--last", "7d", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 4
    assert sum(row["windows"] for row in rows) > 0.8 * 9 * 7 * 24
    assert main(["index", "--store", str(tmp_path / "store")]) == 0
    assert ("unsynced: counted by a clock" in capsys.readouterr().out) == any(row["unsynced"] for row in rows)


def test_a_store_with_nothing_in_it_says_what_fills_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_store(str(tmp_path / "store"), create=True):
        pass
    assert main(["index", "--store", str(tmp_path / "store")]) == 0
    assert "the store is empty: `edge-aggregate ingest` fills it" in capsys.readouterr().out


def test_without_noise_and_faults_the_sums_are_the_votes(tmp_path: Path) -> None:
    options = ("--faultless", "--epsilon", "off", "--min-count", "1", "--minutes", "1500", "--start", "2026-11-02")
    _, truth = run(tmp_path, *options)
    whole = truth["whole"]
    assert whole["released"] == whole["read"]
    assert whole["n"] == sum(whole["counted"]) > 1000
    assert whole["missing"] == whole["duplicates"] == whole["gone"] == truth["dead_letters"]["lines"] == 0


def test_faultless_but_for_what_is_asked_for_by_name(tmp_path: Path) -> None:
    _, truth = run(tmp_path, "--faultless", "--duplicates", "0.01", "--restarts", "0.1")
    faults = truth["simulation"]["faults"]
    assert {name for name, share in faults.items() if share} == {"duplicates"}
    assert truth["simulation"]["restarts"] == 0.1
    assert truth["whole"]["duplicates"] > 0


def test_a_day_of_noise_adds_up_to_the_votes_within_its_own_band(tmp_path: Path) -> None:
    _, truth = run(tmp_path, "--faultless", "--minutes", str(6 * 1440))
    for day in [*truth["days"]][:5]:
        for row in truth["days"][day].values():
            for released, read, draws in zip(row["released"], row["read"], row["draws"], strict=True):
                assert abs(released - read) < 7 * (1 + 1.84 * draws) ** 0.5


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    made = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).mkdir()
        log, truth = run(tmp_path / name, "--seed", seed)
        made.append((b"".join(f.read_bytes() for f in sorted(log.iterdir())), truth))
    assert made[0] == made[1]
    assert made[0][0] != made[2][0]


def test_a_manifest_s_table_reads_the_faces(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    rows = [[5] * 7 + [10] for _ in range(7)]
    for i, row in enumerate(rows):
        row[i] += 55
    models = [
        {"role": role, "sha256": digit * 64, "labels": [*CELLS[:7]], "confusion": rows}
        for role, digit in (("fer_unmasked", "a"), ("fer_masked", "b"))
    ]
    manifest.write_text(json.dumps({"name": "m", "models": models}))
    options = ("--faultless", "--manifest", str(manifest), "--happy", "0.9", "--visitors", "200", "--minutes", "2880")
    log, truth = run(tmp_path, *options)
    assert '"fer_masked":"sha256:' + "b" * 64 in next(iter(log.iterdir())).read_text()[:3000]
    whole = truth["whole"]
    happy = CELLS.index("happy")
    shown, read = whole["counted"][happy] + whole["counted"][7 + happy], whole["read"][happy] + whole["read"][8 + happy]
    counted = sum(whole["counted"])
    assert sum(whole["read"]) == counted
    assert shown / counted == pytest.approx(0.9, abs=0.1)
    assert read / counted == pytest.approx(0.6 * shown / counted + 0.05 * (1 - shown / counted), abs=0.03)


def _next(noise: Iterator[int], _: Fraction) -> int:
    return next(noise)


def test_cells_are_released_as_the_appliance_releases_them() -> None:
    """The simulator has its own copy of the rule; here is the appliance's beside it."""
    rng = Random(3)  # noqa: S311 - a simulation
    for rules, theirs in (
        (policy(PLAN), Policy("discrete-laplace", 1.0, 10)),
        (policy(replace(PLAN, epsilon=None, min_count=4)), Policy("off", 1.0, 4)),
        (policy(replace(PLAN, epsilon=None, min_count=1)), Policy("off", 1.0, 1)),
    ):
        device = Device(0, Site(0, PLAN, rng), PLAN, rules, rng)
        held: Any = {}
        for number in range(300):
            votes = None if rng.random() < 0.1 else [rng.choice((0, 0, 0, 1, 5)) for _ in range(16)]
            flush = rng.random() < 0.05
            state = rng.getstate()
            cells, draws = device._release(votes, flush=flush)
            rng.setstate(state)
            noise = iter(rules.noise.window(rng) if rules.noise is not None and votes is not None else ())
            table = None
            if votes is not None:
                table = {r: dict(zip(CELLS, votes[i * 8 :], strict=False)) for i, r in enumerate(ROUTES)}
            mine, drawn, held = release(table, held, theirs, flush=flush, draw=partial(_next, noise))
            assert cells == [v for row in mine.values() for v in row.values()], number
            assert draws == [v for row in drawn.values() for v in row.values()], number


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 1.0, 3.0, 100.0])
def test_noise_has_the_distribution_the_contract_names(epsilon: float) -> None:
    noise = Laplace(epsilon)
    q = exp(-epsilon)
    for x in (-3, -1, 0, 1, 2, 7):
        if not -noise._bound < x < noise._bound:
            continue
        at = x + noise._bound
        mass = Fraction(noise._table[at] - noise._table[at - 1], 2**64)
        assert float(mass) == pytest.approx((1 - q) / (1 + q) * q ** abs(x), rel=1e-9, abs=1e-15)
    assert noise._table == sorted(noise._table)
    assert noise._table[-1] >= 2**64 - 4


def test_every_hostile_line_is_a_dead_letter_of_its_kind() -> None:
    """Also those of a gap, which only a store can refuse: alone they decode."""
    messages, _ = simulate(replace(PLAN, minutes=2880, faults=Faults(hostile=0)))
    strangers, seen = Strangers(Random(1), lines=True), set()  # noqa: S311 - a simulation
    for message in [m for m in messages if m.window is not None][: 2 * len(FAULTS)]:
        one = strangers.send(message.topic, message.payload, message.received_ms)
        text = line(message._replace(topic=one.topic or message.topic, payload=one.payload, hostile=one))
        found = decode_line(text)
        seen.add(one.fault)
        if one.kind == "gap":
            assert not isinstance(found, Dead)
        else:
            assert isinstance(found, Dead), one.fault
            assert found.kind == one.kind, (one.fault, found)
    assert seen == set(FAULTS)


def test_what_waits_does_not_grow_with_the_length_of_a_simulation() -> None:
    plan = replace(PLAN, minutes=100 * 1440, faults=replace(ROUGH, hostile=0.01))
    truth = Truth(plan, {})
    fleet = Fleet(plan, truth)
    waiting, days = [0] * 110, 0
    for number, _ in enumerate(fleet.messages()):
        if number % 50 == 0:
            waiting[number // 200 % 110] = max(waiting[number // 200 % 110], len(fleet._waiting))
            days = max(days, len(truth._days))
    assert days <= 8  # the days in the air, and those of clocks that were not set
    assert max(waiting) < 6 * 24 * 33 * 0.1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--devices", "0"], "--devices 0: give 1 to"),
        (["--sites", "99"], "--sites 99: give 1 to the number of devices"),
        (["--windows", "5"], "--windows 5: give 10 to 86400 seconds"),
        (["--minutes", "1"], "--minutes 1: is less than one window of 3600 s"),
        (["--minutes", "1e300"], "is over ten years"),
        (["--epsilon", "0"], "--epsilon 0.0: give 0.01 to 100, or off"),
        (["--start", "1999-01-01"], "no window starts before 2020"),
        (["--happy", "1.5"], "--happy 1.5: is a share"),
        (["--manifest", "nowhere.json"], "nowhere.json: there is none"),
        (["--truth", "/nowhere/truth"], "--truth /nowhere/truth: No such file or directory: give a file in a folder"),
    ],
)
def test_bad_arguments_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    common = ["simulate", "--devices", "3", "--minutes", "600", "--out", str(tmp_path / "log")]
    assert main([*common, *options]) != 0
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "options", [["--late", "2"], ["--late", "nan"], ["--seed", "x"], ["--start", "noon"], ["--epsilon", "no"]]
)
def test_arguments_that_are_none_are_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    common = ["simulate", "--devices", "3", "--minutes", "600", "--out", str(tmp_path / "log")]
    with pytest.raises(SystemExit, match="2"):
        main([*common, *options])
    assert f"argument {options[0]}: '{options[1]}'" in capsys.readouterr().err


def test_a_log_that_is_there_is_not_mixed_with_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path)
    common = ["simulate", "--devices", "3", "--minutes", "600", "--out", str(tmp_path / "log")]
    assert main(common) == 2
    assert "there is a log already: give a new folder" in capsys.readouterr().err


def test_the_places_of_a_fleet_are_a_sites_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, _ = run(tmp_path, "--faultless", "--places", str(tmp_path / "sites.toml"))
    assert main(["ingest", "--store", str(tmp_path / "store"), "--files", f"{log}/*.jsonl"]) == 0
    options = ["--store", str(tmp_path / "store"), "--sites", str(tmp_path / "sites.toml"), "--json"]
    capsys.readouterr()
    assert main(["index", *options]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 4
    # In its opened hours a kiosk looked nearly all the time.
    assert all(row["coverage"] > 0.9 for row in rows)


def test_windows_are_cut_and_flushed_as_the_appliance_does() -> None:
    messages, _ = simulate(replace(PLAN, faults=Faults(0, 0, 0, 0, 0, 0, 0)))
    days: dict[str, str] = {}
    last: dict[str, Window] = {}
    cut = 0
    for window in sorted((m.window for m in messages if m.window is not None), key=lambda w: (w.device, w.closed_ms)):
        end = datetime.fromtimestamp(window.closed_ms / 1000, UTC)
        assert window.flush == flush_due(end, days.get(window.device))
        days[window.device] = flush_day(end)
        before = last.get(window.device)
        if before is None or before.boot_id != window.boot_id:
            assert window.seq == 1
            assert window.prev == (None if before is None else (before.boot_id, before.seq))
        else:
            assert window.seq == before.seq + 1
            assert window.start_ms == before.closed_ms
            assert window.start_ms % (PLAN.seconds * 1000) == 0
            cut += window.length_ms < PLAN.seconds * 1000
        assert window.length_ms <= PLAN.seconds * 1000
        last[window.device] = window
    assert cut  # an update ends a window before its time
