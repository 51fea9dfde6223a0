"""What the tests of tokens and installations share: a shop of Shopify's that has the app, and the app's own parts."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
from sync_support import DEFINITION, DOMAIN, SLOT, TOKEN, VAULT

from devstore import DevStore, ShopSpec
from devstore.app import CLIENT_ID, CLIENT_SECRET
from devstore.frame import id_token
from devstore.gids import Gid
from devstore.installing import install as install_in_shopify
from metafield_sync.db.database import Database
from metafield_sync.shopify import AdminClient
from metafield_sync.shopify.app import AppCredentials, IdToken
from metafield_sync.shopify.app.tokens import AppTokens, TokenPair
from metafield_sync.shops import registry
from metafield_sync.shops.vault import Vault
from metafield_sync.sync.drain import Mirror
from metafield_sync.sync.install import store as installations
from metafield_sync.sync.install.begin import install
from metafield_sync.sync.install.steps import take_step

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import psycopg

    from devstore import Shop as DevShop
    from metafield_sync.db.database import ShopId
    from metafield_sync.shops.registry import Shop
    from metafield_sync.sync.install.begin import Installed
    from metafield_sync.sync.install.store import Choice, Installation

CREDENTIALS = AppCredentials(CLIENT_ID, CLIENT_SECRET)
STEPS_MAX = 400


@dataclass
class AppStage:
    """A shop of Shopify's, and the app, which may or may not have been given anything there."""

    db: Database
    owner: psycopg.Connection
    store: DevStore
    mirror: Mirror
    app: AppTokens

    @property
    def shopify(self) -> DevShop:
        return self.store.shop(DOMAIN)

    def values(self) -> dict[int, str]:
        return self.shopify.metafields.dump(SLOT)

    def show(self, customer: int, value: str, kind: str = "number_integer") -> None:
        """Have a customer show something, as another app would."""
        self.shopify.put_metafield(Gid("Customer", customer), SLOT.namespace, SLOT.key, value, kind)

    def id_token(self) -> IdToken:
        return IdToken(DOMAIN, 1, datetime.now(UTC) + timedelta(minutes=1), id_token(self.shopify))

    async def open_app(self) -> Installed:
        """As staff do in the Shopify admin: install there if need be, and exchange the ID token."""
        if not self.shopify.installation.is_installed:
            install_in_shopify(self.shopify)
        pair = await self.app.exchange(self.id_token())
        return await install(self.db, self.mirror.tokens, DOMAIN, pair, "exchanged", resume=False)

    async def give_token(self, choice: Choice | None = None) -> Installed:
        """As `shops add --access-token` does."""
        return await install(self.db, self.mirror.tokens, DOMAIN, TokenPair(TOKEN), "given", choice=choice)

    async def see_through(self, shop_id: ShopId) -> None:
        """Take every step that can be taken."""
        for _ in range(STEPS_MAX):
            async with self.mirror.short_turn(shop_id, even_if_held=True) as turn:
                again_s = await take_step(turn)
            if again_s is None:
                return
            await asyncio.sleep(min(again_s, 0.02))
        raise AssertionError("the installation does not come to an end")

    async def shop(self, shop_id: ShopId) -> Shop:
        async with self.db.unscoped() as conn:
            return await registry.get_shop(conn, shop_id)

    async def installation(self, shop_id: ShopId) -> Installation:
        async with self.db.shop(shop_id) as conn:
            found = await installations.find_installation(conn, shop_id)
        assert found is not None
        return found

    def token_lapses_in(self, seconds: float) -> None:
        """As if so little of the access token's hour were left, by our record."""
        self.owner.execute(
            "update shops set token_expires_at = clock_timestamp() + make_interval(secs => %s)", (seconds,)
        )

    def grants(self) -> int:
        """How many tokens Shopify has given out."""
        return len(self.shopify.installation.grants())

    def balances(self) -> dict[int, int]:
        rows = self.owner.execute("select shopify_customer_id, current_balance from customers").fetchall()
        return {row[0]: row[1] for row in rows}

    def writes(self) -> int:
        return len(list(self.store.world.calls.select(shop=DOMAIN, operation="metafieldsSet")))

    def noted_errands(self) -> set[str]:
        return {row[0] for row in self.owner.execute("select kind from errands").fetchall()}


@asynccontextmanager
async def open_app_mirror(
    db: Database,
    store: DevStore,
    *,
    vault: Vault = VAULT,
    origin: str | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncGenerator[tuple[Mirror, AppTokens]]:
    """A mirror that can renew tokens, with connections of its own, as another process would have one."""
    async with httpx.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), transport=transport) as http:
        origin = origin or store.admin_origin
        client = AdminClient(http, origin=origin, api_version="2026-10")
        app = AppTokens(CREDENTIALS, origin, http)
        yield Mirror(db, client, vault, DEFINITION, app=app), app


@asynccontextmanager
async def open_app_stage(
    db: Database,
    owner: psycopg.Connection,
    *,
    customers: int = 30,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncGenerator[AppStage]:
    async with (
        DevStore([ShopSpec(DOMAIN, TOKEN, customers=customers)]) as store,
        open_app_mirror(db, store, transport=transport) as parts,
    ):
        yield AppStage(db, owner, store, *parts)
