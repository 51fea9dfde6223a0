"""Reading out who a shop's customers are and what they show, by one bulk query or page by page, in bounded memory."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

import structlog

from metafield_sync.db.database import again_after_deadlock
from metafield_sync.shopify import (
    CUSTOMERS_PAGE_COST,
    FIND_BULK_COST,
    GET_BULK_COST,
    RUN_BULK_COST,
    BulkRefused,
    BulkRefusedKind,
    BulkStatus,
    DownloadFailed,
    OutcomeUnknown,
    QueryRefused,
    Throttled,
    Unreachable,
    customer_values_query,
    download_lines,
    find_bulk_operation,
    get_bulk_operation,
    read_customers_page,
    read_queried_customer,
    run_bulk_query,
)
from metafield_sync.sync.install import store
from metafield_sync.sync.lease import require_lease
from metafield_sync.sync.turn import paid_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from metafield_sync.shopify import BulkOperation, Cost, ShownMetafield
    from metafield_sync.sync.install.store import Installation
    from metafield_sync.sync.turn import Turn

READ_ROWS_MAX = 5_000
"""Customers recorded in one transaction."""
POLL_FIRST_S, POLL_LAST_S, POLL_GROWTH = 0.25, 15.0, 1.3
BUSY_AGAIN_S = 10.0
"""So long after Shopify had as many bulk queries of the app under way as it allows."""
FAILED_AGAIN_FIRST_S, FAILED_AGAIN_LAST_S = 2.0, 300.0
STARTS_UNKNOWN_MAX = 6
"""So often in a row the start of the query, or a page, may get no answer that can be read, while other calls do; then
Shopify (or what stands in for it) is taken not to know such a query."""
QUIET_MAX_S = 45.0
"""So long the query may wait for its turn, fail or come no further before everybody is read page by page."""
NEXT_PAGE_S = 0.05

T = TypeVar("T")

log = structlog.get_logger()


class ReadingRefused(Exception):
    """Shopify does not take this way of reading. It says nothing against writing, so it pauses nothing."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


async def read_everybody(turn: Turn, installation: Installation) -> float | None:
    """Take the next step of reading; seconds until the one after it, None when everybody has been read.

    Where Shopify takes no bulk query, or comes no further with it, everybody is read page by page; where it takes that
    neither, everybody counts as read, with a warning that says what that means.

    Raises:
        ShopStops: Shopify refuses the shop.
        ShopifyError: it does not answer, or not now.
    """
    try:
        if installation.is_paged:
            return await _read_page(turn, installation)
        return await _read_by_bulk(turn, installation)
    except ReadingRefused as refused:
        if installation.is_paged:
            return await _do_without(turn, installation, refused.detail)
        return await _turn_to_pages(turn, installation, refused.detail)


async def _asked(turn: Turn, points: int, ask: Callable[[], Awaitable[tuple[T, Cost | None]]]) -> T:
    """Make one call; raises ReadingRefused where Shopify refuses it as such, and would again."""
    async with paid_call(turn, points) as call:
        try:
            answer, call.cost = await ask()
        except QueryRefused as error:
            # Dealt with in here: outside, a denied access pauses the shop, and its balances need no such answer.
            call.cost = error.cost
            scope = "" if error.missing_scope is None else f" The app lacks the scope {error.missing_scope}."
            refused = ReadingRefused(f"{error.detail}{scope}")
        else:
            return answer
    raise refused


async def _read_by_bulk(turn: Turn, installation: Installation) -> float | None:
    operation_id = installation.operation
    if operation_id is None:
        begun = await _begin(turn, installation)
        if not isinstance(begun, str):
            return begun
        operation_id = begun
    operation = await _asked(turn, GET_BULK_COST, lambda: get_bulk_operation(turn.client, turn.access, operation_id))
    if operation is None:
        return await _again(turn, installation, "Shopify knows nothing of the reading it began.")
    if not operation.ended:
        quiet_s = 0.0 if operation.object_count > installation.objects else installation.quiet_s or 0.0
        if quiet_s >= QUIET_MAX_S:
            raise ReadingRefused(f"Shopify has come no further with reading them out for {QUIET_MAX_S:.0f} s.")
        await store.note(turn, store.READING_POLLED, installation, objects=operation.object_count)
        poll_s = min(POLL_FIRST_S * POLL_GROWTH ** min(installation.polls, 30), POLL_LAST_S)
        return min(poll_s, max(QUIET_MAX_S - quiet_s, POLL_FIRST_S))
    if operation.status is not BulkStatus.COMPLETED:
        if operation.error_code == "ACCESS_DENIED":
            raise ReadingRefused(
                "Shopify does not let the app read customers in bulk. It needs the scope read_customers, and access to "
                "protected customer data."
            )
        return await _again(turn, installation, f"Shopify ended the reading as {operation.status}.")
    await _take(turn, installation, operation)
    return None


async def _again(turn: Turn, installation: Installation, why: str) -> float:
    """Have it begin anew, later each time; seconds until then. Raises ReadingRefused when that has been enough."""
    log.warning("customers not read", shop=turn.shop.domain, detail=why)
    if installation.quiet_s is not None and installation.quiet_s >= QUIET_MAX_S:
        raise ReadingRefused(why)
    await store.note(turn, store.READING_NOT_STARTED, installation, error=why)
    return min(FAILED_AGAIN_FIRST_S * 2 ** min(installation.failures, 10), FAILED_AGAIN_LAST_S)


async def _begin(turn: Turn, installation: Installation) -> str | float:
    """The operation that reads, begun now or found where its start got no answer; else seconds until the next try."""
    since = installation.asked_at
    if since is not None:
        found = await _asked(
            turn,
            FIND_BULK_COST,
            lambda: find_bulk_operation(
                turn.client, turn.access, kind="QUERY", marker=installation.marker, since=since
            ),
        )
        if found is not None:
            await store.note(turn, store.READING_STARTED, installation, operation=found.id)
            return found.id
    await store.note(turn, store.READING_ASKED, installation)
    query = customer_values_query(turn.metafield, installation.marker)
    try:
        operation = await _asked(turn, RUN_BULK_COST, lambda: run_bulk_query(turn.client, turn.access, query))
    except BulkRefused as error:
        is_quiet = installation.quiet_s is not None and installation.quiet_s >= QUIET_MAX_S
        if error.kind is BulkRefusedKind.INVALID or is_quiet:
            raise ReadingRefused(error.detail) from error
        await store.note(turn, store.READING_NOT_STARTED, installation, error=error.detail)
        return BUSY_AGAIN_S
    except (Throttled, Unreachable) as error:
        await store.note(turn, store.READING_NOT_STARTED, installation, error=error.detail)
        raise
    except OutcomeUnknown as error:
        await _note_unknown(turn, installation, error)
        raise
    await store.note(turn, store.READING_STARTED, installation, operation=operation.id)
    return operation.id


async def _note_unknown(turn: Turn, installation: Installation, error: OutcomeUnknown) -> None:
    if installation.failures + 1 >= STARTS_UNKNOWN_MAX:
        raise ReadingRefused(error.what) from error
    await store.note(turn, store.START_UNKNOWN, installation, error=error.what)


async def _turn_to_pages(turn: Turn, installation: Installation, why: str) -> float:
    log.warning("customers are read page by page", shop=turn.shop.domain, detail=why)
    await store.note(turn, store.FORGET_VALUES, installation)
    await store.note(turn, store.PAGING_BEGUN, installation, error=why)
    return NEXT_PAGE_S


async def _read_page(turn: Turn, installation: Installation) -> float | None:
    """Record the next page of customers. The mirror is held, so nothing of ours changes between two pages."""
    before = installation.page_after
    try:
        page = await _asked(
            turn,
            CUSTOMERS_PAGE_COST,
            lambda: read_customers_page(turn.client, turn.access, turn.metafield, before),
        )
    except OutcomeUnknown as error:
        await _note_unknown(turn, installation, error)
        raise
    await _record(turn, page.customers)
    if page.after is not None:
        read = {"before": before, "after": page.after, "customers": len(page.customers)}
        await store.note(turn, store.PAGE_READ, installation, **read)
        return NEXT_PAGE_S
    customers = installation.customers + len(page.customers)
    await store.note(turn, store.EVERYBODY_READ, installation, customers=customers)
    log.info("customers read", shop=turn.shop.domain, customers=customers)
    return None


async def _do_without(turn: Turn, installation: Installation, why: str) -> None:
    warning = (
        f"The shop's customers could not be read: {why} It goes on without: who is not known here yet shows a balance "
        "from their first posting on, and what an earlier app has left is overwritten then."
    )
    log.warning("customers not read", shop=turn.shop.domain, detail=why)
    await store.note(turn, store.READING_SKIPPED, installation, warning=warning)


async def _take(turn: Turn, installation: Installation, operation: BulkOperation) -> None:
    """Record everybody in the result, from the start: what an interrupted download has recorded is forgotten first."""
    await store.note(turn, store.FORGET_VALUES, installation)
    customers = 0
    some: list[tuple[int, ShownMetafield | None]] = []
    if operation.result_url is not None:
        async with aclosing(download_lines(turn.client, operation.result_url)) as lines:
            async for line in lines:
                if (read := read_queried_customer(line)) is None:
                    raise DownloadFailed("A line of what Shopify read out is unreadable. It is downloaded again.")
                some.append(read)
                if len(some) >= READ_ROWS_MAX:
                    customers += len(some)
                    await _record(turn, some)
                    some.clear()
    customers += len(some)
    await _record(turn, some)
    await store.note(turn, store.EVERYBODY_READ, installation, customers=customers)
    log.info("customers read", shop=turn.shop.domain, customers=customers)


async def _record(turn: Turn, some: Sequence[tuple[int, ShownMetafield | None]]) -> None:
    """Make customers of these, at 0, and keep what they show."""
    showing = [(shopify_id, shown) for shopify_id, shown in some if shown is not None]
    parameters = {
        "shop": turn.shop.id,
        "customers": [shopify_id for shopify_id, _ in some],
        "showing": [shopify_id for shopify_id, _ in showing],
        "values": [shown.as_balance() for _, shown in showing],
        "digests": [shown.digest for _, shown in showing],
    }

    async def record() -> None:
        async with turn.db.shop(turn.shop.id) as conn:
            # One that overslept must not add to, or count, what its successor is recording.
            await require_lease(conn, turn.lease)
            await conn.execute(RECORD_CUSTOMERS, parameters)
            await conn.execute(RECORD_VALUES, parameters)

    await again_after_deadlock(record)


# In the order of their ids, as a batch of postings creates them.
RECORD_CUSTOMERS = """
insert into customers (shop_id, shopify_customer_id)
select %(shop)s, t.shopify_customer_id
from unnest(%(customers)s::bigint[]) as t (shopify_customer_id)
order by t.shopify_customer_id
on conflict (shop_id, shopify_customer_id) do nothing
"""

RECORD_VALUES = """
insert into found_values (shop_id, shopify_customer_id, shown, digest)
select %(shop)s, t.shopify_customer_id, t.shown, t.digest
from unnest(%(showing)s::bigint[], %(values)s::bigint[], %(digests)s::text[])
  as t (shopify_customer_id, shown, digest)
on conflict (shop_id, shopify_customer_id) do update set shown = excluded.shown, digest = excluded.digest
"""
