"""A real RTSP camera on loopback: RTSP 1.0 (RFC 2326) over TCP, pictures as RTP/JPEG (RFC 2435), basic authentication.

It can be told to hang up, to send nothing, or to go away and come back on the same port.
"""

from __future__ import annotations

import base64
import itertools
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Self

import cv2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.types import U8

QUALITY = 85
CHUNK = 1200
"""Bytes of a picture in one RTP packet."""


def scan_of(jpeg: bytes) -> bytes:
    """The entropy-coded part of a baseline JPEG: what RTP/JPEG sends, since the receiver knows the rest."""
    start = jpeg.index(b"\xff\xda")
    return jpeg[start + 2 + struct.unpack(">H", jpeg[start + 2 : start + 4])[0] : jpeg.rindex(b"\xff\xd9")]


def scan(image: U8) -> tuple[bytes, int, int]:
    """A BGR picture whose sides are multiples of 16 as `packets` takes it: its JPEG's scan, width and height."""
    good, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert good
    height, width = image.shape[:2]
    return scan_of(jpeg.tobytes()), width, height


def packets(data: bytes, width: int, height: int, sequence: itertools.count[int], timestamp: int) -> list[bytes]:
    """RTP packets of one picture."""
    made = []
    for offset in range(0, len(data), CHUNK):
        part = data[offset : offset + CHUNK]
        marker = 0x80 if offset + CHUNK >= len(data) else 0
        rtp = struct.pack(">BBHII", 0x80, 26 | marker, next(sequence) & 0xFFFF, timestamp & 0xFFFFFFFF, 7)
        kind = 1  # 4:2:0
        header = struct.pack(">II", offset, kind << 24 | QUALITY << 16 | (width // 8) << 8 | height // 8)
        made.append(rtp + header + part)
    return made


class RtspCamera:
    """Plays `images` in a loop to whoever asks; `user` and `password` are asked for when given."""

    def __init__(self, images: Sequence[U8], *, fps: float = 15.0, user: str = "", password: str = "") -> None:
        self._scans, self._step = [scan(image) for image in images], 1 / fps
        self._secret = base64.b64encode(f"{user}:{password}".encode()).decode() if user else None
        self.plays = 0
        """How often somebody began to watch."""
        self.silent = False
        self.refused = 0
        """How often somebody came without the password."""
        self._listener: socket.socket | None = None
        self._clients: list[socket.socket] = []
        self._lock = threading.Lock()
        self.port = 0
        self.start()

    def start(self) -> None:
        """Listen; after `stop`, on the same port."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self.port, self._listener = listener.getsockname()[1], listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        """Go away: nobody listens, and all connections end."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.hang_up()

    def hang_up(self) -> None:
        """End all connections."""
        with self._lock:
            clients, self._clients = self._clients, []
        for client in clients:
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/live"

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._clients.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        gone = threading.Event()
        with client, client.makefile("rb") as lines:
            try:
                while request := self._request(lines):
                    method, headers = request
                    self._answer(client, method, headers, gone)
            except OSError:
                pass
            finally:
                gone.set()

    @staticmethod
    def _request(lines: object) -> tuple[str, dict[str, str]] | None:
        readline = lines.readline  # type: ignore[attr-defined]
        first = readline()
        while first[:1] == b"$":  # an RTCP report inside the connection: "$", channel, length, then the report
            size = struct.unpack(">H", first[2:4])[0]
            rest = first[4:]
            while len(rest) < size:
                rest += lines.read(size - len(rest))  # type: ignore[attr-defined]
            first = rest[size:] or readline()
        if not first:
            return None
        headers = {}
        while (line := readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.strip().lower()] = value.strip()
        return first.split()[0].decode(), headers

    def _answer(self, client: socket.socket, method: str, headers: dict[str, str], gone: threading.Event) -> None:
        def say(status: str, body: str = "", **extra: str) -> None:
            head = {"CSeq": headers.get("cseq", "0"), "Session": "1"} | {
                k.replace("_", "-"): v for k, v in extra.items()
            }
            if body:
                head |= {"Content-Type": "application/sdp", "Content-Length": str(len(body))}
            client.sendall(
                (
                    "\r\n".join([f"RTSP/1.0 {status}", *(f"{k}: {v}" for k, v in head.items())]) + f"\r\n\r\n{body}"
                ).encode()
            )

        if method == "OPTIONS":
            say("200 OK", Public="OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER")
        elif self._secret is not None and headers.get("authorization") != f"Basic {self._secret}":
            self.refused += 1
            say("401 Unauthorized", WWW_Authenticate='Basic realm="camera"')
        elif method == "DESCRIBE":
            say("200 OK", "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\n"
                "m=video 0 RTP/AVP 26\r\na=control:track\r\n", Content_Base=self.url + "/")  # fmt: skip
        elif method == "SETUP":
            say("200 OK", Transport="RTP/AVP/TCP;unicast;interleaved=0-1")
        elif method == "PLAY":
            say("200 OK", Range="npt=0.000-")
            self.plays += 1
            threading.Thread(target=self._play, args=(client, gone), daemon=True).start()
        else:
            say("200 OK")

    def _play(self, client: socket.socket, gone: threading.Event) -> None:
        sequence = itertools.count()
        began = time.monotonic()
        for index, picture in enumerate(itertools.cycle(self._scans), 1):
            if gone.wait(began + index * self._step - time.monotonic()):
                return
            if self.silent:
                continue
            try:
                for packet in packets(*picture, sequence, int((time.monotonic() - began) * 90_000)):
                    client.sendall(b"$\x00" + struct.pack(">H", len(packet)) + packet)
            except OSError:
                return
