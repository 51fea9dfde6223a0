"""Redaction: nothing says any more who a customer was. Their amounts stay, under an id that leads nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metafield_sync.customers.identity import CustomerId, ShopifyCustomerId

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId


async def known_ids(
    conn: AsyncConnection, shop_id: ShopId, shopify_customer_id: ShopifyCustomerId
) -> dict[CustomerId, ShopifyCustomerId]:
    """A customer and all who were merged into them: our ids and Shopify's. Nothing if nobody has this Shopify id."""
    async with conn.cursor() as cur:
        await cur.execute(KNOWN_IDS, {"shop": shop_id, "shopify": shopify_customer_id})
        return dict(await cur.fetchall())


KNOWN_IDS = """
select c.id, c.shopify_customer_id
from customers n
join customers c on c.shop_id = n.shop_id and (c.id = n.id or c.merged_into = n.id)
where n.shop_id = %(shop)s and n.shopify_customer_id = %(shopify)s and c.redacted_at is null
order by c.id
"""


async def lock_known(
    conn: AsyncConnection, shop_id: ShopId, shopify_customer_id: ShopifyCustomerId
) -> dict[CustomerId, ShopifyCustomerId]:
    """As `known_ids`, locked in the order of their ids."""
    ids = await known_ids(conn, shop_id, shopify_customer_id)
    await conn.execute(LOCK_KNOWN, {"shop": shop_id, "customers": list(ids)})
    # One who was merged into them meanwhile is found now; nobody can be while they are locked.
    return await known_ids(conn, shop_id, shopify_customer_id)


LOCK_KNOWN = """
select 1
from customers
where shop_id = %(shop)s and id = any (%(customers)s)
order by id
for no key update
"""


async def erase_identities(
    conn: AsyncConnection,
    shop_id: ShopId,
    customers: list[CustomerId],
    shopify_ids: list[ShopifyCustomerId],
) -> None:
    """Take Shopify's ids off these customers, and let nobody with one of them be made again.

    What is kept of the ids are digests beside no amount: they answer "was this one redacted?", and nothing else.
    """
    await conn.execute(REMEMBER_REDACTED, {"shop": shop_id, "shopify_ids": shopify_ids})
    await conn.execute(ERASE_IDENTITIES, {"shop": shop_id, "customers": customers})


REMEMBER_REDACTED = """
insert into redacted_customers (shop_id, digest)
select %(shop)s, redaction_digest(%(shop)s, t.id)
from unnest(%(shopify_ids)s::bigint[]) as t (id)
on conflict (shop_id, digest) do nothing
"""

ERASE_IDENTITIES = """
update customers
set shopify_customer_id = null, redacted_at = clock_timestamp()
where shop_id = %(shop)s and id = any (%(customers)s) and redacted_at is null
"""


async def erase_all_identities(conn: AsyncConnection, shop_id: ShopId) -> int:
    """Take Shopify's ids off every customer of a shop, and return how many that were.

    Nobody is kept from coming back: a shop that installs the app again brings the same customers, as new ones.
    """
    async with conn.cursor() as cur:
        await cur.execute(LOCK_ALL, {"shop": shop_id})
        await cur.execute(ERASE_ALL_IDENTITIES, {"shop": shop_id})
        row = await cur.fetchone()
    return 0 if row is None else row[0]


LOCK_ALL = """
select count(*)
from (
  select from customers
  where shop_id = %(shop)s and redacted_at is null
  order by id
  for no key update
) locked
"""

ERASE_ALL_IDENTITIES = """
with erased as (
  update customers
  set shopify_customer_id = null, redacted_at = clock_timestamp()
  where shop_id = %(shop)s and redacted_at is null
  returning 1
)
select count(*) from erased
"""
