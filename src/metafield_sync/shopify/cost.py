"""What a call cost, as Shopify tells it in `extensions.cost`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from metafield_sync.shopify.shapes import mapping, number


@dataclass(frozen=True, slots=True)
class Cost:
    """The points of one call and the shop's bucket right after it; None is what the answer left out.

    All in points, `restore_rate` in points a second. Shopify sends whole numbers and floats alike. One bucket
    belongs to an app on a shop, whatever the token; its size and rate depend on the shop's plan and are read,
    never assumed (https://shopify.dev/docs/api/usage/limits).
    """

    requested: float | None = None
    """What the document was rated at before it ran; this much had to be in the bucket."""
    actual: float | None = None
    """What it really cost; the difference is paid back. None if nothing was executed."""
    maximum_available: float | None = None
    currently_available: float | None = None
    restore_rate: float | None = None

    @property
    def charged(self) -> float | None:
        """What the bucket is down by: the actual cost, or the requested one where the actual was left out."""
        return self.requested if self.actual is None else self.actual


def read_cost(document: dict[str, Any]) -> Cost | None:
    """Find the cost in a GraphQL answer `{"extensions":{"cost":{…}}}`; None if it names none.

    A THROTTLED answer is documented to carry it, and was recorded without.
    """
    cost = mapping((mapping(document.get("extensions")) or {}).get("cost"))
    if cost is None:
        return None
    bucket = mapping(cost.get("throttleStatus")) or {}
    return Cost(
        requested=number(cost.get("requestedQueryCost")),
        actual=number(cost.get("actualQueryCost")),
        maximum_available=number(bucket.get("maximumAvailable")),
        currently_available=number(bucket.get("currentlyAvailable")),
        restore_rate=number(bucket.get("restoreRate")),
    )


def add_costs(first: Cost | None, second: Cost | None) -> Cost | None:
    """The cost of two calls, one after the other: points added up, the bucket as the second one left it."""
    if first is None or second is None:
        return second or first
    return Cost(
        requested=_plus(first.requested, second.requested),
        actual=_plus(first.charged, second.charged),
        maximum_available=second.maximum_available,
        currently_available=second.currently_available,
        restore_rate=second.restore_rate,
    )


def _plus(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second
