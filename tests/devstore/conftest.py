"""Fixtures of the devstore's tests: a shop without HTTP (`bench`) and a real server (`store`, `remote`)."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import httpx
import pytest
from app_support import CLIENT_ID, SECRET, Receiver, receiving
from devstore_support import DOMAIN, TOKEN, Bench, BulkClient, Remote, make_bench

from devstore import DevStore, ManualClock, ShopSpec, subscribe
from devstore.admin import AdminApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(scope="session")
def api() -> AdminApi:
    return AdminApi()


@pytest.fixture
def bench(api: AdminApi) -> Bench:
    return make_bench(api)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(clock: ManualClock) -> AsyncIterator[DevStore]:
    shops = [
        ShopSpec(DOMAIN, TOKEN, customers=30),
        ShopSpec("other.myshopify.com", "shpat_other", customers=3),
    ]
    async with DevStore(shops, clock=clock.clock) as running:
        yield running


@pytest.fixture
async def remote(store: DevStore) -> AsyncIterator[Remote]:
    # A bare context: loading the machine's certificates takes longer than a test here, and nothing is https.
    async with httpx.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as http:
        yield Remote(http, store.origin)


@pytest.fixture
def bulk(remote: Remote, store: DevStore) -> BulkClient:
    return BulkClient(remote, store)


@pytest.fixture
async def app(store: DevStore) -> AsyncIterator[Receiver]:
    """The app of the shops: it is installed in both of them, and subscribed to a few topics."""
    topics = ("shop/update", "app/uninstalled", "app/scopes_update", "shop/redact", "bulk_operations/finish")
    async with receiving() as receiver:
        known = {"url": receiver.url, "client_id": CLIENT_ID, "client_secret": SECRET}
        store.world.app.change({**known, "subscriptions": subscribe(topics)})
        yield receiver
