"""The purchases that the demo works on, and the points they earn: one a whole dollar, order by order."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from importlib.resources import files

from metafield_sync.ledger.posting import Posting

FILE = "CDNOW_sample.txt"
REASON = "order"


@dataclass(frozen=True, slots=True)
class Order:
    """One line of the file. `line` counts from 1; `usd` is what was paid."""

    line: int
    customer: int
    day: datetime
    items: int
    usd: Decimal

    @property
    def points(self) -> int:
        """One a whole dollar; what is less than a dollar earns nothing."""
        return int(self.usd.to_integral_value(ROUND_DOWN))

    @property
    def posting(self) -> Posting:
        """The change of points it makes. Its key can be derived again, so that posting it again changes nothing."""
        return Posting(
            shopify_customer_id=self.customer,
            amount=self.points,
            reason=REASON,
            external_id=f"cdnow/line/{self.line}",
            metadata={"usd": str(self.usd), "items": self.items},
            occurred_at=self.day,
        )


def read_orders() -> list[Order]:
    """Every order of the file that the package carries, in its order."""
    text = (files("metafield_sync") / "data" / FILE).read_text(encoding="ascii")
    orders: list[Order] = []
    for line, row in enumerate(text.splitlines(), start=1):
        customer, _, day, items, usd = row.split()
        at = datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)
        orders.append(Order(line, int(customer), at, int(items), Decimal(usd)))
    return orders


def points_earned(orders: list[Order]) -> dict[int, int]:
    """What each customer should have, by Shopify id, counted without the ledger."""
    earned: defaultdict[int, int] = defaultdict(int)
    for order in orders:
        earned[order.customer] += order.points
    return dict(earned)
