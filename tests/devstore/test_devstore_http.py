"""The Admin API over real HTTP: versions, shops, access, broken requests."""

from __future__ import annotations

import json

import httpx
import pytest
from devstore_support import DOMAIN, SET, TOKEN, Remote, entry, gid

from devstore import DevStore, ShopSpec

SHOP = "{ shop { myshopifyDomain } }"
WRONG = {"errors": "[API] Invalid API key or access token (unrecognized login or wrong password)"}


async def test_a_call_is_answered_as_json(remote: Remote) -> None:
    answer = await remote.post(SET, {"m": [entry(1, "7")]})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-request-id"]
    assert answer.json()["data"]["metafieldsSet"]["metafields"][0]["owner"] == {"id": gid(1)}


@pytest.mark.parametrize(
    ("asked", "served"),
    [("2026-10", "2026-10"), ("2026-01", "2026-01"), ("2025-10", "2026-01"), ("2020-01", "2026-01")],
)
async def test_an_unsupported_version_falls_forward_to_the_oldest(remote: Remote, asked: str, served: str) -> None:
    answer = await remote.post(SHOP, path=f"/{DOMAIN}/admin/api/{asked}/graphql.json")
    assert answer.status_code == 200
    assert answer.headers["x-shopify-api-version"] == served


async def test_a_version_that_is_none_is_not_found(remote: Remote) -> None:
    assert (await remote.post(SHOP, path=f"/{DOMAIN}/admin/api/latest/graphql.json")).status_code == 404


@pytest.mark.parametrize("token", [None, "", "shpat_wrong", "shpat_other"])
async def test_a_wrong_or_missing_token_is_401(remote: Remote, token: str | None) -> None:
    answer = await remote.post(SHOP, token=token)
    assert (answer.status_code, answer.json()) == (401, WRONG)


async def test_an_unknown_shop_is_404(remote: Remote) -> None:
    answer = await remote.post(SHOP, path="/nobody.myshopify.com/admin/api/2026-10/graphql.json")
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("headers", "token", "domain"),
    [
        ({}, TOKEN, DOMAIN),
        ({}, "shpat_other", "other.myshopify.com"),
        ({"Host": "other.myshopify.com"}, "shpat_other", "other.myshopify.com"),
        ({"Host": f"{DOMAIN}:443"}, TOKEN, DOMAIN),
    ],
)
async def test_without_a_path_prefix_host_or_token_decide_the_shop(
    remote: Remote, headers: dict[str, str], token: str, domain: str
) -> None:
    answer = await remote.post(SHOP, path="/admin/api/2026-10/graphql.json", token=token, headers=headers)
    assert answer.json()["data"]["shop"]["myshopifyDomain"] == domain


async def test_without_anything_that_names_a_shop_the_answer_is_401(remote: Remote) -> None:
    answer = await remote.post(SHOP, path="/admin/api/2026-10/graphql.json", token="x")  # noqa: S106  # made up
    assert (answer.status_code, answer.json()) == (401, WRONG)


async def test_shops_share_nothing(remote: Remote, store: DevStore) -> None:
    await remote.post(SET, {"m": [entry(1)]})
    other = store.shop("other.myshopify.com")
    assert other.metafields.of_owner("CUSTOMER", 1) == []
    assert other.budget.status().currently_available == 2000


@pytest.mark.parametrize(("state", "status"), [("frozen", 402), ("forbidden", 403), ("locked", 423), ("active", 200)])
async def test_a_shop_that_does_not_answer_has_its_own_status(remote: Remote, state: str, status: int) -> None:
    await remote.control("PATCH", f"/shops/{DOMAIN}", state=state)
    assert (await remote.post(SHOP)).status_code == status


async def test_a_token_can_be_revoked_and_replaced(remote: Remote) -> None:
    await remote.control("PATCH", f"/shops/{DOMAIN}", token=None)
    assert (await remote.post(SHOP)).status_code == 401
    await remote.control("PATCH", f"/shops/{DOMAIN}", token="shpat_new")  # noqa: S106  # made up
    assert (await remote.post(SHOP)).status_code == 401
    assert (await remote.post(SHOP, token="shpat_new")).status_code == 200  # noqa: S106  # made up


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"\xff", b"{}", b'{"query": 7}', b'{"query":"{shop{id}}","variables":[]}'],
)
async def test_a_body_that_is_no_request_is_400(remote: Remote, body: bytes) -> None:
    url = f"{remote.origin}/{DOMAIN}/admin/api/2026-10/graphql.json"
    answer = await remote.http.post(url, content=body, headers={"X-Shopify-Access-Token": TOKEN})
    assert answer.status_code == 400
    assert answer.json()["errors"]


async def test_half_a_surrogate_pair_is_400(remote: Remote) -> None:
    body = json.dumps({"query": SET, "variables": {"m": [entry(1, "\ud800", type="single_line_text_field")]}})
    url = f"{remote.origin}/{DOMAIN}/admin/api/2026-10/graphql.json"
    answer = await remote.http.post(url, content=body, headers={"X-Shopify-Access-Token": TOKEN})
    assert answer.status_code == 400


async def test_more_than_10_mb_are_refused(remote: Remote) -> None:
    url = f"{remote.origin}/{DOMAIN}/admin/api/2026-10/graphql.json"
    body = b" " * (10 * 1024 * 1024 + 1)
    answer = await remote.http.post(url, content=body, headers={"X-Shopify-Access-Token": TOKEN})
    assert answer.status_code == 413


async def test_cost_debugging_is_asked_for_by_a_header(remote: Remote) -> None:
    plain = await remote.post(SHOP)
    debugged = await remote.post(SHOP, headers={"Shopify-GraphQL-Cost-Debug": "1"})
    assert "fields" not in plain.json()["extensions"]["cost"]
    assert debugged.json()["extensions"]["cost"]["fields"][-1]["path"] == ["shop"]


async def test_an_operation_is_chosen_by_name(remote: Remote) -> None:
    url = f"{remote.origin}/{DOMAIN}/admin/api/2026-10/graphql.json"
    query = "query A { shop { id } } query B { shop { name } }"
    body = {"query": query, "operationName": "B"}
    answer = await remote.http.post(url, json=body, headers={"X-Shopify-Access-Token": TOKEN})
    assert answer.json()["data"] == {"shop": {"name": "demo"}}


def test_it_serves_from_a_thread_too() -> None:
    with DevStore([ShopSpec(DOMAIN, TOKEN, customers=1)]) as store:
        url = store.admin_origin.replace("{shop}", DOMAIN)
        answer = httpx.post(
            f"{url}/admin/api/2026-10/graphql.json",
            json={"query": SHOP},
            headers={"X-Shopify-Access-Token": TOKEN},
        )
    assert answer.json()["data"]["shop"]["myshopifyDomain"] == DOMAIN
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{store.origin}/_devstore/health")
