"""What a bulk operation executes, and what its result says, line by line. No I/O in here."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metafield_sync.shopify.answers import top_level_errors
from metafield_sync.shopify.customers import read_shown
from metafield_sync.shopify.metafields import (
    METAFIELDS_SET_MUTATION,
    Refusal,
    RefusalKind,
    WrittenMetafield,
    read_set_payload,
)
from metafield_sync.shopify.shapes import mapping

if TYPE_CHECKING:
    from metafield_sync.shopify.customers import ShownMetafield
    from metafield_sync.shopify.metafields import MetafieldSpec

NO_LINE = -1
"""The number of a result line that does not tell its own; no line of an input has it."""

_MARKER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}", re.ASCII)
"""What GraphQL takes for a name."""
_METAFIELD_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}", re.ASCII)

_MAYBE_EXECUTED = frozenset({"INTERNAL_SERVER_ERROR", "THROTTLED", "TIMEOUT"})
"""Codes of errors after which the same line is worth another try, and that say nothing about its customer."""


@dataclass(frozen=True, slots=True)
class UnknownOutcome:
    """A result line that does not tell what became of its input line; `what` says why, as part of a sentence."""

    what: str


@dataclass(frozen=True, slots=True)
class BulkLine:
    """One line of a bulk mutation's result.

    `number` is the place of its line in the file uploaded, from 0, or `NO_LINE`. The results come in any order, and
    not every line has one. `outcome`: a `WrittenMetafield` was acknowledged, by whatever value it tells; a `Refusal`
    wrote nothing; after an `UnknownOutcome` the value has to be read or written again.
    """

    number: int
    outcome: WrittenMetafield | Refusal | UnknownOutcome


def bulk_set_mutation(marker: str) -> str:
    """The `metafieldsSet` for a bulk operation, named `marker`; a line of its file is `{"metafields": [one input]}`.

    `marker` is a name such as `Backfill_` and 32 hexadecimal digits, by which `find_bulk_operation` finds it; raises
    ValueError for what GraphQL takes for none.
    """
    _require_marker(marker)
    return METAFIELDS_SET_MUTATION.replace("mutation MetafieldsSet(", f"mutation {marker}(", 1)


def customer_values_query(spec: MetafieldSpec, marker: str) -> str:
    """The query for a bulk operation that lists every customer with the metafield's value.

    `marker` is a name by which `find_bulk_operation` finds it. It stands in a comment and not as the operation's
    name: bulk queries that begin with a comment have been recorded, accepted and told back unchanged, and of named
    ones there is no record. Raises ValueError for a marker, a namespace or a key that could not stand in a document.
    """
    _require_marker(marker)
    if not _METAFIELD_NAME.fullmatch(spec.namespace) or not _METAFIELD_NAME.fullmatch(spec.key):
        raise ValueError("a metafield's namespace and key are letters, digits, - and _")
    return f"""# {marker}
{{
  customers {{
    edges {{
      node {{
        id
        metafield(namespace: "{spec.namespace}", key: "{spec.key}") {{
          value
          type
          compareDigest
        }}
      }}
    }}
  }}
}}
"""


def read_bulk_line(line: bytes) -> BulkLine:
    """Read one line of the result of a `bulk_set_mutation` whose file has one customer a line.

    Recorded: `{"data":{"metafieldsSet":{"metafields":[…],"userErrors":[]}},"__lineNumber":0}`, slashes escaped. A line
    that could not be executed has `errors` instead of `data`, or besides.
    """
    document = _document(line) or {}
    number = document.get("__lineNumber")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        return BulkLine(NO_LINE, UnknownOutcome("it does not tell its number"))
    return BulkLine(number, _outcome(document))


def read_queried_customer(line: bytes) -> tuple[int, ShownMetafield | None] | None:
    """Read one line of the result of a `customer_values_query`: a customer's id, and what they show, if anything.

    None if the line is no such thing. `{"id":"gid://shopify/Customer/1","metafield":null}`, its slashes escaped as
    Shopify does, is a customer without the metafield.
    """
    return read_shown(_document(line))


def _outcome(document: dict[str, Any]) -> WrittenMetafield | Refusal | UnknownOutcome:
    payload = (mapping(document.get("data")) or {}).get("metafieldsSet")
    errors = top_level_errors(document) if document.get("errors") else []
    if errors:
        first = errors[0]
        if payload is not None or any(error.code in _MAYBE_EXECUTED for error in errors):
            return UnknownOutcome(f"it answered {first.code}: {first.message}")
        return Refusal(None, RefusalKind.OTHER, first.code, first.message)
    judged = read_set_payload(payload, count=1)
    if judged.refused:
        return judged.refused[0]
    if judged.doubt is not None:
        return UnknownOutcome(judged.doubt)
    return judged.written[0]


def _document(line: bytes) -> dict[str, Any] | None:
    try:
        return mapping(json.loads(line.decode()))
    except (ValueError, RecursionError):
        return None


def _require_marker(marker: str) -> None:
    if _MARKER.fullmatch(marker) is None:
        raise ValueError("a marker is letters, digits and _, at most 255, and begins with no digit")
