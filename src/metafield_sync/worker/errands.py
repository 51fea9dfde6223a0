"""Errands: what has to be asked of Shopify, gone on for every shop that has some."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metafield_sync.db.database import ShopId
from metafield_sync.sync.errand_rounds import go_on_errands
from metafield_sync.worker.rounds import Rounds, ShopTrouble
from metafield_sync.worker.supervision import by_chance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metafield_sync.sync.drain import Mirror
    from metafield_sync.sync.errands import ErrandKind

ERRANDS_POLL_S = 0.5
ERRAND_SHOPS_MAX = 8
"""Shops one worker goes on errands for at a time. Some of them wait for a drain to end its turn."""
BETWEEN_ROUNDS_S = (0.3, 0.6)
"""A shop is left alone for so long after each round: drains look for work five times a second, and get their turn."""


async def go_on_errands_forever(mirror: Mirror, kinds: Mapping[str, ErrandKind]) -> None:
    """Go on whatever is due, wherever, until cancelled; an errand that was not finished then is due as it was."""
    names = {"kinds": list(kinds), "even_if_held": [kind.name for kind in kinds.values() if kind.even_if_held]}

    async def find() -> list[ShopId]:
        async with mirror.db.unscoped() as conn, conn.cursor() as cur:
            await cur.execute(SHOPS_WITH_ERRANDS, names)
            return [ShopId(row[0]) for row in await cur.fetchall()]

    async def work(shop_id: ShopId) -> float:
        report = await go_on_errands(mirror, shop_id, kinds)
        if report.end in {"trouble", "paused"}:
            raise ShopTrouble(report.detail)
        return by_chance(*BETWEEN_ROUNDS_S)

    await Rounds("errands", find, work, ERRANDS_POLL_S, ERRAND_SHOPS_MAX, ERRAND_SHOPS_MAX).go_on()


SHOPS_WITH_ERRANDS = "select shops_with_errands(%(kinds)s, %(even_if_held)s)"
