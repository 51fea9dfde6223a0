"""Runs asked for at a terminal: in every shop at once, their progress shown, their results in hand at the end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from metafield_sync.cli.output import progress
from metafield_sync.errors import AppError
from metafield_sync.sync.standing import shop_standing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from metafield_sync.runtime import Runtime
    from metafield_sync.shops.registry import Shop
    from metafield_sync.sync.runs import Kind, Run, Trigger

PROGRESS_POLL_S = 0.2
PROGRESS_LOAD = 10
"""Looking how far a run is takes at most a tenth of the time: counting a million customers is work."""

Asked = tuple["Shop", "UUID"]


class RunFailed(AppError):
    """A run ended without a result."""

    code = "run_failed"


async def run_all(
    runtime: Runtime,
    shops: Sequence[Shop],
    *,
    kind: Kind,
    trigger: Trigger,
    forced: bool = False,
    plain_lines: bool = False,
) -> list[dict[str, Any]]:
    """Sync or verify every shop at once, showing progress, and return each one's result.

    Raises:
        RunFailed: a run ended without one.
    """
    asked = [(one, await runtime.runs.request(one.id, kind=kind, trigger=trigger, forced=forced)) for one in shops]
    with progress("Customers in step", plain_lines=plain_lines) as tell:
        runs = await _see_through(runtime, asked, lambda: _in_step(runtime, shops, tell))
    return [result_of(one, run) for one, run in zip(shops, runs, strict=True)]


async def reconcile_all(runtime: Runtime, shops: Sequence[Shop], *, repair: bool) -> list[Run]:
    """Reconcile every shop at once, showing progress; each one's run, done or failed."""
    asked = [(one, await runtime.runs.request(one.id, kind="reconcile", trigger="cli", repair=repair)) for one in shops]
    with progress("Customers read back, then repaired" if repair else "Customers read back") as tell:
        return await _see_through(runtime, asked, lambda: _read_back(runtime, asked, tell))


def result_of(shop: Shop, run: Run) -> dict[str, Any]:
    """What a run came to.

    Raises:
        RunFailed: nothing.
    """
    if run.result is None:
        reason = str(run.error).removeprefix(f"{shop.domain}: ").rstrip(".")
        raise RunFailed(f"{shop.domain}: the run ended early: {reason}. Start it again.")
    return run.result


async def _see_through(runtime: Runtime, asked: Sequence[Asked], tell: Callable[[], Any]) -> list[Run]:
    watch = asyncio.create_task(_watch(tell))
    try:
        for one, run_id in asked:
            while (await runtime.runs.wait(one.id, run_id, wait_s=PROGRESS_POLL_S)).finished_at is None:
                pass
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
    await tell()
    return [await runtime.runs.find(one.id, run_id) for one, run_id in asked]


async def _watch(tell: Callable[[], Any]) -> None:
    while True:
        began = time.monotonic()
        await tell()
        await asyncio.sleep(max(PROGRESS_POLL_S, PROGRESS_LOAD * (time.monotonic() - began)))


async def _in_step(runtime: Runtime, shops: Sequence[Shop], tell: Callable[[int, int], None]) -> None:
    done = total = 0
    for one in shops:
        async with runtime.db.shop(one.id) as conn:
            standing = await shop_standing(conn, one.id)
        total += standing["customers"]
        done += standing["customers"] - sum(standing[n] for n in ("waiting", "failing", "in_doubt", "missing"))
    tell(done, total)


async def _read_back(runtime: Runtime, asked: Sequence[Asked], tell: Callable[[int, int], None]) -> None:
    runs = [await runtime.runs.find(one.id, run_id) for one, run_id in asked]
    tell(sum(run.progress_done for run in runs), sum(run.progress_total for run in runs))
