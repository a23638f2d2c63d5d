"""Install, look inside, update, cut the power: on booted devices with their own systemd, network and certificates."""

from __future__ import annotations

import json
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fleet.bed import call
from tests.fleet.conftest import ANSIBLE, AT_ONCE, BUILD, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fleet.bed import Device
    from tests.fleet.conftest import Fleet

pytestmark = pytest.mark.fleet

PROBE = Path(__file__).with_name("probe.py")


def crashing(folder: Path) -> Path:
    """This source tree with a vision service that ends at its start."""
    for name in ("edge", "tools", "systemd", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    vision = folder / "edge/vision/service.py"
    vision.write_text(vision.read_text() + '\nraise RuntimeError("a mistake of this release")\n')
    return folder


def test_playbooks_are_fit_for_production() -> None:
    path = f"{BUILD / 'venv/bin'}:{os.environ['PATH']}"
    command = ("ansible-lint", "--offline", "--profile", "production", ".")
    call("env", "-C", ANSIBLE, f"PATH={path}", *command)


def test_every_kiosk_counts_faces_at_the_broker(fleet: Fleet) -> None:
    for kiosk, (first, second) in fleet.all_counts(2).items():
        assert first["device"] == kiosk.name
        assert first["visitors"] + second["visitors"] > 0
        assert second["seq"] == first["seq"] + 1
        found = kiosk.run("journalctl -u edge-vision -o json -n 1 EDGE_EVENT=window_committed").stdout
        entry = json.loads(found)
        assert (entry["EDGE_BOOT_ID"], entry["PRIORITY"]) == (second["boot_id"], "6")
        assert int(entry["EDGE_SEQ"]) >= second["seq"]


def test_a_second_run_changes_nothing(fleet: Fleet) -> None:
    before = [fleet.status(kiosk)["boot_id"] for kiosk in fleet.kiosks]
    recap = fleet.play("provision.yml", *AT_ONCE)
    for kiosk in fleet.kiosks:
        assert recap[kiosk.name]["changed"] == 0, recap.output
        assert recap[kiosk.name]["ok"] + recap[kiosk.name]["skipped"] <= 25
    assert [fleet.status(kiosk)["boot_id"] for kiosk in fleet.kiosks] == before


def probed(kiosk: Device, service: str) -> dict[str, Any]:
    """The answers of probe.py, run as another service with the sandbox of `edge-<service>`."""
    unit = (ROOT / f"systemd/edge-{service}.service").read_text()
    start = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
    for line, other in (
        (start, "ExecStart=/usr/bin/python3 /srv/probe.py"),
        ("Type=notify", "Type=oneshot"),
        ("Restart=always", "Restart=no"),
    ):
        assert line in unit
        unit = unit.replace(line, other)
    script = (
        f"cat > /srv/probe.py <<'END'\n{PROBE.read_text()}\nEND\n"
        f"cat > /etc/systemd/system/edge-probe.service <<'END'\n{unit}\nEND\n"
        "chmod 644 /srv/probe.py; test -e /dev/video0 || mknod -m 666 /dev/video0 c 1 3\n"
        "systemctl daemon-reload; systemctl start edge-probe || journalctl -u edge-probe -n 20 >&2\n"
        "cat /run/edge/probe.json\n"
        "rm -f /etc/systemd/system/edge-probe.service /run/edge/probe* /var/lib/edge/probe; systemctl daemon-reload"
    )
    return dict(json.loads(kiosk.run(script).stdout))


TAKEN, DENIED = {"0", "16"}, "135"
"""Reason codes of a PUBACK: success, success without a subscriber; not authorised."""
OWN = {"/var/lib/edge": "done", "/run/edge": "done"}
NOT_ALLOWED = {"EPERM", "EACCES", "EROFS", "ENOENT", "EAFNOSUPPORT"}


def test_vision_has_no_network_and_nothing_to_write_but_its_state(fleet: Fleet) -> None:
    found = probed(fleet.kiosks[0], "vision")
    assert found["connect"] == "EAFNOSUPPORT"
    assert found["interfaces"] == ["lo"]
    assert found["inet_socket"] == found["packet_socket"] == "EAFNOSUPPORT"
    assert found["key"] in {"EACCES", "ENOENT"}
    common(found)


def test_the_publisher_has_no_device_and_nothing_to_write_but_its_state(fleet: Fleet) -> None:
    found = probed(fleet.kiosks[0], "publisher")
    assert found["connect"] == found["key"] == "done"  # what it must be able to do
    assert found["packet_socket"] == "EAFNOSUPPORT"
    assert found["camera"] == "ENOENT"
    common(found)


def common(found: dict[str, Any]) -> None:
    """What neither service can do."""
    assert found["config"] == found["null"] == "done"
    assert {path: answer for path, answer in found["write"].items() if answer == "done"} == OWN
    for attempt in ("write_home", "make_node", "write_code", "clock", "setuid", "namespace"):
        assert found[attempt] in NOT_ALLOWED, attempt
    assert found["other_processes"] == 0
    assert found["core"] == 0
    assert found["home_s_code"] is False
    assert found["uid"] != 0


def test_a_certificate_opens_its_own_topics_only(fleet: Fleet) -> None:
    one, other = fleet.kiosks[:2]
    assert fleet.listen(fleet.topic(one, "counts"), "--publish", name=one.name).stdout.strip() in TAKEN
    assert fleet.listen(fleet.topic(other, "counts"), "--publish", name=one.name).stdout.strip() == DENIED
    assert fleet.listen(fleet.topic(other, "#"), "5", name=one.name).stdout == ""
    for kiosk, answers in ((one, TAKEN), (other, {DENIED})):
        topic = f"homeassistant/device/{kiosk.name}/config"
        assert fleet.listen(topic, "--publish", name=one.name).stdout.strip() in answers
    without = fleet.listen(fleet.topic(one, "counts"), "--publish", "--no-key", name=one.name)
    assert without.returncode == 1


def test_a_healthy_update_reaches_every_kiosk(fleet: Fleet) -> None:
    fleet.release = fleet.build("1.1")
    recap = fleet.play("update.yml", "-e", '{"edge_serial": [1, "100%"]}')
    for kiosk in fleet.kiosks:
        status = fleet.status(kiosk)
        assert (status["current"], status["previous"], status["trial"]) == ("1.1", "1.0", None), recap.output
        assert set(status["releases"]) == {"1.0", "1.1"}
        assert "edge-trial-" not in kiosk.run("systemctl list-units --all").stdout
    assert all(fleet.all_counts().values())


def test_a_release_that_crashes_stops_at_the_first_kiosk_and_is_undone(fleet: Fleet, tmp_path: Path) -> None:
    good, fleet.release = fleet.release, fleet.build("1.2-crash", source=crashing(tmp_path / "tree"))
    recap = fleet.play("update.yml", rc=2)
    assert "a mistake of this release" in recap.output
    failed = [kiosk for kiosk in fleet.kiosks if recap.get(kiosk.name, {}).get("failed")]
    assert len(failed) <= 1
    for kiosk in fleet.kiosks:
        status = fleet.status(kiosk)
        assert (status["current"], status["trial"], status["active"]) == (good, None, True)
    assert fleet.counts(fleet.kiosks[0])
    fleet.release = good


def cut(fleet: Fleet, kiosk: Device, playbook: str, when: Callable[[], bool], *, anywhere: bool = False) -> None:
    """Run a playbook on one device, cut its power at a point (before it ends, unless `anywhere`); boot it again."""
    running = fleet.begin(playbook, "--limit", kiosk.name)
    try:
        kiosk.wait(lambda: when() or running.poll() is not None, "point to cut at")
        assert anywhere or running.poll() is None, fleet.said.read_text()
        kiosk.crash()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    kiosk.start()


@pytest.mark.parametrize("point", ["while it is unpacked", "on trial"])
def test_power_cut_in_an_update_leaves_the_old_release_running(fleet: Fleet, point: str) -> None:
    kiosk, good = fleet.kiosks[-1], fleet.release
    new = fleet.release = fleet.build("1.3")
    opt = kiosk.root / "opt/edge"
    points = {
        "while it is unpacked": (opt / "releases" / new / "venv/bin/python").exists,
        "on trial": lambda: (opt / "trial.json").exists() and (opt / "current").readlink().name == new,
    }
    cut(fleet, kiosk, "provision.yml", points[point])
    fleet.release = good
    status = fleet.status(kiosk)
    assert (status["current"], status["trial"]) == (good, None)
    assert (new in status["releases"]) == (point == "on trial")
    assert fleet.counts(kiosk)
