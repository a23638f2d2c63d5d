"""`config.toml`: every problem at once, with its line. The only place that knows TOML; imports nothing heavy."""

from __future__ import annotations

import difflib
import itertools
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from edge.bundle_name import newest_bundle
from edge.config_camera import CameraSection
from edge.errors import ConfigError
from edge.signature import is_key
from edge.types import Strategy  # noqa: TC001 - pydantic reads the annotation

if TYPE_CHECKING:
    from collections.abc import Sequence

Id = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
Place = Annotated[Path, Field(strict=False)]
"""A path, written as a string."""
FORBIDDEN: Final = re.compile(
    r"\b(workplaces?|work|employ\w*|staff|workforce|educat\w*|schools?|classrooms?|students?|pupils?|universit\w*)\b"
)
"""Words of a purpose at work or in education; a name cannot prove a use lawful, but an honest one is caught."""
LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Device(_Section):
    """Who and where this kiosk is, and what it is for."""

    id: Id
    site: Id
    purpose: str
    mode: Literal["production", "development"] = "production"
    signage_acknowledged: Annotated[bool, Field(validate_default=True)] = False

    @field_validator("purpose")
    @classmethod
    def _lawful(cls, value: str) -> str:
        if FORBIDDEN.search(value.lower().replace("_", "-")):
            msg = (
                f"{value!r} is refused: inferring emotions at work and in education is prohibited "
                "(EU AI Act, Regulation 2024/1689, Art. 5(1)(f))"
            )
            raise ValueError(msg)
        if not value.strip():
            msg = 'say what the counts are for, e.g. "audience-statistics"'
            raise ValueError(msg)
        return value

    @field_validator("signage_acknowledged")
    @classmethod
    def _signage(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic calls it so
        # A field's validator, not the section's: it speaks beside the section's other problems.
        if not value and info.data.get("mode") != "development":
            msg = "must be true: people must be told (EU AI Act, Art. 50(3)); put up the sign, then say so"
            raise ValueError(msg)
        return value


class DetectorSection(_Section):
    """How faces are found; `auto` is `blazeface` where the bundle has a detector, else `haar`.

    `min_face` in frame pixels; `rotations` are head rolls in degrees that `haar` searches; `tiles` rows of squares that
    `blazeface` searches besides the whole frame (None: as many as `min_face` needs).
    """

    kind: Literal["auto", "haar", "blazeface", "hog"] = "auto"
    min_face: int = Field(default=36, ge=20, le=4096)
    rotations: Annotated[tuple[Annotated[float, Field(ge=-180, le=180)], ...], Field(strict=False)] = (0.0, -35.0, 35.0)
    tiles: int | None = Field(default=None, ge=0, le=8)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.rotations:
            msg = "rotations is empty: nothing would be searched; give at least [0]"
            raise ValueError(msg)
        if self.tiles is not None and self.kind in {"haar", "hog"}:
            msg = 'tiles goes with kind = "blazeface"'
            raise ValueError(msg)
        return self


class ModelsSection(_Section):
    """Which bundle, how faces are routed, on what. `uncertain_below` overrides the bundle's threshold.

    `public_key`: a minisign public key, or the path of one; when set, the bundle must be signed by it.
    """

    bundle: Place
    public_key: str | None = Field(default=None, min_length=1)
    strategy: Strategy = "gate"
    accelerator: Literal["auto", "edgetpu", "cpu"] = "auto"
    uncertain_below: float | None = Field(default=None, ge=0, le=1)


class WindowSection(_Section):
    """Length of a counting window in seconds."""

    seconds: float = Field(default=7200.0, ge=0.1, le=86400)


class PrivacySection(_Section):
    """What is done to the counts before they may leave; epsilon is per window, daily_epsilon per UTC day."""

    noise: Literal["discrete-laplace", "off"] = "discrete-laplace"
    epsilon: float = Field(default=1.0, gt=0, le=100)
    min_count: int = Field(default=10, ge=1, le=1_000_000)
    daily_epsilon: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _spendable(self) -> Self:
        if self.daily_epsilon is not None and (self.noise == "off" or self.daily_epsilon < self.epsilon):
            msg = "daily_epsilon needs noise, and room for at least one window's epsilon"
            raise ValueError(msg)
        return self


class KillSwitchSection(_Section):
    """What closes the camera whatever is commanded: a file that exists, a contact (BCM pin to ground) that opens."""

    file: Place = Path("/etc/edge/pause")
    gpio: int | None = Field(default=None, ge=0, le=27)


class TlsSection(_Section):
    """PEM files of mutual TLS."""

    ca: Place
    cert: Place
    key: Place


class MqttSection(_Section):
    """The broker. The port defaults to 8883 with TLS, 1883 without. `home_assistant`: its discovery prefix."""

    host: str = Field(min_length=1)
    port: int = Field(default=8883, ge=1, le=65535)
    root: str = Field(default="edge", pattern=r"^[^/+#\x00]+(/[^/+#\x00]+)*$")
    tls: TlsSection | None = None
    username: str | None = None
    password_file: Place | None = None
    insecure: bool = False
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    home_assistant: str | None = Field(default=None, pattern=r"^[^/+#\x00]+(/[^/+#\x00]+)*$")

    @model_validator(mode="before")
    @classmethod
    def _plain_port(cls, data: Any) -> Any:  # noqa: ANN401 - whatever TOML held
        if isinstance(data, dict) and "tls" not in data:
            return {"port": 1883, **data}
        return data

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if self.tls is None and self.host not in LOOPBACK and not self.insecure:
            msg = f"without tls only a loopback host is allowed, not {self.host!r}: give tls, or say insecure = true"
            raise ValueError(msg)
        if self.password_file is not None and self.username is None:
            msg = "password_file needs username"
            raise ValueError(msg)
        return self


class WebSection(_Section):
    """Status page and metrics of this device, for who is on it; left out: nothing listens."""

    host: Literal["127.0.0.1", "::1"] = "127.0.0.1"
    port: int = Field(default=9464, ge=0, le=65535)
    page: bool = True
    metrics: bool = True


class StorageSection(_Section):
    """Where the outbox and the two runtime files lie; the outbox stays under `max_bytes`."""

    outbox: Place = Path("/var/lib/edge/outbox.db")
    runtime: Place = Path("/run/edge")
    max_bytes: int = Field(default=64 * 2**20, ge=2**20)


class ClockSection(_Section):
    """How long windows of an unset clock are held back for a label, in seconds (None: by the camera's kind)."""

    hold_seconds: float | None = Field(default=None, ge=0, le=86400)


def _one_or_more(tables: object) -> object:
    """`[camera]` for one, `[[camera]]` for each of several."""
    if isinstance(tables, dict | CameraSection):
        return (tables,)
    return tuple(tables) if isinstance(tables, list) else tables


class Config(_Section):
    """The whole file."""

    device: Device
    camera: Annotated[tuple[CameraSection, ...], BeforeValidator(_one_or_more), Field(min_length=1, max_length=8)]
    models: ModelsSection
    detector: DetectorSection = DetectorSection()
    window: WindowSection = WindowSection()
    privacy: PrivacySection = PrivacySection()
    kill_switch: KillSwitchSection = KillSwitchSection()
    mqtt: MqttSection | None = None
    web: WebSection | None = None
    storage: StorageSection = StorageSection()
    clock: ClockSection = ClockSection()

    @field_validator("camera")
    @classmethod
    def _of_one_time(cls, value: tuple[CameraSection, ...]) -> tuple[CameraSection, ...]:
        if len({camera.kind == "replay" for camera in value}) > 1:
            msg = "live cameras and replays do not go together: their clocks differ"
            raise ValueError(msg)
        return value

    @property
    def live(self) -> bool:
        """Whether frames come from cameras, not from a replay."""
        return self.camera[0].kind != "replay"


class Problem(NamedTuple):
    """One thing wrong with a file: its line (1-based; None for the file as a whole), its key, what and how to mend."""

    line: int | None
    key: str
    message: str


class ConfigProblems(ConfigError):
    """All problems of one file."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.path, self.problems = path, list(problems)
        super().__init__("\n".join(f"{path}:{p.line or 1}: {p.key}: {p.message}" for p in self.problems))


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
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        msg = f"{path}: {reason}: --config must name a TOML file"
        raise ConfigError(msg) from error
    except tomllib.TOMLDecodeError as error:
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
    lines = _lines(path.read_text(encoding="utf-8"))
    return next((lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in lines), None)


def development(source: str | None = None, models: Path | None = None) -> Config:
    """What commands run with when no --config is given: development mode, newest bundle, no publishing.

    Raises ConfigError when there is no bundle under ./models or beside the package.
    """
    folders = [models] if models else [Path("models"), Path(__file__).resolve().parent.parent / "models"]
    bundle = next((b for b in map(newest_bundle, folders) if b), None)
    if bundle is None:
        msg = "no model bundle under ./models: run from a folder that has one, or name it with --config"
        raise ConfigError(msg)
    return Config(
        device=Device(id="development", site="desk", purpose="development", mode="development"),
        camera=(CameraSection(kind=_kind_of(source), source=source),),
        models=ModelsSection(bundle=bundle),
    )


def _kind_of(source: str | None) -> Literal["v4l2", "rtsp", "replay"]:
    if source is None or source.startswith("/dev/v"):
        return "v4l2"
    return "rtsp" if source.startswith(("rtsp://", "rtsps://")) else "replay"


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
    return Problem(line, ".".join(loc) or "file", message.removeprefix("Value error, "))


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
