from __future__ import annotations

import gzip
import socket
from typing import TYPE_CHECKING, Any

import pytest
from scripted_server import DOMAIN, MUTATION, OK, QUERY, Reply, ScriptedServer, failed

from metafield_sync.shopify import (
    AdminClient,
    Cost,
    OutcomeUnknown,
    QueryRefused,
    ShopAccess,
    ShopRefused,
    Throttled,
    Unreachable,
)
from metafield_sync.shopify.answers import RETRY_AFTER_MAX_S
from metafield_sync.shopify.client import RESPONSE_BYTES_MAX

if TYPE_CHECKING:
    import httpx


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "access_token_refused"),
        (402, "shop_frozen"),
        (403, "forbidden"),
        (404, "shop_not_found"),
        (423, "shop_locked"),
        (430, "security_rejection"),
    ],
)
async def test_a_status_that_refuses_the_shop_says_why_and_what_to_do(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, status: int, reason: str
) -> None:
    server.answer({"errors": "[API] Invalid API key or access token"}, status=status)
    with pytest.raises(ShopRefused) as caught:
        await client.call(access, MUTATION, {})
    assert caught.value.reason == reason
    assert caught.value.code == "shop_refused"
    assert DOMAIN in caught.value.detail
    assert "resume the shop" in caught.value.detail
    assert f"(HTTP {status}: [API] Invalid API key or access token)" in caught.value.detail


async def test_an_inactive_shop_is_refused_although_the_status_is_200(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(failed("SHOP_INACTIVE"))
    with pytest.raises(ShopRefused) as caught:
        await client.call(access, QUERY, {})
    assert caught.value.reason == "shop_inactive"


async def test_a_redirect_is_not_followed_so_the_token_goes_nowhere_else(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.reply(Reply(status=302, headers={"Location": f"{server.origin}/elsewhere"}))
    with pytest.raises(ShopRefused) as caught:
        await client.call(access, QUERY, {})
    assert caught.value.reason == "redirected"
    assert len(server.received) == 1


async def test_throttled_with_cost_data(client: AdminClient, access: ShopAccess, server: ScriptedServer) -> None:
    status = {"maximumAvailable": 2000.0, "currentlyAvailable": 3, "restoreRate": 100.0}
    cost = {"requestedQueryCost": 35, "actualQueryCost": None, "throttleStatus": status}
    documentation = "https://shopify.dev/api/usage/rate-limits"
    server.answer(failed("THROTTLED", "Throttled", documentation=documentation) | {"extensions": {"cost": cost}})
    with pytest.raises(Throttled) as caught:
        await client.call(access, MUTATION, {})
    assert caught.value.cost == Cost(35, None, 2000, 3, 100)
    assert caught.value.retry_after_s is None


async def test_throttled_without_cost_data(client: AdminClient, access: ShopAccess, server: ScriptedServer) -> None:
    server.answer(failed("THROTTLED", "Throttled"))
    with pytest.raises(Throttled) as caught:
        await client.call(access, MUTATION, {})
    assert caught.value.cost is None


@pytest.mark.parametrize(
    ("headers", "retry_after_s"),
    [
        ({}, None),
        ({"Retry-After": "2"}, 2),
        ({"Retry-After": "2.5"}, 2.5),
        ({"Retry-After": "-1"}, 0),
        ({"Retry-After": "1e9"}, RETRY_AFTER_MAX_S),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Sun, 22 Nov 2026 10:00:07 GMT", "Date": "Sun, 22 Nov 2026 10:00:00 GMT"}, 7),
        ({"Retry-After": "Sun, 22 Nov 2026 10:00:07 -0000", "Date": "Sun, 22 Nov 2026 10:00:00 GMT"}, 7),
        ({"Retry-After": "Sun, 22 Nov 2026 10:00:07 GMT"}, None),
    ],
)
async def test_429_is_throttled_and_reads_retry_after(
    client: AdminClient,
    access: ShopAccess,
    server: ScriptedServer,
    headers: dict[str, str],
    retry_after_s: float | None,
) -> None:
    server.reply(Reply(status=429, body=b"<html>slow down</html>", headers=headers))
    with pytest.raises(Throttled) as caught:
        await client.call(access, MUTATION, {})
    assert caught.value.retry_after_s == retry_after_s


async def test_a_refused_connection_is_unreachable_and_nothing_was_sent(
    http: httpx.AsyncClient, access: ShopAccess
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port, and it refuses
        origin = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unreachable) as caught:
            await AdminClient(http, origin=origin, api_version="2026-10").call(access, MUTATION, {})
    assert "SHOPIFY_ADMIN_ORIGIN" in caught.value.detail


async def test_a_name_that_does_not_resolve_is_unreachable(http: httpx.AsyncClient, access: ShopAccess) -> None:
    with pytest.raises(Unreachable):
        await AdminClient(http, origin="http://nowhere.invalid", api_version="2026-10").call(access, QUERY, {})


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 540])
async def test_a_server_error_leaves_the_outcome_unknown(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, status: int
) -> None:
    server.reply(Reply(status=status, body=b"<html>oops</html>"))
    with pytest.raises(OutcomeUnknown) as caught:
        await client.call(access, MUTATION, {})
    assert f"HTTP {status}" in caught.value.detail
    assert "written again" in caught.value.detail


@pytest.mark.parametrize(
    "reply",
    [
        Reply(drop=True),
        Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
        Reply(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        Reply(raw=b"not http at all\r\n\r\n"),
        Reply(body=b"not gzip", headers={"Content-Encoding": "gzip"}),
        Reply(body=b""),
        Reply(body=b"<html>fine</html>", headers={"Content-Type": "text/html"}),
        Reply(body=b"\xff\xfe{}"),
        Reply(body=b"[" * 100_000),
        Reply(body=b"[]"),
        Reply(body=b"null"),
        Reply(body=b"{}"),
        Reply(body=b'{"data":null}'),
        Reply(body=b'{"data":[1]}'),
        Reply(body=b'{"data":' + b"9" * 5000 + b"}"),
    ],
    ids=lambda reply: repr((reply.raw or reply.body)[:24]),
)
async def test_an_answer_that_is_none_leaves_the_outcome_unknown(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, reply: Reply
) -> None:
    server.reply(reply)
    with pytest.raises(OutcomeUnknown):
        await client.call(access, MUTATION, {})
    assert len(server.received) == 1


async def test_no_answer_in_time_leaves_the_outcome_unknown(
    http: httpx.AsyncClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.reply(Reply(hang=True))
    client = AdminClient(http, origin=server.origin, api_version="2026-10", read_timeout_s=0.02)
    with pytest.raises(OutcomeUnknown, match="ReadTimeout"):
        await client.call(access, MUTATION, {})


async def test_the_whole_call_has_a_limit_too(
    http: httpx.AsyncClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.reply(Reply(hang=True))
    client = AdminClient(http, origin=server.origin, api_version="2026-10", call_timeout_s=0.02)
    with pytest.raises(OutcomeUnknown, match="TimeoutError"):
        await client.call(access, MUTATION, {})


async def test_an_answer_that_unpacks_to_more_than_the_limit_is_cut_off(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    packed = gzip.compress(b" " * (RESPONSE_BYTES_MAX + 1))
    server.reply(Reply(body=packed, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(OutcomeUnknown, match=str(RESPONSE_BYTES_MAX)):
        await client.call(access, MUTATION, {})


async def test_an_internal_error_leaves_the_outcome_unknown(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(failed("INTERNAL_SERVER_ERROR", "Internal error. Request ID: 1") | {"data": {"metafieldsSet": None}})
    with pytest.raises(OutcomeUnknown, match="Request ID: 1"):
        await client.call(access, MUTATION, {})


@pytest.mark.parametrize("where", ["message", "requiredAccess"])
async def test_access_denied_names_the_missing_scope(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, where: str
) -> None:
    required = "`write_customers` access scope."
    document = (
        failed("ACCESS_DENIED", f"Access denied for metafieldsSet field. Required access: {required}")
        if where == "message"
        else failed("ACCESS_DENIED", "Access denied for `metafieldsSet` field.", requiredAccess=required)
    )
    server.answer(document | {"data": {"metafieldsSet": None}})
    with pytest.raises(QueryRefused) as caught:
        await client.call(access, MUTATION, {})
    assert caught.value.missing_scope == "write_customers"
    assert "Grant the app the access scope write_customers" in caught.value.detail


async def test_access_denied_without_a_scope_still_says_what_to_do(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(failed("ACCESS_DENIED", "This app is not approved to access the Customer object."))
    with pytest.raises(QueryRefused, match="protected customer data") as caught:
        await client.call(access, MUTATION, {})
    assert caught.value.missing_scope is None


@pytest.mark.parametrize("code", ["MAX_COST_EXCEEDED", "INVALID_VARIABLE", "undefinedField", "SOMETHING_NEW", None])
async def test_every_other_top_level_error_is_a_refused_query(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, code: str | None
) -> None:
    server.answer(failed(code, "Query cost is 1200, which exceeds the single query max cost limit (1000)"))
    with pytest.raises(QueryRefused, match="exceeds the single query") as caught:
        await client.call(access, MUTATION, {})
    assert caught.value.shopify_code == code


@pytest.mark.parametrize("status", [400, 406, 413, 422])
async def test_a_request_shopify_cannot_read_is_a_refused_query(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, status: int
) -> None:
    server.answer({"errors": {"query": "Required parameter missing or invalid"}}, status=status)
    with pytest.raises(QueryRefused) as caught:
        await client.call(access, QUERY, {})
    assert caught.value.shopify_code == f"HTTP_{status}"


@pytest.mark.parametrize("errors", ["Not Found", {"a": 1}, [1, None, {"message": 5, "extensions": []}], True])
async def test_errors_of_any_shape_are_still_errors(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, errors: Any
) -> None:
    server.answer({"errors": errors, "data": None})
    with pytest.raises(QueryRefused):
        await client.call(access, QUERY, {})


async def test_no_errors_in_the_list_are_no_errors(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(OK | {"errors": []})
    assert (await client.call(access, QUERY, {})).data == OK["data"]


async def test_errors_beside_a_mutations_data_say_that_it_ran_and_keep_the_data(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    partial: dict[str, Any] = {"metafieldsSet": {"metafields": [], "userErrors": []}}
    server.answer(failed("ACCESS_DENIED", "Access denied for value field.") | {"data": partial})
    with pytest.raises(OutcomeUnknown, match="Access denied for value field") as caught:
        await client.call(access, MUTATION, {})
    assert caught.value.partial == partial


async def test_errors_beside_a_querys_data_refuse_it_and_keep_the_data(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(failed("ACCESS_DENIED") | {"data": {"shop": {"name": "A shop"}, "other": None}})
    with pytest.raises(QueryRefused) as caught:
        await client.call(access, QUERY, {})
    assert caught.value.partial == {"shop": {"name": "A shop"}, "other": None}
