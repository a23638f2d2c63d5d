"""SIGKILLs at random moments of a kiosk's three services, two of which may be dead at one time."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

from tests.faults.kiosk import PATIENCE_S
from tests.support.wire import wait

if TYPE_CHECKING:
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
    """Kill each service a third of `times`, at random moments of its own; returns how often which."""

    def one(victim: Victim, seed: int) -> None:
        moments = random.Random(seed)  # noqa: S311 - moments, no secrets
        for _ in range(times // len(VICTIMS)):
            kill(kiosk, victim, moments.uniform(0, 0.5))

    with ThreadPoolExecutor(len(VICTIMS)) as pool:
        list(pool.map(one, VICTIMS, (chance.getrandbits(32) for _ in VICTIMS)))
    return Counter({f"sigkill_{victim}": times // len(VICTIMS) for victim in VICTIMS})
