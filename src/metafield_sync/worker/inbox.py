"""The inbox: webhooks that were recorded, handled for every shop that has some."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from metafield_sync.db.database import ShopId
from metafield_sync.sync.inbox.handling import handle_due
from metafield_sync.worker.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metafield_sync.db.database import Database
    from metafield_sync.sync.inbox.handling import Handler

INBOX_POLL_S = 0.25
"""How soon a webhook is noticed: one indexed question to the database, four times a second."""
INBOX_SHOPS_MAX = 2
"""Shops whose webhooks one worker handles at a time. It uses so many times a shop's database connections, and drains
need some too."""
INBOX_TURN_S = 5.0
"""After so long a shop makes room for another."""


async def handle_inbox_forever(db: Database, handlers: Mapping[str, Handler]) -> None:
    """Handle whatever is due, wherever, until cancelled; what was not begun then is due as it was."""

    async def find() -> list[ShopId]:
        async with db.unscoped() as conn, conn.cursor() as cur:
            await cur.execute(SHOPS_WITH_INBOX)
            return [ShopId(row[0]) for row in await cur.fetchall()]

    async def work(shop_id: ShopId) -> float:
        began = time.monotonic()
        while (await handle_due(db, shop_id, handlers)).claimed and time.monotonic() - began < INBOX_TURN_S:
            pass
        return 0

    await Rounds("inbox", find, work, INBOX_POLL_S, INBOX_SHOPS_MAX, INBOX_SHOPS_MAX).go_on()


SHOPS_WITH_INBOX = "select shops_with_inbox()"
