"""A real PostgreSQL server of a test's own: Debian's programs, a folder of its own, a free loopback port."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import psycopg

from tests.support.broker import free_port, wait_for_port
from tests.support.processes import alive

if TYPE_CHECKING:
    from collections.abc import Sequence

PASSWORD: Final = "s3cr/et@:%"  # noqa: S105 - of a server that lives as long as a test
_QUOTED: Final = "s3cr%2Fet%40%3A%25"
_NOBODY: Final = 65534


def programs() -> Path | None:
    """Where `initdb` and `postgres` lie: EDGE_POSTGRES_BIN, on PATH, or Debian's newest."""
    if folder := os.environ.get("EDGE_POSTGRES_BIN"):
        return Path(folder)
    places = [*Path("/usr/lib/postgresql").glob("*/bin")]
    newest = sorted(places, key=lambda place: int(place.parent.name))[-1:]
    found = shutil.which("initdb", path=os.pathsep.join(map(str, newest))) or shutil.which("initdb")
    return None if found is None else Path(found).parent


class Postgres:
    """A server with one role, `edge`; every `address` is a database of its own. Use as a context."""

    def __init__(self, *, settings: Sequence[str] = ("fsync=off",)) -> None:
        found = programs()
        assert found is not None
        self._bin, self._settings = found, settings
        self._folder = Path(tempfile.mkdtemp(prefix="edge-postgres-"))  # a test's own is closed to other users
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0

    def __enter__(self) -> Self:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if os.geteuid() == 0:  # which PostgreSQL refuses to run as
            for path in (self._folder, password):
                os.chown(path, _NOBODY, _NOBODY)
        data = str(self._folder / "data")
        made = self._popen(
            *("initdb", "-D", data, "-U", "edge", f"--pwfile={password}", "--auth=scram-sha-256"),
            *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
        )
        assert made.wait(120) == 0, self.log
        return self.start()

    def _popen(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        root = os.geteuid() == 0
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [str(self._bin / program), *arguments],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                user=_NOBODY if root else None,
                group=_NOBODY if root else None,
                extra_groups=[] if root else None,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            )

    @property
    def log(self) -> str:
        """What the server said."""
        return (self._folder / "log").read_text(errors="replace")

    def start(self) -> Self:
        """Start and wait until it answers."""
        chosen = [part for setting in self._settings for part in ("-c", setting)]
        self._process = self._popen(
            *("postgres", "-D", str(self._folder / "data"), "-p", str(self.port), "-c", "listen_addresses=127.0.0.1"),
            *("-c", "unix_socket_directories=", "-c", "shared_buffers=64MB", *chosen),
        )
        wait_for_port(self.port)
        end = time.monotonic() + 60
        while True:  # it listens before it answers
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
            else:
                return self

    def kill(self) -> None:
        """As a power cut: SIGKILL to every process of it."""
        assert self._process is not None
        pids = [self._process.pid, *_children(self._process.pid)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(30)
        end = time.monotonic() + 60
        while any(alive(pid) for pid in pids):  # one that is left would hold the next server's shared memory
            assert time.monotonic() < end
            time.sleep(0.02)

    def stop(self) -> None:
        """In order: clients are cut off."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str, password: str = _QUOTED) -> str:
        """The address of a database."""
        return f"postgresql://edge:{password}@127.0.0.1:{self.port}/{database}"

    def address(self) -> str:
        """That of a new, empty one."""
        self._made += 1
        name = f"store{self._made}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as database:
            database.execute(f"CREATE DATABASE {name}")
        return self.url(name)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
