"""Merging customers: the points move by an entry on either side, and all that comes later is the survivor's.

A webhook only says that somebody merged; its payload does not cover who sent it, and which word it has for success is
not documented. So Shopify is asked first, by an errand: the deleted one has to be gone, and the kept one there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from metafield_sync.customers import merges
from metafield_sync.customers.identity import ShopifyCustomerId
from metafield_sync.db.database import again_after_deadlock
from metafield_sync.errors import AppError
from metafield_sync.ledger.posting import Posting, PostingRefused, post_within
from metafield_sync.ledger.statements import statement_page
from metafield_sync.sync.errands import ErrandKind, note_errand
from metafield_sync.sync.orders.earnings import move_earnings
from metafield_sync.sync.people import mirrors
from metafield_sync.sync.people.redaction import redact_customer
from metafield_sync.sync.readback import read_shown

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from uuid import UUID

    from psycopg import AsyncConnection

    from metafield_sync.customers.merges import Merge
    from metafield_sync.db.database import ShopId
    from metafield_sync.sync.turn import Turn

MERGE_ACTOR = "merges"
"""How the ledger names who moves the points of merged customers."""
MERGE_REASON = "merge"
MERGE_ERRAND = "merge"
MERGES_A_TURN_MAX = 25
"""Both customers of each are asked for: 50, in one call of 101 points."""

log = structlog.get_logger()


class MergeNotConfirmed(AppError):
    """Shopify does not show two customers as one that were said to be merged."""

    code = "merge_not_confirmed"
    status = 409


async def note_merge(conn: AsyncConnection, shop_id: ShopId, *, kept: int, deleted: int) -> None:
    """Have Shopify asked whether these two were merged, and the merge carried out if so."""
    await note_errand(conn, shop_id, MERGE_ERRAND, f"{kept}/{deleted}")


async def merge_customers(
    conn: AsyncConnection, shop_id: ShopId, *, kept_shopify_id: int, deleted_shopify_id: int
) -> str:
    """Let one customer have what two had, and say in words what came of it. Again it changes nothing.

    The loser's balance, negative or not, is posted away from them and to the survivor; their histories stay apart and
    readable. What orders gave the loser counts as the survivor's, and the survivor is pushed even if the balance is
    the same: Shopify keeps one of the two metafields. One who is merged into somebody redacted is the same person, and
    redacted too.

    Args:
        conn: in a transaction of the shop, to be run by `again_after_deadlock`.
        shop_id: whose customers.
        kept_shopify_id: whom Shopify has kept; may itself have been merged since.
        deleted_shopify_id: whom it has deleted.

    Raises:
        PostingRefused: the survivor's balance would leave what Shopify can show.
    """
    kept, deleted = ShopifyCustomerId(kept_shopify_id), ShopifyCustomerId(deleted_shopify_id)
    merge = await merges.begin_merge(conn, shop_id, kept=kept, deleted=deleted)
    match merge.verdict:
        case "repeated":
            return f"customer {deleted} was merged into {kept} before"
        case "elsewhere" | "circle":
            log.warning("merge ignored", shop_id=shop_id, kept=kept, deleted=deleted, why=merge.verdict)
            other = "another customer" if merge.verdict == "elsewhere" else "each other already"
            return f"customers {deleted} and {kept} were merged into {other}: ignored"
        case "deleted_redacted":
            return "the deleted customer was redacted: nothing to merge"
        case "kept_redacted":
            await redact_customer(conn, shop_id, deleted)
            return "the kept customer was redacted: so is the deleted one"
        case "ready":
            return await _carry_out(conn, shop_id, merge, f"customer {deleted} merged into {kept}")


async def _carry_out(conn: AsyncConnection, shop_id: ShopId, merge: Merge, what: str) -> str:
    assert merge.loser is not None  # noqa: S101 - it is ready
    assert merge.survivor is not None  # noqa: S101 - it is ready
    balance = await _move_balance(conn, shop_id, merge.loser, merge.survivor)
    orders = await move_earnings(conn, shop_id, merge.loser, merge.survivor)
    await merges.mark_merged(conn, shop_id, merge)
    await mirrors.lock_mirrors(conn, shop_id, [merge.loser, merge.survivor])
    await mirrors.turn_off(conn, shop_id, [merge.loser], "merged")
    await mirrors.push_again(conn, shop_id, merge.survivor)
    return f"{what}: {balance:+d} points, of {orders} orders" if orders else f"{what}: {balance:+d} points"


async def _move_balance(conn: AsyncConnection, shop_id: ShopId, loser: UUID, survivor: UUID) -> int:
    last = await statement_page(conn, shop_id, loser, before_sequence=None, limit=1)
    balance = last[0].balance_after if last else 0
    if balance == 0:
        return 0
    # The keys name our ids, not Shopify's: entries are for ever, and must not tell who somebody was.
    outcomes = await post_within(
        conn,
        shop_id,
        MERGE_ACTOR,
        [
            Posting(
                customer_id=loser,
                amount=-balance,
                reason=MERGE_REASON,
                external_id=f"merge/into/{survivor}",
                allow_negative=True,
            ),
            Posting(
                customer_id=survivor,
                amount=balance,
                reason=MERGE_REASON,
                external_id=f"merge/from/{loser}",
                allow_negative=True,
            ),
        ],
    )
    for outcome in outcomes:
        if isinstance(outcome, PostingRefused):
            raise outcome
        if not outcome.is_new:
            raise RuntimeError(f"the key {outcome.entry.external_id} of a merge was used before")
    return balance


async def run_merges(turn: Turn, subjects: Sequence[str]) -> Mapping[str, float]:
    """Ask Shopify for the customers of some merges, and carry out those that it confirms. The errand `merge`.

    Raises:
        MergeNotConfirmed: it does not confirm all of them; they are asked about again, ever later.
    """
    pairs = [tuple(int(number) for number in subject.split("/")) for subject in subjects]
    shown = await read_shown(turn, sorted({number for pair in pairs for number in pair}))
    doubted: list[str] = []
    for kept, deleted in pairs:
        if not await _is_confirmed(turn, kept, deleted, shown):
            doubted.append(f"{deleted} into {kept}")
            continue
        outcome = await again_after_deadlock(lambda kept=kept, deleted=deleted: _merge(turn, kept, deleted))
        log.info("merge", shop=turn.shop.domain, outcome=outcome)
    if doubted:
        raise MergeNotConfirmed(
            f"Shopify was said to have merged customer {', '.join(doubted)}, but does not show it: the first should be "
            "gone, the second there. It is asked again."
        )
    return {}


MERGE_ERRANDS = ErrandKind(MERGE_ERRAND, batch_max=MERGES_A_TURN_MAX, run=run_merges)


async def _is_confirmed(turn: Turn, kept: int, deleted: int, shown: Collection[int]) -> bool:
    """Whether the deleted one is gone and the kept one there, or known to have been merged into another since."""
    if deleted in shown:
        return False
    if kept in shown:
        return True
    async with turn.db.shop(turn.shop.id) as conn:
        return await merges.is_merged(conn, turn.shop.id, ShopifyCustomerId(kept))


async def _merge(turn: Turn, kept: int, deleted: int) -> str:
    async with turn.db.shop(turn.shop.id) as conn:
        return await merge_customers(conn, turn.shop.id, kept_shopify_id=kept, deleted_shopify_id=deleted)
