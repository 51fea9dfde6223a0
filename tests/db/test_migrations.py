"""Migrations: safe to begin anywhere, any number at once; and a start that refuses to run with too much power."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from db_support import start_at_once
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import create_engine, pool

from metafield_sync.db.database import Database
from metafield_sync.db.embedded import EmbeddedPostgres
from metafield_sync.db.migrate import (
    APP_ROLE,
    DatabaseUnusable,
    check_role,
    head_revision,
    migrate,
    migration_config,
)
from metafield_sync.ledger.posting import Posting, post
from metafield_sync.shops.registry import add_shop

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

PASSWORD = "s3cret-Pa55"  # noqa: S105 - never a real one
WISH = Posting(shopify_customer_id=7, amount=10, reason="order")


async def post_one(app_url: str) -> int:
    async with Database(app_url) as db:
        async with db.unscoped() as conn:
            shop, _ = await add_shop(conn, "first.myshopify.com", None)
        return (await post(db, shop.id, "test", WISH)).balance


@contextmanager
def login(server_url: str, attributes: str) -> Generator[str]:
    """A login of this test's own; roles belong to the whole server, so it goes again with all it owns."""
    name = f"login_{uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(f"create role {name} login {attributes}".encode())
        try:
            yield name
        finally:
            owned = conn.execute("select datname from pg_database where pg_get_userbyid(datdba) = %s", (name,))
            for (database,) in owned.fetchall():
                conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(database)))
            conn.execute(f"drop owned by {name}".encode())
            conn.execute(f"drop role {name}".encode())


@contextmanager
def no_app_role(server_url: str) -> Generator[None]:
    """Put the application's role out of the way, as on a server that has never seen it; others' grants follow it."""
    away = f"away_{uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(f"alter role {APP_ROLE} rename to {away}".encode())
        try:
            yield
        finally:
            made = conn.execute("select from pg_roles where rolname = %s", (APP_ROLE,)).fetchone()
            if made is not None:
                conn.execute(f"drop role {APP_ROLE}".encode())
            conn.execute(f"alter role {away} rename to {APP_ROLE}".encode())


@pytest.mark.parametrize("starts", [2, 5])
async def test_starts_at_once_on_an_empty_database_are_safe(empty_database_url: str, starts: int) -> None:
    start_at_once([empty_database_url] * starts)
    assert migrate(empty_database_url, empty_database_url) == []
    assert await post_one(empty_database_url) == 10


def test_first_starts_at_once_on_a_new_server_make_one_role_for_all_databases(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path, settings={"fsync": "off"}) as server:
        url = server.start()
        with psycopg.connect(url, autocommit=True) as conn:
            names = ["one", "two"]
            for name in names:
                conn.execute(f"create database {name}".encode())
        start_at_once([make_conninfo(url, dbname=name) for name in names * 2])
        for name in names:
            check_role(make_conninfo(url, dbname=name))


def test_migrating_again_does_nothing(empty_database_url: str) -> None:
    applied = migrate(empty_database_url, empty_database_url)
    assert applied[-1] == head_revision()
    assert migrate(empty_database_url, empty_database_url) == []


def test_a_database_newer_than_the_program_is_refused(database_url: str, owner: psycopg.Connection) -> None:
    owner.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(DatabaseUnusable, match=r"9999.*newer version") as refused:
        migrate(database_url, database_url)
    assert refused.value.exit_status == 2


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://someone:{PASSWORD}@127.0.0.1:1/points",
        f"postgresql://someone:{PASSWORD}@127.0.0.1:nonsense/points",
        f"postgresql://someone:{PASSWORD}@[::1/points",
        f"postgresql://someone:{PASSWORD}@127.0.0.1:1/points?nonsense=1",
        f"postgresql://someone:%zz{PASSWORD}@127.0.0.1:1/points",
    ],
)
def test_an_unreachable_server_is_one_line_without_the_password(url: str) -> None:
    with pytest.raises(DatabaseUnusable) as refused:
        migrate(url, url)
    assert "DATABASE_URL" in refused.value.detail
    assert "\n" not in refused.value.detail
    assert PASSWORD not in refused.value.detail
    assert refused.value.exit_status == 2


async def test_a_server_that_is_gone_is_told_to_whoever_asks(database_url: str) -> None:
    async with Database(make_conninfo(database_url, dbname="not_there")) as db:
        db._pool.timeout = 0.5  # pyright: ignore[reportPrivateUsage] - the real patience would only be slow
        with pytest.raises(DatabaseUnusable, match="unreachable or overloaded"):
            await post_one_with(db)


async def post_one_with(db: Database) -> None:
    async with db.unscoped() as conn:
        await conn.execute("select 1")


async def test_an_owner_who_is_no_superuser_migrates_and_runs(server_url: str) -> None:
    with no_app_role(server_url), login(server_url, "createrole createdb") as name:
        owner_url = make_conninfo(server_url, user=name)
        with psycopg.connect(owner_url, autocommit=True) as conn:
            conn.execute(f"create database {name}".encode())
        owner_url = make_conninfo(owner_url, dbname=name)
        migrate(owner_url, owner_url)
        assert await post_one(owner_url) == 10
        assert migrate(owner_url, owner_url) == []


async def test_owner_and_application_may_be_different_logins(server_url: str) -> None:
    with (
        no_app_role(server_url),
        login(server_url, "") as app,
        login(server_url, "createrole createdb") as name,
    ):
        owner_url = make_conninfo(server_url, user=name)
        with psycopg.connect(owner_url, autocommit=True) as conn:
            conn.execute(f"create database {name}".encode())
        owner_url = make_conninfo(owner_url, dbname=name)
        app_url = make_conninfo(owner_url, user=app)
        migrate(owner_url, app_url)
        assert migrate(owner_url, app_url) == []
        assert await post_one(app_url) == 10


def test_a_login_without_the_rights_to_migrate_is_told_which(server_url: str) -> None:
    with login(server_url, "createdb") as name, psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(f"create database {name}".encode())  # somebody else's, the login may only connect
        url = make_conninfo(server_url, user=name, dbname=name)
        try:
            with pytest.raises(DatabaseUnusable, match=r"lacks a right.*DATABASE_OWNER_URL"):
                migrate(url, url)
        finally:
            conn.execute(f"drop database {name}".encode())


def test_a_login_that_may_not_take_the_role_is_told_the_cure(server_url: str, database_url: str) -> None:
    with login(server_url, "") as name:
        with pytest.raises(DatabaseUnusable, match=f"grant {APP_ROLE} to") as refused:
            check_role(make_conninfo(database_url, user=name))
        assert "\n" not in refused.value.detail


@pytest.mark.parametrize(
    ("too_much", "undo", "why"),
    [
        ("alter role {} superuser", "alter role {} nosuperuser", "is a superuser"),
        ("alter role {} bypassrls", "alter role {} nobypassrls", "bypasses row-level security"),
        ("alter table api_keys owner to {}", "alter table api_keys owner to postgres", "owns api_keys"),
    ],
)
def test_a_role_with_too_much_power_is_refused(
    database_url: str, owner: psycopg.Connection, too_much: str, undo: str, why: str
) -> None:
    owner.execute(too_much.format(APP_ROLE).encode())
    try:
        with pytest.raises(DatabaseUnusable, match=why):
            migrate(database_url, database_url)
    finally:
        owner.execute(undo.format(APP_ROLE).encode())
    assert migrate(database_url, database_url) == []


def migrate_to(url: str, revision: str) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=pool.NullPool)
    with engine.connect() as connection:
        config = migration_config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def test_a_migration_gives_up_a_table_lock_soon_and_changes_nothing(empty_database_url: str) -> None:
    url = empty_database_url
    migrate_to(url, "0003")
    with psycopg.connect(url) as busy:
        busy.execute("lock table balance_corrections in row exclusive mode")  # as a posting that corrects does
        began = time.monotonic()
        with pytest.raises(DatabaseUnusable, match="gave up waiting for a lock"):
            migrate(url, url)
        assert time.monotonic() - began < 15, "postings queue behind it all the while"
        assert busy.execute("select version_num from alembic_version").fetchone() == ("0003",)
        assert busy.execute("select to_regclass('sync_runs')").fetchone() == (None,)
    assert migrate(url, url)[0] == "0004"
