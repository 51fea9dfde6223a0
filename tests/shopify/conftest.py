"""What these tests share: a scripted server and a client on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from scripted_server import DOMAIN, TOKEN, ScriptedServer

from metafield_sync.shopify import AdminClient, ShopAccess

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator


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
