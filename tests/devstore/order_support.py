"""What the tests of orders share: what a shop told of, a small order, and documents."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from devstore import NewLine, NewOrder

if TYPE_CHECKING:
    from devstore import Order, Shop

TOPICS = (
    "orders/create",
    "orders/updated",
    "orders/paid",
    "orders/edited",
    "orders/cancelled",
    "refunds/create",
    "customers/create",
    "customers/update",
    "customers/delete",
    "customers/merge",
)

MONEY = "{ shopMoney { amount currencyCode } presentmentMoney { amount currencyCode } }"
ORDER_FIELDS = f"""id legacyResourceId name test cancelledAt cancelReason createdAt updatedAt processedAt
  displayFinancialStatus taxesIncluded currencyCode presentmentCurrencyCode fullyPaid unpaid closed confirmed sourceName
  tags currentSubtotalPriceSet {MONEY} currentTotalPriceSet {MONEY} totalOutstandingSet {MONEY} totalTaxSet {MONEY}
  currentTotalTaxSet {MONEY} totalTipReceivedSet {MONEY} subtotalPriceSet {MONEY} totalPriceSet {MONEY}
  totalReceivedSet {MONEY} totalRefundedSet {MONEY} netPaymentSet {MONEY} totalShippingPriceSet {MONEY}
  customer {{ id tags numberOfOrders }}"""
LINE_FIELDS = f"""id name title quantity currentQuantity refundableQuantity isGiftCard taxable
  originalUnitPriceSet {MONEY} discountedUnitPriceSet {MONEY} discountedUnitPriceAfterAllDiscountsSet {MONEY}
  originalTotalSet {MONEY} discountedTotalSet {MONEY} totalDiscountSet {MONEY}
  discountAllocations {{ allocatedAmountSet {MONEY} }} taxLines(first: 1) {{ title rate priceSet {MONEY} }}"""
ORDER = f"""query O($id: ID!) {{ order(id: $id) {{ {ORDER_FIELDS} }} }}"""
LINES = f"""query L($id: ID!) {{ order(id: $id) {{ id
  lineItems(first: 10) {{ nodes {{ {LINE_FIELDS} }} pageInfo {{ hasNextPage endCursor }} }} }} }}"""
REFUNDS = f"""query R($id: ID!) {{ order(id: $id) {{ refunds(first: 5) {{
  id legacyResourceId createdAt processedAt updatedAt note totalRefundedSet {MONEY} order {{ id }}
  refundLineItems(first: 5) {{ nodes {{ id quantity restockType restocked lineItem {{ id isGiftCard }}
    subtotalSet {MONEY} totalTaxSet {MONEY} }} }}
  orderAdjustments(first: 3) {{ nodes {{ id reason amountSet {MONEY} taxAmountSet {MONEY} }} }} }} }} }}"""
ORDERS = """query S($first: Int, $after: String, $last: Int, $before: String, $query: String, $reverse: Boolean,
    $sortKey: OrderSortKeys) {
  orders(first: $first, after: $after, last: $last, before: $before, query: $query, reverse: $reverse,
    sortKey: $sortKey) { nodes { id updatedAt } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""
MERGE = """mutation M($one: ID!, $two: ID!, $override: CustomerMergeOverrideFields) {
  customerMerge(customerOneId: $one, customerTwoId: $two, overrideFields: $override) {
    resultingCustomerId job { id done } userErrors { field message code } } }"""
MERGE_STATUS = """query J($id: ID!) { job(id: $id) { id done } customerMergeJobStatus(jobId: $id) {
  jobId status resultingCustomerId customerMergeErrors { errorFields message } } }"""
UPDATE = """mutation U($input: CustomerInput!) { customerUpdate(input: $input) {
  customer { id tags email } userErrors { field message } } }"""

ORDER_DOCUMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "order": (ORDER, {"id": "gid://shopify/Order/1"}),
    "order lines": (LINES, {"id": "gid://shopify/Order/1"}),
    "order refunds": (REFUNDS, {"id": "gid://shopify/Order/1"}),
    "orders": (ORDERS, {"first": 5, "query": "updated_at:>='2026-01-01T00:00:00Z'", "sortKey": "UPDATED_AT"}),
    "orders by node": (
        f"query {{ node(id: 1) {{ ... on Order {{ {ORDER_FIELDS} }} }} }}".replace("1", '"gid://shopify/Order/1"', 1),
        {},
    ),
    "merge": (MERGE, {"one": "gid://shopify/Customer/1", "two": "gid://shopify/Customer/2"}),
    "merge status": (MERGE_STATUS, {"id": "gid://shopify/Job/5f8ef87e-142f-4bc1-a788-ae97dc3c8134"}),
    "update customer": (UPDATE, {"input": {"id": "gid://shopify/Customer/1", "tags": ["vip"]}}),
    "a customer's orders": (
        'query { customer(id: "gid://shopify/Customer/1") { numberOfOrders orders(first: 2) { nodes { id } } } }',
        {},
    ),
}


class Ear:
    """Hears everything a shop tells of, as its webhooks would be sent."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        for topic in TOPICS:
            shop.webhooks.subscribe(topic, "/webhooks")

    def heard(self) -> list[tuple[str, dict[str, Any]]]:
        """Topics and payloads since it was last asked."""
        found = [(one.topic, json.loads(one.body)) for one in self._shop.webhooks.deliveries]
        self._shop.webhooks.deliveries.clear()
        return found

    def topics(self) -> list[str]:
        """Topics alone."""
        return [topic for topic, _ in self.heard()]


def an_order(shop: Shop, **changes: Any) -> Order:
    """Three shirts at 20.00 and a hat at 40.00, and 5.00 of shipping; customer 1, paid."""
    lines = [NewLine("20.00", 3, "Shirt"), NewLine("40.00", 1, "Hat")]
    given: dict[str, Any] = {"lines": lines, "customer": 1, "shipping": "5.00", **changes}
    return shop.orders.create(NewOrder(**given))


def usd(amount: str) -> Decimal:
    """An amount."""
    return Decimal(amount)
