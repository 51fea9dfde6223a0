"""Webhooks: what is sent, when it is sent again, and what goes wrong on request."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from app_support import SECRET, Received, Receiver
from devstore_support import DOMAIN, BulkClient, Remote, one_each
from starlette.responses import Response

from devstore.app import AppSubscription
from devstore.courier import Courier
from devstore.webhooks import AT_ONCE_MAX, RETRY_AFTER_S, DeliveryStatus, Webhooks, keep_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devstore import DevStore, ManualClock

TOPIC = "shop/update"
PAYLOAD = {"id": 1, "name": "Zoë's", "admin_graphql_api_id": "gid://shopify/Shop/1"}


@pytest.fixture
def webhooks(store: DevStore, app: Receiver) -> Webhooks:
    del app  # it must be there before anything is emitted
    return store.shop(DOMAIN).webhooks


def is_signed(request: Received, secret: str = SECRET) -> bool:
    expected = hmac.new(secret.encode(), request.body, hashlib.sha256).digest()
    return request.headers["X-Shopify-Hmac-Sha256"] == base64.b64encode(expected).decode()


async def sent(webhooks: Webhooks, app: Receiver, count: int = 1, payload: Mapping[str, object] = PAYLOAD) -> None:
    """Emit a topic so many times and wait for it."""
    app.received.clear()
    for _ in range(count):
        webhooks.emit(TOPIC, payload)
    await webhooks.settle()


# ------------------------------------------------------------------------------------------------------ one delivery


async def test_a_delivery_bears_shopifys_headers_and_a_signature_over_its_bytes(
    webhooks: Webhooks, app: Receiver
) -> None:
    moment = datetime(2026, 1, 31, 13, 0, tzinfo=timezone(timedelta(hours=1)))
    (made,) = webhooks.emit(TOPIC, PAYLOAD, triggered_at=moment)
    await webhooks.settle()
    (came,) = app.received
    assert made.status is DeliveryStatus.DELIVERED
    assert (came.method, came.path, came.json) == ("POST", "/webhooks", PAYLOAD)
    assert is_signed(came)
    assert came.headers["X-Shopify-Topic"] == TOPIC
    assert came.headers["X-Shopify-Shop-Domain"] == DOMAIN
    assert came.headers["X-Shopify-API-Version"] == "2026-10"
    assert came.headers["X-Shopify-Triggered-At"] == "2026-01-31T12:00:00.000000Z"
    assert came.headers["X-Shopify-Webhook-Id"] == made.webhook_id
    assert came.headers["X-Shopify-Event-Id"] == made.event_id
    assert "X-Shopify-Name" not in came.headers


async def test_a_body_is_compact_and_escapes_slashes(webhooks: Webhooks, app: Receiver) -> None:
    await sent(webhooks, app, payload={"id": "gid://shopify/Shop/1", "name": "Zoë"})
    assert app.received[0].body == '{"id":"gid:\\/\\/shopify\\/Shop\\/1","name":"Zoë"}'.encode()


async def test_two_subscriptions_share_the_event_and_not_the_delivery(webhooks: Webhooks, app: Receiver) -> None:
    webhooks.subscribe(TOPIC, f"{app.url}/elsewhere", name="second")
    await sent(webhooks, app)
    one, two = sorted(app.received, key=lambda came: came.path, reverse=True)
    assert (one.path, two.path) == ("/webhooks", "/elsewhere")
    assert one.headers["X-Shopify-Event-Id"] == two.headers["X-Shopify-Event-Id"]
    assert one.headers["X-Shopify-Webhook-Id"] != two.headers["X-Shopify-Webhook-Id"]
    assert two.headers["X-Shopify-Name"] == "second"


async def test_a_topic_nobody_asked_for_is_not_sent(webhooks: Webhooks, app: Receiver) -> None:
    assert webhooks.emit("orders/create", PAYLOAD) == []
    await webhooks.settle()
    assert app.received == []


async def test_a_subscription_gets_the_fields_it_asked_for(webhooks: Webhooks, app: Receiver, store: DevStore) -> None:
    fields = ("id", "customer.id", "lines.id", "absent", "email.id")
    store.world.app.subscriptions = (AppSubscription(TOPIC, "/webhooks", fields),)
    payload = {
        "id": 1,
        "name": "Zoë",
        "customer": {"id": 2, "email": "zoe@example.com"},
        "lines": [{"id": 3, "title": "A"}, {"id": 4}],
        "email": None,
    }
    await sent(webhooks, app, payload=payload)
    expected = {"id": 1, "customer": {"id": 2}, "lines": [{"id": 3}, {"id": 4}], "email": None}
    assert app.received[0].json == expected


def test_a_field_that_is_wanted_whole_is_whole() -> None:
    assert keep_fields({"a": {"b": 1, "c": 2}}, ["a.b", "a"]) == {"a": {"b": 1, "c": 2}}


async def test_an_app_that_is_nowhere_is_not_reached_and_the_log_says_why(webhooks: Webhooks, store: DevStore) -> None:
    store.world.app.url = None
    (made,) = webhooks.emit(TOPIC, PAYLOAD)
    assert made.status is DeliveryStatus.DROPPED
    assert made.error is not None
    assert "address" in made.error


# ------------------------------------------------------------------------------------------------------ tried again


@pytest.mark.parametrize("status", [301, 302, 304, 400, 401, 404, 410, 429, 500, 503])
async def test_whatever_is_no_200_is_a_failure(webhooks: Webhooks, app: Receiver, status: int) -> None:
    app.answers.append(Response(status_code=status, headers={"Location": f"{app.url}/moved"}))
    await sent(webhooks, app)
    assert [came.path for came in app.received] == ["/webhooks"]
    assert (webhooks.deliveries[-1].status, webhooks.waiting) == (DeliveryStatus.WAITING, 1)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_every_status_of_the_200s_is_a_success(webhooks: Webhooks, app: Receiver, status: int) -> None:
    app.answers.append(Response(status_code=status))
    await sent(webhooks, app)
    assert (webhooks.deliveries[-1].status, webhooks.waiting) == (DeliveryStatus.DELIVERED, 0)


def test_the_eight_retries_span_four_hours_and_their_pauses_grow() -> None:
    assert (len(RETRY_AFTER_S), sum(RETRY_AFTER_S)) == (8, 4 * 60 * 60)
    assert list(RETRY_AFTER_S) == sorted(RETRY_AFTER_S)


async def test_a_failed_delivery_is_tried_eight_more_times_on_time_and_never_again(
    webhooks: Webhooks, app: Receiver, clock: ManualClock
) -> None:
    app.fail(100)
    await sent(webhooks, app)
    for number, pause_s in enumerate(RETRY_AFTER_S, start=1):
        clock.advance(pause_s - 0.1)
        await webhooks.settle()
        assert len(app.received) == number
        clock.advance(0.2)
        await webhooks.settle()
        assert len(app.received) == number + 1
    clock.advance(24 * 60 * 60)
    await webhooks.settle()
    assert len(app.received) == 9
    assert len({(came.body, came.headers["X-Shopify-Webhook-Id"]) for came in app.received}) == 1
    assert (webhooks.deliveries[-1].status, webhooks.waiting) == (DeliveryStatus.FAILED, 0)


async def test_a_retry_bears_the_payload_of_then(webhooks: Webhooks, app: Receiver, clock: ManualClock) -> None:
    payload = dict(PAYLOAD)
    app.fail(1)
    await sent(webhooks, app, payload=payload)
    payload["name"] = "changed since"
    clock.advance(RETRY_AFTER_S[0])
    await webhooks.settle()
    assert [came.json["name"] for came in app.received] == [PAYLOAD["name"]] * 2
    assert webhooks.deliveries[-1].status is DeliveryStatus.DELIVERED


async def test_retries_can_be_had_at_once_or_faster(webhooks: Webhooks, app: Receiver, clock: ManualClock) -> None:
    webhooks.change({"retry_speed": 60})
    app.fail(2)
    await sent(webhooks, app)
    clock.advance(RETRY_AFTER_S[0] / 60)
    await webhooks.settle()
    assert len(app.received) == 2
    assert webhooks.retry_now() == 1
    await webhooks.settle()
    assert len(app.received) == 3


async def test_the_shops_own_subscription_is_gone_after_eight_failures_and_the_apps_is_not(
    webhooks: Webhooks, app: Receiver, clock: ManualClock
) -> None:
    own = webhooks.subscribe(TOPIC, "/own")
    app.fail(100)
    await sent(webhooks, app)
    for pause_s in RETRY_AFTER_S[:-1]:
        clock.advance(pause_s)
        await webhooks.settle()
    assert webhooks.own == [own]
    clock.advance(RETRY_AFTER_S[-1])
    await webhooks.settle()
    assert webhooks.own == []
    assert TOPIC in {one.topic for one in webhooks.subscriptions}


async def test_a_subscription_through_which_something_came_meanwhile_stays(
    webhooks: Webhooks, app: Receiver, clock: ManualClock, store: DevStore
) -> None:
    store.world.app.subscriptions = ()
    own = webhooks.subscribe(TOPIC, "/own")
    app.fail(8)
    await sent(webhooks, app)
    for pause_s in RETRY_AFTER_S[:-1]:
        clock.advance(pause_s)
        await webhooks.settle()
    await sent(webhooks, app)
    app.fail(1)
    clock.advance(RETRY_AFTER_S[-1])
    await webhooks.settle()
    assert webhooks.deliveries[0].status is DeliveryStatus.FAILED
    assert webhooks.own == [own]


async def test_what_waits_for_a_subscription_that_is_removed_is_not_sent(webhooks: Webhooks, app: Receiver) -> None:
    own = webhooks.subscribe("orders/paid", "/own")
    app.fail(1)
    (made,) = webhooks.emit("orders/paid", PAYLOAD)
    await webhooks.settle()
    webhooks.unsubscribe(own.number)
    webhooks.retry_now()
    await webhooks.settle()
    assert (len(app.received), made.status) == (1, DeliveryStatus.DROPPED)


async def test_an_app_that_is_not_there_or_does_not_answer_in_time_is_a_failure(app: Receiver, store: DevStore) -> None:
    courier = Courier(store.world.clock)
    app.open.clear()
    late = await courier.carry("POST", app.url, headers={}, total_s=0.05)
    assert (late.status, late.error) == (None, "no answer in time")
    refused = await courier.carry("POST", "http://127.0.0.1:9", headers={})
    assert refused.status is None
    assert refused.error is not None
    assert refused.error.startswith("ConnectError")
    await courier.close()


async def test_only_so_many_are_on_their_way_at_once(webhooks: Webhooks, app: Receiver, remote: Remote) -> None:
    app.open.clear()
    for _ in range(AT_ONCE_MAX * 2):
        webhooks.emit(TOPIC, PAYLOAD)
    while len(app.received) < AT_ONCE_MAX:
        await remote.control("GET", "/health")
    # A few turns more, in which another one would have come.
    for _ in range(5):
        await remote.control("GET", "/health")
    assert len(app.received) == AT_ONCE_MAX
    app.open.set()
    await webhooks.settle()
    assert len(app.received) == AT_ONCE_MAX * 2


# --------------------------------------------------------------------------------------------------------- mischief


async def test_a_dropped_one_never_comes(webhooks: Webhooks, app: Receiver) -> None:
    webhooks.change({"drop_rate": 1})
    await sent(webhooks, app, 3)
    assert webhooks.retry_now() == 0
    assert app.received == []
    assert {one.status for one in webhooks.deliveries} == {DeliveryStatus.DROPPED}


async def test_a_doubled_one_comes_twice_with_the_same_ids(webhooks: Webhooks, app: Receiver) -> None:
    webhooks.change({"double_rate": 1})
    await sent(webhooks, app)
    assert len(app.received) == 2
    ids = {(came.headers["X-Shopify-Webhook-Id"], came.headers["X-Shopify-Event-Id"]) for came in app.received}
    assert len(ids) == 1


async def test_rates_in_between_are_drawn_from_the_seed(webhooks: Webhooks, app: Receiver) -> None:
    outcomes: list[list[DeliveryStatus]] = []
    for _ in range(2):
        webhooks.deliveries.clear()
        webhooks.change({"drop_rate": 0.5, "seed": 7})
        await sent(webhooks, app, 40)
        outcomes.append([one.status for one in webhooks.deliveries])
    assert outcomes[0] == outcomes[1]
    assert set(outcomes[0]) == {DeliveryStatus.DROPPED, DeliveryStatus.DELIVERED}


async def test_paused_ones_are_held_and_shuffled_ones_come_in_another_order(webhooks: Webhooks, app: Receiver) -> None:
    webhooks.change({"paused": True, "shuffle": True, "seed": 1})
    for number in range(20):
        webhooks.emit(TOPIC, {"id": number})
    assert (webhooks.pending, app.received) == (20, [])
    webhooks.change({"paused": False})
    await webhooks.settle()
    order = [came.json["id"] for came in app.received]
    assert sorted(order) == list(range(20))
    assert order != list(range(20))


async def test_a_delayed_one_comes_when_its_time_has_come(webhooks: Webhooks, app: Receiver) -> None:
    webhooks.change({"delay_ms": 20, "delay_max_ms": 30})
    webhooks.emit(TOPIC, PAYLOAD)
    webhooks.change({"delay_ms": 0, "delay_max_ms": 0})
    webhooks.emit(TOPIC, {"id": 2})
    await webhooks.settle()
    assert [came.json["id"] for came in app.received] == [2, 1]


async def test_a_signature_can_be_wrong_or_by_the_old_secret(
    webhooks: Webhooks, app: Receiver, store: DevStore
) -> None:
    webhooks.change({"bad_signature": True})
    await sent(webhooks, app)
    assert not is_signed(app.received[0])
    store.world.app.old_client_secret = "older" * 8
    webhooks.change({"bad_signature": False, "old_secret": True})
    await sent(webhooks, app)
    assert is_signed(app.received[0], "older" * 8)


async def test_a_retry_after_a_rotation_is_signed_with_the_new_secret(
    webhooks: Webhooks, app: Receiver, store: DevStore
) -> None:
    app.fail(1)
    await sent(webhooks, app)
    store.world.app.client_secret = "newer" * 8
    webhooks.retry_now()
    await webhooks.settle()
    assert is_signed(app.received[0])
    assert is_signed(app.received[1], "newer" * 8)


# ------------------------------------------------------------------------------------------------ what tells of what


async def test_the_end_of_a_bulk_operation_is_told_in_lower_case(
    webhooks: Webhooks, app: Receiver, bulk: BulkClient
) -> None:
    gid = await bulk.start(*one_each(1, 2))
    await bulk.finish(gid)
    await webhooks.settle()
    told = app.received[0].json
    assert {**told, "created_at": "", "completed_at": ""} == {
        "admin_graphql_api_id": gid,
        "created_at": "",
        "completed_at": "",
        "error_code": None,
        "status": "completed",
        "type": "mutation",
    }
    assert told["completed_at"] == "2026-01-01T00:00:00Z"


async def test_the_control_api_arranges_and_shows_it_all(remote: Remote, app: Receiver) -> None:
    path = f"/shops/{DOMAIN}/webhooks"
    settings = await remote.control("PATCH", path, doubleRate=1, seed=3)
    assert (settings["doubleRate"], settings["paused"]) == (1, False)
    made = await remote.control(
        "POST", f"{path}/subscriptions", topic="customers/redact", uri="/redact", includeFields=["customer.id"]
    )
    assert (made["uri"], made["includeFields"]) == ("/redact", ["customer.id"])
    event = {"topic": "customers/redact", "customerId": 7, "triggeredAt": "2026-01-02T03:04:05Z"}
    (one, two) = await remote.control("POST", f"{path}/events", **event)
    assert one["webhookId"] == two["webhookId"]
    assert await remote.control("POST", f"{path}/settle") == {"waiting": 0}
    assert [came.json for came in app.received] == [{"customer": {"id": 7}}] * 2
    assert app.received[0].headers["X-Shopify-Triggered-At"] == "2026-01-02T03:04:05.000000Z"
    listed = await remote.control("GET", f"{path}?topic=customers/redact&after={one['number']}")
    assert [(each["status"], each["tries"][0]["status"]) for each in listed] == [("delivered", 200)]
    assert await remote.control("DELETE", f"{path}/subscriptions/{made['number']}") == {"removed": True}
    await remote.control("DELETE", path)
    assert await remote.control("GET", path) == []


async def test_compliance_topics_and_shop_update_need_no_payload(remote: Remote, app: Receiver) -> None:
    path = f"/shops/{DOMAIN}/webhooks"
    for topic in ("customers/data_request", "customers/redact"):
        await remote.control("POST", f"{path}/subscriptions", topic=topic, uri="/webhooks")
    await remote.control("POST", f"{path}/events", topic="customers/data_request", customerId="7", orderIds=[1, 2])
    await remote.control("POST", f"{path}/events", topic="customers/redact", customerId="7", orderIds=[1, 2])
    await remote.control("POST", f"{path}/events", topic="shop/redact")
    await remote.control("POST", f"{path}/events", topic="shop/update")
    await remote.control("POST", f"{path}/settle")
    told = {came.headers["X-Shopify-Topic"]: came.json for came in app.received}
    whose = {"shop_id": 1, "shop_domain": DOMAIN}
    person = {"id": 7, "email": "customer-7@example.com", "phone": "555-625-1199"}
    request = {**whose, "orders_requested": [1, 2], "customer": person, "data_request": {"id": 9999}}
    assert told["customers/data_request"] == request
    assert told["customers/redact"] == {**whose, "customer": person, "orders_to_redact": [1, 2]}
    assert told["shop/redact"] == whose
    assert (told["shop/update"]["id"], told["shop/update"]["myshopify_domain"]) == (1, DOMAIN)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "events", {"topic": "orders/paid"}),
        ("POST", "events", {"topic": "customers/redact"}),
        ("POST", "events", {"topic": TOPIC, "triggeredAt": "yesterday"}),
        ("POST", "events", {"topic": TOPIC, "triggeredAt": "2026-01-02T03:04:05"}),
        ("PATCH", "", {"dropRate": "often"}),
        ("PATCH", "", {"dropRate": -1}),
        ("PATCH", "", {"paused": 1}),
        ("PATCH", "", {"speed": 1}),
        ("POST", "subscriptions", {"topic": TOPIC}),
        ("POST", "subscriptions", {"topic": TOPIC, "uri": "/", "includeFields": "id"}),
    ],
)
async def test_a_call_without_sense_is_told_so(remote: Remote, method: str, path: str, body: dict[str, object]) -> None:
    url = f"{remote.origin}/_devstore/shops/{DOMAIN}/webhooks/{path}".rstrip("/")
    answer = await remote.http.request(method, url, json=body)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


async def test_the_stamp_of_now_is_the_shops_own(webhooks: Webhooks, clock: ManualClock) -> None:
    webhooks.change({"drop_rate": 1})
    (made,) = webhooks.emit(TOPIC, PAYLOAD)
    assert datetime.fromisoformat(made.triggered_at) == datetime.fromtimestamp(clock.wall_s, UTC)
