"""Behind a real PgBouncer in transaction mode, where each transaction may run in another session than the last."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest
from cryptography.fernet import Fernet
from db_support import PgBouncer, start_at_once

from devstore import DevStore, ShopSpec
from devstore.metafields import Slot
from metafield_sync.db.database import Database, ShopId
from metafield_sync.db.migrate import head_revision, migrate
from metafield_sync.ledger.posting import Posting, post
from metafield_sync.ledger.verification import verify
from metafield_sync.shopify import AdminClient, DefinitionSpec
from metafield_sync.shops.registry import add_shop
from metafield_sync.shops.vault import Vault
from metafield_sync.sync.drain import Mirror
from metafield_sync.sync.runs import Runs
from metafield_sync.sync.schedule import Schedule, workers_alive
from metafield_sync.worker.loops import work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DOMAIN = "pooled.myshopify.com"
TOKEN = "shpat_of_the_tests"  # noqa: S105 - opens the tests' own devstore
DEFINITION = DefinitionSpec("loyalty", "points_balance", "Points", "What a customer may spend.", "PUBLIC_READ")
SLOT = Slot("CUSTOMER", "loyalty", "points_balance")
PATIENCE_S = 30


@pytest.fixture
async def bouncer(database_url: str) -> AsyncIterator[PgBouncer]:
    """Five sessions for everybody."""
    async with PgBouncer(database_url, server_connections=5) as bouncer:
        yield bouncer


@pytest.fixture
async def narrow(database_url: str) -> AsyncIterator[PgBouncer]:
    """One session for everybody."""
    async with PgBouncer(database_url, server_connections=1) as bouncer:
        yield bouncer


@pytest.fixture
async def pooled(bouncer: PgBouncer) -> AsyncIterator[Database]:
    async with Database(bouncer.url) as database:
        yield database


async def test_it_is_noticed_that_a_pooler_stands_in_between(db: Database, pooled: Database) -> None:
    async with pooled.connection() as conn:
        assert conn.prepare_threshold is None
    async with db.connection() as conn:
        assert conn.prepare_threshold is not None, "without one, what is prepared saves time"


async def ask_often(conn: psycopg.AsyncConnection, marker: int) -> None:
    for _ in range(10):
        assert await (await conn.execute("select %s::bigint", (marker,))).fetchone() == (marker,)
        assert await (await conn.execute("select %s::text", (str(marker),))).fetchone() == (str(marker),)


async def in_turn(connections: list[psycopg.AsyncConnection]) -> None:
    for marker, conn in enumerate(connections):
        await ask_often(conn, marker)


async def test_two_connections_in_turn_on_one_session_do_not_trip_over_prepared_statements(
    narrow: PgBouncer,
) -> None:
    async with AsyncExitStack() as stack:
        careless = [
            await stack.enter_async_context(await psycopg.AsyncConnection.connect(narrow.url, autocommit=True))
            for _ in range(2)
        ]
        with pytest.raises(psycopg.Error, match="prepared statement"):
            await asyncio.wait_for(in_turn(careless * 2), PATIENCE_S)
        databases = [await stack.enter_async_context(Database(narrow.url, connections_max=1)) for _ in range(2)]
        for marker, database in enumerate(databases * 3):
            async with database.unscoped() as conn:
                await ask_often(conn, marker)
            async with database.connection() as conn:
                await ask_often(conn, marker)


async def test_times_are_read_in_utc_whatever_zone_the_server_is_in_and_others_leave_behind(
    database_url: str, owner: psycopg.Connection
) -> None:
    owner.execute(f"alter database \"{owner.info.dbname}\" set timezone to 'America/Caracas'".encode())
    async with (
        PgBouncer(database_url, server_connections=1) as narrow,
        Database(narrow.url, connections_max=1) as database,
        await psycopg.AsyncConnection.connect(narrow.url, autocommit=True, prepare_threshold=None) as other,
    ):
        for _ in range(3):
            await other.execute("set timezone to 'Pacific/Kiritimati'")
            async with database.unscoped() as conn:
                row = await (
                    await conn.execute("select current_setting('timezone'), timestamptz '2026-11-22 12:00Z'")
                ).fetchone()
            assert row is not None
            zone, moment = row
            assert zone == "UTC"
            assert isinstance(moment, datetime)
            assert moment.utcoffset() == timedelta(0)


async def test_postings_in_parallel_lose_nothing_and_leave_nothing_behind(
    pooled: Database, bouncer: PgBouncer, owner: psycopg.Connection
) -> None:
    async with pooled.unscoped() as conn:
        shops = [(await add_shop(conn, f"shop-{n}.myshopify.com", None))[0].id for n in range(3)]
    wishes = [(shop, customer) for shop in shops for customer in range(1, 6) for _ in range(20)]

    async def post_one(database: Database, shop: ShopId, customer: int) -> None:
        await post(database, shop, "test", Posting(shopify_customer_id=customer, amount=1, reason="order"))

    async with Database(bouncer.url) as other:
        await asyncio.gather(
            *(post_one((pooled, other)[n % 2], shop, customer) for n, (shop, customer) in enumerate(wishes))
        )
    stored = owner.execute("select shop_id, shopify_customer_id, current_balance from customers").fetchall()
    assert {(shop, customer): balance for shop, customer, balance in stored} == Counter(wishes)
    for shop in shops:
        assert await verify(pooled, shop) == []
    async with await psycopg.AsyncConnection.connect(bouncer.url, autocommit=True, prepare_threshold=None) as plain:
        for _ in range(10):
            left = await plain.execute(
                "select current_user = session_user, coalesce(current_setting('metafield_sync.shop_id', true), '')"
            )
            assert await left.fetchone() == (True, "")


async def test_migrations_run_through_it_several_starts_at_once(empty_database_url: str) -> None:
    async with PgBouncer(empty_database_url, server_connections=5) as bouncer:
        await asyncio.to_thread(start_at_once, [bouncer.url] * 3)
        assert await asyncio.to_thread(migrate, bouncer.url, bouncer.url) == []
        with psycopg.connect(empty_database_url) as conn:
            assert conn.execute("select version_num from alembic_version").fetchall() == [(head_revision(),)]


async def test_the_program_works_through_it(pooled: Database, owner: psycopg.Connection) -> None:
    vault = Vault([Fernet.generate_key().decode()])
    async with (
        DevStore([ShopSpec(DOMAIN, TOKEN, customers=30)]) as store,
        httpx.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as http,
    ):
        mirror = Mirror(pooled, AdminClient(http, origin=store.admin_origin, api_version="2026-10"), vault, DEFINITION)
        runs = Runs(mirror)

        def shown() -> dict[int, str]:
            return store.shop(DOMAIN).metafields.dump(SLOT)

        async def post_one(customer: int) -> None:
            await post(pooled, shop_id, "test", Posting(shopify_customer_id=customer, amount=customer, reason="order"))

        async with pooled.unscoped() as conn:
            shop_id = (await add_shop(conn, DOMAIN, vault.seal(TOKEN)))[0].id
        await asyncio.gather(*(post_one(customer) for customer in range(1, 11)))
        run = await runs.wait(
            shop_id, await runs.request(shop_id, kind="sync", trigger="api", forced=True), wait_s=PATIENCE_S
        )
        assert run.result is not None
        assert (run.result["synced"], run.result["errors"]) == (10, 0)
        assert shown() == {n: str(n) for n in range(1, 11)}

        # The worker: what is posted is pushed, and the verification that was missed is made up for.
        owner.execute("update customers set current_balance = 0 where shopify_customer_id = 7")
        owner.execute("insert into schedule_ticks (kind, tick_at) values ('verify', '2026-01-01')")
        working = asyncio.create_task(work(mirror, runs, Schedule({"verify": "0 */6 * * *"}, 400)))
        await asyncio.gather(*(post_one(customer) for customer in range(1, 11)))
        verified = """
        select
          (select count(*) from sync_runs where trigger = 'schedule' and status = 'done'),
          (select count(*) from procrastinate_jobs)
        """
        deadline = time.monotonic() + PATIENCE_S
        while owner.execute(verified).fetchone() != (1, 0) or shown() != {n: str(2 * n) for n in range(1, 11)}:
            assert time.monotonic() < deadline, shown()
            await asyncio.sleep(0.05)
        async with pooled.unscoped() as conn:
            assert await workers_alive(conn) == 1
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        await runs.close()
    assert await verify(pooled, shop_id) == []


async def test_a_database_with_another_isolation_by_default_is_worked_with_as_with_any(
    database_url: str, owner: psycopg.Connection
) -> None:
    name = owner.info.dbname
    owner.execute(f'alter database "{name}" set default_transaction_isolation to "repeatable read"'.encode())
    async with PgBouncer(database_url, server_connections=5) as bouncer:
        for url in (database_url, bouncer.url):
            async with Database(url) as database:
                async with database.unscoped() as conn:
                    shop_id = (await add_shop(conn, DOMAIN, None))[0].id
                    level = await (await conn.execute("select current_setting('transaction_isolation')")).fetchone()
                assert level == ("read committed",)
                wish = Posting(shopify_customer_id=1, amount=1, reason="order")
                await asyncio.gather(*(post(database, shop_id, "test", wish) for _ in range(50)))
    assert owner.execute("select current_balance from customers").fetchone() == (100,)
