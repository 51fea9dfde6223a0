"""`bulkOperations`: the search and the order of the list.

The search has the fields the schema documents: `created_at`, `id`, `operation_type` and `status`.
"""

from collections.abc import Callable, Sequence

from devstore.bulk import BulkOperation, BulkStatus, BulkType
from devstore.gids import parse_gid
from devstore.pages import Page, PageRequest, cut_list
from devstore.search_terms import Term, terms

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
    for one in terms(query):
        applies = _applies(one)
        if applies is not None:
            found = [operation for operation in found if applies(operation)]
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


def _applies(term: Term) -> Callable[[BulkOperation], bool] | None:
    """What a term asks of an operation; None if it has no such field."""
    compare, value = _COMPARE[term.operator], term.value
    if term.name == "status":
        wanted = value.upper() if value.upper() in _STATUSES else None
        return lambda one: one.status == wanted
    if term.name == "operation_type":
        kind = value.upper() if value.upper() in set(BulkType) else None
        return lambda one: one.type == kind
    if term.name == "id":
        gid = parse_gid(value)
        number = gid.number if gid else int(value) if value.isascii() and value.isdigit() else -1
        return lambda one: compare(one.number, number)
    if term.name == "created_at":
        moment_s = term.moment_s
        return lambda one: compare(one.created_s, moment_s)
    return None
