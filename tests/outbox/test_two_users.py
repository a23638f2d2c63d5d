"""The wall with two real users, in folders as `systemd/tmpfiles.conf` makes them."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge.config import StorageSection
from edge.outbox.outbox import Outbox
from edge.outbox.runtime_files import read_command, read_vision, write_command, write_vision
from edge.process.clock import SystemClock
from edge.process.privileges import as_owner_of
from edge.vision.recorder import Recorder
from tests.support.appliance import closing, vision_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VISION, PUBLISHER, GROUP = 47110, 47120, 47100
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two other users")


def as_user(uid: int, what: Callable[[], object]) -> None:
    """Do it in a process of that user; its exception is told."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(GROUP)
            os.setuid(uid)
            os.umask(0o077)
            what()
        except BaseException:  # noqa: BLE001 - a child of a test must not go on as the test
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, "see the traceback above"


@pytest.fixture
def place() -> Iterator[StorageSection]:
    """As tmpfiles.conf has it."""
    with tempfile.TemporaryDirectory() as rehearsal:  # the users cannot read this interpreter: all is imported before
        record(StorageSection(outbox=Path(rehearsal) / "outbox.db", runtime=Path(rehearsal)))
        assert b"{}".decode("ascii")
    root = Path(tempfile.mkdtemp(prefix="wall-"))
    root.chmod(0o755)
    folders = {
        "lib": (0o3770, VISION),
        "lib/outbox.db.ledger": (0o700, VISION),
        "run": (0o3770, 0),
        "run/vision": (0o2750, VISION),
        "run/publisher": (0o2750, PUBLISHER),
    }
    for name, (mode, owner) in folders.items():
        (root / name).mkdir()
        os.chown(root / name, owner, GROUP)
        (root / name).chmod(mode)
    yield StorageSection(outbox=root / "lib" / "outbox.db", runtime=root / "run")
    shutil.rmtree(root)


def record(place: StorageSection) -> None:
    run = Recorder(place, SystemClock(), "policy", "lobby/kiosk-07")
    run.begin()
    run.put(closing())
    run.close()


def mark(place: StorageSection) -> None:
    with Outbox(place.outbox) as outbox:
        outbox.mark_sent(row.key for row in outbox.unsent())
        outbox.paused = True


def test_both_work_on_one_outbox_in_turn(place: StorageSection) -> None:
    for _ in range(2):
        as_user(VISION, lambda: record(place))
        as_user(PUBLISHER, lambda: mark(place))

    as_user(VISION, lambda: record(place))

    def seen() -> None:
        with Outbox(place.outbox) as outbox:
            assert len(outbox.unsent()) == 1
            assert len(outbox.released_since(0)) == 2

    as_user(PUBLISHER, seen)


def test_the_runtime_files_go_across_and_nobody_writes_the_others(place: StorageSection) -> None:
    as_user(VISION, lambda: write_vision(place.runtime, vision_file()))
    as_user(PUBLISHER, lambda: write_command(place.runtime, "pause"))

    def across(what: Callable[[Path], object]) -> Callable[[], None]:
        def look() -> None:
            assert what(place.runtime) is not None

        return look

    as_user(PUBLISHER, across(read_vision))
    as_user(VISION, across(read_command))

    def forbidden(*paths: Path) -> Callable[[], None]:
        def try_it() -> None:
            for path in paths:
                with pytest.raises(PermissionError):
                    path.write_bytes(b"")
                with pytest.raises(PermissionError):
                    path.rename(path.with_name("away"))
                with pytest.raises(PermissionError):
                    path.unlink()

        return try_it

    as_user(PUBLISHER, forbidden(place.runtime / "vision" / "vision.json"))
    as_user(VISION, forbidden(place.runtime / "publisher" / "command.json"))


def test_the_publisher_reaches_neither_ledger_nor_folders(place: StorageSection) -> None:
    as_user(VISION, lambda: record(place))

    def enemy() -> None:
        ledger = place.outbox.with_name("outbox.db.ledger")
        with pytest.raises(PermissionError):
            list(ledger.iterdir())
        for path in (ledger, place.outbox, place.runtime / "vision"):
            with pytest.raises(PermissionError):
                path.rename(path.with_name("away"))

    as_user(PUBLISHER, enemy)


def test_root_looks_with_the_rights_of_the_folders_owner(place: StorageSection, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    with as_owner_of(place.outbox.parent):
        assert (os.geteuid(), os.getegid(), os.getgroups()) == (VISION, GROUP, [GROUP])
        with pytest.raises(PermissionError):
            secret.read_text()
    assert (os.geteuid(), os.getegid()) == (0, 0)
    assert secret.read_text() == "root's"
    with as_owner_of(tmp_path):
        assert os.geteuid() == 0, "root's own folder"
    with as_owner_of(tmp_path / "missing"):
        assert os.geteuid() == 0
