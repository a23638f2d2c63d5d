"""The contract for machines: JSON Schema per payload and an AsyncAPI 3 document, from `edge.contract`.

`python -m edge.contract.asyncapi --write docs` rewrites docs/schema/ and docs/asyncapi.yaml, `--check docs` exits 1
when they are not what the models say.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge.contract import COMMANDS, EVENT_TYPE, ID_PATTERN, PAYLOADS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ADDRESS: Final = "{root}/v1/{site}/{device}/"
_SUMMARY: Final = {
    "status": "Whether the device is there. Retained, and the will.",
    "health": "How the service is: on connect, at each window close, every 60 s, as pauses begin and end. Retained.",
    "counts": "One window. Never retained, no expiry. Deduplicate by (device, boot_id, seq).",
    "live": "The last released window again, for dashboards. Retained, expires after two windows (MQTT 5).",
    "replay": "Asks for rows once more; they reappear unchanged on counts.",
    "pause": "Close the camera until resume; what follows is unknown, not zero.",
    "resume": "End a pause.",
    "paused": "Pause or resume, for programs that know one topic a switch.",
    "identify": "Let the device show which one it is.",
    "reply": "Answer to a replay where the request named no response topic (always under MQTT 3.1.1).",
}


def schema(name: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of a payload. Fields it does not name are allowed: decoders ignore them."""
    body = _opened(PAYLOADS[name].model_json_schema(by_alias=True, mode="serialization"))
    required = [
        alias.alias or field
        for field, alias in PAYLOADS[name].model_fields.items()
        if alias.is_required() or field == "schema_"
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{name}.schema.json",
        **body,
        "required": required,
    }


def _opened(node: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(node, dict):
        return {
            k: _opened(v)
            for k, v in node.items()
            if k != "additionalProperties" or v is not False
            if not (k == "title" and isinstance(v, str))
        }
    return [_opened(item) for item in node] if isinstance(node, list) else node


def document(version: str) -> dict[str, Any]:
    """The AsyncAPI 3 document. The device sends, a subscriber receives; commands the other way round."""
    parameters = {name: {"$ref": f"#/components/parameters/{name}"} for name in ("root", "site", "device")}
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}

    def channel(name: str, leaf: str, message: str | None, **bindings: object) -> None:
        channels[name] = {
            "address": _ADDRESS + leaf,
            "description": _SUMMARY[name],
            "parameters": parameters | ({"id": {"$ref": "#/components/parameters/id"}} if "{id}" in leaf else {}),
            "messages": {message: {"$ref": f"#/components/messages/{message}"}} if message else {},
        }
        command = leaf.startswith("cmd/")
        operations[name] = {
            "action": "receive" if command else "send",
            "channel": {"$ref": f"#/channels/{name}"},
            "bindings": {"mqtt": {"qos": 1, "retain": False, **bindings}},
        }

    channel("status", "status", "status", retain=True)
    channel("health", "health", "health", retain=True)
    channel("counts", "counts", "counts")
    channel("live", "live", "counts", retain=True)
    for command in COMMANDS:
        channel(command, f"cmd/{command}", {"replay": "replay-command", "paused": "switch"}.get(command, "command"))
    channel("reply", "reply/{id}", "replay-answer")
    operations["replay"]["reply"] = {
        "address": {"location": "$message.header#/responseTopic", "description": "else reply/<id>"},
        "channel": {"$ref": "#/channels/reply"},
    }
    messages: dict[str, Any] = {
        name: {
            "name": name,
            "contentType": "application/json",
            "payload": {
                "schemaFormat": "application/schema+json;version=draft-2020-12",
                "schema": {"$ref": f"schema/{name}.schema.json"},
            },
        }
        for name in PAYLOADS
    }
    messages["command"] = {"name": "command", "summary": "The payload is not read."}
    messages["switch"] = {"name": "switch", "summary": "true: pause, false: resume.", "payload": {"type": "boolean"}}
    messages["counts"]["headers"] = {
        "type": "object",
        "description": "CloudEvents 1.0 as MQTT 5 user properties; absent under 3.1.1.",
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "description": "<boot_id>/<seq>"},
            "source": {"type": "string", "description": "/<site>/<device>"},
            "type": {"const": EVENT_TYPE},
            "time": {"type": "string", "format": "date-time", "description": "the window's end"},
        },
    }
    described = {
        "root": "Configured prefix, edge by default.",
        "site": "Where.",
        "device": "Unique in a fleet.",
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Anonymised facial-expression counts",
            "version": version,
            "description": "Generated from edge/contract; the prose is contract.md.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "parameters": {k: {"description": v} for k, v in described.items()}
            | {"id": {"description": f"The request's id, {ID_PATTERN}."}},
            "messages": messages,
        },
    }


def yaml_lines(node: object, indent: int = 0) -> Iterator[str]:
    """Block YAML of plain JSON data; a scalar is written as JSON, which YAML reads as the same."""
    pad = "  " * indent
    items = node.items() if isinstance(node, dict) else ((None, item) for item in node)  # type: ignore[attr-defined]
    for key, value in items:
        head = f"{pad}-" if key is None else f"{pad}{_yaml_key(key)}:"
        if isinstance(value, dict | list) and value:
            yield head
            yield from yaml_lines(value, indent + 1)
        else:
            yield f"{head} {json.dumps(value, ensure_ascii=False)}"


def _yaml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z][\w-]*", key) else json.dumps(key)


def files() -> dict[str, str]:
    """What docs/ must hold: path → text."""
    made = {
        f"schema/{name}.schema.json": json.dumps(schema(name), indent=1, ensure_ascii=False) + "\n" for name in PAYLOADS
    }
    made["asyncapi.yaml"] = "\n".join(yaml_lines(document("1.0.0"))) + "\n"
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check; see the module."""
    parser = argparse.ArgumentParser(prog="python -m edge.contract.asyncapi", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", type=Path, metavar="DOCS")
    what.add_argument("--check", type=Path, metavar="DOCS")
    chosen = parser.parse_args(arguments)
    stale = []
    for name, text in files().items():
        path = (chosen.write or chosen.check) / name
        if chosen.write is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(str(path))
    if stale:
        sys.stderr.write(f"not what edge/contract/payloads.py says: {', '.join(stale)}; run --write\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
