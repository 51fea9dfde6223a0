"""Where everything is wired together: settings in, the working parts out, in the order they depend on one another."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio.to_thread
import httpx
import structlog

from metafield_sync.db.database import Database
from metafield_sync.db.embedded import EmbeddedPostgres
from metafield_sync.db.migrate import migrate
from metafield_sync.errors import AppError
from metafield_sync.shopify import AdminClient, DefinitionSpec
from metafield_sync.shopify.app import AppCredentials, Verifier
from metafield_sync.shopify.app.home import AppHome, stand_in_origin
from metafield_sync.shopify.app.tickets import Forms
from metafield_sync.shopify.app.tokens import AppTokens
from metafield_sync.shops.registry import list_shops
from metafield_sync.shops.vault import Vault
from metafield_sync.sync.drain import Mirror
from metafield_sync.sync.runs import Runs
from metafield_sync.sync.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from metafield_sync.settings import Settings

DEFINITION_NAME = "Points balance"
DEFINITION_DESCRIPTION = (
    "Loyalty points, kept equal to the points ledger by metafield-sync. A display copy: edits are overwritten."
)


EMBEDDED_POLL_S = 2.0
"""How soon it is noticed that the embedded PostgreSQL was killed."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class AppParts:
    """What only an app with a secret has."""

    verifier: Verifier
    tokens: AppTokens
    home: AppHome
    forms: Forms


@dataclass(frozen=True, slots=True)
class Runtime:
    """The working parts, open and ready. `app` is None where SHOPIFY_API_SECRET is unset."""

    settings: Settings
    db: Database
    vault: Vault
    mirror: Mirror
    runs: Runs
    schedule: Schedule
    app: AppParts | None


def wanted_definition(settings: Settings) -> DefinitionSpec:
    """The metafield definition that every shop should have."""
    return DefinitionSpec(
        namespace=settings.metafield_namespace,
        key=settings.metafield_key,
        name=DEFINITION_NAME,
        description=DEFINITION_DESCRIPTION,
        storefront=settings.metafield_storefront_access,
    )


async def require_readable_tokens(runtime: Runtime) -> None:
    """Make sure, before anything is pushed, that ENCRYPTION_KEYS opens every stored access token.

    Raises:
        TokenUnreadable: it does not; the detail names the setting.
    """
    async with runtime.db.unscoped() as conn:
        shops = await list_shops(conn)
    for shop in shops:
        if shop.access_token is not None:
            runtime.vault.open(shop.access_token)


@asynccontextmanager
async def open_runtime(settings: Settings) -> AsyncGenerator[Runtime]:
    """Start what has to be started, bring the schema up to date, connect; undo it all in reverse at the end.

    Raises:
        AppError: a part cannot be had; the detail says which and what to do.
    """
    async with AsyncExitStack() as stack:
        if settings.database_url is None:
            where = await stack.enter_async_context(_embedded(settings))
        else:
            where = _Where(settings.database_url)
        await anyio.to_thread.run_sync(migrate, settings.database_owner_url or where.url, where.url)
        db = await stack.enter_async_context(Database(lambda: where.url))
        http = await stack.enter_async_context(httpx.AsyncClient())
        client = AdminClient(http, origin=settings.shopify_admin_origin, api_version=settings.shopify_api_version)
        vault = Vault(settings.encryption_keys)
        definition = wanted_definition(settings)
        app = _app_parts(settings, http)
        mirror = Mirror(
            db,
            client,
            vault,
            definition,
            backfill_threshold=settings.backfill_threshold,
            app=None if app is None else app.tokens,
        )
        runs = Runs(mirror)
        stack.push_async_callback(runs.close)
        yield Runtime(settings, db, vault, mirror, runs, Schedule.of(settings), app)


def _app_parts(settings: Settings, http: httpx.AsyncClient) -> AppParts | None:
    if settings.shopify_api_secret is None:
        return None
    old = settings.shopify_api_secret_old
    credentials = AppCredentials(
        settings.shopify_api_key,
        settings.shopify_api_secret.get_secret_value(),
        None if old is None else old.get_secret_value(),
    )
    return AppParts(
        Verifier(credentials),
        AppTokens(credentials, settings.shopify_admin_origin, http),
        AppHome(credentials, settings.public_url, stand_in_origin(settings.shopify_admin_origin)),
        Forms(credentials.client_secret),
    )


@dataclass(slots=True)
class _Where:
    """Where the database is; an embedded one that was started again may be elsewhere."""

    url: str


@asynccontextmanager
async def _embedded(settings: Settings) -> AsyncGenerator[_Where]:
    """The embedded PostgreSQL, started, and started again whenever it is killed."""
    server = EmbeddedPostgres(settings.data_dir)
    where = _Where(await anyio.to_thread.run_sync(server.start))
    watch = asyncio.create_task(_revive_forever(server, where), name="embedded PostgreSQL")
    try:
        yield where
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await anyio.to_thread.run_sync(server.stop)


async def _revive_forever(server: EmbeddedPostgres, where: _Where) -> None:
    while True:
        await asyncio.sleep(EMBEDDED_POLL_S)
        try:
            if not await anyio.to_thread.run_sync(server.has_died):
                continue
            log.error("the embedded PostgreSQL was killed; starting it again")
            where.url = await anyio.to_thread.run_sync(server.start)
        except (AppError, OSError) as error:
            log.exception("the embedded PostgreSQL does not start", error=str(error))
        else:
            log.info("the embedded PostgreSQL runs again")
