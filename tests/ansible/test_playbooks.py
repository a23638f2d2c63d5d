"""What the playbooks say, do and leave, where that shows in their text. On booted devices: tests/fleet."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import jinja2
import paho.mqtt.client as mqtt
import pytest
import yaml
from paho.mqtt.enums import MQTTErrorCode

from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

ANSIBLE = ROOT / "ansible"


def tasks(playbook: str) -> dict[str, dict[str, Any]]:
    """Tasks of a playbook by name."""
    plays = yaml.safe_load((ANSIBLE / playbook).read_text())
    return {task["name"]: task for play in plays for task in play.get("tasks", [])}


def said(task: dict[str, Any], **variables: str) -> str:
    """What a debug task says."""
    return jinja2.Environment().from_string(task["ansible.builtin.debug"]["msg"]).render(variables)  # noqa: S701 - no HTML


def test_an_update_tells_how_the_kiosks_that_were_off_get_this_release_and_how_all_keep_it() -> None:
    update = tasks("update.yml")
    off = said(update["Say it"], inventory_hostname="kiosk-01", edge_release="0.2.0")
    assert off.endswith("provision.yml --limit kiosk-01 -e edge_release=0.2.0")
    reminder = said(update["Remind of the inventory"], edge_release="0.2.0")
    assert "inventory says edge_release: 0.2.0" in reminder


def test_the_example_s_inventory_lets_an_aggregator_read() -> None:
    known: dict[str, dict[str, Any]] = {}
    for role in ("broker", "edge"):
        for entry in yaml.safe_load((ANSIBLE / f"roles/{role}/meta/argument_specs.yml").read_text())[
            "argument_specs"
        ].values():
            known |= entry.get("options", {})
    given = yaml.safe_load((ANSIBLE / "inventory.example/group_vars/all.yml").read_text())
    assert {key for key in given if key not in known} <= {"edge_release_dir"}
    assert given["edge_readers"] == ["aggregator"]
    template = (ANSIBLE / "roles/broker/templates/acl.j2").read_text()
    acl = jinja2.Environment().from_string(template).render(given | {"ansible_managed": "", "groups": {}})  # noqa: S701 - no HTML
    assert "user aggregator\ntopic read edge/v1/#\ntopic write edge/v1/+/+/cmd/replay\n" in acl.replace("\n\n", "\n")


@pytest.mark.parametrize("crl", [True, False])
def test_a_broker_run_that_was_cut_off_is_made_up_for_by_the_next(tmp_path: Path, *, crl: bool) -> None:
    role = ANSIBLE / "roles/broker"
    listed = yaml.safe_load((role / "tasks/main.yml").read_text())
    assert not [task["name"] for task in listed if "notify" in task], "forgotten by a run that is cut off"
    task = next(task for task in listed if task["name"].startswith("Restart it"))
    script = jinja2.Environment().from_string(task["ansible.builtin.shell"]["cmd"]).render(broker_crl=crl)  # noqa: S701 - no HTML
    stand_in = tmp_path / "bin/systemctl"
    for folder in (stand_in.parent, tmp_path / "conf.d", tmp_path / "certs"):
        folder.mkdir()
    stand_in.write_text("#!/bin/sh\ntest ! -e broken\n")
    stand_in.chmod(0o755)
    (tmp_path / "conf.d/edge.conf").write_text("listener 8883")
    revoked = tmp_path / ("certs/crl.pem" if crl else "conf.d/edge.conf")

    def restarts() -> bool:
        environ = os.environ | {"PATH": f"{stand_in.parent}:{os.environ['PATH']}"}
        ran = subprocess.run(
            ["sh", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
        )
        assert ran.stdout in ("", "restarted\n")
        return bool(ran.stdout)

    if crl:
        with pytest.raises(subprocess.CalledProcessError):  # no list at all is no reason to go on
            restarts()
    revoked.write_text("nobody")
    assert [restarts() for _ in range(2)] == [True, False]
    revoked.write_text("kiosk-01")  # and the run is cut off here
    (tmp_path / "broken").touch()
    with pytest.raises(subprocess.CalledProcessError):
        restarts()
    (tmp_path / "broken").unlink()
    assert [restarts() for _ in range(2)] == [True, False]


def test_what_is_confirmed_is_what_was_switched_to() -> None:
    block = yaml.safe_load((ANSIBLE / "roles/edge/tasks/trial.yml").read_text())[0]["block"]
    command = next(task for task in block if task["name"] == "Confirm")["ansible.builtin.command"]
    environment = jinja2.Environment()  # noqa: S701 - no HTML
    environment.filters["from_json"] = json.loads
    asked = environment.from_string(command).render(edge_switched={"stdout": '{"version": "1.0", "boot_id": "b"}'})
    assert asked == "/opt/edge/bin/edge-release confirm 1.0"


class HungUp:
    """A client whose broker took the login and hangs up."""

    def __init__(self, published: MQTTErrorCode) -> None:
        self._published, self._asked = published, 0

    def publish(self, *_: object, **__: object) -> mqtt.MQTTMessageInfo:
        """Queued, or not even that."""
        message = mqtt.MQTTMessageInfo(1)
        message.rc = self._published
        return message

    def loop(self, _: float) -> MQTTErrorCode:
        """Nobody is there, however often one asks."""
        self._asked += 1
        assert self._asked == 1
        return MQTTErrorCode.MQTT_ERR_CONN_LOST


@pytest.mark.parametrize("published", [MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN])
def test_a_broker_that_hangs_up_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, published: MQTTErrorCode) -> None:
    spec = importlib.util.spec_from_file_location("gate", ANSIBLE / "roles/edge/files/gate.py")
    assert spec is not None
    assert spec.loader is not None
    gate: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gate)
    monkeypatch.setattr(gate, "_connect", lambda _: HungUp(published))
    with pytest.raises(SystemExit, match=r"gate: broker.example:8883 hung up"):
        gate.forget(argparse.Namespace(host="broker.example", port=8883, topic="edge/v1/lobby/kiosk-01"))
