"""Who may look: nobody is asked on loopback; elsewhere a name and a password, checked by argon2.

HTTP Basic (RFC 7617), which is why `serve` wants TLS, or to be told that a proxy has it.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from edge.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import ASGIApp, Receive, Scope, Send

_HASHER: Final = PasswordHasher()

VERIFIED_AT_ONCE: Final = 2
"""Each takes 64 MiB and a core: strangers who guess wait for each other, and not the pages for them."""


def hash_password(password: str) -> str:
    """What a password file holds of a password."""
    return _HASHER.hash(password)


def read_passwords(path: Path) -> dict[str, str]:
    """`name:hash` a line, made by `edge-aggregate serve --hash-password`. Raises ConfigError with the line."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # opening a pipe waits
            msg = f"{path}: is no regular file: give a password file"
            raise ConfigError(msg)
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        msg = f"{path}: {getattr(error, 'strerror', None) or 'is no text'}: give a password file"
        raise ConfigError(msg) from error
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, hashed = line.strip().partition(":")
        try:
            _HASHER.check_needs_rehash(hashed)
        except InvalidHashError as error:
            msg = f"{path}:{number}: no hash of a password: make the line with `edge-aggregate serve --hash-password`"
            raise ConfigError(msg) from error
        if not name:
            msg = f"{path}:{number}: no name before the colon"
            raise ConfigError(msg)
        found[name] = hashed
    if not found:
        msg = f"{path}: nobody is in it: make a line with `edge-aggregate serve --hash-password`"
        raise ConfigError(msg)
    return found


class BasicAuth:
    """Lets through who knows a password. A password that was right is remembered, keyed, until the process ends."""

    def __init__(self, app: ASGIApp, passwords: dict[str, str]) -> None:
        self._app, self._passwords = app, passwords
        self._key = secrets.token_bytes(32)
        self._right: set[bytes] = set()
        self._nobody = hash_password(secrets.token_hex())
        self._turns = anyio.CapacityLimiter(VERIFIED_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or await self._known(Headers(scope=scope).get("authorization", "")):
            await self._app(scope, receive, send)
            return
        refused = PlainTextResponse(
            "name and password, please\n", 401, {"WWW-Authenticate": 'Basic realm="edge-aggregate", charset="UTF-8"'}
        )
        await refused(scope, receive, send)

    async def _known(self, header: str) -> bool:
        scheme, _, encoded = header.partition(" ")
        if scheme.lower() != "basic" or len(encoded) > 1024:
            return False
        mark = hmac.digest(self._key, encoded.encode(), "sha256")
        if mark in self._right:
            return True
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            return False
        if not await anyio.to_thread.run_sync(self._verify, name, password, limiter=self._turns):
            return False
        if len(self._right) < 1024:
            self._right.add(mark)
        return True

    def _verify(self, name: str, password: str) -> bool:
        """An unknown name takes as long as a known one."""
        try:
            _HASHER.verify(self._passwords.get(name, self._nobody), password)
        except VerificationError:
            return False
        return name in self._passwords
