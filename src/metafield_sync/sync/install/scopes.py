"""What the app must be allowed to do in a shop, and what does not work while it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

WANTED_SCOPES = {
    "read_customers": "customers are not read, so nothing is mirrored",
    "write_customers": "no balance is written, so nothing is mirrored",
    "read_orders": "orders earn nothing unless their webhook comes, and what was missed is not caught up with",
    "read_customer_merge": "merged customers keep their points apart",
    "write_app_proxy": "the storefront has no live balance through the app proxy",
}
"""Each scope in Shopify's words, and what does not work without it."""
REQUIRED_SCOPES = frozenset({"read_customers", "write_customers"})
"""Without these there is no mirror; without the others it works as ever."""


@dataclass(frozen=True, slots=True)
class MissingScope:
    """One scope that the shop has not granted; `consequence` says what does not work."""

    name: str
    consequence: str

    @property
    def is_required(self) -> bool:
        """Whether the mirror itself needs it."""
        return self.name in REQUIRED_SCOPES


def missing_scopes(granted: Iterable[str] | None) -> list[MissingScope]:
    """The scopes that are wanted and not granted; none while it is not known what is (None).

    Who may write may read: Shopify names only the former of the two, or both.
    """
    if granted is None:
        return []
    given = set(granted)
    given |= {f"read_{scope.removeprefix('write_')}" for scope in given if scope.startswith("write_")}
    return [MissingScope(name, lost) for name, lost in WANTED_SCOPES.items() if name not in given]


def describe_missing(missing: Iterable[MissingScope]) -> str:
    """The missing scopes by name, each with what does not work, as one line; empty if there are none."""
    return "; ".join(f"{scope.name}: {scope.consequence}" for scope in missing)
