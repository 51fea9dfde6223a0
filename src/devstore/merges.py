"""Merging two customers into one, which Shopify does in the background some time after it was asked to.

Which of the two is kept is not decided by the arguments' order: whoever has an e-mail address, if only one has, and
else the second (published with the mutation; account states and marketing consent, which decide between two addresses,
are not held here). What is kept of them: the orders of both; the kept customer's metafield where both have one, and
never a sum (recorded); the tags of both.

A webhook tells how it ended. Only the one of a failed merge is published; how Shopify spells success is not known, so
a client must not depend on it: `MergeSettings.success_status` says what to send.

Merges that wait when the server stops are forgotten.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from uuid import uuid4

from devstore.customers import CustomerBook, CustomerDetails
from devstore.gids import customer_gid
from devstore.metafields import MetafieldBook
from devstore.order_book import OrderBook
from devstore.storage import Storage

Emit = Callable[[str, Mapping[str, object]], object]


class MergeStatus(StrEnum):
    """How far a merge is, as `CustomerMergeRequestStatus` spells it."""

    REQUESTED = "REQUESTED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class MergeError(Exception):
    """A merge makes no sense; the text says why."""


@dataclass(frozen=True, slots=True)
class MergeProblem:
    """Why a merge failed: `field` is what the webhook calls it, `CustomerMergeErrorFieldType` in lower case."""

    customers: tuple[int, ...]
    field: str
    message: str


@dataclass(slots=True)
class Merge:
    """One merge.

    Attributes:
        number: 1 for the first of the shop.
        job: global id of its job.
        kept: the customer that stays.
        deleted: the one that goes.
        status: how far it is.
        problems: why it failed.
    """

    number: int
    kept: int
    deleted: int
    job: str = field(default_factory=lambda: f"gid://shopify/Job/{uuid4()}")
    status: MergeStatus = MergeStatus.REQUESTED
    problems: tuple[MergeProblem, ...] = ()


@dataclass(slots=True)
class MergeSettings:
    """How a shop merges.

    Attributes:
        delay_ms: how long after it was asked to.
        paused: while it is true nothing is merged, until `MergeBook.settle`.
        success_status: what the webhook calls success.
    """

    delay_ms: float = 50
    paused: bool = False
    success_status: str = "completed"


class MergeBook:
    """Merges of one shop. Used from the server's loop; without a running loop they wait for `settle`.

    Attributes:
        settings: how they are done.
        merges: all of them, oldest first.
    """

    def __init__(
        self,
        storage: Storage,
        customers: CustomerBook,
        metafields: MetafieldBook,
        orders: OrderBook,
        emit: Emit,
        now_s: Callable[[], int],
    ) -> None:
        self.settings = MergeSettings()
        self.merges: list[Merge] = []
        self._storage = storage
        self._customers = customers
        self._metafields = metafields
        self._orders = orders
        self._emit = emit
        self._now_s = now_s
        self._timers: set[asyncio.TimerHandle] = set()

    def request(self, one: int, two: int, *, keep_email_of: int | None = None) -> Merge:
        """Ask for a merge; it happens later.

        Raises:
            MergeError: they are the same customer, or one does not exist.
        """
        for number in (one, two):
            if not self._customers.exists(number):
                raise MergeError(f"Customer with ID {number} could not be found.")
        if one == two:
            raise MergeError("Customers IDs should not match.")
        kept = self._kept(one, two, keep_email_of)
        merge = Merge(len(self.merges) + 1, kept, one + two - kept)
        busy = {
            number for other in self.merges if other.status is MergeStatus.REQUESTED for number in _both(other)
        } & _both(merge)
        self.merges.append(merge)
        if busy:
            number = min(busy)
            name = self._customers.details(number).display_name(number)
            self._fail(merge, MergeProblem((number,), "merge_in_progress", f"{name} is currently being merged."))
        elif not self.settings.paused:
            self._schedule(merge)
        return merge

    def find(self, job: str) -> Merge | None:
        """A merge by its job."""
        return next((one for one in self.merges if one.job == job), None)

    def settle(self) -> int:
        """Do everything that waits now; how many that were."""
        waiting = [one for one in self.merges if one.status is MergeStatus.REQUESTED]
        for one in waiting:
            self._run(one)
        return len(waiting)

    def close(self) -> None:
        """Forget what waits."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _kept(self, one: int, two: int, keep_email_of: int | None) -> int:
        if keep_email_of in {one, two}:
            return one if keep_email_of == one else two
        has_email = [number for number in (one, two) if self._customers.details(number).email]
        return has_email[0] if len(has_email) == 1 else two

    def _schedule(self, merge: Merge) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._timers.add(loop.call_later(self.settings.delay_ms / 1_000, self._run, merge))

    def _run(self, merge: Merge) -> None:
        if merge.status is not MergeStatus.REQUESTED:
            return
        gone = [number for number in (merge.kept, merge.deleted) if not self._customers.exists(number)]
        if gone:
            message = f"Customer {gone[0]} has been deleted."
            self._fail(merge, MergeProblem((gone[0],), "deleted_at", message))
            return
        with self._storage.transaction():
            self._combine(merge)
        merge.status = MergeStatus.COMPLETED
        self._tell(merge, self.settings.success_status)

    def _combine(self, merge: Merge) -> None:
        kept, deleted, now_s = merge.kept, merge.deleted, self._now_s()
        for one in self._metafields.of_owner("CUSTOMER", deleted):
            if self._metafields.get(one.slot, kept) is None:
                self._metafields.put(one.slot, kept, one.type, one.value, now_s)
        self._metafields.delete_owner("CUSTOMER", deleted)
        self._orders.give_all(deleted, kept)
        mine, theirs = self._customers.details(kept), self._customers.details(deleted)
        if theirs != CustomerDetails():
            tags = tuple(dict.fromkeys((*mine.tags, *theirs.tags)))
            email, note = mine.email or theirs.email, mine.note or theirs.note
            first_name, last_name = mine.first_name or theirs.first_name, mine.last_name or theirs.last_name
            details = replace(mine, email=email, note=note, first_name=first_name, last_name=last_name, tags=tags)
            self._customers.describe(kept, details)
        self._customers.remove(deleted)

    def _fail(self, merge: Merge, problem: MergeProblem) -> None:
        merge.status, merge.problems = MergeStatus.FAILED, (problem,)
        self._tell(merge, "failed")

    def _tell(self, merge: Merge, status: str) -> None:
        errors = [
            {"customer_ids": list(one.customers), "field": one.field, "message": one.message} for one in merge.problems
        ]
        payload = {
            "admin_graphql_api_customer_kept_id": customer_gid(merge.kept),
            "admin_graphql_api_customer_deleted_id": customer_gid(merge.deleted),
            "admin_graphql_api_job_id": None if errors else merge.job,
            "status": status,
            "errors": errors,
        }
        self._emit("customers/merge", payload)


def _both(merge: Merge) -> set[int]:
    return {merge.kept, merge.deleted}
