"""What a run came to: the document that `/api/sync-balances` answers, counted by the database in one snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.rows import dict_row

if TYPE_CHECKING:
    from uuid import UUID

    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId

RESULT_ROWS_MAX = 1_000
"""A list in a result stops here and names the page that has them all."""

FAILURES_URL = "/api/sync-failures"


async def result_document(
    conn: AsyncConnection, shop_id: ShopId, run_id: UUID, stopped_because: str | None
) -> dict[str, Any]:
    """Count how the run ended.

    `synced` are the customers whose last acknowledged write equals their balance and is not in doubt. A customer whose
    balance changed after the run began, and who was in step until then, is one of them: the run found nothing to do.

    Args:
        conn: in the transaction that closes the run.
        shop_id: whose run.
        run_id: which.
        stopped_because: why the run ended before it had tried everybody; the error of those it did not come to.
    """
    figures = await run_figures(conn, shop_id, run_id)
    await note_failures(conn, shop_id, run_id, stopped_because)
    async with conn.cursor(row_factory=dict_row) as cur:
        await cur.execute(
            RUN_FAILURES,
            {"shop": shop_id, "run": run_id, "limit": RESULT_ROWS_MAX, "otherwise": stopped_because},
        )
        failures = [
            {
                "customerId": str(row["id"]),
                "shopifyCustomerId": str(row["shopify_customer_id"]),
                "error": row["error"],
            }
            for row in await cur.fetchall()
        ]
        document = (
            await _verified(conn, shop_id, run_id, figures)
            if figures["kind"] == "verify"
            else {"message": "Sync complete", "total": figures["total"]}
        )
    document |= {
        "synced": figures["total"] - figures["errors"],
        "errors": figures["errors"],
        "failedSyncs": failures,
        "runId": str(run_id),
        "pushed": figures["pushed"],
        "unchanged": max(0, figures["total"] - figures["errors"] - figures["pushed"]),
        "pointsSpent": figures["points_spent"],
        "durationMs": figures["duration_ms"],
    }
    if figures["kind"] == "verify" and figures["corrected"] > RESULT_ROWS_MAX:
        document["failuresUrl"] = document["correctionsUrl"] = f"/api/sync-runs/{run_id}/corrections"
    if figures["errors"] > RESULT_ROWS_MAX:
        document["failuresUrl"] = FAILURES_URL
    return document


async def run_figures(conn: AsyncConnection, shop_id: ShopId, run_id: UUID) -> dict[str, Any]:
    """What every kind of run counts: customers, errors, corrections, pushes, points, milliseconds."""
    async with conn.cursor(row_factory=dict_row) as cur:
        await cur.execute(RUN_FIGURES, {"shop": shop_id, "run": run_id})
        figures = await cur.fetchone()
    assert figures is not None, "the run exists"  # noqa: S101 - it is being closed
    return figures


async def _verified(conn: AsyncConnection, shop_id: ShopId, run_id: UUID, figures: dict[str, Any]) -> dict[str, Any]:
    rows = await corrections_of_run(conn, shop_id, run_id, after=None, limit=RESULT_ROWS_MAX)
    return {
        "message": "Balance verification complete",
        "total": figures["total"],
        "verified": max(0, figures["total"] - figures["corrected"]),
        "corrected": figures["corrected"],
        "discrepancies": [discrepancy_document(row) for row in rows],
    }


async def corrections_of_run(
    conn: AsyncConnection, shop_id: ShopId, run_id: UUID, *, after: int | None, limit: int
) -> list[dict[str, Any]]:
    """Up to `limit` balances that a verification corrected, in the order found, all after number `after` if given."""
    async with conn.cursor(row_factory=dict_row) as cur:
        await cur.execute(CORRECTIONS, {"shop": shop_id, "run": run_id, "after": after, "limit": limit})
        return await cur.fetchall()


def discrepancy_document(row: dict[str, Any]) -> dict[str, Any]:
    """One corrected balance, as the API shows it. Points; `difference` is what was missing."""
    return {
        "customerId": str(row["customer_id"]),
        "shopifyCustomerId": str(row["shopify_customer_id"]),
        "stored": row["stored"],
        "calculated": row["calculated"],
        "difference": row["calculated"] - row["stored"],
    }


RUN_FIGURES = """
select
  r.kind,
  (
    select count(*)
    from customers c
    where c.shop_id = r.shop_id and c.merged_into is null and c.redacted_at is null
  ) - (
    select count(*)
    from mirror_states d
    where d.shop_id = r.shop_id and d.failing_since is not null and d.dismissed_at is not null
  ) as total,
  (
    select count(*)
    from mirror_states m
    where
      m.shop_id = r.shop_id
      and m.stale_since is not null
      and m.dismissed_at is null
      and (m.stale_since <= r.started_at or m.failing_since is not null)
  ) as errors,
  (
    select count(distinct b.customer_id)
    from balance_corrections b
    join customers c
      on c.shop_id = b.shop_id and c.id = b.customer_id and c.merged_into is null and c.redacted_at is null
    where b.shop_id = r.shop_id and b.run_id = r.id
  ) as corrected,
  a.customers_pushed - r.pushed_before as pushed,
  a.points_spent - r.points_before as points_spent,
  (extract(epoch from clock_timestamp() - r.started_at) * 1000)::bigint as duration_ms
from sync_runs r
join shop_activity a on a.shop_id = r.shop_id
where r.shop_id = %(shop)s and r.id = %(run)s
"""

RUN_FAILURES = """
select
  c.id,
  c.shopify_customer_id,
  case
    when s.status = 'paused' then coalesce(s.paused_detail, m.error, %(otherwise)s)
    else coalesce(m.error, %(otherwise)s, 'Not pushed yet.')
  end as error
from mirror_states m
join customers c on c.shop_id = m.shop_id and c.id = m.customer_id
join shops s on s.id = m.shop_id
join sync_runs r on r.shop_id = m.shop_id and r.id = %(run)s
where
  m.shop_id = %(shop)s
  and m.stale_since is not null
  and m.dismissed_at is null
  and (m.stale_since <= r.started_at or m.failing_since is not null)
order by c.id
limit %(limit)s
"""


async def note_failures(conn: AsyncConnection, shop_id: ShopId, run_id: UUID, stopped_because: str | None) -> None:
    """Put who could not be synced, and why, on record for as long as the run is, beside what it pushed."""
    await conn.execute(NOTE_FAILURES, {"shop": shop_id, "run": run_id, "otherwise": stopped_because})


NOTE_FAILURES = """
insert into sync_run_changes (shop_id, run_id, customer_id, change, before, after, reason)
select
  m.shop_id, r.id, m.customer_id, 'failed', m.pushed_balance::text, c.current_balance::text,
  case
    when s.status = 'paused' then coalesce(s.paused_detail, m.error, %(otherwise)s, 'Not pushed yet.')
    else coalesce(m.error, %(otherwise)s, 'Not pushed yet.')
  end
from mirror_states m
join customers c on c.shop_id = m.shop_id and c.id = m.customer_id
join shops s on s.id = m.shop_id
join sync_runs r on r.shop_id = m.shop_id and r.id = %(run)s
where
  m.shop_id = %(shop)s
  and m.stale_since is not null
  and m.dismissed_at is null
  and (m.stale_since <= r.started_at or m.failing_since is not null)
on conflict (shop_id, run_id, customer_id, change)
do update set before = excluded.before, after = excluded.after, reason = excluded.reason
"""

CORRECTIONS = """
select b.id, b.customer_id, c.shopify_customer_id, b.stored, b.calculated
from balance_corrections b
join customers c
  on c.shop_id = b.shop_id and c.id = b.customer_id and c.merged_into is null and c.redacted_at is null
where b.shop_id = %(shop)s and b.run_id = %(run)s and (%(after)s::bigint is null or b.id > %(after)s)
order by b.id
limit %(limit)s
"""
