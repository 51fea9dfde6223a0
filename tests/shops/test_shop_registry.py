"""Shops: added, paused, resumed and removed; what each does to the others' claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from metafield_sync.db.database import ShopId
from metafield_sync.shops.api_keys import create_key, find_caller
from metafield_sync.shops.registry import (
    PAUSED_BY_STAFF,
    PROBE_FIRST_S,
    PROBE_LAST_S,
    Shop,
    ShopDomainInvalid,
    ShopNotFound,
    add_shop,
    check_domain,
    get_shop,
    list_shops,
    pause_shop,
    remember_definition,
    remove_shop,
    resume_shop,
)

if TYPE_CHECKING:
    import psycopg

    from metafield_sync.db.database import Database

DOMAIN = "first.myshopify.com"


async def add(db: Database, domain: str = DOMAIN, sealed: str | None = "sealed") -> tuple[Shop, bool]:
    async with db.unscoped() as conn:
        return await add_shop(conn, domain, sealed)


async def get(db: Database, shop: Shop) -> Shop:
    async with db.unscoped() as conn:
        return await get_shop(conn, shop.id)


async def refuse(db: Database, shop: Shop) -> Shop:
    async with db.unscoped() as conn:
        await pause_shop(conn, shop.id, code="shop_frozen", detail="unpaid", resumes_by_itself=True)
    return await get(db, shop)


async def staff_pause(db: Database, shop: Shop) -> Shop:
    async with db.unscoped() as conn:
        await pause_shop(conn, shop.id, code=PAUSED_BY_STAFF, detail="stocktaking", resumes_by_itself=False)
    return await get(db, shop)


@pytest.mark.parametrize("given", ["first.myshopify.com", " First.MyShopify.com\n", "1-a.myshopify.com"])
def test_a_domain_is_taken_in_lower_case(given: str) -> None:
    assert check_domain(given) == given.strip().lower()


@pytest.mark.parametrize(
    "given",
    ["", "first", "first.example.com", "-a.myshopify.com", "a.b.myshopify.com", "a.myshopify.com.evil.example",
     "https://a.myshopify.com", "a.myshopify.com/x", "ä.myshopify.com", f"{'a' * 61}.myshopify.com"],
)  # fmt: skip
def test_what_is_no_domain_of_a_shop_is_refused(given: str) -> None:
    with pytest.raises(ShopDomainInvalid, match=r"name\.myshopify\.com"):
        check_domain(given)


async def test_a_shop_is_added_with_a_lease_and_an_account_of_its_activity(
    db: Database, owner: psycopg.Connection
) -> None:
    shop, is_new = await add(db)
    assert is_new
    assert (shop.domain, shop.status, shop.access_token) == (DOMAIN, "active", "sealed")
    for table in (b"shop_leases", b"shop_activity"):
        assert owner.execute(b"select shop_id from " + table).fetchall() == [(shop.id,)]


async def test_a_shop_added_again_gets_the_new_token_and_works_again(db: Database) -> None:
    shop, _ = await add(db)
    async with db.unscoped() as conn:
        await remember_definition(conn, shop.id, "known good")
    await refuse(db, shop)
    again, is_new = await add(db, sealed="another")
    assert not is_new
    assert (again.id, again.status, again.access_token) == (shop.id, "active", "another")
    assert (again.paused_code, again.probe_at, again.definition_ensured) == (None, None, None)
    kept, _ = await add(db, sealed=None)
    assert kept.access_token == again.access_token


async def test_shops_are_listed_by_domain_without_the_removed(db: Database) -> None:
    for domain in ("b.myshopify.com", "a.myshopify.com", "c.myshopify.com"):
        shop, _ = await add(db, domain)
    async with db.unscoped() as conn:
        await remove_shop(conn, shop.id)
        assert [shop.domain for shop in await list_shops(conn)] == ["a.myshopify.com", "b.myshopify.com"]
        assert [shop.domain for shop in await list_shops(conn, "b.myshopify.com")] == ["b.myshopify.com"]
        for missing in ("c.myshopify.com", "d.myshopify.com"):
            with pytest.raises(ShopNotFound, match="shops add"):
                await list_shops(conn, missing)
        with pytest.raises(ShopNotFound):
            await get_shop(conn, ShopId(999))


async def test_a_removed_shop_keeps_no_token_and_no_key_and_is_not_worked_for(
    db: Database, owner: psycopg.Connection
) -> None:
    shop, _ = await add(db)
    async with db.shop(shop.id) as conn:
        key = await create_key(conn, shop.id, name="till", scope="write")
        await conn.execute("insert into customers (shop_id, shopify_customer_id) values (%s, 7)", (shop.id,))
    assert owner.execute("select shops_with_work()").fetchall() == [(shop.id,)]
    async with db.shop(shop.id) as conn:
        await remove_shop(conn, shop.id)
    removed = await get(db, shop)
    assert (removed.status, removed.access_token) == ("removed", None)
    async with db.unscoped() as conn:
        assert await find_caller(conn, key) is None
    assert owner.execute("select count(*) from api_keys where revoked_at is null").fetchone() == (0,)
    assert owner.execute("select shops_with_work()").fetchall() == []
    assert (await refuse(db, shop)).status == "removed"


async def test_a_refused_shop_is_asked_again_ever_more_seldom(db: Database, owner: psycopg.Connection) -> None:
    shop, _ = await add(db)
    waits: list[float] = []
    for _ in range(7):
        owner.execute("update shops set probe_at = clock_timestamp() where probe_at is not null")
        await refuse(db, shop)
        # Refused once more because somebody asked: the attempt that is due by itself stays due.
        await refuse(db, shop)
        row = owner.execute("select extract(epoch from probe_at - clock_timestamp())::float from shops").fetchone()
        assert row is not None
        waits.append(round(row[0], -1))
    assert waits == [PROBE_FIRST_S, 60, 120, 240, 480, PROBE_LAST_S, PROBE_LAST_S]
    async with db.unscoped() as conn:
        await resume_shop(conn, shop.id, by_itself=True)
    again = await refuse(db, shop)
    assert again.probe_at is not None
    row = owner.execute("select extract(epoch from probe_at - clock_timestamp())::float from shops").fetchone()
    assert row is not None
    assert row[0] <= PROBE_FIRST_S, "after a recovery it begins anew"


async def test_a_pause_by_staff_is_theirs_to_end(db: Database) -> None:
    shop, _ = await add(db)
    await refuse(db, shop)
    paused = await staff_pause(db, shop)
    assert (paused.paused_by_staff, paused.probe_at) == (True, None)
    assert await refuse(db, shop) == paused
    async with db.unscoped() as conn:
        await resume_shop(conn, shop.id, by_itself=True)
    assert await get(db, shop) == paused
    async with db.unscoped() as conn:
        await resume_shop(conn, shop.id)
    assert (await get(db, shop)).status == "active"


async def test_a_token_is_in_no_repr(db: Database) -> None:
    shop, _ = await add(db, sealed="sealed-secret")
    assert "sealed-secret" not in repr(shop)
