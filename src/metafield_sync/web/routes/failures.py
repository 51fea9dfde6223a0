"""Failures: who is stuck, and why."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response

from metafield_sync.sync.standing import dismiss_failure, failure_page
from metafield_sync.web.edge import API, CallerIs, Parts, answer
from metafield_sync.web.fields import CustomerUuid
from metafield_sync.web.paging import PAGE_ROWS_DEFAULT, Cursor, Limit, one_page, read_cursor
from metafield_sync.web.problems import error_responses
from metafield_sync.web.run_documents import DismissedOut, FailureOut, FailuresOut

router = APIRouter(tags=["sync"], dependencies=API)


@router.get(
    "/api/sync-failures",
    operation_id="listFailures",
    responses={200: {"model": FailuresOut}, **error_responses()},
)
async def list_failures(
    caller: CallerIs, parts: Parts, cursor: Cursor = None, limit: Limit = PAGE_ROWS_DEFAULT
) -> Response:
    """Customers whose metafield does not show their balance, or is not known to, with the reason."""
    (after,) = read_cursor(cursor, UUID) or (None,)
    async with parts.db.shop(caller.shop_id) as conn:
        found = await failure_page(conn, caller.shop_id, after=after, limit=limit + 1)
    page, next_cursor = one_page(found, limit, lambda failure: (failure.customer_id,))
    return answer(FailuresOut(failures=[FailureOut.of(failure) for failure in page], next_cursor=next_cursor))


@router.post(
    "/api/sync-failures/{customerId}/dismiss",
    operation_id="dismissFailure",
    responses={200: {"model": DismissedOut}, **error_responses(404, 409, 410)},
)
async def dismiss(
    caller: CallerIs,
    parts: Parts,
    customerId: CustomerUuid,  # noqa: N803 - the name in the path, which OpenAPI shows
) -> Response:
    """Take a customer who is gone from Shopify off the list. Syncing them puts them back under watch."""
    async with parts.db.shop(caller.shop_id) as conn:
        await dismiss_failure(conn, caller.shop_id, customerId)
    return answer(DismissedOut(message="Failure dismissed", customer_id=customerId))
