"""A fleet: a broker and kiosks, booted, provisioned by the playbooks over SSH, watched at the broker."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import pytest

from tests.fleet.bed import Bed, Device, call, missing, root_filesystem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE = ROOT / "ansible"
BUILD = Path(os.environ.get("EDGE_FLEET_BUILD", ROOT / "build" / "fleet"))
KIOSKS = int(os.environ.get("EDGE_FLEET_KIOSKS", "3"))
SUITE = os.environ.get("EDGE_FLEET_SUITE", "bookworm")
TARGET = f"{SUITE}-{'arm64' if platform.machine() == 'aarch64' else 'amd64'}"
WINDOW_S = 5
AT_ONCE = ("-e", "edge_serial=100%")
"""`provision.yml` for a bed that is to be had soon."""


class Recap(dict[str, dict[str, int]]):
    """What `PLAY RECAP` says of each host, and the whole output."""

    output: str
    seconds: float
    rc: int


class Fleet:
    """The bed with a broker and kiosks, their inventory, and releases to give them."""

    def __init__(self, bed: Bed, films: Sequence[Path], bundle: Path) -> None:
        self.bed, self.bundle, self._films = bed, bundle, films
        self.releases = bed.folder / "releases"
        self.pki = bed.folder / "pki"
        self.said = bed.folder / "playbook.log"
        self.release = ""
        self._built: Path | None = None

    def boot(self) -> None:
        """Make broker and kiosks, with their films and certificates, and boot them."""
        self.broker = self.bed.add("mqtt", 10)
        self.kiosks: list[Device] = []
        for n in range(1, KIOSKS + 1):
            self.add_kiosk(f"kiosk-{n}", 100 + n)
        self.certify("mqtt", self.broker.address)
        self.certify("operator")
        with ThreadPoolExecutor() as pool:
            list(pool.map(Device.start, self.bed))

    def add_kiosk(self, name: str, number: int) -> Device:
        """Make one, with a film and a certificate."""
        kiosk, film = self.bed.add(name, number), self._film(len(self.kiosks))
        copy = shutil.copytree if film.is_dir() else shutil.copyfile
        copy(film, kiosk.root / "srv" / film.name)
        self.certify(name)
        self.kiosks.append(kiosk)
        return kiosk

    def _film(self, kiosk: int) -> Path:
        return self._films[kiosk % len(self._films)]

    def certify(self, name: str, *address: str, days: int = 825) -> None:
        """Give it a certificate, or a new one."""
        call("env", f"DAYS={days}", ANSIBLE / "lab_ca.sh", self.pki, name, *address)

    def inventory(self) -> Path:
        """Write it; JSON is YAML."""
        ssh = f"-o UserKnownHostsFile={self.bed.known_hosts} -o IdentitiesOnly=yes"
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
            "edge_gate_seconds": 600,  # the machine may be busy
            "edge_gate_hold_seconds": 5,  # and these tests have no minutes
        }
        kiosks = {
            kiosk.name: {
                "ansible_host": kiosk.address,
                "edge_site": f"site-{i % 2}",
                "edge_config": {
                    "camera": {"kind": "replay", "source": f"/srv/{self._film(i).name}"}
                    | {"loop": True, "realtime": True, "still_seconds": 2},
                    "detector": {"min_face": 80},
                    "window": {"seconds": WINDOW_S},
                    "privacy": {"noise": "off", "min_count": 1},
                },
            }
            for i, kiosk in enumerate(self.kiosks)
        }
        content = {
            "all": {
                "vars": common,
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
        tarball = self.releases / f"edge-{name}-{TARGET}.tar"
        usual = source == ROOT and bundle is None
        if usual and self._built:
            rename(self._built, tarball, name)
            return name
        what = ("--target", TARGET, "--name", name, "--bundle", bundle or self.bundle, "--source", source)
        where = ("--out", self.releases, "--cache", BUILD / "wheels")
        call(ROOT / ".venv/bin/python", ANSIBLE / "build_release.py", *what, *where)
        if usual:
            self._built = tarball
        return name

    def begin(self, playbook: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a playbook on the control host."""
        command: tuple[str | Path, ...] = (
            BUILD / "venv/bin/ansible-playbook",
            "-i",
            self.inventory(),
            ANSIBLE / playbook,
            *arguments,
        )
        env = {"ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_TIMEOUT": "60"}
        env["LC_ALL"] = "C.UTF-8"
        # To a file: what outlives a playbook that is killed would hold a pipe open.
        with self.said.open("w") as log:
            return subprocess.Popen(
                self.bed.control(*command, env=env), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def end(self, playbook: subprocess.Popen[bytes], began: float | None = None) -> Recap:
        """Wait for it and read its recap."""
        playbook.wait(3600)
        output = self.said.read_text()
        recap = Recap()
        for host, figures in re.findall(r"^(\S+)\s+: (ok=.*)$", output, re.MULTILINE):
            recap[host] = {k: int(v) for k, v in (pair.split("=") for pair in figures.split())}
        recap.output, recap.rc = output, playbook.returncode
        recap.seconds = time.monotonic() - began if began else 0.0
        with (BUILD / "playbooks.log").open("a") as log:
            log.write(f"{output}\n{recap.seconds:.1f} s\n")
        return recap

    def reached(self, task: str) -> bool:
        """Whether the playbook that runs has begun this task of the role."""
        return f"TASK [edge : {task}" in self.said.read_text()

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
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)

    def subscribe(self) -> None:
        """Let the broker keep all counts for somebody: of those that nobody takes, a kiosk sends one a minute."""
        self.listen("edge/v1/+/+/counts", "2", "--session", "aggregator")

    def counts(self, kiosk: Device, wanted: int = 1, seconds: float = 600) -> list[dict[str, Any]]:
        """The next `counts` of a device, seen at the broker."""
        done = self.listen(self.topic(kiosk, "counts"), str(seconds), str(wanted))
        assert done.returncode == 0, f"{kiosk.name}: {done.stdout}{done.stderr}{self.journals()}"
        return [json.loads(line)["payload"] for line in done.stdout.splitlines()]

    def all_counts(self, wanted: int = 1) -> dict[Device, list[dict[str, Any]]]:
        """The next ones of each kiosk."""
        with ThreadPoolExecutor() as pool:
            return dict(zip(self.kiosks, pool.map(lambda kiosk: self.counts(kiosk, wanted), self.kiosks), strict=True))


def rename(tarball: Path, new: Path, name: str) -> None:
    """The same release under another name."""
    with tarfile.open(tarball) as old, tarfile.open(new, "w") as archive:
        for member in old:
            content = old.extractfile(member).read()  # type: ignore[union-attr]
            if member.name == "release.json":
                content = json.dumps(json.loads(content) | {"version": name}).encode()
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def pictures(clip: Path, folder: Path) -> Path:
    """Every tenth picture of a film, for the devices share the cores of this machine."""
    folder.mkdir()
    film, n = cv2.VideoCapture(str(clip)), 0
    while (read := film.read())[0]:
        if n % 10 == 0:
            cv2.imwrite(str(folder / f"{n:03}.png"), read[1])
        n += 1
    return folder


@pytest.fixture(scope="session")
def fleet(data: Path, bundle_folder: Path) -> Iterator[Fleet]:
    """A broker and provisioned kiosks, ended and wiped at the end."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    bed = Bed(BUILD / "bed")
    try:
        clips = data / "clips"
        film = pictures(clips / "head-pose-face-detection-male.gif", bed.folder / "film")
        fleet = Fleet(bed, [film, clips / "astronaut.jpg", clips / "grace_hopper.jpg"], bundle_folder)
        with ThreadPoolExecutor() as pool:
            built = pool.submit(fleet.build, "1.0")
            bed.base = root_filesystem(BUILD, SUITE)
            fleet.boot()
            fleet.release = built.result()
        fleet.play("broker.yml")
        fleet.subscribe()
        fleet.play("provision.yml", *AT_ONCE)
        yield fleet
    finally:
        bed.close()
