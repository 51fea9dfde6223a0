"""Reading back what Shopify shows for every customer: by `nodes` in a small shop, by a bulk query in a large one."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left
from contextlib import aclosing
from dataclasses import dataclass
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
    DownloadFailed,
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
from metafield_sync.sync.lease import LeaseLost
from metafield_sync.sync.readback import read_shown
from metafield_sync.sync.reconcile.drift import COMPARED_MAX, note_gone, note_shown, reading_begins
from metafield_sync.sync.run_progress import begin_reading, note_read
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
DOWNLOADS_MAX = 3
POLL_FIRST_S = 0.5
POLL_LAST_S = 15.0
POLL_GROWTH = 1.5

log = structlog.get_logger()


class ReconcileFailed(AppError):
    """Shopify could not be read back; nothing was concluded from what was missing."""

    code = "reconcile_failed"
    status = 502


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What reading everybody back has told, beside the drifts that are noted with the run.

    `definition`: how the metafield's stands: `as_it_should_be`, `missing`, or in words what differs. `agreeing`: how
    many customers were seen to show their balance; those who moved meanwhile are not among them.
    """

    definition: str
    agreeing: int


async def reconcile(mirror: Mirror, shop_id: ShopId, run_id: UUID, *, repair: bool) -> ReadBack:
    """Note every drift with the run; with `repair`, make due whoever drifted, and have the definition put right.

    Raises:
        ReconcileFailed: Shopify did not answer, after several tries.
        ShopPaused: nothing is asked of Shopify for this shop.
    """
    definition = await _find_definition(mirror, shop_id)
    if repair and not definition.matches:
        async with mirror.db.unscoped() as conn:
            await registry.remember_definition(conn, shop_id, None)
    agreeing = await _compare_all(_Reading(mirror, shop_id, run_id, repair=repair))
    if definition.matches:
        return ReadBack(DEFINITION_RIGHT, agreeing)
    return ReadBack("; ".join(definition.differences) if definition.present else DEFINITION_MISSING, agreeing)


async def _find_definition(mirror: Mirror, shop_id: ShopId) -> DefinitionState:
    async def ask(turn: Turn) -> DefinitionState:
        async with paid_call(turn, READ_DEFINITION_COST) as call:
            state, call.cost = await read_definition(turn.client, turn.access, mirror.definition)
        return state

    return await _ask(mirror, shop_id, ask)


@dataclass(slots=True)
class _Reading:
    """One reading of everybody: for which run, and how far it is."""

    mirror: Mirror
    shop_id: ShopId
    run_id: UUID
    repair: bool
    agreeing: int = 0
    read: int = 0

    async def compare(self, since: ReadSince, shown: Sequence[tuple[int, ShownMetafield | None]]) -> None:
        """Hold what these customers show against their balances."""
        self.agreeing += await note_shown(self.mirror.db, self.shop_id, self.run_id, since, shown, repair=self.repair)
        await self.tell(len(shown))

    async def miss(self, since: ReadSince, gone: Sequence[int]) -> None:
        """Take note of who was not there."""
        await note_gone(self.mirror.db, self.shop_id, self.run_id, since, gone, repair=self.repair)

    async def tell(self, more: int) -> None:
        """Say that the run is so much further."""
        self.read += more
        await note_read(self.mirror.db, self.shop_id, self.run_id, self.read)


async def _compare_all(reading: _Reading) -> int:
    """Read every customer back, in bounded memory, and note every drift with the run; how many agree."""
    customers = await begin_reading(reading.mirror.db, reading.shop_id, reading.run_id)
    if customers <= BY_NODES_MAX or not await _by_bulk_query(reading):
        await _by_nodes(reading)
    return reading.agreeing


async def _by_nodes(reading: _Reading) -> None:
    after: UUID | None = None
    while page := await _customers(reading.mirror.db, reading.shop_id, after, NODES_MAX):
        after = page[-1][0]
        ids = [shopify_id for _, shopify_id in page]
        since = await reading_begins(reading.mirror.db, reading.shop_id)
        shown = await _ask(reading.mirror, reading.shop_id, lambda turn, ids=ids: read_shown(turn, ids))
        await reading.compare(since, list(shown.items()))
        gone = [shopify_id for shopify_id in ids if shopify_id not in shown]
        await reading.miss(since, gone)
        await reading.tell(len(gone))


async def _customers(db: Database, shop_id: ShopId, after: UUID | None, limit: int) -> list[tuple[UUID, int]]:
    """Up to `limit` customers by our id, and Shopify's; neither merged nor redacted ones, who are not there."""
    async with db.shop(shop_id) as conn, conn.cursor() as cur:
        await cur.execute(SOME_CUSTOMERS, {"shop": shop_id, "after": after, "limit": limit})
        return await cur.fetchall()


SOME_CUSTOMERS = """
select id, shopify_customer_id
from customers
where
  shop_id = %(shop)s
  and (%(after)s::uuid is null or id > %(after)s)
  and merged_into is null
  and redacted_at is null
order by id
limit %(limit)s
"""


async def _by_bulk_query(reading: _Reading) -> bool:
    """False: Shopify takes no such query."""
    since = await reading_begins(reading.mirror.db, reading.shop_id)
    try:
        operation = await _run_query(reading.mirror, reading.shop_id, f"Reconcile_{reading.run_id.hex}", since.at)
    except (BulkRefused, QueryRefused) as error:
        log.warning("read back by nodes", shop_id=reading.shop_id, detail=error.detail)
        return False
    if operation.status is not BulkStatus.COMPLETED:
        # From a part nothing can be said of who is missing in it.
        raise ReconcileFailed(
            f"Shopify ended the reading back as {operation.status} ({operation.error_code}). Try again later."
        )
    seen = await _compare_lines(reading, since, operation)
    await _find_gone(reading, since, sorted(seen))
    return True


async def _compare_lines(reading: _Reading, since: ReadSince, operation: BulkOperation) -> Sequence[int]:
    """Compare what the operation read, from the start again if the download breaks off; whom it has seen.

    Raises:
        ReconcileFailed: the download broke off each time.
    """
    last: DownloadFailed | None = None
    for attempt in range(DOWNLOADS_MAX):
        if attempt:
            await asyncio.sleep(TRY_AGAIN_FIRST_S * attempt)
            # The address of the result may be a new one by now.
            operation = await _look(reading.mirror, reading.shop_id, operation)
        reading.agreeing = reading.read = 0
        try:
            return await _compare_lines_once(reading, since, operation)
        except DownloadFailed as error:
            last = error
    assert last is not None, "it was tried"  # noqa: S101 - the loop runs at least once
    raise ReconcileFailed(f"{last.detail} Reconcile again later.") from last


async def _compare_lines_once(reading: _Reading, since: ReadSince, operation: BulkOperation) -> Sequence[int]:
    seen = array("q")
    if operation.result_url is None:
        return seen
    some: list[tuple[int, ShownMetafield | None]] = []
    async with aclosing(download_lines(reading.mirror.client, operation.result_url)) as lines:
        async for line in lines:
            if (read := read_queried_customer(line)) is None:
                raise ReconcileFailed("A line of what Shopify read back is unreadable. Try again later.")
            some.append(read)
            seen.append(read[0])
            if len(some) >= COMPARED_MAX:
                await reading.compare(since, some)
                some.clear()
    await reading.compare(since, some)
    return seen


async def _find_gone(reading: _Reading, since: ReadSince, seen: Sequence[int]) -> None:
    after: UUID | None = None
    while page := await _customers(reading.mirror.db, reading.shop_id, after, COMPARED_MAX):
        after = page[-1][0]
        gone = [shopify_id for _, shopify_id in page if not _has(seen, shopify_id)]
        if gone:
            await reading.miss(since, gone)


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

    operation = await _ask(mirror, shop_id, begin)
    pause_s = POLL_FIRST_S
    while not operation.ended:
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * POLL_GROWTH, POLL_LAST_S)
        operation = await _look(mirror, shop_id, operation)
    return operation


async def _look(mirror: Mirror, shop_id: ShopId, operation: BulkOperation) -> BulkOperation:
    """The operation as it is now."""

    async def look(turn: Turn) -> BulkOperation:
        async with paid_call(turn, GET_BULK_COST) as call:
            found, call.cost = await get_bulk_operation(turn.client, turn.access, operation.id)
        if found is None:
            raise ReconcileFailed("Shopify knows nothing of the reading back it began. Try again later.")
        return found

    return await _ask(mirror, shop_id, look)


async def _ask(mirror: Mirror, shop_id: ShopId, question: Callable[[Turn], Awaitable[T]]) -> T:
    """Ask Shopify in a short turn of the shop's lease, so that pushes go on in between; several times if need be.

    Raises:
        ReconcileFailed: it did not answer.
        BulkRefused: it takes no such bulk operation.
        QueryRefused: it takes no such query.
    """
    last: ShopifyError | LeaseLost | None = None
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
        except (ShopifyError, LeaseLost) as error:
            last = error
    assert last is not None, "it was tried"  # noqa: S101 - the loop runs at least once
    # Nothing was to be written, so nothing may have been.
    what = last.what if isinstance(last, OutcomeUnknown) else last.detail
    raise ReconcileFailed(f"{what} Nothing was concluded; reconcile again later.") from last
