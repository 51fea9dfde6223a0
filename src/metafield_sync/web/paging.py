"""Pages: how many rows one has, where the next begins, and how a cursor is told from nonsense."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import Query

from metafield_sync.web.edge import ParameterInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

PAGE_ROWS_MAX = 250
PAGE_ROWS_DEFAULT = 50
CURSOR_CHARS_MAX = 200
NUMBER_DIGITS_MAX = 18
"""A row's number in a cursor stays within 64 bits."""

Limit = Annotated[int, Query(ge=1, le=PAGE_ROWS_MAX, description="How many rows the page may have.")]
Cursor = Annotated[str | None, Query(max_length=CURSOR_CHARS_MAX, description="`nextCursor` of the page before.")]


def one_page(
    found: Sequence[T], limit: int, place: Callable[[T], tuple[object, ...]]
) -> tuple[Sequence[T], str | None]:
    """The page, and the cursor of the next one, or None if there is none.

    Args:
        found: what was found when one row more than the page may have was asked for.
        limit: how many rows the page may have.
        place: where a row stands in the list, in the parts that `read_cursor` is asked for.
    """
    if len(found) <= limit:
        return found, None
    parts = "|".join(str(part) for part in place(found[limit - 1]))
    # In a form that nobody takes for anything else, or makes up.
    return found[:limit], base64.urlsafe_b64encode(parts.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None, *kinds: Callable[[str], Any]) -> tuple[Any, ...] | None:
    """The parts of a cursor, each of its kind; None if there is no cursor.

    Args:
        cursor: as the caller sent it.
        kinds: what makes each part out of its text; a ValueError of theirs means that it is none.

    Raises:
        ParameterInvalid: it is not a cursor of this list.
    """
    if cursor is None:
        return None
    try:
        parts = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().split("|")
        return tuple(kind(part) for kind, part in zip(kinds, parts, strict=True))
    except (binascii.Error, ValueError):
        raise ParameterInvalid(
            "cursor: not a cursor of this list. Use the nextCursor of the page before, or none."
        ) from None


def number(text: str) -> int:
    """A row's number."""
    if not (text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS_MAX):
        raise ValueError("not a row's number")
    return int(text)


def moment(text: str) -> datetime:
    """A time with its offset, as `isoformat` writes it."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("a time without its offset")
    return at


def word(text: str) -> str:
    """A name of ours, in small letters."""
    if not (text.isascii() and text.isalpha() and text.islower()):
        raise ValueError("not a word")
    return text
