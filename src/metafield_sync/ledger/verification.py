"""Verification: is every stored balance the sum of its entries? What is not is repaired, from the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from psycopg.rows import class_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

    from metafield_sync.db.database import Database, ShopId

REPAIR_CUSTOMERS_MAX = 500
"""Customers locked at once for repair: few enough that a posting to one of them waits milliseconds."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A stored balance that was not the sum of its entries. Points."""

    customer_id: UUID
    shopify_customer_id: int
    stored: int
    calculated: int

    @property
    def difference(self) -> int:
        """What was missing from the stored balance; negative when it was too high."""
        return self.calculated - self.stored


async def verify(
    db: Database,
    shop_id: ShopId,
    *,
    customer_id: UUID | None = None,
    run_id: UUID | None = None,
    repair: bool = True,
) -> list[Discrepancy]:
    """Hold every stored balance of the shop, or one customer's, against the sum of its entries; repair what differs.

    Merged customers are verified as well. Redacted ones are not: they are shown to nobody, and take no posting.

    The suspects come from one statement, so from one snapshot: a posting going on meanwhile never looks like a
    discrepancy. Each is looked at again under its lock before it is changed. Every repair is recorded in
    `balance_corrections` and logged as a warning, "Balance corrected".

    Memory: this process holds the discrepancies only; the sums are the database's work.
    """
    async with db.shop(shop_id) as conn:
        suspects = await _suspects(conn, shop_id, customer_id)
    if not repair:
        return suspects
    corrected: list[Discrepancy] = []
    for start in range(0, len(suspects), REPAIR_CUSTOMERS_MAX):
        ids = [suspect.customer_id for suspect in suspects[start : start + REPAIR_CUSTOMERS_MAX]]
        async with db.shop(shop_id) as conn:
            corrected += await _repair(conn, shop_id, ids, run_id)
    for found in corrected:
        log.warning(
            "Balance corrected",
            shop_id=shop_id,
            customer_id=str(found.customer_id),
            stored=found.stored,
            calculated=found.calculated,
            difference=found.difference,
        )
    return corrected


async def _suspects(conn: AsyncConnection, shop_id: ShopId, customer_id: UUID | None) -> list[Discrepancy]:
    async with conn.cursor(row_factory=class_row(Discrepancy)) as cur:
        if customer_id is None:
            await cur.execute(FIND_DISCREPANCIES, {"shop": shop_id})
        else:
            await cur.execute(FIND_DISCREPANCY, {"shop": shop_id, "customer": customer_id})
        return await cur.fetchall()


FIND_DISCREPANCIES = """
with sums as (
  select customer_id, sum(amount)::bigint as calculated
  from ledger_entries
  where shop_id = %(shop)s
  group by customer_id
)
select c.id as customer_id, c.shopify_customer_id, c.current_balance as stored, coalesce(s.calculated, 0) as calculated
from customers c
left join sums s on s.customer_id = c.id
where c.shop_id = %(shop)s and c.redacted_at is null and c.current_balance <> coalesce(s.calculated, 0)
order by c.id
"""

FIND_DISCREPANCY = """
select c.id as customer_id, c.shopify_customer_id, c.current_balance as stored, s.calculated
from customers c
cross join lateral (
  select coalesce(sum(l.amount), 0)::bigint as calculated
  from ledger_entries l
  where l.shop_id = c.shop_id and l.customer_id = c.id
) s
where
  c.shop_id = %(shop)s
  and c.id = %(customer)s
  and c.redacted_at is null
  and c.current_balance <> s.calculated
"""


async def _repair(
    conn: AsyncConnection, shop_id: ShopId, ids: Sequence[UUID], run_id: UUID | None
) -> list[Discrepancy]:
    # The same order as posting takes (by id), so that the two can never wait for each other in a circle.
    await conn.execute(LOCK_CUSTOMERS, {"shop": shop_id, "customers": ids})
    async with conn.cursor(row_factory=class_row(Discrepancy)) as cur:
        await cur.execute(STILL_WRONG, {"shop": shop_id, "customers": ids})
        wrong = await cur.fetchall()
        # One by one, because what hangs on a balance is locked with it, and one statement for all of them would choose
        # an order of its own. They travel together all the same.
        await cur.executemany(
            REPAIR_BALANCE,
            [{"shop": shop_id, "customer": found.customer_id, "calculated": found.calculated} for found in wrong],
        )
        await cur.execute(
            RECORD_CORRECTIONS,
            {
                "shop": shop_id,
                "run": run_id,
                "customers": [found.customer_id for found in wrong],
                "stored": [found.stored for found in wrong],
                "calculated": [found.calculated for found in wrong],
            },
        )
    return wrong


LOCK_CUSTOMERS = """
select 1
from customers
where shop_id = %(shop)s and id = any (%(customers)s)
order by id
for no key update
"""

STILL_WRONG = """
select c.id as customer_id, c.shopify_customer_id, c.current_balance as stored, s.calculated
from customers c
cross join lateral (
  select coalesce(sum(l.amount), 0)::bigint as calculated
  from ledger_entries l
  where l.shop_id = c.shop_id and l.customer_id = c.id
) s
where
  c.shop_id = %(shop)s
  and c.id = any (%(customers)s)
  and c.redacted_at is null
  and c.current_balance <> s.calculated
order by c.id
"""

REPAIR_BALANCE = """
update customers
set current_balance = %(calculated)s
where shop_id = %(shop)s and id = %(customer)s
"""

RECORD_CORRECTIONS = """
insert into balance_corrections (shop_id, customer_id, stored, calculated, found_by, run_id)
select %(shop)s, t.customer_id, t.stored, t.calculated, 'verification', %(run)s::uuid
from unnest(%(customers)s::uuid[], %(stored)s::bigint[], %(calculated)s::bigint[])
  as t (customer_id, stored, calculated)
"""
