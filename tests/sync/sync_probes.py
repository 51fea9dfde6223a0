"""Looks behind the door for the mirror's tests: at a customer's row on our side, at what is written on Shopify's."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from devstore.set_metafields import MetafieldSetter, SetResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devstore.set_metafields import Owners

LEFT_OUT = "left out"


@dataclass(frozen=True)
class MirrorState:
    """A few columns of a customer's row. `waits`: there is some time until the next push."""

    digest: str | None
    in_doubt: bool
    conflicted: bool
    check_at: datetime | None
    doubt_since: datetime | None
    doubtful_balances: list[int] | None
    attempts: int
    stale_since: datetime | None
    failing_since: datetime | None
    waits: bool

    @property
    def owes_no_check(self) -> bool:
        """Nothing is in doubt, nothing is to be read back, and what had been in doubt is forgotten."""
        return (self.in_doubt, self.check_at, self.doubt_since, self.doubtful_balances) == (False, None, None, None)

    @property
    def check_after_s(self) -> int:
        """How long after the last write without a known outcome the next reading is to be, in whole seconds."""
        assert self.check_at is not None
        assert self.doubt_since is not None
        return round((self.check_at - self.doubt_since).total_seconds())


@dataclass(frozen=True)
class Listener(MetafieldSetter):
    """Shopify's `metafieldsSet`, with somebody at the door.

    `names_one_at_a_time`: of several errors only the first is told; what is recorded of live stores does not say which
    of the two Shopify does. `digests`: for each execution the `compareDigest` of each customer, by Shopify id; LEFT_OUT
    where there is none. `before`: what happens right before the next executions, one each.
    """

    names_one_at_a_time: bool = False
    digests: list[dict[int, object]] = field(default_factory=list[dict[int, object]])
    before: deque[Callable[[], object]] = field(default_factory=deque[Callable[[], object]])

    def run(self, entries: Sequence[Mapping[str, object]], owners: Owners, now_s: int) -> SetResult:
        if self.before:
            self.before.popleft()()
        self.digests.append(
            {int(str(entry["ownerId"]).rpartition("/")[2]): entry.get("compareDigest", LEFT_OUT) for entry in entries}
        )
        result = super().run(entries, owners, now_s)
        return SetResult(result.metafields, result.errors[:1]) if self.names_one_at_a_time else result
