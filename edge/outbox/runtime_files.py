"""The two small files in the runtime folder (tmpfs): figures about the service, and the last command.

Besides the outbox they are all that crosses between the vision and the publisher service. Both are
schema-checked on writing and on reading, and replaced atomically, so that a reader sees an old or a new
file and never half of one. Nothing in them is about people, with one stated exception: `development`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.errors import StorageError
from edge.types import (  # noqa: TC001 - pydantic reads the annotations
    Scene,
    TimeQuality,
)

if TYPE_CHECKING:
    from pathlib import Path

VISION_FILE: Final = "vision.json"
COMMAND_FILE: Final = "command.json"

_Whole = Annotated[int, Field(ge=0)]
_Figure = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_BootId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
_M = TypeVar("_M", bound=BaseModel)


class _RuntimeFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class InvokeMs(_RuntimeFile):
    """Model invocation time in ms over at least an hour; None before the first invocation."""

    p50: _Figure | None
    p95: _Figure | None
    p99: _Figure | None = None


class Spent(_RuntimeFile):
    """Epsilon of one window, spent since UTC midnight, and the most a day can spend; 0 without noise."""

    epsilon: _Figure
    spent_today: _Figure
    day_bound: _Figure
    exhausted: bool


class Development(_RuntimeFile):
    """Verbose figures, written in development mode only. They scale with faces and never reach the broker.

    `drops` are exact and know `too_small`: frames with a face too small to classify.
    """

    frames: _Whole
    faces: _Whole
    routes: dict[str, _Whole]
    stage_ms: dict[str, _Figure]
    drops: dict[str, _Whole] = {}
    cameras: dict[str, str | float | int | None] = {}


class VisionFile(_RuntimeFile):
    """`vision.json`, written by the vision service at most once a second.

    `drops` counts frames, never faces, by cause; what slows with faces is coarse (`overwritten` rounded down to
    a power of two, fps a whole number). `updated` is kernel-monotonic seconds. `waiting` windows are closed and not on
    disk yet, `trouble` says why in a word (`edge.errors.StorageError`).
    """

    boot_id: _BootId
    state: Literal["running", "ended"]
    updated: _Figure
    backend: str
    detector: str | None = None
    fps: _Figure
    invoke_ms: InvokeMs
    drops: dict[str, _Whole]
    restarts: _Whole
    scene: Scene
    time_quality: TimeQuality
    paused: bool
    versions: dict[str, str]
    privacy: Spent | None = None
    waiting: _Whole = 0
    trouble: str | None = None
    development: Development | None = None


class CommandFile(_RuntimeFile):
    """`command.json`, written by the publisher, polled by vision every 250 ms.

    `number` grows by one with each command, so a command is acted on once. `paused` is the state asked for
    since the last pause or resume, so that an `identify` does not end a pause.
    """

    number: _Whole
    command: Literal["pause", "resume", "identify"]
    paused: bool


def _write(folder: Path, name: str, content: BaseModel) -> None:
    target, fresh = folder / name, folder / f".{name}.{os.getpid()}"
    try:
        # No fsync: the folder is a tmpfs, and its content means nothing after a power cut.
        fresh.write_text(content.model_dump_json(exclude_none=False) + "\n", encoding="utf-8")
        fresh.chmod(0o660)
        fresh.replace(target)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        msg = (
            f"runtime file {target} cannot be written ({error.strerror}): "
            "create the folder and give this service write access (storage.runtime)"
        )
        raise StorageError(msg) from error


def _read(model: type[_M], folder: Path, name: str) -> _M | None:
    path = folder / name
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"runtime file {path} cannot be read ({error.strerror}): give this service read access to it"
        raise StorageError(msg) from error
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        msg = f"runtime file {path} is not what it should be ({where}: {first['msg']}): delete it"
        raise StorageError(msg) from error


def write_vision(folder: Path, figures: VisionFile) -> None:
    """Replace `vision.json`. Raises StorageError when the folder cannot be written."""
    _write(folder, VISION_FILE, figures)


def read_vision(folder: Path) -> VisionFile | None:
    """The last `vision.json`, None when there is none. Raises StorageError when unreadable or off schema."""
    return _read(VisionFile, folder, VISION_FILE)


def read_command(folder: Path) -> CommandFile | None:
    """The last `command.json`, None when there is none. Raises StorageError when unreadable or off schema."""
    return _read(CommandFile, folder, COMMAND_FILE)


def write_command(folder: Path, command: Literal["pause", "resume", "identify"]) -> CommandFile:
    """Replace `command.json` by the next command and return it. Raises StorageError."""
    try:
        last = read_command(folder)
    except StorageError:  # an unusable old file must not block a pause
        last = None
    paused = command == "pause" or (command == "identify" and last is not None and last.paused)
    fresh = CommandFile(number=last.number + 1 if last else 1, command=command, paused=paused)
    _write(folder, COMMAND_FILE, fresh)
    return fresh
