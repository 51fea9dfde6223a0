"""What a reconciliation came to: the document that `/api/reconcile` answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.rows import dict_row

from metafield_sync.sync.reconcile.drift import drift_counts, repaired_count
from metafield_sync.sync.run_result import RESULT_ROWS_MAX, run_figures

if TYPE_CHECKING:
    from uuid import UUID

    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId


async def reconcile_document(
    conn: AsyncConnection, shop_id: ShopId, run_id: UUID, *, definition: str, repair: bool
) -> dict[str, Any]:
    """Count what was found: drifts by kind, and, if they were to be repaired, how many are.

    `definition`: `as_it_should_be`, or in words what is not.
    """
    figures = await run_figures(conn, shop_id, run_id)
    by_kind = await drift_counts(conn, shop_id, run_id)
    drifted = sum(by_kind.values())
    async with conn.cursor(row_factory=dict_row) as cur:
        await cur.execute(DRIFTS, {"shop": shop_id, "run": run_id, "limit": RESULT_ROWS_MAX})
        rows = await cur.fetchall()
    document: dict[str, Any] = {
        "message": "Reconciliation complete",
        "total": figures["total"],
        "agreeing": max(0, figures["total"] - drifted),
        "drifted": drifted,
        "repaired": await repaired_count(conn, shop_id, run_id) if repair else 0,
        "definition": definition,
        "byKind": by_kind,
        "drifts": [
            {
                "customerId": str(row["customer_id"]),
                "shopifyCustomerId": str(row["shopify_customer_id"]),
                "kind": row["kind"],
                "expected": int(row["expected"]),
                "found": row["found"],
            }
            for row in rows
        ],
        "runId": str(run_id),
        "pushed": figures["pushed"],
        "pointsSpent": figures["points_spent"],
        "durationMs": figures["duration_ms"],
    }
    if drifted > RESULT_ROWS_MAX:
        document["changesUrl"] = f"/api/sync-runs/{run_id}/changes"
    return document


DRIFTS = """
select d.customer_id, c.shopify_customer_id, d.reason as kind, d.after as expected, d.before as found
from sync_run_changes d
join customers c on c.shop_id = d.shop_id and c.id = d.customer_id
where d.shop_id = %(shop)s and d.run_id = %(run)s and d.change = 'drift'
order by d.customer_id
limit %(limit)s
"""
