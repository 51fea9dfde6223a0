"""Drift: where Shopify shows something else than the ledger's balance, and why. SQL only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, LiteralString

from psycopg.rows import dict_row

from metafield_sync.db.database import again_after_deadlock
from metafield_sync.sync.outcomes import GONE_CODE, GONE_ERROR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from psycopg import AsyncConnection

    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.shopify import ShownMetafield

DriftKind = Literal["missing", "different", "wrong_type", "foreign_write", "not_pushed", "customer_gone"]
DRIFT_KINDS: Mapping[DriftKind, str] = {
    "missing": "There is no metafield.",
    "different": "It shows an earlier balance, and the change is known to wait for its push.",
    "wrong_type": "It is of another type than number_integer.",
    "foreign_write": "It shows what this customer never had: somebody else wrote it.",
    "not_pushed": "It shows an earlier balance, though the last one was believed pushed.",
    "customer_gone": "Shopify has no such customer any more.",
}
COMPARED_MAX = 1_000
"""Customers compared in one transaction."""


@dataclass(frozen=True, slots=True)
class ReadSince:
    """When a reading began, on the database's clock. Whoever was touched later moved while we read."""

    at: datetime


async def reading_begins(db: Database, shop_id: ShopId) -> ReadSince:
    """To be asked for right before Shopify is."""
    async with db.shop(shop_id) as conn, conn.cursor() as cur:
        await cur.execute("select clock_timestamp()")
        row = await cur.fetchone()
    assert row is not None, "a function returns its value"  # noqa: S101 - PostgreSQL's promise, not input
    return ReadSince(row[0])


async def note_shown(
    db: Database,
    shop_id: ShopId,
    run_id: UUID,
    since: ReadSince,
    shown: Sequence[tuple[int, ShownMetafield | None]],
    *,
    repair: bool,
) -> int:
    """Compare what some customers show, by Shopify's id; note each drift with the run, and make it due if to repair.

    Returns:
        How many were seen to show their balance.
    """
    parameters = {
        "shop": shop_id,
        "run": run_id,
        "since": since.at,
        "repair": repair,
        "ids": [shopify_id for shopify_id, _ in shown],
        "values": [None if metafield is None else metafield.value for _, metafield in shown],
        "types": [None if metafield is None else metafield.type for _, metafield in shown],
        "balances": [None if metafield is None else metafield.as_balance() for _, metafield in shown],
        "digests": [None if metafield is None else metafield.digest for _, metafield in shown],
    }
    return await _note(db, shop_id, NOTE_SHOWN, parameters)


async def note_gone(
    db: Database, shop_id: ShopId, run_id: UUID, since: ReadSince, customers: Sequence[int], *, repair: bool
) -> None:
    """Note customers, by Shopify's id, who are not there; to repair is to stop pushing to them."""
    parameters = {
        "shop": shop_id,
        "run": run_id,
        "since": since.at,
        "repair": repair,
        "ids": list(customers),
        "gone_code": GONE_CODE,
        "gone_error": GONE_ERROR,
    }
    await _note(db, shop_id, NOTE_GONE, parameters)


async def _note(db: Database, shop_id: ShopId, statement: LiteralString, parameters: dict[str, Any]) -> int:
    async def note() -> int:
        async with db.shop(shop_id) as conn, conn.cursor() as cur:
            await cur.execute(LOCK_COMPARED, parameters)
            await cur.execute(statement, parameters)
            row = await cur.fetchone()
        return 0 if row is None else row[0]

    return await again_after_deadlock(note)


# By customer id, the order of postings and drains.
LOCK_COMPARED = """
select 1
from mirror_states m
join customers c on c.shop_id = m.shop_id and c.id = m.customer_id
where m.shop_id = %(shop)s and c.shopify_customer_id = any (%(ids)s)
order by m.customer_id
for no key update of m
"""

# Nobody who was touched since the reading began, is on the way, or is in doubt: of them it tells nothing. Who shows the
# balance, over another digest than known (somebody wrote, and wrote back), is in step, with that digest. A drift that
# this run has noted before, in a reading that broke off, is counted once.
NOTE_SHOWN = """
with compared as materialized (
  select
    m.customer_id,
    c.current_balance,
    m.stale_since,
    t.value,
    t.digest,
    t.balance is not distinct from c.current_balance as agrees,
    case
      when t.type is null then 'missing'
      when t.type <> 'number_integer' then 'wrong_type'
      when m.stale_since is not null then 'different'
      when
        t.balance = 0
        or exists (
          select
          from ledger_entries l
          where l.shop_id = m.shop_id and l.customer_id = m.customer_id and l.balance_after = t.balance
        )
        then 'not_pushed'
      else 'foreign_write'
    end as kind
  from unnest(%(ids)s::bigint[], %(values)s::text[], %(types)s::text[], %(balances)s::bigint[], %(digests)s::text[])
    as t (shopify_customer_id, value, type, balance, digest)
  join customers c on c.shop_id = %(shop)s and c.shopify_customer_id = t.shopify_customer_id
  join mirror_states m on m.shop_id = c.shop_id and m.customer_id = c.id
  where
    m.status in ('live', 'missing')
    and c.created_at < %(since)s
    and m.changed_at < %(since)s
    and (m.pushed_at is null or m.pushed_at < %(since)s)
    and (m.attempted_at is null or m.attempted_at < %(since)s)
    and not m.in_doubt
    and m.due_at < 'infinity'
    and not exists (select from push_calls p where p.shop_id = m.shop_id and m.customer_id = any (p.customers))
),
noted as (
  insert into sync_run_changes (shop_id, run_id, customer_id, change, before, after, reason)
  select %(shop)s, %(run)s, d.customer_id, 'drift', left(d.value, 100), d.current_balance::text, d.kind
  from compared d
  where not d.agrees
  on conflict (shop_id, run_id, customer_id, change)
  do update set before = excluded.before, after = excluded.after, reason = excluded.reason
  returning xmax = 0 as is_new
),
counted as (
  update shop_activity
  set drifts = drifts + (select count(*) from noted where is_new)
  where shop_id = %(shop)s and exists (select from noted where is_new)
),
repaired as (
  update mirror_states m
  set
    digest = d.digest,
    status = case when not d.agrees and %(repair)s then 'live' else m.status end,
    wanted_version = m.wanted_version + (not d.agrees and %(repair)s and m.stale_since is null)::integer,
    stale_since = case
      when not d.agrees and %(repair)s then least(m.stale_since, r.started_at) else m.stale_since
    end,
    due_at = case when not d.agrees and %(repair)s then clock_timestamp() else m.due_at end
  from compared d
  join sync_runs r on r.shop_id = %(shop)s and r.id = %(run)s
  where
    m.shop_id = %(shop)s
    and m.customer_id = d.customer_id
    and ((d.agrees and m.digest is distinct from d.digest) or (not d.agrees and %(repair)s))
)
select count(*) from compared where agrees
"""

NOTE_GONE = """
with gone as materialized (
  select m.customer_id, c.current_balance
  from customers c
  join mirror_states m on m.shop_id = c.shop_id and m.customer_id = c.id
  where
    c.shop_id = %(shop)s
    and c.shopify_customer_id = any (%(ids)s)
    and c.created_at < %(since)s
    and m.status = 'live'
    and (m.pushed_at is null or m.pushed_at < %(since)s)
    and (m.attempted_at is null or m.attempted_at < %(since)s)
    and m.due_at < 'infinity'
    and not exists (select from push_calls p where p.shop_id = m.shop_id and m.customer_id = any (p.customers))
),
noted as (
  insert into sync_run_changes (shop_id, run_id, customer_id, change, before, after, reason)
  select %(shop)s, %(run)s, g.customer_id, 'drift', null, g.current_balance::text, 'customer_gone'
  from gone g
  on conflict (shop_id, run_id, customer_id, change)
  do update set before = excluded.before, after = excluded.after, reason = excluded.reason
  returning xmax = 0 as is_new
),
counted as (
  update shop_activity
  set drifts = drifts + (select count(*) from noted where is_new)
  where shop_id = %(shop)s and exists (select from noted where is_new)
),
stopped as (
  update mirror_states m
  set
    status = 'missing',
    wanted_version = case when m.stale_since is null then m.wanted_version + 1 else m.wanted_version end,
    stale_since = coalesce(m.stale_since, clock_timestamp()),
    digest = null,
    check_at = null,
    doubt_since = null,
    doubtful_balances = null,
    in_doubt = false,
    conflicted = false,
    failing_since = coalesce(m.failing_since, clock_timestamp()),
    attempted_at = clock_timestamp(),
    error_code = %(gone_code)s,
    error = %(gone_error)s
  from gone g
  where %(repair)s and m.shop_id = %(shop)s and m.customer_id = g.customer_id
)
select count(*) from gone
"""


async def drift_counts(conn: AsyncConnection, shop_id: ShopId, run_id: UUID) -> dict[str, int]:
    """How many customers drifted, by kind, every kind named."""
    async with conn.cursor() as cur:
        await cur.execute(DRIFT_COUNTS, {"shop": shop_id, "run": run_id})
        found = dict(await cur.fetchall())
    return {kind: found.get(kind, 0) for kind in DRIFT_KINDS}


DRIFT_COUNTS = """
select reason, count(*)
from sync_run_changes
where shop_id = %(shop)s and run_id = %(run)s and change = 'drift'
group by reason
"""


async def repaired_count(conn: AsyncConnection, shop_id: ShopId, run_id: UUID) -> int:
    """How many of the drifted customers are in step now."""
    async with conn.cursor() as cur:
        await cur.execute(REPAIRED, {"shop": shop_id, "run": run_id})
        row = await cur.fetchone()
    return 0 if row is None else row[0]


REPAIRED = """
select count(*)
from sync_run_changes d
join sync_run_changes p
  on p.shop_id = d.shop_id and p.run_id = d.run_id and p.customer_id = d.customer_id and p.change = 'pushed'
where d.shop_id = %(shop)s and d.run_id = %(run)s and d.change = 'drift'
"""


async def changes_of_run(
    conn: AsyncConnection, shop_id: ShopId, run_id: UUID, *, after: tuple[UUID, str] | None, limit: int
) -> list[dict[str, Any]]:
    """Up to `limit` changes of a run in the order of the customers' ids, all after `after` (customer, change)."""
    customer_id, change = after or (None, None)
    async with conn.cursor(row_factory=dict_row) as cur:
        await cur.execute(
            CHANGES, {"shop": shop_id, "run": run_id, "customer": customer_id, "change": change, "limit": limit}
        )
        return await cur.fetchall()


CHANGES = """
select d.customer_id, c.shopify_customer_id, d.change, d.before, d.after, d.reason, d.noted_at
from sync_run_changes d
join customers c on c.shop_id = d.shop_id and c.id = d.customer_id and c.redacted_at is null
where
  d.shop_id = %(shop)s
  and d.run_id = %(run)s
  and (%(customer)s::uuid is null or (d.customer_id, d.change) > (%(customer)s, %(change)s))
order by d.customer_id, d.change
limit %(limit)s
"""
