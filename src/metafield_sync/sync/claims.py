"""What there is to do for a shop: whom to push, whom to read back. SQL only; who may call this holds the lease."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from psycopg.rows import class_row, dict_row

if TYPE_CHECKING:
    from collections.abc import Collection

    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId
    from metafield_sync.sync.lease import Lease


@dataclass(frozen=True, slots=True)
class Claim:
    """One customer to push: the balance as it is now, and the version of the wish that it fulfils.

    `digest` is Shopify's, of what it was last known to hold; None: nothing is known to be there.
    """

    customer_id: UUID
    shopify_customer_id: int
    version: int
    balance: int
    digest: str | None
    attempts: int
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class Batch:
    """Claims that go out in one call. The call is on record as `call_id` until what came of it is."""

    call_id: int
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """One customer whose metafield is to be read back, and what is believed of it.

    `stale`: a balance waits to be pushed. `conflicted`: Shopify refused the digest. `doubtful_balances`: what writes
    without a known outcome would have written. `missing`: believed gone from Shopify.
    """

    customer_id: UUID
    shopify_customer_id: int
    version: int
    balance: int
    pushed_balance: int | None
    stale: bool
    in_doubt: bool
    conflicted: bool
    missing: bool
    doubtful_balances: list[int] | None
    attempts: int
    claimed_at: datetime


async def claim_stale(
    conn: AsyncConnection,
    lease: Lease,
    *,
    limit: int,
    besides: Collection[UUID] = (),
    only: Collection[UUID] | None = None,
    since: datetime | None = None,
) -> Batch | None:
    """Up to `limit` customers that are due, most urgent first. None if nobody is, or the lease is no longer ours.

    One statement, so one snapshot: version, balance and digest belong together, and the call is on record before it
    can leave.

    Args:
        conn: in a transaction of its own.
        lease: the shop's.
        limit: how many fit into a call.
        besides: in flight already, and left out.
        only: of these and nobody else.
        since: only who became due later, or was asked for by hand: the others are about to go by bulk operation.
    """
    parameters = {
        "shop": lease.shop_id,
        "token": lease.token,
        "limit": limit,
        "besides": list(besides),
        "only": None if only is None else list(only),
        "since": since,
    }
    async with conn.cursor(row_factory=dict_row) as cur:
        await cur.execute(CLAIM_STALE, parameters)
        rows = await cur.fetchall()
    if not rows:
        return None
    call_id = rows[0]["call_id"]
    return Batch(call_id, tuple(Claim(**{k: v for k, v in row.items() if k != "call_id"}) for row in rows))


# `claimed_at` is from before the snapshot: a posting it does not show was then certainly not tried at that time.
# Whoever is in doubt, or due to be read back, is read before being written.
CLAIM_STALE = """
with due as materialized (
  select
    m.customer_id, c.shopify_customer_id, m.wanted_version as version, c.current_balance as balance, m.digest,
    m.attempts, statement_timestamp() as claimed_at
  from mirror_states m
  join customers c on c.shop_id = m.shop_id and c.id = m.customer_id
  where
    m.shop_id = %(shop)s
    and m.stale_since is not null
    and m.status = 'live'
    and m.due_at <= clock_timestamp()
    and (%(since)s::timestamptz is null or m.due_at >= %(since)s or m.due_at = '-infinity')
    and not m.in_doubt
    and (m.check_at is null or m.check_at > clock_timestamp())
    and m.customer_id <> all (%(besides)s)
    and (%(only)s::uuid[] is null or m.customer_id = any (%(only)s))
    and exists (select from shop_leases l where l.shop_id = m.shop_id and l.token = %(token)s)
  order by m.due_at, m.customer_id
  limit %(limit)s
),
noted as (
  insert into push_calls (shop_id, token, customers, balances)
  select %(shop)s, %(token)s, array_agg(d.customer_id), array_agg(d.balance)
  from due d
  having count(*) > 0
  returning id
)
select n.id as call_id, d.*
from due d
cross join noted n
"""


async def claim_checks(conn: AsyncConnection, shop_id: ShopId, *, limit: int, besides: Collection[UUID]) -> list[Check]:
    """Up to `limit` customers that are due to be read back, longest due first."""
    async with conn.cursor(row_factory=class_row(Check)) as cur:
        await cur.execute(CLAIM_CHECKS, {"shop": shop_id, "besides": list(besides), "limit": limit})
        return await cur.fetchall()


async def claim_missing(conn: AsyncConnection, shop_id: ShopId, *, limit: int) -> list[Check]:
    """Up to `limit` customers believed gone from Shopify, those first that were looked for longest ago."""
    async with conn.cursor(row_factory=class_row(Check)) as cur:
        await cur.execute(CLAIM_MISSING, {"shop": shop_id, "limit": limit})
        return await cur.fetchall()


CLAIM_CHECKS = """
select
  m.customer_id, c.shopify_customer_id, m.wanted_version as version, c.current_balance as balance, m.pushed_balance,
  m.stale_since is not null as stale, m.in_doubt, m.conflicted, m.status = 'missing' as missing, m.doubtful_balances,
  m.attempts, statement_timestamp() as claimed_at
from mirror_states m
join customers c on c.shop_id = m.shop_id and c.id = m.customer_id
where m.shop_id = %(shop)s and m.check_at <= clock_timestamp() and m.customer_id <> all (%(besides)s)
order by m.check_at
limit %(limit)s
"""

CLAIM_MISSING = """
select
  m.customer_id, c.shopify_customer_id, m.wanted_version as version, c.current_balance as balance, m.pushed_balance,
  m.stale_since is not null as stale, m.in_doubt, m.conflicted, m.status = 'missing' as missing, m.doubtful_balances,
  m.attempts, statement_timestamp() as claimed_at
from mirror_states m
join customers c on c.shop_id = m.shop_id and c.id = m.customer_id
where m.shop_id = %(shop)s and m.failing_since is not null and m.status = 'missing' and m.dismissed_at is null
order by m.attempted_at
limit %(limit)s
"""
