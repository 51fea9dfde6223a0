"""The points an app may spend in a shop: a leaky bucket, one per app and shop.

The restore rates are Shopify's table. The bucket's size is not in that table; a recorded development store
had 2000 at 100 points a second, so 20 seconds' worth is assumed for every plan.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

QUERY_COST_MAX = 1_000
BUCKET_SECONDS = 20


class Plan(StrEnum):
    """A shop's plan, which decides how fast its bucket refills."""

    STANDARD = "standard"
    ADVANCED = "advanced"
    PLUS = "plus"
    ENTERPRISE = "enterprise"


RESTORE_RATE_POINTS_PER_S: dict[Plan, float] = {
    Plan.STANDARD: 100.0,
    Plan.ADVANCED: 200.0,
    Plan.PLUS: 1_000.0,
    Plan.ENTERPRISE: 2_000.0,
}


@dataclass(frozen=True, slots=True)
class ThrottleStatus:
    """The bucket as an answer shows it: points, and points a second."""

    maximum_available: float
    currently_available: int
    restore_rate: float

    def as_json(self) -> dict[str, float]:
        """The `throttleStatus` object, spelled as Shopify spells it."""
        return {
            "maximumAvailable": self.maximum_available,
            "currentlyAvailable": self.currently_available,
            "restoreRate": self.restore_rate,
        }


class Budget:
    """A leaky bucket in points.

    `take` succeeds only if the whole cost is there; `give_back` returns what an execution did not use. The
    level is computed from the clock when asked, so that nothing has to run in the background.
    """

    def __init__(self, plan: Plan, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._plan = plan
        self._level = self.maximum
        self._read_at_s = monotonic()
        self.spent_points = 0

    @property
    def plan(self) -> Plan:
        """The plan the bucket is cut for."""
        return self._plan

    @property
    def rate(self) -> float:
        """Points that come back each second."""
        return RESTORE_RATE_POINTS_PER_S[self._plan]

    @property
    def maximum(self) -> float:
        """Points a full bucket holds."""
        return self.rate * BUCKET_SECONDS

    def change_plan(self, plan: Plan) -> None:
        """Switch to another plan; what is in the bucket stays, up to the new size."""
        self._refill()
        self._plan = plan
        self._level = min(self._level, self.maximum)

    def fill(self) -> None:
        """Make the bucket full, as after a long silence."""
        self._level, self._read_at_s = self.maximum, self._monotonic()

    def take(self, points: int) -> bool:
        """Spend `points` if they are all there; False, and nothing spent, if not."""
        self._refill()
        if points > self._level:
            return False
        self._level -= points
        self.spent_points += points
        return True

    def spend_elsewhere(self, points: float) -> None:
        """Let another client of the same app spend `points`; the bucket stops at empty."""
        self._refill()
        self._level = max(0.0, self._level - points)

    def give_back(self, points: int) -> None:
        """Return points that were requested and not used."""
        self._refill()
        self._level = min(self.maximum, self._level + points)
        self.spent_points -= points

    def status(self) -> ThrottleStatus:
        """What is in the bucket now, rounded down to whole points as Shopify prints it."""
        self._refill()
        return ThrottleStatus(self.maximum, int(self._level), self.rate)

    def _refill(self) -> None:
        now_s = self._monotonic()
        self._level = min(self.maximum, self._level + (now_s - self._read_at_s) * self.rate)
        self._read_at_s = now_s
