"""The API as callers meet it: a real server on loopback, a real database, the devstore for Shopify."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from app_calls import CLIENT_ID, OLD_SECRET, SECRET
from cryptography.fernet import Fernet
from pydantic import SecretStr
from web_support import served

from devstore import DevStore, ShopSpec, ShopState
from devstore.metafields import Slot
from metafield_sync.runtime import Runtime, open_runtime
from metafield_sync.settings import Settings
from metafield_sync.shops.api_keys import create_key
from metafield_sync.shops.registry import Shop, add_shop

DOMAIN = "demo.myshopify.com"
TOKEN = "shpat_of_the_tests"  # noqa: S105 - the devstore's, not a secret
CUSTOMERS = 60


@dataclass
class Api:
    """A caller with a key that may write; `reader` has one that may not."""

    http: httpx.AsyncClient
    reader: httpx.AsyncClient
    anonymous: httpx.AsyncClient
    runtime: Runtime
    shop: Shop
    store: DevStore

    async def post_points(self, shopify_customer_id: int, amount: int, **more: Any) -> dict[str, Any]:
        """Post points and return the answer's document."""
        body = {"shopifyCustomerId": str(shopify_customer_id), "amount": amount, "reason": "test", **more}
        answer = await self.http.post("/api/ledger", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def metafields(self) -> dict[int, int]:
        """What Shopify shows: Shopify customer id → points."""
        shown = self.store.shop(DOMAIN).metafields.dump(Slot("CUSTOMER", "loyalty", "points_balance"))
        return {customer: int(value) for customer, value in shown.items()}

    def put_shop(self, state: ShopState) -> None:
        """Freeze the shop at Shopify, or thaw it."""
        shop = self.store.shop(DOMAIN)
        shop.change(state=state, token=shop.token, plan=shop.budget.plan)

    def writes(self) -> int:
        """How many metafieldsSet calls Shopify has seen."""
        return sum(entry.operation == "metafieldsSet" for entry in self.store.world.calls.entries)


@pytest.fixture
async def store() -> AsyncIterator[DevStore]:
    async with DevStore([ShopSpec(DOMAIN, TOKEN, customers=CUSTOMERS)]) as running:
        yield running


@pytest.fixture
def rate_limit_per_s() -> int:
    """A test that names another has it."""
    return 2000


@pytest.fixture
def settings(database_url: str, store: DevStore, rate_limit_per_s: int) -> Settings:
    return Settings.load(
        database_url=database_url,
        shopify_admin_origin=store.admin_origin,
        encryption_keys=(Fernet.generate_key().decode(),),
        rate_limit_per_s=rate_limit_per_s,
        shopify_api_key=CLIENT_ID,
        shopify_api_secret=SecretStr(SECRET),
        shopify_api_secret_old=SecretStr(OLD_SECRET),
    )


@pytest.fixture
async def api(settings: Settings, store: DevStore) -> AsyncIterator[Api]:
    async with open_runtime(settings) as runtime, served(runtime) as origin:
        async with runtime.db.unscoped() as conn:
            shop, _ = await add_shop(conn, DOMAIN, runtime.vault.seal(TOKEN))
        async with runtime.db.shop(shop.id) as conn:
            writer = await create_key(conn, shop.id, name="tests", scope="write")
            reader = await create_key(conn, shop.id, name="reads", scope="read")
        client = client_for(origin)
        async with client(writer) as http, client(reader) as reads, client(None) as anonymous:
            yield Api(http, reads, anonymous, runtime, shop, store)


@pytest.fixture
async def without_secret(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A caller of the application as it is before it is an app of Shopify's."""
    unset = {"shopify_api_key": None, "shopify_api_secret": None, "shopify_api_secret_old": None}
    bare = settings.model_copy(update=unset)
    async with open_runtime(bare) as runtime, served(runtime) as origin, client_for(origin)(None) as http:
        yield http


def client_for(origin: str) -> Callable[[str | None], httpx.AsyncClient]:
    def make(key: str | None) -> httpx.AsyncClient:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        # A bare context: loading the machine's certificates takes longer than a test here, and nothing is https.
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return httpx.AsyncClient(base_url=origin, headers=headers, timeout=60, verify=bare)

    return make
