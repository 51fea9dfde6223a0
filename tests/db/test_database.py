"""What a transaction costs on the wire, and what it leaves behind on its connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest
from db_support import Relay
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from metafield_sync.db.database import Database, ShopId
from metafield_sync.db.migrate import DatabaseUnusable
from metafield_sync.ledger.posting import Posting, post

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WISH = Posting(shopify_customer_id=7, amount=1, reason="order")


@pytest.fixture
async def relay(database_url: str) -> AsyncIterator[Relay]:
    parts = conninfo_to_dict(database_url)
    async with Relay(f"{parts['host']}/.s.PGSQL.{parts['port']}") as relay:
        yield relay


@pytest.fixture
async def relayed(database_url: str, relay: Relay) -> AsyncIterator[Database]:
    conninfo = make_conninfo(database_url, host="127.0.0.1", port=relay.port, sslmode="disable", gssencmode="disable")
    async with Database(conninfo, connections_max=1) as db:
        async with db.connection() as conn:
            await conn.execute("select 1")
        yield db


async def add_customers(db: Database, shop_id: ShopId, *shopify_ids: int) -> None:
    async with db.shop(shop_id) as conn:
        for shopify_id in shopify_ids:
            await conn.execute(
                "insert into customers (shop_id, shopify_customer_id) values (%s, %s)", (shop_id, shopify_id)
            )


async def fail_in_transaction(db: Database, shop_id: ShopId, error: BaseException) -> None:
    async with db.shop(shop_id) as conn:
        await conn.execute("insert into customers (shop_id, shopify_customer_id) values (%s, 7)", (shop_id,))
        raise error


async def lose_connection(db: Database, shop_id: ShopId, owner: psycopg.Connection) -> None:
    async with db.shop(shop_id) as conn:
        row = await (await conn.execute("select pg_backend_pid()")).fetchone()
        assert row is not None
        owner.execute("select pg_terminate_backend(%s, 10000)", row)
        await (await conn.execute("select 1")).fetchone()


async def test_a_posting_is_one_round_trip(relayed: Database, relay: Relay, shop_id: ShopId) -> None:
    before = relay.turnarounds
    await post(relayed, shop_id, "test", WISH)
    assert relay.turnarounds - before == 1


async def test_the_role_and_the_shop_travel_with_the_first_statement(
    relayed: Database, relay: Relay, shop_id: ShopId
) -> None:
    before = relay.turnarounds
    async with relayed.shop(shop_id) as conn:
        cursor = await conn.execute("select current_user, current_setting('metafield_sync.shop_id')")
        assert await cursor.fetchone() == ("metafield_sync_app", str(shop_id))
        assert relay.turnarounds - before == 1
    assert relay.turnarounds - before == 2, "and the commit is the other one"


async def test_statements_whose_rows_nobody_reads_cost_no_round_trip(
    relayed: Database, relay: Relay, shop_id: ShopId
) -> None:
    before = relay.turnarounds
    async with relayed.shop(shop_id) as conn:
        await conn.execute("update shops set probes = 1 where id = %s", (shop_id,))
        await conn.execute("update shops set probes = 2 where id = %s", (shop_id,))
    assert relay.turnarounds - before <= 2


WHO_AND_WHERE = "select current_user, session_user, coalesce(current_setting('metafield_sync.shop_id', true), '')"


@pytest.mark.parametrize("how", ["committed", "failed", "cancelled", "posted"])
async def test_role_and_shop_do_not_outlast_their_transaction(database_url: str, shop_id: ShopId, how: str) -> None:
    async with Database(database_url, connections_max=1) as db:
        async with db.connection() as conn:
            backend = conn.info.backend_pid
        if how == "committed":
            async with db.shop(shop_id) as conn:
                await conn.execute("select 1")
        elif how == "failed":
            with pytest.raises(psycopg.errors.DivisionByZero):
                async with db.shop(shop_id) as conn:
                    await conn.execute("select 1 / 0")
        elif how == "cancelled":
            with pytest.raises(asyncio.CancelledError):
                await fail_in_transaction(db, shop_id, asyncio.CancelledError())
        else:
            await post(db, shop_id, "test", WISH)
        async with db.connection() as conn:
            assert conn.info.backend_pid == backend, "the same connection, or this proves nothing"
            row = await (await conn.execute(WHO_AND_WHERE)).fetchone()
        assert row is not None
        current, session, shop = row
        assert (current, shop) == (session, "")


async def test_a_transaction_held_still_is_ended_by_the_server(db: Database, shop_id: ShopId) -> None:
    async with db.shop(shop_id) as conn:
        row = await (await conn.execute("select current_setting('idle_in_transaction_session_timeout')")).fetchone()
    assert row == ("10s",), "within a lease's time, or what is locked would hold up whoever takes over"
    with pytest.raises(DatabaseUnusable, match="lost"):
        await hold_still(db, shop_id)
    async with db.shop(shop_id) as conn:
        assert await (await conn.execute("select count(*) from customers")).fetchone() == (0,)


async def hold_still(db: Database, shop_id: ShopId) -> None:
    async with db.shop(shop_id) as conn:
        await conn.execute("insert into customers (shop_id, shopify_customer_id) values (%s, 7)", (shop_id,))
        await (await conn.execute("select set_config('idle_in_transaction_session_timeout', '50ms', true)")).fetchone()
        await asyncio.sleep(0.5)
        await (await conn.execute("select 1")).fetchone()


async def test_a_transaction_that_fails_leaves_nothing(db: Database, shop_id: ShopId) -> None:
    with pytest.raises(RuntimeError, match="changed my mind"):
        await fail_in_transaction(db, shop_id, RuntimeError("changed my mind"))
    async with db.shop(shop_id) as conn:
        assert await (await conn.execute("select count(*) from customers")).fetchone() == (0,)


async def test_an_error_nobody_waited_for_is_raised_at_the_end_and_nothing_is_kept(
    db: Database, shop_id: ShopId
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        await add_customers(db, shop_id, 7, -1)
    async with db.shop(shop_id) as conn:
        assert await (await conn.execute("select count(*) from customers")).fetchone() == (0,)


async def test_a_lost_connection_is_told_as_such_and_the_next_one_works(
    db: Database, shop_id: ShopId, owner: psycopg.Connection
) -> None:
    with pytest.raises(DatabaseUnusable, match="lost"):
        await lose_connection(db, shop_id, owner)
    async with db.shop(shop_id) as conn:
        assert await (await conn.execute("select 1")).fetchone() == (1,)
