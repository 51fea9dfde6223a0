"""A real browser: Debian's Chromium through Playwright, with nothing of anybody's in its profile."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from browser_support import DOMAIN, WAIT_S, Seen, eventually
from cryptography.fernet import Fernet
from playwright.sync_api import expect, sync_playwright

from devstore import App, DevStore, ShopSpec
from metafield_sync.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
CUSTOMERS = 12
CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
APP_BRIDGE = "https://cdn.shopify.com/shopifycloud/app-bridge.js"
ADDRESS = re.compile(r'"address": ?"(http://[^"]+)"')


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a file. While it is open its loop runs in this thread, and no other can."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        reason = "NO CHROMIUM on this machine (Debian: apt install chromium): what people see is not tested"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    expect.set_options(timeout=1_000 * WAIT_S)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*CHROMIUM_OPTIONS])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, store: DevStore) -> Iterator[Page]:
    """A page in a window of its own. Shopify's App Bridge, which cannot be reached from here, is the devstore's."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(1_000 * WAIT_S)
    bridge = httpx.get(f"{store.origin}/_devstore/app-bridge.js", trust_env=False).text
    context.route(APP_BRIDGE, lambda route: route.fulfill(body=bridge, content_type="text/javascript"))
    page = context.new_page()
    yield page
    context.close()


@pytest.fixture
def store() -> Iterator[DevStore]:
    """A store that has never heard of the app, but for its address and its `shopify.app.toml`."""
    app = App()
    client_id = app.client_id
    app.configure(ROOT / "shopify.app.toml")
    app.client_id = client_id
    with DevStore([ShopSpec(DOMAIN, customers=CUSTOMERS)], app=app) as store:
        yield store


@pytest.fixture
def seen(store: DevStore, servers: Any, tmp_path: Path) -> Iterator[Seen]:
    """Our program at work on an empty database, its tables its own to make, and the store told where it is."""
    url = servers.empty("embedded")
    app = store.world.app
    ours = {name.upper() for name in Settings.model_fields}
    environment = {name: value for name, value in os.environ.items() if name not in ours} | {
        "DATABASE_URL": url,
        "ENCRYPTION_KEYS": Fernet.generate_key().decode(),
        "SHOPIFY_API_KEY": app.client_id,
        "SHOPIFY_API_SECRET": app.client_secret,
        "SHOPIFY_ADMIN_ORIGIN": store.admin_origin,
        "LOG_FORMAT": "json",
    }
    log = tmp_path / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "metafield_sync", "serve", "--port", "0"], env=environment, stderr=output
        )
    try:
        eventually(lambda: ADDRESS.search(log.read_text()) is not None, log.read_text)
        found = ADDRESS.search(log.read_text())
        assert found is not None
        seen = Seen(store, app, found[1], url)
        seen.control("PATCH", "/app", {"url": found[1]})
        yield seen
    finally:
        process.terminate()
        process.wait()
