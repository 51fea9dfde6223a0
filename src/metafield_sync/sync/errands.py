"""Errands: what has to be asked of Shopify because of something else, once, however often it was wished for.

Whoever handles a webhook may call nobody, so it notes an errand in the same transaction. A worker goes on it later: it
takes the shop's lease, which makes it the only one, asks Shopify, and records what it learnt.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId
    from metafield_sync.sync.drain import Mirror
    from metafield_sync.sync.turn import Turn


@dataclass(frozen=True, slots=True)
class ErrandKind:
    """A kind of errand, and how to go on several of them at once.

    `name` is what it is noted by. `batch_max`: how many subjects are handed over at a time. Either of the two functions
    is given:

    `run` holds the shop's lease: it asks Shopify by `paid_call(turn, …)`, a few calls at most, and records what it
    learns in transactions of its own. `run_without_turn` is for what spends none of the shop's API budget, such as a
    token.

    Both return {subject: seconds until it is to be done again} for those that go on: what is waited for, or recurs.
    Subjects they do not name are done. If they raise, all are tried again, ever later, an hour apart in the end.

    `even_if_held`: also for a shop that is paused, by staff, by Shopify or because it is being installed.
    """

    name: str
    batch_max: int
    run: Callable[[Turn, Sequence[str]], Awaitable[Mapping[str, float]]] | None = None
    run_without_turn: Callable[[Mirror, ShopId, Sequence[str]], Awaitable[Mapping[str, float]]] | None = None
    even_if_held: bool = False

    def __post_init__(self) -> None:
        if (self.run is None) == (self.run_without_turn is None):
            raise ValueError(f"errand kind {self.name!r} needs one of run and run_without_turn")


async def note_errand(
    conn: AsyncConnection, shop_id: ShopId, kind: str, subject: str = "", *, after_s: float = 0
) -> None:
    """Wish for an errand, in the caller's transaction.

    One that is noted already is not noted twice: the earlier time wins, and if somebody is on it right now it is done
    once more afterwards.

    Args:
        conn: in a transaction of the shop.
        shop_id: whose.
        kind: what to do, one of ERRAND_KINDS.
        subject: about whom or what, in the kind's own words; "" for the shop as a whole.
        after_s: not before so many seconds from now.
    """
    await conn.execute(NOTE_ERRAND, {"shop": shop_id, "kind": kind, "subject": subject, "after": after_s})


NOTE_ERRAND = """
insert into errands as e (shop_id, kind, subject, due_at)
values (%(shop)s, %(kind)s, %(subject)s, clock_timestamp() + make_interval(secs => %(after)s))
on conflict (shop_id, kind, subject) do update
set wish = e.wish + 1, due_at = least(e.due_at, excluded.due_at)
"""


async def hasten_errands(conn: AsyncConnection, shop_id: ShopId, kind: str) -> bool:
    """Have the errands of a kind that wait for something look again now; False: there are none."""
    async with conn.cursor() as cur:
        await cur.execute(HASTEN_ERRANDS, {"shop": shop_id, "kind": kind})
        return await cur.fetchone() is not None


HASTEN_ERRANDS = """
update errands
set wish = wish + 1, due_at = least(due_at, clock_timestamp())
where shop_id = %(shop)s and kind = %(kind)s
returning 1
"""
