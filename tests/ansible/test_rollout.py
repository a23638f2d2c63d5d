"""Playbooks and the role's trial, run by Ansible for real on this machine; a script stands for edge-release.

What the device does then: test_edge_release.py. On booted devices: tests/fleet.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PLAYBOOK = ROOT / "build/fleet/venv/bin/ansible-playbook"
STAND_IN = """#!/bin/sh
# Notes what it is asked; `runs` says what the device runs.
cd "{folder}"
echo "$*" >>asked
case $1 in
  status) echo "{{\\"current\\": \\"$(cat runs)\\", \\"candidate_in_use\\": true, \\"active\\": true}}" ;;
  switch) echo "{{\\"version\\": \\"$2\\", \\"boot_id\\": \\"b\\"}}" ;;
  rollback) echo 1.0 >runs; echo '{{"version": "1.0", "boot_id": "b"}}' ;;
esac
"""
CONFIGURE = """
- name: Look
  ansible.builtin.command: {program} status
  register: edge_asked
  check_mode: false
- name: Note
  ansible.builtin.set_fact:
    edge_status: "{{{{ edge_asked.stdout | from_json }}}}"
- name: Write
  ansible.builtin.command: "true"
  register: edge_candidate
  check_mode: false
"""

pytestmark = pytest.mark.fleet  # `make test-fleet` installs Ansible


class Site:
    """A copy of the playbooks with one kiosk in its inventory, which is this machine and never touched."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ansible = folder, folder / "ansible"
        shutil.copytree(ROOT / "ansible", self.ansible)
        program = folder / "edge-release"
        for path in self.ansible.rglob("*.yml"):
            text = path.read_text().replace("/opt/edge/bin/edge-release", str(program))
            path.write_text(re.sub(r"^ +(owner|group): root\n", "", text, flags=re.MULTILINE))
        role = self.ansible / "roles/edge"
        program.write_text(STAND_IN.format(folder=folder))
        program.chmod(0o755)
        shutil.copy(program, role / "files/edge_release.py")  # which the role copies to the device
        for name, text in (("preflight", "[]"), ("install", "[]"), ("configure", CONFIGURE.format(program=program))):
            (role / f"tasks/{name}.yml").write_text(text)
        kiosk = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
        names = ("edge_release_dir", "edge_site", "edge_purpose", "edge_broker_host", "edge_tls_dir")
        given = dict.fromkeys(names, "x") | {"edge_signage_acknowledged": True, "edge_gate_python": "/bin/true"}
        inventory = {"kiosks": {"hosts": {"kiosk-01": kiosk}, "vars": given | {"edge_release": "1.1"}}}
        (folder / "inventory.json").write_text(json.dumps(inventory))

    def play(self, playbook: str, *arguments: str, runs: str = "1.1", rc: int = 0) -> tuple[str, list[str]]:
        """What it says, and what it asks the device for, whose answers are left out."""
        (self.folder / "runs").write_text(f"{runs}\n")
        (self.folder / "asked").unlink(missing_ok=True)
        command = [str(PLAYBOOK), "-i", str(self.folder / "inventory.json"), str(self.ansible / playbook), *arguments]
        environ = os.environ | {"ANSIBLE_CONFIG": str(self.ansible / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        environ |= {"LC_ALL": "C.UTF-8"} | dict.fromkeys(
            ("ANSIBLE_LOCAL_TEMP", "ANSIBLE_REMOTE_TEMP"), str(self.folder)
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, cwd=self.folder)
        assert done.returncode == rc, done.stdout + done.stderr
        asked = self.folder / "asked"
        lines = asked.read_text().splitlines() if asked.exists() else []
        return done.stdout, [line for line in lines if line != "status"]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_what_is_configured_is_tried_whatever_tags_are_asked_for_and_nothing_in_a_dry_run(site: Site) -> None:
    """An include hands its own tags to nothing in it: `--tags configure` ended well and applied nothing."""
    _, asked = site.play("provision.yml", "--tags", "configure")
    assert asked == ["check 1.1", "switch 1.1 --within 2430", "confirm 1.1"]
    said, asked = site.play("provision.yml", "--check")
    assert asked == []
    assert "Reverted" not in said
    assert "edge-release switch 1.1, then the gate" in said


def test_a_rollback_goes_back_from_the_release_that_is_named_and_from_no_other(site: Site) -> None:
    said, asked = site.play("rollback.yml", rc=2)
    assert "Say which release is to go: -e edge_from=1.1" in said
    assert asked == []
    said, asked = site.play("rollback.yml", "-e", "edge_from=1.1")
    assert asked == ["revert", "rollback --within 2430", "confirm 1.0"]
    assert 'no inventory says edge_release: \\"1.1\\" any more' in said
    said, asked = site.play("rollback.yml", "-e", "edge_from=1.1", runs="1.0")  # again, or it never had it
    assert "kiosk-01 runs 1.0, not 1.1: left alone" in said
    assert asked == []
