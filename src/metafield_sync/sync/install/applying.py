"""What becomes of values found: opening balances, or nothing but the digest to write over them with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from metafield_sync.db.database import again_after_deadlock
from metafield_sync.ledger.posting import Posting, post_within
from metafield_sync.sync.install import store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg import AsyncConnection

    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.sync.install.store import Installation

APPLIED_MAX = 1_000
"""Customers in one transaction; a batch of postings takes no more."""
OPENING_REASON = "opening_balance"
ACTOR = "installation"


async def apply_values(db: Database, shop_id: ShopId, installation: Installation) -> None:
    """Apply every value that was found, some at a time; interrupted, it goes on with the rest.

    Whoever has no entries yet gets one that opens with the value, if it is to be adopted. From then on the mirror knows
    what Shopify shows: who shows the balance already is in step, at no write.
    """
    while await again_after_deadlock(lambda: _apply_some(db, shop_id, installation)):
        pass
    await _doubt_who_shows_nothing(db, shop_id, installation)


async def _apply_some(db: Database, shop_id: ShopId, installation: Installation) -> bool:
    async with db.shop(shop_id) as conn, conn.cursor() as cur:
        await cur.execute(TAKE_SOME, {"shop": shop_id, "limit": APPLIED_MAX})
        taken = await cur.fetchall()
        if not taken:
            return False
        parameters: dict[str, Any] = {
            "shop": shop_id,
            "customers": [row[0] for row in taken],
            "values": [row[1] for row in taken],
            "digests": [row[2] for row in taken],
        }
        if installation.choice == "adopt":
            await _open_balances(conn, shop_id, installation, parameters)
        await cur.execute(LOCK_MIRROR, parameters)
        await cur.execute(NOTE_SHOWN, parameters)
        await cur.execute(DONE_WITH, parameters)
    return True


# Two who apply at once, a worker and a command, take one batch after the other.
TAKE_SOME = """
select shopify_customer_id, shown, digest
from found_values
where shop_id = %(shop)s
order by shopify_customer_id
limit %(limit)s
for update
"""

DONE_WITH = "delete from found_values where shop_id = %(shop)s and shopify_customer_id = any (%(customers)s)"


async def _open_balances(
    conn: AsyncConnection, shop_id: ShopId, installation: Installation, parameters: Mapping[str, Any]
) -> None:
    async with conn.cursor() as cur:
        await cur.execute(WITHOUT_ENTRIES, parameters)
        blank = await cur.fetchall()
        with_values = sum(1 for value in parameters["values"] if value)
        opening = [
            Posting(
                customer_id=customer_id,
                amount=shown,
                reason=OPENING_REASON,
                external_id=f"opening/{shopify_id}",
                allow_negative=True,
            )
            for customer_id, shopify_id, shown in blank
        ]
        await post_within(conn, shop_id, ACTOR, opening)
        counts = {"adopted": len(opening), "left_alone": with_values - len(opening)}
        await cur.execute(store.COUNT_APPLIED, {"shop": shop_id, "id": installation.id, **counts})


# Locked in the order of postings, so that nobody posts to them in between.
WITHOUT_ENTRIES = """
select c.id, c.shopify_customer_id, t.shown
from unnest(%(customers)s::bigint[], %(values)s::bigint[]) as t (shopify_customer_id, shown)
join customers c on c.shop_id = %(shop)s and c.shopify_customer_id = t.shopify_customer_id
where
  t.shown <> 0
  and not exists (select from ledger_entries l where l.shop_id = c.shop_id and l.customer_id = c.id)
order by c.id
for no key update of c
"""

LOCK_MIRROR = """
select 1
from mirror_states m
join customers c on c.shop_id = m.shop_id and c.id = m.customer_id
where m.shop_id = %(shop)s and c.shopify_customer_id = any (%(customers)s::bigint[])
order by m.customer_id
for no key update of m
"""

# Nothing has been written since they were read: the mirror was held. Who is in doubt is read back anyway.
NOTE_SHOWN = """
update mirror_states m
set
  digest = t.digest,
  status = case when m.status = 'missing' then 'live' else m.status end,
  conflicted = false,
  wanted_version = m.wanted_version + (t.shown is distinct from c.current_balance and m.stale_since is null)::integer,
  pushed_version = case when t.shown = c.current_balance then m.wanted_version else m.pushed_version end,
  pushed_balance = t.shown,
  pushed_at = case when t.shown = c.current_balance then clock_timestamp() else m.pushed_at end,
  stale_since = case
    when t.shown = c.current_balance then null
    else coalesce(m.stale_since, clock_timestamp())
  end,
  due_at = case when m.due_at < 'infinity' then least(m.due_at, clock_timestamp()) else m.due_at end,
  attempts = 0,
  failing_since = null,
  error_code = null,
  error = null
from unnest(%(customers)s::bigint[], %(values)s::bigint[], %(digests)s::text[])
  as t (shopify_customer_id, shown, digest)
join customers c on c.shop_id = %(shop)s and c.shopify_customer_id = t.shopify_customer_id
where m.shop_id = %(shop)s and m.customer_id = c.id and not m.in_doubt
"""


async def _doubt_who_shows_nothing(db: Database, shop_id: ShopId, installation: Installation) -> None:
    """In a shop that was here before: write to whom we wrote then and who was read now as showing nothing."""

    async def doubt() -> bool:
        async with db.shop(shop_id) as conn, conn.cursor() as cur:
            parameters = {"shop": shop_id, "begun": installation.begun_at, "limit": APPLIED_MAX}
            await cur.execute(DOUBT_SOME, parameters)
            return await cur.fetchone() is not None

    if installation.warning is None:
        while await again_after_deadlock(doubt):
            pass


# Whoever showed anything has been noted since the installation began.
DOUBT_SOME = """
with unseen as (
  select m.customer_id
  from mirror_states m
  where
    m.shop_id = %(shop)s
    and m.stale_since is null
    and m.status = 'live'
    and m.pushed_at < %(begun)s
  order by m.customer_id
  limit %(limit)s
  for no key update
)
update mirror_states m
set
  wanted_version = m.wanted_version + 1,
  digest = null,
  stale_since = clock_timestamp(),
  due_at = clock_timestamp()
from unseen u
where m.shop_id = %(shop)s and m.customer_id = u.customer_id
returning m.customer_id
"""
