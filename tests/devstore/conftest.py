"""Fixtures of the devstore's tests: a shop without HTTP (`bench`) and a real server (`store`, `remote`)."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import httpx
import pytest
from devstore_support import DOMAIN, TOKEN, Bench, BulkClient, Remote, make_bench

from devstore import DevStore, ManualClock, ShopSpec
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
