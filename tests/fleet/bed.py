"""Real devices on one machine: a bridge, network namespaces, and Debian systems booted in them by systemd-nspawn.

Each device is an overlay on one root filesystem, with its own init, cgroup, SSH host key and address. They reach each
other and nothing else. `crash` kills a device's init: a power cut as its processes see it (the page cache survives, so
it says nothing about fsync). `bed.py FOLDER` is the bed's sweeper: it clears all away once its standard input ends,
which it does however the tests end.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PACKAGES: Final = (
    *("systemd-sysv", "dbus", "udev", "python3-venv", "python3-apt"),
    *("openssh-server", "iproute2", "mosquitto", "gcc", "libc6-dev"),
)
"""What a device would have from its image, and the broker's package: devices fetch nothing."""
TOOLS: Final = ("mmdebstrap", "systemd-nspawn", "ip", "ssh-keygen", "nsenter")
NET: Final = "10.77.0"
OURS: Final = "edge-bed-"
"""How the names of all namespaces and cgroups begin: whatever runs in one of them is ended by `sweep`."""
SWITCH, CONTROL = f"{OURS}switch", f"{OURS}control"
LOCK: Final = Path("/run/lock/edge-fleet")
"""Names of namespaces and addresses are the machine's: one bed at a time."""
_HYBRID: Final = [p for p in map(Path, ("/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")) if p.is_dir()]
_CGROUPS: Final = _HYBRID or [Path("/sys/fs/cgroup")]


def missing() -> str | None:
    """Why no devices can be booted here, or None."""
    if os.geteuid() != 0:
        return "needs root"
    if not Path("/etc/debian_version").exists():
        return "needs Debian"
    absent = [tool for tool in TOOLS if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if not all(os.access(group, os.W_OK) for group in _CGROUPS):
        return "needs cgroups that can be written"
    if call("unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "true", check=False).returncode:
        return "needs namespaces"
    return None


def call(*command: str | Path, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """Run a command on this machine."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=timeout)
    assert not check or done.returncode == 0, f"{shlex.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done


def root_filesystem(folder: Path, suite: str = "bookworm", *more: str) -> Path:
    """A device's Debian, with more packages than it needs or without, made once and kept; about a minute."""
    root = folder / "-".join(("rootfs", suite, *more))
    if not root.exists():
        fresh = root.with_name(f"{root.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.parent.mkdir(parents=True, exist_ok=True)
        options = ("--mode=root", "--variant=minbase", "--quiet", f"--include={','.join((*PACKAGES, *more))}")
        call("mmdebstrap", *options, suite, fresh, timeout=1800)
        fresh.rename(root)
    (root / "etc/machine-id").write_text("")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{NET}.10 broker\n")
    for path in (*root.glob("etc/ssh/ssh_host_*"), *root.glob("etc/systemd/system/*.wants/mosquitto.service")):
        path.unlink()
    return root


class Device:
    """One booted system, `name` at `address`."""

    def __init__(self, bed: Bed, name: str, number: int) -> None:
        self.name, self.address, self.netns = name, f"{NET}.{number}", f"{OURS}{name}"
        self.folder = bed.folder / "devices" / name
        self.root, self.upper = self.folder / "root", self.folder / "up"
        self.base = bed.base
        self._nspawn: subprocess.Popen[bytes] | None = None
        for part in ("up", "work", "root"):
            (self.folder / part).mkdir(parents=True)
        self._mount()
        key = self.root / "etc/ssh/ssh_host_ed25519_key"
        call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        bed.known_hosts.open("a").write(f"{self.address} {key.with_suffix('.pub').read_text()}")
        (self.root / "etc/hostname").write_text(f"{name}\n")
        (self.root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        (self.root / "root/.ssh/authorized_keys").write_text(bed.key.with_suffix(".pub").read_text())
        bed.wire(self.netns, self.address)

    def _mount(self) -> None:
        if not self.root.is_mount():
            where = f"lowerdir={self.base},upperdir={self.upper},workdir={self.folder / 'work'}"
            call("mount", "-t", "overlay", "overlay", "-o", where, self.root)

    def start(self) -> None:
        """Boot it; returns once systemd has finished and SSH answers."""
        self._mount()
        # Each nspawn needs a cgroup of its own: two in one would kill each other's units.
        enter = [f"mkdir -p {g}/{self.netns} && echo $$ > {g}/{self.netns}/cgroup.procs" for g in _CGROUPS]
        nspawn = (
            f"systemd-nspawn -q -D {shlex.quote(str(self.root))} -M {self.netns} --register=no --keep-unit -b "
            f"--console=read-only --network-namespace-path=/run/netns/{self.netns} --resolv-conf=off "
            # As on a board: without it systemd 257 starts units with PrivateNetwork=yes in the device's own network.
            "--capability=CAP_NET_ADMIN --system-call-filter=bpf --kill-signal=SIGRTMIN+3"
        )
        # 133: the system asked for a reboot.
        loop = f"while {nspawn}; test $? = 133; do :; done"
        with (self.folder / "console.log").open("ab") as log:
            self._nspawn = subprocess.Popen(
                ["bash", "-c", "; ".join((*enter, loop))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                start_new_session=True,
            )
        self.wait(lambda: self.init is not None, "its init")
        self.wait(lambda: "-ssh." in self._listening(), "an SSH server")

    def _listening(self) -> str:
        done = self.run("systemctl is-system-running --wait; systemctl is-active -q ssh && echo -ssh.", check=False)
        return done.stdout

    @property
    def init(self) -> int | None:
        """Process id of its init, seen from this machine."""
        for pid in call("ip", "netns", "pids", self.netns).stdout.split():
            with suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                numbers = next(line.split() for line in status.splitlines() if line.startswith("NSpid"))
                if len(numbers) > 2 and numbers[-1] == "1" and "Name:\tsystemd\n" in status:
                    return int(pid)
        return None

    def run(self, script: str, *, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """A shell script inside, as its root."""
        init = self.init
        assert init is not None, f"{self.name} is off"
        command = ("nsenter", "-t", str(init), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "/bin/sh", "-c", script)
        return call(*command, check=check, timeout=timeout)

    def crash(self) -> None:
        """Cut the power."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Shut it down in order."""
        self._end(signal.SIGRTMIN + 3)

    def _end(self, number: int) -> None:
        init = self.init
        if init is not None:
            os.kill(init, number)
            self.wait(lambda: self.init is None, "end")
        self.reap()
        _remove_cgroups(self.netns)

    def reap(self) -> None:
        """Wait for what booted it."""
        if self._nspawn is not None:
            try:
                self._nspawn.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self._nspawn.pid, signal.SIGKILL)
                self._nspawn.wait(10)
        self._nspawn = None

    @staticmethod
    def wait(condition: Callable[[], bool], what: str, seconds: float = 900) -> None:
        """Wait for a condition; how long it takes is nobody's matter unless it is for ever."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"no {what} after {seconds:g} s"
            time.sleep(0.1)


def _remove_cgroups(name: str) -> None:
    for group in _CGROUPS:
        for folder in sorted(group.glob(f"{name}/**/"), reverse=True):
            with suppress(OSError):
                folder.rmdir()


def _left() -> set[int]:
    """Processes of devices, and of the control host."""
    files = [f for group in _CGROUPS for f in group.glob(f"{OURS}*/**/cgroup.procs")]
    found = "".join(call("ip", "netns", "pids", name).stdout for name in _namespaces())
    for file in files:
        with suppress(OSError):  # gone meanwhile
            found += file.read_text()
    return set(map(int, found.split())) - {0}


def _namespaces() -> list[str]:
    names = [line.split()[0] for line in call("ip", "netns", "list").stdout.splitlines()]
    return [name for name in names if name.startswith(OURS)]


def sweep(folder: Path) -> None:
    """End every device and take the network down, whoever began them."""
    while pids := _left():
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    _remove_cgroups(f"{OURS}*")
    for mount in sorted(folder.glob("devices/*/root")):
        call("umount", "-l", mount, check=False)
    for name in _namespaces():
        call("ip", "netns", "del", name)
    shutil.rmtree(folder, ignore_errors=True)


class Bed:
    """The switch, this side of it (`control`) and the devices."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.base = folder, folder.parent / "rootfs"
        self.key, self.known_hosts = folder / "id_ed25519", folder / "known_hosts"
        self.devices: dict[str, Device] = {}
        self._lock = LOCK.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        sweep(folder)
        sweeper = (sys.executable, __file__, str(folder))
        self._sweeper = subprocess.Popen(
            sweeper, stdin=subprocess.PIPE, pass_fds=[self._lock.fileno()], start_new_session=True
        )
        folder.mkdir(parents=True)
        call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
        self._namespace(SWITCH)
        call("ip", "-n", SWITCH, "link", "add", "br0", "type", "bridge")
        call("ip", "-n", SWITCH, "link", "set", "br0", "up")
        self.wire(CONTROL, f"{NET}.20")

    def _namespace(self, name: str) -> None:
        call("ip", "netns", "add", name)
        call("ip", "-n", name, "link", "set", "lo", "up")

    def wire(self, name: str, address: str) -> None:
        """A namespace with one cable into the switch."""
        self._namespace(name)
        cable = f"v{address.rpartition('.')[2]}"
        call("ip", "-n", SWITCH, "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        call("ip", "-n", SWITCH, "link", "set", cable, "master", "br0", "up")
        call("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        call("ip", "-n", name, "link", "set", "eth0", "up")

    def add(self, name: str, number: int) -> Device:
        """Make a device."""
        self.devices[name] = device = Device(self, name, number)
        return device

    def control(self, *command: str | Path, env: dict[str, str] | None = None) -> Sequence[str]:
        """A command as it is run on the control host."""
        extra = [f"{k}={v}" for k, v in (env or {}).items()]
        return ["ip", "netns", "exec", CONTROL, "env", *extra, *map(str, command)]

    def __iter__(self) -> Iterator[Device]:
        """All devices."""
        return iter(self.devices.values())

    def close(self) -> None:
        """End every device, and take the network down."""
        self._sweeper.communicate()
        for device in self:
            device.reap()
        self._lock.close()


if __name__ == "__main__":
    sys.stdin.read()
    sweep(Path(sys.argv[1]))
