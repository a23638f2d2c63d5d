"""Configurations in words, to be bent by tests."""

HEAD = """\
[device]
id = "kiosk-07"
site = "lobby"
purpose = "audience-statistics"
signage_acknowledged = true
[camera]
kind = "replay"
source = "clip.mp4"
[models]
bundle = "models/x"
"""

GOOD = f"""{HEAD}\
[storage]
outbox = "outbox.db"
runtime = "run"
"""
