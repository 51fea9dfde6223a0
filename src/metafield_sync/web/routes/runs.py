"""Runs: what was asked for, how it goes, what came of it."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response

from metafield_sync.sync.reconcile.drift import changes_of_run
from metafield_sync.sync.run_result import corrections_of_run, discrepancy_document
from metafield_sync.web.edge import API, CallerIs, Parts, answer
from metafield_sync.web.fields import CustomerUuid
from metafield_sync.web.paging import PAGE_ROWS_DEFAULT, Cursor, Limit, moment, number, one_page, read_cursor, word
from metafield_sync.web.problems import error_responses
from metafield_sync.web.run_documents import ChangeOut, ChangesOut, CorrectionsOut, DiscrepancyOut, RunOut, RunsOut

router = APIRouter(tags=["sync"], dependencies=API)


@router.get("/api/sync-runs", operation_id="listRuns", responses={200: {"model": RunsOut}, **error_responses()})
async def list_runs(
    caller: CallerIs, parts: Parts, cursor: Cursor = None, limit: Limit = PAGE_ROWS_DEFAULT
) -> Response:
    """Runs, newest first."""
    before = read_cursor(cursor, moment, UUID)
    found = await parts.runs.page(caller.shop_id, before=before and (before[0], before[1]), limit=limit + 1)
    page, next_cursor = one_page(found, limit, lambda run: (run.requested_at.isoformat(), run.id))
    return answer(RunsOut(runs=[RunOut.of(run) for run in page], next_cursor=next_cursor))


@router.get(
    "/api/sync-runs/{runId}",
    operation_id="getRun",
    responses={200: {"model": RunOut}, **error_responses(404)},
)
async def get_run(
    caller: CallerIs,
    parts: Parts,
    runId: CustomerUuid,  # noqa: N803 - the name in the path, which OpenAPI shows
) -> Response:
    """One run: how far it is, or what came of it."""
    return answer(RunOut.of(await parts.runs.find(caller.shop_id, runId)))


@router.get(
    "/api/sync-runs/{runId}/corrections",
    operation_id="listCorrections",
    responses={200: {"model": CorrectionsOut}, **error_responses(404)},
)
async def list_corrections(
    caller: CallerIs,
    parts: Parts,
    runId: CustomerUuid,  # noqa: N803 - the name in the path, which OpenAPI shows
    cursor: Cursor = None,
    limit: Limit = PAGE_ROWS_DEFAULT,
) -> Response:
    """The balances that a verification corrected."""
    (after,) = read_cursor(cursor, number) or (None,)
    await parts.runs.find(caller.shop_id, runId)
    async with parts.db.shop(caller.shop_id) as conn:
        found = await corrections_of_run(conn, caller.shop_id, runId, after=after, limit=limit + 1)
    page, next_cursor = one_page(found, limit, lambda row: (row["id"],))
    corrections = [DiscrepancyOut.model_validate(discrepancy_document(row)) for row in page]
    return answer(CorrectionsOut(corrections=corrections, next_cursor=next_cursor))


@router.get(
    "/api/sync-runs/{runId}/changes",
    operation_id="listChanges",
    responses={200: {"model": ChangesOut}, **error_responses(404)},
)
async def list_changes(
    caller: CallerIs,
    parts: Parts,
    runId: CustomerUuid,  # noqa: N803 - the name in the path, which OpenAPI shows
    cursor: Cursor = None,
    limit: Limit = PAGE_ROWS_DEFAULT,
) -> Response:
    """What a run changed in Shopify, customer by customer; what it could not change; and what it found different."""
    after = read_cursor(cursor, UUID, word)
    await parts.runs.find(caller.shop_id, runId)
    async with parts.db.shop(caller.shop_id) as conn:
        found = await changes_of_run(conn, caller.shop_id, runId, after=after and (after[0], after[1]), limit=limit + 1)
    page, next_cursor = one_page(found, limit, lambda row: (row["customer_id"], row["change"]))
    return answer(ChangesOut(changes=[ChangeOut.of(row) for row in page], next_cursor=next_cursor))
