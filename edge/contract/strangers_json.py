"""The one place that decodes JSON of strangers: bounded in size and depth, one error for all."""

from __future__ import annotations

from typing import Final

from pydantic_core import from_json

from edge.contract.fields import ContractError

SIZE_LIMIT: Final = 65_536
"""Bytes of a payload; the largest that a device sends has a few thousand."""
DEPTH_LIMIT: Final = 200
"""Arrays and objects inside one another, at most: the parser's own bound, without recursion in Python."""


def read_json(data: bytes | str, *, limit: int = SIZE_LIMIT) -> object:
    """Plain data of one JSON text: strict UTF-8, no NaN, no lone surrogates.

    Args:
        data: the text, or its bytes.
        limit: bytes (of a str: characters) that it may have.

    Raises:
        ContractError: it is none, or beyond `limit` or `DEPTH_LIMIT`; in one line that repeats nothing of it.

    """
    if len(data) > limit:
        msg = f"not JSON that is read here: {len(data)} bytes, {limit} are allowed"
        raise ContractError(msg)
    try:
        found: object = from_json(data, allow_inf_nan=False)
    except (ValueError, OverflowError, RecursionError, TypeError) as error:
        # A str with half a surrogate pair has no bytes, and the parser says so in an error of its own.
        reason = "half a surrogate pair" if isinstance(error, UnicodeError | TypeError) else str(error)
        msg = f"not JSON: {reason}"
        raise ContractError(msg) from error
    return found
