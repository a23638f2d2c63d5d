"""The local, read-only status page and the metrics: a small HTTP server in a thread of the publisher.

It listens on loopback only, knows nothing but the last snapshot, and changes nothing.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from edge.config.hosts import is_loopback
from edge.process.logs import event

if TYPE_CHECKING:
    from edge.config import WebSection
    from edge.publisher.web.snapshot import Snapshot

log = logging.getLogger("edge.publisher")

_FILES: Final = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Web:
    """Serves `[web]` from its construction until `close`. Raises OSError when the port cannot be had."""

    def __init__(self, section: WebSection) -> None:
        self._section = section
        self._snapshot: Snapshot | None = None
        self._server = _server(self, section.host, section.port)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def tell(self, snapshot: Snapshot) -> None:
        """What to show from now on."""
        self._snapshot = snapshot

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body of a GET."""
        section, snapshot = self._section, self._snapshot
        if section.page and path in _FILES:
            name, kind = _FILES[path]
            return 200, kind, Path(__file__).with_name(name).read_bytes()
        known = (path == "/metrics" and section.metrics) or (path == "/status.json" and section.page)
        if not known:
            return 404, "text/plain", b"not here\n"
        if snapshot is None:
            return 503, "text/plain", b"starting\n"
        if path == "/status.json":
            return 200, "application/json", json.dumps(snapshot.json()).encode()
        from edge.publisher.web.metrics import CONTENT_TYPE, metrics

        return 200, CONTENT_TYPE, metrics(snapshot)


def open_web(section: WebSection | None) -> Web | None:
    """None without the section, or without its port: counting and publishing matter more."""
    if section is None:
        return None
    try:
        web = Web(section)
    except OSError as error:
        why = error.strerror or error
        log.warning(event("web-unavailable", host=section.host, port=section.port, why=why, next="choose web.port"))
        return None
    log.info(event("web", address=f"http://{section.host}:{web.port}/"))
    return web


def _server(web: Web, host: str, port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            # A page from elsewhere may have its name resolve to this machine: the browser then says that name.
            try:
                name = urlsplit("//" + self.headers.get("Host", "")).hostname or ""
            except ValueError:
                name = ""
            if not is_loopback(name):
                self._send(421, "text/plain", b"ask for it by a loopback name\n")
                return
            self._send(*web.answer(self.path.partition("?")[0]))

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            for header, value in {"Content-Type": kind, "Content-Length": str(len(body)), **_HEADERS}.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(body)

        def version_string(self) -> str:
            return "edge"

        def log_message(self, *_: object) -> None:
            """Say nothing: a scrape every few seconds is no event."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def handle_error(self, *_: object) -> None:
            """Say nothing: a client that hung up is no event."""

    return Server((host, port), Handler)
