"""What an operator meets over a year: mistakes, devices that are off, renewals, power cuts anywhere, removal."""

from __future__ import annotations

import json
import random
import shutil
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.faults.ledger import SOAK, note
from tests.fleet.test_fleet import cut

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fleet.conftest import Fleet

pytestmark = pytest.mark.fleet_long

CUTS = 5


def test_an_invalid_configuration_is_refused_before_anything_stops(fleet: Fleet) -> None:
    kiosk = fleet.kiosks[0]
    before = fleet.status(kiosk)
    wrong = json.dumps({"edge_config": {"window": {"seconds": -1}}})
    recap = fleet.play("provision.yml", "--limit", kiosk.name, "-e", wrong, rc=2)
    assert "window.seconds" in recap.output
    assert "camera" in recap.output  # every problem at once
    after = fleet.status(kiosk)
    assert (after["boot_id"], after["trial"]) == (before["boot_id"], None)
    fleet.play("provision.yml", "--limit", kiosk.name)


def test_a_bundle_that_was_changed_or_is_not_signed_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    kiosk, good, bundle = fleet.kiosks[0], fleet.release, fleet.bundle
    before = fleet.status(kiosk)
    changed = tmp_path / bundle.name
    shutil.copytree(bundle, changed)
    model = bytearray((changed / "gate_int8.tflite").read_bytes())
    model[len(model) // 2] ^= 1
    (changed / "gate_int8.tflite").write_bytes(model)
    fleet.release = fleet.build("2.0-tampered", bundle=changed)
    assert "sha256 is" in fleet.play("provision.yml", "--limit", kiosk.name, rc=2).output
    fleet.release = good
    key = tmp_path / "maker.pub"
    key.write_text("untrusted comment: a key\nRWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\n")
    signed = fleet.play("provision.yml", "--limit", kiosk.name, "-e", f"edge_public_key={key}", rc=2)
    assert "is not signed" in signed.output
    assert fleet.status(kiosk)["boot_id"] == before["boot_id"]
    fleet.play("provision.yml", "--limit", kiosk.name)


def test_a_kiosk_that_is_off_holds_nobody_up(fleet: Fleet) -> None:
    *others, off = fleet.kiosks
    off.stop()
    fleet.release = fleet.build("2.1")
    recap = fleet.play("update.yml")
    assert f"{off.name} was off" in recap.output
    assert {fleet.status(kiosk)["current"] for kiosk in others} == {"2.1"}
    off.start()
    fleet.play("provision.yml", "--limit", off.name)
    assert fleet.status(off)["current"] == "2.1"


def test_a_rollback_takes_less_than_a_minute_and_keeps_its_configuration(fleet: Fleet) -> None:
    kiosk = fleet.kiosks[0]
    before = fleet.status(kiosk)
    recap = fleet.play("rollback.yml", "--limit", kiosk.name)
    assert fleet.status(kiosk)["current"] == before["previous"]
    assert fleet.counts(kiosk)
    assert recap.seconds < 60
    fleet.play("provision.yml", "--limit", kiosk.name)
    assert fleet.status(kiosk)["current"] == before["current"]


def test_a_certificate_is_renewed_without_a_restart(fleet: Fleet) -> None:
    kiosk = fleet.kiosks[0]
    before = fleet.status(kiosk)["boot_id"]
    fleet.certify(kiosk.name)
    recap = fleet.play("provision.yml", "--limit", kiosk.name)
    assert recap[kiosk.name]["changed"] == 1
    assert fleet.counts(kiosk)
    fleet.broker.run("systemctl restart mosquitto")
    assert fleet.counts(kiosk)
    assert fleet.status(kiosk)["boot_id"] == before


def test_what_the_broker_acknowledged_survives_its_crash(fleet: Fleet) -> None:
    topic = fleet.topic(fleet.kiosks[0], "cmd/identify")
    fleet.listen(topic, "3", "--session", "away")  # subscribes and goes away
    acknowledged = fleet.listen(topic, "60", "200", "--publish").stdout.split()
    assert acknowledged == ["0"] * 200
    fleet.broker.run("systemctl kill -s KILL mosquitto; systemctl restart mosquitto")
    back = fleet.listen(topic, "30", "200", "--session", "away")
    assert len(back.stdout.splitlines()) >= 200, back.stdout


def test_a_pause_closes_the_camera_and_outlives_a_reboot(fleet: Fleet) -> None:
    kiosk = fleet.kiosks[0]
    fleet.play("pause.yml", "--limit", kiosk.name)
    kiosk.stop()
    kiosk.start()
    assert '"paused":true' in kiosk.run("until grep paused /run/edge/vision.json; do sleep 1; done").stdout
    fleet.play("pause.yml", "--limit", kiosk.name, "-e", "edge_paused=false")
    assert fleet.counts(kiosk)


def test_power_cuts_at_random_points_of_an_update(fleet: Fleet) -> None:
    kiosk, good = fleet.kiosks[-1], fleet.release
    began, chance = time.monotonic(), random.Random(time.time_ns())  # noqa: S311 - no secret
    for n in range(CUTS):
        fleet.release = fleet.build(f"3.{n}")
        after = partial(lambda at: time.monotonic() > at, time.monotonic() + chance.uniform(5, 90))
        cut(fleet, kiosk, "provision.yml", after, anywhere=True)
        status = fleet.status(kiosk)
        assert status["trial"] is None
        assert status["current"] in {good, fleet.release}
        assert fleet.counts(kiosk)
        good = status["current"]
        fleet.release = good
    note(SOAK, {"power_cut_in_update": CUTS}, time.monotonic() - began, neither_release_runs=0)


def test_what_a_device_costs_from_one_to_all(fleet: Fleet) -> None:
    for n in sorted({1, min(3, len(fleet.kiosks)), len(fleet.kiosks)}):
        limit = ("--limit", ",".join(kiosk.name for kiosk in fleet.kiosks[:n]))
        fleet.play("remove.yml", *limit)
        install, nothing = fleet.play("provision.yml", *limit).seconds, fleet.play("provision.yml", *limit).seconds
        fleet.release = fleet.build(f"4.{n}")
        update = fleet.play("provision.yml", *limit).seconds
        note(
            SOAK,
            {"fleet_install": n, "fleet_update": n},
            install + nothing + update,
            devices=n,
            install_s=round(install, 1),
            no_op_s=round(nothing, 1),
            update_s=round(update, 1),
        )
    fleet.play("provision.yml")


def test_removal_leaves_nothing_behind(fleet: Fleet) -> None:
    kiosk = fleet.kiosks[-1]
    topics = fleet.topic(kiosk, "#")
    fleet.play("remove.yml", "--limit", kiosk.name)
    left = kiosk.run(
        "find / -xdev \\( -path '*edge*' -o -nouser -o -nogroup \\) -not -path '/proc/*' -not -path '/sys/*' "
        "-not -path '/srv/*' -not -path '/usr/*' -not -path '/root/.ansible*'; getent passwd edge-vision; "
        "getent passwd edge-publisher; getent group edge; systemctl list-units --all --no-legend 'edge*'",
        check=False,
    )
    assert left.stdout == ""
    assert [json.loads(line) for line in fleet.listen(topics, "5").stdout.splitlines()] == []
    fleet.play("provision.yml", "--limit", kiosk.name)
    assert fleet.counts(kiosk)
