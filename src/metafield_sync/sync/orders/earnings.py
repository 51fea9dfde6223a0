"""What merging and redacting customers do to what orders earned."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId


async def move_earnings(conn: AsyncConnection, shop_id: ShopId, from_customer: UUID, to_customer: UUID) -> int:
    """Let the survivor of a merge be who the orders gave their points to, and return how many orders that concerns.

    To be called in the transaction that moves the balance, after both customers are locked: a clawback that comes
    later is then taken from the survivor, and nobody earns an order twice. Orders go on naming the customer that
    Shopify named; who that is by now is looked up along the merges.

    Args:
        conn: in a transaction of the shop.
        shop_id: whose.
        from_customer: our id of the one that is gone.
        to_customer: our id of the one that stays.
    """
    async with conn.cursor() as cur:
        await cur.execute(MOVE_EARNINGS, {"shop": shop_id, "from": from_customer, "to": to_customer})
        row = await cur.fetchone()
    return 0 if row is None else row[0]


MOVE_EARNINGS = """
with
  gone as (
    delete from order_earnings
    where shop_id = %(shop)s and customer_id = %(from)s
    returning order_id, points
  ),
  moved as (
    insert into order_earnings as e (shop_id, order_id, customer_id, points)
    select %(shop)s, order_id, %(to)s, points
    from gone
    on conflict (shop_id, order_id, customer_id) do update
    set points = e.points + excluded.points
    returning 1
  )
select count(*) from moved
"""


async def forget_orders(
    conn: AsyncConnection, shop_id: ShopId, order_ids: Iterable[int], *, of_customers: Iterable[int] = ()
) -> None:
    """Cut the link between orders and whose they were, and let nothing that comes later change them.

    Amounts stay: what the orders were worth, and what they gave. Orders that are not known yet are made known as
    forgotten, so that a late webhook finds nobody to give points to.

    Args:
        conn: in a transaction of the shop. Locks orders, so it comes before customers are locked.
        shop_id: whose.
        order_ids: Shopify's ids of the orders.
        of_customers: Shopify's ids of customers, all of whose orders are forgotten too.
    """
    parameters = {"shop": shop_id, "customers": sorted(of_customers), "orders": sorted(set(order_ids))}
    for statement in (MAKE_FORGOTTEN, LOCK_FORGOTTEN, DROP_REFUNDS, FORGET):
        await conn.execute(statement, parameters)


MAKE_FORGOTTEN = """
insert into orders (shop_id, order_id)
select %(shop)s, o.id
from unnest(%(orders)s::bigint[]) as o (id)
on conflict (shop_id, order_id) do nothing
"""

# Sorted, so that two that meet the same orders cannot deadlock.
LOCK_FORGOTTEN = """
select 1
from orders
where shop_id = %(shop)s and (shopify_customer_id = any (%(customers)s::bigint[]) or order_id = any (%(orders)s))
order by order_id
for no key update
"""

DROP_REFUNDS = """
delete from order_refunds r
using orders o
where
  o.shop_id = %(shop)s
  and (o.shopify_customer_id = any (%(customers)s::bigint[]) or o.order_id = any (%(orders)s))
  and r.shop_id = o.shop_id
  and r.order_id = o.order_id
"""

FORGET = """
update orders
set
  shopify_customer_id = null,
  updated_at = null,
  facts = null,
  facts_digest = null,
  known_since = null,
  is_left_out = null,
  read_wanted_at = null,
  is_forgotten = true,
  waits_for = null
where shop_id = %(shop)s and (shopify_customer_id = any (%(customers)s::bigint[]) or order_id = any (%(orders)s))
"""
