"""`bulkOperations`: the search and the order of the list.

The search has the fields the schema documents (`created_at`, `id`, `operation_type`, `status`). A term of another
field is ignored, as recorded: everything comes back, and only a warning in `extensions.search`, which is not here,
tells. So is a word without a field, which is not documented.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from graphql import GraphQLError

from devstore.bulk import BulkOperation, BulkStatus, BulkType
from devstore.gids import parse_gid
from devstore.pages import Page, PageRequest, cut_list

_TERM = re.compile(r"""(-?)([A-Za-z_]+):(>=|<=|>|<)?("[^"]*"|'[^']*'|[^\s()]+)|(\S+)""")
# Recorded: EXPIRED is no value to search for.
_STATUSES = frozenset({one.value for one in BulkStatus} - {BulkStatus.EXPIRED})
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "": lambda one, other: one == other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
}


def search(operations: Sequence[BulkOperation], query: str | None) -> list[BulkOperation]:
    """The operations that all terms apply to.

    Raises:
        GraphQLError: a timestamp is none, or the search says more than the devstore understands.
    """
    found = list(operations)
    for negated, name, operator, quoted, word in _TERM.findall(query or ""):
        if negated or word in {"OR", "NOT"} or set("()") & set(word) or "," in quoted:
            # Shopify's search has these. Leaving them out in silence would be another answer.
            raise _bad_request("The devstore's search knows terms and AND, not OR, NOT, lists or parentheses.")
        applies = _term(name, operator, quoted.strip("\"'")) if name else None
        if applies is not None:
            found = [one for one in found if applies(one)]
    return found


def page(operations: Sequence[BulkOperation], request: PageRequest, sort_key: str) -> tuple[Page, list[BulkOperation]]:
    """One page, newest first unless reversed (recorded); and the operations on it.

    By COMPLETED_AT those that were not completed come last; the cursors count places, so that a page shifts
    when an operation completes.
    """
    ranked = sorted(operations, key=lambda one: one.number)
    if sort_key == "COMPLETED_AT":
        ranked.sort(key=lambda one: one.completed_s or 0)
        by_number = dict(enumerate(ranked, start=1))
    else:
        by_number = {one.number: one for one in ranked}
    newest_first = PageRequest(request.first, request.last, request.after, request.before, not request.reverse)
    found = cut_list(newest_first, list(by_number))
    return found, [by_number[number] for number in found.numbers]


def _term(name: str, operator: str, value: str) -> Callable[[BulkOperation], bool] | None:
    """What a term asks of an operation; None if it has no such field."""
    compare = _COMPARE[operator]
    if name == "status":
        wanted = value.upper() if value.upper() in _STATUSES else None
        return lambda one: one.status == wanted
    if name == "operation_type":
        kind = value.upper() if value.upper() in set(BulkType) else None
        return lambda one: one.type == kind
    if name == "id":
        gid = parse_gid(value)
        number = gid.number if gid else int(value) if value.isascii() and value.isdigit() else -1
        return lambda one: compare(one.number, number)
    if name == "created_at":
        moment_s = _moment_s(value)
        return lambda one: compare(one.created_s, moment_s)
    return None


def _moment_s(value: str) -> float:
    try:
        read = datetime.fromisoformat(value)
    except ValueError as error:
        raise _bad_request("Invalid timestamp for query filter `created_at`.") from error
    # The time zone of a bare date is not documented.
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def _bad_request(message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"code": "BAD_REQUEST"})
