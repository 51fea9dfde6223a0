"""From an order or a refund as Shopify describes it to the facts that decide about points.

There is one form to read: that of webhooks. `shopify.orders` puts what the Admin API answers into the same, so that an
order is the same order however it came.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from metafield_sync.errors import AppError
from metafield_sync.rewards.order import (
    GivenBack,
    LineFacts,
    OrderFacts,
    RefundFacts,
    gift_card_money,
    goods_tax,
)
from metafield_sync.shopify.shapes import mapping, moment, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ID_MAX = 2**63 - 1
QUANTITY_MAX = 10**9
MONEY = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,6})?", re.ASCII)
STATUS = re.compile(r"[a-z_]{1,40}", re.ASCII)
CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
SHIPPING_ADJUSTMENT = "shipping_refund"
"""Shipping given back, listed among the adjustments until API version 2024-10: no goods, no goodwill."""
PENDING_REASON = "pending_refund_discrepancy"
"""Money that an edit has left to be given back, and was not: it balances the edit's own discrepancy. Once it is given
back, that is an adjustment of its own. Webhooks write "Pending refund discrepancy", the Admin API the enum value."""

NOTHING = Decimal(0)


class OrderUnreadable(AppError):
    """What came is not an order, or not a refund, as Shopify describes them; the detail names the field."""

    code = "order_unreadable"
    status = 422


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An order as Shopify described it at one moment.

    `customer_id` is Shopify's, None for an order without a customer. `customer_tags`: None unless they were asked for.
    `currency` is the shop's.
    """

    order_id: int
    updated_at: datetime
    customer_id: int | None
    facts: OrderFacts
    currency: str | None = None
    customer_tags: tuple[str, ...] | None = None


def read_order(document: Mapping[str, Any]) -> Snapshot:
    """Read an order; what is not about points is not looked at.

    Raises:
        OrderUnreadable: a field is missing or malformed.
    """
    customer = mapping(document.get("customer"))
    taxes_included = document.get("taxes_included") is True
    described = _list(document, "line_items")
    lines = [_line(line, taxes_included=taxes_included) for line in described]
    refunds = (GivenBack(_id(refund, "id"), _adjustment(refund)) for refund in _list(document, "refunds"))
    outstanding = document.get("total_outstanding")
    facts = OrderFacts(
        created_at=_moment(document, "created_at"),
        is_test=document.get("test") is True,
        is_cancelled=document.get("cancelled_at") is not None,
        status=_status(document.get("financial_status")),
        taxes_included=taxes_included,
        subtotal=_money(document, "current_subtotal_price"),
        gift_cards=gift_card_money(lines),
        goods_tax=_goods_tax(document, described, lines),
        outstanding=None if outstanding is None else _amount(outstanding, "total_outstanding"),
        refunds=tuple(sorted(refunds, key=lambda refund: refund.refund_id)),
    )
    updated_at = _moment(document, "updated_at")
    if updated_at is None:
        raise _unreadable("updated_at")
    return Snapshot(
        order_id=_id(document, "id"),
        updated_at=updated_at,
        customer_id=None if customer is None else _id(customer, "id"),
        facts=facts,
        currency=_currency(document),
        customer_tags=None if customer is None else _tags(customer.get("tags")),
    )


def read_refund(document: Mapping[str, Any]) -> tuple[int, RefundFacts]:
    """Read a refund that came by itself: its order's id, and its facts.

    Raises:
        OrderUnreadable: a field is missing or malformed.
    """
    goods, tax = NOTHING, NOTHING
    for returned in _list(document, "refund_line_items"):
        line = mapping(returned.get("line_item")) or {}
        if line.get("gift_card") is not True:
            goods += _money(returned, "subtotal")
            tax += _money(returned, "total_tax", default=NOTHING)
    facts = RefundFacts(
        refund_id=_id(document, "id"),
        created_at=_moment(document, "created_at"),
        goods=goods,
        goods_tax=tax,
        adjustment=_adjustment(document),
    )
    return _id(document, "order_id"), facts


def facts_to_json(facts: OrderFacts) -> dict[str, Any]:
    """The facts as they are stored: amounts as text, so that they stay what they are."""
    return {
        "createdAt": None if facts.created_at is None else facts.created_at.isoformat(),
        "test": facts.is_test,
        "cancelled": facts.is_cancelled,
        "status": facts.status,
        "taxesIncluded": facts.taxes_included,
        "subtotal": _text(facts.subtotal),
        "giftCards": _text(facts.gift_cards),
        "goodsTax": _text(facts.goods_tax),
        "outstanding": None if facts.outstanding is None else _text(facts.outstanding),
        "refunds": [[refund.refund_id, _text(refund.adjustment)] for refund in facts.refunds],
    }


def facts_from_json(stored: Mapping[str, Any]) -> OrderFacts:
    """The facts out of what `facts_to_json` made of them."""
    created_at, outstanding = stored["createdAt"], stored["outstanding"]
    return OrderFacts(
        created_at=None if created_at is None else datetime.fromisoformat(created_at),
        is_test=stored["test"],
        is_cancelled=stored["cancelled"],
        status=stored["status"],
        taxes_included=stored["taxesIncluded"],
        subtotal=Decimal(stored["subtotal"]),
        gift_cards=Decimal(stored["giftCards"]),
        goods_tax=Decimal(stored["goodsTax"]),
        outstanding=None if outstanding is None else Decimal(outstanding),
        refunds=tuple(GivenBack(refund_id, Decimal(adjustment)) for refund_id, adjustment in stored["refunds"]),
    )


def digest(snapshot: Snapshot) -> bytes:
    """Tells two states of an order apart: equal for equal facts and the same customer, however either came."""
    document = {**facts_to_json(snapshot.facts), "customer": snapshot.customer_id}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest()


def _line(document: Mapping[str, Any], *, taxes_included: bool) -> LineFacts:
    """What of a line decides about points. The subtotal says what goods cost, so of goods little need be told.

    A gift card's price has to be known, and of how many pieces a tax is that has to be taken off.
    """
    is_gift_card = document.get("gift_card") is True
    neutral = None if is_gift_card else NOTHING
    discounts = (_money(one, "amount", default=neutral) for one in _list(document, "discount_allocations"))
    tax_lines = _list(document, "tax_lines")
    tax_matters = taxes_included and not is_gift_card
    taxes = (_money(one, "price", default=None if tax_matters else NOTHING) for one in tax_lines)
    ordered, current = _quantity(document, "quantity"), _quantity(document, "current_quantity")
    known = [count for count in (ordered, current) if count is not None]
    if not known and tax_matters and tax_lines:
        raise _unreadable("quantity")
    return LineFacts(
        quantity=known[0] if known else 1,
        current_quantity=known[-1] if known else 1,
        is_gift_card=is_gift_card,
        price=_money(document, "price", default=neutral),
        discount=sum(discounts, NOTHING),
        tax=sum(taxes, NOTHING),
    )


def _goods_tax(document: Mapping[str, Any], described: Sequence[Mapping[str, Any]], lines: list[LineFacts]) -> Decimal:
    """The goods' tax. Where prices include it and no line says what is its, it is what the order says in all.

    That has the tax of shipping in it: rather some points too few than points for tax. An empty list is no such case,
    it says that the line has no tax.
    """
    if (
        document.get("taxes_included") is True
        and described
        and all(line.get("tax_lines") is None for line in described)
    ):
        return _money(document, "current_total_tax", default=NOTHING)
    return goods_tax(lines)


def _adjustment(refund: Mapping[str, Any]) -> Decimal:
    adjustments = _list(refund, "order_adjustments")
    return sum((_money(one, "amount") for one in adjustments if not _is_no_goodwill(one)), NOTHING)


def _is_no_goodwill(adjustment: Mapping[str, Any]) -> bool:
    reason = adjustment.get("reason")
    is_pending = isinstance(reason, str) and reason.lower().replace(" ", "_") == PENDING_REASON
    return is_pending or adjustment.get("kind") == SHIPPING_ADJUSTMENT


def _money(document: Mapping[str, Any], name: str, *, default: Decimal | None = None) -> Decimal:
    """An amount in the shop's currency: of `name_set` its shop money, else the plain field, which is the same."""
    shop_money = mapping((mapping(document.get(f"{name}_set")) or {}).get("shop_money"))
    value = document.get(name) if shop_money is None else shop_money.get("amount")
    if value is None and default is not None:
        return default
    return _amount(value, name)


def _amount(value: Any, name: str) -> Decimal:
    # A float has lost already what Shopify wrote; whoever reads JSON for us reads Decimals.
    if isinstance(value, str | int | Decimal) and not isinstance(value, bool):
        text = f"{value:f}" if isinstance(value, Decimal) else str(value)
        if MONEY.fullmatch(text) is not None:
            return Decimal(text)
    raise _unreadable(name)


def _text(amount: Decimal) -> str:
    # One spelling for one amount: 5, 5.0 and 5.00 come from different places, and so does -0.
    return f"{amount.normalize() + 0:f}"


def _quantity(document: Mapping[str, Any], name: str) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= QUANTITY_MAX:
        raise _unreadable(name)
    return value


def _id(document: Mapping[str, Any], name: str) -> int:
    # As text, too: it is too long for the numbers of many who read JSON.
    value = whole(document.get(name))
    if value is None or not 0 < value <= ID_MAX:
        raise _unreadable(name)
    return value


def _moment(document: Mapping[str, Any], name: str) -> datetime | None:
    value = document.get(name)
    if value is None:
        return None
    read = moment(value)
    if read is None:
        raise _unreadable(name)
    return read


def _status(value: Any) -> str:
    # None, or a word that is new: not known to be paid.
    return value if isinstance(value, str) and STATUS.fullmatch(value) else "unknown"


def _currency(document: Mapping[str, Any]) -> str | None:
    value = document.get("currency")
    return value if isinstance(value, str) and CURRENCY.fullmatch(value) else None


def _tags(value: Any) -> tuple[str, ...] | None:
    # A webhook's customer has no tags; where an old one has, they are one text.
    if not isinstance(value, list):
        return None
    return tuple(tag for tag in cast("list[Any]", value) if isinstance(tag, str))


def _list(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    value = document.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _unreadable(name)
    found = [mapping(one) for one in cast("list[Any]", value)]
    if None in found:
        raise _unreadable(name)
    return [one for one in found if one is not None]


def _unreadable(name: str) -> OrderUnreadable:
    return OrderUnreadable(
        f"The field {name!r} of an order or refund is missing or malformed, so its points cannot be worked out. "
        "Check which API version the webhooks are pinned to; the next catch-up reads the order from the Admin API."
    )
