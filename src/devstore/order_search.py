"""`orders`: the search and the order of the list.

The search has those of the documented fields that a devstore's orders can differ in: `created_at`, `customer_id`,
`financial_status`, `id`, `name`, `processed_at`, `status`, `test` and `updated_at`. Lists sorted by a moment go on
after the cursor's moment and id, so an order that changes while somebody pages by UPDATED_AT comes once more, later.
"""

import math
from dataclasses import dataclass, field
from typing import cast

from graphql import GraphQLError

from devstore.gids import NUMBER_MAX, parse_gid
from devstore.pages import Page, PageRequest, decode_cursor, page_size
from devstore.search_terms import Term, terms
from devstore.storage import Storage

_COLUMNS = {"CREATED_AT": "created_s", "ID": "id", "PROCESSED_AT": "processed_s", "UPDATED_AT": "updated_s"}
_MOMENTS = {"created_at": "created_s", "processed_at": "processed_s", "updated_at": "updated_s"}
_STATUSES = {"any": None, "open": 0, "not_closed": 0, "cancelled": 1}

# A statement for each column and direction is made of this, so that the one by `updated_s` can follow its index.
_PAGE = """
select id, $value
from orders
where shop = :shop
    and id between :id_first and :id_last
    and created_s between :created_s_first and :created_s_last
    and processed_s between :processed_s_first and :processed_s_last
    and updated_s between :updated_s_first and :updated_s_last
    and (:customer is null or customer = :customer)
    and (:ordinal is null or ordinal = :ordinal)
    and (:financial_status is null or financial_status = :financial_status)
    and (:cancelled is null or cancelled = :cancelled)
    and (:test is null or test = :test)
    and ($value, id) > (:after_value, :after_id)
    and ($value, id) < (:before_value, :before_id)
order by $value $direction, id $direction
limit :limit
"""
_STATEMENTS = {
    (key, backwards): _PAGE.replace("$value", column).replace("$direction", "desc" if backwards else "asc")
    for key, column in _COLUMNS.items()
    for backwards in (False, True)
}


def _no_limits() -> dict[str, tuple[int, int]]:
    return dict.fromkeys(("id", *_MOMENTS.values()), (0, NUMBER_MAX))


def _no_values() -> dict[str, object]:
    return {"customer": None, "ordinal": None, "financial_status": None, "cancelled": None, "test": None}


@dataclass(slots=True)
class OrderSearch:
    """What is asked of orders: ranges of ids and moments, both ends included, and values that must be equal."""

    ranges: dict[str, tuple[int, int]] = field(default_factory=_no_limits)
    equal: dict[str, object] = field(default_factory=_no_values)

    def narrow(self, name: str, operator: str, value: float) -> None:
        """Narrow one of the ranges."""
        low, high = self.ranges[name]
        if operator in {"", ">="}:
            low = max(low, math.ceil(value))
        if operator in {"", "<="}:
            high = min(high, math.floor(value))
        if operator == ">":
            low = max(low, math.floor(value) + 1)
        if operator == "<":
            high = min(high, math.ceil(value) - 1)
        self.ranges[name] = (low, min(high, NUMBER_MAX))

    def read(self, query: str | None) -> "OrderSearch":
        """Take a search's terms over. Raises GraphQLError if one makes no sense."""
        for one in terms(query):
            self._read(one)
        return self

    def _read(self, term: Term) -> None:
        if term.name in _MOMENTS:
            self.narrow(_MOMENTS[term.name], term.operator, term.moment_s)
        elif term.name == "id":
            self.narrow("id", term.operator, _number(term.value))
        elif term.name == "customer_id":
            self.equal["customer"] = _number(term.value)
        elif term.name == "name":
            self.equal["ordinal"] = _number(term.value.removeprefix("#"))
        elif term.name == "financial_status":
            self.equal["financial_status"] = None if term.value.lower() == "any" else term.value.lower()
        elif term.name == "test":
            self.equal["test"] = int(term.value.lower() == "true")
        elif term.name == "status":
            # Nothing is ever closed here.
            self.equal["cancelled"] = _STATUSES.get(term.value.lower(), -1)


def find_orders(storage: Storage, shop: int, search: OrderSearch, request: PageRequest, sort_key: str) -> Page:
    """One page of a shop's orders.

    Raises:
        GraphQLError: neither or both of first and last, a size out of bounds, a cursor that is none, or a sort key
            that the devstore does not have.
    """
    if sort_key not in _COLUMNS:
        known = ", ".join(_COLUMNS)
        raise GraphQLError(f"The devstore sorts orders by {known}.", extensions={"code": "BAD_REQUEST"})
    size, forwards = page_size(request), request.first is not None
    lower, upper = (request.before, request.after) if request.reverse else (request.after, request.before)
    after_id, after_value = decode_cursor(lower) if lower is not None else (-1, -1)
    before_id, before_value = decode_cursor(upper) if upper is not None else (NUMBER_MAX, NUMBER_MAX)
    values = {
        "shop": shop,
        **{f"{name}_first": first for name, (first, _) in search.ranges.items()},
        **{f"{name}_last": last for name, (_, last) in search.ranges.items()},
        **search.equal,
        "after_id": after_id,
        "after_value": after_value,
        "before_id": before_id,
        "before_value": before_value,
        # One more than asked for tells whether there is another page.
        "limit": size + 1,
    }
    statement = _STATEMENTS[sort_key, forwards == request.reverse]
    rows = cast("list[tuple[int, int]]", storage.db.execute(statement, values).fetchall())
    more, found = len(rows) > size, rows[:size] if forwards else rows[:size][::-1]
    numbers, ordered_by = [row[0] for row in found], [row[1] for row in found]
    if forwards:
        return Page(numbers, has_next=more, has_previous=request.after is not None, values=ordered_by)
    return Page(numbers, has_next=request.before is not None, has_previous=more, values=ordered_by)


def _number(text: str) -> int:
    """A number or a global id's; -1, which nothing has, if it is neither."""
    gid = parse_gid(text)
    if gid is not None:
        return gid.number
    return int(text) if text.isascii() and text.isdigit() and len(text) < len(str(NUMBER_MAX)) else -1
