"""The sections of `config.toml`, each key with its type, default and bounds. Imports nothing heavy."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from edge.config.camera import CameraSection
from edge.config.hosts import host_problem, is_loopback
from edge.config.section import Section
from edge.contract import CELL_LIMIT
from edge.types import Strategy  # noqa: TC001 - pydantic reads the annotation

Id = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
Place = Annotated[Path, Field(strict=False)]
"""A path, written as a string."""
FORBIDDEN: Final = re.compile(
    r"\b(workplaces?|work|employ\w*|staff|workforce|educat\w*|schools?|classrooms?|students?|pupils?|universit\w*)\b"
)
"""Words of a purpose at work or in education; a name cannot prove a use lawful, but an honest one is caught."""


class Device(Section):
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


class DetectorSection(Section):
    """How faces are found; `auto` is `blazeface` where the bundle has a detector, else `haar`.

    `min_face` in frame pixels; `rotations` are head rolls in degrees that `haar` searches; `tiles` rows of squares that
    `blazeface` searches besides the whole frame (None: as many as `min_face` needs), `budget_ms` the time in which it
    searches a frame of a camera: what it does not pay for waits for the next (None: 25, up to 60 on a slow machine).
    """

    kind: Literal["auto", "haar", "blazeface", "hog"] = "auto"
    min_face: int = Field(default=36, ge=20, le=4096)
    rotations: Annotated[tuple[Annotated[float, Field(ge=-180, le=180)], ...], Field(strict=False)] = (0.0, -35.0, 35.0)
    tiles: int | None = Field(default=None, ge=0, le=8)
    budget_ms: float | None = Field(default=None, ge=1, le=1000)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.rotations:
            msg = "rotations is empty: nothing would be searched; give at least [0]"
            raise ValueError(msg)
        if self.tiles is not None and self.kind in {"haar", "hog"}:
            msg = 'tiles goes with kind = "blazeface"'
            raise ValueError(msg)
        return self


class ModelsSection(Section):
    """Which bundle, how faces are routed, on what. `uncertain_below` overrides the bundle's threshold.

    `public_key`: a minisign public key, or the path of one; when set, the bundle must be signed by it.
    """

    bundle: Place
    public_key: str | None = Field(default=None, min_length=1)
    strategy: Strategy = "gate"
    accelerator: Literal["auto", "edgetpu", "cpu"] = "auto"
    runtime: Literal["auto", "litert", "tflite"] = "auto"
    uncertain_below: float | None = Field(default=None, ge=0, le=1)


class WindowSection(Section):
    """Length of a counting window in seconds."""

    seconds: float = Field(default=7200.0, ge=0.1, le=86400)


class PrivacySection(Section):
    """What is done to the counts before they may leave; epsilon is per window, daily_epsilon per UTC day."""

    noise: Literal["discrete-laplace", "off"] = "discrete-laplace"
    epsilon: float = Field(default=1.0, ge=1e-6, le=100)
    min_count: int = Field(default=10, ge=1, le=1_000_000)
    daily_epsilon: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _spendable(self) -> Self:
        if self.daily_epsilon is not None and (self.noise == "off" or self.daily_epsilon < self.epsilon):
            msg = "daily_epsilon needs noise, and room for at least one window's epsilon"
            raise ValueError(msg)
        return self


class KillSwitchSection(Section):
    """What closes the camera whatever is commanded: a file that exists, a contact (BCM pin to ground) that opens."""

    file: Place = Path("/etc/edge/pause")
    gpio: int | None = Field(default=None, ge=0, le=27)


class TlsSection(Section):
    """PEM files of mutual TLS."""

    ca: Place
    cert: Place
    key: Place


class MqttSection(Section):
    """The broker. The port defaults to 8883 with TLS, 1883 without. `home_assistant`: its discovery prefix."""

    host: str
    port: int = Field(default=8883, ge=1, le=65535)
    root: str = Field(default="edge", pattern=r"^[^/+#\x00]+(/[^/+#\x00]+)*$", max_length=1024)
    tls: TlsSection | None = None
    username: str | None = Field(default=None, max_length=1024)
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

    @field_validator("host")
    @classmethod
    def _is_a_host(cls, value: str) -> str:
        if (problem := host_problem(value)) is not None:
            raise ValueError(problem)
        return value

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if self.tls is None and not is_loopback(self.host) and not self.insecure:
            msg = f"without tls only a loopback host is allowed, not {self.host!r}: give tls, or say insecure = true"
            raise ValueError(msg)
        if self.password_file is not None and self.username is None:
            msg = "password_file needs username"
            raise ValueError(msg)
        return self


class WebSection(Section):
    """Status page and metrics of this device, for who is on it; left out: nothing listens."""

    host: Literal["127.0.0.1", "::1"] = "127.0.0.1"
    port: int = Field(default=9464, ge=0, le=65535)
    page: bool = True
    metrics: bool = True


class StorageSection(Section):
    """Where the outbox and the two runtime files lie; the outbox stays under `max_bytes`."""

    outbox: Place = Path("/var/lib/edge/outbox.db")
    runtime: Place = Path("/run/edge")
    max_bytes: int = Field(default=64 * 2**20, ge=2**20)


class ClockSection(Section):
    """How long windows of an unset clock are held back for a label, in seconds (None: by the camera's kind)."""

    hold_seconds: float | None = Field(default=None, ge=0, le=86400)


def _one_or_more(tables: object) -> object:
    """`[camera]` for one, `[[camera]]` for each of several."""
    if isinstance(tables, dict | CameraSection):
        return (tables,)
    return tuple(tables) if isinstance(tables, list) else tables


class Config(Section):
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

    @field_validator("privacy")
    @classmethod
    def _sendable(cls, value: PrivacySection, info: ValidationInfo) -> PrivacySection:
        """What a cell holds back over a day, six standard deviations of it, has to fit into the contract's bounds."""
        window = info.data.get("window")
        if window is not None and value.noise != "off":
            least = 6 * math.sqrt(2 * 86400 / window.seconds) / CELL_LIMIT
            if value.epsilon < least:
                msg = (
                    f"epsilon = {value.epsilon:g} is too little for windows of {window.seconds:g} s, "
                    f"at least {least:.2g}: the noise of a day would leave the contract's ±10⁶, "
                    "and such windows cannot be sent"
                )
                raise ValueError(msg)
        return value

    @property
    def live(self) -> bool:
        """Whether frames come from cameras, not from a replay."""
        return self.camera[0].kind != "replay"
