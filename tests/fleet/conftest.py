"""A fleet: a broker and kiosks, booted, provisioned by the playbooks over SSH, watched at the broker."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fleet.bed import Bed, Device, call, missing, root_filesystem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE = ROOT / "ansible"
BUILD = Path(os.environ.get("EDGE_FLEET_BUILD", ROOT / "build" / "fleet"))
KIOSKS = int(os.environ.get("EDGE_FLEET_KIOSKS", "3"))
TARGET = "bookworm-amd64"
WINDOW_S = 5


class Recap(dict[str, dict[str, int]]):
    """What `PLAY RECAP` says of each host, and the whole output."""

    output: str
    seconds: float
    rc: int


class Fleet:
    """The bed with a broker and kiosks, their inventory, and releases to give them."""

    def __init__(self, bed: Bed, clips: Sequence[Path], bundle: Path) -> None:
        self.bed, self.bundle, self._clips = bed, bundle, clips
        self.releases = bed.folder / "releases"
        self.pki = bed.folder / "pki"
        self.release = ""
        self.extra: dict[str, Any] = {}
        self.broker = bed.add("mqtt", 10)
        self.kiosks: list[Device] = []
        for n in range(1, KIOSKS + 1):
            kiosk = bed.add(f"kiosk-{n}", 100 + n)
            clip = clips[(n - 1) % len(clips)]
            shutil.copyfile(clip, kiosk.root / "srv" / clip.name)
            self.kiosks.append(kiosk)
        self.certify("mqtt", self.broker.address)
        self.certify("operator")
        for kiosk in self.kiosks:
            self.certify(kiosk.name)

    def certify(self, name: str, *address: str) -> None:
        """Give it a certificate, or a new one."""
        call(ANSIBLE / "lab_ca.sh", self.pki, name, *address)

    def inventory(self) -> Path:
        """Write it; JSON is YAML."""
        ssh = f"-o UserKnownHostsFile={self.bed.known_hosts} -o IdentitiesOnly=yes -o ConnectTimeout=5"
        common = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.bed.key),
            "ansible_ssh_common_args": ssh,
            "ansible_python_interpreter": "/usr/bin/python3",
            "edge_release": self.release,
            "edge_release_dir": str(self.releases),
            "edge_tls_dir": str(self.pki),
            "edge_broker_host": self.broker.address,
            "edge_purpose": "audience-statistics",
            "edge_signage_acknowledged": True,
        }
        kiosks = {
            kiosk.name: {
                "ansible_host": kiosk.address,
                "edge_site": f"site-{i % 2}",
                "edge_config": {
                    "camera": {"kind": "replay", "source": f"/srv/{self._clips[i % len(self._clips)].name}"}
                    | {"loop": True, "realtime": True},
                    "detector": {"rotations": [0]},
                    "window": {"seconds": WINDOW_S},
                    "privacy": {"noise": "off", "min_count": 1},
                },
            }
            for i, kiosk in enumerate(self.kiosks)
        }
        content = {
            "all": {
                "vars": common | self.extra,
                "children": {
                    "broker": {"hosts": {"mqtt": {"ansible_host": self.broker.address}}},
                    "kiosks": {"hosts": kiosks},
                },
            }
        }
        path = self.bed.folder / "inventory.json"
        path.write_text(json.dumps(content))
        return path

    def topic(self, kiosk: Device, leaf: str) -> str:
        """`edge/v1/<site>/<device>/<leaf>`."""
        return f"edge/v1/site-{self.kiosks.index(kiosk) % 2}/{kiosk.name}/{leaf}"

    def build(self, name: str, *, source: Path = ROOT, bundle: Path | None = None) -> str:
        """Make a release of this name, from a source tree and a model bundle."""
        script: tuple[str | Path, ...] = (
            ANSIBLE / "build_release.py",
            "--target",
            TARGET,
            "--name",
            name,
            "--bundle",
            bundle or self.bundle,
        )
        where = ("--out", self.releases, "--cache", BUILD / "wheels", "--source", source)
        call(ROOT / ".venv/bin/python", *script, *where, timeout=600)
        return name

    def begin(self, playbook: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a playbook on the control host."""
        command: tuple[str | Path, ...] = (
            BUILD / "venv/bin/ansible-playbook",
            "-i",
            self.inventory(),
            ANSIBLE / playbook,
            *arguments,
        )
        env = {"ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
        return subprocess.Popen(
            self.bed.control(*command, env=env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def end(self, playbook: subprocess.Popen[str], began: float | None = None) -> Recap:
        """Wait for it and read its recap."""
        output, _ = playbook.communicate(timeout=900)
        recap = Recap()
        for host, figures in re.findall(r"^(\S+)\s+: (ok=.*)$", output, re.MULTILINE):
            recap[host] = {k: int(v) for k, v in (pair.split("=") for pair in figures.split())}
        recap.output, recap.rc = output, playbook.returncode
        recap.seconds = time.monotonic() - began if began else 0.0
        with (BUILD / "playbooks.log").open("a") as log:
            log.write(f"{output}\n{recap.seconds:.1f} s\n")
        return recap

    def play(self, playbook: str, *arguments: str, rc: int = 0) -> Recap:
        """Run a playbook to its end."""
        began = time.monotonic()
        recap = self.end(self.begin(playbook, *arguments), began)
        assert recap.rc == rc, recap.output + self.journals()
        return recap

    def journals(self) -> str:
        """What the devices' services said last."""
        script = "journalctl -u 'edge-*' -u mosquitto -n 25 --no-pager -o short-monotonic"
        return "\n".join(f"== {d.name}\n{d.run(script, check=False).stdout}" for d in self.bed if d.init)

    def status(self, kiosk: Device) -> dict[str, Any]:
        """What edge-release says there."""
        answer: dict[str, Any] = json.loads(kiosk.run("/opt/edge/bin/edge-release status").stdout)
        return answer

    def listen(self, *arguments: str, name: str = "operator") -> subprocess.CompletedProcess[str]:
        """Run listen.py on the control host with a certificate."""
        script: tuple[str | Path, ...] = (BUILD / "venv/bin/python", Path(__file__).with_name("listen.py"))
        command = self.bed.control(*script, self.broker.address, self.pki / name, *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    def counts(self, kiosk: Device, wanted: int = 1, seconds: float = 90) -> list[dict[str, Any]]:
        """The next `counts` of a device, seen at the broker."""
        done = self.listen(self.topic(kiosk, "counts"), str(seconds), str(wanted))
        assert done.returncode == 0, f"{kiosk.name}: {done.stdout}{done.stderr}{self.journals()}"
        return [json.loads(line)["payload"] for line in done.stdout.splitlines()]


@pytest.fixture(scope="session")
def fleet(data: Path, bundle_folder: Path) -> Iterator[Fleet]:
    """A broker and provisioned kiosks, ended and wiped at the end."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    base = root_filesystem(BUILD)
    bed = Bed(BUILD / "bed", base)
    try:
        # One film and pictures: the devices share the cores of this machine.
        clips = [data / "clips" / n for n in ("head-pose-face-detection-male.gif", "astronaut.jpg", "grace_hopper.jpg")]
        fleet = Fleet(bed, clips, bundle_folder)
        fleet.release = fleet.build("1.0")
        fleet.play("broker.yml")
        fleet.play("provision.yml")
        yield fleet
    finally:
        bed.close()
