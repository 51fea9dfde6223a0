"""Reconciliation: every metafield read back, held against its balance, and repaired if asked."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from metafield_sync.web.asked_runs import WAIT_S_DEFAULT, Wait, require_no_body, run_answer
from metafield_sync.web.edge import API, CallerIs, Parts
from metafield_sync.web.problems import error_responses
from metafield_sync.web.run_documents import ReconcileOut, RunningOut

router = APIRouter(tags=["sync"], dependencies=API)

RESPONSES = {
    200: {"model": ReconcileOut},
    202: {"model": RunningOut, "description": "The run goes on"},
    **error_responses(409, 502),
}


@router.get("/api/reconcile", operation_id="reconcile", responses=RESPONSES)
@router.post("/api/reconcile", operation_id="reconcileByPost", responses=RESPONSES)
async def reconcile(
    request: Request,
    caller: CallerIs,
    parts: Parts,
    repair: Annotated[bool, Query(description="Write what is found wrong; else it is only reported.")] = False,  # noqa: FBT002 - a query parameter
    wait: Wait = WAIT_S_DEFAULT,
) -> Response:
    """Read every metafield back from Shopify and report each that does not show its balance, by kind.

    With `repair=true` they are made right, the definition included. Reading costs two API points a customer, or some 20
    for a shop of more than 500. It needs write scope, by GET too. 502: Shopify could not be read back, and nothing was
    concluded.
    """
    await require_no_body(request, "?repair=true")
    run_id = await parts.runs.request(caller.shop_id, kind="reconcile", trigger="api", repair=repair)
    return await run_answer(parts, caller.shop_id, run_id, wait_s=wait, message="Reconciliation running")
