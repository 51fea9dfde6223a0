"""Drains: shops with something to push are found by asking, and drained, a bounded number at a time.

They are no jobs. A shop with work is one indexed probe away, five times a second, while a job a turn would be five
rows written for nothing; and it takes no LISTEN, so it works through any pooler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from metafield_sync.db.database import ShopId
from metafield_sync.worker.rounds import Rounds, ShopTrouble
from metafield_sync.worker.supervision import by_chance

if TYPE_CHECKING:
    from metafield_sync.sync.drain import Mirror

WORK_POLL_S = 0.2
"""How soon a posting is noticed: one indexed question to the database, five times a second."""
DRAINS_MAX = 16
"""Shops one worker drains at a time. With its requests each takes a database connection now and then, no more."""
DRAINS_BEGUN_MAX = 4
"""Shops it begins with at one time of asking, so that a burst of work spreads over the workers there are."""
BUSY_PAUSE_S = (0.2, 1.0)
"""A shop that somebody else took in the same instant is left alone for so long: he has it for a while."""

log = structlog.get_logger()


async def drain_forever(mirror: Mirror) -> None:
    """Drain whatever is due, wherever, until cancelled. What has left for Shopify by then is waited for."""

    async def find() -> list[ShopId]:
        async with mirror.db.unscoped() as conn, conn.cursor() as cur:
            await cur.execute(FREE_SHOPS_WITH_WORK)
            return [ShopId(row[0]) for row in await cur.fetchall()]

    async def work(shop_id: ShopId) -> float:
        report = await mirror.drain(shop_id)
        if report.end == "trouble":
            raise ShopTrouble(report.detail)
        if report.end == "busy":
            return by_chance(*BUSY_PAUSE_S)
        if report.pushed or report.refused:
            log.info("pushed", shop_id=shop_id, customers=report.pushed, refused=report.refused, calls=report.calls)
        return 0

    await Rounds("drains", find, work, WORK_POLL_S, DRAINS_MAX, DRAINS_BEGUN_MAX).go_on()


FREE_SHOPS_WITH_WORK = "select shops_with_work() except select shops_under_lease()"
