"""The rule by which orders earn, and why an order has its points, through the API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from metafield_sync.sync.orders.applying import apply_order
from metafield_sync.sync.orders.reading import read_order

if TYPE_CHECKING:
    from conftest import Api


def an_order(number: int, subtotal: str, **changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "id": number,
        "currency": "EUR",
        "financial_status": "paid",
        "created_at": now,
        "updated_at": now,
        "current_subtotal_price": subtotal,
        "customer": {"id": 5},
        **changes,
    }


async def deliver(api: Api, document: dict[str, Any]) -> None:
    async with api.runtime.db.shop(api.shop.id) as conn:
        await apply_order(conn, api.shop.id, read_order(document))


async def test_a_shop_begins_with_a_point_for_each_whole_unit(api: Api) -> None:
    answer = await api.reader.get("/api/earning-rule")
    assert answer.status_code == 200
    document = answer.json()
    assert document["inForce"] == document["versions"][0]
    assert document["inForce"] | {"startsAt": "", "savedAt": ""} == {
        "version": 0,
        "pointsPerUnit": "1",
        "rounding": "down",
        "excludedCustomerTags": [],
        "takesTaxOff": True,
        "enabled": True,
        "startsAt": "",
        "savedAt": "",
        "actor": None,
    }
    assert document["example"] == {"money": "41.90", "points": 41}


async def test_a_rule_is_saved_as_another_version_and_the_ones_before_stay(api: Api) -> None:
    await deliver(api, an_order(1, "10.00", created_at=(datetime.now(UTC) - timedelta(seconds=1)).isoformat()))
    await deliver(api, an_order(1, "10.00"))
    answer = await api.http.put("/api/earning-rule", json={"pointsPerUnit": "0.5", "rounding": "up"})
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert [version["version"] for version in document["versions"]] == [1, 0]
    assert document["inForce"]["pointsPerUnit"] == "0.5"
    assert document["inForce"]["actor"].startswith("api-key:")
    assert document["example"] == {"money": "41.90", "points": 21}
    later = (datetime.now(UTC) + timedelta(days=3)).isoformat(timespec="seconds")
    planned = (await api.http.put("/api/earning-rule", json={"enabled": False, "startsAt": later})).json()
    assert planned["inForce"]["version"] == 1, "the one that is planned is not in force yet"
    assert [version["enabled"] for version in planned["versions"]] == [False, True, True]


@pytest.mark.parametrize(
    "body",
    [
        {"pointsPerUnit": 1.5},
        {"pointsPerUnit": "-1"},
        {"pointsPerUnit": "1e3"},
        {"pointsPerUnit": "0.0000001"},
        {"pointsPerUnit": "1234567"},
        {"rounding": "bankers"},
        {"excludedCustomerTags": [" "]},
        {"excludedCustomerTags": ["x"] * 51},
        {"excludedCustomerTags": ["x" * 41]},
        {"enabled": "yes"},
        {"startsAt": "tomorrow"},
        {"start": "2026-12-01T00:00:00Z"},
    ],
)
async def test_a_rule_that_makes_no_sense_is_refused(api: Api, body: dict[str, Any]) -> None:
    answer = await api.http.put("/api/earning-rule", json=body)
    assert answer.status_code in {400, 422}, answer.text
    assert len((await api.http.get("/api/earning-rule")).json()["versions"]) == 1


async def test_a_key_that_only_reads_saves_no_rule(api: Api) -> None:
    assert (await api.reader.put("/api/earning-rule", json={})).status_code == 403
    assert (await api.anonymous.get("/api/earning-rule")).status_code == 401


async def test_an_order_tells_why_it_has_its_points(api: Api) -> None:
    number = 820982911946154508
    await deliver(api, an_order(number, "41.90"))
    document = (await api.reader.get(f"/api/orders/{number}")).json()
    (entry,) = document.pop("entries")
    assert document.pop("updatedAt").endswith("Z")
    assert document == {
        "shopifyOrderId": str(number),
        "state": "settled",
        "explanation": "41.90 EUR of its price earns, by rule 0: 41 points.",
        "shopifyCustomerId": "5",
        "financialStatus": "paid",
        "earningMoney": "41.90",
        "currency": "EUR",
        "ruleVersion": 0,
        "points": 41,
        "posted": 41,
    }
    assert (entry["amount"], entry["reason"], entry["externalId"]) == (41, "order_paid", f"order/{number}/1")
    assert (await api.reader.get("/api/orders/1")).json()["code"] == "order_not_found"
    assert (await api.reader.get("/api/orders/abc")).status_code == 400
