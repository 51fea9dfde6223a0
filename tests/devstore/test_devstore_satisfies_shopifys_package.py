"""What the devstore sends and answers satisfies Shopify's own Python package, which knows nothing of either."""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

import httpx
import pytest
from app_support import CLIENT_ID, SECRET, Received, Receiver, receiving
from devstore_support import DOMAIN
from shopify_app import ShopifyApp

from devstore import App, DevStore, ShopSpec, subscribe
from devstore.frame import frame_address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shopify_app.types import RequestInput

SHOP = DOMAIN.partition(".")[0]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as running:
        yield running


@pytest.fixture
async def store(receiver: Receiver) -> AsyncIterator[DevStore]:
    # By the real clock: the package compares with it.
    app = App(CLIENT_ID, SECRET, url=receiver.url, subscriptions=subscribe(["shop/update"]))
    async with DevStore([ShopSpec(DOMAIN, "shpat_made_up", customers=9)], app=app) as running:
        yield running


@pytest.fixture
def package() -> ShopifyApp:
    return ShopifyApp(client_id=CLIENT_ID, client_secret=SECRET)


@pytest.fixture
async def client(store: DevStore) -> AsyncIterator[httpx.AsyncClient]:
    """A client for which the shop's domain leads to the devstore."""

    async def lead(request: httpx.Request) -> None:
        origin = httpx.URL(store.origin)
        request.url = request.url.copy_with(scheme=origin.scheme, host=origin.host, port=origin.port)

    verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with httpx.AsyncClient(verify=verify, event_hooks={"request": [lead]}) as http:
        yield http


def as_input(came: Received, url: str) -> RequestInput:
    address = f"{url}{came.path}?{urlencode(came.query)}"
    return {"method": came.method, "headers": dict(came.headers), "url": address, "body": came.body.decode()}


async def test_a_webhook_and_a_flow_run_are_authentic(store: DevStore, receiver: Receiver, package: ShopifyApp) -> None:
    shop = store.shop(DOMAIN)
    shop.webhooks.emit("shop/update", {"name": "Zoë's", "id": "gid://shopify/Shop/1"})
    await shop.webhooks.settle()
    shop.flow.run("adjust-points", {"customer_id": "7"})
    await shop.flow.settle()
    webhook, flow = (as_input(came, receiver.url) for came in receiver.received)
    assert package.verify_webhook_req(webhook).ok
    assert package.verify_flow_action_req(flow).ok
    assert not package.verify_webhook_req({**webhook, "body": webhook["body"] + " "}).ok


async def test_a_request_through_the_proxy_is_authentic(
    store: DevStore, receiver: Receiver, package: ShopifyApp, client: httpx.AsyncClient
) -> None:
    await client.get(f"{store.origin}/{DOMAIN}/apps/points/balance?customer=7&a=1&a=2&caf%C3%A9=%26")
    result = package.verify_app_proxy_req(as_input(receiver.received[0], receiver.url))
    assert (result.ok, result.shop, result.logged_in_customer_id) == (True, SHOP, "7")


async def test_the_frame_opens_an_address_the_app_accepts_and_its_token_is_exchanged_and_refreshed(
    store: DevStore, receiver: Receiver, package: ShopifyApp, client: httpx.AsyncClient
) -> None:
    half_typed = cast("Any", package)
    url = frame_address(store.shop(DOMAIN), f"{receiver.url}/app")
    opened = package.verify_app_home_req({"method": "GET", "headers": {}, "url": url, "body": ""}, "/patch")
    assert (opened.ok, opened.shop) == (True, SHOP)
    exchanged = await half_typed.exchange_using_token_exchange_async("offline", opened.id_token, http_client=client)
    assert exchanged.ok, exchanged.log
    token = exchanged.access_token
    assert token is not None
    assert store.shop(DOMAIN).opens(token.token)
    expired = replace(token, expires="2026-01-01T00:00:00+00:00")
    refreshed = await half_typed.refresh_token_exchanged_access_token_async(expired, http_client=client)
    assert refreshed.ok, refreshed.log
    assert refreshed.access_token is not None
    assert refreshed.access_token.token != token.token


async def test_client_credentials_give_it_a_token_and_wrong_ones_an_error_it_knows(
    store: DevStore, package: ShopifyApp, client: httpx.AsyncClient
) -> None:
    given = await package.exchange_using_client_credentials_async(SHOP, http_client=client)
    assert given.ok, given.log
    assert given.access_token is not None
    assert store.shop(DOMAIN).opens(given.access_token.token)
    stranger = ShopifyApp(client_id=CLIENT_ID, client_secret="x" * 32)
    refused = await stranger.exchange_using_client_credentials_async(SHOP, http_client=client)
    assert (refused.ok, refused.log.code) == (False, "invalid_client")
