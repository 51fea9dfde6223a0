"""What an order is worth: the facts that decide it, and the arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from metafield_sync.rewards.rule import EarningRule

MONEY_STEP = Decimal("0.0001")
"""A line's share of its tax or discount is rounded to this, in units of currency: finer than any coin."""

PAID_STATUSES = frozenset({"paid", "partially_refunded"})
PARTLY_PAID_STATUS = "partially_paid"

NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineFacts:
    """One line of an order, in the shop's currency.

    `discount` and `tax` are the line's as it was ordered, in all `quantity` pieces of it; `current_quantity` is how
    many there are still. `price` is one piece's, before discounts.
    """

    quantity: int
    current_quantity: int
    is_gift_card: bool
    price: Decimal
    discount: Decimal
    tax: Decimal

    def now(self, amount: Decimal) -> Decimal:
        """The share that today's pieces have of an amount that is all pieces'."""
        if self.quantity <= 0:
            return NOTHING
        share = Fraction(amount) * self.current_quantity / self.quantity
        return _rounded(share)


@dataclass(frozen=True, slots=True)
class GivenBack:
    """A refund that the order's state already contains: its goods are gone from the subtotal, its adjustment is not.

    `adjustment` is the sum of its order adjustments: below zero when more was given back than what goods were worth
    (goodwill), above when less was (a restocking fee, or a return whose money comes later).
    """

    refund_id: int
    adjustment: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFacts:
    """The present state of an order, as far as points go. Money is in the shop's currency.

    Attributes:
        created_at: when it was placed; None: Shopify did not say.
        status: Shopify's financial status in lower case, such as `paid`.
        subtotal: what its goods cost now, after discounts, edits and refunds, with tax if `taxes_included`.
        gift_cards: how much of that is gift cards.
        goods_tax: the tax of the goods there are now, gift cards apart.
        outstanding: what is still to be paid; None: Shopify did not say.
        refunds: those it contains, by id.
    """

    created_at: datetime | None
    is_test: bool
    is_cancelled: bool
    status: str
    taxes_included: bool
    subtotal: Decimal
    gift_cards: Decimal = NOTHING
    goods_tax: Decimal = NOTHING
    outstanding: Decimal | None = None
    refunds: tuple[GivenBack, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundFacts:
    """A refund that came by itself. `goods` is the price of what was returned, `goods_tax` its tax, gift cards apart.

    With prices that include tax, `goods` does too. `adjustment`: see `GivenBack`.
    """

    refund_id: int
    created_at: datetime | None
    goods: Decimal
    goods_tax: Decimal
    adjustment: Decimal


def gift_card_money(lines: Iterable[LineFacts]) -> Decimal:
    """What gift cards contribute to an order's subtotal as it is now."""
    return sum(
        (line.price * line.current_quantity - line.now(line.discount) for line in lines if line.is_gift_card), NOTHING
    )


def goods_tax(lines: Iterable[LineFacts]) -> Decimal:
    """The tax of the goods that are there now; gift cards are no goods."""
    return sum((line.now(line.tax) for line in lines if not line.is_gift_card), NOTHING)


def target(rule: EarningRule, order: OrderFacts, refunds: Iterable[RefundFacts]) -> int:
    """The points an order is worth as it is now.

    Args:
        rule: the one it earns by.
        order: its latest known state.
        refunds: those that came by themselves. One that the order contains counts once.

    Returns:
        Never below 0. The same state always gives the same points, whatever led to it.
    """
    too_early = order.created_at is not None and order.created_at < rule.starts_at
    if too_early or not rule.is_enabled:
        return 0
    return rule.points(earning_money(order, refunds, takes_tax_off=rule.takes_tax_off))


def earning_money(order: OrderFacts, refunds: Iterable[RefundFacts], *, takes_tax_off: bool) -> Decimal:
    """How much of an order's price earns: goods after discounts, paid for and not given back; never below 0."""
    is_paid_for = order.status in PAID_STATUSES or (
        order.status == PARTLY_PAID_STATUS and order.outstanding is not None
    )
    if order.is_test or order.is_cancelled or not is_paid_for:
        return NOTHING
    without_tax = takes_tax_off and order.taxes_included
    contained = {refund.refund_id for refund in order.refunds}
    alone = {refund.refund_id: refund for refund in refunds if refund.refund_id not in contained}.values()

    goods = order.subtotal - order.gift_cards - sum((refund.goods for refund in alone), NOTHING)
    if without_tax:
        goods += sum((refund.goods_tax for refund in alone), NOTHING) - order.goods_tax
    # Over all refunds together: a return whose money is given back later comes as two refunds, plus and minus.
    adjusted = sum((one.adjustment for one in (*order.refunds, *alone)), NOTHING)
    goodwill = max(-adjusted, NOTHING)
    unpaid = NOTHING
    if order.status == PARTLY_PAID_STATUS and order.outstanding is not None:
        unpaid = max(order.outstanding, NOTHING)
    return max(goods - goodwill - unpaid, NOTHING)


def _rounded(amount: Fraction) -> Decimal:
    steps = amount / Fraction(MONEY_STEP)
    # Away from zero from the middle on, as ROUND_HALF_UP has it.
    whole = int(abs(steps) + Fraction(1, 2))
    return (whole if steps >= 0 else -whole) * MONEY_STEP
