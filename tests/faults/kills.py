"""SIGKILLs at random moments of a kiosk's three services."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Literal

from tests.faults.kiosk import PATIENCE_S
from tests.wire import wait

if TYPE_CHECKING:
    import random

    from tests.faults.kiosk import Kiosk

Victim = Literal["vision", "publisher", "broker"]
VICTIMS: tuple[Victim, ...] = ("vision", "publisher", "broker")


def kill(kiosk: Kiosk, victim: Victim, moment: float) -> None:
    """Let it run for `moment` s, SIGKILL it, start it again and wait until it works."""
    time.sleep(moment)
    if victim == "broker":
        connected = kiosk.connected()
        kiosk.broker.kill()
        kiosk.broker.start()
        wait(lambda: kiosk.connected() > connected, PATIENCE_S, kiosk.publisher_log.read_text)
        return
    process = kiosk.vision if victim == "vision" else kiosk.publisher
    assert process is not None
    assert process.poll() is None, f"{victim} has ended by itself"
    process.kill()
    process.wait(10)
    if victim == "vision":
        kiosk.start_vision()
    else:
        kiosk.start_publisher()


def kill_at_random(kiosk: Kiosk, times: int, chance: random.Random) -> Counter[str]:
    """Kill each service in turn, in a random order and at random moments; returns how often which."""
    victims = [VICTIMS[n % len(VICTIMS)] for n in range(times)]
    chance.shuffle(victims)
    for victim in victims:
        kill(kiosk, victim, chance.uniform(0, 0.5))
    return Counter(f"sigkill_{victim}" for victim in victims)
