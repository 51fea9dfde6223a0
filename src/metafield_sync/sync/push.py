"""One batch to Shopify: sent, and what came of it recorded for each of its customers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from metafield_sync.shopify import (
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
from metafield_sync.sync.rows import Claim, Failure, Spent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from metafield_sync.db.database import Database
    from metafield_sync.shopify import AdminClient, Budget, Cost
    from metafield_sync.shops.registry import Shop
    from metafield_sync.sync.lease import FencingToken

PAUSING_CODES = frozenset({"ACCESS_DENIED", "MAX_COST_EXCEEDED"})
"""Top-level errors that concern the app's rights or this very call's size, not a customer."""


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
    token: FencingToken
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
    await push_batch(turn, claims[:half])
    await push_batch(turn, claims[half:])


async def _send(turn: Turn, claims: Sequence[Claim]) -> Refusal | None:
    """One call. Returns the refusal when Shopify refuses the batch without naming whom it means."""
    turn.calls += 1
    # The drain has seen to it that a full call fits; only the halves of a refused batch may have to wait here.
    reservation = await turn.budget.acquire(set_cost(len(claims)))
    cost: Cost | None = None
    spent = Spent()
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
        spent = Spent(throttled=1)
    except ShopRefused as error:
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
        spent = Spent(unknown=int(unknown))
        await _record_failures(turn, [Failure(c, error.code, error.detail, in_doubt=unknown) for c in claims])
    finally:
        turn.budget.settle(reservation, cost)
        await rows.record_spent(turn.db, turn.shop.id, spent, charged(cost), turn.budget.snapshot())
    return None


async def _record_pushed(turn: Turn, claims: Sequence[Claim]) -> None:
    await rows.record_pushed(turn.db, turn.shop.id, turn.token, claims)
    turn.pushed += len(claims)
    turn.tried(claims)
    if turn.shop.status == "paused":
        async with turn.db.unscoped() as conn:
            await registry.resume_shop(conn, turn.shop.id, by_itself=True)


async def _record_failures(turn: Turn, failures: Sequence[Failure]) -> None:
    await rows.record_failures(turn.db, turn.shop.id, turn.token, failures)
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


def charged(cost: Cost | None) -> float:
    """What the call is known to have cost, in points."""
    return 0.0 if cost is None else cost.charged or 0.0
