"""The storefront: who is logged in, and what the app proxy asks the app on their behalf."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

import pytest
from app_support import SECRET, Receiver
from devstore_support import DOMAIN, Remote
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    import httpx

    from devstore import DevStore

SHOP = f"/{DOMAIN}"
PROXY = f"{SHOP}/apps/points"


async def get(remote: Remote, path: str) -> httpx.Response:
    return await remote.http.get(f"{remote.origin}{path}")


def is_signed(query: list[tuple[str, str]]) -> bool:
    """As shopify.dev tells apps to check it."""
    values: dict[str, list[str]] = {}
    for name, value in query:
        values.setdefault(name, []).append(value)
    (signature,) = values.pop("signature")
    text = "".join(f"{name}={','.join(values[name])}" for name in sorted(values))
    return signature == hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()


async def test_the_app_is_asked_with_the_shop_and_the_shopper_signed(
    remote: Remote, app: Receiver, store: DevStore
) -> None:
    await get(remote, f"{PROXY}/balance?customer=7&extra=1&extra=2&caf%C3%A9=%26")
    (came,) = app.received
    assert (came.method, came.path) == ("GET", "/proxy/balance")
    now = str(store.shop(DOMAIN).now_s())
    own = [("shop", DOMAIN), ("logged_in_customer_id", "7"), ("path_prefix", "/apps/points"), ("timestamp", now)]
    assert came.query[:-1] == [("extra", "1"), ("extra", "2"), ("café", "&"), *own]
    assert is_signed(came.query)


async def test_nobody_logged_in_is_a_blank_customer(remote: Remote, app: Receiver) -> None:
    await get(remote, f"{PROXY}/balance")
    assert dict(app.received[0].query)["logged_in_customer_id"] == ""
    assert is_signed(app.received[0].query)


@pytest.mark.parametrize("name", ["shop", "path_prefix", "timestamp", "logged_in_customer_id", "signature"])
async def test_what_a_shopper_says_of_himself_is_not_passed_on(remote: Remote, app: Receiver, name: str) -> None:
    await get(remote, f"{PROXY}/balance?{name}=forged")
    assert [one for one, _ in app.received[0].query].count(name) == 1
    assert "forged" not in dict(app.received[0].query).values()
    assert is_signed(app.received[0].query)


async def test_a_login_lasts_and_ends(remote: Remote, app: Receiver) -> None:
    login = f"{remote.origin}{SHOP}/account/login"
    entered = await remote.http.post(login, data={"customer": "7"})
    assert (entered.status_code, entered.headers["Location"]) == (303, SHOP)
    await get(remote, f"{PROXY}/balance")
    assert "Customer 7" in (await get(remote, SHOP)).text
    await remote.http.post(f"{remote.origin}{SHOP}/account/logout")
    await get(remote, f"{PROXY}/balance")
    assert [dict(came.query)["logged_in_customer_id"] for came in app.received] == ["7", ""]


@pytest.mark.parametrize("customer", ["999", "", "x", "-1", "7 or 1=1", "9" * 30])
async def test_only_a_customer_can_log_in(remote: Remote, app: Receiver, customer: str) -> None:
    login = f"{remote.origin}{SHOP}/account/login"
    assert (await remote.http.post(login, data={"customer": customer})).status_code == 422
    await remote.http.get(f"{remote.origin}{PROXY}/balance", params={"customer": customer})
    assert dict(app.received[0].query)["logged_in_customer_id"] == ""


async def test_the_answer_is_passed_on_without_cookies(remote: Remote, app: Receiver) -> None:
    headers = {"Cache-Control": "no-store", "Set-Cookie": "a=b", "X-Its-Own": "yes"}
    app.present = JSONResponse({"balance": 12}, 418, headers)
    remote.http.cookies.set("session", "secret")
    answer = await get(remote, f"{PROXY}/balance")
    assert (answer.status_code, answer.json()) == (418, {"balance": 12})
    assert (answer.headers["Cache-Control"], answer.headers["X-Its-Own"]) == ("no-store", "yes")
    assert "Set-Cookie" not in answer.headers
    assert "Cookie" not in app.received[0].headers


async def test_liquid_becomes_a_page_of_the_theme(remote: Remote, app: Receiver) -> None:
    app.present = Response("<p>You have 12 points</p>", media_type="application/liquid")
    page = await get(remote, f"{PROXY}/balance")
    assert page.headers["content-type"].startswith("text/html")
    assert "<!doctype html>" in page.text
    assert "<p>You have 12 points</p>" in page.text
    app.present = Response("{% layout none %}<p>12</p>", media_type="application/liquid")
    assert (await get(remote, f"{PROXY}/balance")).text == "<p>12</p>"


async def test_an_app_that_is_gone_is_an_error_of_the_third_party(remote: Remote, store: DevStore) -> None:
    store.world.app.url = "http://127.0.0.1:9"
    answer = await get(remote, f"{PROXY}/balance")
    assert answer.status_code == 502
    assert "third-party application" in answer.text


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(
    "path",
    [f"{SHOP}/apps/other/balance", f"{SHOP}/tools/points/balance", "/nobody.myshopify.com/apps/points/balance"],
)
async def test_another_address_is_not_the_apps(remote: Remote, path: str) -> None:
    assert (await get(remote, path)).status_code == 404


async def test_prefix_and_subpath_are_the_apps_choice(remote: Remote, app: Receiver, store: DevStore) -> None:
    store.world.app.change({"proxy_prefix": "tools", "proxy_subpath": "loyal", "proxy_path": "/p"})
    assert (await get(remote, f"{SHOP}/tools/loyal")).status_code == 200
    assert (app.received[0].path, dict(app.received[0].query)["path_prefix"]) == ("/p", "/tools/loyal")


async def test_a_shop_without_the_app_does_not_ask_it(remote: Remote, app: Receiver) -> None:
    await remote.control("POST", f"/shops/{DOMAIN}/app/uninstall")
    assert (await get(remote, f"{PROXY}/balance")).status_code == 404
    assert "/proxy/balance" not in {came.path for came in app.received}
