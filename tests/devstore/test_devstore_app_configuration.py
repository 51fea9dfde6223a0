"""What a shopify.app.toml says of the app, and the command line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from devstore_support import DOMAIN

from devstore import App, AppSubscription, DevStore, ShopSpec
from devstore.__main__ import main

TOML = """
client_id = "abc"
name = "Loyalty"
handle = "loyalty"
application_url = "https://app.example.com"
[access_scopes]
scopes = "write_customers, read_orders"
[app_proxy]
url = "https://app.example.com/proxy"
prefix = "tools"
subpath = "loyal"
[webhooks]
api_version = "2026-07"
[[webhooks.subscriptions]]
topics = ["orders/paid", "orders/updated"]
uri = "/webhooks"
include_fields = ["id"]
[[webhooks.subscriptions]]
compliance_topics = ["shop/redact"]
uri = "https://elsewhere.example.com/redact"
name = "redact"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shopify.app.toml"
    path.write_text(TOML, encoding="utf-8")
    return path


def test_a_configuration_is_taken_over(file: Path) -> None:
    app = App(url="http://127.0.0.1:8000")
    app.configure(file)
    assert (app.client_id, app.title, app.handle, app.api_version) == ("abc", "Loyalty", "loyalty", "2026-07")
    assert app.scopes == ("write_customers", "read_orders")
    assert (app.proxy_prefix, app.proxy_subpath, app.proxy_path) == ("tools", "loyal", "/proxy")
    assert app.subscriptions == (
        AppSubscription("orders/paid", "/webhooks", ("id",)),
        AppSubscription("orders/updated", "/webhooks", ("id",)),
        AppSubscription("shop/redact", "https://elsewhere.example.com/redact", None, "redact"),
    )
    assert app.url == "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("url", "path", "address"),
    [
        ("http://app.test", "/webhooks", "http://app.test/webhooks"),
        ("http://app.test/", "webhooks", "http://app.test/webhooks"),
        ("http://app.test/below", "/webhooks", "http://app.test/below/webhooks"),
        ("http://app.test", "https://other.test/x", "https://other.test/x"),
        (None, "/webhooks", None),
        (None, "https://other.test/x", "https://other.test/x"),
    ],
)
def test_a_path_is_below_the_apps_address(url: str | None, path: str, address: str | None) -> None:
    assert App(url=url).address(path) == address


@pytest.mark.parametrize("text", ["= ", "webhooks = 7", "[[webhooks.subscriptions]]\ntopics = ['orders/paid']"])
def test_a_configuration_that_is_none_stops_the_start(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "shopify.app.toml"
    path.write_text(text, encoding="utf-8")
    assert main(["--token", "t", "--app-config", str(path)]) == 2
    assert capsys.readouterr().err.startswith("devstore: ")


def test_a_shop_without_a_token_needs_an_app(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--shop", DOMAIN]) == 2
    assert "token" in capsys.readouterr().err


async def test_a_shop_without_a_token_begins_without_the_app_and_gets_the_scopes_it_asks_for(file: Path) -> None:
    app = App()
    app.configure(file)
    async with DevStore([ShopSpec(DOMAIN), ShopSpec("other.myshopify.com", "shpat_other")], app=app) as store:
        assert not store.shop(DOMAIN).installation.is_installed
        assert store.shop("other.myshopify.com").installation.scopes == ("write_customers", "read_orders")


def test_the_projects_own_configuration_can_be_read() -> None:
    app = App()
    app.configure(Path(__file__).parents[2] / "shopify.app.toml")
    assert {one.topic for one in app.subscriptions} >= {"app/uninstalled", "customers/redact"}
    assert (app.proxy_prefix, app.proxy_subpath, app.proxy_path) == ("apps", "points", "/proxy")
