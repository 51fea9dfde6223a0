"""Drains: shops with something to push are found by asking, and drained, a bounded number at a time.

They are no jobs. A shop with work is one indexed probe away, five times a second, while a job a turn would be five
rows written for nothing; and it takes no LISTEN, so it works through any pooler.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import structlog

from metafield_sync.db.database import ShopId
from metafield_sync.worker.supervision import by_chance, pause_after

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
    await _Drains(mirror).forever()


class _Drains:
    """The shops this worker drains now, and those it leaves alone for a while."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._at_work: dict[ShopId, asyncio.Task[None]] = {}
        self._resting: dict[ShopId, float] = {}
        """Until when, on the monotonic clock."""
        self._troubles: dict[ShopId, int] = {}

    async def forever(self) -> None:
        try:
            while True:
                room = min(DRAINS_MAX - len(self._at_work), DRAINS_BEGUN_MAX)
                if room > 0:
                    await self._begin_some(room)
                await asyncio.sleep(by_chance(WORK_POLL_S * 0.75, WORK_POLL_S))
        finally:
            tasks = list(self._at_work.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin_some(self, room: int) -> None:
        async with self._mirror.db.unscoped() as conn, conn.cursor() as cur:
            await cur.execute(FREE_SHOPS_WITH_WORK)
            due = [ShopId(row[0]) for row in await cur.fetchall()]
        now = time.monotonic()
        self._resting = {shop_id: until for shop_id, until in self._resting.items() if until > now}
        free = [shop_id for shop_id in due if shop_id not in self._at_work and shop_id not in self._resting]
        for shop_id in random.sample(free, min(room, len(free))):
            task = asyncio.create_task(self._drain(shop_id), name=f"drain of shop {shop_id}")
            self._at_work[shop_id] = task
            task.add_done_callback(lambda _, shop_id=shop_id: self._at_work.pop(shop_id, None))

    async def _drain(self, shop_id: ShopId) -> None:
        """One turn for one shop. After trouble the shop is left alone for a while, longer each time."""
        try:
            report = await self._mirror.drain(shop_id)
        except Exception as error:
            log.exception("drain failed", shop_id=shop_id, error=str(error))
            self._rest_after_trouble(shop_id)
            return
        if report.end == "trouble":
            log.warning("Shopify does not answer", shop_id=shop_id, detail=report.detail)
            self._rest_after_trouble(shop_id)
            return
        self._troubles.pop(shop_id, None)
        if report.end == "busy":
            self._resting[shop_id] = time.monotonic() + by_chance(*BUSY_PAUSE_S)
        elif report.pushed or report.refused:
            log.info("pushed", shop_id=shop_id, customers=report.pushed, refused=report.refused, calls=report.calls)

    def _rest_after_trouble(self, shop_id: ShopId) -> None:
        failures = self._troubles.get(shop_id, 0)
        self._troubles[shop_id] = failures + 1
        self._resting[shop_id] = time.monotonic() + pause_after(failures)


FREE_SHOPS_WITH_WORK = "select shops_with_work() except select shops_under_lease()"
