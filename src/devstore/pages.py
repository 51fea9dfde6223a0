"""Connections: pages of things that are ordered by number, cut by `first`/`after` or `last`/`before`."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from graphql import GraphQLError

from devstore.customers import IdRange

PAGE_SIZE_MAX = 250

# Fetches at most so many numbers of a range, ascending, or descending from its end.
Fetch = Callable[[IdRange, int, bool], list[int]]

_ID_TERM = re.compile(r"(?:^|[\s(])id:(>=|<=|>|<)?\s*(?:gid://shopify/[A-Za-z]+/)?([0-9]{1,19})")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The arguments every connection takes. Cursors are opaque to clients."""

    first: int | None = None
    last: int | None = None
    after: str | None = None
    before: str | None = None
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Numbers in the order asked for, and whether there is more on either side.

    `values` are what they are ordered by, if that is not the numbers themselves.
    """

    numbers: list[int]
    has_next: bool
    has_previous: bool
    values: list[int] | None = None

    def as_connection(self, nodes: Sequence[object]) -> dict[str, object]:
        """The connection object; `nodes` are the objects of `numbers`, in the same order."""
        values = self.numbers if self.values is None else self.values
        cursors = [encode_cursor(number, value) for number, value in zip(self.numbers, values, strict=True)]
        return {
            "nodes": nodes,
            "edges": [{"cursor": cursor, "node": node} for cursor, node in zip(cursors, nodes, strict=True)],
            "pageInfo": {
                "hasNextPage": self.has_next,
                "hasPreviousPage": self.has_previous,
                "startCursor": cursors[0] if cursors else None,
                "endCursor": cursors[-1] if cursors else None,
            },
        }


def cut(request: PageRequest, span: IdRange, fetch: Fetch) -> Page:
    """Read one page.

    Raises:
        GraphQLError: neither or both of first and last, a size out of bounds, a cursor that is none.
    """
    size = page_size(request)
    span = _between(span, request)
    forwards = request.first is not None
    # One more than asked for tells whether there is another page.
    found = fetch(span, size + 1, forwards == request.reverse)
    more, numbers = len(found) > size, found[:size]
    if forwards:
        return Page(numbers, has_next=more, has_previous=request.after is not None)
    return Page(numbers[::-1], has_next=request.before is not None, has_previous=more)


def cut_list(request: PageRequest, numbers: Sequence[int]) -> Page:
    """The same for a short list of numbers that is at hand."""

    def fetch(span: IdRange, limit: int, backwards: bool) -> list[int]:  # noqa: FBT001  # the shape of Fetch
        inside = sorted((one for one in numbers if span.first <= one <= span.last), reverse=backwards)
        return inside[:limit]

    return cut(request, IdRange(), fetch)


def search_ids(query: str | None) -> IdRange:
    """The range of ids a search asks for; other terms are ignored, as Shopify ignores unknown fields."""
    first, last = IdRange().first, IdRange().last
    for operator, digits in cast("list[tuple[str, str]]", _ID_TERM.findall(query or "")):
        number = int(digits)
        if operator in {"", ">="}:
            first = max(first, number)
        if operator in {"", "<="}:
            last = min(last, number)
        if operator == ">":
            first = max(first, number + 1)
        if operator == "<":
            last = min(last, number - 1)
    return IdRange(first, min(last, IdRange().last))


def encode_cursor(number: int, value: int) -> str:
    """The cursor of one item, which is ordered by `value`, in the form Shopify's have."""
    text = json.dumps({"last_id": number, "last_value": str(value)}, separators=(",", ":"))
    return base64.b64encode(text.encode()).decode()


def decode_cursor(cursor: str) -> tuple[int, int]:
    """The number of a cursor's item, and what it is ordered by. Raises GraphQLError if it is no cursor."""
    try:
        read = cast("object", json.loads(base64.b64decode(cursor, validate=True)))
        fields = cast("dict[str, object]", read) if isinstance(read, dict) else {}
        number, value = fields.get("last_id"), int(str(fields.get("last_value")))
    except (binascii.Error, ValueError):
        number, value = None, 0
    if not isinstance(number, int):
        raise GraphQLError("Invalid cursor for current pagination sort.", extensions={"code": "BAD_REQUEST"})
    return number, value


def page_size(request: PageRequest) -> int:
    """How many items are asked for. Raises GraphQLError if that is not said, or too many."""
    if (request.first is None) == (request.last is None):
        many = request.first is not None
        message = "providing both first and last is not supported" if many else "you must provide one of first or last"
        raise GraphQLError(message, extensions={"code": "BAD_REQUEST"})
    size = cast("int", request.first if request.first is not None else request.last)
    name = "first" if request.first is not None else "last"
    if size < 0:
        raise GraphQLError(f"{name} must be a positive integer", extensions={"code": "BAD_REQUEST"})
    if size > PAGE_SIZE_MAX:
        raise GraphQLError(f"{name} cannot exceed {PAGE_SIZE_MAX}", extensions={"code": "BAD_REQUEST"})
    return size


def _between(span: IdRange, request: PageRequest) -> IdRange:
    first, last = span.first, span.last
    lower, upper = (request.before, request.after) if request.reverse else (request.after, request.before)
    if lower is not None:
        first = max(first, decode_cursor(lower)[0] + 1)
    if upper is not None:
        last = min(last, decode_cursor(upper)[0] - 1)
    return IdRange(first, last)
