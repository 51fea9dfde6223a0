"""Fixtures of the devstore's tests: a shop without HTTP (`bench`) and a real server (`store`, `remote`)."""

from __future__ import annotations

import os
import ssl
import warnings
from typing import TYPE_CHECKING

import httpx
import pytest
from devstore_support import DOMAIN, TOKEN, Bench, FetchFailedError, Remote, make_bench, published_schemas

from devstore import DevStore, ManualClock, ShopSpec
from devstore.admin import AdminApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from graphql import GraphQLSchema


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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


@pytest.fixture(scope="session")
def published(request: pytest.FixtureRequest) -> dict[str, GraphQLSchema]:
    """Published schemas by version. Without npm the tests are skipped with a word; in CI they fail."""
    folder = request.config.cache.mkdir("shopify-published-schema")
    try:
        return published_schemas(folder)
    except FetchFailedError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"the published schema is needed in CI: {error}")
        message = f"NOT COMPARED with Shopify's published schema: {error}"
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(message, stacklevel=1)
        pytest.skip(message)
