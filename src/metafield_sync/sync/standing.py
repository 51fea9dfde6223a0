"""How things stand: customers with their mirror status, what fails and why, and a shop as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from psycopg.rows import class_row, dict_row

from metafield_sync.customers.identity import (
    CustomerId,
    CustomerNotFound,
    ShopifyCustomerId,
    find_by_shopify_id,
    require_customer,
)
from metafield_sync.errors import AppError
from metafield_sync.shops.registry import PAUSED_BY_STAFF

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId

MirrorStatus = Literal["in_step", "stale", "in_doubt", "failing", "missing", "merged", "paused"]

STALE_ALARM_S = 300
"""A change that has waited this long is an alarm, whatever the reason; unless staff paused the shop."""

BackfillStep = Literal["collecting", "reading_values", "files"]


class NotDismissible(AppError):
    """Only a customer known to be gone from Shopify can be dismissed."""

    code = "not_dismissible"
    status = 409


@dataclass(frozen=True, slots=True)
class CustomerStanding:
    """One customer: the ledger's balance and sequence, and how far Shopify has been told.

    `merged_into`: who has their points since they were merged.
    """

    id: UUID
    shopify_customer_id: int
    balance: int
    sequence: int
    created_at: datetime
    status: MirrorStatus
    pushed_balance: int | None
    pushed_at: datetime | None
    stale_since: datetime | None
    attempts: int
    error: str | None
    merged_into: UUID | None


@dataclass(frozen=True, slots=True)
class SyncFailure:
    """One customer whose metafield is known not to show the balance, or not known to."""

    customer_id: UUID
    shopify_customer_id: int
    status: MirrorStatus
    error: str
    attempts: int
    since: datetime
    next_attempt_at: datetime | None


async def customer_page(
    conn: AsyncConnection, shop_id: ShopId, *, after: UUID | None, limit: int
) -> list[CustomerStanding]:
    """Up to `limit` customers in the order of their ids, all after `after` when it is given; no merged ones."""
    async with conn.cursor(row_factory=class_row(CustomerStanding)) as cur:
        await cur.execute(CUSTOMER_PAGE, {"shop": shop_id, "after": after, "limit": limit})
        return await cur.fetchall()


async def one_standing(
    conn: AsyncConnection,
    shop_id: ShopId,
    *,
    customer_id: UUID | None = None,
    shopify_customer_id: int | None = None,
) -> CustomerStanding:
    """One customer: by our id, merged or not; by Shopify's, of a merged one the survivor.

    Raises:
        CustomerNotFound: the shop has no such customer.
        CustomerRedacted: they were redacted.
    """
    if shopify_customer_id is not None:
        customer_id = (await find_by_shopify_id(conn, shop_id, ShopifyCustomerId(shopify_customer_id))).id
    elif customer_id is not None:
        await require_customer(conn, shop_id, CustomerId(customer_id))
    async with conn.cursor(row_factory=class_row(CustomerStanding)) as cur:
        await cur.execute(ONE_CUSTOMER, {"shop": shop_id, "customer": customer_id})
        found = await cur.fetchone()
    if found is None:
        raise CustomerNotFound(f"This shop has no customer {customer_id}.")
    return found


CUSTOMER_PAGE = """
select
  id, shopify_customer_id, balance, sequence, created_at, status, pushed_balance, pushed_at, stale_since, attempts,
  error, merged_into
from customer_standings
where shop_id = %(shop)s and (%(after)s::uuid is null or id > %(after)s) and merged_into is null
order by id
limit %(limit)s
"""

ONE_CUSTOMER = """
select
  id, shopify_customer_id, balance, sequence, created_at, status, pushed_balance, pushed_at, stale_since, attempts,
  error, merged_into
from customer_standings
where shop_id = %(shop)s and id = %(customer)s
"""


async def failure_page(conn: AsyncConnection, shop_id: ShopId, *, after: UUID | None, limit: int) -> list[SyncFailure]:
    """Up to `limit` customers that fail, in the order of their ids; dismissed ones are left out.

    In a paused shop that is everybody who is stale: nothing will be pushed until the reason is gone.
    """
    async with conn.cursor(row_factory=class_row(SyncFailure)) as cur:
        await cur.execute(FAILURE_PAGE, {"shop": shop_id, "after": after, "limit": limit})
        return await cur.fetchall()


FAILURE_PAGE = """
select
  v.id as customer_id, v.shopify_customer_id, v.status, coalesce(v.error, '') as error, v.attempts,
  coalesce(v.failing_since, v.stale_since) as since, v.next_attempt_at
from customer_standings v
where
  v.shop_id = %(shop)s
  and v.id in (
    select m.customer_id
    from mirror_states m
    where m.shop_id = %(shop)s and m.failing_since is not null and m.dismissed_at is null
    union all
    select m.customer_id
    from mirror_states m
    join shops s on s.id = m.shop_id and s.status = 'paused'
    where m.shop_id = %(shop)s and m.stale_since is not null and m.status = 'live'
  )
  and (%(after)s::uuid is null or v.id > %(after)s)
order by v.id
limit %(limit)s
"""


async def dismiss_failure(conn: AsyncConnection, shop_id: ShopId, customer_id: UUID) -> None:
    """Take a customer who is gone from Shopify off the list: not counted, not tried, until somebody syncs them.

    Raises:
        CustomerNotFound: the shop has no such customer.
        NotDismissible: nothing says that they are gone.
    """
    async with conn.cursor() as cur:
        await cur.execute(DISMISS_FAILURE, {"shop": shop_id, "customer": customer_id})
        if await cur.fetchone() is not None:
            return
    standing = await one_standing(conn, shop_id, customer_id=customer_id)
    raise NotDismissible(
        f"Customer {customer_id} is {standing.status}, not missing. Only a customer known to be gone from Shopify "
        "can be dismissed; any other is pushed until it succeeds."
    )


DISMISS_FAILURE = """
update mirror_states
set dismissed_at = coalesce(dismissed_at, clock_timestamp())
where shop_id = %(shop)s and customer_id = %(customer)s and status = 'missing'
returning 1
"""


@dataclass(frozen=True, slots=True)
class BackfillStanding:
    """A backfill under way.

    `written`, `refused` and `unknown` count the lines whose results are in. `attempts`: how often in a row its step has
    failed. `overdue_s`: for how long its next step has been due, in seconds; nobody works for the shop if that grows.
    """

    started_at: datetime
    step: BackfillStep
    customers: int
    written: int
    refused: int
    unknown: int
    attempts: int
    overdue_s: float


async def backfill_standing(conn: AsyncConnection, shop_id: ShopId) -> BackfillStanding | None:
    """How far the shop's backfill is; None if there is none under way."""
    async with conn.cursor(row_factory=class_row(BackfillStanding)) as cur:
        await cur.execute(BACKFILL_STANDING, {"shop": shop_id})
        return await cur.fetchone()


BACKFILL_STANDING = """
select
  started_at,
  case when collected_at is null then 'collecting' when values_read_at is null then 'reading_values' else 'files' end
    as step,
  customers, written, refused, unknown, attempts,
  greatest(0, extract(epoch from clock_timestamp() - next_step_at)::double precision) as overdue_s
from backfills
where shop_id = %(shop)s and finished_at is null
"""


async def failures_by_code(conn: AsyncConnection, shop_id: ShopId) -> dict[str, int]:
    """How many customers fail, by Shopify's or our own code; dismissed ones are left out."""
    async with conn.cursor() as cur:
        await cur.execute(FAILURES_BY_CODE, {"shop": shop_id})
        return dict(await cur.fetchall())


FAILURES_BY_CODE = """
select coalesce(m.error_code, 'unknown'), count(*)
from mirror_states m
where m.shop_id = %(shop)s and m.failing_since is not null and m.dismissed_at is null
group by 1
order by 2 desc, 1
"""


@dataclass(frozen=True, slots=True)
class LastRuns:
    """The latest runs of one kind: the one that was done, with its result, and the one that failed, with its error."""

    kind: str
    done_at: datetime | None
    result: dict[str, Any] | None
    failed_at: datetime | None
    error: str | None


async def last_runs(conn: AsyncConnection, shop_id: ShopId) -> dict[str, LastRuns]:
    """The latest verifications and reconciliations, by kind, whoever asked for them."""
    async with conn.cursor(row_factory=class_row(LastRuns)) as cur:
        await cur.execute(LAST_RUNS, {"shop": shop_id})
        return {found.kind: found for found in await cur.fetchall()}


LAST_RUNS = """
select k.kind, d.finished_at as done_at, d.result, f.finished_at as failed_at, f.error
from unnest(array['verify', 'reconcile']) as k (kind)
left join lateral (
  select r.finished_at, r.result
  from sync_runs r
  where r.shop_id = %(shop)s and r.kind = k.kind and r.status = 'done'
  order by r.requested_at desc
  limit 1
) d on true
left join lateral (
  select r.finished_at, r.error
  from sync_runs r
  where r.shop_id = %(shop)s and r.kind = k.kind and r.status = 'failed'
  order by r.requested_at desc
  limit 1
) f on true
"""


def is_overdue(standing: dict[str, Any]) -> bool:
    """Whether a change has waited for too long, whatever the reason: failing, in doubt, or a shop that Shopify refuses.

    Customers who are gone from Shopify wait for nothing. Nor does anybody in a shop that staff paused: they chose it.
    """
    return standing["oldest_s"] > STALE_ALARM_S and standing["paused_code"] != PAUSED_BY_STAFF


async def shop_standing(conn: AsyncConnection, shop_id: ShopId) -> dict[str, Any]:
    """The shop in numbers: customers by status, the age of the oldest change not pushed, budget and activity."""
    async with conn.cursor(row_factory=dict_row) as cur:
        await cur.execute(SHOP_STANDING, {"shop": shop_id})
        row = await cur.fetchone()
    assert row is not None, "a caller's shop exists"  # noqa: S101 - its key was just found by it
    return row


SHOP_STANDING = """
select
  s.domain, s.status, s.paused_code, s.paused_detail, s.probe_at,
  a.calls, a.throttled, a.points_spent, a.customers_pushed, a.customers_read, a.customers_refused, a.outcomes_unknown,
  a.conflicts_ours, a.conflicts_foreign, a.late_writes, a.backfilled, a.drifts,
  a.budget_maximum, a.budget_available, a.budget_restore_rate, a.budget_seen_at,
  (
    select count(*)
    from customers c
    where c.shop_id = s.id and c.merged_into is null and c.redacted_at is null
  ) as customers,
  t.missing, t.in_doubt, t.waiting, t.failing,
  coalesce(extract(epoch from clock_timestamp() - t.oldest)::double precision, 0) as oldest_s
from shops s
join shop_activity a on a.shop_id = s.id
cross join lateral (
  select
    count(*) filter (where m.status = 'missing') as missing,
    count(*) filter (where m.status = 'live' and m.in_doubt) as in_doubt,
    count(*) filter (where m.status = 'live' and not m.in_doubt and m.failing_since is null) as waiting,
    count(*) filter (where m.status = 'live' and not m.in_doubt and m.failing_since is not null) as failing,
    min(m.stale_since) filter (where m.status = 'live') as oldest
  from mirror_states m
  where m.shop_id = s.id and m.stale_since is not null
) t
where s.id = %(shop)s
"""
