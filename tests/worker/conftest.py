"""Fixtures of the worker's tests."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import httpx
import pytest
from cryptography.fernet import Fernet
from worker_support import DOMAINS, Shops

from devstore import DevStore, ShopSpec
from metafield_sync.shopify import AdminClient, DefinitionSpec
from metafield_sync.shops.registry import add_shop
from metafield_sync.shops.vault import Vault
from metafield_sync.sync.drain import Mirror
from metafield_sync.sync.runs import Runs
from metafield_sync.sync.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from metafield_sync.db.database import Database

DEFINITION = DefinitionSpec("loyalty", "points_balance", "Points", "What a customer may spend.", "PUBLIC_READ")
TOKEN = "shpat_of_the_tests"  # noqa: S105 - opens the tests' own devstore


@pytest.fixture
async def shops(db: Database) -> AsyncIterator[Shops]:
    vault = Vault([Fernet.generate_key().decode()])
    specs = [ShopSpec(domain, TOKEN, customers=30) for domain in DOMAINS]
    # A bare context: loading the machine's certificates takes longer than a test here, and nothing is https.
    async with (
        DevStore(specs) as store,
        httpx.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as http,
    ):
        client = AdminClient(http, origin=store.admin_origin, api_version="2026-10")

        def mirror_by(way: Database) -> Mirror:
            return Mirror(way, client, vault, DEFINITION)

        mirror = mirror_by(db)
        async with db.unscoped() as conn:
            ids = {domain: (await add_shop(conn, domain, vault.seal(TOKEN)))[0].id for domain in DOMAINS}
        runs = Runs(mirror)
        yield Shops(db, store, mirror, runs, Schedule({}, 400), ids, mirror_by)
        await runs.close()
