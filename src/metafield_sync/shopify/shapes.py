"""Reading JSON that somebody else wrote: each helper answers None, or nothing, where the shape is another.

Shopify's answers are checked here and nowhere else, so that the modules above read plain, typed values and an
unexpected document can only ever become an error with a name, never an `AttributeError` halfway through.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any, cast

TEXT_CHARS_MAX = 500
"""What is kept of a message written by the other side: enough to act on, too little to flood a log."""

YEAR_MIN, YEAR_MAX = 2000, 2199
"""Shopify began in 2006."""

_WHOLE = re.compile(r"-?[0-9]{1,20}", re.ASCII)
"""Twenty digits hold any unsigned 64-bit integer, and are far from what Python refuses to parse."""


def mapping(value: Any) -> dict[str, Any] | None:
    """`value` if it is a JSON object, else None."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def items(value: Any) -> list[Any] | None:
    """`value` if it is a JSON array, else None."""
    return cast("list[Any]", value) if isinstance(value, list) else None


def number(value: Any) -> float | None:
    """`value` as a float if it is a finite JSON number, else None (`true` is no number)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        as_float = float(value)
    except OverflowError:
        return None
    return as_float if math.isfinite(as_float) else None


def text(value: Any) -> str | None:
    """`value` if it is a string, made safe to log and to store, else None.

    Control characters, NUL and lone surrogates become `?` (PostgreSQL refuses the latter two), and it is cut
    at `TEXT_CHARS_MAX` characters.
    """
    if not isinstance(value, str):
        return None
    return "".join(char if char.isprintable() else "?" for char in value[:TEXT_CHARS_MAX])


def verbatim(value: Any, *, chars_max: int) -> str | None:
    """`value`, untouched, if it is a string of at most `chars_max` characters that can be sent, else None.

    For what is used and not shown: addresses, form fields, documents. Nothing of it belongs into a log.
    """
    if not isinstance(value, str) or len(value) > chars_max:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:  # lone surrogates
        return None
    return value


def whole(value: Any) -> int | None:
    """`value` as an int if it is a whole JSON number or the text of one, else None.

    Shopify sends its 64-bit integers (`UnsignedInt64`) as text.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    return None


def moment(value: Any) -> datetime | None:
    """`value` in UTC if it is a date and time of ISO 8601 (in UTC if it names no zone) of our age, else None.

    The ends of the calendar are in no year of Shopify's, and what PostgreSQL can hold there Python cannot read again.
    """
    if not isinstance(value, str):
        return None
    try:
        read = datetime.fromisoformat(value)
        read = read.astimezone(UTC) if read.tzinfo is not None else read.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return read if YEAR_MIN <= read.year <= YEAR_MAX else None
