"""The wire, and the one place that knows it: topics, payloads, encoding, CloudEvents properties.

What other programs may import stands here; the prose is docs/contract.md, and docs/schema/ and docs/asyncapi.yaml are
generated from it (`python -m edge.contract.asyncapi`). Models refuse undeclared fields when they are built, so an
encoder cannot send one; `decode_*` ignores fields it does not know: a newer device does not break an older subscriber.
"""

from edge.contract.codec import EVENT_TYPE, cloudevents, counts_payload, decode, decode_counts, encode
from edge.contract.fields import CELL_LIMIT, ID_PATTERN, ContractError, utc_text
from edge.contract.payloads import (
    PAYLOADS,
    SCHEMA,
    Cells,
    Counts,
    DrawCells,
    Draws,
    Health,
    Models,
    OutboxFigures,
    Percentiles,
    Prev,
    Privacy,
    PrivacyFigures,
    ReplayAnswer,
    ReplayCommand,
    Rows,
    Status,
    Window,
)
from edge.contract.topics import COMMANDS, Command, Topics, parse_topic

__all__ = [
    "CELL_LIMIT",
    "COMMANDS",
    "EVENT_TYPE",
    "ID_PATTERN",
    "PAYLOADS",
    "SCHEMA",
    "Cells",
    "Command",
    "ContractError",
    "Counts",
    "DrawCells",
    "Draws",
    "Health",
    "Models",
    "OutboxFigures",
    "Percentiles",
    "Prev",
    "Privacy",
    "PrivacyFigures",
    "ReplayAnswer",
    "ReplayCommand",
    "Rows",
    "Status",
    "Topics",
    "Window",
    "cloudevents",
    "counts_payload",
    "decode",
    "decode_counts",
    "encode",
    "parse_topic",
    "utc_text",
]
