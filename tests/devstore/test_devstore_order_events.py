"""What a shop tells of its orders and customers, and what the payloads say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from devstore_support import gid
from order_support import Ear, an_order

from devstore import NewLine, NewOrder
from devstore.customers import CustomerDetails
from devstore.shops import CustomerHasOrdersError

if TYPE_CHECKING:
    from devstore_support import Bench


@pytest.fixture
def ear(bench: Bench) -> Ear:
    return Ear(bench.shop)


def test_a_paid_order_is_created_and_paid(bench: Bench, ear: Ear) -> None:
    an_order(bench.shop)
    assert ear.topics() == ["orders/create", "orders/paid", "orders/updated"]
    order = an_order(bench.shop, paid=False)
    assert ear.topics() == ["orders/create"]
    bench.shop.orders.pay(order.number, "1.00")
    assert ear.topics() == ["orders/updated"]
    bench.shop.orders.pay(order.number)
    assert ear.topics() == ["orders/paid", "orders/updated"]


def test_a_full_cancel_tells_of_the_cancel_and_of_the_refund(bench: Bench, ear: Ear) -> None:
    number = an_order(bench.shop).number
    ear.heard()
    bench.shop.orders.cancel(number)
    heard = ear.heard()
    assert [topic for topic, _ in heard] == ["orders/cancelled", "refunds/create", "orders/updated"]
    cancelled, refund = heard[0][1], heard[1][1]
    assert (cancelled["cancelled_at"], cancelled["cancel_reason"]) == ("2026-01-01T00:00:00Z", "customer")
    assert (cancelled["current_subtotal_price"], cancelled["financial_status"]) == ("0.00", "refunded")
    assert cancelled["refunds"] == [refund]


def test_a_cancel_that_keeps_the_money_tells_of_no_refund(bench: Bench, ear: Ear) -> None:
    number = an_order(bench.shop).number
    ear.heard()
    bench.shop.orders.cancel(number, refund=False)
    assert ear.topics() == ["orders/cancelled", "orders/updated"]


def test_an_edit_says_what_was_added_and_removed(bench: Bench, ear: Ear) -> None:
    order = an_order(bench.shop)
    ear.heard()
    shirt, hat = (line.number for line in order.lines)
    order = bench.shop.orders.edit(order.number, add=[NewLine("1")], quantities={shirt: 1, hat: 3})
    heard = ear.heard()
    assert [topic for topic, _ in heard] == ["orders/edited", "refunds/create", "orders/updated"]
    edit = heard[0][1]["order_edit"]
    assert edit["order_id"] == order.number
    assert edit["line_items"] == {
        "additions": [{"id": hat, "delta": 2}, {"id": order.lines[2].number, "delta": 1}],
        "removals": [{"id": shirt, "delta": 2}],
    }


def test_an_order_says_more_than_an_app_should_keep(bench: Bench, ear: Ear) -> None:
    bench.shop.customers.describe(1, CustomerDetails(email="ann@example.org", first_name="Ann", last_name="Lee"))
    order = an_order(bench.shop, tip="2.00")
    whole = ear.heard()[0][1]
    assert (whole["id"], whole["admin_graphql_api_id"]) == (order.number, f"gid://shopify/Order/{order.number}")
    assert (whole["email"], whole["customer"]["email"]) == ("ann@example.org", "ann@example.org")
    assert whole["billing_address"]["name"] == whole["shipping_address"]["name"] == "Ann Lee"
    assert (whole["customer"]["id"], whole["customer"]["last_name"]) == (1, "Lee")
    assert "tags" not in whole["customer"]
    assert (whole["test"], whole["currency"], whole["financial_status"]) == (False, "USD", "paid")
    assert whole["current_subtotal_price"] == "100.00"
    money = {"amount": "100.00", "currency_code": "USD"}
    assert whole["current_subtotal_price_set"] == {"shop_money": money, "presentment_money": money}
    assert (whole["total_tip_received"], whole["total_price"]) == ("2.00", "107.00")
    shirt = whole["line_items"][0]
    assert (shirt["current_quantity"], shirt["gift_card"], shirt["price"]) == (3, False, "20.00")


def test_a_guest_is_no_customer(bench: Bench, ear: Ear) -> None:
    an_order(bench.shop, customer=None, test=True)
    whole = ear.heard()[0][1]
    assert (whole["customer"], whole["test"], whole["email"]) == (None, True, "guest@example.com")


def test_a_refund_says_neither_customer_nor_test(bench: Bench, ear: Ear) -> None:
    order = an_order(bench.shop, test=True, tax_rate="0.1")
    bench.shop.orders.refund(order.number, {order.lines[0].number: 1}, note="Too small")
    (refund,) = [payload for topic, payload in ear.heard() if topic == "refunds/create"]
    assert not {"customer", "test", "email"} & refund.keys()
    assert (refund["order_id"], refund["note"], refund["restock"]) == (order.number, "Too small", False)
    (line,) = refund["refund_line_items"]
    assert (line["line_item_id"], line["quantity"]) == (order.lines[0].number, 1)
    assert line["line_item"]["gift_card"] is False
    (transaction,) = refund["transactions"]
    assert (transaction["kind"], transaction["amount"]) == ("refund", "22.00")


def test_a_refund_lines_amounts_are_json_numbers(bench: Bench) -> None:
    bench.shop.webhooks.subscribe("refunds/create", "/webhooks")
    order = bench.shop.orders.create(NewOrder([NewLine("89.99", 2)], tax_rate="0.1"))
    bench.shop.orders.refund(order.number, {order.lines[0].number: 1})
    (delivery,) = bench.shop.webhooks.deliveries
    assert b'"subtotal":89.99,' in delivery.body
    assert b'"total_tax":9.0,' in delivery.body
    (line,) = json.loads(delivery.body)["refund_line_items"]
    assert line["subtotal_set"]["shop_money"]["amount"] == "89.99"


def test_goodwill_is_an_adjustment_without_lines(bench: Bench, ear: Ear) -> None:
    order = an_order(bench.shop)
    bench.shop.orders.refund(order.number, amount="5.85")
    (refund,) = [payload for topic, payload in ear.heard() if topic == "refunds/create"]
    (adjustment,) = refund["order_adjustments"]
    assert refund["refund_line_items"] == []
    assert (adjustment["kind"], adjustment["reason"]) == ("refund_discrepancy", "Refund discrepancy")
    assert (adjustment["amount"], adjustment["amount_set"]["shop_money"]["amount"]) == ("-5.85", "-5.85")


def test_customers_are_told_of(bench: Bench, ear: Ear) -> None:
    create = """mutation { customerCreate(input: {email: "bo@example.org", tags: ["vip"]}) { customer { id } } }"""
    made = int(bench.data(create)["customerCreate"]["customer"]["id"].rpartition("/")[2])
    update = """mutation { customerUpdate(input: {id: "%s", tags: ["a", "b"]}) { customer { tags email } } }"""
    updated = bench.data(update % gid(made))["customerUpdate"]["customer"]
    assert updated == {"tags": ["a", "b"], "email": "bo@example.org"}
    delete = """mutation { customerDelete(input: {id: "%s"}) { deletedCustomerId } }"""
    bench.data(delete % gid(made))
    heard = ear.heard()
    assert [topic for topic, _ in heard] == ["customers/create", "customers/update", "customers/delete"]
    assert all(payload["id"] == made for _, payload in heard)
    assert heard[2][1] == {"id": made, "tax_exemptions": [], "admin_graphql_api_id": gid(made)}


def test_a_customer_with_orders_cannot_be_deleted(bench: Bench, ear: Ear) -> None:
    an_order(bench.shop)
    ear.heard()
    document = """mutation { customerDelete(input: {id: "%s"}) { deletedCustomerId userErrors { field message } } }"""
    payload: dict[str, Any] = bench.data(document % gid(1))["customerDelete"]
    message = "Customer can\N{RIGHT SINGLE QUOTATION MARK}t be deleted because they have associated orders"
    assert payload == {"deletedCustomerId": None, "userErrors": [{"field": ["id"], "message": message}]}
    with pytest.raises(CustomerHasOrdersError):
        bench.shop.delete_customer(1)
    assert bench.shop.customers.exists(1)
    assert ear.topics() == []


def test_a_deleted_customers_number_is_not_given_again(bench: Bench) -> None:
    last = bench.shop.create_customer(CustomerDetails(email="one@example.org"))
    bench.shop.delete_customer(last)
    assert bench.shop.create_customer(CustomerDetails(email="two@example.org")) == last + 1
