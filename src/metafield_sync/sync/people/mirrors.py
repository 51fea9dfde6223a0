"""The mirror of customers who come, go, or become one. SQL only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from metafield_sync.sync.outcomes import GONE_CODE, LOCK_ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId

DELETED_ERROR = "Deleted in Shopify."


async def lock_mirrors(conn: AsyncConnection, shop_id: ShopId, customers: Sequence[UUID]) -> None:
    """Lock these rows by customer id, as postings and drains do."""
    await conn.execute(LOCK_ROWS, {"shop": shop_id, "customers": list(customers)})


async def turn_off(
    conn: AsyncConnection, shop_id: ShopId, customers: Sequence[UUID] | None, status: Literal["merged", "redacted"]
) -> None:
    """Have these customers, None: everybody, neither pushed nor read back nor counted from now on, for good.

    Of a redacted one nothing is left to tell what Shopify showed. What is in flight to them may still be answered;
    nobody listens.
    """
    parameters = {"shop": shop_id, "customers": None if customers is None else list(customers), "status": status}
    await conn.execute(FORGET_FLOW_CHANGES, parameters)
    await conn.execute(TURN_OFF, parameters)


FORGET_FLOW_CHANGES = """
delete from flow_changes
where shop_id = %(shop)s and (%(customers)s::uuid[] is null or customer_id = any (%(customers)s))
"""

TURN_OFF = """
update mirror_states
set
  status = %(status)s,
  pushed_version = wanted_version,
  stale_since = null,
  due_at = case when due_at = 'infinity' then due_at else clock_timestamp() end,
  pushed_balance = case when %(status)s = 'merged' then pushed_balance end,
  digest = null,
  check_at = null,
  in_doubt = false,
  doubt_since = null,
  doubtful_balances = null,
  conflicted = false,
  attempts = 0,
  failing_since = null,
  error_code = null,
  error = null,
  dismissed_at = null
where
  shop_id = %(shop)s
  and (%(customers)s::uuid[] is null or customer_id = any (%(customers)s))
  and status <> 'redacted'
"""


async def push_again(conn: AsyncConnection, shop_id: ShopId, customer_id: UUID) -> None:
    """Have a customer pushed whatever is believed of them: who is there after all, or may show another's points."""
    await conn.execute(PUSH_AGAIN, {"shop": shop_id, "customer": customer_id})


# One held by a backfill stays held: it is pushed again when that is done with it.
PUSH_AGAIN = """
update mirror_states
set
  status = 'live',
  wanted_version = wanted_version + 1,
  stale_since = coalesce(stale_since, clock_timestamp()),
  due_at = case when due_at in ('infinity', '-infinity') then due_at else clock_timestamp() end,
  attempted_at = null
where shop_id = %(shop)s and customer_id = %(customer)s and status in ('live', 'missing')
"""


async def bring_back(conn: AsyncConnection, shop_id: ShopId, customer_id: UUID) -> bool:
    """Have a customer who was believed gone pushed again; False if they were not.

    Whether they are there, the push tells: the news may be older than that of their end, which stays dismissed then.
    """
    async with conn.cursor() as cur:
        await cur.execute(BRING_BACK, {"shop": shop_id, "customer": customer_id})
        return await cur.fetchone() is not None


BRING_BACK = """
update mirror_states
set status = 'live', due_at = clock_timestamp(), attempted_at = null
where shop_id = %(shop)s and customer_id = %(customer)s and status = 'missing'
returning 1
"""


async def note_deleted(conn: AsyncConnection, shop_id: ShopId, shopify_customer_id: int) -> bool:
    """Stop pushing to a customer whom Shopify says it has deleted; False if there is nobody to stop pushing to.

    As when a push finds them gone, but on nobody's list: there is nothing to see to.
    """
    parameters = {"shop": shop_id, "shopify": shopify_customer_id, "code": GONE_CODE, "error": DELETED_ERROR}
    async with conn.cursor() as cur:
        await cur.execute(NOTE_DELETED, parameters)
        return await cur.fetchone() is not None


NOTE_DELETED = """
update mirror_states m
set
  status = 'missing',
  wanted_version = case when m.stale_since is null then m.wanted_version + 1 else m.wanted_version end,
  stale_since = coalesce(m.stale_since, clock_timestamp()),
  digest = null,
  check_at = null,
  in_doubt = false,
  doubt_since = null,
  doubtful_balances = null,
  conflicted = false,
  failing_since = coalesce(m.failing_since, clock_timestamp()),
  attempted_at = clock_timestamp(),
  dismissed_at = coalesce(m.dismissed_at, clock_timestamp()),
  error_code = %(code)s,
  error = %(error)s
from customers c
where
  m.shop_id = %(shop)s
  and c.shop_id = m.shop_id
  and c.id = m.customer_id
  and c.shopify_customer_id = %(shopify)s
  and m.status in ('live', 'missing')
returning 1
"""
