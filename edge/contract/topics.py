"""Topic names, `<root>/v1/<site>/<device>/…`, made and read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from edge.contract.fields import ID_PATTERN, ContractError

Command = Literal["replay", "pause", "resume", "paused", "identify"]
COMMANDS: Final[tuple[Command, ...]] = ("replay", "pause", "resume", "paused", "identify")

_TOPIC: Final = re.compile(
    r"(?P<root>.+)/v1/(?P<site>[a-z0-9-]{1,64})/(?P<device>[a-z0-9-]{1,64})"
    r"/(?P<leaf>status|health|counts|live|cmd/(?:replay|pause|resume|paused|identify)|reply/[a-z0-9-]{1,64})"
)


@dataclass(frozen=True, slots=True)
class Topics:
    """Topic names of one device, `<root>/v1/<site>/<device>/…`. Raises ContractError for a bad id or root."""

    root: str
    site: str
    device: str

    def __post_init__(self) -> None:
        """Check the three parts."""
        for name in ("site", "device"):
            if not re.fullmatch(ID_PATTERN[1:-1], getattr(self, name)):
                msg = f"{name} id {getattr(self, name)!r} does not match {ID_PATTERN}"
                raise ContractError(msg)
        if not re.fullmatch(r"[^/+#\0]+(/[^/+#\0]+)*", self.root):
            msg = f"topic root {self.root!r} is empty or has a wildcard or an empty level"
            raise ContractError(msg)

    def __call__(self, leaf: str) -> str:
        """The full topic of a leaf: `status`, `counts`, `cmd/replay`, `reply/<id>` and so on."""
        return f"{self.root}/v1/{self.site}/{self.device}/{leaf}"


def parse_topic(topic: str) -> tuple[Topics, str]:
    """The device and the leaf of a topic. Raises ContractError when it is none of the contract's."""
    match = _TOPIC.fullmatch(topic)
    if match is None:
        msg = f"topic {topic[:200]!a} is none of this contract's"
        raise ContractError(msg)
    return Topics(match["root"], match["site"], match["device"]), match["leaf"]
