"""Orders as storage keeps them: JSON text, amounts as text in it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import Any, cast

from devstore.orders import Adjustment, Line, Order, Reason, Refund, RefundLine, RestockType

_Read = dict[str, Any]

_LINE_AMOUNTS = ("price", "line_discount", "order_discount", "tax_rate", "tax", "current_discount", "current_tax")
_ORDER_AMOUNTS = ("presentment_rate", "shipping", "tip", "received")
_REFUND_AMOUNTS = ("shipping", "tip", "amount", "goodwill")


def write_order(order: Order) -> str:
    """An order as it is stored. Its customer has a column of its own, and is not in there."""
    return json.dumps(asdict(order) | {"customer": None}, separators=(",", ":"), default=str)


def read_order(customer: int | None, content: str) -> Order:
    """The same back: the text was written by `write_order`, from these very classes."""
    read = cast("_Read", json.loads(content))
    lines = tuple(Line(**_amounts(one, _LINE_AMOUNTS)) for one in cast("list[_Read]", read["lines"]))
    refunds = tuple(_refund(one) for one in cast("list[_Read]", read["refunds"]))
    parts: _Read = {"customer": customer, "lines": lines, "refunds": refunds}
    return Order(**(_amounts(read, _ORDER_AMOUNTS) | parts))


def _refund(read: _Read) -> Refund:
    lines = [_refund_line(one) for one in cast("list[_Read]", read["lines"])]
    adjustments = [_adjustment(one) for one in cast("list[_Read]", read["adjustments"])]
    parts: _Read = {"lines": tuple(lines), "adjustments": tuple(adjustments)}
    return Refund(**(_amounts(read, _REFUND_AMOUNTS) | parts))


def _refund_line(read: _Read) -> RefundLine:
    parts: _Read = {"restock_type": RestockType(read["restock_type"])}
    return RefundLine(**(_amounts(read, ("subtotal", "tax")) | parts))


def _adjustment(read: _Read) -> Adjustment:
    parts: _Read = {"reason": Reason(read["reason"])}
    return Adjustment(**(_amounts(read, ("amount",)) | parts))


def _amounts(read: Mapping[str, Any], names: Iterable[str]) -> _Read:
    """The same, with some of it as numbers."""
    return dict(read) | {name: Decimal(read[name]) for name in names}
