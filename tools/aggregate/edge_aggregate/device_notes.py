"""What the page of the fleet shows of what a device last said of itself: who writes it asks whether that changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edge_aggregate.store.fleet import Member

HOT_C: Final = 80
"""A Pi slows itself from here on."""
CERTIFICATE_DAYS: Final = 30
REMOVED: Final = "removed"
"""The state of a device whose retained status was taken away: whoever does that, wants it listed no more."""
_HOUR_MS: Final = 3_600_000


def notes(member: Member) -> list[str]:
    """What is to be looked at, by its health and its status."""
    health = json.loads(member.health) if member.health else {}
    days = health.get("certificate_days")
    return [
        *([f"scene {health['scene']}"] if health.get("scene", "ok") != "ok" else []),
        *(["paused"] if health.get("paused") else []),
        *([f"frames: {health['rate']}"] if health.get("rate", "ok") != "ok" else []),
        *([f"{health['outbox']['unsent']} rows unsent"] if health.get("outbox", {}).get("unsent") else []),
        *([f"{health['soc_c']:.0f} °C"] if (health.get("soc_c") or 0) >= HOT_C else []),
        *(["supply too weak"] if health.get("under_voltage") else []),
        *([f"certificate ends in {days:.0f} days"] if days is not None and days < CERTIFICATE_DAYS else []),
        *([member.trouble] if member.trouble else []),
    ]


def spoke_ms(member: Member) -> int:
    """When it last said anything of itself."""
    return max(member.status_ms or 0, member.health_ms or 0)


def shown(member: Member) -> tuple[str | int | None, ...]:
    """What a reader sees of it. When it was heard, to the hour: a health comes every minute, and says mostly the same.

    One minute more would make every page anew for everybody who looks.
    """
    heard = spoke_ms(member) // _HOUR_MS
    return member.site, member.state, member.version, heard, taken_away(member), *notes(member)


def taken_away(member: Member, counted_ms: int = 0) -> bool:
    """Whether its retained status was taken from the broker, and nothing came after; `counted_ms`: its last window."""
    return member.state == REMOVED and max(member.health_ms or 0, counted_ms) <= (member.status_ms or 0)
