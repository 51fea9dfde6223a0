"""Loops that must not end: one that fails is logged, waited for, and begun again."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LOOP_PAUSE_FIRST_S = 1.0
LOOP_PAUSE_LAST_S = 60.0
"""A loop that fails, and a shop whose API does not answer, is left alone for 1 s, then 2 s … at last a minute."""

log = structlog.get_logger()


async def supervised(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop until cancelled, and again whenever it fails."""
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


def pause_after(failures: int) -> float:
    """Seconds to wait after so many failures before this one, lengthened by up to a quarter by chance."""
    pause_s = min(LOOP_PAUSE_FIRST_S * 2 ** min(failures, 10), LOOP_PAUSE_LAST_S)
    return by_chance(pause_s, pause_s * 1.25)


def by_chance(shortest_s: float, longest_s: float) -> float:
    """A wait between the two, so that processes begun at once do not act at once for ever."""
    return random.uniform(shortest_s, longest_s)  # noqa: S311 - spreads load, guards no secret
