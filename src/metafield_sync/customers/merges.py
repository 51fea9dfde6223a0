"""Merges: which customers have become one, and who that is. The points are moved by whoever calls this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from psycopg.rows import class_row

from metafield_sync.customers.identity import CustomerId, ShopifyCustomerId

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId

LOCK_TRIES_MAX = 10
"""So often the survivor may have been merged away while it was waited for."""

MergeVerdict = Literal["ready", "repeated", "elsewhere", "circle", "kept_redacted", "deleted_redacted"]


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge that was asked for, under the locks of all it concerns.

    `verdict`: `ready` to be carried out; `repeated` it was before; `elsewhere` the deleted one was merged into another;
    `circle` the kept one was merged into the deleted one, or is it; else who of them was redacted. `loser` and
    `survivor` are known unless one was redacted.
    """

    verdict: MergeVerdict
    loser: CustomerId | None = None
    survivor: CustomerId | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    id: UUID
    merged_into: UUID | None

    @property
    def survivor(self) -> UUID:
        return self.merged_into or self.id


async def begin_merge(
    conn: AsyncConnection, shop_id: ShopId, *, kept: ShopifyCustomerId, deleted: ShopifyCustomerId
) -> Merge:
    """Lock everybody a merge concerns, sorted by id as everywhere, and tell what is to be done.

    Customers we do not know are made, at 0: then whatever names the deleted one later is the survivor's. The kept one
    may itself have been merged since: then the survivor is whoever has its points.

    Args:
        conn: in a transaction of the shop.
        shop_id: whose customers.
        kept: Shopify's id of the one it has kept.
        deleted: Shopify's id of the one it has deleted.
    """
    await conn.execute(MAKE_BOTH, {"shop": shop_id, "shopify_ids": sorted({kept, deleted})})
    for _ in range(LOCK_TRIES_MAX):
        loser = await _find(conn, shop_id, deleted)
        if loser is None:
            return Merge("deleted_redacted")
        named = await _find(conn, shop_id, kept)
        if named is None:
            return Merge("kept_redacted")
        survivor = named.survivor
        await conn.execute(LOCK_CONCERNED, {"shop": shop_id, "loser": loser.id, "survivor": survivor})
        # What was read before the locks may have changed while they were waited for.
        if await _find(conn, shop_id, deleted) == loser and await _find(conn, shop_id, kept) == named:
            return Merge(_verdict(loser, survivor), CustomerId(loser.id), CustomerId(survivor))
    raise RuntimeError("the customers of a merge were merged with others again and again")


def _verdict(loser: _Row, survivor: UUID) -> MergeVerdict:
    if loser.id == survivor:
        return "circle"
    if loser.merged_into is None:
        return "ready"
    return "repeated" if loser.merged_into == survivor else "elsewhere"


async def _find(conn: AsyncConnection, shop_id: ShopId, shopify_customer_id: int) -> _Row | None:
    async with conn.cursor(row_factory=class_row(_Row)) as cur:
        await cur.execute(FIND_FOR_MERGE, {"shop": shop_id, "shopify": shopify_customer_id})
        return await cur.fetchone()


# Sorted, as postings make several. Nobody who was redacted is made: the table sees to it.
MAKE_BOTH = """
insert into customers (shop_id, shopify_customer_id)
select %(shop)s, t.id
from unnest(%(shopify_ids)s::bigint[]) as t (id)
where not exists (
  select from customers c where c.shop_id = %(shop)s and c.shopify_customer_id = t.id
)
order by t.id
on conflict (shop_id, shopify_customer_id) do nothing
"""

FIND_FOR_MERGE = """
select id, merged_into
from customers
where shop_id = %(shop)s and shopify_customer_id = %(shopify)s
"""

LOCK_CONCERNED = """
select 1
from customers
where shop_id = %(shop)s and (id in (%(loser)s, %(survivor)s) or merged_into = %(loser)s)
order by id
for no key update
"""


async def mark_merged(conn: AsyncConnection, shop_id: ShopId, merge: Merge) -> None:
    """Point the loser, and all who were merged into it before, to the survivor. In the transaction of `begin_merge`."""
    parameters = {"shop": shop_id, "loser": merge.loser, "survivor": merge.survivor}
    await conn.execute(MARK_MERGED, parameters)
    await conn.execute(MARK_SURVIVOR, parameters)


MARK_MERGED = """
update customers
set merged_into = %(survivor)s, merged_at = coalesce(merged_at, clock_timestamp())
where shop_id = %(shop)s and (id = %(loser)s or merged_into = %(loser)s)
"""

MARK_SURVIVOR = """
update customers
set has_absorbed = true
where shop_id = %(shop)s and id = %(survivor)s
"""


async def is_merged(conn: AsyncConnection, shop_id: ShopId, shopify_customer_id: ShopifyCustomerId) -> bool:
    """Whether a customer is known to have been merged into another."""
    found = await _find(conn, shop_id, shopify_customer_id)
    return found is not None and found.merged_into is not None
