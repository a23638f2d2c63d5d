"""An option that another one makes meaningless is refused in a line, before anything is opened."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest
from edge_aggregate.cli import main
from edge_aggregate.commands import ingest, subscribe

from tests.support.refused import refused

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("ingest", "--files", "log.jsonl", "--store", "store.db")
BROKER = ("ingest", "--broker", "127.0.0.1:1", "--landing", "landing", "--store", "store.db")
LOG = ("simulate", "--devices", "1", "--minutes", "60", "--out", "log")
TO_BROKER = (*LOG[:-2], "--broker", "127.0.0.1:1")
LETTERS = ("export", "--store", "store.db", "--dead-letters")
HASH = ("serve", "--hash-password", "anna")
_OF_SUBSCRIBER = "only of a subscriber: leave out with --files, or give --broker instead of --files"
_OF_FILES = "only of --files: leave out with --broker, which subscribes"
_OF_BROKER = "of a broker: leave out with --out, which writes a log"
_OF_PAGES = "leave out with --hash-password, which prints a line and serves nothing"
_ALL_LETTERS = "leave out --last, --from, --to, --site, --sites, --zone and --by"


@pytest.mark.parametrize(
    ("command", "option", "message"),
    [
        *(
            (FILES, option, f"{option[0]}: {_OF_SUBSCRIBER}")
            for option in (
                *(("--root", "r"), ("--tls-ca", "ca.crt"), ("--tls-cert", "a.crt"), ("--tls-key", "a.key")),
                *(("--username", "a"), ("--password-file", "p"), ("--insecure",), ("--landing", "landing")),
                *(("--client-id", "a"), ("--share", "g"), ("--batch", "10"), ("--every", "1")),
                *(("--replay-every", "1h"), ("--metrics-port", "9102")),
            )
        ),
        (FILES, ("--landing", "l", "--share", "g"), f"--landing, --share: {_OF_SUBSCRIBER}"),
        *(
            (BROKER, option, f"{option[0]}: {_OF_FILES}")
            for option in (
                *(("--quiet",), ("--runner", "spark"), ("--master", "local"), ("--follow",)),
                ("--checkpoint", "c"),
            )
        ),
        (BROKER, ("--tls-ca", "ca.crt", "--tls-key", "a.key"), "--tls-key without --tls-cert: give the certificate"),
        (BROKER, ("--tls-ca", "ca.crt", "--insecure"), "--insecure is for brokers without TLS: leave it out with"),
        *(
            (LOG, option, f"{option[0]}: {_OF_BROKER}")
            for option in (
                *(("--tls-ca", "ca.crt"), ("--tls-cert", "a.crt"), ("--tls-key", "a.key"), ("--username", "a")),
                *(("--password-file", "p"), ("--insecure",)),
            )
        ),
        (TO_BROKER, ("--live", "--stay", "5"), "--stay: leave out with --live, which answers replays until"),
        *(
            (LETTERS, option, _ALL_LETTERS)
            for option in (
                *(("--last", "7d"), ("--from", "2026-03-02"), ("--to", "2026-03-02"), ("--site", "all")),
                *(("--sites", "sites.toml"), ("--zone", "UTC"), ("--by", "day"), ("--by", "period")),
            )
        ),
        *(
            (HASH, option, f"{option[0]}: {_OF_PAGES}")
            for option in (
                *(("--store", "store.db"), ("--sites", "s.toml"), ("--listen", "0.0.0.0:1"), ("--passwords", "p")),
                *(("--tls-cert", "a.crt"), ("--tls-key", "a.key"), ("--behind-proxy",)),
            )
        ),
    ],
)
def test_it_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    option: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *command, *option)
    assert main([*command, *option]) == 2
    assert list(tmp_path.iterdir()) == []


def test_every_option_of_ingest_is_of_files_or_of_a_subscriber_or_of_both() -> None:
    """One that is added must say where it means something, or it would be ignored in the other."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    ingest.add(commands)
    options = {action.dest for action in commands.choices["ingest"]._actions}
    assert options == {*subscribe.OPTIONS, *ingest._OF_FILES, "help", "store", "files", "broker"}
