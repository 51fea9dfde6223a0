"""Work by the shop: those that have some are found by asking, and worked for, a bounded number at a time."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from metafield_sync.db.database import ShopId
from metafield_sync.worker.supervision import by_chance, pause_after

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

log = structlog.get_logger()


class ShopTrouble(Exception):
    """A round came to nothing, for a reason that is logged: the shop is left alone for a while, longer each time."""


@dataclass(slots=True)
class Rounds:
    """Rounds for shops, until cancelled; what is under way then is cancelled too, and waited for.

    Args:
        what: the work, in a word, for the log and the names of tasks.
        find: the shops that have some of it now.
        work: one round for one shop; how many seconds to leave it alone afterwards.
        poll_s: how often to ask, at most; up to a quarter sooner by chance.
        shops_max: how many shops to work for at a time.
        begun_max: how many to begin with at one time of asking, so that a burst spreads over the workers there are.
    """

    what: str
    find: Callable[[], Awaitable[Iterable[ShopId]]]
    work: Callable[[ShopId], Awaitable[float]]
    poll_s: float
    shops_max: int
    begun_max: int
    _at_work: dict[ShopId, asyncio.Task[None]] = field(default_factory=dict[ShopId, asyncio.Task[None]], init=False)
    _resting: dict[ShopId, float] = field(default_factory=dict[ShopId, float], init=False)
    """Until when, on the monotonic clock."""
    _troubles: dict[ShopId, int] = field(default_factory=dict[ShopId, int], init=False)

    async def go_on(self) -> None:
        """Ask, and work, until cancelled."""
        try:
            while True:
                room = min(self.shops_max - len(self._at_work), self.begun_max)
                if room > 0:
                    await self._begin_some(room)
                await asyncio.sleep(by_chance(self.poll_s * 0.75, self.poll_s))
        finally:
            tasks = list(self._at_work.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin_some(self, room: int) -> None:
        due = await self.find()
        now = time.monotonic()
        self._resting = {shop_id: until for shop_id, until in self._resting.items() if until > now}
        free = [shop_id for shop_id in due if shop_id not in self._at_work and shop_id not in self._resting]
        for shop_id in random.sample(free, min(room, len(free))):
            task = asyncio.create_task(self._round(shop_id), name=f"{self.what} of shop {shop_id}")
            self._at_work[shop_id] = task
            task.add_done_callback(lambda _, shop_id=shop_id: self._at_work.pop(shop_id, None))

    async def _round(self, shop_id: ShopId) -> None:
        try:
            rest_s = await self.work(shop_id)
        except ShopTrouble as trouble:
            log.warning("shop left alone for a while", work=self.what, shop_id=shop_id, detail=str(trouble))
        except Exception as error:
            log.exception("round failed", work=self.what, shop_id=shop_id, error=str(error))
        else:
            self._troubles.pop(shop_id, None)
            self._resting[shop_id] = time.monotonic() + rest_s
            return
        failures = self._troubles.get(shop_id, 0)
        self._troubles[shop_id] = failures + 1
        self._resting[shop_id] = time.monotonic() + pause_after(failures)
