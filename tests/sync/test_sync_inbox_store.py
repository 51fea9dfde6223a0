"""Taking a webhook in: once by its delivery id, for a shop that we know, in one call."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from metafield_sync.db.database import Database, ShopId
from metafield_sync.shopify.app import NotAuthentic, WebhookHeaders
from metafield_sync.shops.registry import add_shop, remove_shop
from metafield_sync.sync.inbox.fields import SHOP_NAMED_BY
from metafield_sync.sync.inbox.store import Delivery, Intake, receive

if TYPE_CHECKING:
    import psycopg

DOMAIN = "demo.myshopify.com"
OTHER = "other.myshopify.com"
TRIGGERED = datetime(2026, 11, 22, 18, 0, 27, 877041, UTC)
HEADERS = WebhookHeaders(DOMAIN, "refunds/create", "delivery-1", "event-1", "2026-10", TRIGGERED)
BODY = b'{"id":890088186047892319,"note":"for Ada","refund_line_items":[{"subtotal":89.99,"total_tax":0.10}]}'
DELIVERY = Delivery(
    shop_domain=DOMAIN,
    delivery_id="delivery-1",
    topic="orders/paid",
    event_id=None,
    api_version=None,
    triggered_at=None,
    body_digest=b"",
    payload={"id": 1},
)


def rows(owner: psycopg.Connection, what: LiteralString) -> list[Any]:
    return owner.execute("select " + what + " from inbox order by shop_id, id").fetchall()  # noqa: S608 - ours


async def test_it_is_stored_with_its_digest_and_what_is_kept_of_it(
    db: Database, shop_id: ShopId, owner: psycopg.Connection
) -> None:
    assert await receive(Intake(db), HEADERS, BODY) == "taken"
    columns = "shop_id, delivery_id, topic, event_id, api_version, triggered_at, body_digest, payload::text, attempts"
    assert rows(owner, columns) == [
        (
            shop_id,
            "delivery-1",
            "refunds/create",
            "event-1",
            "2026-10",
            TRIGGERED,
            hashlib.sha256(BODY).digest(),
            '{"id": 890088186047892319, "refund_line_items": [{"subtotal": 89.99, "total_tax": 0.10}]}',
            0,
        )
    ]
    assert rows(owner, "due_at <= clock_timestamp() and handled_at is null") == [(True,)]


async def test_the_same_delivery_again_changes_nothing(
    db: Database, shop_id: ShopId, owner: psycopg.Connection
) -> None:
    assert await receive(Intake(db), HEADERS, BODY) == "taken"
    owner.execute("update inbox set due_at = null, handled_at = now(), outcome = 'done'")
    before = rows(owner, "*")
    other = replace(HEADERS, topic="orders/paid", triggered_at=None)
    assert await receive(Intake(db), HEADERS, BODY) == "repeated"
    assert await receive(Intake(db), other, b'{"id":2}') == "repeated"
    assert rows(owner, "*") == before
    assert before[0][0] == shop_id


@pytest.mark.usefixtures("shop_id")
async def test_at_once_and_many_times_it_is_stored_once(db: Database, owner: psycopg.Connection) -> None:
    intakes = [Intake(db), Intake(db)]
    taken = await asyncio.gather(*(intakes[number % 2].take(DELIVERY) for number in range(50)))
    assert sorted(taken) == ["repeated"] * 49 + ["taken"]
    assert len(rows(owner, "id")) == 1


@pytest.mark.usefixtures("shop_id")
async def test_without_an_id_of_its_own_a_webhook_is_known_by_body_and_topic(
    db: Database, owner: psycopg.Connection
) -> None:
    nameless = replace(HEADERS, delivery_id=None)
    assert await receive(Intake(db), nameless, BODY) == "taken"
    assert await receive(Intake(db), nameless, BODY) == "repeated"
    assert await receive(Intake(db), nameless, BODY + b" ") == "taken"
    assert await receive(Intake(db), replace(nameless, topic="orders/updated"), BODY) == "taken"
    digest = hashlib.sha256(BODY).hexdigest()
    assert (f"sha256:{digest}:refunds/create",) in rows(owner, "delivery_id")


@pytest.mark.usefixtures("shop_id")
async def test_one_delivery_id_in_two_shops_is_two_webhooks(db: Database, owner: psycopg.Connection) -> None:
    async with db.unscoped() as conn:
        other, _ = await add_shop(conn, OTHER, None)
    assert await Intake(db).take(DELIVERY) == "taken"
    assert await Intake(db).take(replace(DELIVERY, shop_domain=OTHER)) == "taken"
    assert len(rows(owner, "id")) == 2
    async with db.shop(other.id) as conn:
        cur = await conn.execute("select shop_id from inbox")
        assert await cur.fetchall() == [(other.id,)]


async def test_a_shop_that_removed_the_app_still_receives(
    db: Database, shop_id: ShopId, owner: psycopg.Connection
) -> None:
    async with db.shop(shop_id) as conn:
        await remove_shop(conn, shop_id)
    redact = replace(HEADERS, topic="shop/redact")
    assert await receive(Intake(db), redact, b'{"shop_id":1,"shop_domain":"demo.myshopify.com"}') == "taken"
    assert rows(owner, "topic") == [("shop/redact",)]


@pytest.mark.usefixtures("shop_id")
async def test_what_is_of_no_use_is_not_stored(db: Database, owner: psycopg.Connection) -> None:
    assert await receive(Intake(db), replace(HEADERS, shop_domain="never-added.myshopify.com"), BODY) == "unknown_shop"
    assert await receive(Intake(db), replace(HEADERS, topic="products/update"), BODY) == "not_handled"
    for body in (b"", b"{", b"[]", b'"text"', b'{"id":NaN}', b'{"id":"\\u0000"}', b'{"id":1e400}', b"[" * 9999):
        assert await receive(Intake(db), HEADERS, body) == "unreadable"
    assert rows(owner, "id") == []


@pytest.mark.usefixtures("shop_id")
@pytest.mark.parametrize("topic", SHOP_NAMED_BY)
async def test_a_body_that_names_another_shop_than_its_header_is_a_forgery(
    topic: str, db: Database, owner: psycopg.Connection
) -> None:
    field = SHOP_NAMED_BY[topic]
    for body in (f'{{"id":1,"{field}":"{OTHER}"}}', '{"id":1}', f'{{"{field}":["{DOMAIN}"]}}'):
        with pytest.raises(NotAuthentic, match=field):
            await receive(Intake(db), replace(HEADERS, topic=topic), body.encode())
    assert rows(owner, "id") == []
    assert await receive(Intake(db), replace(HEADERS, topic=topic), f'{{"{field}":"{DOMAIN}"}}'.encode()) == "taken"


@pytest.mark.usefixtures("shop_id")
async def test_amounts_keep_every_digit_in_the_database(db: Database, owner: psycopg.Connection) -> None:
    amounts = {"id": 2**62 + 1, "current_subtotal_price": Decimal("0.10000000000000000000000000001"), "test": True}
    assert await Intake(db).take(replace(DELIVERY, payload=amounts)) == "taken"
    asked = "payload->'id', (payload->>'current_subtotal_price')::numeric, payload->'test'"
    assert rows(owner, asked) == [(2**62 + 1, Decimal("0.10000000000000000000000000001"), True)]


@pytest.mark.usefixtures("shop_id")
async def test_the_next_statement_of_the_connection_acts_for_no_shop(db: Database) -> None:
    async with db.connection() as conn:
        await conn.execute("select take_delivery('demo.myshopify.com', 'd', 't', null, null, null, '', '{}')")
        cur = await conn.execute("select current_user = session_user, current_shop_id()")
        assert await cur.fetchone() == (True, None)


@pytest.mark.usefixtures("shop_id")
async def test_those_that_come_together_are_stored_together_each_for_its_own_shop(
    db: Database, owner: psycopg.Connection
) -> None:
    async with db.unscoped() as conn:
        other, _ = await add_shop(conn, OTHER, None)
    intake = Intake(db)
    many = [
        replace(
            DELIVERY,
            delivery_id=f"delivery {number}",
            shop_domain=(DELIVERY.shop_domain, OTHER, "never-added.myshopify.com")[number % 3],
        )
        for number in range(300)
    ]
    taken = await asyncio.gather(*(intake.take(one) for one in many))
    assert taken == ["taken", "taken", "unknown_shop"] * 100
    shops = owner.execute("select shop_id, count(*), count(distinct xmin::text) from inbox group by shop_id").fetchall()
    assert {shop: count for shop, count, _ in shops} == {shops[0][0]: 100, shops[1][0]: 100}
    assert other.id in {shop for shop, _, _ in shops}
    assert max(transactions for _, _, transactions in shops) <= 5, "not one transaction for each"


async def test_whoever_waits_hears_that_the_database_is_gone(database_url: str) -> None:
    async with Database(database_url) as db:
        intake = Intake(db)
    waiting = await asyncio.gather(*(intake.take(DELIVERY) for _ in range(3)), return_exceptions=True)
    assert [isinstance(error, Exception) for error in waiting] == [True] * 3
