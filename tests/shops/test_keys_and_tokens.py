"""API keys, shown once and stored as a hash; access tokens, stored encrypted and rotated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet

from metafield_sync.shops.api_keys import KEY_PREFIX, KeyNotFound, create_key, find_caller, list_keys, revoke_key
from metafield_sync.shops.registry import add_shop
from metafield_sync.shops.vault import TokenUnreadable, Vault

if TYPE_CHECKING:
    import psycopg

    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.shops.api_keys import Scope

TOKEN = "shpat_of_the_tests"  # noqa: S105 - opens nothing


async def create(db: Database, shop_id: ShopId, scope: Scope = "write") -> str:
    async with db.shop(shop_id) as conn:
        return await create_key(conn, shop_id, name="till", scope=scope)


@pytest.mark.parametrize(("scope", "can_write"), [("read", False), ("write", True)])
async def test_a_key_speaks_for_its_shop_with_its_scope(
    db: Database, shop_id: ShopId, scope: Scope, *, can_write: bool
) -> None:
    key = await create(db, shop_id, scope)
    assert key.startswith(KEY_PREFIX)
    async with db.unscoped() as conn:
        caller = await find_caller(conn, key)
    assert caller is not None
    assert (caller.shop_id, caller.can_write, caller.actor) == (shop_id, can_write, f"api-key:{caller.key_id}")


async def test_keys_are_found_whichever_shop_they_are_of(db: Database, shop_id: ShopId) -> None:
    async with db.unscoped() as conn:
        other, _ = await add_shop(conn, "other.myshopify.com", None)
    keys = {shop: await create(db, shop) for shop in (shop_id, other.id)}
    async with db.unscoped() as conn:
        for shop, key in keys.items():
            caller = await find_caller(conn, key)
            assert caller is not None
            assert caller.shop_id == shop


async def test_a_key_is_nowhere_to_be_read_again(db: Database, shop_id: ShopId, owner: psycopg.Connection) -> None:
    key = await create(db, shop_id)
    (row,) = owner.execute("select api_keys::text, key_hash from api_keys").fetchall()
    assert key not in row[0]
    assert key.encode() not in row[1]
    assert key != await create(db, shop_id)
    async with db.shop(shop_id) as conn:
        assert [(one.name, one.scope, one.revoked_at) for one in await list_keys(conn, shop_id)] == [
            ("till", "write", None)
        ] * 2


@pytest.mark.parametrize("wrong", ["", "mfs_", "mfs_nonsense", "\x00", "ü"])
async def test_a_key_that_was_never_made_is_nobodys(db: Database, shop_id: ShopId, wrong: str) -> None:
    await create(db, shop_id)
    async with db.unscoped() as conn:
        assert await find_caller(conn, wrong) is None


async def test_a_revoked_key_is_worthless_at_once_and_for_good(db: Database, shop_id: ShopId) -> None:
    key = await create(db, shop_id)
    async with db.shop(shop_id) as conn:
        (listed,) = await list_keys(conn, shop_id)
        await revoke_key(conn, shop_id, listed.id)
    async with db.unscoped() as conn:
        assert await find_caller(conn, key) is None
    async with db.shop(shop_id) as conn:
        for key_id in (listed.id, 999):
            with pytest.raises(KeyNotFound):
                await revoke_key(conn, shop_id, key_id)


async def test_another_shops_key_cannot_be_revoked(db: Database, shop_id: ShopId) -> None:
    key = await create(db, shop_id)
    async with db.unscoped() as conn:
        other, _ = await add_shop(conn, "other.myshopify.com", None)
        caller = await find_caller(conn, key)
    assert caller is not None
    async with db.shop(other.id) as conn:
        with pytest.raises(KeyNotFound):
            await revoke_key(conn, shop_id, caller.key_id)
    async with db.unscoped() as conn:
        assert await find_caller(conn, key) == caller


def test_a_token_is_sealed_with_the_newest_key_and_opened_with_any() -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    sealed_before = Vault([old]).seal(TOKEN)
    rotated = Vault([new, old])
    assert TOKEN not in sealed_before
    assert rotated.open(sealed_before) == TOKEN
    assert Vault([new]).open(rotated.seal(TOKEN)) == TOKEN
    with pytest.raises(TokenUnreadable, match="ENCRYPTION_KEYS does not hold"):
        Vault([new]).open(sealed_before)


def test_without_a_key_nothing_is_stored_and_nothing_opened() -> None:
    with pytest.raises(TokenUnreadable, match="never stored in the clear"):
        Vault([]).seal(TOKEN)
    with pytest.raises(TokenUnreadable, match="ENCRYPTION_KEYS is not set"):
        Vault([]).open("anything")
