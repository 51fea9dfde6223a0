"""What may stand in a metafield: names, types, and values put into the form Shopify stores.

Sources: limits and characters of names, the integer range and the two recorded messages are Shopify's schema
and answers; wordings marked "not recorded" follow Shopify's usual phrasing and nothing should depend on them.
"""

import json
import re
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import cast

NAMESPACE_CHARS_MIN = 3
NAMESPACE_CHARS_MAX = 255
KEY_CHARS_MIN = 2
KEY_CHARS_MAX = 64
VALUE_BYTES_MAX = 64 * 1024
INTEGER_MAX = 9_007_199_254_740_991

RESERVED_NAMESPACES = frozenset({"shopify_standard", "protected", "shopify-l10n-fields"})
RESERVED_PREFIXES = ("shopify--", "app--")

# The number of the app everybody is a client of: `$app` namespaces are spelled out with it.
APP_ID = 1
_APP_NAMESPACE = f"app--{APP_ID}"

_NAME = re.compile(r"[A-Za-z0-9_-]*\Z")
# "5.0" is taken for 5 and "+5" is not (recorded); ASCII digits only.
_INTEGER = re.compile(r"(-?[0-9]+)(?:\.0+)?\Z")

_SCALAR_TYPES = frozenset(
    {
        "boolean", "color", "date", "date_time", "dimension", "id", "json", "language", "link", "money",
        "multi_line_text_field", "number_decimal", "number_integer", "rating", "rich_text_field",
        "single_line_text_field", "url", "volume", "weight",
        "collection_reference", "company_reference", "customer_reference", "file_reference",
        "metaobject_reference", "mixed_reference", "page_reference", "product_reference",
        "product_taxonomy_value_reference", "variant_reference",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why something was refused: a code of the user error's enum and the sentence for people."""

    code: str
    message: str


class ValueRefusedError(Exception):
    """A value does not fit its type; `complaint` is what the user error says."""

    def __init__(self, complaint: Complaint) -> None:
        super().__init__(complaint.message)
        self.complaint = complaint


def resolve_namespace(namespace: str | None) -> str:
    """Spell out the app's own namespaces: omitted and `$app` are `app--1`, `$app:x` is `app--1--x`."""
    if namespace is None or namespace == "$app":
        return _APP_NAMESPACE
    if namespace.startswith("$app:"):
        return f"{_APP_NAMESPACE}--{namespace.removeprefix('$app:')}"
    return namespace


def is_app_owned(namespace: str) -> bool:
    """Whether a spelled-out namespace belongs to the app itself."""
    return namespace == _APP_NAMESPACE or namespace.startswith(f"{_APP_NAMESPACE}--")


def is_reserved(namespace: str) -> bool:
    """Whether a spelled-out namespace is Shopify's or another app's."""
    if is_app_owned(namespace):
        return False
    return namespace in RESERVED_NAMESPACES or namespace.startswith(RESERVED_PREFIXES)


def namespace_complaint(namespace: str) -> Complaint | None:
    """What is wrong with a namespace, if anything (wordings not recorded)."""
    return _name_complaint("Namespace", namespace, NAMESPACE_CHARS_MIN, NAMESPACE_CHARS_MAX)


def key_complaint(key: str) -> Complaint | None:
    """What is wrong with a key, if anything (wordings not recorded)."""
    return _name_complaint("Key", key, KEY_CHARS_MIN, KEY_CHARS_MAX)


def is_type(kind: str) -> bool:
    """Whether `kind` is a metafield type: a scalar type or a list of one."""
    return kind.removeprefix("list.") in _SCALAR_TYPES


def normalise(kind: str, value: str) -> str:
    """Put a value into the form that is stored.

    Args:
        kind: a metafield type; types without a rule here take any text.
        value: what the client sent.

    Raises:
        ValueRefusedError: the value is empty, too large, or not of its type.
    """
    if value.strip() == "":
        raise ValueRefusedError(Complaint("BLANK", "Value can't be blank."))
    if len(value.encode("utf-8", "surrogatepass")) > VALUE_BYTES_MAX:
        raise ValueRefusedError(Complaint("TOO_LONG", f"Value is too long (maximum is {VALUE_BYTES_MAX} bytes)."))
    if kind == "number_integer":
        return _integer(value)
    if kind == "number_decimal":
        return _decimal(value)
    if kind == "single_line_text_field" and ("\n" in value or "\r" in value):
        raise _refused("Value must be a single line text string.")
    if kind == "boolean" and value not in {"true", "false"}:
        raise _refused("Value must be true or false.")
    if kind in {"date", "date_time"}:
        _check_time(kind, value)
    if kind == "json" or kind.startswith("list."):
        _check_json(kind, value)
    return value


def json_value(kind: str, value: str) -> object:
    """The stored text as `Metafield.jsonValue` gives it: a number for an integer, and so on."""
    if kind in {"json", "boolean", "rich_text_field"} or kind.startswith("list."):
        return cast("object", json.loads(value))
    return int(value) if kind == "number_integer" else value


def _name_complaint(what: str, text: str, shortest: int, longest: int) -> Complaint | None:
    if not text:
        return Complaint("BLANK", f"{what} can't be blank.")
    if len(text) < shortest:
        return Complaint("TOO_SHORT", f"{what} is too short (minimum is {shortest} characters)")
    if len(text) > longest:
        return Complaint("TOO_LONG", f"{what} is too long (maximum is {longest} characters)")
    if not _NAME.match(text):
        return Complaint("INVALID", f"{what} contains one or more invalid characters.")
    return None


def _refused(message: str) -> ValueRefusedError:
    return ValueRefusedError(Complaint("INVALID_VALUE", message))


def _integer(value: str) -> str:
    match = _INTEGER.match(value)
    # Longer than any number in range: refuse before int() does quadratic work on it.
    if match is None or len(value) > NAMESPACE_CHARS_MAX:
        raise _refused("Value must be an integer.")
    number = int(match[1])
    if number > INTEGER_MAX:
        raise _refused(f"Value has a maximum of {INTEGER_MAX}.")
    if number < -INTEGER_MAX:
        raise _refused(f"Value has a minimum of -{INTEGER_MAX}.")
    return str(number)


def _decimal(value: str) -> str:
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise _refused("Value must be a decimal.") from None
    if not number.is_finite() or value.startswith("+"):
        raise _refused("Value must be a decimal.")
    return value


def _check_time(kind: str, value: str) -> None:
    try:
        if kind == "date":
            date.fromisoformat(value)
        else:
            datetime.fromisoformat(value)
    except ValueError:
        wanted = "YYYY-MM-DD" if kind == "date" else "YYYY-MM-DDTHH:MM:SS"
        raise _refused(f"Value must be in “{wanted}” format.") from None


def _check_json(kind: str, value: str) -> None:
    try:
        parsed = cast("object", json.loads(value))
    except (ValueError, RecursionError):
        raise _refused("Value is invalid JSON.") from None
    if kind.startswith("list.") and not isinstance(parsed, list):
        raise _refused("Value must be an array.")
