"""Status: how one shop's mirror does, and whether somebody should look at it."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import Field

from metafield_sync.sync.incoming import ErrandStanding, InboxStanding, errand_standings, inbox_standing
from metafield_sync.sync.schedule import workers_alive
from metafield_sync.sync.standing import (
    STALE_ALARM_S,
    BackfillStanding,
    BackfillStep,
    backfill_standing,
    failures_by_code,
    is_overdue,
    shop_standing,
)
from metafield_sync.web.edge import API, CallerIs, Parts, answer
from metafield_sync.web.fields import Document, Moment
from metafield_sync.web.problems import error_responses
from metafield_sync.web.run_documents import RunSummaryOut

LAST_RUNS = 5

router = APIRouter(tags=["health"], dependencies=API)


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
    customers_read: int = Field(description="Read back: after a write without a known outcome, or to reconcile.")
    customers_refused: int
    outcomes_unknown: int
    conflicts_ours: int = Field(description="Writes that met a late write of our own, and were made again over it.")
    conflicts_foreign: int = Field(description="Writes that met somebody else's, and were made again over it.")
    late_writes: int = Field(description="Customers in step of whom reading back showed that a late write had won.")
    backfilled: int = Field(description="Customers pushed by bulk operation.")
    drifts: int = Field(description="Customers whom a reconciliation found showing something else.")


class BackfillOut(Document):
    """A backfill under way: a whole shop pushed by bulk operation."""

    started_at: Moment
    step: BackfillStep = Field(
        description="`collecting`: who is to be written. `reading_values`: what is there already. `files`: Shopify "
        "works through the files, and their results come in."
    )
    customers: int
    written: int
    refused: int
    unknown: int = Field(description="Lines that Shopify told nothing of; these customers are pushed again.")
    attempts: int = Field(description="How often in a row its present step has failed.")

    @classmethod
    def of(cls, backfill: BackfillStanding) -> BackfillOut:
        """The document of a backfill."""
        return cls(**{name: getattr(backfill, name) for name in cls.model_fields})


class InboxCountsOut(Document):
    """Webhooks that are not handled: GET /api/inbox lists them."""

    waiting: int
    failed: int = Field(description="Given up, until somebody resends them.")
    oldest_seconds: float = Field(description="Age of the oldest that waits; 0: none.")

    @classmethod
    def of(cls, inbox: InboxStanding) -> InboxCountsOut:
        """The document of an inbox."""
        return cls(waiting=inbox.waiting, failed=inbox.failed, oldest_seconds=round(inbox.oldest_s, 3))


class ErrandsOut(Document):
    """Things of one kind that have to be asked of Shopify and are due, or fail."""

    kind: str
    waiting: int = Field(description="Due now.")
    failing: int = Field(description="Failed the last time; tried again, at last every hour.")
    oldest_seconds: float = Field(description="For how long the oldest of them has been due, or failing.")
    error: str | None

    @classmethod
    def of(cls, errands: ErrandStanding) -> ErrandsOut:
        """The document of a kind of errands."""
        return cls(
            kind=errands.kind,
            waiting=errands.waiting,
            failing=errands.failing,
            oldest_seconds=round(errands.oldest_s, 3),
            error=errands.error,
        )


class StatusOut(Document):
    """How a shop's mirror does.

    It is red (503) by age alone: a change of a customer who is there has waited for longer than `alarmAfterSeconds`,
    whatever the reason. Failing and in doubt count; so does a shop that Shopify refuses, since people wait there too.
    Customers who are gone from Shopify do not; nor does a shop that staff paused, since they chose it. Errors alone
    never turn it red, and a pause is named whatever the colour.
    """

    shop: str
    status: Literal["active", "paused"]
    paused: PausedOut | None
    oldest_unpushed_seconds: float = Field(description="Age of the oldest change that Shopify does not show; 0: none.")
    alarm_after_seconds: int
    customers: CountsOut
    failures: dict[str, int] = Field(
        description="Customers who fail, by Shopify's code or ours; GET /api/sync-failures lists them, with the error."
    )
    backfill: BackfillOut | None
    inbox: InboxCountsOut
    errands: list[ErrandsOut]
    budget: BudgetOut | None
    activity: ActivityOut
    workers: int = Field(
        description="Workers heard of in the last 30 seconds, over all shops. Without one nothing is pushed by itself."
    )
    last_runs: list[RunSummaryOut]


@router.get(
    "/api/status",
    operation_id="status",
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
        failures = await failures_by_code(conn, caller.shop_id)
        backfill = await backfill_standing(conn, caller.shop_id)
        inbox = await inbox_standing(conn, caller.shop_id)
        errands = await errand_standings(conn, caller.shop_id)
        workers = await workers_alive(conn)
    runs = await parts.runs.page(caller.shop_id, before=None, limit=LAST_RUNS)
    document = StatusOut(
        shop=figures["domain"],
        status=figures["status"],
        paused=_paused(figures),
        oldest_unpushed_seconds=round(figures["oldest_s"], 3),
        alarm_after_seconds=STALE_ALARM_S,
        customers=_counts(figures),
        failures=failures,
        backfill=None if backfill is None else BackfillOut.of(backfill),
        inbox=InboxCountsOut.of(inbox),
        errands=[ErrandsOut.of(one) for one in errands],
        budget=_budget(figures),
        activity=ActivityOut(**{name: figures[name] for name in ActivityOut.model_fields}),
        workers=workers,
        last_runs=[RunSummaryOut.of(run) for run in runs],
    )
    return answer(document, 503 if is_overdue(figures) else 200)


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
