"""What the playbooks say, do and leave, where that shows in their text. On booted devices: tests/fleet."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import ssl
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import paho.mqtt.client as mqtt
import pytest
import yaml
from paho.mqtt.enums import MQTTErrorCode

from edge.publisher.tls import VERIFY
from tests.conftest import ROOT
from tests.support.certificates import certificate

if TYPE_CHECKING:
    from types import ModuleType

ANSIBLE = ROOT / "ansible"


def module(path: Path) -> ModuleType:
    """A program that lies in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


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
    assert "inventory says edge_release: '0.2.0'" in reminder


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
    (tmp_path / "certs/ca.crt").write_text("the old CA")
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
    (tmp_path / "certs/ca.crt").write_text("the old CA and the new one")  # which no reload reads
    assert [restarts() for _ in range(2)] == [True, False]


def test_what_is_confirmed_is_what_was_switched_to() -> None:
    block = yaml.safe_load((ANSIBLE / "roles/edge/tasks/trial.yml").read_text())[0]["block"]
    command = next(task for task in block if task["name"] == "Confirm")["ansible.builtin.command"]
    environment = jinja2.Environment()  # noqa: S701 - no HTML
    environment.filters["from_json"] = json.loads
    asked = environment.from_string(command).render(edge_switched={"stdout": '{"version": "1.0", "boot_id": "b"}'})
    assert asked == "/opt/edge/bin/edge-release confirm 1.0"


def test_nothing_that_is_in_use_is_written_over_before_the_trial() -> None:
    written = [
        where["dest"]
        for task in yaml.safe_load((ANSIBLE / "roles/edge/tasks/configure.yml").read_text())
        for module in ("copy", "template")
        if (where := task.get(f"ansible.builtin.{module}"))
    ]
    assert written == ["{{ edge_tls_folder }}/{{ item.dest }}", "/etc/edge/candidate.toml"]


def test_the_candidate_changes_with_every_certificate_and_with_the_maker_s_key(tmp_path: Path) -> None:
    """So that a renewal alone is tried, and undone, like a release."""
    role = ANSIBLE / "roles/edge"
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)  # noqa: S701 - no HTML
    environment.globals["lookup"] = lambda _, path: Path(path).read_text().rstrip()
    environment.filters |= {
        "hash": lambda text, name: hashlib.new(name, text.encode()).hexdigest(),
        "to_json": json.dumps,
        "combine": lambda one, other, **_: one | other,
    }
    given: dict[str, Any] = dict.fromkeys(
        ("edge_site", "edge_purpose", "edge_broker_host", "edge_release", "ansible_managed"), "x"
    )
    given |= {
        "edge_device_id": "kiosk-01",
        "edge_tls_dir": str(tmp_path),
        "edge_public_key": str(tmp_path / "maker.pub"),
    }
    given |= {"edge_signage_acknowledged": True, "edge_broker_port": 8883, "edge_root": "edge", "edge_config": {}}

    def candidate() -> dict[str, Any]:
        made = {
            name: environment.from_string(defaults[name]).render(given)
            for name in ("edge_tls_folder", "edge_maker_key")
        }
        return tomllib.loads(
            environment.from_string((role / "templates/config.toml.j2").read_text()).render(given | made)
        )

    files = ["ca.crt", "kiosk-01.crt", "kiosk-01.key"]
    for name in files:
        (tmp_path / name).write_text(name)
    key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
    (tmp_path / "maker.pub").write_text(f"untrusted comment: a key\n{key}\n")
    first = candidate()
    assert first["models"]["public_key"] == key  # as edge_release.py looks for it:
    assert re.fullmatch(r"/etc/edge/tls/[0-9a-f]{16}/device\.key", first["mqtt"]["tls"]["key"])
    folders = {first["mqtt"]["tls"]["key"]}
    for name in files:
        (tmp_path / name).write_text("another")
        folders.add(candidate()["mqtt"]["tls"]["key"])
    assert len(folders) == 4


@pytest.mark.parametrize("playbook", ["provision.yml", "update.yml", "rollback.yml"])
def test_the_first_failure_stops_a_playbook_before_it_reaches_all(playbook: str) -> None:
    plays = yaml.safe_load((ANSIBLE / playbook).read_text())
    (rollout,) = [play for play in plays if play["name"] in {"Provision", "Update", "Roll back"}]
    # One that is off, or has nothing to go back from, would be all of the first batch.
    assert rollout["hosts"] == ("edge_back" if playbook == "rollback.yml" else "edge_on")
    assert rollout["serial"] == "{{ edge_serial | default([1, '5%', '25%', '100%']) }}"
    assert rollout["max_fail_percentage"] == 0


def test_a_release_is_kept_only_once_it_has_run_for_minutes() -> None:
    defaults = yaml.safe_load((ANSIBLE / "roles/edge/defaults/main.yml").read_text())
    assert defaults["edge_gate_hold_seconds"] >= 120
    block = yaml.safe_load((ANSIBLE / "roles/edge/tasks/trial.yml").read_text())[0]["block"]
    argv = next(task for task in block if task["name"].startswith("See this"))["ansible.builtin.command"]["argv"]
    assert {"--began={{ edge_began }}", "--hold={{ edge_gate_hold_seconds }}"} <= set(argv)


def test_a_trial_s_own_end_is_after_that_of_a_batch_whose_every_device_is_slow() -> None:
    """`forks` at a time switch, and are watched, before the first is confirmed."""
    given = yaml.safe_load((ANSIBLE / "roles/edge/defaults/main.yml").read_text())

    def seconds(devices: int, **told: int | str) -> int:
        environment = jinja2.Environment()  # noqa: S701 - no HTML
        known = given | {"ansible_play_batch": ["kiosk"] * devices, "ansible_forks": 50} | told
        return int(environment.from_string(given["edge_trial_seconds"]).render(known))

    assert seconds(1) == seconds(50) == 1800 + 300 + 180 + 150
    assert seconds(51) == 1800 + 300 + 2 * (180 + 150)
    assert seconds(3750) > 1800 + 300 + 75 * (180 + 150) - 1
    assert seconds(1, edge_gate_hold_seconds="3600", edge_gate_seconds="600") == 1800 + 3600 + 180 + 600


@pytest.mark.parametrize("release", [1.2, 2, None])
def test_a_release_that_yaml_reads_as_a_number_is_refused_first(release: object) -> None:
    """1.2 without quotes was never what a device said it runs: all started anew, each time."""
    first, *_ = yaml.safe_load((ANSIBLE / "roles/edge/tasks/preflight.yml").read_text())
    refused = first["ansible.builtin.assert"]
    holds = jinja2.Environment().compile_expression(refused["that"])  # noqa: S701 - no HTML
    assert (holds(edge_release=release), holds(edge_release="1.2")) == (False, True)
    assert "quote it" in refused["fail_msg"]
    assert isinstance(
        yaml.safe_load((ANSIBLE / "inventory.example/group_vars/all.yml").read_text())["edge_release"], str
    )
    rollback = tasks("rollback.yml")["Refuse to guess what is to go"]["ansible.builtin.assert"]
    holds = jinja2.Environment().compile_expression(rollback["that"])  # noqa: S701 - no HTML
    assert (holds(edge_from=release), holds(), holds(edge_from="1.2")) == (False, False, True)


@pytest.mark.parametrize("path", ["roles/edge/tasks/install.yml", "roles/broker/tasks/main.yml"])
def test_new_lists_are_fetched_only_where_packages_cannot_be_had_by_the_old(path: str) -> None:
    (task,) = [task for task in yaml.safe_load((ANSIBLE / path).read_text()) if "rescue" in task]
    ((first,), (then,)) = ([step["ansible.builtin.apt"] for step in task[part]] for part in ("block", "rescue"))
    assert "update_cache" not in first, "a kiosk without the internet"
    assert then == first | {"update_cache": True}


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


@pytest.fixture
def gate() -> Any:  # noqa: ANN401 - a module
    """The gate's program."""
    return module(ANSIBLE / "roles/edge/files/gate.py")


@pytest.mark.parametrize("published", [MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN])
def test_a_broker_that_hangs_up_is_not_waited_for(
    gate: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
    published: MQTTErrorCode,
) -> None:
    monkeypatch.setattr(gate, "_connect", lambda _: HungUp(published))
    with pytest.raises(SystemExit, match=r"gate: broker.example:8883 hung up"):
        gate.forget(argparse.Namespace(host="broker.example", port=8883, topic="edge/v1/lobby/kiosk-01"))


def test_a_camera_that_fails_while_its_release_is_watched_is_not_covered_by_an_earlier_window(gate: Any) -> None:  # noqa: ANN401
    run = gate.Watched("b")

    def says(leaf: str, **payload: object) -> bool:
        message = mqtt.MQTTMessage(topic=f"edge/v1/lobby/kiosk-01/{leaf}".encode())
        message.payload = json.dumps({"boot_id": "b"} | payload).encode()
        run.hear(None, None, message)
        return bool(run.well)

    assert not says("status", state="online")
    assert not says("health", rate="none", scene="ok")  # the first figures
    assert says("counts", scene="ok")
    assert says("health", rate="none", scene="ok")  # a minute old
    assert says("health", rate="ok", scene="ok")
    assert not says("health", rate="none", scene="frozen")
    assert not says("status", state="offline")
    assert not says("status", state="online")
    assert says("health", rate="slow", scene="dark")


def test_the_gate_judges_tls_as_the_appliance_does(gate: Any, tmp_path: Path) -> None:  # noqa: ANN401
    """From Python 3.13 on the default is strict: a release that works would have been reverted."""
    certificate(tmp_path, "ca", "test CA")
    certificate(tmp_path, "operator", "operator", "ca")
    context = gate._context(tmp_path / "operator")
    assert context.verify_flags == VERIFY
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_release_takes_the_newest_bundle_and_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    builder = module(ANSIBLE / "build_release.py")
    taken: list[str] = []

    def build(*_: str, out: Path, bundle: Path, **__: object) -> Path:
        taken.append(bundle.name)
        return out

    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.2.0"\n')
    out = tmp_path / "release.tar"
    out.touch()
    monkeypatch.setattr(builder, "ROOT", tmp_path)
    monkeypatch.setattr(builder, "build", build)
    monkeypatch.setattr(sys, "argv", ["build_release.py", "--target", "bookworm-arm64", "--out", str(out)])
    with pytest.raises(SystemExit):
        builder.main()
    assert "no model bundle under" in capsys.readouterr().err
    for name, created in (("fer-1", "2027-01-01"), ("fer-3", "2027-03-01"), ("fer-2", "2027-02-01")):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "manifest.json").write_text(json.dumps({"created": created}))
    (tmp_path / "models/.DS_Store").touch()
    builder.main()
    assert taken == ["fer-3"]
    assert capsys.readouterr().err == "model bundle: fer-3\n"
