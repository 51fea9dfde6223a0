"""JSON without losing a digit: 89.99 stays 89.99 on the way in and on the way out, where a float would not."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from decimal import Decimal
from typing import Any, Never, cast

FRACTION_DIGITS_MAX = 100
"""More digits, before the point or after it, are no amount of anything. PostgreSQL's jsonb has limits too."""
NOT_PLAIN = re.compile(r"\\u(?:0000|d[89a-f])")
"""How NUL and halves of surrogate pairs look in what `json` writes; whole pairs look the same."""


class JsonUnusable(ValueError):
    """Not JSON, or JSON that cannot be stored. The message says what is wrong and quotes nothing of it."""


def read_json(document: bytes | str) -> Any:
    """Parse a document; whole numbers become ints, others Decimals.

    Raises:
        JsonUnusable: it cannot be parsed; bytes must be UTF-8.
    """
    try:
        text = document.decode() if isinstance(document, bytes) else document
        return json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant)
    # The parser quotes what it stumbles over, so its words go no further. Nesting too deep is not a ValueError to it.
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise JsonUnusable(f"it is not JSON ({type(error).__name__})") from None


def _refuse_constant(_: str) -> Never:
    raise JsonUnusable("it holds a number that JSON does not know")


def write_json(value: Any) -> str:
    """Write what `read_json` reads, for PostgreSQL's jsonb: numbers digit for digit, text that it can store.

    Raises:
        JsonUnusable: a text or a number in it cannot be stored.
    """
    # Most documents hold no fraction and no such character, and `json` is many times faster.
    with suppress(TypeError):
        written = json.dumps(value, allow_nan=False)
        if NOT_PLAIN.search(written) is None:
            return written
    return _write(value)


def _write(value: Any) -> str:
    match value:
        case None | bool() | int():
            return json.dumps(value)
        case str():
            return _write_text(value)
        case Decimal():
            return _write_fraction(value)
        case list():
            return f"[{','.join(_write(item) for item in cast('list[Any]', value))}]"
        case dict():
            members = cast("dict[str, Any]", value).items()
            return f"{{{','.join(f'{_write_text(name)}:{_write(item)}' for name, item in members)}}}"
        case _:
            raise TypeError(f"{type(value).__name__} is nothing that JSON has")


def _write_text(value: str) -> str:
    # JSON can spell both, PostgreSQL can store neither.
    if "\x00" in value or not _is_encodable(value):
        raise JsonUnusable("it holds text with NUL or half a surrogate pair")
    return json.dumps(value)


def _is_encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _write_fraction(value: Decimal) -> str:
    if len(value.as_tuple().digits) > FRACTION_DIGITS_MAX or abs(value.adjusted()) > FRACTION_DIGITS_MAX:
        raise JsonUnusable(f"it holds a number of more than {FRACTION_DIGITS_MAX} digits")
    return str(value)
