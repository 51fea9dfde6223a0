"""Time is passed in: the bucket, the timestamps and the call log never ask the machine themselves."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Clock:
    """Two ways to tell the time.

    Attributes:
        monotonic: seconds from an arbitrary start, never running backwards (buckets, call log).
        wall: seconds since 1970-01-01 UTC (createdAt, updatedAt).
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


SYSTEM_CLOCK = Clock()


def timestamp(seconds: int) -> str:
    """A moment as the API prints it: RFC 3339, UTC, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@dataclass(slots=True)
class ManualClock:
    """A clock that stands still until told otherwise, so that a test of the bucket needs no sleep."""

    monotonic_s: float = 1_000.0
    wall_s: float = 1_767_225_600.0
    clock: Clock = field(init=False)

    def __post_init__(self) -> None:
        """Hand out a `Clock` that reads this object."""
        self.clock = Clock(monotonic=lambda: self.monotonic_s, wall=lambda: self.wall_s)

    def advance(self, seconds: float) -> None:
        """Let both kinds of time pass by `seconds`."""
        self.monotonic_s += seconds
        self.wall_s += seconds
