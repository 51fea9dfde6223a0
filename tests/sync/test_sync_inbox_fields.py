"""What is kept of a webhook: every field a handler needs, digit for digit, and nothing of anybody's person."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metafield_sync.shopify.exact_json import JsonUnusable, read_json, write_json
from metafield_sync.sync.inbox.fields import COMPLIANCE_TOPICS, FIELDS, SHOP_NAMED_BY, include_fields, trim

PRICE = {"shop_money": {"amount": "9.90", "currency_code": "EUR"}, "presentment_money": {"amount": "10.80"}}
KEPT_PRICE = {"shop_money": {"amount": "9.90", "currency_code": "EUR"}}
PERSON = {"email": "ada@example.com", "phone": "+44 1", "first_name": "Ada", "last_name": "L", "name": "Ada L"}
REFUND = {
    "id": 890088186047892319,
    "order_id": 820982911946154508,
    "created_at": "2026-11-22T10:00:00Z",
    "processed_at": "2026-11-22T10:00:00Z",
    "note": "Ada did not like it",
    "user_id": 548380009,
    "order_adjustments": [
        {"id": 1, "kind": "refund_discrepancy", "amount": "-1.00", "amount_set": PRICE, "reason": "x"}
    ],
    "transactions": [{"receipt": PERSON, "amount": "9.90"}],
    "refund_line_items": [
        {
            "id": 866550311766439020,
            "line_item_id": 703073504,
            "quantity": 1,
            "subtotal": Decimal("89.99"),
            "subtotal_set": PRICE,
            "total_tax": Decimal("0.0"),
            "total_tax_set": PRICE,
            "line_item": {"id": 703073504, "gift_card": False, "properties": [{"name": "Engraving", "value": "Ada"}]},
        }
    ],
}
KEPT_REFUND = {
    "id": 890088186047892319,
    "created_at": "2026-11-22T10:00:00Z",
    "processed_at": "2026-11-22T10:00:00Z",
    "order_adjustments": [
        {"id": 1, "kind": "refund_discrepancy", "amount": "-1.00", "amount_set": KEPT_PRICE, "reason": "x"}
    ],
    "refund_line_items": [
        {
            "id": 866550311766439020,
            "line_item_id": 703073504,
            "quantity": 1,
            "subtotal": Decimal("89.99"),
            "subtotal_set": KEPT_PRICE,
            "total_tax": Decimal("0.0"),
            "total_tax_set": KEPT_PRICE,
            "line_item": {"id": 703073504, "gift_card": False},
        }
    ],
}
ORDER = {
    "id": 820982911946154508,
    "admin_graphql_api_id": "gid://shopify/Order/820982911946154508",
    "test": False,
    "currency": "EUR",
    "updated_at": "2026-11-22T10:00:00Z",
    "current_subtotal_price_set": PRICE,
    "current_total_tax": "1.58",
    "current_total_tax_set": PRICE,
    "note": "leave it with Ada's neighbour",
    "note_attributes": [{"name": "gift message", "value": "Dear Ada"}],
    "browser_ip": "192.0.2.1",
    "customer": {"id": 115310627314723954, "default_address": PERSON, **PERSON},
    "billing_address": PERSON,
    "shipping_address": PERSON,
    "line_items": [
        {
            "id": 1,
            "gift_card": False,
            "quantity": 2,
            "current_quantity": 1,
            "price": "9.90",
            "price_set": PRICE,
            "name": "Pen for Ada",
            "properties": [{"name": "Engraving", "value": "Ada"}],
            "discount_allocations": [{"amount": "1.00", "amount_set": PRICE, "discount_application_index": 0}],
            "tax_lines": [{"price": "1.58", "price_set": PRICE, "title": "VAT"}],
        }
    ],
    "refunds": [REFUND],
    **PERSON,
}


@pytest.mark.parametrize("topic", ["orders/paid", "orders/updated", "orders/cancelled"])
def test_an_order_keeps_what_it_earns_by_and_nobodys_person(topic: str) -> None:
    assert trim(topic, ORDER) == {
        "id": 820982911946154508,
        "admin_graphql_api_id": "gid://shopify/Order/820982911946154508",
        "test": False,
        "currency": "EUR",
        "updated_at": "2026-11-22T10:00:00Z",
        "current_subtotal_price_set": KEPT_PRICE,
        "current_total_tax": "1.58",
        "current_total_tax_set": KEPT_PRICE,
        "customer": {"id": 115310627314723954},
        "line_items": [
            {
                "id": 1,
                "gift_card": False,
                "quantity": 2,
                "current_quantity": 1,
                "price": "9.90",
                "price_set": KEPT_PRICE,
                "discount_allocations": [{"amount": "1.00", "amount_set": KEPT_PRICE}],
                "tax_lines": [{"price": "1.58", "price_set": KEPT_PRICE}],
            }
        ],
        "refunds": [KEPT_REFUND],
    }


def test_a_refund_keeps_its_order_and_its_amounts() -> None:
    assert trim("refunds/create", REFUND) == {"order_id": 820982911946154508, **KEPT_REFUND}


def test_an_order_without_a_customer_says_so() -> None:
    assert trim("orders/paid", {"id": 1, "customer": None}) == {"id": 1, "customer": None}
    assert trim("orders/paid", {"id": 1}) == {"id": 1}


def test_a_merge_keeps_how_it_went_but_not_the_message_that_names_people() -> None:
    failed: dict[str, Any] = {
        "admin_graphql_api_customer_kept_id": "gid://shopify/Customer/1",
        "admin_graphql_api_customer_deleted_id": "gid://shopify/Customer/2",
        "admin_graphql_api_job_id": None,
        "status": "failed",
        "errors": [{"customer_ids": [1], "field": "merge_in_progress", "message": "Ada L is being merged."}],
    }
    kept = {**failed, "errors": [{"customer_ids": [1], "field": "merge_in_progress"}]}
    assert trim("customers/merge", failed) == kept
    assert trim("customers/merge", {**failed, "errors": []})["errors"] == []
    assert trim("customers/merge", {**failed, "errors": [{"message": "Ada"}]})["errors"] == [{}]


def test_a_privacy_request_keeps_whom_it_is_about_by_number_alone() -> None:
    about = {
        "shop_id": 954889,
        "shop_domain": "demo.myshopify.com",
        "orders_requested": [299938, 280263],
        "customer": {"id": 191167, **PERSON},
        "data_request": {"id": 9999},
    }
    assert trim("customers/data_request", about) == {**about, "customer": {"id": 191167}}


def test_where_a_plain_value_is_expected_nothing_else_is_kept() -> None:
    assert trim("customers/create", {"id": PERSON}) == {}
    assert trim("customers/create", {"id": [PERSON, [PERSON], 5]}) == {"id": [5]}
    assert trim("orders/paid", {"customer": "Ada", "line_items": ["Ada", [ORDER], {"id": 1}]}) == {
        "line_items": [{"id": 1}]
    }


def test_no_field_that_is_asked_for_is_of_a_person() -> None:
    personal = re.compile(
        r"name$|mail|phone|address|note|message|tags|company|city|zip|latitude|longitude|ip$|propert|first_|last_|title"
    )
    asked = {path for paths in FIELDS.values() for path in paths}
    assert [path for path in sorted(asked) if personal.search(path.rsplit(".", 1)[-1])] == ["plan_name"]


def test_what_is_asked_of_shopify_is_what_is_kept() -> None:
    for topic in FIELDS:
        if topic in COMPLIANCE_TOPICS:
            assert include_fields(topic) is None
            continue
        for path in include_fields(topic) or ():
            names = path.split(".")
            payload: Any = {"amount": "1.00", "currency_code": "EUR"} if names[-1] == "shop_money" else 1
            for name in reversed(names):
                payload = {name: payload}
            assert trim(topic, payload) == payload, path


def test_the_shop_that_a_signed_body_names_is_asked_for() -> None:
    for topic, field in SHOP_NAMED_BY.items():
        assert field in FIELDS[topic]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "customer", "line_items", "refunds", "refund_line_items", "x"]), inner, max_size=4
        )
    ),
    max_leaves=25,
)


@given(payload=st.dictionaries(st.sampled_from(["id", "customer", "line_items", "refunds", "test"]), JSON))
@settings(deadline=None)
def test_trimming_takes_away_only_and_is_done_once(payload: dict[str, Any]) -> None:
    for topic in ("orders/paid", "refunds/create", "customers/create"):
        kept = trim(topic, payload)
        assert trim(topic, kept) == kept
        assert all(name in payload for name in kept)


@pytest.mark.parametrize(
    "document", ["89.99", "0.1", "1e-7", "-0.0", "820982911946154508", "1E+20", '"€ \\u0007"', "[true,null,{}]"]
)
def test_numbers_and_text_come_out_as_they_went_in(document: str) -> None:
    value = read_json(document.encode())
    assert read_json(write_json(value)) == value
    assert str(read_json(write_json(value))) == str(value)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"NaN",
        b"[Infinity]",
        b"\xff",
        b"[" * 100_000,
        b"1" * 5000,
        b'"\xed\xa0\x80"',
        b"1e9999999999999999999",
    ],
    ids=lambda document: repr(document[:20]),
)
def test_what_is_not_json_is_said_so_and_not_quoted(document: bytes) -> None:
    with pytest.raises(JsonUnusable) as error:
        read_json(document)
    assert "1111" not in str(error.value)


@pytest.mark.parametrize(
    "value", ["\x00", "\ud800", {"\x00": 1}, ["\udfff\ud800"], Decimal("1E+200"), Decimal("1E-200")]
)
def test_what_postgresql_cannot_store_is_said_so(value: Any) -> None:
    with pytest.raises(JsonUnusable):
        write_json(value)


def test_text_that_only_looks_like_what_cannot_be_stored_is_written() -> None:
    for text in ("\\u0000", "\\ud800", "🎈", "\\\\ud83c"):
        assert json.loads(write_json([text, Decimal("0.5")])) == [text, 0.5]
        assert json.loads(write_json({text: text})) == {text: text}
