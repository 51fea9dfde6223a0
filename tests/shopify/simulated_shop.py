"""A model of Shopify's bucket and of a client on a slow line, in simulated time, without any `Budget`."""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from metafield_sync.shopify import Cost

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from metafield_sync.shopify import Budget, Reservation

RECHECK_MIN_S = 0.001
CALLS_MAX = 10_000


@dataclass(slots=True)
class ModelBucket:
    """Filled at `rate` up to `size`; told the time with each use, which never runs backwards."""

    size: float
    rate: float
    points: float
    at: float = 0.0

    def fill(self, now: float) -> None:
        self.points = min(self.size, self.points + (now - self.at) * self.rate)
        self.at = now

    def execute(self, requested: float, actual: float, now: float) -> bool:
        self.fill(now)
        if requested > self.points:
            return False
        self.points -= actual
        return True

    def drain(self, points: float, now: float) -> None:
        self.fill(now)
        self.points = max(0.0, self.points - points)


@dataclass(frozen=True, slots=True)
class Trip:
    """One call: seconds until it is executed, seconds until its answer is back, and what it costs.

    It is not wanted earlier than `pause_s` after the one before it was sent.
    """

    there_s: float
    back_s: float
    requested: float = 35
    actual: float = 35
    pause_s: float = 0


@dataclass(slots=True)
class Sent:
    """What became of a call. `known_until` is when the newest knowledge held at sending was true."""

    trip: Trip
    reservation: Reservation
    sent_at: float
    known_until: float
    executed_at: float = math.nan
    throttled: bool = False
    reported: int = 0


@dataclass(slots=True)
class Simulation:
    """A client that has `lanes` calls in flight at most, always has another to send, and asks `budget` first.

    `spends` are the times and points of somebody else on the same bucket. `now` is the budget's clock.
    """

    bucket: ModelBucket
    trips: Iterator[Trip]
    lanes: int
    spends: Sequence[tuple[float, float]] = ()
    throttled_says_cost: bool = True
    now: float = 0.0
    calls: list[Sent] = field(default_factory=list[Sent])

    def clock(self) -> float:
        return self.now

    def run(self, budget: Budget, *, until: float, calls_max: int = CALLS_MAX) -> list[Sent]:
        order = itertools.count()
        queue: list[tuple[float, int, str, Sent | float]] = [(0.0, next(order), "wake", 0.0)]
        queue += [(at, next(order), "spend", points) for at, points in self.spends]
        heapq.heapify(queue)
        upcoming = next(self.trips)
        in_flight, known_until, wake_at, wanted_at = 0, -math.inf, 0.0, 0.0
        while queue and queue[0][0] <= until and len(self.calls) < calls_max:
            self.now, _, kind, what = heapq.heappop(queue)
            if not isinstance(what, Sent):
                if kind == "spend":
                    self.bucket.drain(what, self.now)
                elif self.now != wake_at:
                    continue
            elif kind == "execute":
                self._execute(what)
                heapq.heappush(queue, (self.now + what.trip.back_s, next(order), "answer", what))
            else:
                in_flight -= 1
                known_until = max(known_until, self._answer(budget, what))
            while kind != "spend" and in_flight < self.lanes:
                wait_s = max(budget.wait_s(upcoming.requested), wanted_at - self.now)
                if wait_s > 0:
                    # Only the last alarm that was set counts; those before it are slept through.
                    wake_at = self.now + max(wait_s, RECHECK_MIN_S)
                    heapq.heappush(queue, (wake_at, next(order), "wake", 0.0))
                    break
                sent = Sent(upcoming, budget.reserve(upcoming.requested), self.now, known_until)
                self.calls.append(sent)
                heapq.heappush(queue, (self.now + upcoming.there_s, next(order), "execute", sent))
                upcoming = next(self.trips)
                wanted_at = self.now + upcoming.pause_s
                in_flight += 1
        return self.calls

    def _execute(self, sent: Sent) -> None:
        sent.executed_at = self.now
        sent.throttled = not self.bucket.execute(sent.trip.requested, sent.trip.actual, self.now)
        sent.reported = math.ceil(self.bucket.points)

    def _answer(self, budget: Budget, sent: Sent) -> float:
        cost = Cost(
            requested=sent.trip.requested,
            actual=None if sent.throttled else sent.trip.actual,
            maximum_available=self.bucket.size,
            currently_available=sent.reported,
            restore_rate=self.bucket.rate,
        )
        if not sent.throttled:
            budget.settle(sent.reservation, cost)
            return sent.executed_at
        told = cost if self.throttled_says_cost else None
        budget.throttled(told, None, reservation=sent.reservation)
        return sent.executed_at if self.throttled_says_cost else -math.inf
