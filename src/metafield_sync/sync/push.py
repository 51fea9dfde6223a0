"""One batch to Shopify: sent, and what came of it recorded for each of its customers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metafield_sync.shopify import (
    MetafieldWrite,
    OutcomeUnknown,
    QueryRefused,
    Refusal,
    RefusalKind,
    Throttled,
    Unreachable,
    set_cost,
    set_metafields,
)
from metafield_sync.shops import registry
from metafield_sync.sync import doubt, outcomes
from metafield_sync.sync.activity import Spent
from metafield_sync.sync.claims import Batch, Claim, claim_stale
from metafield_sync.sync.lease import LeaseEnding, LeaseLost
from metafield_sync.sync.outcomes import Failure
from metafield_sync.sync.turn import ShopStops, paid_call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metafield_sync.shopify import SetResult
    from metafield_sync.sync.turn import Turn


async def push_batch(turn: Turn, batch: Batch) -> None:
    """Send one batch and record what came of it. A batch refused without saying whom it means is halved.

    Raises:
        ShopStops: Shopify refuses the shop, not a customer.
        LeaseLost: another process has taken over.
    """
    refused = await _send(turn, batch)
    if refused is None:
        return
    half = len(batch.claims) // 2
    if half == 0:
        await _record_failures(turn, batch, [failure_of(batch.claims[0], refused)])
        return
    await doubt.forget_call(turn.db, turn.lease, batch)
    for part in (batch.claims[:half], batch.claims[half:]):
        async with turn.db.shop(turn.shop.id) as conn:
            # With their balances and versions of now: what was claimed a call ago may be old.
            fresh = await claim_stale(conn, turn.lease, limit=len(part), only=[claim.customer_id for claim in part])
        if fresh is not None:
            await push_batch(turn, fresh)


async def _send(turn: Turn, batch: Batch) -> Refusal | None:
    """One call. Returns the refusal when Shopify refuses the batch without naming whom it means."""
    try:
        return await _call(turn, batch)
    except (Throttled, ShopStops, LeaseEnding) as error:
        # Nothing was executed, or nothing was sent.
        await doubt.forget_call(turn.db, turn.lease, batch)
        if isinstance(error, Throttled):
            return None
        raise
    except LeaseLost:
        # What has left may be applied at any time, after what the lease's new holder writes too.
        await doubt.record_doubt(turn.db, turn.lease, batch)
        raise


async def _call(turn: Turn, batch: Batch) -> Refusal | None:
    try:
        async with paid_call(turn, set_cost(len(batch.claims))) as call:
            writes = [MetafieldWrite(c.shopify_customer_id, c.balance, c.digest) for c in batch.claims]
            result = await set_metafields(turn.client, turn.access, turn.metafield, writes)
            call.cost = result.cost
            refused = sum(refusal.kind is not RefusalKind.CONFLICT for refusal in _named(result).values())
            call.spent = Spent(pushed=len(writes)) if result.written else Spent(refused=refused)
            return await _record(turn, batch, result)
    except QueryRefused as error:
        return Refusal(None, RefusalKind.OTHER, error.shopify_code or error.code, error.detail)
    except (Unreachable, OutcomeUnknown) as error:
        unknown = isinstance(error, OutcomeUnknown)
        await _record_failures(
            turn,
            batch,
            [Failure(c, error.code, error.detail, in_doubt=unknown, is_trouble=True) for c in batch.claims],
        )
        return None


async def _record(turn: Turn, batch: Batch, result: SetResult) -> Refusal | None:
    if result.written:
        await outcomes.record_pushed(turn.db, turn.lease, batch, result.digests)
        turn.pushed += len(batch.claims)
        turn.tried(claim.customer_id for claim in batch.claims)
        await turn.resume_shop()
        return None
    named = _named(result)
    if not named:
        return result.refused[0]
    # None of the batch was written. Who is not named is due still, and goes out with the next call.
    await _record_failures(turn, batch, [failure_of(batch.claims[index], refusal) for index, refusal in named.items()])
    if any(refusal.kind is RefusalKind.WRONG_TYPE for refusal in result.refused):
        # Somebody made a definition of another type since ours was ensured: the next turn looks, and says so.
        async with turn.db.unscoped() as conn:
            await registry.remember_definition(conn, turn.shop.id, None)
    return None


async def _record_failures(turn: Turn, batch: Batch, failures: Sequence[Failure]) -> None:
    failed = {failure.claim.customer_id for failure in failures}
    # Where one customer turns out to have a value that we knew nothing of (an earlier app's, say), those of whom we
    # know as little are read before they are written: one call, instead of a refused one for each of them.
    suspicious = any(failure.conflict and failure.claim.digest is None for failure in failures)
    unread = [c.customer_id for c in batch.claims if suspicious and c.digest is None and c.customer_id not in failed]
    await outcomes.record_failures(turn.db, turn.lease, batch, failures, unread=sorted(unread))
    turn.refused += sum(not failure.conflict for failure in failures)
    turn.tried(failure.claim.customer_id for failure in failures if failure.is_tried)


def _named(result: SetResult) -> dict[int, Refusal]:
    """One refusal for each place in the batch that is named, the first: the same may be named for several reasons."""
    return {r.index: r for r in reversed(result.refused) if r.index is not None}


def failure_of(claim: Claim, refusal: Refusal) -> Failure:
    """What a refusal means for the customer it names."""
    if refusal.kind is RefusalKind.OWNER_GONE:
        return Failure(claim, outcomes.GONE_CODE, outcomes.GONE_ERROR, gone=True)
    if refusal.kind is RefusalKind.CONFLICT:
        message = f"Shopify held another value than believed ({refusal.message}); it is read back and written again."
        return Failure(claim, refusal.code or "conflict", message, conflict=True)
    return Failure(claim, refusal.code or "refused", refusal.message)
