"""Things that are sent when their time comes, some again: what webhooks and Flow runs have in common."""

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from devstore.clock import Clock

# How soon it is noticed that the shop's clock has moved on. It may be moved by hand, so nothing can wait for it.
_TICK_S = 0.01

T = TypeVar("T")


@dataclass(slots=True)
class Outbox(Generic[T]):
    """Sends items in the background of the running loop.

    Attributes:
        clock: what `after_s` is measured by.
        send: sends one item; says in how many seconds it is to be sent again, or None.
        at_once_max: how many are on their way at once.
        paused: while it is true nothing is sent; call `look` after a change.
        shuffle: draw the next one at random from those that are due, instead of the oldest.
    """

    clock: Clock
    send: Callable[[T], Awaitable[float | None]]
    at_once_max: int
    paused: bool = False
    shuffle: random.Random | None = None
    _due: list[T] = field(default_factory=list[T])
    _later: list[tuple[float, int, T]] = field(default_factory=list[tuple[float, int, T]])
    _held: set[asyncio.TimerHandle] = field(default_factory=set[asyncio.TimerHandle])
    _running: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _ticker: asyncio.TimerHandle | None = None
    _settled: asyncio.Event = field(default_factory=asyncio.Event)
    _puts: int = 0

    def put(self, item: T, *, after_s: float = 0, hold_s: float = 0) -> None:
        """Have an item sent: `after_s` from now by the shop's clock, or after `hold_s` on the wire."""
        if hold_s > 0:
            self._hold(item, hold_s)
        elif after_s > 0:
            self._puts += 1
            heapq.heappush(self._later, (self.clock.monotonic() + after_s, self._puts, item))
        else:
            self._due.append(item)
        self.look()

    def retry_now(self) -> int:
        """Have everything that waits for a later time sent now; how many that were."""
        moved = [item for _, _, item in sorted(self._later)]
        self._later.clear()
        self._due += moved
        self.look()
        return len(moved)

    @property
    def waiting(self) -> int:
        """How many wait for a later time."""
        return len(self._later)

    @property
    def pending(self) -> int:
        """How many are on their way, or could be."""
        return len(self._due) + len(self._running) + len(self._held)

    async def settle(self) -> None:
        """Wait until nothing is on its way or due; for ever if it is paused. What waits for later does not count."""
        # The shop's clock may have moved since the last look.
        self.look()
        while self.pending:
            self._settled.clear()
            await self._settled.wait()

    async def close(self) -> None:
        """Stop everything where it stands."""
        for timer in (*self._held, *filter(None, (self._ticker,))):
            timer.cancel()
        for waiting in (self._due, self._later, self._held):
            waiting.clear()
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def look(self) -> None:
        """Send what may be sent now, and look again in time."""
        now_s = self.clock.monotonic()
        while self._later and self._later[0][0] <= now_s:
            self._due.append(heapq.heappop(self._later)[2])
        while self._due and len(self._running) < self.at_once_max and not self.paused:
            chosen = self.shuffle.randrange(len(self._due)) if self.shuffle else 0
            self._running.add(asyncio.get_running_loop().create_task(self._send(self._due.pop(chosen))))
        if self._later and self._ticker is None:
            self._ticker = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        if not self.pending:
            self._settled.set()

    def _tick(self) -> None:
        self._ticker = None
        self.look()

    def _hold(self, item: T, hold_s: float) -> None:
        def release() -> None:
            self._held.discard(timer)
            self._due.append(item)
            self.look()

        timer = asyncio.get_running_loop().call_later(hold_s, release)
        self._held.add(timer)

    async def _send(self, item: T) -> None:
        again_s: float | None = None
        try:
            again_s = await self.send(item)
        finally:
            self._running.discard(asyncio.current_task())  # pyright: ignore[reportArgumentType]  # this is a task
            if again_s is not None:
                self.put(item, after_s=again_s)
            self.look()
