"""What is read of an order or a refund as Shopify describes it: what may be missing, and what is refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from order_world import World, at, shopifys_sample

from metafield_sync.sync.inbox.fields import trim
from metafield_sync.sync.orders.reading import OrderUnreadable, read_order, read_refund

ORDER = 1001
BARE_LINES: list[dict[str, Any]] = [
    {},
    {"gift_card": None, "discount_allocations": None, "tax_lines": None},
    {"discount_allocations": [{}], "tax_lines": [{}]},
    {"quantity": 3},
]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "1001.0"),
        ("id", "9" * 19),
        ("id", 0),
        ("id", True),
        ("updated_at", None),
        ("updated_at", "yesterday"),
        ("updated_at", "0001-01-01T00:00:00+10:00"),
        ("updated_at", "9999-12-31T23:59:59-10:00"),
        ("current_subtotal_price_set", {"shop_money": {"amount": "NaN"}}),
        ("current_subtotal_price_set", {"shop_money": {"amount": 1.5}}),
        ("current_subtotal_price_set", {"shop_money": {"amount": "1e9"}}),
        ("current_subtotal_price_set", {"shop_money": {"amount": "9" * 40}}),
        ("line_items", [None]),
        ("line_items", [{"quantity": -1, "current_quantity": 0, "price": "1"}]),
        ("line_items", [{"quantity": 1, "current_quantity": 1, "gift_card": True}]),
        ("refunds", {}),
        ("customer", {"id": "gid"}),
        ("total_outstanding", "a lot"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_by_the_name_of_the_field(field: str, value: Any) -> None:
    with pytest.raises(OrderUnreadable, match="The field"):
        read_order(World(ORDER).order_payload() | {field: value})


def test_plain_amounts_are_read_where_sets_are_missing() -> None:
    payload = World(ORDER).order_payload()
    del payload["current_subtotal_price_set"]
    assert read_order(payload | {"current_subtotal_price": "12.30"}).facts.subtotal == Decimal("12.30")
    number, facts = read_refund(
        {
            "id": 1,
            "order_id": 2,
            "created_at": at(0),
            "refund_line_items": [{"subtotal": Decimal("89.99"), "total_tax": 0, "line_item": {"gift_card": False}}],
            "order_adjustments": [{"kind": "shipping_refund", "amount": "-9.00"}, {"amount": "-1.00"}],
        }
    )
    assert (number, facts.goods, facts.adjustment) == (2, Decimal("89.99"), Decimal("-1.00"))


@pytest.mark.parametrize("line", BARE_LINES)
def test_goods_need_not_be_described_because_the_subtotal_says_what_they_cost(line: dict[str, Any]) -> None:
    facts = read_order(shopifys_sample() | {"line_items": [line], "refunds": None}).facts
    assert (facts.subtotal, facts.gift_cards, facts.goods_tax) == (Decimal("414.95"), 0, 0)


def test_a_gift_card_that_says_one_of_its_quantities_has_both() -> None:
    card = {"gift_card": True, "price": "50.00"}
    for told, money in (({"quantity": 2}, 100), ({"current_quantity": 3}, 150), ({}, 50)):
        assert read_order(shopifys_sample() | {"line_items": [card | told]}).facts.gift_cards == money


def test_tax_to_be_taken_off_of_nobody_knows_how_many_pieces_is_refused() -> None:
    line = {"tax_lines": [{"price": "5.00"}]}
    with pytest.raises(OrderUnreadable, match="quantity"):
        read_order(shopifys_sample() | {"taxes_included": True, "line_items": [line]})


def test_tax_that_no_line_tells_is_what_the_order_tells_in_all() -> None:
    def told(**changes: Any) -> Decimal:
        set_ = {"shop_money": {"amount": "66.25", "currency_code": "USD"}}
        order = shopifys_sample() | {"taxes_included": True, "current_total_tax_set": set_} | changes
        return read_order(trim("orders/paid", order)).facts.goods_tax

    assert told() == Decimal("66.25")
    assert told(current_total_tax_set=None, current_total_tax="12.00") == Decimal("12.00")
    assert told(current_total_tax_set=None) == 0
    assert told(line_items=[{"quantity": 1, "tax_lines": []}]) == 0, "a line that says it has none"
    assert told(taxes_included=False) == 0


def test_ids_may_come_as_digits() -> None:
    order = read_order(shopifys_sample() | {"id": "820982911946154508", "customer": {"id": "115310627314723954"}})
    assert (order.order_id, order.customer_id) == (820982911946154508, 115310627314723954)
    number, facts = read_refund({"id": "890088186047892319", "order_id": "820982911946154508"})
    assert (number, facts.refund_id) == (820982911946154508, 890088186047892319)
