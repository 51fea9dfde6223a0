"""Redaction: a customer, or a whole shop's customers, forgotten wherever anything tells who they were.

Amounts stay, so that what was given and spent still adds up. What comes later about somebody redacted, a webhook that
was on its way or a posting of a script, is refused or changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metafield_sync.customers import redaction
from metafield_sync.customers.identity import ShopifyCustomerId
from metafield_sync.ledger.redaction import forget_metadata
from metafield_sync.sync.orders.earnings import forget_orders
from metafield_sync.sync.people import mirrors, traces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId


async def redact_customer(
    conn: AsyncConnection, shop_id: ShopId, shopify_customer_id: int, *, orders: Sequence[int] = ()
) -> int:
    """Forget who a customer was, and all who were merged into them; returns how many of ours that were.

    One we do not know is remembered as redacted too, so that a late webhook does not make them. Again it changes
    nothing. In a transaction of the shop, to be run by `again_after_deadlock`.

    Args:
        conn: in that transaction.
        shop_id: whose customer.
        shopify_customer_id: who.
        orders: Shopify's ids of orders to be redacted with them; those we know to be theirs are too.
    """
    named = ShopifyCustomerId(shopify_customer_id)
    # Orders are locked before customers. Who is merged into them in between is forgotten after all, below.
    forgotten = {named, *(await redaction.known_ids(conn, shop_id, named)).values()}
    order_ids = await _forget_orders(conn, shop_id, forgotten, orders)
    known = await redaction.lock_known(conn, shop_id, named)
    late = set(known.values()) - forgotten
    order_ids |= await _forget_orders(conn, shop_id, late, ())
    customers, shopify_ids = list(known), sorted(forgotten | late)
    await redaction.erase_identities(conn, shop_id, customers, shopify_ids)
    await forget_metadata(conn, shop_id, customers)
    await mirrors.lock_mirrors(conn, shop_id, customers)
    await mirrors.turn_off(conn, shop_id, customers, "redacted")
    await traces.wipe_traces(conn, shop_id, traces.Redacted(customers, shopify_ids, sorted(order_ids)))
    return len(customers)


async def _forget_orders(
    conn: AsyncConnection, shop_id: ShopId, shopify_ids: set[ShopifyCustomerId], named: Sequence[int]
) -> set[int]:
    order_ids = {*named, *await traces.orders_of(conn, shop_id, sorted(shopify_ids))}
    await forget_orders(conn, shop_id, order_ids, of_customers=shopify_ids)
    return order_ids


async def redact_shop(conn: AsyncConnection, shop_id: ShopId) -> int:
    """Forget who all customers of a shop were; returns how many. Again it changes nothing.

    If the shop installs the app again, the same customers come as new ones, with nothing: unlike after a redaction of
    their own, they are still there. One transaction, whatever the size: nothing else happens in such a shop.
    """
    order_ids = await traces.all_orders(conn, shop_id)
    await forget_orders(conn, shop_id, order_ids)
    customers = await redaction.erase_all_identities(conn, shop_id)
    await forget_metadata(conn, shop_id, None)
    await mirrors.turn_off(conn, shop_id, None, "redacted")
    await traces.wipe_all_traces(conn, shop_id)
    return customers
