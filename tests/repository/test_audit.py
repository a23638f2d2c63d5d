"""The audit against a database on loopback that speaks as the public one does: it knows, does not, or never answers."""

from __future__ import annotations

import http.server
import json
import re
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.repository import audit

if TYPE_CHECKING:
    from pathlib import Path

HOLE = {
    "id": "PYSEC-2000-1",
    "modified": "2026-01-01T00:00:00Z",
    "summary": "a hole",
    "affected": [
        {
            "package": {"name": "x", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
        }
    ],
}


class Database(http.server.ThreadingHTTPServer):
    """Knows a hole of each package in `known`."""

    def __init__(self, *known: str) -> None:
        self.known, self.asked = known, set[str]()
        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def options(self) -> tuple[str, ...]:
        return ("-s", "osv", "--osv-url", f"http://127.0.0.1:{self.server_address[1]}/v1/query")


class Answer(http.server.BaseHTTPRequestHandler):
    server: Database

    def do_POST(self) -> None:
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
        self.server.asked.add(name)
        affected = HOLE["affected"][0] | {"package": {"name": name, "ecosystem": "PyPI"}}  # type: ignore[operator]
        body = json.dumps({"vulns": [HOLE | {"affected": [affected]}]} if name in self.server.known else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(audit, "PROBE_S", 60.0)  # a busy machine takes long to start
    for pin in ("numpy==1.26.4", "pydantic==2.12.0"):
        (tmp_path / f"{pin[:3]}.txt").write_text(f"{pin} \\\n    --hash=sha256:{'0' * 64}\n")
    return tmp_path


def test_a_known_hole_fails_and_is_named_with_its_mend(locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Database("urllib3", "numpy") as database:
        assert audit.main(database.options, locks=locks) == 1
        assert database.asked == {"urllib3", "numpy", "pydantic"}
        database.shutdown()
    assert capsys.readouterr().out == "numpy 1.26.4: PYSEC-2000-1, mended in 99.1\n"


def test_what_is_accepted_with_a_reason_does_not(locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Database("urllib3", "numpy") as database:
        found = audit._holes(audit._audit(60, database.options, *locks.glob("*.txt")) or [])
        assert len(found) == 1
        monkeypatch.setitem(audit.ACCEPTED, "PYSEC-2000-1", "a reason")
        assert audit._holes(audit._audit(60, database.options, *locks.glob("*.txt")) or []) == []
        database.shutdown()


def test_nothing_known_is_said_with_how_much_was_asked(locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Database("urllib3") as database:
        assert audit.main(database.options, locks=locks) == 0
        database.shutdown()
    assert capsys.readouterr().out == "pip-audit: 2 pins, nothing known against them\n"


def test_a_database_that_knows_nothing_at_all_is_not_believed(locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Database() as database:
        assert audit.main(database.options, locks=locks) == 0
        database.shutdown()
    assert "nothing was audited" in capsys.readouterr().out


@pytest.mark.parametrize("silent", [False, True], ids=["nobody there", "never answers"])
def test_no_database_is_said_and_holds_nothing_up(
    locks: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, silent: bool
) -> None:
    monkeypatch.setattr(audit, "PROBE_S", 6.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if not silent:
            listener.close()
        began = time.monotonic()
        assert audit.main(("-s", "osv", "--osv-url", f"http://127.0.0.1:{port}/"), locks=locks) == 0
        assert time.monotonic() - began < audit.PROBE_S + 30  # its own limit, and a machine that is busy
    assert "nothing was audited" in capsys.readouterr().out


def test_every_reason_is_one() -> None:
    assert all(re.fullmatch(r"[A-Z]+-[\w-]+", key) and len(why) > 20 for key, why in audit.ACCEPTED.items())
