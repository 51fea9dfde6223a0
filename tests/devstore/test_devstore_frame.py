"""The app in the admin's frame, and how it gets there."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from html import unescape
from urllib.parse import parse_qsl, urlsplit

import jwt
import pytest
from app_support import CLIENT_ID, SECRET, Receiver
from devstore_support import DOMAIN, Remote

from devstore import DevStore

ADMIN = f"/{DOMAIN}/admin"
APP = f"{ADMIN}/apps/points"


async def read(remote: Remote, path: str, status: int = 200) -> str:
    answer = await remote.http.get(f"{remote.origin}{path}")
    assert answer.status_code == status, answer.text
    return answer.text


def frame_address(page: str) -> str:
    found = re.search(r'<iframe[^>]* src="([^"]+)"', page)
    assert found is not None
    return unescape(found[1])


async def test_the_frame_opens_the_app_with_shopifys_query(remote: Remote, app: Receiver, store: DevStore) -> None:
    address = urlsplit(frame_address(await read(remote, APP)))
    assert f"{address.scheme}://{address.netloc}{address.path}" == f"{app.url}/app"
    query = dict(parse_qsl(address.query))
    assert query.keys() == {
        "embedded", "hmac", "host", "id_token", "locale", "session", "shop", "timestamp"
    }  # fmt: skip
    assert (query["embedded"], query["shop"]) == ("1", DOMAIN)
    assert base64.b64decode(query["host"] + "==").decode() == "admin.shopify.com/store/demo"
    signed = "&".join(f"{name}={query[name]}" for name in sorted(query) if name != "hmac")
    assert query["hmac"] == hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).hexdigest()
    assert query["timestamp"] == str(store.shop(DOMAIN).now_s())
    claims = jwt.decode(query["id_token"], SECRET, ["HS256"], audience=CLIENT_ID, options={"verify_exp": False})
    assert claims["dest"] == f"https://{DOMAIN}"


@pytest.mark.usefixtures("app")
async def test_a_page_of_the_app_has_an_address_in_the_admin(remote: Remote, app: Receiver) -> None:
    address = frame_address(await read(remote, f"{APP}/customers/7"))
    assert address.startswith(f"{app.url}/app/customers/7?")


async def test_a_page_with_a_token_in_it_is_not_kept(remote: Remote, app: Receiver) -> None:
    del app
    answer = await remote.http.get(f"{remote.origin}{APP}")
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.usefixtures("app")
async def test_the_frame_gets_new_tokens_and_other_sites_do_not(remote: Remote) -> None:
    url = f"{remote.origin}{APP}/id-token"
    given = (await remote.http.post(url)).json()["idToken"]
    assert jwt.decode(given, SECRET, ["HS256"], audience=CLIENT_ID, options={"verify_exp": False})["sub"] == "1"
    foreign = await remote.http.post(url, headers={"Sec-Fetch-Site": "cross-site"})
    assert foreign.status_code == 403


@pytest.mark.usefixtures("app")
async def test_a_shop_without_the_app_is_asked_first(remote: Remote, store: DevStore) -> None:
    shop = store.shop(DOMAIN)
    assert (await remote.http.post(f"{remote.origin}{APP}/uninstall")).status_code == 303
    assert not shop.installation.is_installed
    asked = await read(remote, APP)
    assert "<iframe" not in asked
    assert "write_customers" in asked
    assert (await remote.http.post(f"{remote.origin}{APP}/id-token")).status_code == 404
    installed = await remote.http.post(f"{remote.origin}{APP}/install")
    assert (installed.status_code, installed.headers["Location"]) == (303, APP)
    assert shop.installation.scopes == shop.app.scopes
    assert "<iframe" in await read(remote, APP)


async def test_without_an_address_of_the_app_the_page_says_what_to_do(remote: Remote) -> None:
    assert "--app-url" in await read(remote, APP)


@pytest.mark.usefixtures("app")
async def test_the_admins_first_page_leads_to_the_app(remote: Remote) -> None:
    assert f'href="{APP}"' in await read(remote, ADMIN)
    answer = await remote.http.get(f"{remote.origin}{ADMIN}/apps")
    assert (answer.status_code, answer.headers["Location"]) == (303, APP)


@pytest.mark.parametrize("path", [f"{ADMIN}/apps/unknown", "/nobody.myshopify.com/admin", "/x/admin/apps"])
async def test_what_is_not_there_is_not_found(remote: Remote, path: str) -> None:
    await read(remote, path, 404)


async def test_app_bridges_stand_in_is_a_script(remote: Remote) -> None:
    answer = await remote.http.get(f"{remote.origin}/_devstore/app-bridge.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "idToken" in answer.text


async def test_the_title_of_the_app_cannot_break_the_page(remote: Remote, app: Receiver, store: DevStore) -> None:
    store.world.app.change({"title": '"><script>alert(1)</script>', "url": app.url})
    assert "<script>alert(1)" not in await read(remote, APP)
    assert json.dumps(store.world.app.title)
