"""A small Shopify of the tests: what happens to one order, what webhooks say of it, and what it should be worth.

It shares nothing with the product: money is whole cents, and what an order is worth is worked out from what was sold,
paid and given back, never from a payload.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import floor
from typing import Any

EPOCH = datetime(2026, 11, 20, 12, tzinfo=UTC)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule of the model: points for a hundred units of currency, so that it needs no fractions of its own."""

    points_a_hundred: int = 100
    rounding: str = "down"
    takes_tax_off: bool = True
    excluded_tag: str | None = None

    def points(self, cents: int) -> int:
        exact = Fraction(cents * self.points_a_hundred, 100 * 100)
        if self.rounding == "down":
            return floor(exact)
        if self.rounding == "half_up":
            return floor(exact + Fraction(1, 2))
        return -floor(-exact)


@dataclass
class Line:
    """One line; amounts are cents for each piece, so that any part of it is exact."""

    price: int
    quantity: int
    gift_card: bool
    discount: int
    tax: int
    left: int

    @property
    def worth(self) -> int:
        """What one piece costs after its discount; with the tax in it, where prices include tax."""
        return self.price - self.discount


@dataclass
class Refund:
    """A refund: pieces by line, and how much more (below zero) or less than their worth was given back."""

    number: int
    second: int
    pieces: dict[int, int]
    adjustment: int


@dataclass
class World:
    """One order. `second` is the time; whatever changes the order stamps it."""

    number: int
    taxes_included: bool = False
    test: bool = False
    second: int = 0
    created: int = 0
    updated: int = 0
    customer: int | None = None
    tags: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    lines: list[Line] = field(default_factory=list[Line])
    refunds: list[Refund] = field(default_factory=list[Refund])
    status: str = "pending"
    outstanding: int = 0
    cancelled: bool = False

    def copy(self) -> World:
        return copy.deepcopy(self)

    # What it is worth.

    def points(self, rule: Rule) -> int:
        """The points whoever owns it should have for it, as it is."""
        tags = [] if self.customer is None else self.tags.get(self.customer, [])
        if self.customer is None or self.test or self.cancelled or rule.excluded_tag in tags:
            return 0
        if self.status not in {"paid", "partially_refunded", "partially_paid"}:
            return 0
        cents = 0
        for line in self.lines:
            if line.gift_card:
                continue
            piece = line.worth
            if self.taxes_included and rule.takes_tax_off:
                piece -= line.tax
            cents += piece * line.left
        given = -sum(refund.adjustment for refund in self.refunds)
        cents -= max(given, 0)
        if self.status == "partially_paid":
            cents -= self.outstanding
        return rule.points(max(cents, 0))

    # What webhooks say.

    def order_payload(self) -> Json:
        subtotal = sum(line.worth * line.left for line in self.lines)
        return {
            "id": self.number,
            "test": self.test,
            "currency": "EUR",
            "financial_status": self.status,
            "cancelled_at": at(self.updated) if self.cancelled else None,
            "created_at": at(self.created),
            "updated_at": at(self.updated),
            "current_subtotal_price": money(subtotal),
            "current_subtotal_price_set": money_set(subtotal),
            "total_outstanding": money(self.outstanding),
            "taxes_included": self.taxes_included,
            "customer": None if self.customer is None else {"id": self.customer, "email": "shopper@example.com"},
            "line_items": [self._line_payload(index) for index in range(len(self.lines))],
            "refunds": [self.refund_payload(refund) for refund in self.refunds],
        }

    def _line_payload(self, index: int) -> Json:
        line = self.lines[index]
        return {
            "id": self.number * 100 + index,
            "gift_card": line.gift_card,
            "quantity": line.quantity,
            "current_quantity": line.left,
            "price": money(line.price),
            "price_set": money_set(line.price),
            "discount_allocations": [{"amount_set": money_set(line.discount * line.quantity)}] if line.discount else [],
            "tax_lines": [{"price_set": money_set(line.tax * line.quantity)}] if line.tax else [],
        }

    def refund_payload(self, refund: Refund) -> Json:
        pieces = [
            {
                "quantity": count,
                "subtotal": money(self.lines[index].worth * count),
                "subtotal_set": money_set(self.lines[index].worth * count),
                "total_tax_set": money_set(self.lines[index].tax * count),
                "line_item": {"id": self.number * 100 + index, "gift_card": self.lines[index].gift_card},
            }
            for index, count in refund.pieces.items()
        ]
        adjustments = [{"amount": money(refund.adjustment), "amount_set": money_set(refund.adjustment)}]
        return {
            "id": refund.number,
            "order_id": self.number,
            "created_at": at(refund.second),
            "refund_line_items": pieces,
            "order_adjustments": adjustments if refund.adjustment else [],
        }

    # What the Admin API says.

    def node(self) -> Json:
        subtotal = sum(line.worth * line.left for line in self.lines)
        customer = None
        if self.customer is not None:
            customer = {"id": gid("Customer", self.customer), "tags": self.tags.get(self.customer, [])}
        return {
            "id": gid("Order", self.number),
            "test": self.test,
            "createdAt": at(self.created),
            "updatedAt": at(self.updated),
            "cancelledAt": at(self.updated) if self.cancelled else None,
            "displayFinancialStatus": self.status.upper(),
            "taxesIncluded": self.taxes_included,
            "currencyCode": "EUR",
            "currentSubtotalPriceSet": money_bag(subtotal),
            "totalOutstandingSet": money_bag(self.outstanding),
            "customer": customer,
            "lineItems": {"pageInfo": LAST_PAGE, "nodes": [self.line_node(one) for one in range(len(self.lines))]},
            "refunds": [self.refund_node(refund) for refund in self.refunds],
        }

    def line_node(self, index: int) -> Json:
        line = self.lines[index]
        discounts = [{"allocatedAmountSet": money_bag(line.discount * line.quantity)}] if line.discount else []
        return {
            "id": gid("LineItem", self.number * 100 + index),
            "quantity": line.quantity,
            "currentQuantity": line.left,
            "isGiftCard": line.gift_card,
            "originalUnitPriceSet": money_bag(line.price),
            "discountAllocations": discounts,
            "taxLines": [{"priceSet": money_bag(line.tax * line.quantity)}] if line.tax else [],
        }

    def refund_node(self, refund: Refund) -> Json:
        adjustments = [{"amountSet": money_bag(refund.adjustment)}] if refund.adjustment else []
        return {
            "id": gid("Refund", refund.number),
            "createdAt": at(refund.second),
            "orderAdjustments": {"nodes": adjustments},
        }


LAST_PAGE = {"hasNextPage": False, "endCursor": None}


def at(second: int) -> str:
    return (EPOCH + timedelta(seconds=second)).isoformat()


def money(cents: int) -> str:
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100}.{abs(cents) % 100:02d}"


def money_set(cents: int) -> Json:
    # The shopper's currency is another one, so that reading it would be noticed.
    return {
        "shop_money": {"amount": money(cents), "currency_code": "EUR"},
        "presentment_money": {"amount": money(cents * 7), "currency_code": "DKK"},
    }


def money_bag(cents: int) -> Json:
    # As the API spells amounts, which is not as webhooks do: 5.0 for 5.00.
    units, rest = divmod(abs(cents), 100)
    decimals = f"{rest:02d}".rstrip("0") or "0"
    return {"shopMoney": {"amount": f"{'-' if cents < 0 else ''}{units}.{decimals}"}}


def gid(kind: str, number: int) -> str:
    return f"gid://shopify/{kind}/{number}"


def shopifys_sample() -> Json:
    """`orders/paid` as Shopify's documentation has it: its lines say neither their quantity nor a plain price."""
    money = {"shop_money": {"amount": "414.95", "currency_code": "USD"}}
    return {
        "id": 820982911946154508,
        "admin_graphql_api_id": "gid://shopify/Order/820982911946154508",
        "test": False,
        "currency": "USD",
        "financial_status": "paid",
        "confirmed": True,
        "cancelled_at": None,
        "cancel_reason": None,
        "current_subtotal_price": "414.95",
        "current_subtotal_price_set": money | {"presentment_money": {"amount": "414.95", "currency_code": "USD"}},
        "subtotal_price": "414.95",
        "current_total_price": "414.95",
        "total_discounts_set": money,
        "taxes_included": False,
        "total_tip_received": "0.00",
        "customer": {
            "id": 115310627314723954,
            "admin_graphql_api_id": "gid://shopify/Customer/115310627314723954",
        },
        "line_items": [
            {
                "id": 866550311766439020,
                "admin_graphql_api_id": "gid://shopify/LineItem/866550311766439020",
                "current_quantity": 1,
                "gift_card": False,
                "price_set": money,
                "discount_allocations": [{"amount_set": money}],
            }
        ],
        "refunds": [],
        "returns": [],
        "source_name": "web",
        "updated_at": at(1),
    }
