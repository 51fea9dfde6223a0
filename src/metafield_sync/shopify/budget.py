"""One shop's API budget, kept locally, so that a call waits before it would be throttled instead of after.

Shopify gives each app on each shop a leaky bucket of points: a call runs only if its rated cost is in the
bucket, and the bucket refills at a constant rate up to its size. Size and rate depend on the plan and are
told with each answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from metafield_sync.shopify.cost import Cost

SAFETY_MARGIN_POINTS = 2.0
"""Left in the bucket by every call. `currentlyAvailable` is a whole number, so it may be rounded up by almost
one point, and our clock may run ahead of Shopify's by a few milliseconds, worth another. It delays a call
once by 20 ms at 100 points a second and costs no throughput: the bucket refills all the same."""
ASSUMED_MAXIMUM_POINTS = 100.0
"""The bucket of a shop we have not heard from: room for two full writes, so that the first goes out at
once."""
ASSUMED_RESTORE_POINTS_PER_S = 50.0
"""Until the first answer: half of what the smallest plan restores."""
BACKOFF_MIN_S = 1.0
"""Shopify's recommended pause after a throttled call that says nothing about the bucket."""
BACKOFF_MAX_S = 30.0
"""Where the doubling of that pause ends."""
BACKOFF_JITTER_RATIO = 0.25
"""By up to this share a pause is lengthened, so that processes throttled together do not come back
together."""
WAKE_INTERVAL_MIN_S = 0.001
"""The shortest sleep of a waiting `acquire`: a remainder of nanoseconds must not spin."""

_ROUNDING_POINTS = 1e-6
"""Sums of floats: a bucket that lacks less than this is full enough."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """The points debited for one call; for `Budget.settle` when the call is over, however it ended."""

    number: int
    points: float


@dataclass(frozen=True, slots=True)
class BudgetSnapshot:
    """What the budget believes now, in points; `known` is False until an answer has told size and rate."""

    available: float
    maximum: float
    restore_rate: float
    in_flight: int
    known: bool


@dataclass(slots=True)
class _Flight:
    """A call on its way. `beside` is how many points were in flight at some time during its own flight."""

    points: float
    beside: float


class Budget:
    """One shop's bucket: `acquire` before each call, `settle` after it, `throttled` when Shopify says so.

    Meant for the one process that talks to the shop, on one event loop (not thread-safe). What others spend
    of the same bucket is seen in the answers.

    The rule behind it. Let *E* be what is really in the bucket minus all calls that are sent and not executed
    yet. The local estimate never exceeds *E* as long as nobody else spends: both fall by a call's cost when
    it is sent; both rise at the restore rate; the estimate is capped at the size minus what is in flight,
    which *E* is too. So a call that waits for the estimate is never throttled, however long the answers take
    and in whatever order they come.

    An answer's `currentlyAvailable` was true when its call was executed; calls beside it may have been
    counted in it, or not. While any was in flight at any time during its own flight, it therefore only lowers
    the estimate (somebody else spent something); the answer of a call that flew alone is taken as it is.

    `clock` gives seconds and never runs backwards; `jitter` gives a number from 0 to 1.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._known = False
        self._maximum = ASSUMED_MAXIMUM_POINTS
        self._rate = ASSUMED_RESTORE_POINTS_PER_S
        self._level = ASSUMED_MAXIMUM_POINTS
        self._level_at = clock()
        self._blocked_until = self._level_at
        self._backoff_s = BACKOFF_MIN_S
        self._flights: dict[int, _Flight] = {}
        self._last_number = 0
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    def inherit(self, *, available: float, maximum: float, restore_rate: float, age_s: float) -> None:
        """Take over what another process knew of the bucket `age_s` ago, because it has spent from it since we did.

        Whatever was believed here is given up, but for what is in flight. ValueError unless size and rate are positive.
        """
        _require_positive(maximum)
        _require_positive(restore_rate)
        self._accrue()
        self._maximum, self._rate = maximum, restore_rate
        restored = max(0.0, age_s) * restore_rate
        self._level = min(available + restored, maximum) - self._in_flight_points()
        self._known = True
        self._changed.set()

    async def acquire(self, points: float) -> Reservation:
        """Wait until a call of that cost may leave, then debit it. First come, first served.

        The one in front also holds back cheaper calls behind it; otherwise a stream of small calls would
        starve a large one. Raises ValueError unless `points` is positive.
        """
        async with self._turn:
            while (wait_s := self.wait_s(points)) > 0:
                self._changed.clear()
                try:
                    async with asyncio.timeout(max(wait_s, WAKE_INTERVAL_MIN_S)):
                        await self._changed.wait()
                except TimeoutError:
                    continue
            return self.reserve(points)

    def wait_s(self, points: float) -> float:
        """How many seconds until a call of that cost may leave; 0 is now.

        Raises ValueError unless `points` is positive.

        An estimate where calls in flight keep the bucket from filling: ask again when it has passed, or when
        a call was settled. A call rated above the bucket's size waits for a full bucket, and for Shopify to
        refuse it by name.
        """
        _require_positive(points)
        now = self._accrue()
        need = min(points + SAFETY_MARGIN_POINTS, self._maximum)
        lacking = need - self._level
        refill_s = lacking / self._rate if lacking > _ROUNDING_POINTS else 0.0
        return max(refill_s, self._blocked_until - now, 0.0)

    def reserve(self, points: float) -> Reservation:
        """Debit a call that is sent now, whatever `wait_s` says; ValueError unless `points` is positive."""
        _require_positive(points)
        self._accrue()
        beside = self._in_flight_points()
        for flight in self._flights.values():
            flight.beside += points
        self._last_number += 1
        self._flights[self._last_number] = _Flight(points=points, beside=beside)
        self._level -= points
        return Reservation(number=self._last_number, points=points)

    def settle(self, reservation: Reservation, cost: Cost | None) -> None:
        """Take note that a call is over. `cost` is what its answer said, None if there was none to read.

        Without a cost the debit stands: a call whose outcome is unknown may have been executed. Settling a
        second time changes nothing, so it can stand in a `finally`.
        """
        self._accrue()
        flight = self._flights.pop(reservation.number, None)
        if flight is None:
            return
        self._changed.set()
        if cost is None:
            return
        charged = cost.charged
        if charged is not None:
            self._level += flight.points - charged
        self._backoff_s = BACKOFF_MIN_S
        self._learn(cost)
        if cost.currently_available is None:
            return
        self._observe(cost.currently_available, beside=flight.beside, first=not self._known)
        self._known = True

    def throttled(
        self, cost: Cost | None, retry_after_s: float | None, *, reservation: Reservation | None = None
    ) -> None:
        """Take note that Shopify refused a call for lack of points; nothing was executed.

        With `reservation` the call is settled as well and its debit given back; else `settle` it with None,
        which leaves the estimate lower than need be by that call. With a `cost` the bucket is known again,
        and the next call waits until the refused one would have passed. Without one, or when the answer
        contradicts itself, the pause is `BACKOFF_MIN_S` or `retry_after_s`, whichever is longer, doubled each
        time in a row, plus jitter.
        """
        now = self._accrue()
        if reservation is not None:
            flight = self._flights.pop(reservation.number, None)
            self._level += flight.points if flight is not None else 0.0
        pause_s = 0.0
        available = None if cost is None else cost.currently_available
        if cost is not None and available is not None:
            self._learn(cost)
            self._known = True
            pause_s = ((cost.requested or 0.0) + SAFETY_MARGIN_POINTS - available) / self._rate
        self._level = min(self._level, (available or 0.0) - self._in_flight_points())
        if pause_s <= 0:
            pause_s = self._backoff_s * (1 + BACKOFF_JITTER_RATIO * self._jitter())
            self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)
        self._blocked_until = max(self._blocked_until, now + max(pause_s, retry_after_s or 0.0))
        self._changed.set()

    def snapshot(self) -> BudgetSnapshot:
        """What is believed now, for a status page and for choosing how full a batch should get."""
        self._accrue()
        return BudgetSnapshot(
            available=self._level,
            maximum=self._maximum,
            restore_rate=self._rate,
            in_flight=len(self._flights),
            known=self._known,
        )

    def _accrue(self) -> float:
        """Add what was restored since the last look, and return the time."""
        now = self._clock()
        restored = (now - self._level_at) * self._rate
        self._level_at = now
        # What is in flight may not have been taken out of the real bucket yet, and that one cannot fill
        # beyond its size.
        self._level = min(self._level + restored, self._maximum - self._in_flight_points())
        return now

    def _learn(self, cost: Cost) -> None:
        """Size and rate as the answer has them: a shop's plan may change at any time."""
        if cost.maximum_available is not None and cost.maximum_available > 0:
            self._maximum = cost.maximum_available
        if cost.restore_rate is not None and cost.restore_rate > 0:
            self._rate = cost.restore_rate

    def _observe(self, available: float, *, beside: float, first: bool) -> None:
        in_flight = self._in_flight_points()
        if first:
            # There is no estimate to hold on to, only an assumption: believe the answer as far as it is safe.
            self._level = available - max(beside, in_flight)
        elif beside:
            self._level = min(self._level, available - in_flight)
        else:
            self._level = available

    def _in_flight_points(self) -> float:
        return sum(flight.points for flight in self._flights.values())


def _require_positive(points: float) -> None:
    if not points > 0:
        raise ValueError(f"a call costs more than 0 points, not {points}")
