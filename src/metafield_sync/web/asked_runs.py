"""Runs asked for over HTTP: waited for as long as the caller likes, then answered with what came of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import Query, Request
from fastapi.responses import JSONResponse, Response

from metafield_sync.errors import AppError
from metafield_sync.shops.registry import get_shop
from metafield_sync.sync.runs import UNEXPECTED_ERROR
from metafield_sync.web.edge import ParameterInvalid, answer
from metafield_sync.web.run_documents import RunningOut

if TYPE_CHECKING:
    from uuid import UUID

    from metafield_sync.db.database import ShopId
    from metafield_sync.runtime import Runtime
    from metafield_sync.sync.runs import Run

WAIT_S_DEFAULT = 25
WAIT_S_MAX = 55
"""Under the 60 s after which most proxies and cron services hang up."""
EMPTY_BODIES = frozenset({b"", b"{}", b"null"})
"""What clients send that always send something."""

Wait = Annotated[int, Query(ge=0, le=WAIT_S_MAX, description="Seconds until 202 is answered and the run goes on.")]
Message = Literal["Sync running", "Reconciliation running"]


class RunFailed(AppError):
    """A run ended without a result, for a reason of our own."""

    code = "run_failed"
    status = 500


class ShopIsPaused(RunFailed):
    """Staff paused the shop, so Shopify was not asked."""

    code = "shop_paused"
    status = 409


class ShopifyFailed(RunFailed):
    """Shopify refused the shop, or did not answer."""

    code = "reconcile_failed"
    status = 502


async def require_no_body(request: Request, example: str) -> None:
    """Refuse a body that says something: these calls take their parameters in the query, by POST too."""
    if (await request.body()).strip() not in EMPTY_BODIES:
        raise ParameterInvalid(f"This call takes its parameters in the query, {example}, not in a body.")


async def run_answer(parts: Runtime, shop_id: ShopId, run_id: UUID, *, wait_s: float, message: Message) -> Response:
    """What a run came to, when it has ended within `wait_s` seconds; else 202, and where to ask.

    Raises:
        RunFailed: it ended without a result.
    """
    run = await parts.runs.wait(shop_id, run_id, wait_s=wait_s)
    if run.status == "failed":
        raise await _why(parts, shop_id, run)
    if run.result is None:
        return answer(RunningOut(message=message, run_id=run_id, status_url=f"/api/sync-runs/{run_id}"), 202)
    return JSONResponse(run.result)


async def _why(parts: Runtime, shop_id: ShopId, run: Run) -> RunFailed:
    """Why a run failed. A sync and a verification end with Shopify's refusals in their result, and fail by us only."""
    error = run.error or ""
    if run.kind != "reconcile" or error.startswith(UNEXPECTED_ERROR):
        return RunFailed(f"The run ended early: {error.rstrip('.')}. Start it again; see /api/sync-runs/{run.id}.")
    async with parts.db.unscoped() as conn:
        shop = await get_shop(conn, shop_id)
    kind = ShopIsPaused if shop.paused_by_staff else ShopifyFailed
    return kind(f"The metafields could not be read back: {error.rstrip('.')}. See /api/sync-runs/{run.id}.")
