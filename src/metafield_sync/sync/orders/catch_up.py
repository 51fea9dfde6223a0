"""The errand `catch_up`: read what has changed among a shop's orders, so that a webhook that never came is made up for.

Orders are read in the order of their changes, a page at a time, and each page is kept track of, so that a reading
survives the end of a turn or of the process. A finished one begins anew some minutes later, a little before where it
ended: Shopify's index of orders may lag behind them.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from metafield_sync.shopify import QueryRefused
from metafield_sync.shopify.orders import changed_at
from metafield_sync.sync.errands import ErrandKind, note_errand
from metafield_sync.sync.orders import store
from metafield_sync.sync.orders.catch_up_state import (
    CATCH_UP,
    begin_catch_up,
    forget_place,
    get_reading,
    note_page,
    note_trouble,
)
from metafield_sync.sync.orders.fetching import NOT_ALLOWED_AGAIN_S, OrdersNotAllowed, apply_page, ask
from metafield_sync.sync.orders.settling import ORDER_ERRAND

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from metafield_sync.shopify.orders import OrdersPage
    from metafield_sync.sync.orders.catch_up_state import Reading
    from metafield_sync.sync.turn import Turn

__all__ = ["CATCH_UP_ERRANDS", "begin_catch_up", "catch_up"]

CATCH_UP_EVERY_S = 600.0
CATCH_UP_OVERLAP_S = 900
"""How far back of where it ended the next reading begins. What is read twice changes nothing."""
CATCH_UP_PAGES_MAX = 20
"""Pages a turn, of ORDERS_MAX orders each; then others have the shop's lease, and the reading goes on."""


async def catch_up(turn: Turn, _: Sequence[str]) -> Mapping[str, float]:
    """Read pages until all that changed is known or the turn is over; returns when to go on."""
    shop_id = turn.shop.id
    for _page in range(CATCH_UP_PAGES_MAX):
        async with turn.db.shop(shop_id) as conn:
            reading = await get_reading(conn, shop_id)
            if reading is None:
                await begin_catch_up(conn, shop_id)
                return {"": 0.0}
        since = reading.since or reading.read_until - timedelta(seconds=CATCH_UP_OVERLAP_S)
        try:
            page = await ask(turn, lambda reader, at=since, on=reading.cursor: reader.since(at, on))
        except OrdersNotAllowed as refused:
            async with turn.db.shop(shop_id) as conn:
                await note_trouble(conn, shop_id, refused.detail)
            return {"": NOT_ALLOWED_AGAIN_S}
        except QueryRefused:
            if reading.cursor is not None:
                # A place in the list may not be good for ever; the next try begins this reading anew.
                async with turn.db.shop(shop_id) as conn:
                    await forget_place(conn, shop_id)
            raise
        await apply_page(turn.db, shop_id, page.orders, reading.now)
        await _note(turn, reading, since, page)
        if page.cursor is None:
            return {"": CATCH_UP_EVERY_S}
        if time.monotonic() >= turn.deadline:
            break
    return {"": 0.0}


CATCH_UP_ERRANDS = ErrandKind(name=CATCH_UP, batch_max=1, run=catch_up)


async def _note(turn: Turn, reading: Reading, since: datetime, page: OrdersPage) -> None:
    """Keep track of the page once its orders are applied; what changed under the reading is fetched by itself."""
    shop_id = turn.shop.id
    changes = [at for order in page.orders if (at := changed_at(order)) is not None]
    latest = max([*changes, reading.latest or reading.read_until])
    async with turn.db.shop(shop_id) as conn:
        for order_id in page.changed:
            await store.lock_order(conn, shop_id, order_id)
            await store.want_reading(conn, shop_id, order_id)
            await note_errand(conn, shop_id, ORDER_ERRAND, str(order_id))
        await note_page(conn, shop_id, reading.read_until, since=since, cursor=page.cursor, latest=latest)
