"""Reading `config.toml`: every problem at once, with its line."""

from __future__ import annotations

import difflib
import itertools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from edge.bundle.newest import newest_bundle
from edge.bundle.signature import is_key
from edge.config.camera import CameraSection
from edge.config.schema import Config, Device, ModelsSection
from edge.config.text import decode_text
from edge.errors import ConfigError
from edge.process.shown import shown
from edge.toml import read_toml

if TYPE_CHECKING:
    from collections.abc import Sequence


class Problem(NamedTuple):
    """One thing wrong with a file: its line (1-based; None for the file as a whole), its key, what and how to mend."""

    line: int | None
    key: str
    message: str


class ConfigProblems(ConfigError):
    """All problems of one file."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.path, self.problems = path, list(problems)
        super().__init__("\n".join(shown(f"{path}:{p.line or 1}: {p.key}: {p.message}") for p in self.problems))


_PATHS: Final = (
    ("camera", "source"),
    ("camera", "password_file"),
    ("models", "bundle"),
    ("models", "public_key"),
    ("mqtt", "password_file"),
    ("mqtt", "tls", "ca"),
    ("mqtt", "tls", "cert"),
    ("mqtt", "tls", "key"),
    ("kill_switch", "file"),
    ("storage", "outbox"),
    ("storage", "runtime"),
)


def load(path: Path) -> Config:
    """Read and check a file. Raises ConfigProblems with every problem, or ConfigError when it cannot be read."""
    try:
        text = decode_text(path.read_bytes())
    except OSError as error:
        msg = f"{path}: {error.strerror}: --config must name a TOML file"
        raise ConfigError(msg) from error
    except ValueError as error:
        msg = f"{path}: {error}"
        raise ConfigError(msg) from error
    try:
        table = read_toml(text)
    except ValueError as error:  # a TOMLDecodeError is one; so is a number too long to be read, or a day that is none
        at = re.search(r"line (\d+)", str(error))
        raise ConfigProblems(path, [Problem(int(at[1]) if at else None, "TOML", str(error))]) from error
    try:
        return Config.model_validate(_absolute(table, path.resolve().parent))
    except ValidationError as error:
        lines = _lines(text)
        problems = [
            _problem(tuple(map(str, e["loc"])), e["type"], e["msg"], lines) for e in error.errors(include_url=False)
        ]
        raise ConfigProblems(path, sorted(problems, key=lambda p: p.line or 0)) from error


def line_of(path: Path, *key: str) -> int | None:
    """Line of a key in a file that `load` has read, or of its section."""
    lines = _lines(decode_text(path.read_bytes()))
    return next((lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in lines), None)


def development(source: str | None = None, models: Path | None = None) -> Config:
    """What commands run with when no --config is given: development mode, newest bundle, no publishing.

    Raises ConfigError when there is no bundle under ./models or beside the package.
    """
    folders = [models] if models else [Path("models"), Path(__file__).resolve().parents[2] / "models"]
    bundle = next((b for b in map(newest_bundle, folders) if b), None)
    if bundle is None:
        msg = "no model bundle under ./models: run from a folder that has one, or name it with --config"
        raise ConfigError(msg)
    return Config(
        device=Device(id="development", site="desk", purpose="development", mode="development"),
        camera=(camera_of(source),),
        models=ModelsSection(bundle=bundle),
    )


def camera_of(source: str | None) -> CameraSection:
    """The camera that `--source` names. Raises ConfigError, which repeats nothing of it: it may hold a password."""
    if source is not None and not _is_text(source):
        msg = "--source: the name is no UTF-8: rename the file, or give the folder it lies in"
        raise ConfigError(msg)
    try:
        return CameraSection(kind=_kind_of(source), source=source)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        what = "is empty: give a clip, a picture, a folder or /dev/video0" if source == "" else first["msg"]
        msg = f"--source: {what.removeprefix('Value error, ')}"
        raise ConfigError(msg) from None


def _is_text(name: str) -> bool:
    """Whether a name from the command line was UTF-8: Python keeps other bytes as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind_of(source: str | None) -> Literal["v4l2", "rtsp", "replay"]:
    """Which camera a `--source` means: a device, an address, else a path, colons and all.

    Raises ConfigError for an address that is not RTSP; it is not repeated, for it may hold a password.
    """
    if source is None or source.startswith("/dev/v"):
        return "v4l2"
    if source.lower().startswith(("rtsp://", "rtsps://")):
        return "rtsp"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source) and not os.path.exists(source):  # noqa: PTH110 - never raises
        msg = "--source: only rtsp:// and rtsps:// addresses are watched: give one, a device, or a file or folder"
        raise ConfigError(msg)
    try:
        return "v4l2" if source and Path(source).is_char_device() else "replay"
    except OSError:  # whoever opens it says what is wrong with it
        return "replay"


def _absolute(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Resolve relative paths against the file's folder; whatever is of the wrong type is left for the check."""
    for *sections, key in _PATHS:
        place: Any = table
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        for one in place if isinstance(place, list) else [place]:
            if not isinstance(one, dict) or not isinstance(one.get(key), str) or not one[key] or is_key(one[key]):
                continue
            if key != "source" or one.get("kind") in {"replay", "v4l2"}:  # elsewhere it is no path
                one[key] = str(folder / one[key])
    return table


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Line of each section and key written at the start of a line (dotted keys and inline tables: their line)."""
    found: dict[tuple[str, ...], int] = {}
    section: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*(\[\[?)([^\]]+)\]", line):
            section = tuple(part.strip().strip("\"'") for part in header[2].split("."))
            found.setdefault(section, number)
            if header[1] == "[[":  # the tables of an array are numbered
                section = (*section, str(next(n for n in itertools.count() if (*section, str(n)) not in found)))
                found[section] = number
        elif pair := re.match(r"\s*([A-Za-z0-9_.\"'-]+)\s*=", line):
            key = tuple(part.strip("\"'") for part in pair[1].split("."))
            found.setdefault((*section, *key), number)
    return found


def _problem(loc: tuple[str, ...], kind: str, message: str, lines: dict[tuple[str, ...], int]) -> Problem:
    if loc[:2] == ("camera", "0") and loc[:2] not in lines:  # a single [camera]
        loc = loc[:1] + loc[2:]
    line = next((lines[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in lines), None)
    if kind == "extra_forbidden":
        message = "unknown key" + _did_you_mean(loc)
    elif kind == "missing":
        message = "is missing: add it"
    return Problem(line, shown(".".join(loc)) or "file", shown(message.removeprefix("Value error, ")))


def _did_you_mean(loc: tuple[str, ...]) -> str:
    models: list[type[BaseModel]] = [Config]
    for name in loc[:-1]:
        models = [m for model in models if name in model.model_fields for m in _within(model, name)] or models
    known = [name for model in models for name in model.model_fields]
    near = difflib.get_close_matches(loc[-1], known, 1)
    return f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}"


def _within(model: type[BaseModel], field: str) -> list[type[BaseModel]]:
    """The sections that a field may hold."""
    found: list[type[BaseModel]] = []
    waiting: list[Any] = [model.model_fields[field].annotation]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found.append(kind)
        waiting += get_args(kind)
    return found
