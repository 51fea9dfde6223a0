"""The worker's loops, each supervised: one that fails is logged, waited for, and begun again."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import structlog

from metafield_sync.db.database import ShopId

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from metafield_sync.sync.drain import Mirror
    from metafield_sync.sync.runs import Runs

WORK_POLL_S = 0.2
"""How soon a posting is noticed: one indexed question to the database, five times a second."""
ORPHANED_RUNS_POLL_S = 5.0
LOOP_PAUSE_FIRST_S = 1.0
LOOP_PAUSE_LAST_S = 60.0
"""A loop that fails, and a shop whose API does not answer, is left alone for 1 s, then 2 s … at last a minute."""

log = structlog.get_logger()


async def work(mirror: Mirror, runs: Runs) -> None:
    """Drain whatever is due, in as many shops at once as have something due, until cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_supervised("drains", lambda: _drain_forever(mirror)))
        group.create_task(resume_runs(runs))


async def resume_runs(runs: Runs) -> None:
    """Take up runs whose process died, until cancelled. A web process without a worker beside it does this too."""
    await _supervised("orphaned runs", lambda: _resume_forever(runs))


async def _resume_forever(runs: Runs) -> None:
    while True:
        await runs.resume_orphans()
        await asyncio.sleep(ORPHANED_RUNS_POLL_S)


async def _supervised(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    failures = 0
    while True:
        began = time.monotonic()
        try:
            await loop()
        except Exception as error:
            # Whatever it was, stopping for good would be worse: balances would go stale in silence.
            failures = 0 if time.monotonic() - began > LOOP_PAUSE_LAST_S else failures
            pause_s = pause_after(failures)
            failures += 1
            log.exception("loop failed", loop=name, error=str(error), again_in_s=round(pause_s, 1))
            await asyncio.sleep(pause_s)


async def _drain_forever(mirror: Mirror) -> None:
    draining: dict[ShopId, asyncio.Task[None]] = {}
    troubles: dict[ShopId, int] = {}
    try:
        while True:
            async with mirror.db.unscoped() as conn, conn.cursor() as cur:
                await cur.execute("select shops_with_work()")
                due = [ShopId(row[0]) for row in await cur.fetchall()]
            for shop_id in due:
                if shop_id not in draining:
                    task = asyncio.create_task(_drain_shop(mirror, shop_id, troubles))
                    draining[shop_id] = task
                    task.add_done_callback(lambda _, shop_id=shop_id: draining.pop(shop_id, None))
            await asyncio.sleep(WORK_POLL_S)
    finally:
        tasks = list(draining.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _drain_shop(mirror: Mirror, shop_id: ShopId, troubles: dict[ShopId, int]) -> None:
    """One turn for one shop. After trouble the shop is left alone for a while, longer each time."""
    try:
        report = await mirror.drain(shop_id)
    except Exception as error:
        log.exception("drain failed", shop_id=shop_id, error=str(error))
        failed = True
    else:
        failed = report.end == "trouble"
        if failed:
            log.warning("Shopify does not answer", shop_id=shop_id, detail=report.detail)
        elif report.pushed or report.refused:
            log.info("pushed", shop_id=shop_id, customers=report.pushed, refused=report.refused, calls=report.calls)
    if not failed:
        troubles.pop(shop_id, None)
        return
    troubles[shop_id] = troubles.get(shop_id, 0) + 1
    await asyncio.sleep(pause_after(troubles[shop_id] - 1))


def pause_after(failures: int) -> float:
    """Seconds to wait after so many failures before this one, lengthened by up to a quarter by chance."""
    pause_s = min(LOOP_PAUSE_FIRST_S * 2 ** min(failures, 10), LOOP_PAUSE_LAST_S)
    return pause_s * random.uniform(1, 1.25)  # noqa: S311 - spreads load, guards no secret
