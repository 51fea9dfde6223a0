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
    return first.id, second.id
