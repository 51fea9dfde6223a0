"""Reading back what Shopify shows for every customer: by `nodes` in a small shop, by a bulk query in a large one."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

import structlog

from metafield_sync.errors import AppError
from metafield_sync.shopify import (
    FIND_BULK_COST,
    GET_BULK_COST,
    READ_DEFINITION_COST,
    RUN_BULK_COST,
    BulkRefused,
    BulkRefusedKind,
    BulkStatus,
    OutcomeUnknown,
    QueryRefused,
    ShopifyError,
    customer_values_query,
    download_lines,
    find_bulk_operation,
    get_bulk_operation,
    read_definition,
    read_queried_customer,
    run_bulk_query,
)
from metafield_sync.shops import registry
from metafield_sync.sync.readback import read_shown
from metafield_sync.sync.reconcile.drift import COMPARED_MAX, note_gone, note_shown, reading_begins
from metafield_sync.sync.turn import paid_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.shopify import BulkOperation, DefinitionState, ShownMetafield
    from metafield_sync.sync.drain import Mirror
    from metafield_sync.sync.reconcile.drift import ReadSince
    from metafield_sync.sync.turn import Turn

T = TypeVar("T")

BY_NODES_MAX = 500
"""Up to so many customers are read by `nodes`, at two points each; more by one bulk query, at some 20 points."""
NODES_MAX = 250
DEFINITION_RIGHT, DEFINITION_MISSING = "as_it_should_be", "missing"
TRIES_MAX = 5
TRY_AGAIN_FIRST_S = 2.0
POLL_FIRST_S = 0.5
POLL_LAST_S = 15.0
POLL_GROWTH = 1.5

log = structlog.get_logger()


class ReconcileFailed(AppError):
    """Shopify could not be read back; nothing was concluded from what was missing."""

    code = "reconcile_failed"
    status = 502


async def reconcile(mirror: Mirror, shop_id: ShopId, run_id: UUID, *, repair: bool) -> str:
    """Note every drift with the run; with `repair`, make due whoever drifted, and have the definition put right.

    Returns:
        How the metafield's definition stands: `as_it_should_be`, `missing`, or in words what differs.

    Raises:
        ReconcileFailed: Shopify did not answer, after several tries.
        ShopPaused: nothing is asked of Shopify for this shop.
    """
    definition = await _find_definition(mirror, shop_id)
    if repair and not definition.matches:
        async with mirror.db.unscoped() as conn:
            await registry.remember_definition(conn, shop_id, None)
    await _compare_all(mirror, shop_id, run_id, repair=repair)
    if definition.matches:
        return DEFINITION_RIGHT
    return "; ".join(definition.differences) if definition.present else DEFINITION_MISSING


async def _find_definition(mirror: Mirror, shop_id: ShopId) -> DefinitionState:

    async def ask(turn: Turn) -> DefinitionState:
        async with paid_call(turn, READ_DEFINITION_COST) as call:
            state, call.cost = await read_definition(turn.client, turn.access, mirror.definition)
        return state

    return await _ask(mirror, shop_id, ask)


async def _compare_all(mirror: Mirror, shop_id: ShopId, run_id: UUID, *, repair: bool) -> None:
    """Read every customer back, in bounded memory, and note every drift with the run."""
    async with mirror.db.shop(shop_id) as conn, conn.cursor() as cur:
        await cur.execute(COUNT_UP_TO, {"shop": shop_id, "limit": BY_NODES_MAX + 1})
        row = await cur.fetchone()
    is_small = row is not None and row[0] <= BY_NODES_MAX
    if is_small or not await _by_bulk_query(mirror, shop_id, run_id, repair=repair):
        await _by_nodes(mirror, shop_id, run_id, repair=repair)


COUNT_UP_TO = "select count(*) from (select from customers where shop_id = %(shop)s limit %(limit)s) enough"


async def _by_nodes(mirror: Mirror, shop_id: ShopId, run_id: UUID, *, repair: bool) -> None:
    after: UUID | None = None
    while page := await _customers(mirror.db, shop_id, after, NODES_MAX):
        after = page[-1][0]
        ids = [shopify_id for _, shopify_id in page]
        since = await reading_begins(mirror.db, shop_id)
        shown = await _ask(mirror, shop_id, lambda turn, ids=ids: read_shown(turn, ids))
        await note_shown(mirror.db, shop_id, run_id, since, list(shown.items()), repair=repair)
        gone = [shopify_id for shopify_id in ids if shopify_id not in shown]
        await note_gone(mirror.db, shop_id, run_id, since, gone, repair=repair)


async def _customers(db: Database, shop_id: ShopId, after: UUID | None, limit: int) -> list[tuple[UUID, int]]:
    """Up to `limit` customers by our id, and Shopify's."""
    async with db.shop(shop_id) as conn, conn.cursor() as cur:
        await cur.execute(SOME_CUSTOMERS, {"shop": shop_id, "after": after, "limit": limit})
        return await cur.fetchall()


SOME_CUSTOMERS = """
select id, shopify_customer_id
from customers
where shop_id = %(shop)s and (%(after)s::uuid is null or id > %(after)s)
order by id
limit %(limit)s
"""


async def _by_bulk_query(mirror: Mirror, shop_id: ShopId, run_id: UUID, *, repair: bool) -> bool:
    """False: Shopify takes no such query."""
    since = await reading_begins(mirror.db, shop_id)
    try:
        operation = await _run_query(mirror, shop_id, f"Reconcile_{run_id.hex}", since.at)
    except (BulkRefused, QueryRefused) as error:
        log.warning("read back by nodes", shop_id=shop_id, detail=error.detail)
        return False
    if operation.status is not BulkStatus.COMPLETED:
        # From a part nothing can be said of who is missing in it.
        raise ReconcileFailed(
            f"Shopify ended the reading back as {operation.status} ({operation.error_code}). Try again later."
        )
    seen = array("q")
    if operation.result_url is not None:
        some: list[tuple[int, ShownMetafield | None]] = []
        async with aclosing(download_lines(mirror.client, operation.result_url)) as lines:
            async for line in lines:
                if (read := read_queried_customer(line)) is None:
                    raise ReconcileFailed("A line of what Shopify read back is unreadable. Try again later.")
                some.append(read)
                seen.append(read[0])
                if len(some) >= COMPARED_MAX:
                    await note_shown(mirror.db, shop_id, run_id, since, some, repair=repair)
                    some.clear()
        await note_shown(mirror.db, shop_id, run_id, since, some, repair=repair)
    await _find_gone(mirror.db, shop_id, run_id, since, sorted(seen), repair=repair)
    return True


async def _find_gone(
    db: Database, shop_id: ShopId, run_id: UUID, since: ReadSince, seen: Sequence[int], *, repair: bool
) -> None:
    after: UUID | None = None
    while page := await _customers(db, shop_id, after, COMPARED_MAX):
        after = page[-1][0]
        gone = [shopify_id for _, shopify_id in page if not _has(seen, shopify_id)]
        if gone:
            await note_gone(db, shop_id, run_id, since, gone, repair=repair)


def _has(ordered: Sequence[int], number: int) -> bool:
    place = bisect_left(ordered, number)
    return place < len(ordered) and ordered[place] == number


async def _run_query(mirror: Mirror, shop_id: ShopId, marker: str, since: datetime) -> BulkOperation:
    """Run the query that reads everybody, and wait for its end. One begun before an interruption is found again.

    Its values must be those of after `since`: an earlier one is of no use.
    """

    async def begin(turn: Turn) -> BulkOperation:
        async with paid_call(turn, FIND_BULK_COST) as call:
            found, call.cost = await find_bulk_operation(
                turn.client, turn.access, kind="QUERY", marker=marker, since=since
            )
        if found is not None and found.created_at is not None and found.created_at >= since:
            return found
        async with paid_call(turn, RUN_BULK_COST) as call:
            query = customer_values_query(turn.metafield, marker)
            operation, call.cost = await run_bulk_query(turn.client, turn.access, query)
        return operation

    async def look(turn: Turn) -> BulkOperation:
        async with paid_call(turn, GET_BULK_COST) as call:
            found, call.cost = await get_bulk_operation(turn.client, turn.access, operation.id)
        if found is None:
            raise ReconcileFailed("Shopify knows nothing of the reading back it began. Try again later.")
        return found

    operation = await _ask(mirror, shop_id, begin)
    pause_s = POLL_FIRST_S
    while not operation.ended:
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * POLL_GROWTH, POLL_LAST_S)
        operation = await _ask(mirror, shop_id, look)
    return operation


async def _ask(mirror: Mirror, shop_id: ShopId, question: Callable[[Turn], Awaitable[T]]) -> T:
    """Ask Shopify in a short turn of the shop's lease, so that pushes go on in between; several times if need be.

    Raises:
        ReconcileFailed: it did not answer.
        BulkRefused: it takes no such bulk operation.
        QueryRefused: it takes no such query.
    """
    last: ShopifyError | None = None
    for attempt in range(TRIES_MAX):
        if attempt:
            await asyncio.sleep(TRY_AGAIN_FIRST_S * 2 ** (attempt - 1))
        try:
            async with mirror.short_turn(shop_id) as turn:
                return await question(turn)
        except QueryRefused:
            raise
        except BulkRefused as error:
            if error.kind is BulkRefusedKind.INVALID:
                raise
            last = error
        except OutcomeUnknown as error:
            last = error
        except ShopifyError as error:
            last = error
    assert last is not None, "it was tried"  # noqa: S101 - the loop runs at least once
    raise ReconcileFailed(f"{last.detail} Nothing was concluded; reconcile again later.") from last
