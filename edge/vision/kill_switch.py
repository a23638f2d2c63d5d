"""Why the camera is to be closed, if it is: a file that exists, a contact that opens, or the last command.

File and contact outrank commands and fail towards "off": a cut wire is an open contact, a file that cannot
be asked for counts as there.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from edge.errors import StorageError
from edge.outbox.runtime_files import read_command
from edge.process.logs import event

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge.outbox.runtime_files import CommandFile

log = logging.getLogger("edge.vision")


class PauseSwitch:
    """File, contact (BCM pin to ground; None: there is none) and `command.json` in the runtime folder.

    `before`: what was commanded before this run; it holds until there is a new command.
    """

    def __init__(self, file: Path, gpio: int | None, runtime: Path, *, before: bool = False) -> None:
        """Raises ConfigError when the pin cannot be read."""
        self._file, self._runtime = file, runtime
        self._closed: Callable[[], bool] | None = None
        if gpio is not None:
            from edge.vision.gpio import contact

            self._closed = contact(gpio)
        self._read: CommandFile | None = None
        self._commanded = before

    def cause(self) -> Literal["file", "gpio", "command"] | None:
        """What wants the camera closed; None: nothing."""
        self._read_command()
        if self._there():
            return "file"
        try:
            if self._closed is not None and not self._closed():
                return "gpio"
        except OSError:
            return "gpio"
        return "command" if self._commanded else None

    @property
    def commanded(self) -> bool:
        """Whether the last command that was read is a pause, whatever file and contact say."""
        return self._commanded

    def _there(self) -> bool:
        try:
            self._file.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            pass
        return True

    def _read_command(self) -> None:
        try:
            command = read_command(self._runtime)
        except StorageError as error:
            log.warning(event("command_unreadable", why=error))
            return
        # The whole of it, not its number: whoever deleted the file let the numbers begin again.
        if command is None or command == self._read:
            return
        self._read, self._commanded = command, command.paused
        if command.command == "identify":
            log.info(event("identify"))
