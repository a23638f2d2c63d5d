"""The two small files in the runtime folder (tmpfs): figures about the service, and the last command.

Besides the outbox they are all that crosses between the vision and the publisher service. Both are
schema-checked on writing and on reading, and replaced atomically, so that a reader sees an old or a new
file and never half of one. Nothing in them is about people, with one stated exception: `development`.

Where the runtime folder has a folder for each writer (`vision/`, `publisher/`, as on a kiosk), the files lie there, and
nobody else can put anything in their place. Words are from closed lists and numbers bounded: a service that was taken
over finds no room here for a picture.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.errors import StorageError
from edge.process.shared_files import is_folder, read_small, replace_small
from edge.types import (  # noqa: TC001 - pydantic reads the annotations
    DropCause,
    FrameRate,
    Scene,
    TimeQuality,
)

if TYPE_CHECKING:
    from pathlib import Path

VISION_FILE: Final = "vision.json"
COMMAND_FILE: Final = "command.json"
_WRITERS: Final = {VISION_FILE: "vision", COMMAND_FILE: "publisher"}
_LIMITS: Final = {VISION_FILE: 16384, COMMAND_FILE: 4096}
"""Bytes that are read at the most."""
GENERATION_FILE: Final = "outbox.generation"

_Whole = Annotated[int, Field(ge=0, le=10**9)]
_Count = Annotated[int, Field(ge=0, le=2**53)]
"""What grows by the frame: a looped clip has a thousand million in some weeks."""
_Figure = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
_BootId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
_BACKEND: Final = r"(cpu(:fallback)?|edgetpu(:[0-9]{1,2}/[0-9]{1,2})?)"
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._+-]{1,64}$")]
_Key = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]
Trouble = Literal["full", "read-only", "failing", "denied", "damaged", "busy", "unusable"]
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

    `drops` are exact and know `overwritten` and `too_small`: frames with a face too small to classify.
    `fps`: frames processed in a second.
    """

    frames: _Count
    faces: _Count
    routes: dict[_Key, _Count]
    stage_ms: dict[_Key, _Figure]
    drops: dict[_Key, _Count] = {}
    fps: _Figure = 0.0


class VisionFile(_RuntimeFile):
    """`vision.json`, written by the vision service at most once a second.

    `rate` and `invoke_ms` come from a timed look at a blank picture, `drops` knows only causes that no face can cause:
    what slows with faces is not written. `updated` is kernel-monotonic seconds. `waiting` windows are closed and not on
    disk yet, `trouble` says why in a word (`edge.errors.StorageError`).
    """

    boot_id: _BootId
    state: Literal["running", "ended"]
    updated: _Figure
    backend: Annotated[str, Field(pattern=f"^{_BACKEND}$")]
    detector: Annotated[str, Field(pattern=f"^(blazeface|haar|hog) on {_BACKEND}$")] | None = None
    rate: FrameRate
    invoke_ms: InvokeMs
    drops: dict[DropCause, _Whole]
    restarts: _Whole
    scene: Scene
    time_quality: TimeQuality
    paused: bool
    versions: dict[Literal["edge", "bundle"], _Name]
    privacy: Spent | None = None
    waiting: _Whole = 0
    trouble: Trouble | None = None
    development: Development | None = None


class CommandFile(_RuntimeFile):
    """`command.json`, written by the publisher, polled by vision every 250 ms.

    `number` grows by one with each command, so a command is acted on once. `paused` is the state asked for
    since the last pause or resume, so that an `identify` does not end a pause.
    """

    number: Annotated[int, Field(ge=0, le=2**53)]
    command: Literal["pause", "resume", "identify"]
    paused: bool


def place(folder: Path, name: str) -> Path:
    """Where a runtime file lies: in its writer's own folder where there is one, else in the runtime folder itself."""
    own = folder / _WRITERS[name]
    return (own if is_folder(own) else folder) / name


def clock_marker(folder: Path) -> Path:
    """The file whose age says that the clock is synced (`edge.process.clock`)."""
    own = folder / "publisher"
    return (own if is_folder(own) else folder) / "clock-synced"


class Claim:
    """What one vision service at a time has of the runtime folder, until `let_go` is called or the process ends.

    Two would count each visitor twice, and release what either holds back. The folder is locked and not a file beside
    the outbox, whose filesystem must be free to be repaired.
    """

    def __init__(self, folder: Path) -> None:
        """Raises StorageError when another service has it, or it cannot be opened."""
        own = place(folder, VISION_FILE).parent
        try:
            held = os.open(own, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self.let_go = weakref.finalize(self, os.close, held)
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"runtime folder {own}: another `edge vision` runs: stop that one, or give storage another place"
            raise StorageError(msg) from error
        except OSError as error:
            msg = f"runtime folder {own} cannot be used ({error.strerror}): create it, or give this service access"
            raise StorageError(msg) from error


def _write(folder: Path, name: str, content: BaseModel) -> None:
    target = place(folder, name)
    try:
        # Not durable: the folder is a tmpfs, and its content means nothing after a power cut.
        replace_small(target, (content.model_dump_json(exclude_none=False) + "\n").encode(), mode=0o640)
    except OSError as error:
        msg = (
            f"runtime file {target} cannot be written ({error.strerror}): "
            "create the folder and give this service write access (storage.runtime)"
        )
        raise StorageError(msg) from error


def _read(model: type[_M], folder: Path, name: str) -> _M | None:
    path = place(folder, name)
    try:
        text = read_small(path, _LIMITS[name])
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = (
            f"runtime file {path} cannot be read ({error.strerror}): delete it, or give this service read access to it"
        )
        raise StorageError(msg) from error
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        why = first["msg"].removeprefix("Value error, ")
        msg = f"runtime file {path} is not what it should be ({where}: {why}): delete it"
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


def write_command(
    folder: Path, command: Literal["pause", "resume", "identify"], *, before: bool = False
) -> CommandFile:
    """Replace `command.json` by the next command and return it. Raises StorageError.

    `before`: whether a pause holds where no file says so, so that an identify does not end it.
    """
    try:
        last = read_command(folder)
    except StorageError:  # an unusable old file must not block a pause
        last = None
    paused = command == "pause" or (command == "identify" and (before if last is None else last.paused))
    fresh = CommandFile(number=last.number % 2**53 + 1 if last else 1, command=command, paused=paused)
    _write(folder, COMMAND_FILE, fresh)
    return fresh


def write_generation(folder: Path, generation: int) -> None:
    """Note how many outboxes were put aside. Raises OSError."""
    own = folder / "vision"
    replace_small((own if is_folder(own) else folder) / GENERATION_FILE, f"{generation}\n".encode(), mode=0o640)
