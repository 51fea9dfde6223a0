"""The documents of syncing: one customer's, a run's, what fails, and what a run changed."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from metafield_sync.ledger.verification import Discrepancy
from metafield_sync.sync.one_customer import CustomerSync
from metafield_sync.sync.reconcile.drift import DriftKind
from metafield_sync.sync.runs import Kind, Run, Trigger
from metafield_sync.sync.standing import MirrorStatus, SyncFailure
from metafield_sync.web.fields import Document, Moment


class FailureOut(Document):
    """A customer whose metafield does not show the balance, or is not known to."""

    customer_id: UUID
    shopify_customer_id: str
    status: MirrorStatus
    error: str
    attempts: int
    since: Moment
    next_attempt_at: Moment | None

    @classmethod
    def of(cls, failure: SyncFailure) -> FailureOut:
        """The document of a failure."""
        return cls(
            customer_id=failure.customer_id,
            shopify_customer_id=str(failure.shopify_customer_id),
            status=failure.status,
            error=failure.error,
            attempts=failure.attempts,
            since=failure.since,
            next_attempt_at=failure.next_attempt_at,
        )


class FailuresOut(Document):
    """A page of failures."""

    failures: list[FailureOut]
    next_cursor: str | None


class DismissedOut(Document):
    """A failure taken off the list."""

    message: Literal["Failure dismissed"]
    customer_id: UUID


class DiscrepancyOut(Document):
    """A stored balance that was not the sum of its entries."""

    customer_id: UUID
    shopify_customer_id: str
    stored: int
    calculated: int
    difference: int

    @classmethod
    def of(cls, found: Discrepancy) -> DiscrepancyOut:
        """The document of a wrong balance."""
        return cls(
            customer_id=found.customer_id,
            shopify_customer_id=str(found.shopify_customer_id),
            stored=found.stored,
            calculated=found.calculated,
            difference=found.difference,
        )


class CorrectionsOut(Document):
    """A page of the balances one verification corrected."""

    corrections: list[DiscrepancyOut]
    next_cursor: str | None


class ChangeOut(Document):
    """What a run changed in Shopify for one customer, could not change, or found different."""

    customer_id: UUID
    shopify_customer_id: str
    change: Literal["pushed", "failed", "drift"]
    before: str | None = Field(description="What Shopify showed, as far as known; null: nothing, or unknown.")
    after: str | None = Field(description="`pushed`: what it shows now. `failed`, `drift`: what it should show.")
    reason: str = Field(
        description="`pushed`: the kind of run. `failed`: the error. `drift`: its kind, such as `foreign_write`."
    )
    at: Moment

    @classmethod
    def of(cls, row: dict[str, Any]) -> ChangeOut:
        """The document of one row of `changes_of_run`."""
        return cls(
            customer_id=row["customer_id"],
            shopify_customer_id=str(row["shopify_customer_id"]),
            change=row["change"],
            before=row["before"],
            after=row["after"],
            reason=row["reason"],
            at=row["noted_at"],
        )


class ChangesOut(Document):
    """A page of what one run changed, in the order of the customers' ids."""

    changes: list[ChangeOut]
    next_cursor: str | None


class FailedSyncOut(Document):
    """One customer that could not be synced."""

    customer_id: UUID
    shopify_customer_id: str
    error: str


class CustomerSyncOut(Document):
    """One customer, synced or not."""

    message: Literal["Customer synced", "Customer sync failed"]
    customer_id: UUID
    balance: int
    synced: bool
    error: str | None = None
    corrected: int | None = Field(
        default=None, description="With `verify=true`: 1 if the stored balance was wrong, else 0."
    )
    discrepancies: list[DiscrepancyOut] | None = Field(default=None, description="With `verify=true`.")

    @classmethod
    def of(cls, outcome: CustomerSync) -> CustomerSyncOut:
        """The document of one customer's sync."""
        if outcome.synced:
            return cls(
                message="Customer synced",
                customer_id=outcome.customer_id,
                balance=outcome.balance,
                synced=True,
            )
        return cls(
            message="Customer sync failed",
            customer_id=outcome.customer_id,
            balance=outcome.balance,
            synced=False,
            error=outcome.error,
        )


class SyncFiguresOut(Document):
    """What a sync or a verification came to, in numbers."""

    message: Literal["Sync complete", "Balance verification complete"]
    total: int
    synced: int
    errors: int
    verified: int | None = None
    corrected: int | None = None
    run_id: UUID
    pushed: int
    unchanged: int
    points_spent: int
    duration_ms: int
    failures_url: str | None = None
    corrections_url: str | None = None


class RunResultOut(SyncFiguresOut):
    """What a sync or a verification came to.

    The lists stop at 1,000 rows; `failuresUrl` then names the page that has them all.
    """

    failed_syncs: list[FailedSyncOut]
    discrepancies: list[DiscrepancyOut] | None = None


class ReconcileFiguresOut(Document):
    """What reading every metafield back came to, in numbers.

    `total` is `agreeing`, `drifted` and `notCompared` together.
    """

    message: Literal["Reconciliation complete"]
    total: int
    agreeing: int = Field(description="Customers whose metafield was seen to show the balance.")
    drifted: int
    repaired: int = Field(description="Of those who drifted: who shows the balance now. 0 without `repair=true`.")
    not_compared: int = Field(
        description="Customers of whom the reading tells nothing: their balance moved or was pushed meanwhile, or they "
        "were known to be gone from Shopify."
    )
    definition: str = Field(
        description="How the metafield's definition was found: `as_it_should_be`, `missing`, or in words what differs."
    )
    definition_repaired: bool = Field(description="The definition was not as it should be, and is now.")
    by_kind: dict[DriftKind, int] = Field(
        description="`missing`: no metafield. `different`: an earlier balance, and the change waits to be pushed. "
        "`wrong_type`: another type than number_integer. `foreign_write`: a value this customer never had. "
        "`not_pushed`: an earlier balance, though a later one was believed pushed. `customer_gone`: no such customer."
    )
    run_id: UUID
    pushed: int
    points_spent: int
    duration_ms: int
    changes_url: str | None = None


class DriftOut(Document):
    """One customer whose metafield did not show the balance."""

    customer_id: UUID
    shopify_customer_id: str
    kind: DriftKind
    expected: int
    found: str | None = Field(description="The metafield's value, whatever its type; null if there was none.")


class ReconcileOut(ReconcileFiguresOut):
    """What reading every metafield back came to.

    `drifts` stops at 1,000 rows; `changesUrl` then names the page that has them all.
    """

    drifts: list[DriftOut]


class ProgressOut(Document):
    """Customers tried, of those the run found to try; for a reconciliation that still reads, customers read back."""

    done: int
    total: int


class RunBaseOut(Document):
    """What every run is described by."""

    run_id: UUID
    kind: Kind
    trigger: Trigger
    repair: bool = Field(description="A reconciliation that writes what it finds wrong.")
    status: Literal["queued", "running", "done", "failed"]
    requested_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    progress: ProgressOut
    error: str | None


class RunOut(RunBaseOut):
    """One run."""

    result: RunResultOut | ReconcileOut | None = Field(description="What the call that asked for it answers.")

    @classmethod
    def of(cls, run: Run) -> RunOut:
        """The document of a run."""
        return cls.model_validate(described(run) | {"result": run.result})


class RunSummaryOut(RunBaseOut):
    """One run, its result without the lists: GET /api/sync-runs/{runId} has them."""

    result: SyncFiguresOut | ReconcileFiguresOut | None

    @classmethod
    def of(cls, run: Run) -> RunSummaryOut:
        """The document of a run, in short."""
        figures = run.result and {name: value for name, value in run.result.items() if name not in LISTS}
        return cls.model_validate(described(run) | {"result": figures})


LISTS = frozenset({"failedSyncs", "discrepancies", "drifts"})
"""What can be long in a result."""


def described(run: Run) -> dict[str, Any]:
    """What every kind of run is described by."""
    return {
        "run_id": run.id,
        "kind": run.kind,
        "trigger": run.trigger,
        "repair": run.repair,
        "status": run.status,
        "requested_at": run.requested_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "progress": {"done": run.progress_done, "total": run.progress_total},
        "error": run.error,
    }


class RunsOut(Document):
    """A page of runs, newest first."""

    runs: list[RunOut]
    next_cursor: str | None


class RunningOut(Document):
    """A run that goes on; ask `statusUrl` how it is doing."""

    message: Literal["Sync running", "Reconciliation running"]
    run_id: UUID
    status_url: str
