"""Before a shop's first backfill: what Shopify shows now, read by a bulk query, for the digests to write against."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import structlog

from metafield_sync.db.database import again_after_deadlock
from metafield_sync.shopify import (
    FIND_BULK_COST,
    GET_BULK_COST,
    RUN_BULK_COST,
    BulkRefused,
    BulkRefusedKind,
    BulkStatus,
    QueryRefused,
    Throttled,
    Unreachable,
    customer_values_query,
    download_lines,
    find_bulk_operation,
    get_bulk_operation,
    read_queried_customer,
    run_bulk_query,
)
from metafield_sync.sync.backfill import store
from metafield_sync.sync.lease import require_lease
from metafield_sync.sync.turn import paid_call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metafield_sync.shopify import BulkOperation, ShownMetafield
    from metafield_sync.sync.backfill.store import Backfill
    from metafield_sync.sync.turn import Turn

VALUES_MAX = 1_000
"""Values recorded in one transaction."""

log = structlog.get_logger()


async def read_values(turn: Turn, backfill: Backfill) -> bool:
    """Take the next step of reading; False while Shopify is still at it.

    Raises:
        ShopStops: Shopify refuses the shop.
        ShopifyError: it does not answer, or not now.
    """
    operation_id = backfill.reading_operation or await _begin(turn, backfill)
    if operation_id is None:
        return True
    async with paid_call(turn, GET_BULK_COST) as call:
        operation, call.cost = await get_bulk_operation(turn.client, turn.access, operation_id)
    if operation is None:
        # Shopify knows nothing of it (any more): it is asked again.
        await store.note(turn.db, turn.lease, store.READING_NOT_STARTED, backfill=backfill.id)
        return False
    if not operation.ended:
        return False
    await _record_values(turn, operation)
    if operation.status is not BulkStatus.COMPLETED:
        # Whoever is missing from it has no digest known, is refused as a conflict, and read back then.
        log.warning("values read in part", shop=turn.shop.domain, status=operation.status, error=operation.error_code)
    await store.note(turn.db, turn.lease, store.VALUES_READ, backfill=backfill.id)
    return True


async def _begin(turn: Turn, backfill: Backfill) -> str | None:
    """The operation that reads, begun now or found where its start got no answer; None: Shopify takes no such query."""
    marker = backfill.marker()
    if backfill.reading_asked_at is not None:
        async with paid_call(turn, FIND_BULK_COST) as call:
            found, call.cost = await find_bulk_operation(
                turn.client, turn.access, kind="QUERY", marker=marker, since=backfill.reading_asked_at
            )
        if found is not None:
            await store.note(turn.db, turn.lease, store.READING_STARTED, backfill=backfill.id, operation=found.id)
            return found.id
    await store.note(turn.db, turn.lease, store.READING_ASKED, backfill=backfill.id)
    try:
        async with paid_call(turn, RUN_BULK_COST) as call:
            query = customer_values_query(turn.metafield, marker)
            operation, call.cost = await run_bulk_query(turn.client, turn.access, query)
    except (BulkRefused, QueryRefused) as error:
        if isinstance(error, BulkRefused) and error.kind is not BulkRefusedKind.INVALID:
            await store.note(turn.db, turn.lease, store.READING_NOT_STARTED, backfill=backfill.id)
            raise
        # It only saves reading back those who turn out to have a value.
        log.warning("values not read", shop=turn.shop.domain, detail=error.detail)
        await store.note(turn.db, turn.lease, store.VALUES_READ, backfill=backfill.id)
        return None
    except (Throttled, Unreachable):
        await store.note(turn.db, turn.lease, store.READING_NOT_STARTED, backfill=backfill.id)
        raise
    await store.note(turn.db, turn.lease, store.READING_STARTED, backfill=backfill.id, operation=operation.id)
    return operation.id


async def _record_values(turn: Turn, operation: BulkOperation) -> None:
    if operation.result_url is None:
        return
    some: list[tuple[int, ShownMetafield]] = []
    async with aclosing(download_lines(turn.client, operation.result_url)) as lines:
        async for line in lines:
            read = read_queried_customer(line)
            if read is None or read[1] is None:
                continue
            some.append((read[0], read[1]))
            if len(some) >= VALUES_MAX:
                await _record_some(turn, some)
                some.clear()
    if some:
        await _record_some(turn, some)


async def _record_some(turn: Turn, some: Sequence[tuple[int, ShownMetafield]]) -> None:
    parameters = {
        "shop": turn.shop.id,
        "customers": [shopify_id for shopify_id, _ in some],
        "values": [shown.as_balance() for _, shown in some],
        "digests": [shown.digest for _, shown in some],
    }

    async def record() -> None:
        async with turn.db.shop(turn.shop.id) as conn:
            await require_lease(conn, turn.lease)
            await conn.execute(LOCK_UNWRITTEN, parameters)
            await conn.execute(RECORD_VALUES, parameters)

    await again_after_deadlock(record)


LOCK_UNWRITTEN = """
select 1
from mirror_states m
join customers c on c.shop_id = m.shop_id and c.id = m.customer_id
where m.shop_id = %(shop)s and c.shopify_customer_id = any (%(customers)s)
order by m.customer_id
for no key update of m
"""

# Only of whom we have never written and are not about to: for the others more is known than this reading of a while
# ago. Who shows the balance already is in step, and costs no write.
RECORD_VALUES = """
update mirror_states m
set
  digest = t.digest,
  pushed_version = case when t.value = c.current_balance then m.wanted_version else m.pushed_version end,
  pushed_balance = case when t.value = c.current_balance then t.value end,
  pushed_at = case when t.value = c.current_balance then clock_timestamp() end,
  stale_since = case when t.value = c.current_balance then null else m.stale_since end
from unnest(%(customers)s::bigint[], %(values)s::bigint[], %(digests)s::text[])
  as t (shopify_customer_id, value, digest)
join customers c on c.shop_id = %(shop)s and c.shopify_customer_id = t.shopify_customer_id
where
  m.shop_id = %(shop)s
  and m.customer_id = c.id
  and m.pushed_version = 0
  and m.digest is null
  and m.attempted_at is null
  and not m.in_doubt
  and not exists (select from push_calls p where p.shop_id = m.shop_id and m.customer_id = any (p.customers))
"""
