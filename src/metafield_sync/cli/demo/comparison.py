"""Database against Shopify: what PostgreSQL holds, what the Admin API gives back, customer by customer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metafield_sync.db.database import Database, ShopId

BALANCES = """
select
  c.shopify_customer_id,
  c.current_balance,
  coalesce(sum(l.amount), 0)::bigint as ledger_sum,
  count(l.amount) as entries
from customers c
left join ledger_entries l on l.shop_id = c.shop_id and l.customer_id = c.id
where c.shop_id = %(shop)s and c.merged_into is null and c.redacted_at is null
group by c.shop_id, c.id, c.shopify_customer_id, c.current_balance
order by c.shopify_customer_id
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One customer, four ways. Points; None: not there at all; a text instead of a number: no integer metafield."""

    customer: int
    entries: int
    earned: int | None
    ledger: int | None
    balance: int | None
    shopify: int | str | None

    @property
    def agrees(self) -> bool:
        """Whether all four are there and the same."""
        return self.earned is not None and self.earned == self.ledger == self.balance == self.shopify


async def compare(
    db: Database, shop_id: ShopId, earned: Mapping[int, int], shopify: Mapping[int, int | str]
) -> list[Row]:
    """Put side by side what was earned, the ledger, the stored balances, and the metafields, by Shopify's id."""
    async with db.shop(shop_id) as conn, conn.cursor() as cur:
        await cur.execute(BALANCES, {"shop": shop_id})
        stored = {row[0]: row for row in await cur.fetchall()}
    rows: list[Row] = []
    for customer in sorted({*earned, *stored, *shopify}):
        _, balance, ledger, entries = stored.get(customer, (customer, None, None, 0))
        rows.append(Row(customer, entries, earned.get(customer), ledger, balance, shopify.get(customer)))
    return rows
