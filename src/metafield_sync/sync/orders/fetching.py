"""The errand `order`: read orders from the Admin API whose state, as it was delivered, leaves something open."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import structlog

from metafield_sync.db.database import again_after_deadlock
from metafield_sync.shopify import QueryRefused
from metafield_sync.shopify.orders import ORDERS_COST, ORDERS_MAX, OrderReader
from metafield_sync.sync.errands import ErrandKind
from metafield_sync.sync.orders import store
from metafield_sync.sync.orders.applying import apply_order
from metafield_sync.sync.orders.catch_up_state import note_trouble
from metafield_sync.sync.orders.reading import OrderUnreadable, read_order
from metafield_sync.sync.orders.settling import ORDER_ERRAND
from metafield_sync.sync.turn import paid_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from psycopg import AsyncConnection

    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.shopify.orders import Order, OrdersPage
    from metafield_sync.sync.turn import Turn

NOT_ALLOWED_AGAIN_S = 3_600.0
"""How long to wait before orders are asked for again that the app may not read: somebody has to grant a scope first."""
CHANGED_AGAIN_S = 1.0
"""How soon an order is read again that changed while it was being read."""
ACCESS_DENIED = "ACCESS_DENIED"

log = structlog.get_logger()


class OrdersNotAllowed(Exception):
    """The app may not read this shop's orders. Its balances are pushed all the same, so this pauses nothing."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


async def fetch_orders(turn: Turn, subjects: Sequence[str]) -> Mapping[str, float]:
    """Read these orders, apply them, and return those to be read again, with when."""
    shop_id = turn.shop.id
    wanted = [int(subject) for subject in subjects]
    async with turn.db.shop(shop_id) as conn:
        read_at, open_ids = await _still_open(conn, shop_id, wanted)
    if not open_ids:
        return {}
    try:
        page = await ask(turn, lambda reader: reader.by_id(open_ids))
    except OrdersNotAllowed as refused:
        async with turn.db.shop(shop_id) as conn:
            await note_trouble(conn, shop_id, refused.detail)
        return {str(order_id): NOT_ALLOWED_AGAIN_S for order_id in open_ids}
    await apply_page(turn.db, shop_id, page.orders, read_at)
    gone = set(open_ids) - {order["id"] for order in page.orders} - set(page.changed)
    if gone:
        log.warning("orders cannot be read: deleted, or older than the scope reaches", count=len(gone))
        async with turn.db.shop(shop_id) as conn:
            for order_id in sorted(gone):
                await store.note_read(conn, shop_id, order_id, read_at)
    return {str(order_id): CHANGED_AGAIN_S for order_id in page.changed}


ORDER_ERRANDS = ErrandKind(name=ORDER_ERRAND, batch_max=ORDERS_MAX, run=fetch_orders)


async def ask(turn: Turn, read: Callable[[OrderReader], Awaitable[OrdersPage]]) -> OrdersPage:
    """Make one reading call, paid from the shop's budget.

    Raises:
        OrdersNotAllowed: a scope is missing; the detail names it.
        ShopifyError: the call failed otherwise.
    """
    reader = OrderReader(turn.client, turn.access)
    async with paid_call(turn, ORDERS_COST) as call:
        try:
            return await read(reader)
        except QueryRefused as error:
            # Dealt with in here: outside, a denied access pauses the shop, and its balances need no orders.
            if error.shopify_code != ACCESS_DENIED:
                raise
            call.cost = error.cost
            scope = error.missing_scope or "read_orders"
            refused = OrdersNotAllowed(
                f"Orders cannot be read: the app lacks the scope {scope}. Grant it, by updating the app or its token; "
                f"until then points come from webhooks alone. ({error.detail})"
            )
        finally:
            call.cost = reader.cost or call.cost
    raise refused


async def apply_page(db: Database, shop_id: ShopId, orders: Sequence[Order], read_at: datetime) -> None:
    """Apply orders that were read, each in a transaction of its own."""
    for order in orders:
        await again_after_deadlock(lambda order=order: _apply(db, shop_id, order, read_at))


async def _apply(db: Database, shop_id: ShopId, order: Order, read_at: datetime) -> None:
    try:
        snapshot = read_order(order)
    except OrderUnreadable as error:
        # One that makes no sense keeps no others waiting; it comes again with the next change of it.
        log.error("an order cannot be read", order=order["id"], detail=error.detail)  # noqa: TRY400 - no traceback
        return
    async with db.shop(shop_id) as conn:
        outcome = await apply_order(conn, shop_id, snapshot, read_at=read_at)
    log.info("order read", shop_id=shop_id, outcome=outcome)


async def _still_open(conn: AsyncConnection, shop_id: ShopId, order_ids: Sequence[int]) -> tuple[datetime, list[int]]:
    """Which of these still have to be asked for, and what the time is by the database's clock."""
    async with conn.cursor() as cur:
        await cur.execute(STILL_OPEN, {"shop": shop_id, "orders": list(order_ids)})
        row = await cur.fetchone()
    assert row is not None, "an aggregate has one row"  # noqa: S101 - PostgreSQL's promise
    return row[0], row[1]


# One whose refund came first may have come by itself meanwhile.
STILL_OPEN = """
select clock_timestamp(), coalesce(array_agg(order_id order by order_id), '{}')
from orders
where shop_id = %(shop)s and order_id = any (%(orders)s) and read_wanted_at is not null
"""
