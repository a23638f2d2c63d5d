"""The publisher as a process of its own: `python service.py FOLDER PORT [--retry S] [--lifeline DRAIN_S]`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import edge.desk
from edge.publisher import run_publisher

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.appliance import configuration


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--retry", type=float, default=60.0)
    parser.add_argument("--username")
    parser.add_argument("--lifeline", type=float)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    edge.desk.RETRY_S = arguments.retry  # type: ignore[misc] # a minute is too long for a test
    config = configuration(arguments.folder, arguments.port, username=arguments.username)
    return run_publisher(config, drain_timeout=arguments.lifeline, lifeline=arguments.lifeline is not None)


if __name__ == "__main__":
    sys.exit(main())
