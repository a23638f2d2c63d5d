"""What an operator meets over a year: mistakes, devices that are off, renewals, power cuts anywhere, removal."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.faults.ledger import SOAK, note
from tests.fleet.bed import call
from tests.fleet.conftest import ANSIBLE, AT_ONCE, BUILD
from tests.fleet.test_fleet import cut

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fleet.bed import Device
    from tests.fleet.conftest import Fleet, Recap

pytestmark = pytest.mark.fleet_long

STEPS = (
    *("Send the release", "Stage the release", "Install certificates", "Write the candidate configuration"),
    *("Check configuration", "Switch, until confirmed", "See this very run at the broker", "Confirm"),
)
"""Tasks of the role, by how their names begin."""


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


def test_a_rollback_brings_back_release_and_configuration(fleet: Fleet) -> None:
    kiosk = fleet.kiosks[0]
    before = fleet.status(kiosk)
    away = ("rollback.yml", "--limit", kiosk.name, "-e", f"edge_from={before['current']}")
    recap = fleet.play(*away)
    assert fleet.status(kiosk)["current"] == before["previous"]
    assert fleet.counts(kiosk)
    boot = fleet.status(kiosk)["boot_id"]
    assert "left alone" in fleet.play(*away).output  # again: it is not gone back to
    assert fleet.status(kiosk)["boot_id"] == boot
    note(SOAK, {"fleet_rollback": 1}, recap.seconds, rollback_s=round(recap.seconds, 1), load=load())
    fleet.play("provision.yml", "--limit", kiosk.name)
    assert fleet.status(kiosk)["current"] == before["current"]


def test_a_trial_that_nobody_watches_undoes_itself(fleet: Fleet) -> None:
    """As when the control host goes away: nobody confirms, and nobody is there to revert."""
    kiosk = fleet.kiosks[0]
    before = fleet.status(kiosk)["current"]
    kiosk.run("/opt/edge/bin/edge-release rollback")
    assert fleet.status(kiosk)["trial"] is not None
    name = json.loads((kiosk.root / "opt/edge/trial.json").read_text())["name"]
    assert f"edge-trial-{name}.timer" in kiosk.run("systemctl list-timers").stdout
    kiosk.run(f"systemctl start edge-trial-{name}.service")  # what it does in half an hour
    kiosk.wait(lambda: fleet.status(kiosk)["trial"] is None, "end of the trial by itself")
    assert fleet.status(kiosk)["current"] == before
    kiosk.wait(lambda: name not in kiosk.run("systemctl list-units --all").stdout, "end of what ended it")
    assert fleet.counts(kiosk)


def test_a_renewed_certificate_is_tried_like_a_release(fleet: Fleet) -> None:
    kiosk = fleet.kiosks[0]
    fleet.certify(kiosk.name, days=400)
    fleet.play("provision.yml", "--limit", kiosk.name)
    assert len(list((kiosk.root / "etc/edge/tls").iterdir())) == 1
    fleet.broker.run("systemctl restart mosquitto")
    assert fleet.counts(kiosk)
    health = json.loads(fleet.listen(fleet.topic(kiosk, "health")).stdout)["payload"]
    assert health["certificate_days"] in {399, 400}


def test_certificates_with_which_nobody_is_seen_are_undone(fleet: Fleet, tmp_path: Path) -> None:
    kiosk = fleet.kiosks[0]
    config = kiosk.root / "etc/edge/config.toml"
    before = config.read_text()
    call(ANSIBLE / "lab_ca.sh", tmp_path, kiosk.name)  # of an authority of its own
    for name in ("ca.crt", "operator.crt", "operator.key"):  # the gate itself gets in
        shutil.copy(fleet.pki / name, tmp_path)
    given = ("-e", f"edge_tls_dir={tmp_path}", "-e", "edge_gate_seconds=30")
    said = fleet.play("provision.yml", "--limit", kiosk.name, *given, rc=2).output
    assert "Reverted: See this very run at the broker" in said
    assert config.read_text() == before
    fleet.broker.run("systemctl restart mosquitto")
    assert fleet.counts(kiosk)
    assert fleet.play("provision.yml", "--limit", kiosk.name)[kiosk.name]["rescued"] == 0


def test_a_key_may_lie_encrypted_on_the_control_host(fleet: Fleet, tmp_path: Path) -> None:
    kiosk, password = fleet.kiosks[0], tmp_path / "password"
    password.write_text("a secret of this test\n")
    vault = ("--vault-password-file", str(password))
    key = fleet.pki / f"{kiosk.name}.key"
    plain = key.read_bytes()
    call(BUILD / "venv/bin/ansible-vault", "encrypt", *vault, key)
    try:
        assert key.read_bytes().startswith(b"$ANSIBLE_VAULT")
        recap = fleet.play("provision.yml", "--limit", kiosk.name, *vault)
        assert recap[kiosk.name]["changed"] == 0, recap.output
    finally:
        key.write_bytes(plain)


def test_libedgetpu_comes_from_a_package_with_this_checksum_only(fleet: Fleet, tmp_path: Path) -> None:
    kiosk, package = fleet.kiosks[0], tmp_path / "package"
    (package / "DEBIAN").mkdir(parents=True)
    control = {"Package": "libedgetpu1-std", "Version": "16.0", "Architecture": "all", "Maintainer": "a <a@b>"}
    lines = [f"{key}: {value}\n" for key, value in (control | {"Description": "stands for Coral's"}).items()]
    (package / "DEBIAN/control").write_text("".join(lines))
    deb = tmp_path / "libedgetpu.deb"
    call("dpkg-deb", "--build", "--root-owner-group", package, deb)
    right = hashlib.sha256(deb.read_bytes()).hexdigest()

    def provision(sha256: str, rc: int = 0) -> Recap:
        given = ("-e", f"edge_libedgetpu_deb={deb}", "-e", f"edge_libedgetpu_sha256={sha256}")
        return fleet.play("provision.yml", "--limit", kiosk.name, *given, rc=rc)

    provision(right[::-1], rc=2)
    assert kiosk.run("dpkg -s libedgetpu1-std", check=False).returncode == 1
    provision(right)
    assert "Version: 16.0" in kiosk.run("dpkg -s libedgetpu1-std").stdout
    assert provision(right)[kiosk.name]["changed"] == 0


def test_what_the_broker_acknowledged_survives_its_restart_and_counts_go_on_after_its_crash(fleet: Fleet) -> None:
    kiosk = fleet.kiosks[0]
    topic = fleet.topic(kiosk, "cmd/identify")
    fleet.listen(topic, "3", "--session", "away")  # subscribes and goes away
    acknowledged = fleet.listen(topic, "60", "200", "--publish").stdout.split()
    assert acknowledged == ["0"] * 200
    fleet.broker.run("systemctl restart mosquitto")
    back = fleet.listen(topic, "30", "200", "--session", "away")
    assert len(back.stdout.splitlines()) >= 200, back.stdout
    fleet.broker.run("systemctl kill -s KILL mosquitto; systemctl restart mosquitto")
    assert fleet.counts(kiosk)


def test_a_pause_closes_the_camera_and_outlives_a_reboot(fleet: Fleet) -> None:
    kiosk = fleet.kiosks[0]
    fleet.play("pause.yml", "--limit", kiosk.name)
    kiosk.stop()
    kiosk.start()
    assert '"paused":true' in kiosk.run("until grep paused /run/edge/vision.json; do sleep 1; done").stdout
    fleet.play("pause.yml", "--limit", kiosk.name, "-e", "edge_paused=false")
    assert fleet.counts(kiosk)


def test_power_cuts_at_every_step_of_an_update(fleet: Fleet) -> None:
    kiosk, good = fleet.kiosks[-1], fleet.release
    began = time.monotonic()
    for n, step in enumerate(STEPS):
        fleet.release = fleet.build(f"3.{n}")
        cut(fleet, kiosk, "provision.yml", partial(fleet.reached, step), anywhere=True)
        status = fleet.status(kiosk)
        assert status["trial"] is None, step
        assert status["current"] in {good, fleet.release}, step
        assert fleet.counts(kiosk)
        good = status["current"]
    fleet.play("provision.yml", "--limit", kiosk.name)
    assert fleet.status(kiosk)["current"] == fleet.release
    note(SOAK, {"power_cut_in_update": len(STEPS)}, time.monotonic() - began, neither_release_runs=0)


def load() -> float:
    """Processes that wanted one of this machine's cores in the last minute, so that times can be judged."""
    return round(os.getloadavg()[0], 1)


def test_what_a_device_costs_from_one_to_all(fleet: Fleet) -> None:
    for n in sorted({1, min(3, len(fleet.kiosks)), len(fleet.kiosks)}):
        limit = ("--limit", ",".join(kiosk.name for kiosk in fleet.kiosks[:n]), *AT_ONCE)
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
            load=load(),
        )
    fleet.play("provision.yml", *AT_ONCE)


def same(path: Path, base: Path) -> bool:
    """Whether the root filesystem has it already."""
    if path.is_symlink():
        return base.is_symlink() and base.readlink() == path.readlink()
    if path.is_dir():
        return base.is_dir()
    return base.is_file() and base.read_bytes() == path.read_bytes()


def written(device: Device) -> set[str]:
    """Files and folders that its disk has beyond the root filesystem; what overlayfs notes as deleted is none."""
    places = {path: path.relative_to(device.upper) for path in device.upper.rglob("*") if not path.is_char_device()}
    return {str(place) for path, place in places.items() if not same(path, device.base / place)}


OTHERS = (
    # of ansible and apt, of systemd, and the backups that userdel makes
    *("root/.ansible", "var/lib/apt", "var/cache/apt", "var/lib/systemd", "var/log", "tmp", "var/tmp", "run"),
    *("etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-"),
)


def test_removal_leaves_nothing_behind(fleet: Fleet) -> None:
    kiosk = fleet.kiosks[-1]
    fleet.play("remove.yml", "--limit", kiosk.name)
    never = fleet.bed.add("never", 99)
    never.start()
    for device in (kiosk, never):
        device.stop()
    left = {place for place in written(kiosk) - written(never) if not place.startswith(("srv/", *OTHERS))}
    assert left == set()
    kiosk.start()
    users = (
        "getent passwd edge-vision edge-publisher; getent group edge; systemctl list-units --all --no-legend 'edge*'"
    )
    assert kiosk.run(users, check=False).stdout == ""
    assert fleet.listen(fleet.topic(kiosk, "#"), "5").stdout == ""
    fleet.play("provision.yml", "--limit", kiosk.name)
    assert fleet.counts(kiosk)
