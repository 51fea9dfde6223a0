"""The mirror's state: what is stale, and what came of pushing it. SQL only; who may call this holds the lease."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID

from psycopg.rows import class_row

from metafield_sync.db.database import again_after_deadlock
from metafield_sync.sync.lease import Lease, require_lease

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from psycopg import AsyncConnection

    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.shopify import BudgetSnapshot

RETRY_FIRST_S = 2.0
RETRY_LAST_S = 900.0
RETRY_TROUBLE_LAST_S = 30.0
RETRY_JITTER = 0.25
"""A customer that fails is tried again after 2 s, 4 s … at last every 15 minutes, each ± a quarter by chance."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One customer to push: the balance as it is now, and the version of the wish that it fulfils."""

    customer_id: UUID
    shopify_customer_id: int
    version: int
    balance: int
    attempts: int
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with one claimed customer.

    `gone`: Shopify has no such customer. `in_doubt`: it may have been written. `is_trouble`: Shopify did not answer,
    which is not this customer's fault.
    """

    claim: Claim
    code: str
    message: str
    gone: bool = False
    in_doubt: bool = False
    is_trouble: bool = False


@dataclass(frozen=True, slots=True)
class Spent:
    """What one call came to, for the shop's activity: customers, and calls that were throttled or not answered."""

    pushed: int = 0
    refused: int = 0
    throttled: int = 0
    unknown: int = 0


async def claim_stale(conn: AsyncConnection, shop_id: ShopId, *, limit: int, besides: Collection[UUID]) -> list[Claim]:
    """Up to `limit` customers that are due, most urgent first, leaving out those `besides` (in flight already).

    One statement, so one snapshot: version and balance belong together.
    """
    async with conn.cursor(row_factory=class_row(Claim)) as cur:
        await cur.execute(CLAIM_STALE, {"shop": shop_id, "besides": list(besides), "limit": limit})
        return await cur.fetchall()


# `claimed_at` is from before the snapshot: a posting it does not show was then certainly not tried at that time.
CLAIM_STALE = """
select
  m.customer_id, c.shopify_customer_id, m.wanted_version as version, c.current_balance as balance, m.attempts,
  statement_timestamp() as claimed_at
from mirror_states m
join customers c on c.shop_id = m.shop_id and c.id = m.customer_id
where
  m.shop_id = %(shop)s
  and m.stale_since is not null
  and m.status = 'live'
  and m.due_at <= clock_timestamp()
  and m.customer_id <> all (%(besides)s)
order by m.due_at, m.customer_id
limit %(limit)s
"""


async def claim_again(conn: AsyncConnection, shop_id: ShopId, claims: Sequence[Claim]) -> list[Claim]:
    """The same customers, with their balances and versions of now: what was claimed a call ago may be old."""
    async with conn.cursor(row_factory=class_row(Claim)) as cur:
        await cur.execute(CLAIM_AGAIN, {"shop": shop_id, "customers": [claim.customer_id for claim in claims]})
        return await cur.fetchall()


CLAIM_AGAIN = """
select
  m.customer_id, c.shopify_customer_id, m.wanted_version as version, c.current_balance as balance, m.attempts,
  statement_timestamp() as claimed_at
from mirror_states m
join customers c on c.shop_id = m.shop_id and c.id = m.customer_id
where m.shop_id = %(shop)s and m.customer_id = any (%(customers)s)
order by m.customer_id
"""


async def record_pushed(db: Database, lease: Lease, claims: Sequence[Claim]) -> None:
    """Note that Shopify acknowledged these claims, under the versions that were claimed.

    Raises:
        LeaseLost: the lease is no longer ours; nothing was recorded.
    """
    parameters = {
        "shop": lease.shop_id,
        "customers": [claim.customer_id for claim in claims],
        "versions": [claim.version for claim in claims],
        "balances": [claim.balance for claim in claims],
        "claimed": [claim.claimed_at for claim in claims],
    }
    await _record(db, lease, RECORD_PUSHED, parameters)


# A posting that came after the claim has raised wanted_version: the customer stays stale, since the claim, and due.
RECORD_PUSHED = """
update mirror_states m
set
  pushed_version = t.version,
  pushed_balance = t.balance,
  pushed_at = clock_timestamp(),
  stale_since = case when m.wanted_version = t.version then null else t.claimed_at end,
  due_at = clock_timestamp(),
  status = 'live',
  in_doubt = false,
  attempts = 0,
  attempted_at = t.claimed_at,
  failing_since = null,
  error_code = null,
  error = null,
  dismissed_at = null
from unnest(%(customers)s::uuid[], %(versions)s::bigint[], %(balances)s::bigint[], %(claimed)s::timestamptz[])
  as t (customer_id, version, balance, claimed_at)
where m.shop_id = %(shop)s and m.customer_id = t.customer_id
"""


async def record_failures(db: Database, lease: Lease, failures: Sequence[Failure]) -> None:
    """Note what went wrong with each, and when to try it again: never, by itself, for one who is gone.

    Raises:
        LeaseLost: the lease is no longer ours; nothing was recorded.
    """
    parameters = {
        "shop": lease.shop_id,
        "customers": [failure.claim.customer_id for failure in failures],
        "codes": [failure.code for failure in failures],
        "errors": [failure.message for failure in failures],
        "gone": [failure.gone for failure in failures],
        "doubts": [failure.in_doubt for failure in failures],
        "delays": [retry_delay_s(failure.claim.attempts, is_trouble=failure.is_trouble) for failure in failures],
        "claimed": [failure.claim.claimed_at for failure in failures],
    }
    await _record(db, lease, RECORD_FAILURES, parameters)


RECORD_FAILURES = """
update mirror_states m
set
  status = case when t.gone then 'missing' else 'live' end,
  in_doubt = m.in_doubt or t.in_doubt,
  attempts = m.attempts + 1,
  attempted_at = t.claimed_at,
  failing_since = coalesce(m.failing_since, clock_timestamp()),
  due_at = clock_timestamp() + make_interval(secs => t.delay),
  error_code = t.code,
  error = t.error
from unnest(
  %(customers)s::uuid[], %(codes)s::text[], %(errors)s::text[], %(gone)s::boolean[], %(doubts)s::boolean[],
  %(delays)s::double precision[], %(claimed)s::timestamptz[]
) as t (customer_id, code, error, gone, in_doubt, delay, claimed_at)
where m.shop_id = %(shop)s and m.customer_id = t.customer_id
"""


def retry_delay_s(attempts: int, *, is_trouble: bool = False) -> float:
    """How long to leave a customer alone that has failed `attempts` times before this one.

    In trouble that is not the customer's (Shopify did not answer) never long: the drains pace themselves then, and when
    Shopify is back everybody should be in step within a minute.
    """
    delay = min(RETRY_FIRST_S * 2 ** min(attempts, 20), RETRY_TROUBLE_LAST_S if is_trouble else RETRY_LAST_S)
    return delay * random.uniform(1 - RETRY_JITTER, 1 + RETRY_JITTER)  # noqa: S311 - spreads load, guards no secret


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
  outcomes_unknown = outcomes_unknown + %(unknown)s,
  budget_maximum = coalesce(%(maximum)s, budget_maximum),
  budget_available = coalesce(%(available)s, budget_available),
  budget_restore_rate = coalesce(%(rate)s, budget_restore_rate),
  budget_seen_at = clock_timestamp()
where shop_id = %(shop)s
"""


async def _record(db: Database, lease: Lease, statement: LiteralString, parameters: dict[str, Any]) -> None:
    async def record() -> None:
        async with db.shop(lease.shop_id) as conn:
            await require_lease(conn, lease)
            await conn.execute(LOCK_ROWS, parameters)
            await conn.execute(statement, parameters)

    await again_after_deadlock(record)


# By customer id, the order in which postings lock these rows too: nobody waits in a circle.
LOCK_ROWS = """
select 1
from mirror_states
where shop_id = %(shop)s and customer_id = any (%(customers)s)
order by customer_id
for no key update
"""
