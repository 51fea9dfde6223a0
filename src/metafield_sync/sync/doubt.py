"""Calls whose outcome nobody knows: ended when they did nothing, else their customers are in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metafield_sync.sync.outcomes import END_CALL, LOCK_ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from psycopg import AsyncConnection

    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.sync.claims import Batch
    from metafield_sync.sync.lease import Lease


async def forget_call(db: Database, lease: Lease, batch: Batch) -> None:
    """Note that a call never left, or that Shopify executed none of it."""
    async with db.shop(lease.shop_id) as conn:
        await conn.execute(END_CALL, {"shop": lease.shop_id, "call": batch.call_id})


async def record_doubt(db: Database, lease: Lease, batch: Batch) -> None:
    """Note, whoever holds the lease by now, that these customers may have been written by a call of ours."""
    balances = {claim.customer_id: [claim.balance] for claim in batch.claims}
    async with db.shop(lease.shop_id) as conn:
        await conn.execute(END_CALL, {"shop": lease.shop_id, "call": batch.call_id})
        await _put_in_doubt(conn, lease.shop_id, balances)


async def adopt_calls_left_behind(db: Database, lease: Lease) -> int:
    """Put in doubt whom calls of earlier holders of the lease may have written; how many customers that were."""
    async with db.shop(lease.shop_id) as conn, conn.cursor() as cur:
        await cur.execute(TAKE_CALLS_LEFT_BEHIND, {"shop": lease.shop_id, "token": lease.token})
        balances: dict[UUID, list[int]] = {}
        for customers, sent in await cur.fetchall():
            for customer_id, balance in zip(customers, sent, strict=True):
                balances.setdefault(customer_id, []).append(balance)
        if balances:
            await _put_in_doubt(conn, lease.shop_id, balances)
    return len(balances)


async def _put_in_doubt(conn: AsyncConnection, shop_id: ShopId, balances: Mapping[UUID, list[int]]) -> None:
    customers = sorted(balances)
    pairs = [(customer, balance) for customer in customers for balance in balances[customer]]
    await conn.execute(LOCK_ROWS, {"shop": shop_id, "customers": customers})
    await conn.execute(
        PUT_IN_DOUBT,
        {"shop": shop_id, "customers": [pair[0] for pair in pairs], "balances": [pair[1] for pair in pairs]},
    )


TAKE_CALLS_LEFT_BEHIND = """
delete from push_calls
where shop_id = %(shop)s and token < %(token)s
returning customers, balances
"""

# Who is in step now may be overwritten yet: behind until read back.
PUT_IN_DOUBT = """
update mirror_states m
set
  wanted_version = case when m.stale_since is null then m.wanted_version + 1 else m.wanted_version end,
  stale_since = coalesce(m.stale_since, clock_timestamp()),
  due_at = case when m.stale_since is null then clock_timestamp() else m.due_at end,
  in_doubt = true,
  doubt_since = clock_timestamp(),
  doubtful_balances = coalesce(m.doubtful_balances, '{}') || t.balances,
  check_at = clock_timestamp()
from (
  select u.customer_id, array_agg(u.balance) as balances
  from unnest(%(customers)s::uuid[], %(balances)s::bigint[]) as u (customer_id, balance)
  group by u.customer_id
) t
where m.shop_id = %(shop)s and m.customer_id = t.customer_id and m.status = 'live'
"""
