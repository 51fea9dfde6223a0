"""Customers believed gone from Shopify: looked for by reading, so that a sync asked for writes only what it must."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metafield_sync.shopify import (
    QueryRefused,
    ShopRefused,
    Throttled,
    find_customers,
    find_customers_cost,
)
from metafield_sync.sync import rows
from metafield_sync.sync.push import ShopStops, charged

if TYPE_CHECKING:
    from metafield_sync.shopify import Cost
    from metafield_sync.sync.push import Turn

LOOKED_FOR_MAX = 100
"""Looked for by one run, those first that were looked for longest ago: one call, whatever the number that is gone."""


async def look_for_missing_customers(turn: Turn) -> None:
    """Ask Shopify which of the missing customers exist; who does is due again.

    A customer can be posted to before Shopify knows them (an import that runs ahead), and is then not gone for good.

    Raises:
        ShopStops: Shopify refuses the shop.
        ShopifyError: it does not answer.
    """
    async with turn.db.shop(turn.shop.id) as conn, conn.cursor() as cur:
        await cur.execute(MISSING_CUSTOMERS, {"shop": turn.shop.id, "limit": LOOKED_FOR_MAX})
        missing = {shopify_id: customer_id for customer_id, shopify_id in await cur.fetchall()}
    if not missing:
        return
    reservation = await turn.budget.acquire(find_customers_cost(len(missing)))
    cost: Cost | None = None
    spent, points = rows.Spent(), float(reservation.points)
    try:
        found, cost = await find_customers(turn.client, turn.access, list(missing))
    except QueryRefused:
        # It will not say; then writing will tell.
        found = set(missing)
    except ShopRefused as error:
        points = 0.0
        raise ShopStops(error.reason, error.detail) from error
    except Throttled as error:
        turn.budget.throttled(error.cost, error.retry_after_s, reservation=reservation)
        spent, points = rows.Spent(throttled=1), 0.0
        raise
    finally:
        turn.budget.settle(reservation, cost)
        await rows.record_spent(turn.db, turn.shop.id, spent, charged(cost, points), turn.budget.snapshot())
    async with turn.db.shop(turn.shop.id) as conn:
        there = [missing[shopify_id] for shopify_id in found if shopify_id in missing]
        await conn.execute(
            NOTE_LOOKED_FOR, {"shop": turn.shop.id, "looked_for": list(missing.values()), "there": there}
        )


MISSING_CUSTOMERS = """
select m.customer_id, c.shopify_customer_id
from mirror_states m
join customers c on c.shop_id = m.shop_id and c.id = m.customer_id
where m.shop_id = %(shop)s and m.failing_since is not null and m.status = 'missing' and m.dismissed_at is null
order by m.attempted_at
limit %(limit)s
"""

# By customer id, the order in which postings and drains lock these rows.
NOTE_LOOKED_FOR = """
with looked_for as materialized (
  select m.customer_id
  from mirror_states m
  where m.shop_id = %(shop)s and m.customer_id = any (%(looked_for)s) and m.status = 'missing'
  order by m.customer_id
  for no key update
)
update mirror_states m
set
  status = case when m.customer_id = any (%(there)s) then 'live' else 'missing' end,
  due_at = case when m.customer_id = any (%(there)s) then clock_timestamp() else m.due_at end,
  attempted_at = case when m.customer_id = any (%(there)s) then null else clock_timestamp() end
from looked_for l
where m.shop_id = %(shop)s and m.customer_id = l.customer_id
"""
