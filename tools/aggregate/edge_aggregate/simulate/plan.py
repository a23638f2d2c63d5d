"""What is asked of a simulation, checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from edge.contract import EARLIEST, ContractError, Topics
from edge.errors import ConfigError
from edge.types import CELLS, EMOTIONS

if TYPE_CHECKING:
    from datetime import datetime

DAY_MS: Final = 86_400_000
WINDOWS_S: Final = 10, 86_400
"""Seconds of a window: a device cuts within a day."""
DEVICES: Final = 1_000_000
EPSILONS: Final = 0.01, 100.0
"""Below, the noise of a window is wider than a busy day; above, there is none."""
EXACT: Final = tuple(tuple(int(i == j) for j in range(len(CELLS))) for i in range(len(EMOTIONS)))
"""The table of a classifier that makes no mistakes."""


def _digest(role: str) -> str:
    return "sha256:" + sha256(f"simulated {role}".encode()).hexdigest()


def _is_root(text: str) -> bool:
    try:
        Topics(text, "site", "device")
    except ContractError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Classifier:
    """How faces are read, per route: 7 rows (the true expression) of 8 cells, as counts; and the models' digests."""

    unmasked: tuple[tuple[int, ...], ...] = EXACT
    masked: tuple[tuple[int, ...], ...] = EXACT
    gate: str = _digest("gate")
    fer_unmasked: str = _digest("fer_unmasked")
    fer_masked: str = _digest("fer_masked")


@dataclass(frozen=True, slots=True)
class Faults:
    """How often things go wrong, each 0 to 1 of the windows.

    `outages`: in a network outage, so that they come late and in bursts. `late`: late one by one, a few by more than 30
    days. `duplicates`: sent once more. `lost`: never come; half of them are lost on the device, at the end of a run.
    `clock_errors`: counted in holdover, or by a clock that is not set. `conflicts`: another payload claims the same
    key. `hostile`: messages of strangers, per window.
    """

    outages: float = 0.02
    duplicates: float = 0.01
    late: float = 0.01
    lost: float = 0.002
    clock_errors: float = 0.005
    hostile: float = 0.002
    conflicts: float = 0.0005


@dataclass(frozen=True, slots=True)
class Plan:
    """A simulation. Times are milliseconds since 1970, UTC; `seconds` a window's length; `epsilon` None: no noise.

    `visitors` is the mean per kiosk and opened hour, `happy` the mean share of them; `restarts` per device and day.
    `lines`: faults of a log's lines, and not only of messages, may occur. Raises ConfigError.
    """

    devices: int
    minutes: float
    start: datetime
    seconds: int = 3600
    sites: int = 0
    seed: int = 0
    epsilon: float | None = 1.0
    min_count: int = 10
    visitors: float = 30.0
    happy: float = 0.25
    restarts: float = 0.1
    faults: Faults = Faults()
    classifier: Classifier = field(default_factory=Classifier)
    root: str = "edge"
    lines: bool = True

    def __post_init__(self) -> None:
        """Refuse what makes no fleet."""
        wrong = (
            (not 1 <= self.devices <= DEVICES, f"--devices {self.devices}: give 1 to {DEVICES}"),
            (not 0 <= self.sites <= self.devices, f"--sites {self.sites}: give 1 to the number of devices"),
            (
                not WINDOWS_S[0] <= self.seconds <= WINDOWS_S[1],
                f"--windows {self.seconds}: give {WINDOWS_S[0]} to {WINDOWS_S[1]} seconds",
            ),
            (
                self.minutes * 60 < self.seconds,
                f"--minutes {self.minutes:g}: is less than one window of {self.seconds} s",
            ),
            (self.minutes > 60 * 24 * 3660, f"--minutes {self.minutes:g}: is over ten years"),
            (
                self.start < EARLIEST or self.start.year >= 2900,
                f"--start {self.start.isoformat()}: no window starts before {EARLIEST.year}, or so far ahead",
            ),
            (
                self.epsilon is not None and not EPSILONS[0] <= self.epsilon <= EPSILONS[1],
                f"--epsilon {self.epsilon}: give {EPSILONS[0]} to {EPSILONS[1]:g}, or off",
            ),
            (not 0 <= self.min_count <= 10_000, f"--min-count {self.min_count}: give 0 to 10000"),
            (not 0 <= self.visitors <= 10_000, f"--visitors {self.visitors:g}: give 0 to 10000 an hour"),
            (not 0 <= self.happy <= 1, f"--happy {self.happy:g}: is a share, give 0 to 1"),
            (not _is_root(self.root), f"--root {self.root!r:.80}: has a wildcard or an empty level"),
            (not 0 <= self.restarts <= 24, f"--restarts {self.restarts:g}: give 0 to 24 a day"),
        )
        for is_so, msg in wrong:
            if is_so:
                raise ConfigError(msg)

    @property
    def start_ms(self) -> int:
        """When the simulation begins."""
        return round(self.start.timestamp() * 1000)

    @property
    def end_ms(self) -> int:
        """When it ends: windows that end later are not made."""
        return self.start_ms + round(self.minutes * 60_000)

    @property
    def site_count(self) -> int:
        """How many sites; a third of the devices where nothing is said."""
        return self.sites or (self.devices + 2) // 3
