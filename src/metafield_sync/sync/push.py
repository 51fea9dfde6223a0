"""One batch to Shopify: sent, and what came of it recorded for each of its customers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from metafield_sync.shopify import (
    Cost,
    MetafieldSpec,
    MetafieldWrite,
    OutcomeUnknown,
    QueryRefused,
    Refusal,
    RefusalKind,
    ShopAccess,
    ShopRefused,
    Throttled,
    Unreachable,
    set_cost,
    set_metafields,
)
from metafield_sync.shops import registry
from metafield_sync.sync import rows
from metafield_sync.sync.lease import Lease, LeaseLost
from metafield_sync.sync.rows import Claim, Failure, Spent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from metafield_sync.db.database import Database
    from metafield_sync.shopify import AdminClient, Budget
    from metafield_sync.shops.registry import Shop

PAUSING_CODES = frozenset({"ACCESS_DENIED", "MAX_COST_EXCEEDED"})
"""Top-level errors that concern the app's rights or this very call's size, not a customer."""


NOTHING_SPENT = Cost(requested=0.0, actual=0.0)
"""Of a call that was budgeted and never sent."""


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
    been tried. `troubles`: calls in a row that Shopify did not answer; `detail`: what the last of them was.
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
    pushed: int = 0
    refused: int = 0
    calls: int = 0
    troubles: int = 0
    detail: str | None = None
    in_flight: set[UUID] = field(default_factory=set)

    def tried(self, claims: Sequence[Claim]) -> None:
        """Note that an outcome was recorded for these."""
        self.served = self.served or self.serve in {claim.customer_id for claim in claims}


async def push_batch(turn: Turn, claims: Sequence[Claim]) -> None:
    """Send one batch and record what came of it. A batch refused without saying whom it means is halved.

    Raises:
        ShopStops: Shopify refuses the shop, not a customer.
        LeaseLost: another process has taken over.
    """
    refused = await _send(turn, claims)
    if refused is None:
        return
    half = len(claims) // 2
    if half == 0:
        await _record_failures(turn, [_failure(claims[0], refused)])
        return
    for part in (claims[:half], claims[half:]):
        async with turn.db.shop(turn.shop.id) as conn:
            fresh = await rows.claim_again(conn, turn.shop.id, part)
        await push_batch(turn, fresh)


async def _send(turn: Turn, claims: Sequence[Claim]) -> Refusal | None:
    """One call. Returns the refusal when Shopify refuses the batch without naming whom it means."""
    turn.calls += 1
    # The drain has seen to it that a full call fits; only the halves of a refused batch may have to wait here.
    reservation = await turn.budget.acquire(set_cost(len(claims)))
    cost: Cost | None = None
    try:
        # The balances are those of a moment ago. Without the lease somebody else may be about to write newer ones.
        turn.lease.require_time()
    except LeaseLost:
        turn.budget.settle(reservation, NOTHING_SPENT)
        raise
    spent, points = Spent(), float(reservation.points)
    try:
        writes = [MetafieldWrite(claim.shopify_customer_id, claim.balance) for claim in claims]
        result = await set_metafields(turn.client, turn.access, turn.metafield, writes)
        cost = result.cost
        turn.troubles = 0
        if result.written:
            spent = Spent(pushed=len(claims))
            await _record_pushed(turn, claims)
            return None
        failures = [_failure(claims[r.index], r) for r in _first_by_index(result.refused) if r.index is not None]
        if not failures:
            return result.refused[0]
        # None of the batch was written. Who is not named is due still, and goes out with the next call.
        spent = Spent(refused=len(failures))
        await _record_failures(turn, failures)
        if any(refusal.kind is RefusalKind.WRONG_TYPE for refusal in result.refused):
            await _forget_definition(turn)
    except Throttled as error:
        turn.budget.throttled(error.cost, error.retry_after_s, reservation=reservation)
        turn.detail = error.detail
        spent, points = Spent(throttled=1), 0.0
    except ShopRefused as error:
        points = 0.0
        raise ShopStops(error.reason, error.detail) from error
    except QueryRefused as error:
        cost = error.cost
        if error.shopify_code in PAUSING_CODES:
            raise ShopStops(error.code, error.detail) from error
        return Refusal(None, RefusalKind.OTHER, error.shopify_code or error.code, error.detail)
    except (Unreachable, OutcomeUnknown) as error:
        turn.troubles += 1
        turn.detail = error.detail
        unknown = isinstance(error, OutcomeUnknown)
        spent, points = Spent(unknown=int(unknown)), points if unknown else 0.0
        await _record_failures(
            turn, [Failure(c, error.code, error.detail, in_doubt=unknown, is_trouble=True) for c in claims]
        )
    finally:
        turn.budget.settle(reservation, cost)
        await rows.record_spent(turn.db, turn.shop.id, spent, charged(cost, points), turn.budget.snapshot())
    return None


async def _record_pushed(turn: Turn, claims: Sequence[Claim]) -> None:
    await rows.record_pushed(turn.db, turn.lease, claims)
    turn.pushed += len(claims)
    turn.tried(claims)
    if turn.shop.status == "paused":
        async with turn.db.unscoped() as conn:
            await registry.resume_shop(conn, turn.shop.id, by_itself=True)


async def _record_failures(turn: Turn, failures: Sequence[Failure]) -> None:
    await rows.record_failures(turn.db, turn.lease, failures)
    turn.refused += len(failures)
    turn.tried([failure.claim for failure in failures])


async def _forget_definition(turn: Turn) -> None:
    # Somebody made a definition of another type since ours was ensured: the next turn looks, and says so.
    async with turn.db.unscoped() as conn:
        await registry.remember_definition(conn, turn.shop.id, None)


def _first_by_index(refusals: Sequence[Refusal]) -> list[Refusal]:
    """One refusal a customer, the first: Shopify may name the same entry for several reasons."""
    return list({refusal.index: refusal for refusal in reversed(refusals)}.values())


def _failure(claim: Claim, refusal: Refusal) -> Failure:
    if refusal.kind is RefusalKind.OWNER_GONE:
        return Failure(claim, "customer_missing", "Shopify has no such customer: deleted, or never there.", gone=True)
    return Failure(claim, refusal.code or "refused", refusal.message)


def charged(cost: Cost | None, estimate: float) -> float:
    """What the call cost, in points: what its answer said, else the estimate."""
    told = None if cost is None else cost.charged
    return estimate if told is None else told
