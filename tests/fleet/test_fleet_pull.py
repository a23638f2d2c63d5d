"""A kiosk that asks by itself: a signed repository by https, Debian's own Ansible, and no key but the kiosk's."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.fleet.bed import NET, call, root_filesystem
from tests.fleet.conftest import ANSIBLE, BUILD, SUITE, TARGET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fleet.bed import Device
    from tests.fleet.conftest import Fleet

pytestmark = pytest.mark.fleet_long

FILES, REPOSITORY = f"http://{NET}.20:8000", f"https://{NET}.20:8443/fleet.git"
SERVE = """
import functools, http.server, ssl, sys
folder, certificate, key = sys.argv[1:]
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
server = http.server.ThreadingHTTPServer(("", 8443), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@pytest.fixture
def kiosk(fleet: Fleet) -> Iterator[Device]:
    """A new device that has Ansible, and its certificate; the broker knows it."""
    usual, fleet.bed.base = fleet.bed.base, root_filesystem(BUILD, SUITE, "ansible-core", "git")
    kiosk = fleet.add_kiosk("kiosk-pull", 98)
    fleet.bed.base = usual
    identity = kiosk.root / "etc/edge/identity"
    identity.mkdir(parents=True)
    for name in ("ca.crt", f"{kiosk.name}.crt", f"{kiosk.name}.key"):
        shutil.copy(fleet.pki / name, identity)
    kiosk.start()
    fleet.play("broker.yml")
    yield kiosk
    kiosk.stop()
    fleet.kiosks.remove(kiosk)


@pytest.fixture
def served(fleet: Fleet, kiosk: Device, tmp_path: Path) -> Iterator[None]:
    """The control host serves a repository with playbooks and inventory, and the release."""
    assert kiosk in fleet.kiosks  # and thereby in the inventory
    folder = tmp_path / "served"
    release = fleet.releases / f"edge-{fleet.release}-{TARGET}.tar"
    inventory = json.loads(fleet.inventory().read_text())
    inventory["all"]["vars"] |= {
        "edge_tls_dir": "/etc/edge/identity",
        "edge_pull_url": REPOSITORY,
        "edge_release_url": f"{FILES}/{release.name}",
        "edge_release_sha256": hashlib.sha256(release.read_bytes()).hexdigest(),
    }
    shutil.copytree(ANSIBLE, folder / "work/ansible")
    (folder / "work/inventory").write_text(json.dumps(inventory))
    shutil.copy(release, folder)
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "operator")
    git = ("git", "-C", folder / "work", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "gpg.format=ssh")
    sign = ("-c", f"user.signingkey={tmp_path / 'operator'}", "commit", "-S", "-q", "-m", "fleet")
    for step in (("init", "-q", "-b", "main"), ("add", "."), sign):
        call(*git, *step)
    call("git", "clone", "-q", "--bare", folder / "work", folder / "fleet.git")
    call("git", "-C", folder / "fleet.git", "update-server-info")
    (kiosk.root / "etc/edge/pull-signers").write_text(f"fleet {(tmp_path / 'operator.pub').read_text()}")
    shutil.copy(ANSIBLE / "files/edge_pull.py", kiosk.root / "root")
    kiosk.run("git config --system http.sslCAInfo /etc/edge/identity/ca.crt")
    fleet.certify("git", f"{NET}.20")
    commands = (
        (sys.executable, "-m", "http.server", "--directory", folder, "8000"),
        (sys.executable, "-c", SERVE, folder, fleet.pki / "git.crt", fleet.pki / "git.key"),
    )
    said = subprocess.DEVNULL
    servers = [subprocess.Popen(fleet.bed.control(*command), stdout=said, stderr=said) for command in commands]
    yield
    for server in servers:
        server.terminate()
        server.wait()


@pytest.mark.usefixtures("served")
def test_a_kiosk_pulls_its_release_by_itself(fleet: Fleet, kiosk: Device) -> None:
    said = kiosk.run(f"python3 /root/edge_pull.py {REPOSITORY} --limit {kiosk.name} 2>&1", check=False)
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
