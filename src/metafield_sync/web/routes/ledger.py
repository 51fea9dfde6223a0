"""Postings: one, many, and taken back."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path
from fastapi.responses import Response
from pydantic import ValidationError

from metafield_sync.ledger.posting import Posted, PostingRefused, post, post_batch, reverse
from metafield_sync.sync.one_customer import sync_customer
from metafield_sync.web.documents import (
    BatchIn,
    BatchOut,
    BatchOutcome,
    EntryIn,
    EntryOut,
    PostedOut,
    PostingIn,
    ReversalIn,
)
from metafield_sync.web.edge import API, CallerIs, Parts, answer
from metafield_sync.web.problems import describe, error_responses, posting_code

SYNC_WAIT_S = 5
"""How long `syncToShopify` waits. The posting is committed before; it never waits for Shopify."""

router = APIRouter(tags=["ledger"], dependencies=API)

POSTED = {
    200: {"model": PostedOut, "description": "Processed before; nothing was changed"},
    201: {"model": PostedOut, "description": "Recorded"},
    **error_responses(404, 409, 410, 413, 415),
}


@router.post("/api/ledger", operation_id="postEntry", responses=POSTED)
async def post_entry(caller: CallerIs, parts: Parts, body: PostingIn) -> Response:
    """Post one change of points."""
    posted = await post(parts.db, caller.shop_id, caller.actor, body.posting())
    synced = False
    if body.sync_to_shopify:
        outcome = await sync_customer(parts.mirror, caller.shop_id, posted.entry.customer_id, wait_s=SYNC_WAIT_S)
        synced = outcome.synced
    return answer(PostedOut.of(posted, synced=synced), 201 if posted.is_new else 200)


@router.post(
    "/api/ledger/batch",
    operation_id="postBatch",
    responses={200: {"model": BatchOut}, **error_responses(413, 415)},
)
async def post_many(caller: CallerIs, parts: Parts, body: BatchIn) -> Response:
    """Post up to 1,000 changes, in order. Each has its own outcome; a refused one leaves the others alone."""
    outcomes: list[BatchOutcome | None] = []
    wanted: list[EntryIn] = []
    for given in body.entries:
        checked = _check(given)
        outcomes.append(checked if isinstance(checked, BatchOutcome) else None)
        if isinstance(checked, EntryIn):
            wanted.append(checked)
    posted = iter(await post_batch(parts.db, caller.shop_id, caller.actor, [entry.posting() for entry in wanted]))
    return answer(BatchOut(results=[_outcome(next(posted)) if known is None else known for known in outcomes]))


def _check(given: Any) -> EntryIn | BatchOutcome:
    try:
        return EntryIn.model_validate(given)
    except ValidationError as error:
        errors = [dict(found) for found in error.errors(include_url=False, include_input=False)]
        status, code = posting_code(errors)
        return BatchOutcome(status=status, code=code, detail=_clean(describe(errors)))


def _outcome(outcome: Posted | PostingRefused) -> BatchOutcome:
    if isinstance(outcome, PostingRefused):
        return BatchOutcome(status=outcome.status, code=outcome.code, detail=outcome.detail)
    return BatchOutcome(status=201 if outcome.is_new else 200, entry=EntryOut.of(outcome.entry))


def _clean(detail: str) -> str:
    return detail.encode("utf-8", "replace").decode()


@router.post("/api/ledger/{entryId}/reverse", operation_id="reverseEntry", responses=POSTED)
async def reverse_entry(
    caller: CallerIs,
    parts: Parts,
    entryId: Annotated[str, Path(max_length=100)],  # noqa: N803 - the name in the path, which OpenAPI shows
    body: Annotated[ReversalIn | None, Body()] = None,
) -> Response:
    """Take an entry back, by posting its opposite. An entry is taken back once; again answers the same reversal."""
    wish = body or ReversalIn()
    posted = await reverse(
        parts.db,
        caller.shop_id,
        caller.actor,
        entryId,
        reason=wish.reason,
        allow_negative=wish.allow_negative,
    )
    return answer(PostedOut.of(posted, synced=False), 201 if posted.is_new else 200)
