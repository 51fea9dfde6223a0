"""Bodies that Shopify signs: webhooks and Flow actions. Their headers are claims, and forgeries get nowhere."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from app_requests import (
    CUSTOMER,
    FOREIGN_SECRET,
    OLD_SECRET,
    OTHER_SHOP,
    ROTATING,
    SECRET,
    SHOP,
    VERIFIER,
    flow_run,
    webhook_headers,
)
from starlette.datastructures import Headers

from devstore.signing import body_signature
from metafield_sync.shopify.app import NotAuthentic, WebhookHeaders

BODY = '{"id":820982911946154508,"note":"Ünïcode, € and 🎈"}'.encode()
"""Told in characters of one to four bytes: what is signed is bytes."""


def test_a_webhook_is_known_by_its_body_and_says_the_rest_in_its_headers() -> None:
    said = VERIFIER.webhook(webhook_headers(BODY), BODY)
    assert said == WebhookHeaders(
        shop_domain=SHOP,
        topic="orders/paid",
        delivery_id="b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
        event_id="98880550-7158-44d4-b7cd-2c97c8a091b5",
        api_version="2026-10",
        triggered_at=datetime(2026, 11, 22, 18, 0, 27, 877041, UTC),
    )


def test_header_names_are_read_in_any_case() -> None:
    shouted = {name.upper(): value for name, value in webhook_headers(BODY).items()}
    assert VERIFIER.webhook(shouted, BODY) == VERIFIER.webhook(webhook_headers(BODY), BODY)


def test_what_shopify_may_leave_out_may_be_missing() -> None:
    optional = ("X-Shopify-Webhook-Id", "X-Shopify-Event-Id", "X-Shopify-API-Version", "X-Shopify-Triggered-At")
    headers = {name: value for name, value in webhook_headers(BODY).items() if name not in optional}
    said = VERIFIER.webhook(headers, BODY)
    assert (said.delivery_id, said.event_id, said.api_version, said.triggered_at) == (None, None, None, None)
    unreadable = webhook_headers(BODY, **{"X-Shopify-Triggered-At": "yesterday"})
    assert VERIFIER.webhook(unreadable, BODY).triggered_at is None


def test_the_secret_before_the_rotation_is_good_only_where_it_is_set() -> None:
    for secret in (SECRET, OLD_SECRET):
        assert ROTATING.webhook(webhook_headers(BODY, secret), BODY).shop_domain == SHOP
    for verifier in (VERIFIER, ROTATING):
        with pytest.raises(NotAuthentic, match="SHOPIFY_API_SECRET"):
            verifier.webhook(webhook_headers(BODY, FOREIGN_SECRET), BODY)
    with pytest.raises(NotAuthentic):
        VERIFIER.webhook(webhook_headers(BODY, OLD_SECRET), BODY)


@pytest.mark.parametrize("change", [BODY + b" ", BODY[:-1], b"", BODY.replace(b"5", b"6")])
def test_one_byte_more_less_or_other_is_refused(change: bytes) -> None:
    with pytest.raises(NotAuthentic):
        VERIFIER.webhook(webhook_headers(BODY), change)


@pytest.mark.parametrize("body", [b"\xff\xfe", BODY + b"\xe2\x82", '{"id":1}'.encode("utf-16"), b'"\xed\xa0\x80"'])
def test_a_signed_body_that_is_not_utf_8_is_refused(body: bytes) -> None:
    with pytest.raises(NotAuthentic, match="UTF-8"):
        VERIFIER.webhook(webhook_headers(body), body)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Shopify-Hmac-Sha256", ""),
        ("X-Shopify-Hmac-Sha256", "é" * 44),
        ("X-Shopify-Hmac-Sha256", body_signature(SECRET, BODY).rstrip("=")),
        ("X-Shopify-Hmac-Sha256", body_signature(SECRET, BODY) + ", " + body_signature(SECRET, BODY)),
        ("X-Shopify-Shop-Domain", ""),
        ("X-Shopify-Shop-Domain", "evil.example.com"),
        ("X-Shopify-Shop-Domain", "demo.myshopify.com.evil.example"),
        ("X-Shopify-Shop-Domain", "demo.myshopify.com\n"),
        ("X-Shopify-Shop-Domain", "-demo.myshopify.com"),
        ("X-Shopify-Shop-Domain", "démo.myshopify.com"),
        ("X-Shopify-Shop-Domain", f"{SHOP}, {OTHER_SHOP}"),
        ("X-Shopify-Topic", "orders"),
        ("X-Shopify-Topic", "orders/paid, app/uninstalled"),
        ("X-Shopify-Webhook-Id", "one, two"),
        ("X-Shopify-Webhook-Id", "x" * 151),
        ("X-Shopify-Event-Id", "\x00"),
    ],
)
def test_a_header_that_shopify_would_not_send_is_refused(name: str, value: str) -> None:
    with pytest.raises(NotAuthentic):
        VERIFIER.webhook(webhook_headers(BODY) | {name: value}, BODY)


@pytest.mark.parametrize("name", ["X-Shopify-Hmac-Sha256", "X-Shopify-Shop-Domain", "X-Shopify-Topic"])
def test_without_its_signature_shop_or_topic_it_is_refused(name: str) -> None:
    headers = webhook_headers(BODY)
    del headers[name]
    with pytest.raises(NotAuthentic, match=f"{name.lower()} is missing"):
        VERIFIER.webhook(headers, BODY)


@pytest.mark.parametrize("name", ["X-Shopify-Hmac-Sha256", "X-Shopify-Shop-Domain", "X-Shopify-Webhook-Id"])
def test_a_header_given_twice_is_refused_even_if_both_say_the_same(name: str) -> None:
    headers = webhook_headers(BODY)
    twice = Headers(raw=[(k.lower().encode(), v.encode()) for k, v in [*headers.items(), (name, headers[name])]])
    with pytest.raises(NotAuthentic, match="more than once"):
        VERIFIER.webhook(twice, BODY)


def test_the_header_of_shopifys_events_does_not_stand_in_for_a_webhooks() -> None:
    headers = webhook_headers(BODY)
    headers["Shopify-Hmac-Sha256"] = headers.pop("X-Shopify-Hmac-Sha256")
    with pytest.raises(NotAuthentic):
        VERIFIER.webhook(headers, BODY)


def flow(run: dict[str, Any] | bytes, *, secret: str = SECRET, **headers: str) -> tuple[dict[str, str], bytes]:
    body = run if isinstance(run, bytes) else json.dumps(run).encode()
    return {"x-shopify-hmac-sha256": body_signature(secret, body), **headers}, body


def test_a_flow_action_says_everything_in_its_signed_body() -> None:
    run = VERIFIER.flow_action(*flow(flow_run()))
    assert (run.shop_domain, run.action_run_id, run.handle) == (SHOP, "5a0c2d1e-run", "adjust-points")
    assert run.properties == {"customer_id": str(CUSTOMER), "points": "10"}


def test_numbers_of_a_flow_action_lose_no_digit() -> None:
    headers, body = flow(flow_run(properties={"points": 0.1, "customer_id": 2**62}))
    run = VERIFIER.flow_action(headers, body)
    assert run.properties == {"points": Decimal("0.1"), "customer_id": 2**62}


def test_a_flow_action_for_another_shop_than_its_header_says_is_refused() -> None:
    assert VERIFIER.flow_action(*flow(flow_run(), **{"X-Shopify-Shop-Domain": SHOP})).shop_domain == SHOP
    with pytest.raises(NotAuthentic, match="another shop"):
        VERIFIER.flow_action(*flow(flow_run(), **{"X-Shopify-Shop-Domain": OTHER_SHOP}))


@pytest.mark.parametrize(
    "body",
    [
        flow_run(shopify_domain="evil.example.com"),
        flow_run(shopify_domain=None),
        flow_run(action_run_id=""),
        flow_run(action_run_id=7),
        flow_run(action_run_id="a b"),
        b"[]",
        b"{",
        b"null",
        b'{"shopify_domain":NaN}',
        b"[" * 100_000,
    ],
    ids=lambda body: str(body)[:40],
)
def test_a_signed_body_that_is_no_flow_action_is_refused(body: dict[str, Any] | bytes) -> None:
    with pytest.raises(NotAuthentic):
        VERIFIER.flow_action(*flow(body))


def test_a_flow_action_signed_with_another_secret_is_refused() -> None:
    assert ROTATING.flow_action(*flow(flow_run(), secret=OLD_SECRET)).shop_domain == SHOP
    for secret in (OLD_SECRET, FOREIGN_SECRET):
        with pytest.raises(NotAuthentic):
            VERIFIER.flow_action(*flow(flow_run(), secret=secret))


def test_a_refusal_says_nothing_of_the_secret_nor_of_the_body() -> None:
    with pytest.raises(NotAuthentic) as refused:
        VERIFIER.webhook(webhook_headers(BODY, FOREIGN_SECRET), BODY)
    assert SECRET not in refused.value.detail
    assert "820982911946154508" not in refused.value.detail
    assert (refused.value.status, refused.value.code) == (401, "not_authentic")
