"""Fixtures shared by all: real PostgreSQL servers, built by the real migrations, and a database of its own per test."""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from metafield_sync.db.database import Database, ShopId
from metafield_sync.db.embedded import EmbeddedPostgres
from metafield_sync.db.migrate import migrate
from metafield_sync.shops.registry import add_shop
from published_schema import FetchFailed, fetch_published_schemas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from graphql import GraphQLSchema

SHOP_DOMAIN = "demo.myshopify.com"
TEMPLATE = "template_of_tests"
# The tests' own choice: they kill processes, never the machine's power.
SERVER_SETTINGS = {"fsync": "off", "max_connections": "200"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def system_postgres() -> Path | None:
    """The programs of another PostgreSQL on this machine, such as Debian's; None if there is none."""
    candidates = [*Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    on_path = shutil.which("postgres")
    if on_path:
        candidates.append(Path(on_path).resolve())
    return candidates[0].parent if candidates else None


class Servers:
    """The PostgreSQL servers of this test session, each started when first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._urls: dict[str, str] = {}
        self._stack = ExitStack()

    def url(self, kind: str) -> str:
        """An owner's URL of the server `embedded` or `system`, its template database built by the migrations."""
        if kind not in self._urls:
            programs = None
            if kind == "system" and (programs := system_postgres()) is None:
                reason = (
                    "NO SECOND POSTGRESQL on this machine (Debian: apt install postgresql): half the proof is missing"
                )
                if os.environ.get("CI"):
                    pytest.fail(reason)
                pytest.skip(reason)
            server = EmbeddedPostgres(self._folder / kind, bin_dir=programs, settings=SERVER_SETTINGS)
            url = server.start()
            self._stack.callback(server.stop)
            create_database(url, TEMPLATE)
            template_url = with_database(url, TEMPLATE)
            migrate(template_url, template_url)
            self._urls[kind] = url
        return self._urls[kind]

    def empty(self, kind: str) -> str:
        """An owner's URL of a new database with nothing in it; it goes with the server."""
        url, name = self.url(kind), f"test_{uuid.uuid4().hex}"
        create_database(url, name)
        return with_database(url, name)

    def close(self) -> None:
        self._stack.close()


def create_database(url: str, name: str, template: str | None = None) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        statement = sql.SQL("create database {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" template {} strategy file_copy").format(sql.Identifier(template))
        conn.execute(statement)


def drop_database(url: str, name: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def with_database(url: str, name: str) -> str:
    """The same server's URL, for another database."""
    parts = conninfo_to_dict(url)
    host = str(parts["host"]).replace("/", "%2F")
    port = parts.get("port", 5432)
    return f"postgresql://{parts.get('user')}@/{name}?host={host}&port={port}"


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("postgresql"))
    yield servers
    servers.close()


@pytest.fixture(params=["embedded", "system"])
def server_url(request: pytest.FixtureRequest, servers: Servers) -> str:
    """Each PostgreSQL there is, in turn."""
    return servers.url(request.param)


@pytest.fixture
def empty_database_url(server_url: str) -> Iterator[str]:
    """A database of this test's own with nothing in it; the login owns it."""
    name = f"test_{uuid.uuid4().hex}"
    create_database(server_url, name)
    yield with_database(server_url, name)
    drop_database(server_url, name)


@pytest.fixture
def database_url(server_url: str) -> Iterator[str]:
    """A migrated database of this test's own; the login owns it."""
    name = f"test_{uuid.uuid4().hex}"
    create_database(server_url, name, TEMPLATE)
    yield with_database(server_url, name)
    drop_database(server_url, name)


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url) as database:
        yield database


@pytest.fixture
async def shop_id(db: Database) -> ShopId:
    async with db.unscoped() as conn:
        shop, _ = await add_shop(conn, SHOP_DOMAIN, None)
    return shop.id


@pytest.fixture
def owner(database_url: str) -> Iterator[psycopg.Connection]:
    """The owner at a psql prompt: sees every shop, may damage what the application may not touch."""
    with psycopg.connect(make_conninfo(database_url), autocommit=True) as conn:
        yield conn


@pytest.fixture(scope="session")
def published_schemas(
    request: pytest.FixtureRequest,
) -> dict[str, GraphQLSchema]:
    """Shopify's schemas by version. Skips, loudly, where they cannot be fetched; in CI it fails."""
    folder: Path = request.config.cache.mkdir("shopify-published-schema")
    try:
        return fetch_published_schemas(folder)
    except FetchFailed as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"in CI the documents must be validated, but {error}")
        plugins = request.config.pluginmanager
        reporter, capture = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")
        if reporter is not None and capture is not None:
            # pytest keeps what tests print to itself; this is for the person who runs them.
            with capture.global_and_fixture_disabled():
                reporter.write_line(f"\nNOT VALIDATED against Shopify's published schema: {error}", red=True)
        pytest.skip(f"the published schema is not to be had: {error}")
