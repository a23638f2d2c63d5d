"""The publisher as a process of its own: `python service.py FOLDER PORT [options]`.

`--clock FILE` gives it a clock that is told the time (tests/support/told_clock.py), `--hold` makes it wait for it.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import edge.publisher.delivery_stats
import edge.publisher.dispatch
import edge.publisher.session
from edge.publisher.service import run_publisher

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.appliance import TlsFiles, configuration
from tests.support.told_clock import ToldClock


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--retry", type=float, default=60.0)
    parser.add_argument("--username")
    parser.add_argument("--lifeline", type=float)
    parser.add_argument("--keepalive", type=int, default=edge.publisher.session.KEEPALIVE_S)
    parser.add_argument("--answer", type=float, default=edge.publisher.delivery_stats.ANSWER_S)
    parser.add_argument("--held", type=float, default=edge.publisher.session.HELD_S)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--clock", type=Path)
    parser.add_argument("--hold", type=float)
    parser.add_argument("--web", type=int, metavar="PORT")
    parser.add_argument("--home-assistant")
    parser.add_argument("--protocol", default="auto")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    edge.publisher.dispatch.RETRY_S = arguments.retry  # type: ignore[misc] # a minute is too long for a test
    edge.publisher.session.KEEPALIVE_S = arguments.keepalive  # type: ignore[misc] # and so is half a minute
    edge.publisher.delivery_stats.ANSWER_S = arguments.answer  # type: ignore[misc] # and two of them
    edge.publisher.session.HELD_S = arguments.held  # type: ignore[misc]
    tls = TlsFiles.of(arguments.folder, "device") if arguments.tls else None
    options = {"hold": arguments.hold, "web": arguments.web, "username": arguments.username}
    options |= {"home_assistant": arguments.home_assistant, "protocol": arguments.protocol}
    config = configuration(arguments.folder, arguments.port, tls=tls, **options)
    clock = None if arguments.clock is None else ToldClock(arguments.clock)
    return run_publisher(config, drain_timeout=arguments.lifeline, lifeline=arguments.lifeline is not None, clock=clock)


if __name__ == "__main__":
    sys.exit(main())
