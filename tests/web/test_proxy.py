"""`GET /proxy/balance` over a real server: the shopper who is logged in, now, and nobody else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest
from app_calls import FOREIGN_SECRET, OLD_SECRET, proxied

from metafield_sync.shops.api_keys import create_key
from metafield_sync.shops.registry import add_shop, remove_shop

if TYPE_CHECKING:
    import psycopg

    from conftest import Api

OTHER = "other.myshopify.com"


async def ask(api: Api, parameters: dict[str, str], **headers: str) -> httpx.Response:
    answer = await api.anonymous.get("/proxy/balance", params=parameters, headers=headers)
    assert answer.headers["cache-control"] == "no-store"
    return answer


async def test_a_shopper_sees_the_balance_as_it_is_now(api: Api) -> None:
    for posted, balance in ((1500, 1500), (-700, 800)):
        await api.post_points(7, posted)
        answer = await ask(api, proxied(7))
        assert (answer.status_code, answer.json()) == (200, {"balance": balance})
        assert answer.headers["content-type"] == "application/json"
    assert (await ask(api, proxied(7, secret=OLD_SECRET))).json() == {"balance": 800}


async def test_below_zero_a_shopper_sees_zero(api: Api) -> None:
    await api.post_points(7, -5, allowNegative=True)
    assert (await ask(api, proxied(7))).json() == {"balance": 0}
    assert (await api.http.get("/api/customers?shopifyCustomerId=7")).json()["customers"][0]["balance"] == -5


async def test_who_never_earned_has_zero_and_who_is_not_logged_in_has_nothing(api: Api) -> None:
    await api.post_points(7, 10)
    assert (await ask(api, proxied(8))).json() == {"balance": 0}
    assert (await ask(api, proxied(None))).json() == {"balance": None}
    assert (await api.http.get("/api/customers?shopifyCustomerId=8")).json()["customers"] == [], (
        "reading creates nobody"
    )


async def test_a_theme_gets_liquid_when_it_asks_for_it(api: Api) -> None:
    await api.post_points(7, 1500)
    fragment = '{% layout none %}<span class="points-balance" data-points-balance="1500">1500</span>\n'
    for answer in (
        await ask(api, proxied(7, format="liquid")),
        await ask(api, proxied(7), accept="text/html, application/liquid;q=0.9"),
        await ask(api, proxied(7, format="liquid"), accept="application/json"),
    ):
        assert answer.headers["content-type"].partition(";")[0] == "application/liquid"
        assert answer.text == fragment
    nobody = (await ask(api, proxied(None, format="liquid"))).text
    assert nobody == '{% layout none %}<span class="points-balance" data-points-balance=""></span>\n'
    for answer in (
        await ask(api, proxied(7, format="json"), accept="application/liquid"),
        await ask(api, proxied(7), accept="text/html,*/*"),
    ):
        assert answer.json() == {"balance": 1500}


async def test_nothing_of_another_shops_customer_is_seen(api: Api, owner: psycopg.Connection) -> None:
    await api.post_points(7, 1500)
    async with api.runtime.db.unscoped() as conn:
        other, _ = await add_shop(conn, OTHER, None)
    async with api.runtime.db.shop(other.id) as conn:
        key = await create_key(conn, other.id, name="other", scope="write")
    body = {"shopifyCustomerId": "8", "amount": 3, "reason": "other"}
    posted = await api.anonymous.post("/api/ledger", json=body, headers={"Authorization": f"Bearer {key}"})
    assert posted.status_code == 201
    assert (await ask(api, proxied(7, shop=OTHER))).json() == {"balance": 0}
    assert (await ask(api, proxied(8, shop=OTHER))).json() == {"balance": 3}
    assert (await ask(api, proxied(8))).json() == {"balance": 0}
    assert owner.execute("select count(*) from customers").fetchone() == (2,)


async def test_forgeries_and_replays_are_refused(api: Api) -> None:
    await api.post_points(7, 1500)
    good = proxied(7)
    for parameters in (
        {},
        {name: value for name, value in good.items() if name != "signature"},
        proxied(7, secret=FOREIGN_SECRET),
        good | {"logged_in_customer_id": "8"},
        good | {"shop": OTHER},
        good | {"signature": "é" * 64},
        proxied(7, at=time.time() - 92),
        proxied(7, at=time.time() + 120),
        proxied(7, page="1"),
        proxied(7, format="html"),
        proxied(7, shop="evil.example.com"),
    ):
        answer = await ask(api, parameters)
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authentic"), parameters
        assert "1500" not in answer.text
    doubled = await api.anonymous.get(
        "/proxy/balance", params=httpx.QueryParams([*good.items(), ("logged_in_customer_id", "7")])
    )
    assert doubled.status_code == 401


@pytest.mark.parametrize("shop", ["never-added", "removed"])
async def test_a_shop_without_the_app_is_told_so(api: Api, shop: str) -> None:
    async with api.runtime.db.unscoped() as conn:
        removed, _ = await add_shop(conn, "removed.myshopify.com", None)
        await remove_shop(conn, removed.id)
    answer = await ask(api, proxied(7, shop=f"{shop}.myshopify.com"))
    assert (answer.status_code, answer.json()["code"]) == (404, "shop_not_found")
