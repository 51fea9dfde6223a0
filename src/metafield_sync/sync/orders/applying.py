"""What came about an order, from whichever side: is it news, and what follows from it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from metafield_sync.customers.identity import ShopifyCustomerId, is_redacted
from metafield_sync.sync.errands import note_errand
from metafield_sync.sync.orders import store
from metafield_sync.sync.orders.earnings import forget_orders
from metafield_sync.sync.orders.reading import digest
from metafield_sync.sync.orders.settling import ORDER_ERRAND, settle

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId
    from metafield_sync.rewards.order import OrderFacts, RefundFacts
    from metafield_sync.sync.orders.reading import Snapshot
    from metafield_sync.sync.orders.store import KnownOrder

ORDER_AWAITED_S = 600
"""How long an order may take to come after a refund of it, before it is fetched."""

Verdict = Literal["newer", "older", "same", "unclear"]


async def apply_order(
    conn: AsyncConnection, shop_id: ShopId, snapshot: Snapshot, *, read_at: datetime | None = None
) -> str:
    """Take an order's state if it is news, post what follows, and say in words what came of it.

    In one transaction of the shop, which holds the order's lock from here on. It may be called in any order, and again.

    Args:
        conn: in that transaction.
        shop_id: whose.
        snapshot: the state that came.
        read_at: when it was asked of Shopify, by the database's clock from before the call; None: it was delivered.
    """
    known = await store.lock_order(conn, shop_id, snapshot.order_id)
    if known.is_forgotten:
        return f"order {snapshot.order_id} is redacted: nothing changes"
    if snapshot.customer_id is not None and await is_redacted(conn, shop_id, ShopifyCustomerId(snapshot.customer_id)):
        await forget_orders(conn, shop_id, [snapshot.order_id])
        return f"order {snapshot.order_id}: its customer is redacted, and so it is"
    verdict = _judge(known, snapshot, read_at)
    if verdict == "older":
        return f"order {snapshot.order_id}: older than what is known"
    if verdict == "unclear":
        await _ask(conn, shop_id, snapshot.order_id)
        return f"order {snapshot.order_id}: two states of one second; Shopify is asked"
    if verdict == "same" and read_at is None:
        return f"order {snapshot.order_id}: nothing new"
    if verdict == "newer":
        before = known.updated_at
        known = await store.take_state(conn, shop_id, snapshot, read_at)
        if read_at is None and await _leaves_out_a_refund(conn, shop_id, snapshot, before):
            await _ask(conn, shop_id, snapshot.order_id)
    elif read_at is not None:
        await store.note_read(conn, shop_id, snapshot.order_id, read_at)
    return await settle(conn, shop_id, known, tags=snapshot.customer_tags)


def _judge(known: KnownOrder, snapshot: Snapshot, read_at: datetime | None) -> Verdict:
    """Which of the two states of an order is the later one. Shopify's `updated_at` counts whole seconds."""
    if known.updated_at is None or known.known_since is None or snapshot.updated_at > known.updated_at:
        return "newer"
    if snapshot.updated_at < known.updated_at:
        return "older"
    if known.facts_digest == digest(snapshot):
        return "same"
    # What Shopify answers is later than whatever we had learnt before we asked.
    if read_at is not None and known.known_since < read_at:
        return "newer"
    return _direction(known.facts, snapshot.facts)


def _direction(known: OrderFacts | None, told: OrderFacts) -> Verdict:
    """Which of two states of one second is the later one, by what is never undone: refunds, and a cancellation."""
    if known is None:
        return "unclear"
    had, has = ({one.refund_id for one in facts.refunds} for facts in (known, told))
    goes_on = (told.is_cancelled and not known.is_cancelled) or not has <= had
    goes_back = (known.is_cancelled and not told.is_cancelled) or not had <= has
    if goes_on == goes_back:
        return "unclear"
    return "newer" if goes_on else "older"


async def _leaves_out_a_refund(
    conn: AsyncConnection, shop_id: ShopId, snapshot: Snapshot, before: datetime | None
) -> bool:
    """Whether a state just taken should contain a refund that came alone, and does not.

    Each refund is asked about once, at the first state that is not older than it; `before`: when the last one was.
    """
    for refund in await store.lone_refunds(conn, shop_id, snapshot.order_id):
        made = refund.created_at
        if made is None and before is None:
            return True
        if made is not None and made <= snapshot.updated_at and (before is None or before <= made):
            return True
    return False


async def apply_refund(conn: AsyncConnection, shop_id: ShopId, order_id: int, refund: RefundFacts) -> str:
    """Take a refund that came by itself off what its order is worth, unless the order's state contains it or is later.

    One whose order is not known is kept until that comes, or is fetched. In one transaction, as `apply_order`.
    """
    known = await store.lock_order(conn, shop_id, order_id)
    if known.is_forgotten:
        return f"order {order_id} is redacted: nothing changes"
    facts = known.facts
    if facts is not None and any(one.refund_id == refund.refund_id for one in facts.refunds):
        return f"order {order_id}: contains the refund already"
    is_new = await store.add_refund(conn, shop_id, order_id, refund)
    if facts is None or known.updated_at is None:
        if is_new:
            await _ask(conn, shop_id, order_id, after_s=ORDER_AWAITED_S)
        return f"order {order_id} has not come yet: the refund waits for it"
    if not is_new:
        return f"order {order_id}: nothing new"
    if refund.created_at is None or refund.created_at <= known.updated_at:
        # The order's state should contain it, and does not: one second, two changes, or a state that is believed.
        await _ask(conn, shop_id, order_id)
    return await settle(conn, shop_id, known)


async def _ask(conn: AsyncConnection, shop_id: ShopId, order_id: int, *, after_s: float = 0) -> None:
    await store.want_reading(conn, shop_id, order_id)
    await note_errand(conn, shop_id, ORDER_ERRAND, str(order_id), after_s=after_s)
