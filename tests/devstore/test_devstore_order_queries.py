"""Orders through the Admin API: what they show, how they are searched, sorted and paged."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from devstore_support import DOMAIN
from order_support import LINES, ORDER, ORDER_DOCUMENTS, ORDERS, REFUNDS, an_order

from devstore import NewLine, NewOrder
from devstore.order_schema import READABLE_S

if TYPE_CHECKING:
    from devstore_support import Bench, BulkClient

    from devstore import Order


EVENTS_PER_S = 500


def order_gid(order: Order) -> str:
    return f"gid://shopify/Order/{order.number}"


def found(bench: Bench, **variables: Any) -> list[str]:
    """Names of orders, by their ids, that a search finds."""
    payload = bench.data(ORDERS, {"first": 50, **variables})["orders"]
    return [node["id"] for node in payload["nodes"]]


def shop_money(bag: dict[str, Any]) -> str:
    return bag["shopMoney"]["amount"]


def test_an_order_shows_itself(bench: Bench) -> None:
    order = an_order(bench.shop, tax_rate="0.1", discount="10.00", tip="2.00")
    shown = bench.data(ORDER, {"id": order_gid(order)})["order"]
    assert (shown["id"], shown["legacyResourceId"]) == (order_gid(order), str(order.number))
    assert (shown["name"], shown["test"], shown["displayFinancialStatus"]) == ("#1001", False, "PAID")
    assert (shown["createdAt"], shown["cancelledAt"]) == ("2026-01-01T00:00:00Z", None)
    assert shown["customer"] == {"id": "gid://shopify/Customer/1", "tags": [], "numberOfOrders": "1"}
    amounts = {name: shop_money(bag) for name, bag in shown.items() if name.endswith("Set")}
    assert amounts == {
        "currentSubtotalPriceSet": "90.0",
        "currentTotalPriceSet": "106.0",
        "totalOutstandingSet": "0.0",
        "totalTaxSet": "9.0",
        "currentTotalTaxSet": "9.0",
        "totalTipReceivedSet": "2.0",
        "subtotalPriceSet": "90.0",
        "totalPriceSet": "106.0",
        "totalReceivedSet": "106.0",
        "totalRefundedSet": "0.0",
        "netPaymentSet": "106.0",
        "totalShippingPriceSet": "5.0",
    }


def test_lines_show_what_was_ordered_and_what_is_left(bench: Bench) -> None:
    lines = [NewLine("10.00", 3, discount="3.00"), NewLine("25", gift_card=True)]
    order = bench.shop.orders.create(NewOrder(lines, discount="2.70", tax_rate="0.1"))
    bench.shop.orders.refund(order.number, {order.lines[0].number: 2})
    one, card = bench.data(LINES, {"id": order_gid(order)})["order"]["lineItems"]["nodes"]
    assert (one["quantity"], one["currentQuantity"], card["isGiftCard"]) == (3, 1, True)
    assert [shop_money(part["allocatedAmountSet"]) for part in one["discountAllocations"]] == ["3.0", "2.7"]
    assert (shop_money(one["originalUnitPriceSet"]), shop_money(one["discountedUnitPriceSet"])) == ("10.0", "9.0")
    assert shop_money(one["discountedUnitPriceAfterAllDiscountsSet"]) == "8.1"
    assert [shop_money(tax["priceSet"]) for tax in one["taxLines"]] == ["2.43"]
    assert (card["discountAllocations"], card["taxLines"]) == ([], [])


def test_refunds_show_lines_and_adjustments(bench: Bench) -> None:
    order = an_order(bench.shop, tax_rate="0.1")
    bench.shop.orders.refund(order.number, {order.lines[0].number: 1}, note="Torn")
    bench.shop.orders.refund(order.number, amount="3.00")
    first, second = bench.data(REFUNDS, {"id": order_gid(order)})["order"]["refunds"]
    (line,) = first["refundLineItems"]["nodes"]
    assert (line["quantity"], line["restockType"], line["restocked"]) == (1, "NO_RESTOCK", False)
    assert (shop_money(line["subtotalSet"]), shop_money(line["totalTaxSet"])) == ("20.0", "2.0")
    assert (first["note"], shop_money(first["totalRefundedSet"])) == ("Torn", "22.0")
    (adjustment,) = second["orderAdjustments"]["nodes"]
    assert (adjustment["reason"], shop_money(adjustment["amountSet"])) == ("REFUND_DISCREPANCY", "-3.0")
    assert second["refundLineItems"]["nodes"] == []


def test_orders_are_searched_by_when_they_changed(bench: Bench) -> None:
    first = an_order(bench.shop)
    bench.clock.advance(10)
    second = an_order(bench.shop)
    bench.clock.advance(10)
    since = "updated_at:>='2026-01-01T00:00:10Z'"
    assert found(bench, query=since) == [order_gid(second)]
    bench.shop.orders.set_customer(first.number, 2)
    assert found(bench, query=since, sortKey="UPDATED_AT") == [order_gid(second), order_gid(first)]
    assert found(bench, query=since, sortKey="UPDATED_AT", reverse=True) == [order_gid(first), order_gid(second)]
    assert found(bench, query="updated_at:<2026-01-01T00:00:10Z") == []
    assert found(bench, query=f"{since} AND updated_at:<='2026-01-01T00:00:19Z'") == [order_gid(second)]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("", [1001, 1002, 1003]),
        ("status:any", [1001, 1002, 1003]),
        ("status:open", [1001, 1002]),
        ("status:cancelled", [1003]),
        ("financial_status:pending", [1002]),
        ("customer_id:2", [1002]),
        ("test:true", [1001]),
        ("name:#1002", [1002]),
        ("created_at:>2026-01-01", [1002, 1003]),
        ("processed_at:<'2026-01-01T00:00:01+00:00'", [1001]),
        ("favourite_colour:green", [1001, 1002, 1003]),
        ("status:lost", []),
    ],
)
def test_orders_are_searched_by_documented_fields(bench: Bench, query: str, numbers: list[int]) -> None:
    placed = {1001: an_order(bench.shop, test=True)}
    bench.clock.advance(5)
    placed |= {1002: an_order(bench.shop, customer=2, paid=False), 1003: an_order(bench.shop)}
    bench.shop.orders.cancel(placed[1003].number)
    assert found(bench, query=query, sortKey="ID") == [order_gid(placed[number]) for number in numbers]


def test_pages_by_when_they_changed_meet_a_changed_order_again(bench: Bench) -> None:
    orders: list[Order] = []
    for _ in range(5):
        orders.append(an_order(bench.shop))
        bench.clock.advance(1)
    arguments = {"first": 2, "sortKey": "UPDATED_AT"}
    page = bench.data(ORDERS, arguments)["orders"]
    assert [node["id"] for node in page["nodes"]] == [order_gid(one) for one in orders[:2]]
    bench.shop.orders.set_customer(orders[0].number, 2)
    seen: list[str] = []
    while page["pageInfo"]["hasNextPage"]:
        page = bench.data(ORDERS, {**arguments, "after": page["pageInfo"]["endCursor"]})["orders"]
        seen += [node["id"] for node in page["nodes"]]
    assert seen == [order_gid(one) for one in (*orders[2:], orders[0])]


@pytest.mark.parametrize("sort_key", ["ID", "UPDATED_AT", "CREATED_AT", "PROCESSED_AT"])
@pytest.mark.parametrize("reverse", [False, True])
def test_pages_go_both_ways(bench: Bench, sort_key: str, reverse: bool) -> None:  # noqa: FBT001  # a parameter
    # All of one second: only the id tells them apart.
    placed = [order_gid(an_order(bench.shop)) for _ in range(5)]
    whole = placed[::-1] if reverse else placed
    arguments = {"sortKey": sort_key, "reverse": reverse}
    page = bench.data(ORDERS, {**arguments, "first": 4})["orders"]
    assert [node["id"] for node in page["nodes"]] == whole[:4]
    before = {**arguments, "last": 2, "before": page["pageInfo"]["endCursor"]}
    page = bench.data(ORDERS, before)["orders"]
    assert [node["id"] for node in page["nodes"]] == whole[1:3]
    assert page["pageInfo"]["hasNextPage"]
    assert page["pageInfo"]["hasPreviousPage"]


def test_a_search_the_devstore_does_not_understand_is_refused(bench: Bench) -> None:
    for variables in ({"query": "updated_at:>yesterday"}, {"query": "test:true OR test:false"}):
        answer = bench.answer(ORDERS, {"first": 1, **variables})
        assert answer.body["errors"], variables
    wrong = bench.answer(ORDERS, {"first": 1, "after": "bm90aGluZw=="})
    assert wrong.body["errors"]


def test_older_orders_need_a_scope_of_their_own(bench: Bench) -> None:
    shop = bench.shop
    long_ago = shop.now_s() - READABLE_S - 1
    old = shop.orders.create(NewOrder([NewLine("1")], customer=1, created_s=long_ago))
    new = an_order(shop)
    assert set(found(bench)) == {order_gid(old), order_gid(new)}
    shop.installation.set_scopes(tuple(one for one in shop.installation.scopes if one != "read_all_orders"))
    assert found(bench) == [order_gid(new)]
    assert bench.data(ORDER, {"id": order_gid(old)})["order"] is None


def test_an_order_that_is_not_there_is_null(bench: Bench) -> None:
    assert bench.data(ORDER, {"id": "gid://shopify/Order/5"})["order"] is None
    assert bench.answer(ORDER, {"id": "gid://shopify/Customer/1"}).body["errors"]


def test_one_shop_does_not_see_anothers_orders(bench: Bench) -> None:
    order = an_order(bench.shop)
    row = bench.shop.storage.db.execute("update orders set shop = 99 where id = ?", (order.number,))
    assert row.rowcount == 1
    assert bench.shop.orders.get(order.number) is None
    assert found(bench) == []


@pytest.mark.parametrize("name", ORDER_DOCUMENTS)
def test_documents_about_orders_run(bench: Bench, name: str) -> None:
    an_order(bench.shop)
    query, variables = ORDER_DOCUMENTS[name]
    answer = bench.answer(query, variables)
    assert "errors" not in answer.body, answer.body


def test_lists_cost_what_they_may_hold(bench: Bench) -> None:
    order = an_order(bench.shop)
    document = "query($id: ID!) { order(id: $id) { refunds(first: 7) { id } lineItems(first: 5) { nodes { id } } } }"
    answer = bench.answer(document, {"id": order_gid(order)})
    assert (answer.requested, answer.actual) == (1 + 7 + 5, 1 + 2)


async def test_orders_are_exported_in_bulk(bulk: BulkClient) -> None:
    orders = [an_order(bulk.store.shop(DOMAIN)) for _ in range(3)]
    query = "{ orders { edges { node { id lineItems { edges { node { id quantity } } } } } } }"
    started = await bulk.export(query)
    ended = await bulk.finish(started["bulkOperation"]["id"])
    lines = await bulk.lines(ended["url"])
    assert [line["id"] for line in lines if "__parentId" not in line] == [order_gid(one) for one in orders]
    assert [line["quantity"] for line in lines if line.get("__parentId") == order_gid(orders[0])] == [3, 1]


def test_a_shop_keeps_up_with_500_events_a_second(bench: Bench) -> None:
    # Time of its own work, so that a busy machine is no failure.
    events, started = 300, time.process_time()
    for _ in range(events // 3):
        an_order(bench.shop, paid=False)
        bench.shop.orders.pay(an_order(bench.shop, paid=False).number)
    assert events / (time.process_time() - started) > EVENTS_PER_S
