"""Reading and replacing files in a folder that another user may write to: nothing there is what it looks like.

A link, a FIFO, a device or a file without end put in the place of a small file must neither hang its reader nor lead
it, or its writer, elsewhere.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FRESH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Unsafe(OSError):
    """The file is there and is not to be read; `strerror` says what it is instead."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EPERM, why)


def read_small(path: Path, limit: int) -> bytes:
    """Content of a regular file of at most `limit` bytes that belongs to its folder's owner, to us or to root.

    Never waits. Raises FileNotFoundError, Unsafe, and what else the system says (OSError).
    """
    folder = os.open(path.parent, _FOLDER)
    try:
        try:
            file = os.open(path.name, _READ, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                why = "it is a link" if error.errno == errno.ELOOP else "it is no regular file"
                raise Unsafe(why) from error
            raise
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode):
                why = "it is no regular file"
                raise Unsafe(why)
            if found.st_uid not in {os.fstat(folder).st_uid, os.geteuid(), 0}:
                why = f"user {found.st_uid} owns it, who does not own the folder"
                raise Unsafe(why)
            if found.st_size > limit:
                why = f"it has {found.st_size} bytes, at most {limit} are read"
                raise Unsafe(why)
            content = os.read(file, limit + 1)
            if len(content) > limit:
                why = f"it grows beyond {limit} bytes"
                raise Unsafe(why)
            return content
        finally:
            os.close(file)
    finally:
        os.close(folder)


def replace_small(path: Path, content: bytes, *, mode: int, durable: bool = False) -> None:
    """Write a new file beside `path` and rename it into place; `durable` waits for the disk. Raises OSError."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    file = os.open(fresh, _FRESH, 0o600)
    try:
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(file, left) :]
            os.fchmod(file, mode)
            if durable:
                os.fsync(file)
        finally:
            os.close(file)
        fresh.rename(path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise
    if durable:
        folder = os.open(path.parent, _FOLDER)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def is_folder(path: Path) -> bool:
    """Whether a folder is there, and not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False
