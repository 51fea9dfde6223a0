"""The three calls that people schedule and script: everybody, one customer, verification."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from metafield_sync.customers.identity import CustomerId, find_survivor
from metafield_sync.ledger.verification import verify
from metafield_sync.runtime import Runtime
from metafield_sync.shops.api_keys import Caller
from metafield_sync.sync.one_customer import sync_customer
from metafield_sync.web.asked_runs import WAIT_S_DEFAULT, Wait, require_no_body, run_answer
from metafield_sync.web.edge import API, CallerIs, Parts, answer
from metafield_sync.web.fields import CustomerUuid
from metafield_sync.web.problems import error_responses
from metafield_sync.web.run_documents import CustomerSyncOut, DiscrepancyOut, RunningOut, RunResultOut

CUSTOMER_WAIT_S_MIN = 1

router = APIRouter(tags=["sync"], dependencies=API)

RESPONSES = {
    200: {"model": RunResultOut | CustomerSyncOut},
    202: {"model": RunningOut, "description": "The run goes on"},
    502: {"model": CustomerSyncOut, "description": "Shopify refused the one customer"},
    **error_responses(404, 410),
}


@router.get("/api/sync-balances", operation_id="syncBalances", responses=RESPONSES)
@router.post("/api/sync-balances", operation_id="syncBalancesByPost", responses=RESPONSES)
async def sync_balances(
    request: Request,
    caller: CallerIs,
    parts: Parts,
    customer_id: Annotated[CustomerUuid | None, Query(alias="customerId", description="Only this one, now.")] = None,
    verify: Annotated[bool, Query(description="Recalculate from the ledger first, and repair.")] = False,  # noqa: FBT002 - a query parameter
    force: Annotated[bool, Query(description="Write everybody, in step or not.")] = False,  # noqa: FBT002 - the same
    wait: Wait = WAIT_S_DEFAULT,
) -> Response:
    """Make Shopify show every balance, and answer how that went.

    Calling it again costs nothing for customers who are in step. It needs write scope, by GET too.
    """
    await require_no_body(request, "?customerId=… or ?verify=true")
    if customer_id is not None:
        return await sync_one(parts, caller, customer_id, verified=verify, wait_s=max(wait, CUSTOMER_WAIT_S_MIN))
    kind = "verify" if verify else "sync"
    run_id = await parts.runs.request(caller.shop_id, kind=kind, trigger="api", forced=force)
    return await run_answer(parts, caller.shop_id, run_id, wait_s=wait, message="Sync running")


async def sync_one(
    parts: Runtime,
    caller: Caller,
    customer_id: UUID,
    *,
    verified: bool = False,
    wait_s: float = WAIT_S_DEFAULT,
) -> Response:
    """Sync one customer now, of a merged one the survivor; verified first if asked. 502: Shopify does not take it."""
    async with parts.db.shop(caller.shop_id) as conn:
        customer_id = (await find_survivor(conn, caller.shop_id, CustomerId(customer_id))).id
    corrected = await verify(parts.db, caller.shop_id, customer_id=customer_id) if verified else []
    document = CustomerSyncOut.of(await sync_customer(parts.mirror, caller.shop_id, customer_id, wait_s=wait_s))
    if verified:
        document.corrected = len(corrected)
        document.discrepancies = [DiscrepancyOut.of(found) for found in corrected]
    return answer(document, 200 if document.synced else 502)
