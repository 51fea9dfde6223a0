"""`POST /webhooks` over a real server: what Shopify signed is stored once, what anybody else sent not at all."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import structlog
from app_calls import DOMAIN, FOREIGN_SECRET, OLD_SECRET, SECRET, send_webhook

from devstore.signing import body_signature
from metafield_sync.shops.registry import remove_shop
from metafield_sync.sync.inbox.handlers import HANDLERS
from metafield_sync.sync.inbox.handling import handle_due
from metafield_sync.web.gate import BODY_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx
    import psycopg

    from conftest import Api

ORDER = {"id": 820982911946154508, "note": "for Ada", "customer": {"id": 5, "email": "ada@example.com"}}
DELIVERIES = 1_000
SENT_AT_ONCE = 64


def stored(owner: psycopg.Connection) -> Sequence[Any]:
    return owner.execute("select topic, delivery_id, payload from inbox order by id").fetchall()


def written(owner: psycopg.Connection) -> Any:
    """How many rows there are of what a webhook could lead to."""
    counts = (
        "select (select count(*) from inbox), (select count(*) from ledger_entries), (select count(*) from customers)"
    )
    return owner.execute(counts).fetchone()


async def counted(api: Api, topic: str, outcome: str) -> float:
    lines = (await api.anonymous.get("/metrics")).text.splitlines()
    wanted = f'metafield_sync_webhooks_total{{outcome="{outcome}",topic="{topic}"}}'
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(wanted))


async def test_a_webhook_is_stored_and_answered_at_once(api: Api, owner: psycopg.Connection) -> None:
    answer = await send_webhook(api.anonymous, "orders/paid", ORDER)
    assert (answer.status_code, answer.content) == (200, b"")
    assert stored(owner) == [("orders/paid", "delivery-1", {"id": 820982911946154508, "customer": {"id": 5}})]
    assert await counted(api, "orders/paid", "taken") == 1


async def test_a_repeated_webhook_is_answered_200_and_changes_nothing(api: Api, owner: psycopg.Connection) -> None:
    answers = [await send_webhook(api.anonymous, "orders/paid", ORDER) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert len(stored(owner)) == 1
    assert await counted(api, "orders/paid", "repeated") == 2


async def test_the_old_secret_goes_on_being_good(api: Api, owner: psycopg.Connection) -> None:
    assert (await send_webhook(api.anonymous, "orders/paid", ORDER, secret=OLD_SECRET)).status_code == 200
    assert len(stored(owner)) == 1


async def test_forgeries_are_refused_and_nothing_is_written(api: Api, owner: psycopg.Connection) -> None:
    forgeries: list[dict[str, str]] = [
        {"secret": FOREIGN_SECRET},
        {"X-Shopify-Hmac-Sha256": ""},
        {"X-Shopify-Hmac-Sha256": body_signature(SECRET, b"another body")},
        {"X-Shopify-Shop-Domain": "evil.example.com"},
        {"X-Shopify-Shop-Domain": ""},
        {"X-Shopify-Topic": "no topic"},
        {"X-Shopify-Webhook-Id": "one, two"},
    ]
    before = written(owner)
    for forgery in forgeries:
        answer = await send_webhook(api.anonymous, "orders/paid", ORDER, **forgery)
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authentic"), forgery
        assert answer.headers["content-type"] == "application/problem+json"
    assert written(owner) == before
    assert await counted(api, "other", "not_authentic") == len(forgeries)


async def test_no_api_key_stands_in_for_a_signature(api: Api, owner: psycopg.Connection) -> None:
    assert (await api.http.post("/webhooks", json=ORDER)).status_code == 401
    assert stored(owner) == []


async def test_bytes_beyond_ascii_and_doubled_headers_are_refused(api: Api, owner: psycopg.Connection) -> None:
    for name, values in (
        ("X-Shopify-Hmac-Sha256", [b"\xe9" * 44]),
        ("X-Shopify-Hmac-Sha256", [body_signature(SECRET, b"{}").encode()] * 2),
        ("X-Shopify-Shop-Domain", [DOMAIN.encode(), b"other.myshopify.com"]),
        ("X-Shopify-Topic", ["orders/páid".encode()]),
    ):
        headers = {
            "X-Shopify-Hmac-Sha256": [body_signature(SECRET, b"{}").encode()],
            "X-Shopify-Shop-Domain": [DOMAIN.encode()],
            "X-Shopify-Topic": [b"orders/paid"],
            name: values,
        }
        lines = [b"%s: %s\r\n" % (key.encode(), value) for key, found in headers.items() for value in found]
        head = b"POST /webhooks HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n" + b"".join(lines)
        status = await asyncio.to_thread(_send_raw, str(api.anonymous.base_url), head + b"\r\n{}")
        assert status == 401, (name, values)
    assert stored(owner) == []


def _send_raw(origin: str, request: bytes) -> int:
    where = urlsplit(origin)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n" not in answer:
            answer += connection.recv(4096)
    return int(answer.split(b" ", 2)[1])


async def test_a_body_that_is_not_utf_8_is_refused(api: Api, owner: psycopg.Connection) -> None:
    assert (await send_webhook(api.anonymous, "orders/paid", b'{"id":1,"note":"\xff"}')).status_code == 401
    assert stored(owner) == []


async def test_a_signed_body_for_another_shop_is_refused(api: Api, owner: psycopg.Connection) -> None:
    swapped = {"shop_id": 1, "shop_domain": "other.myshopify.com"}
    for topic in ("shop/redact", "customers/redact"):
        answer = await send_webhook(api.anonymous, topic, swapped)
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authentic")
    assert stored(owner) == []
    assert await counted(api, "shop/redact", "not_authentic") == 1


async def test_what_nobody_waits_for_is_answered_200_and_not_stored(api: Api, owner: psycopg.Connection) -> None:
    unknown_shop = {"X-Shopify-Shop-Domain": "never-added.myshopify.com"}
    with structlog.testing.capture_logs() as logs:
        answers = [
            await send_webhook(api.anonymous, "orders/paid", ORDER, **unknown_shop),
            await send_webhook(api.anonymous, "products/update", ORDER),
            await send_webhook(api.anonymous, "orders/paid", b"{"),
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert stored(owner) == []
    assert [(log["log_level"], log["topic"]) for log in logs] == [
        ("info", "orders/paid"),
        ("info", "products/update"),
        ("warning", "orders/paid"),
    ]
    outcomes = [("orders/paid", "unknown_shop"), ("other", "not_handled"), ("orders/paid", "unreadable")]
    assert [await counted(api, *outcome) for outcome in outcomes] == [1, 1, 1]


async def test_nothing_of_a_body_gets_into_the_log(api: Api) -> None:
    with structlog.testing.capture_logs() as logs:
        await send_webhook(api.anonymous, "orders/paid", ORDER, secret=FOREIGN_SECRET)
        await send_webhook(api.anonymous, "products/update", ORDER)
        await send_webhook(api.anonymous, "orders/paid", b'{"email":"ada@example.com"')
    assert len(logs) == 3
    for secret in ("Ada", "ada@example.com", SECRET, "820982911946154508"):
        assert secret not in str(logs)


async def test_compliance_webhooks_come_after_an_uninstall(api: Api, owner: psycopg.Connection) -> None:
    async with api.runtime.db.shop(api.shop.id) as conn:
        await remove_shop(conn, api.shop.id)
    answer = await send_webhook(api.anonymous, "shop/redact", {"shop_id": 1, "shop_domain": DOMAIN})
    assert answer.status_code == 200
    assert [row[0] for row in stored(owner)] == ["shop/redact"]


async def test_an_order_may_be_large_but_not_endless(api: Api, owner: psycopg.Connection) -> None:
    line = {"id": 1, "price": "9.90", "title": "x" * 5_000}
    large = {"id": 1, "line_items": [line] * 500}
    assert (await send_webhook(api.anonymous, "orders/paid", large)).status_code == 200
    assert len(stored(owner)[0][2]["line_items"]) == 500
    endless = await send_webhook(api.anonymous, "orders/paid", b" " * (BODY_BYTES_MAX + 1), delivery_id="2")
    assert endless.status_code == 413


async def test_while_the_database_is_away_shopify_is_asked_to_try_again(api: Api, owner: psycopg.Connection) -> None:
    assert (await send_webhook(api.anonymous, "orders/paid", ORDER)).status_code == 200
    owner.execute(
        """
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()
        """
    )
    lost = await send_webhook(api.anonymous, "orders/paid", {"id": 2}, delivery_id="delivery-2")
    assert lost.status_code == 503
    again = await send_webhook(api.anonymous, "orders/paid", {"id": 2}, delivery_id="delivery-2")
    assert again.status_code == 200
    assert [row[1] for row in stored(owner)] == ["delivery-1", "delivery-2"]


async def test_a_thousand_deliveries_at_once_are_each_stored_once(api: Api, owner: psycopg.Connection) -> None:
    # httpx looks through all waiting requests at each step, so a thousand in its queue would measure httpx.
    room = asyncio.Semaphore(SENT_AT_ONCE)

    async def deliver(number: int) -> httpx.Response:
        async with room:
            return await send_webhook(api.anonymous, "orders/paid", {"id": number}, delivery_id=f"d{number}")

    # Half of them come twice.
    answers = await asyncio.gather(*(deliver(number % (DELIVERIES * 2 // 3)) for number in range(DELIVERIES)))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(row[2]["id"] for row in stored(owner)) == list(range(DELIVERIES * 2 // 3))


async def test_without_a_secret_the_answer_names_the_setting(without_secret: httpx.AsyncClient) -> None:
    for answer in (
        await send_webhook(without_secret, "orders/paid", ORDER),
        await without_secret.get("/proxy/balance"),
        await without_secret.post("/flow/adjust-points"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (503, "app_not_configured")
        assert "SHOPIFY_API_SECRET" in answer.json()["detail"]


@pytest.mark.parametrize(
    "triggered_at",
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00Z", "1600-02-30T00:00:00Z", "soon"],
)
async def test_a_clock_beyond_our_age_is_not_believed_and_stops_nobody(
    api: Api, owner: psycopg.Connection, triggered_at: str
) -> None:
    answer = await send_webhook(
        api.anonymous, "customers/create", {"id": 7}, **{"X-Shopify-Triggered-At": triggered_at}
    )
    assert answer.status_code == 200
    assert owner.execute("select triggered_at from inbox").fetchall() == [(None,)]
    handled = await handle_due(api.runtime.db, api.shop.id, HANDLERS)
    assert (handled.handled, handled.failed) == (1, 0)
    assert (await api.http.get("/api/inbox")).status_code == 200
