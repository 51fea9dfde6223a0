"""Health: alive, ready, and the figures. Shopify being down changes none of these but /api/status."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from metafield_sync.db.migrate import head_revision
from metafield_sync.errors import AppError
from metafield_sync.sync.standing import STALE_ALARM_S, shop_standing
from metafield_sync.web.documents import RunOut
from metafield_sync.web.edge import API, OPEN, CallerIs, Parts, answer
from metafield_sync.web.fields import Document, Moment
from metafield_sync.web.metrics import Metrics, fleet_counts
from metafield_sync.web.problems import PROBLEM_JSON, PROBLEM_SCHEMA, error_responses

LAST_RUNS = 5

router = APIRouter(tags=["health"])


class NotReady(AppError):
    """The database is there, but not at the schema this program needs."""

    code = "not_ready"
    status = 503


class HealthOut(Document):
    """All is well."""

    status: Literal["ok", "ready"]


class PausedOut(Document):
    """Why nothing is pushed to the shop, and when it is tried again; by itself only if a time is given."""

    code: str
    detail: str
    next_attempt_at: Moment | None


class CountsOut(Document):
    """The shop's customers by mirror status."""

    total: int
    in_step: int
    stale: int
    in_doubt: int
    failing: int
    missing: int
    paused: int


class BudgetOut(Document):
    """The shop's bucket of API points as Shopify last told it."""

    maximum_available: float
    currently_available: float
    restore_rate: float
    seen_at: Moment


class ActivityOut(Document):
    """What mirroring has come to since the shop was added: calls, points, customers."""

    calls: int
    throttled: int
    points_spent: int
    customers_pushed: int
    customers_refused: int
    outcomes_unknown: int


class StatusOut(Document):
    """How a shop's mirror does."""

    shop: str
    status: Literal["active", "paused"]
    paused: PausedOut | None
    oldest_unpushed_seconds: float
    alarm_after_seconds: int
    customers: CountsOut
    budget: BudgetOut | None
    activity: ActivityOut
    last_runs: list[RunOut]


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", operation_id="alive", dependencies=OPEN, responses={200: {"model": HealthOut}})
async def alive() -> Response:
    """This process answers."""
    return answer(HealthOut(status="ok"))


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    operation_id="ready",
    dependencies=OPEN,
    responses={
        200: {"model": HealthOut},
        503: {"description": "Not ready", "content": {PROBLEM_JSON: {"schema": PROBLEM_SCHEMA}}},
    },
)
async def ready(parts: Parts) -> Response:
    """The database answers, at the schema this program needs."""
    async with parts.db.unscoped() as conn, conn.cursor() as cur:
        await cur.execute("select version_num from alembic_version")
        row = await cur.fetchone()
    if row is None or row[0] != head_revision():
        raise NotReady("The database is not at the schema this version needs. Run: metafield-sync migrate")
    return answer(HealthOut(status="ready"))


@router.get("/metrics", operation_id="metrics", dependencies=OPEN, response_class=PlainTextResponse)
async def metrics(request: Request, parts: Parts) -> Response:
    """Figures for Prometheus: of the whole fleet, read from the database, and of this process."""
    shown: Metrics = request.app.state.metrics
    return Response(shown.render(await fleet_counts(parts.db)), media_type=CONTENT_TYPE_LATEST)


@router.get(
    "/api/status",
    operation_id="status",
    dependencies=API,
    responses={
        200: {"model": StatusOut},
        **error_responses(),
        503: {"model": StatusOut, "description": "A change has waited longer than the alarm allows"},
    },
)
async def status(caller: CallerIs, parts: Parts) -> Response:
    """How the shop's mirror does. 503 when the oldest change not pushed is older than the alarm allows."""
    async with parts.db.shop(caller.shop_id) as conn:
        figures = await shop_standing(conn, caller.shop_id)
    runs = await parts.runs.page(caller.shop_id, before=None, limit=LAST_RUNS)
    document = StatusOut(
        shop=figures["domain"],
        status=figures["status"],
        paused=_paused(figures),
        oldest_unpushed_seconds=round(figures["oldest_s"], 3),
        alarm_after_seconds=STALE_ALARM_S,
        customers=_counts(figures),
        budget=_budget(figures),
        activity=ActivityOut(**{name: figures[name] for name in ActivityOut.model_fields}),
        last_runs=[RunOut.of(run) for run in runs],
    )
    return answer(document, 503 if figures["oldest_s"] > STALE_ALARM_S else 200)


def _paused(figures: dict[str, Any]) -> PausedOut | None:
    if figures["status"] != "paused":
        return None
    return PausedOut(code=figures["paused_code"], detail=figures["paused_detail"], next_attempt_at=figures["probe_at"])


def _counts(figures: dict[str, Any]) -> CountsOut:
    waiting, failing = figures["waiting"], figures["failing"]
    behind = waiting + failing + figures["in_doubt"] + figures["missing"]
    is_paused = figures["status"] == "paused"
    return CountsOut(
        total=figures["customers"],
        in_step=figures["customers"] - behind,
        stale=0 if is_paused else waiting,
        in_doubt=figures["in_doubt"],
        failing=0 if is_paused else failing,
        missing=figures["missing"],
        paused=waiting + failing if is_paused else 0,
    )


def _budget(figures: dict[str, Any]) -> BudgetOut | None:
    if figures["budget_maximum"] is None:
        return None
    return BudgetOut(
        maximum_available=figures["budget_maximum"],
        currently_available=figures["budget_available"],
        restore_rate=figures["budget_restore_rate"],
        seen_at=figures["budget_seen_at"],
    )
