"""What mirroring a shop has cost so far, and what its budget looked like when Shopify last said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.shopify import Budget, BudgetSnapshot


@dataclass(frozen=True, slots=True)
class Spent:
    """What one call came to, for the shop's activity: customers, and calls that were throttled or not answered."""

    pushed: int = 0
    refused: int = 0
    read: int = 0
    throttled: int = 0
    unknown: int = 0


async def record_spent(db: Database, shop_id: ShopId, spent: Spent, points: float, budget: BudgetSnapshot) -> None:
    """Add one call, and the points it cost, to the shop's activity, with the budget as it looked afterwards."""
    async with db.shop(shop_id) as conn:
        await conn.execute(
            RECORD_SPENT,
            {
                "shop": shop_id,
                "points": round(points),
                "pushed": spent.pushed,
                "refused": spent.refused,
                "read": spent.read,
                "throttled": spent.throttled,
                "unknown": spent.unknown,
                "maximum": budget.maximum if budget.known else None,
                "available": budget.available if budget.known else None,
                "rate": budget.restore_rate if budget.known else None,
            },
        )


RECORD_SPENT = """
update shop_activity
set
  calls = calls + 1,
  throttled = throttled + %(throttled)s,
  points_spent = points_spent + %(points)s,
  customers_pushed = customers_pushed + %(pushed)s,
  customers_refused = customers_refused + %(refused)s,
  customers_read = customers_read + %(read)s,
  outcomes_unknown = outcomes_unknown + %(unknown)s,
  budget_maximum = coalesce(%(maximum)s, budget_maximum),
  budget_available = coalesce(%(available)s, budget_available),
  budget_restore_rate = coalesce(%(rate)s, budget_restore_rate),
  budget_seen_at = clock_timestamp()
where shop_id = %(shop)s
"""


async def inherit_budget(db: Database, shop_id: ShopId, budget: Budget, *, unrecorded_points: int) -> None:
    """Begin with the shop's budget as whoever called last left it, if anybody did."""
    async with db.shop(shop_id) as conn, conn.cursor() as cur:
        await cur.execute(LAST_BUDGET, {"shop": shop_id})
        row = await cur.fetchone()
    if row is None:
        return
    available, maximum, restore_rate, age_s = row
    budget.inherit(available=available - unrecorded_points, maximum=maximum, restore_rate=restore_rate, age_s=age_s)


LAST_BUDGET = """
select
  budget_available, budget_maximum, budget_restore_rate,
  extract(epoch from clock_timestamp() - budget_seen_at)::double precision
from shop_activity
where shop_id = %(shop)s and budget_maximum > 0 and budget_restore_rate > 0
"""
