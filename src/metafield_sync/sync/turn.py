"""One turn of one drain: what it may use, what it has done, and how a call is paid for."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from metafield_sync.shopify import (
    Cost,
    MetafieldSpec,
    OutcomeUnknown,
    QueryRefused,
    ShopAccess,
    ShopifyError,
    ShopRefused,
    Throttled,
)
from metafield_sync.shops import registry
from metafield_sync.sync.activity import Spent, record_spent
from metafield_sync.sync.lease import Lease, LeaseLost

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from uuid import UUID

    from metafield_sync.db.database import Database
    from metafield_sync.shopify import AdminClient, Budget
    from metafield_sync.shops.registry import Shop

CALLS_IN_FLIGHT_FIRST = 4
CALLS_IN_FLIGHT_MAX = 40
"""At 2,000 points a second and half a second there and back, 29 calls are under way at any time. A turn begins with
few and allows one more with each answer: a Shopify that has stopped answering leaves few customers in doubt."""

PAUSING_CODES = frozenset({"ACCESS_DENIED", "MAX_COST_EXCEEDED"})
"""Top-level errors that concern the app's rights or this very call's size, not a customer."""

NOTHING_SPENT = Cost(requested=0.0, actual=0.0)
"""Of a call that was budgeted and never sent, or refused at the door."""


class ShopStops(Exception):
    """The shop as a whole is to be paused: nothing can be pushed to it until somebody does something."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(slots=True)
class Turn:
    """One turn of one drain: what it may use, and what it has done so far.

    `deadline` is on the monotonic clock, in seconds. `serve`: the customer somebody waits for; `served`: they have
    been tried. `has_resumed`: the shop was paused and has answered. `window`: how many calls may be under way.
    `troubles`: calls in a row that Shopify did not answer; `detail`: what the last of them was. `in_flight`: customers
    in a call that is under way. `collecting_since`: who was due before then is being collected for a bulk operation.
    `claiming` is held from the look at whom to take until they are taken. `token_version`: which of the shop's tokens
    `access` holds.
    """

    db: Database
    client: AdminClient
    metafield: MetafieldSpec
    shop: Shop
    access: ShopAccess
    lease: Lease
    budget: Budget
    deadline: float
    serve: UUID | None
    served: bool = False
    has_resumed: bool = False
    pushed: int = 0
    refused: int = 0
    calls: int = 0
    window: int = CALLS_IN_FLIGHT_FIRST
    troubles: int = 0
    detail: str | None = None
    in_flight: set[UUID] = field(default_factory=set)
    collecting_since: datetime | None = None
    claiming: asyncio.Lock = field(default_factory=asyncio.Lock)
    token_version: int = 0

    def tried(self, customers: Iterable[UUID]) -> None:
        """Note that an outcome was recorded for these."""
        self.served = self.served or self.serve in set(customers)

    def answered(self) -> None:
        """Note that Shopify answered a call: it may have one more at a time."""
        self.troubles = 0
        self.window = min(self.window + 1, CALLS_IN_FLIGHT_MAX)

    async def resume_shop(self) -> None:
        """Note that a shop which Shopify refused takes calls again."""
        if self.shop.status == "paused" and not self.has_resumed:
            self.has_resumed = True
            async with self.db.unscoped() as conn:
                await registry.resume_shop(conn, self.shop.id, by_itself=True)

    def troubled(self, error: ShopifyError) -> None:
        """Note that it did not."""
        self.troubles += 1
        self.window = max(1, self.window // 2)
        self.detail = error.detail


@dataclass(slots=True)
class PaidCall:
    """One call: whoever makes it fills in what it cost and what came of it."""

    cost: Cost | None = None
    spent: Spent = field(default_factory=Spent)


@asynccontextmanager
async def paid_call(turn: Turn, points: int) -> AsyncGenerator[PaidCall]:
    """Wait until a call of so many points may leave; afterwards, whatever happens, settle and record what it cost.

    Raises:
        LeaseEnding: there is no time left on the lease to send anything; nothing was sent.
        ShopStops: the shop is refused as a whole.
        ShopifyError: as the call inside raised it.
    """
    turn.calls += 1
    reservation = await turn.budget.acquire(points)
    call = PaidCall()
    estimate = float(points)
    try:
        # What is about to be written was read a moment ago. Without the lease somebody else may write newer balances.
        turn.lease.require_time()
        yield call
        turn.answered()
    except Throttled as error:
        turn.budget.throttled(error.cost, error.retry_after_s, reservation=reservation)
        estimate, call.spent = 0.0, Spent(throttled=1)
        turn.detail = error.detail
        raise
    except ShopRefused as error:
        estimate = 0.0
        raise ShopStops(error.reason, error.detail) from error
    except QueryRefused as error:
        call.cost = error.cost
        if error.shopify_code in PAUSING_CODES:
            raise ShopStops(error.code, error.detail) from error
        raise
    except OutcomeUnknown as error:
        call.cost = error.cost
        turn.troubled(error)
        call.spent = Spent(unknown=1)
        raise
    except ShopifyError as error:
        call.cost, estimate = call.cost or error.cost, 0.0
        turn.troubled(error)
        raise
    except LeaseLost:
        call.cost = call.cost or NOTHING_SPENT
        raise
    finally:
        turn.budget.settle(reservation, call.cost)
        await record_spent(turn.db, turn.shop.id, call.spent, charged(call.cost, estimate), turn.budget.snapshot())


def charged(cost: Cost | None, estimate: float) -> float:
    """What a call cost, in points: what its answer said, else the estimate."""
    told = None if cost is None else cost.charged
    return estimate if told is None else told
