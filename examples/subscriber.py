"""Counts of a fleet from any MQTT 5 broker: paho-mqtt, and the contract that devices are held to.

    pip install . paho-mqtt==2.2.0                 # in a clone
    python examples/subscriber.py localhost:1883

A line a message; at the end (Ctrl-C) the sums and gaps of each site. It keeps them in memory, and trusts a broker
without TLS: what a service needs besides is docs/aggregate-subscribe.md.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.contract import ContractError, decode_counts, parse_topic
from edge.types import EMOTIONS

GAP = 1_000_000
"""A device that leaves out more numbers is none."""


class Sums:
    """What came: `sites` has sums and notes of each, `runs` the greatest number of each run that is known of."""

    def __init__(self) -> None:
        self.sites: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.runs: Counter[tuple[str, str]] = Counter()
        self.came: dict[tuple[str, str, int], bytes] = {}

    def take(self, topic: str, payload: bytes) -> str:
        """Count a message once, and say what it was. Raises ContractError where it is no window of its topic."""
        topics, _ = parse_topic(topic)
        counts = decode_counts(payload)
        if (topics.site, topics.device) != (counts.site, counts.device):
            raise ContractError("topic and payload name two devices")
        if counts.window.start > datetime.now(UTC) + timedelta(days=1):
            raise ContractError("a window of the future")
        run, before = (counts.device, counts.boot_id), counts.prev
        ends = {run: counts.seq} | ({} if before is None else {(counts.device, before.boot_id): before.last_seq})
        if any(last - self.runs[ended] > GAP for ended, last in ends.items()):
            raise ContractError("more numbers left out than a device can")
        site, key = self.sites[counts.site], (*run, counts.seq)
        if key in self.came:  # at least once is what MQTT promises; of two that differ the first counts
            again = "duplicates" if self.came[key] == payload else "conflicts"
            site[again] += 1
            return f"{again}: {counts.device} {counts.boot_id}/{counts.seq}"
        self.came[key] = payload  # a service would keep a digest
        site["windows"] += 1
        for ended, last in ends.items():  # a run that is told of and never came is missing as a whole
            site["known"] += max(0, last - self.runs[ended])
            self.runs[ended] = max(self.runs[ended], last)
        if counts.window.time_quality != "unsynced":  # its day is not known
            for row in counts.counts.table().values():  # None: not released yet; negative numbers count too
                site["happy"] += row["happy"] or 0
                site["n"] += sum(row[emotion] or 0 for emotion in EMOTIONS)
        return f"{counts.site}/{counts.device} {counts.window.start:%F %T}: {counts.visitors} visitors"

    def told(self, site: str) -> str:
        """A site's sums in a line."""
        sums = self.sites[site]
        return (
            f"{site}: {sums['happy']} happy of {sums['n']}, {sums['windows']} windows, "
            f"{sums['known'] - sums['windows']} missing, {sums['duplicates']} came twice, {sums['conflicts']} conflicts"
        )


def main(address: str) -> None:
    """Subscribe until SIGINT or SIGTERM. Raises OSError where the broker cannot be reached."""
    sums = Sums()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)

    def subscribe(client: mqtt.Client, _u: object, _f: object, code: object, _p: object) -> None:
        print(f"connected: {code}", flush=True)
        client.subscribe("edge/v1/+/+/counts", qos=1)

    def take(_c: object, _u: object, message: mqtt.MQTTMessage) -> None:
        try:
            print(sums.take(message.topic, bytes(message.payload)), flush=True)
        except ContractError as error:
            print(f"refused: {error}", flush=True)

    client.on_connect, client.on_message = subscribe, take
    client.on_subscribe = lambda *_: print("subscribed", flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: client.disconnect())
    host, _, port = address.partition(":")
    keeps = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    keeps.SessionExpiryInterval = 3600  # what comes while the connection is broken is not lost
    client.connect(host, int(port or 1883), properties=keeps)
    client.loop_forever()
    for site in sorted(sums.sites):
        print(sums.told(site))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost:1883")
