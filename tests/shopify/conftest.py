"""What these tests share: a scripted server, a client on it, and Shopify's published schemas."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import httpx
import pytest
from published_schema import FetchFailed, fetch_published_schemas
from scripted_server import DOMAIN, TOKEN, ScriptedServer

from metafield_sync.shopify import AdminClient, ShopAccess

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

    from graphql import GraphQLSchema


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def access() -> ShopAccess:
    return ShopAccess(DOMAIN, TOKEN)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as running:
        yield running


@pytest.fixture(scope="session")
def ssl_context() -> ssl.SSLContext:
    """Made once: reading the certificates takes longer than most of these tests."""
    return httpx.create_ssl_context()


@pytest.fixture
async def http(ssl_context: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=ssl_context) as client:
        yield client


@pytest.fixture
def client(http: httpx.AsyncClient, server: ScriptedServer) -> AdminClient:
    return AdminClient(http, origin=f"{server.origin}/{{shop}}", api_version="2026-10")


@pytest.fixture(scope="session")
def published_schemas(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> dict[str, GraphQLSchema]:
    """Shopify's schemas by version. Skips, loudly, where they cannot be fetched; in CI it fails."""
    folder: Path = tmp_path_factory.mktemp("published-schema")
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
