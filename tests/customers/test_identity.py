"""Who a customer is: one of ours for each of Shopify's, in each shop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from metafield_sync.customers.identity import (
    SHOPIFY_ID_MAX,
    CustomerId,
    CustomerNotFound,
    ShopifyCustomerId,
    ensure_customer,
    find_by_shopify_id,
    require_customer,
)
from metafield_sync.shops.registry import add_shop

if TYPE_CHECKING:
    from metafield_sync.db.database import Database, ShopId

SEVEN = ShopifyCustomerId(7)


async def ensure(db: Database, shop_id: ShopId, shopify_id: ShopifyCustomerId = SEVEN) -> tuple[CustomerId, bool]:
    async with db.shop(shop_id) as conn:
        return await ensure_customer(conn, shop_id, shopify_id)


async def test_a_customer_is_made_once_with_nothing_and_to_be_mirrored(
    db: Database, shop_id: ShopId, owner: psycopg.Connection
) -> None:
    made, is_new = await ensure(db, shop_id)
    assert is_new
    assert await ensure(db, shop_id) == (made, False)
    assert owner.execute("select id, current_balance from customers").fetchall() == [(made, 0)]
    assert owner.execute("select customer_id from mirror_states where stale_since is not null").fetchall() == [(made,)]


async def test_made_by_many_at_once_there_is_one(db: Database, shop_id: ShopId) -> None:
    outcomes = await asyncio.gather(*(ensure(db, shop_id) for _ in range(10)))
    assert len({customer_id for customer_id, _ in outcomes}) == 1
    assert sum(is_new for _, is_new in outcomes) == 1


async def test_a_customer_is_found_by_either_id(db: Database, shop_id: ShopId) -> None:
    largest = ShopifyCustomerId(SHOPIFY_ID_MAX)
    made, _ = await ensure(db, shop_id, largest)
    async with db.shop(shop_id) as conn:
        found = await find_by_shopify_id(conn, shop_id, largest)
        assert found == await require_customer(conn, shop_id, made)
    assert (found.id, found.shopify_customer_id) == (made, SHOPIFY_ID_MAX)


async def test_another_shops_customer_looks_like_none(db: Database, shop_id: ShopId) -> None:
    theirs, _ = await ensure(db, shop_id)
    async with db.unscoped() as conn:
        mine, _ = await add_shop(conn, "other.myshopify.com", None)
    async with db.shop(mine.id) as conn:
        for unknown in (theirs, CustomerId(uuid4())):
            with pytest.raises(CustomerNotFound):
                await require_customer(conn, mine.id, unknown)
        with pytest.raises(CustomerNotFound):
            await find_by_shopify_id(conn, mine.id, SEVEN)
    same, is_new = await ensure(db, mine.id)
    assert is_new, "the same Shopify id is somebody else in another shop"
    assert same != theirs


@pytest.mark.parametrize("impossible", [0, -1])
async def test_an_impossible_shopify_id_is_refused_by_the_database(
    db: Database, shop_id: ShopId, impossible: int
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        await ensure(db, shop_id, ShopifyCustomerId(impossible))
