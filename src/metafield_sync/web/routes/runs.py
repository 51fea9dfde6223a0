"""Runs: what was asked for, how it goes, what came of it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response

from metafield_sync.sync.run_result import corrections_of_run, discrepancy_document
from metafield_sync.web.documents import CorrectionsOut, DiscrepancyOut, RunOut, RunsOut
from metafield_sync.web.edge import (
    API,
    PAGE_ROWS_DEFAULT,
    CallerIs,
    Cursor,
    Limit,
    Parts,
    answer,
    bad_cursor,
    from_cursor,
    to_cursor,
)
from metafield_sync.web.fields import CustomerUuid
from metafield_sync.web.problems import error_responses

router = APIRouter(tags=["sync"], dependencies=API)

NUMBER_DIGITS_MAX = 18
"""A row number in a cursor stays within 64 bits."""


@router.get("/api/sync-runs", operation_id="listRuns", responses={200: {"model": RunsOut}, **error_responses()})
async def list_runs(
    caller: CallerIs, parts: Parts, cursor: Cursor = None, limit: Limit = PAGE_ROWS_DEFAULT
) -> Response:
    """Runs, newest first."""
    page = await parts.runs.page(caller.shop_id, before=_run_cursor(cursor), limit=limit + 1)
    last = page[limit - 1] if len(page) > limit else None
    return answer(
        RunsOut(
            runs=[RunOut.of(run) for run in page[:limit]],
            next_cursor=None if last is None else to_cursor(last.requested_at.isoformat(), last.id),
        )
    )


def _run_cursor(cursor: str | None) -> tuple[datetime, UUID] | None:
    parts = from_cursor(cursor, 2)
    if parts is None:
        return None
    try:
        at, run_id = datetime.fromisoformat(parts[0]), UUID(parts[1])
    except ValueError:
        raise bad_cursor() from None
    if at.tzinfo is None:
        raise bad_cursor()
    return at, run_id


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
    await parts.runs.find(caller.shop_id, runId)
    after = from_cursor(cursor, 1)
    if after is not None and not (after[0].isascii() and after[0].isdigit() and len(after[0]) <= NUMBER_DIGITS_MAX):
        raise bad_cursor()
    async with parts.db.shop(caller.shop_id) as conn:
        page = await corrections_of_run(
            conn, caller.shop_id, runId, after=None if after is None else int(after[0]), limit=limit + 1
        )
    return answer(
        CorrectionsOut(
            corrections=[DiscrepancyOut.model_validate(discrepancy_document(row)) for row in page[:limit]],
            next_cursor=to_cursor(page[limit - 1]["id"]) if len(page) > limit else None,
        )
    )
