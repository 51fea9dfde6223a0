from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from scripted_server import DOMAIN, OK, QUERY, TOKEN, ScriptedServer, failed
from structlog.testing import capture_logs

from metafield_sync.shopify import (
    AdminClient,
    Cost,
    QueryRefused,
    ShopAccess,
    ShopifyError,
)
from metafield_sync.shopify.answers import ERRORS_SHOWN_MAX
from metafield_sync.shopify.client import USER_AGENT, VERSIONS_WARNED_MAX
from metafield_sync.shopify.shapes import TEXT_CHARS_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

COST = {
    "cost": {
        "requestedQueryCost": 35,
        "actualQueryCost": 35,
        "throttleStatus": {"maximumAvailable": 2000.0, "currentlyAvailable": 1965, "restoreRate": 100.0},
    }
}


async def test_it_posts_document_and_variables_with_the_token_to_the_shops_endpoint(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(OK)
    await client.call(access, QUERY, {"x": 1})
    (request,) = server.received
    assert request.method == "POST"
    assert request.path == f"/{DOMAIN}/admin/api/2026-10/graphql.json"
    assert json.loads(request.body) == {"query": QUERY, "variables": {"x": 1}}
    assert request.headers["x-shopify-access-token"] == TOKEN
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == USER_AGENT
    assert USER_AGENT.startswith("metafield-sync/")


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("https://{shop}", f"https://{DOMAIN}/admin/api/2026-10/graphql.json"),
        ("https://{shop}/", f"https://{DOMAIN}/admin/api/2026-10/graphql.json"),
        ("http://127.0.0.1:9000/{shop}", f"http://127.0.0.1:9000/{DOMAIN}/admin/api/2026-10/graphql.json"),
        ("http://[::1]:9000", "http://[::1]:9000/admin/api/2026-10/graphql.json"),
    ],
)
async def test_the_origin_may_hold_the_shop_or_not(http: httpx.AsyncClient, origin: str, url: str) -> None:
    assert AdminClient(http, origin=origin, api_version="2026-10").url(DOMAIN) == url


@pytest.mark.parametrize("origin", ["", "{shop}", "ftp://{shop}", "https://", "https://a:b:c", "https://{shop}?x="])
async def test_an_origin_that_is_no_address_is_refused_at_once(http: httpx.AsyncClient, origin: str) -> None:
    with pytest.raises(ValueError, match="not the origin"):
        AdminClient(http, origin=origin, api_version="2026-10")


@pytest.mark.parametrize(
    "domain",
    [
        "",
        "a-shop",
        "A.myshopify.com",
        "a.myshopify.com.evil.test",
        "evil.test/a.myshopify.com",
        "x@a.myshopify.com",
    ],
)
def test_a_domain_that_is_no_shops_never_becomes_an_address(domain: str) -> None:
    with pytest.raises(ValueError, match="not the domain of a shop"):
        ShopAccess(domain, TOKEN)


@pytest.mark.parametrize("token", ["", "with space", "line\nbreak", "ключ"])
def test_a_token_that_cannot_stand_in_a_header_is_refused_without_being_repeated(token: str) -> None:
    with pytest.raises(ValueError, match="access token is printable") as caught:
        ShopAccess(DOMAIN, token)
    assert not token or token not in str(caught.value)


def test_the_token_is_not_in_the_repr(access: ShopAccess) -> None:
    assert TOKEN not in repr(access)


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("https://{shop}", "https://storage.test/a?X-Signature=s"),
        ("https://{shop}", "https://127.0.0.1/a"),
        ("http://127.0.0.1:9000/{shop}", "http://127.0.0.1:9001/a"),
        ("http://localhost:9000/{shop}", "http://[::1]:9001/a"),
        ("http://127.0.0.1:9000/{shop}", "https://storage.test/a"),
    ],
)
async def test_a_file_may_be_at_any_https_address_and_a_stand_ins_at_its_own_machine(
    http: httpx.AsyncClient, origin: str, url: str
) -> None:
    assert str(AdminClient(http, origin=origin, api_version="2026-10").file_url(url)) == url


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("https://{shop}", "http://storage.test/a?signature=s3cret"),
        ("https://{shop}", "http://127.0.0.1/a?signature=s3cret"),
        ("https://{shop}", "file:///etc/s3cret"),
        ("https://{shop}", "ftp://storage.test/s3cret"),
        ("https://{shop}", "https:///s3cret"),
        ("https://{shop}", "/s3cret"),
        ("https://{shop}", ""),
        ("https://{shop}", "https://s3cret:s3cret@storage.test/a"),
        ("https://{shop}", "https://storage.test:s3cret/a"),
        ("https://{shop}", "https://storage.test/\x00s3cret"),
        ("https://127.0.0.1:9000/{shop}", "http://127.0.0.1:9000/s3cret"),
        ("http://stand-in.test/{shop}", "http://stand-in.test/s3cret"),
        ("http://127.0.0.1:9000/{shop}", "http://storage.test/s3cret"),
        ("http://127.0.0.1:9000/{shop}", "http://169.254.169.254/s3cret"),
    ],
)
async def test_no_other_address_is_taken_for_a_file_or_repeated(http: httpx.AsyncClient, origin: str, url: str) -> None:
    with pytest.raises(ValueError, match="the file's address") as caught:
        AdminClient(http, origin=origin, api_version="2026-10").file_url(url)
    assert "s3cret" not in str(caught.value)


async def test_an_answer_carries_data_cost_and_served_version(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(OK | {"extensions": COST}, headers={"X-Shopify-Api-Version": "2026-10"})
    answer = await client.call(access, QUERY, {})
    assert answer.data == {"shop": {"name": "A shop"}}
    assert answer.cost == Cost(35, 35, 2000, 1965, 100)
    assert answer.api_version == "2026-10"


@pytest.mark.parametrize(
    ("extensions", "cost"),
    [
        (None, None),
        ({}, None),
        ({"cost": None}, None),
        ({"cost": {}}, Cost()),
        ({"cost": {"requestedQueryCost": 12.5, "throttleStatus": None}}, Cost(requested=12.5)),
        ({"cost": {"actualQueryCost": True, "throttleStatus": {"restoreRate": "100"}}}, Cost()),
        ({"cost": {"throttleStatus": {"currentlyAvailable": 10**400}}}, Cost()),
    ],
)
async def test_a_cost_that_is_absent_or_odd_is_none(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, extensions: Any, cost: Cost | None
) -> None:
    server.answer(OK | {"extensions": extensions})
    assert (await client.call(access, QUERY, {})).cost == cost


async def test_an_error_text_is_bounded_and_printable(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    error = {"message": "\x00\ud800\x1b[31m" + "x" * 1000}
    server.answer({"errors": [error] * 1000})
    with pytest.raises(QueryRefused) as caught:
        await client.call(access, QUERY, {})
    assert caught.value.detail.isprintable()
    assert len(caught.value.detail) < (ERRORS_SHOWN_MAX + 1) * TEXT_CHARS_MAX
    assert f"and {1000 - ERRORS_SHOWN_MAX} more" in caught.value.detail


async def test_a_token_that_the_other_side_repeats_is_in_no_error_text_and_no_log(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    said = f"bad X-Shopify-Access-Token: {TOKEN}"
    server.answer(failed(None, said), failed("ACCESS_DENIED", said), failed("INTERNAL_SERVER_ERROR", said))
    server.answer({"errors": said}, {"errors": said}, status=401, headers={"X-Shopify-Api-Version": TOKEN})
    with capture_logs() as logs:
        for _ in range(5):
            with pytest.raises(ShopifyError) as caught:
                await client.call(access, QUERY, {})
            assert TOKEN not in caught.value.detail
            assert TOKEN not in repr(caught.value)
    assert TOKEN not in repr(logs)


def versions(*served: str) -> list[Mapping[str, str]]:
    return [{"X-Shopify-Api-Version": version} for version in served]


async def test_another_served_version_is_warned_about_once(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    for headers in versions("2026-10", "2027-01", "2027-01", "2027-04"):
        server.answer(OK, headers=dict(headers))
    with capture_logs() as logs:
        for _ in range(4):
            await client.call(access, QUERY, {})
    assert [(line["log_level"], line["asked"], line["served"]) for line in logs] == [
        ("warning", "2026-10", "2027-01"),
        ("warning", "2026-10", "2027-04"),
    ]


async def test_a_server_that_invents_versions_cannot_fill_the_log(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    count = VERSIONS_WARNED_MAX + 5
    for number in range(count):
        server.answer(OK, headers={"X-Shopify-Api-Version": f"v{number}"})
    with capture_logs() as logs:
        for _ in range(count):
            await client.call(access, QUERY, {})
    assert len(logs) == VERSIONS_WARNED_MAX
    assert {line["served"] for line in logs} == {"unreadable"}


async def test_several_calls_are_in_flight_at_once(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(*[OK] * 8)
    answers = await asyncio.gather(*(client.call(access, QUERY, {}) for _ in range(8)))
    assert [answer.data for answer in answers] == [OK["data"]] * 8
