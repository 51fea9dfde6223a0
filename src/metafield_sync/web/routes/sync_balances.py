"""The three calls that people schedule and script: everybody, one customer, verification."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from metafield_sync.customers.identity import CustomerId, require_customer
from metafield_sync.errors import AppError
from metafield_sync.ledger.verification import Discrepancy, verify
from metafield_sync.runtime import Runtime
from metafield_sync.shops.api_keys import Caller
from metafield_sync.sync.one_customer import sync_customer
from metafield_sync.web.documents import CustomerSyncOut, DiscrepancyOut, RunningOut, RunResultOut
from metafield_sync.web.edge import API, CallerIs, ParameterInvalid, Parts, answer
from metafield_sync.web.fields import CustomerUuid
from metafield_sync.web.problems import error_responses

WAIT_S_DEFAULT = 25
WAIT_S_MAX = 55
"""Under the 60 s after which most proxies and cron services hang up."""
CUSTOMER_WAIT_S_MIN = 1
EMPTY_BODIES = frozenset({b"", b"{}", b"null"})
"""What clients send that always send something."""

router = APIRouter(tags=["sync"], dependencies=API)


class RunFailed(AppError):
    """A run ended without a result."""

    code = "run_failed"
    status = 500


RESPONSES = {
    200: {"model": RunResultOut | CustomerSyncOut},
    202: {"model": RunningOut, "description": "The run goes on"},
    502: {"model": CustomerSyncOut, "description": "Shopify refused the one customer"},
    **error_responses(404),
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
    wait: Annotated[
        int, Query(ge=0, le=WAIT_S_MAX, description="Seconds until 202 is answered and the run goes on.")
    ] = WAIT_S_DEFAULT,
) -> Response:
    """Make Shopify show every balance, and answer how that went.

    Calling it again costs nothing for customers who are in step. It needs write scope, by GET too.
    """
    if (await request.body()).strip() not in EMPTY_BODIES:
        raise ParameterInvalid(
            "This call takes its parameters in the query, ?customerId=… or ?verify=true, not in a body."
        )
    if customer_id is not None:
        return await sync_one(parts, caller, customer_id, verified=verify, wait_s=max(wait, CUSTOMER_WAIT_S_MIN))
    kind = "verify" if verify else "sync"
    run_id = await parts.runs.request(caller.shop_id, kind=kind, trigger="api", forced=force)
    run = await parts.runs.wait(caller.shop_id, run_id, wait_s=wait)
    if run.status == "failed":
        raise RunFailed(f"The run ended early: {run.error}. Start it again; see /api/sync-runs/{run_id}.")
    if run.result is None:
        return answer(RunningOut(message="Sync running", run_id=run_id, status_url=f"/api/sync-runs/{run_id}"), 202)
    return JSONResponse(run.result)


async def sync_one(
    parts: Runtime,
    caller: Caller,
    customer_id: UUID,
    *,
    verified: bool = False,
    wait_s: float = WAIT_S_DEFAULT,
) -> Response:
    """Sync one customer now, verified first if asked; 502 when Shopify does not take it."""
    async with parts.db.shop(caller.shop_id) as conn:
        await require_customer(conn, caller.shop_id, CustomerId(customer_id))
    corrected = await verify(parts.db, caller.shop_id, customer_id=customer_id) if verified else []
    document = CustomerSyncOut.of(await sync_customer(parts.mirror, caller.shop_id, customer_id, wait_s=wait_s))
    if verified:
        document.corrected = len(corrected)
        document.discrepancies = [_discrepancy(found) for found in corrected]
    return answer(document, 200 if document.synced else 502)


def _discrepancy(found: Discrepancy) -> DiscrepancyOut:
    return DiscrepancyOut(
        customer_id=found.customer_id,
        shopify_customer_id=str(found.shopify_customer_id),
        stored=found.stored,
        calculated=found.calculated,
        difference=found.difference,
    )
