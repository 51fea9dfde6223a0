"""The rule by which orders earn."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_DOWN, ROUND_HALF_UP, ROUND_UP, Context, Decimal
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Rounding = Literal["down", "half_up", "up"]

ORDER_POINTS_MAX = 2**53 - 1
"""No order is worth more than a balance can show."""

_HOW: Mapping[Rounding, str] = {"down": ROUND_DOWN, "half_up": ROUND_HALF_UP, "up": ROUND_UP}
_EXACT = Context(prec=60)
"""Digits enough for any amount times any rate, so that nothing is rounded before it is meant to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarningRule:
    """What one unit of the shop's currency is worth, and which orders count.

    Attributes:
        points_per_unit: points for one unit of currency; not negative.
        rounding: of an order's points, once, after everything is added up; `half_up`: from .5 on.
        excluded_tags: customers with any of these earn nothing. As in Shopify, capitals do not matter.
        takes_tax_off: where prices include tax, only what is left without it earns.
        starts_at: orders placed before earn nothing.
        is_enabled: whether anything is earned at all.
    """

    points_per_unit: Decimal = Decimal(1)
    rounding: Rounding = "down"
    excluded_tags: frozenset[str] = frozenset()
    takes_tax_off: bool = True
    starts_at: datetime
    is_enabled: bool = True

    def points(self, money: Decimal) -> int:
        """The points for an order of so much money, which is not negative."""
        exact = _EXACT.multiply(money, self.points_per_unit)
        whole = exact.to_integral_value(rounding=_HOW[self.rounding], context=_EXACT)
        return min(int(whole), ORDER_POINTS_MAX)

    def leaves_out(self, customer_tags: Iterable[str]) -> bool:
        """Whether a customer with these tags earns nothing."""
        excluded = {tag.strip().casefold() for tag in self.excluded_tags}
        return any(tag.strip().casefold() in excluded for tag in customer_tags)
