"""The wire, and the one place that knows it: topics, payloads, encoding, CloudEvents properties.

What other programs may import stands here; the prose is docs/contract.md, and docs/schema/ and docs/asyncapi.yaml are
generated from it (`python -m edge.contract.asyncapi`). Models refuse undeclared fields when they are built, so an
encoder cannot send one; `decode_*` ignores fields it does not know: a newer device does not break an older subscriber.
A name's module is imported when the name is asked for: building the models takes a tenth of the vision service's start,
which reads a manifest by the same rules as the wire's JSON and sends nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.contract.codec import EVENT_TYPE, cloudevents, counts_payload, decode, decode_counts, encode
    from edge.contract.fields import CELL_LIMIT, EARLIEST, ID_PATTERN, WHOLE_LIMIT, ContractError, parse_utc, utc_text
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
    from edge.contract.strangers_json import DEPTH_LIMIT, SIZE_LIMIT, read_json
    from edge.contract.topics import COMMANDS, Command, Topics, parse_topic

__all__ = [
    "CELL_LIMIT",
    "COMMANDS",
    "DEPTH_LIMIT",
    "EARLIEST",
    "EVENT_TYPE",
    "ID_PATTERN",
    "PAYLOADS",
    "SCHEMA",
    "SIZE_LIMIT",
    "WHOLE_LIMIT",
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
    "parse_utc",
    "read_json",
    "utc_text",
]

_MODULES = ("strangers_json", "fields", "topics", "codec", "payloads")
"""Where the names lie, what is cheap to import first."""

if not TYPE_CHECKING:  # a type checker knows every name, and that there is no other

    def __getattr__(name: str) -> object:
        """The names of `__all__`, each from the first module that has it."""
        if name in __all__:
            for module in _MODULES:
                home = import_module(f"edge.contract.{module}")
                if hasattr(home, name):
                    return getattr(home, name)
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
