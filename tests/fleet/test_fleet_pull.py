"""A kiosk that asks by itself: ansible-pull from a repository, Debian's own Ansible, and no key but the kiosk's."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.fleet.bed import NET, call
from tests.fleet.conftest import ANSIBLE, TARGET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fleet.conftest import Fleet

pytestmark = pytest.mark.fleet_long

URL = f"http://{NET}.20:8000"
INSTALL = "apt-get -qq update && apt-get -qq install -y --no-install-recommends ansible-core git ca-certificates"


@pytest.fixture
def served(fleet: Fleet, tmp_path: Path) -> Iterator[Path]:
    """A folder that the control host serves: a repository with playbooks and inventory, and the release."""
    folder = tmp_path / "served"
    release = fleet.releases / f"edge-{fleet.release}-{TARGET}.tar"
    inventory = json.loads(fleet.inventory().read_text())
    inventory["all"]["vars"] |= {
        "edge_tls_dir": "/etc/edge/identity",
        "edge_pull_url": f"{URL}/fleet.git",
        "edge_release_url": f"{URL}/{release.name}",
        "edge_release_sha256": hashlib.sha256(release.read_bytes()).hexdigest(),
    }
    shutil.copytree(ANSIBLE, folder / "work/ansible")
    (folder / "work/inventory").write_text(json.dumps(inventory))
    shutil.copy(release, folder)
    git = ("git", "-C", folder / "work", "-c", "user.name=a", "-c", "user.email=a@b")
    for step in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-qm", "fleet")):
        call(*git, *step)
    call("git", "clone", "-q", "--bare", folder / "work", folder / "fleet.git")
    call("git", "-C", folder / "fleet.git", "update-server-info")
    command = fleet.bed.control(sys.executable, "-m", "http.server", "--directory", folder, "8000")
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield folder
    server.terminate()
    server.wait()


@pytest.mark.usefixtures("served")
def test_a_kiosk_pulls_its_release_by_itself(fleet: Fleet) -> None:
    kiosk = fleet.kiosks[-1]
    fleet.play("remove.yml", "--limit", kiosk.name)
    kiosk.stop()
    call("systemd-nspawn", "-q", "-D", kiosk.root, "--as-pid2", "--resolv-conf=copy-host", "sh", "-ec", INSTALL)
    identity = kiosk.root / "etc/edge/identity"
    identity.mkdir(parents=True)
    for name in ("ca.crt", f"{kiosk.name}.crt", f"{kiosk.name}.key"):
        shutil.copy(fleet.pki / name, identity)
    kiosk.start()
    first = f"ansible-pull --url {URL}/fleet.git --directory /var/cache/edge-pull/repository --inventory inventory"
    said = kiosk.run(f"{first} --limit {kiosk.name} ansible/pull.yml 2>&1", check=False)
    assert said.returncode == 0, said.stdout
    status = fleet.status(kiosk)
    assert (status["current"], status["trial"], status["active"]) == (fleet.release, None, True)
    assert fleet.counts(kiosk)
    assert "edge-pull.timer" in kiosk.run("systemctl list-timers").stdout
    kiosk.run("systemctl start edge-pull.service")  # what the timer does at night: nothing, this time
    assert "changed=0" in kiosk.run("journalctl -u edge-pull -o cat").stdout
    assert fleet.status(kiosk)["boot_id"] == status["boot_id"]
    fleet.play("remove.yml", "--limit", kiosk.name)
    assert kiosk.run("ls -d /etc/edge /etc/systemd/system/edge-* /var/cache/edge-pull", check=False).stdout == ""
    fleet.play("provision.yml", "--limit", kiosk.name)
