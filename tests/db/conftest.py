"""Fixtures of the database's tests: two shops side by side, with a row of each in every table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from metafield_sync.ledger.posting import Posting, post
from metafield_sync.ledger.verification import verify
from metafield_sync.shops.api_keys import create_key
from metafield_sync.shops.registry import add_shop

if TYPE_CHECKING:
    import psycopg

    from metafield_sync.db.database import Database, ShopId

SHOPIFY_ID = 7


@pytest.fixture
async def two_shops(db: Database, owner: psycopg.Connection) -> tuple[ShopId, ShopId]:
    """Two shops with one customer of the same Shopify id each, and rows in every table that has a shop."""
    async with db.unscoped() as conn:
        first, _ = await add_shop(conn, "first.myshopify.com", None)
        second, _ = await add_shop(conn, "second.myshopify.com", None)
    for shop in (first, second):
        wish = Posting(shopify_customer_id=SHOPIFY_ID, amount=5, reason="order", metadata={"order": 1})
        await post(db, shop.id, "test", wish)
        async with db.shop(shop.id) as conn:
            await create_key(conn, shop.id, name="till", scope="write")
            await conn.execute("insert into sync_runs (shop_id, kind, trigger) values (%s, 'sync', 'api')", (shop.id,))
    owner.execute("update customers set current_balance = 6")
    for shop in (first, second):
        assert len(await verify(db, shop.id)) == 1
    owner.execute(ROWS_OF_THE_MIRROR)
    owner.execute(ROWS_THAT_CAME_IN)
    owner.execute(ROWS_OF_ORDERS)
    owner.execute(ROWS_OF_INSTALLATIONS)
    owner.execute(ROWS_OF_FLOW)
    owner.execute(ROWS_ABOUT_PEOPLE)
    return first.id, second.id


ROWS_OF_THE_MIRROR = """
insert into push_calls (shop_id, token, customers, balances) select shop_id, 1, array[id], array[5] from customers;
insert into backfills (shop_id) select id from shops;
insert into backfill_files (shop_id, backfill_id, number) select shop_id, id, 1 from backfills;
insert into backfill_lines
  (shop_id, backfill_id, file, line, customer_id, shopify_customer_id, version, balance, claimed_at)
select b.shop_id, b.id, 1, 0, c.id, c.shopify_customer_id, 1, 5, now()
from backfills b
join customers c on c.shop_id = b.shop_id;
insert into sync_run_changes (shop_id, run_id, customer_id, change, reason)
select r.shop_id, r.id, c.id, 'pushed', 'sync'
from sync_runs r
join customers c on c.shop_id = r.shop_id;
"""

ROWS_THAT_CAME_IN = """
insert into inbox (shop_id, delivery_id, topic, body_digest, payload)
select id, 'one', 'orders/paid', '', '{}' from shops;
insert into errands (shop_id, kind) select id, 'catch_up' from shops;
"""

ROWS_OF_ORDERS = """
insert into earning_rules (shop_id, version, points_per_unit, rounding, starts_at, actor)
select id, 1, 1, 'down', now(), 'test' from shops;
insert into orders (shop_id, order_id) select id, 1001 from shops;
insert into order_refunds (shop_id, order_id, refund_id, goods, goods_tax, adjustment)
select shop_id, order_id, 1, 0, 0, 0 from orders;
insert into order_earnings (shop_id, order_id, customer_id, points)
select o.shop_id, o.order_id, c.id, 5
from orders o
join customers c on c.shop_id = o.shop_id;
insert into order_readings (shop_id, read_until) select id, added_at from shops;
"""

ROWS_OF_INSTALLATIONS = """
insert into installations (shop_id) select id from shops;
insert into found_values (shop_id, shopify_customer_id, shown, digest) select id, 7, 5, 'digest' from shops;
"""

ROWS_OF_FLOW = """
insert into flow_triggers (shop_id, has_enabled_flow, as_of) select id, true, now() from shops;
insert into flow_changes (shop_id, customer_id, balance_before) select shop_id, id, 1 from customers;
"""

ROWS_ABOUT_PEOPLE = """
insert into redacted_customers (shop_id, digest) select id, redaction_digest(id, 8) from shops;
insert into data_requests (shop_id, id, shopify_customer_id) select id, 9, 7 from shops;
"""
