"""Orders and merges through the control API, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from devstore_support import DOMAIN
from order_support import Ear

if TYPE_CHECKING:
    from devstore_support import Remote

    from devstore import DevStore

ROOT = f"/_devstore/shops/{DOMAIN}"


async def call(remote: Remote, method: str, path: str, status: int = 200, **body: Any) -> Any:
    answer = await remote.http.request(method, f"{remote.origin}{ROOT}{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_an_order_goes_its_whole_way(remote: Remote) -> None:
    lines = [{"price": "19.99", "quantity": 2, "title": "Mug"}, {"price": 5, "giftCard": True, "taxRate": "0"}]
    order = await call(
        remote, "POST", "/orders", 201, lines=lines, customerId=3, paid=False, taxRate=0.1, discount="1.98"
    )
    path, mug = f"/orders/{order['id']}", order["line_items"][0]["id"]
    assert (order["customer"]["id"], order["financial_status"]) == (3, "pending")
    assert (order["current_subtotal_price"], order["total_tax"]) == ("43.00", "3.80")
    paid = await call(remote, "POST", f"{path}/pay")
    assert paid["financial_status"] == "paid"
    edited = await call(remote, "POST", f"{path}/edit", quantities={str(mug): 3}, add=[{"price": "1.00"}])
    assert (edited["financial_status"], edited["current_subtotal_price"]) == ("partially_paid", "63.99")
    refunded = await call(remote, "POST", f"{path}/refund", quantities={str(mug): 1}, restock=True, note="Chipped")
    assert (refunded["refunds"][0]["restock"], refunded["refunds"][0]["note"]) == (True, "Chipped")
    given = await call(remote, "POST", f"{path}/customer", customerId=4)
    assert given["customer"]["id"] == 4
    cancelled = await call(remote, "POST", f"{path}/cancel", reason="inventory")
    assert (cancelled["cancel_reason"], cancelled["current_subtotal_price"]) == ("inventory", "0.00")
    assert await call(remote, "GET", path) == cancelled
    assert await call(remote, "GET", "/orders?customer=4") == [cancelled]
    assert await call(remote, "GET", "/orders?customer=3") == []
    assert await call(remote, "GET", f"/orders?after={order['id']}") == []


async def test_an_order_of_the_past_keeps_its_date(remote: Remote) -> None:
    order = await call(remote, "POST", "/orders", 201, lines=[{"price": 1}], createdAt="2025-12-01T10:00:00+02:00")
    assert (order["created_at"], order["processed_at"]) == ("2025-12-01T08:00:00Z", "2025-12-01T08:00:00Z")
    assert order["updated_at"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/orders", {}, "lines must be a list"),
        ("/orders", {"lines": [{"quantity": 1}]}, "an object with a price"),
        ("/orders", {"lines": [{"price": 1}], "colour": "red"}, "unknown: colour"),
        ("/orders", {"lines": [{"price": 1}], "createdAt": "soon"}, "must be a time"),
        ("/orders", {"lines": [{"price": 1}], "paid": "yes"}, "paid must be true or false"),
        ("/orders", {"lines": [{"price": 1}], "customerId": 99}, "no customer 99"),
        ("/orders", {"lines": [{"price": "x"}]}, "price must be a number"),
        ("/orders/5/pay", {}, "no order 5"),
        ("/orders/5/polish", {}, "none of pay, edit"),
        ("/orders/5/refund", {"quantities": [1]}, "quantities must be an object"),
        ("/customers/merge", {"one": 1, "two": 1}, "should not match"),
        ("/customers/merge", {"one": "Ann", "two": 1}, "is no customer"),
    ],
)
async def test_a_call_without_sense_is_refused(remote: Remote, path: str, body: dict[str, Any], told: str) -> None:
    answer = await call(remote, "POST", path, 400, **body)
    assert told in answer["error"]


async def test_customers_are_described_merged_and_kept_while_they_have_orders(remote: Remote, store: DevStore) -> None:
    ear = Ear(store.shop(DOMAIN))
    await call(remote, "PATCH", "/merges", paused=True, successStatus="succeeded")
    described = await call(remote, "PATCH", "/customers/1", firstName="Ann", tags=["vip"])
    assert (described["firstName"], described["tags"], described["email"]) == ("Ann", ["vip"], None)
    merge = await call(remote, "POST", "/customers/merge", 201, one=1, two=2)
    assert (merge["kept"], merge["deleted"], merge["status"]) == (2, 1, "REQUESTED")
    assert await call(remote, "POST", "/merges/settle") == {"merged": 1}
    assert [one["status"] for one in await call(remote, "GET", "/merges")] == ["COMPLETED"]
    await call(remote, "POST", "/orders", 201, lines=[{"price": 1}], customerId=2)
    refused = await call(remote, "DELETE", "/customers", 400, ids=[2])
    assert "associated orders" in refused["error"]
    await call(remote, "POST", "/customers", 201, ids=[500])
    await call(remote, "DELETE", "/customers", ids=[500])
    topics = [topic for topic in ear.topics() if topic.startswith("customers/")]
    assert topics == ["customers/update", "customers/merge", "customers/create", "customers/delete"]
