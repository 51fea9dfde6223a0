"""Where everything is wired together: settings in, the working parts out, in the order they depend on one another."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio.to_thread
import httpx

from metafield_sync.db.database import Database
from metafield_sync.db.embedded import EmbeddedPostgres
from metafield_sync.db.migrate import migrate
from metafield_sync.shopify import AdminClient, DefinitionSpec
from metafield_sync.shops.registry import list_shops
from metafield_sync.shops.vault import Vault
from metafield_sync.sync.drain import Mirror
from metafield_sync.sync.runs import Runs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from metafield_sync.settings import Settings

DEFINITION_NAME = "Points balance"
DEFINITION_DESCRIPTION = (
    "Loyalty points, kept equal to the points ledger by metafield-sync. A display copy: edits are overwritten."
)


@dataclass(frozen=True, slots=True)
class Runtime:
    """The working parts, open and ready."""

    settings: Settings
    db: Database
    vault: Vault
    mirror: Mirror
    runs: Runs


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
        url = settings.database_url
        if url is None:
            server = EmbeddedPostgres(settings.data_dir)
            url = await anyio.to_thread.run_sync(server.start)
            stack.push_async_callback(anyio.to_thread.run_sync, server.stop)
        await anyio.to_thread.run_sync(migrate, settings.database_owner_url or url, url)
        db = await stack.enter_async_context(Database(url))
        http = await stack.enter_async_context(httpx.AsyncClient())
        client = AdminClient(http, origin=settings.shopify_admin_origin, api_version=settings.shopify_api_version)
        vault = Vault(settings.encryption_keys)
        definition = DefinitionSpec(
            namespace=settings.metafield_namespace,
            key=settings.metafield_key,
            name=DEFINITION_NAME,
            description=DEFINITION_DESCRIPTION,
            storefront=settings.metafield_storefront_access,
        )
        mirror = Mirror(db, client, vault, definition)
        runs = Runs(mirror)
        stack.push_async_callback(runs.close)
        yield Runtime(settings, db, vault, mirror, runs)
