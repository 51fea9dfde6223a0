"""Reading orders: by id, and by when they last changed.

What the Admin API answers is put into the form that webhooks have (`financial_status`, `line_items` …), as far as
points need it, so that whoever reads an order reads one form. Needs the scope `read_orders`, which reaches back 60
days; `read_all_orders` reaches further.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from metafield_sync.shopify.cost import Cost, add_costs
from metafield_sync.shopify.failures import OutcomeUnknown
from metafield_sync.shopify.shapes import items, mapping, moment, text, verbatim

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from metafield_sync.shopify.client import AdminClient, ShopAccess

ORDERS_MAX = 5
"""Orders a call: with all that each may have in it, as many as fit under the 1,000 points a call may be rated at."""
ORDERS_COST = 880
"""Points to have at hand for one call of either kind. What turns out not to be there is paid back, most of it."""

LINES_FIRST = 8
LINES_NEXT = 100
LINES_PAGES_MAX = 10
"""An order has 500 lines at the most; these are twice as many."""
REFUNDS_FIRST = 6
REFUNDS_NEXT = 55
ADJUSTMENTS_FIRST = 5
CURSOR_CHARS_MAX = 2_000
TAG_CHARS_MAX = 255

_ORDER_GID = re.compile(r"gid://shopify/Order/([1-9][0-9]{0,18})", re.ASCII)
_NUMBER = re.compile(r"gid://shopify/[A-Za-z]+/([1-9][0-9]{0,18})", re.ASCII)

_LINE = """
id
quantity
currentQuantity
isGiftCard
originalUnitPriceSet { shopMoney { amount } }
discountAllocations { allocatedAmountSet { shopMoney { amount } } }
taxLines { priceSet { shopMoney { amount } } }
"""
_REFUND = """
id
createdAt
orderAdjustments(first: 5) { nodes { reason amountSet { shopMoney { amount } } } }
"""
_ORDER = (
    """
id
test
createdAt
updatedAt
cancelledAt
displayFinancialStatus
taxesIncluded
currencyCode
currentSubtotalPriceSet { shopMoney { amount } }
totalOutstandingSet { shopMoney { amount } }
customer { id tags }
lineItems(first: 8) { pageInfo { hasNextPage endCursor } nodes {"""
    + _LINE
    + """} }
refunds(first: 6) {"""
    + _REFUND
    + """}
"""
)

ORDERS_BY_ID_QUERY = "query OrdersById($ids: [ID!]!) { nodes(ids: $ids) { ... on Order {" + _ORDER + "} } }"
ORDERS_SINCE_QUERY = (
    "query OrdersSince($first: Int!, $after: String, $query: String!) {"
    " orders(first: $first, after: $after, query: $query, sortKey: UPDATED_AT) {"
    " pageInfo { hasNextPage endCursor } nodes {" + _ORDER + "} } }"
)
ORDER_LINES_QUERY = (
    "query OrderLines($id: ID!, $first: Int!, $after: String!) { node(id: $id) { ... on Order { id updatedAt"
    " lineItems(first: $first, after: $after) { pageInfo { hasNextPage endCursor } nodes {" + _LINE + "} } } } }"
)
ORDER_REFUNDS_QUERY = (
    "query OrderRefunds($id: ID!, $first: Int!) { node(id: $id) { ... on Order { id updatedAt"
    " refunds(first: $first) {" + _REFUND + "} } } }"
)

Order = dict[str, Any]
"""An order in the form of a webhook's payload."""


@dataclass(frozen=True, slots=True)
class OrdersPage:
    """Some orders, and where to read on; `cursor` None: there are no more.

    `changed` are the ids of orders that changed while they were being read: to be read once more.
    """

    orders: list[Order]
    cursor: str | None
    changed: list[int]


@dataclass(slots=True)
class OrderReader:
    """Reads a shop's orders. `cost` is what its calls cost so far, those that failed after an answer included."""

    client: AdminClient
    access: ShopAccess
    cost: Cost | None = None

    async def by_id(self, order_ids: Sequence[int]) -> OrdersPage:
        """Read these orders, up to `ORDERS_MAX`. One that is gone, or out of the scope's reach, is not among them.

        Raises:
            ShopifyError: as `AdminClient.call` raises it; OutcomeUnknown also for an answer about other orders.
        """
        if len(order_ids) > ORDERS_MAX:
            raise ValueError(f"one call reads up to {ORDERS_MAX} orders, not {len(order_ids)}")
        asked = dict.fromkeys(order_ids)
        data = await self._call(ORDERS_BY_ID_QUERY, {"ids": [order_gid(number) for number in asked]})
        nodes = items(data.get("nodes"))
        if nodes is None or len(nodes) != len(asked):
            raise self._unlike()
        page = await self._orders([node for node in nodes if node is not None], None)
        if not {order["id"] for order in page.orders} <= asked.keys():
            raise self._unlike()
        return page

    async def since(self, start: datetime, cursor: str | None) -> OrdersPage:
        """Read the orders that changed at `start` or later, those first that changed first: a page from `cursor` on.

        Raises:
            ShopifyError: as `AdminClient.call` raises it; OutcomeUnknown also for an answer of another shape.
        """
        whole = start.astimezone(UTC).replace(microsecond=0)
        variables = {
            "first": ORDERS_MAX,
            "after": cursor,
            "query": f"updated_at:>='{whole.isoformat().replace('+00:00', 'Z')}'",
        }
        data = await self._call(ORDERS_SINCE_QUERY, variables)
        found = mapping(data.get("orders")) or {}
        nodes = items(found.get("nodes"))
        if nodes is None:
            raise self._unlike()
        return await self._orders(nodes, self._next(found))

    async def _orders(self, nodes: Sequence[Any], cursor: str | None) -> OrdersPage:
        page = OrdersPage([], cursor, [])
        for node in nodes:
            described = mapping(node) or {}
            number = _order_number(described.get("id"))
            if number is None:
                raise self._unlike()
            if await self._complete(described):
                page.orders.append(_as_webhook(described, number))
            else:
                page.changed.append(number)
        return page

    async def _complete(self, node: dict[str, Any]) -> bool:
        """Fetch the lines and refunds that did not fit; False: the order has changed since, so they do not belong."""
        lines = mapping(node.get("lineItems")) or {}
        listed = items(lines.get("nodes"))
        refunds = items(node.get("refunds"))
        if listed is None or refunds is None:
            raise self._unlike()
        cursor = self._next(lines)
        for _ in range(LINES_PAGES_MAX):
            if cursor is None:
                break
            variables = {"id": node["id"], "first": LINES_NEXT, "after": cursor}
            more = mapping((await self._call(ORDER_LINES_QUERY, variables)).get("node")) or {}
            if more.get("updatedAt") != node.get("updatedAt"):
                return False
            page = mapping(more.get("lineItems")) or {}
            listed += items(page.get("nodes")) or []
            cursor = self._next(page)
        if cursor is not None:
            raise self._unlike()
        if len(refunds) >= REFUNDS_FIRST:
            variables = {"id": node["id"], "first": REFUNDS_NEXT}
            more = mapping((await self._call(ORDER_REFUNDS_QUERY, variables)).get("node")) or {}
            if more.get("updatedAt") != node.get("updatedAt"):
                return False
            node["refunds"] = more.get("refunds")
        return True

    async def _call(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self.client.call(self.access, document, variables)
        self.cost = add_costs(self.cost, answer.cost)
        return answer.data

    def _next(self, connection: dict[str, Any]) -> str | None:
        info = mapping(connection.get("pageInfo"))
        if info is None:
            raise self._unlike()
        if info.get("hasNextPage") is not True:
            return None
        cursor = verbatim(info.get("endCursor"), chars_max=CURSOR_CHARS_MAX)
        if cursor is None:
            raise self._unlike()
        return cursor

    def _unlike(self) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"{self.access.domain}: Shopify's answer is not about the orders that were asked for.", cost=self.cost
        )


def order_gid(order_id: int) -> str:
    """Spell an order's numeric Shopify id as GraphQL wants it; ValueError unless it is positive."""
    if order_id < 1:
        raise ValueError(f"a Shopify order id is a positive integer, not {order_id}")
    return f"gid://shopify/Order/{order_id}"


def _as_webhook(node: dict[str, Any], number: int) -> Order:
    """The order in the form that webhooks have. What is missing becomes null, for whoever reads it to refuse."""
    customer = mapping(node.get("customer"))
    status = text(node.get("displayFinancialStatus"))
    return {
        "id": number,
        "test": node.get("test"),
        "created_at": node.get("createdAt"),
        "updated_at": node.get("updatedAt"),
        "cancelled_at": node.get("cancelledAt"),
        "financial_status": None if status is None else status.lower(),
        "taxes_included": node.get("taxesIncluded"),
        "currency": node.get("currencyCode"),
        "current_subtotal_price": _amount(node.get("currentSubtotalPriceSet")),
        "total_outstanding": _amount(node.get("totalOutstandingSet")),
        "customer": None if customer is None else {"id": _number(customer.get("id")), "tags": _tags(customer)},
        "line_items": [_line(line) for line in _objects((mapping(node.get("lineItems")) or {}).get("nodes"))],
        "refunds": [_refund(refund) for refund in _objects(node.get("refunds"))],
    }


def _line(line: dict[str, Any]) -> dict[str, Any]:
    discounts = _objects(line.get("discountAllocations"))
    return {
        "id": _number(line.get("id")),
        "quantity": line.get("quantity"),
        "current_quantity": line.get("currentQuantity"),
        "gift_card": line.get("isGiftCard"),
        "price": _amount(line.get("originalUnitPriceSet")),
        "discount_allocations": [{"amount": _amount(one.get("allocatedAmountSet"))} for one in discounts],
        "tax_lines": [{"price": _amount(one.get("priceSet"))} for one in _objects(line.get("taxLines"))],
    }


def _refund(refund: dict[str, Any]) -> dict[str, Any]:
    # Shipping given back is not among these: since 2024-10 it has a place of its own.
    adjustments = _objects((mapping(refund.get("orderAdjustments")) or {}).get("nodes"))
    return {
        "id": _number(refund.get("id")),
        "created_at": refund.get("createdAt"),
        "order_adjustments": [
            {"reason": text(one.get("reason")), "amount": _amount(one.get("amountSet"))} for one in adjustments
        ],
    }


def _objects(value: Any) -> list[dict[str, Any]]:
    return [described for one in items(value) or [] if (described := mapping(one)) is not None]


def _amount(money_bag: Any) -> str | None:
    shop_money = mapping((mapping(money_bag) or {}).get("shopMoney")) or {}
    return text(shop_money.get("amount"))


def _tags(customer: dict[str, Any]) -> list[str] | None:
    tags = items(customer.get("tags"))
    return None if tags is None else [tag for tag in tags if verbatim(tag, chars_max=TAG_CHARS_MAX) is not None]


def _order_number(gid: Any) -> int | None:
    found = _ORDER_GID.fullmatch(gid) if isinstance(gid, str) else None
    return None if found is None else int(found[1])


def _number(gid: Any) -> int | None:
    found = _NUMBER.fullmatch(gid) if isinstance(gid, str) else None
    return None if found is None else int(found[1])


def changed_at(order: Order) -> datetime | None:
    """When an order last changed, by Shopify's clock."""
    return moment(order["updated_at"])
