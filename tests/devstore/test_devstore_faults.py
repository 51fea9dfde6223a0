"""Misbehaviour on request, the control API, and the call log, over real HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from devstore_support import DOMAIN, SET, Remote, definition, entry

from devstore import DevStore, Fault, FaultAnswer
from devstore.faults import FaultBook, Latency

POINTS = "?namespace=loyalty&key=points_balance"
SHOP = "{ shop { id } }"


async def points(remote: Remote) -> dict[str, str]:
    return await remote.control("GET", f"/shops/{DOMAIN}/metafields{POINTS}")


@pytest.mark.parametrize("status", [500, 504, 429, 540])
@pytest.mark.parametrize(("apply", "written"), [("never", {}), ("first", {"1": "7"})])
async def test_a_status_before_or_after_applying(
    remote: Remote, status: int, apply: str, written: dict[str, str]
) -> None:
    await remote.control("POST", "/faults", answer="status", status=status, apply=apply, retryAfter="2.0")
    answer = await remote.post(SET, {"m": [entry(1, "7")]})
    assert answer.status_code == status
    assert answer.headers["retry-after"] == "2.0"
    assert await points(remote) == written
    assert (await remote.post(SHOP)).status_code == 200


@pytest.mark.parametrize(("apply", "written"), [("never", {}), ("first", {"1": "7"})])
async def test_a_dropped_connection_before_or_after_applying(
    remote: Remote, apply: str, written: dict[str, str]
) -> None:
    await remote.control("POST", "/faults", answer="drop", apply=apply)
    with pytest.raises(httpx.TransportError):
        await remote.post(SET, {"m": [entry(1, "7")]})
    assert await points(remote) == written
    (call,) = await remote.control("GET", "/calls")
    assert (call["status"], call["fault"]) == (0, 1)


async def test_a_dropped_call_that_is_applied_later_can_undo_a_newer_one(remote: Remote) -> None:
    await remote.control("POST", "/faults", answer="drop", apply="later", laterMs=3_600_000)
    with pytest.raises(httpx.TransportError):
        await remote.post(SET, {"m": [entry(1, "7")]})
    await remote.post(SET, {"m": [entry(1, "8")]})
    assert await points(remote) == {"1": "8"}
    (late,) = await remote.control("GET", "/late")
    assert late == {"call": 1, "shop": DOMAIN, "operation": "metafieldsSet"}
    assert await remote.control("POST", "/late/apply") == {"applied": 1}
    assert await points(remote) == {"1": "7"}
    calls = await remote.control("GET", "/calls")
    assert [call["lateOf"] for call in calls] == [None, None, 1]
    assert await remote.control("GET", "/late") == []


async def test_a_late_call_applies_itself_in_its_time(remote: Remote, store: DevStore) -> None:
    await remote.control("POST", "/faults", answer="drop", apply="later", laterMs=1)
    with pytest.raises(httpx.TransportError):
        await remote.post(SET, {"m": [entry(1, "7")]})
    while store.world.late:
        await remote.control("GET", "/late")
    assert await points(remote) == {"1": "7"}


async def test_throttled_without_cost_data_executes_nothing(remote: Remote) -> None:
    await remote.control("POST", "/faults", answer="throttled", apply="first")
    answer = await remote.post(SET, {"m": [entry(1, "7")]})
    assert answer.status_code == 200
    assert list(answer.json()) == ["errors"]
    assert answer.json()["errors"][0]["extensions"]["code"] == "THROTTLED"
    assert await points(remote) == {}


async def test_an_unreadable_answer(remote: Remote) -> None:
    await remote.control("POST", "/faults", answer="garbage", apply="first")
    answer = await remote.post(SET, {"m": [entry(1, "7")]})
    assert answer.status_code == 200
    with pytest.raises(ValueError, match="Expecting value"):
        answer.json()
    assert await points(remote) == {"1": "7"}


async def test_an_answer_held_back_until_the_client_gives_up_was_applied_all_the_same(remote: Remote) -> None:
    await remote.control("POST", "/faults", answer="normal", apply="first", holdMs=60_000)
    with pytest.raises(httpx.ReadTimeout):
        await remote.http.post(
            f"{remote.origin}/{DOMAIN}/admin/api/2026-10/graphql.json",
            json={"query": SET, "variables": {"m": [entry(1, "7")]}},
            headers={"X-Shopify-Access-Token": "shpat_made_up"},
            timeout=0.1,
        )
    assert await points(remote) == {"1": "7"}


async def test_a_fault_can_be_meant_for_one_operation(remote: Remote) -> None:
    await remote.control("POST", "/faults", operation="metafieldsSet")
    assert (await remote.post(SHOP)).status_code == 200
    assert (await remote.post(SET, {"m": []})).status_code == 503
    assert (await remote.post(SET, {"m": []})).status_code == 200


def test_faults_count_skip_and_stop() -> None:
    book = FaultBook()
    book.add(Fault(skip=1, times=2))
    assert [book.pick("any", frozenset({"shop"})) is not None for _ in range(5)] == [
        False,
        True,
        True,
        False,
        False,
    ]


def test_a_rate_is_drawn_from_a_seed() -> None:
    def history(seed: int) -> list[bool]:
        book = FaultBook()
        book.add(Fault(times=None, rate=0.3, seed=seed))
        return [book.pick("any", frozenset({"shop"})) is not None for _ in range(1000)]

    assert history(1) == history(1) != history(2)
    assert 200 < sum(history(1)) < 400


def test_latency_is_drawn_from_a_seed_within_its_bounds() -> None:
    draws = [Latency(10, 20, seed=3) for _ in range(2)]
    first, second = ([latency.draw_s() for _ in range(50)] for latency in draws)
    assert first == second
    assert all(0.01 <= seconds <= 0.02 for seconds in first)


async def test_faults_are_listed_and_removed(remote: Remote) -> None:
    first = await remote.control("POST", "/faults", rate=0.5, seed=4)
    await remote.control("POST", "/faults", answer="drop", times=3)
    listed = await remote.control("GET", "/faults")
    assert [(one["id"], one["answer"], one["times"], one["fired"]) for one in listed] == [
        (1, "status", None, 0),
        (2, "drop", 3, 0),
    ]
    await remote.control("DELETE", f"/faults/{first['id']}")
    assert len(await remote.control("GET", "/faults")) == 1
    await remote.control("DELETE", "/faults")
    assert await remote.control("GET", "/faults") == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/faults", {"answer": "explode"}),
        ("POST", "/faults", {"colour": "red"}),
        ("POST", "/faults", {"status": "many"}),
        ("PATCH", f"/shops/{DOMAIN}", {"state": "melted"}),
        ("PATCH", "/shops/nobody", {}),
        ("POST", f"/shops/{DOMAIN}/customers", {"ids": ["x"]}),
        ("POST", f"/shops/{DOMAIN}/customers", {}),
        (
            "PUT",
            f"/shops/{DOMAIN}/metafields",
            {"customerId": 99, "namespace": "loyalty", "key": "kk", "value": "1"},
        ),
        ("PUT", f"/shops/{DOMAIN}/metafields", {"customerId": 1}),
    ],
)
async def test_control_calls_that_make_no_sense_are_400(
    remote: Remote, method: str, path: str, body: dict[str, Any]
) -> None:
    answer = await remote.http.request(method, f"{remote.origin}/_devstore{path}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


async def test_latency_is_set_for_everybody(remote: Remote, store: DevStore) -> None:
    assert await remote.control("PUT", "/latency", minMs=1, maxMs=2) == {"minMs": 1, "maxMs": 2}
    assert (await remote.post(SHOP)).status_code == 200
    assert await remote.control("PUT", "/latency", ms=0) == {"minMs": 0, "maxMs": 0}
    assert store.world.latency.draw_s() == 0


async def test_overlapping_calls_show_in_the_log(remote: Remote) -> None:
    await remote.control("PUT", "/latency", ms=50)
    await asyncio.gather(*(remote.post(SHOP) for _ in range(3)))
    stats = await remote.control("GET", "/stats")
    assert (stats["inFlight"], stats["inFlightMax"]) == (0, 3)


async def test_the_log_tells_what_was_called(remote: Remote, store: DevStore) -> None:
    await remote.post(SET, {"m": [entry(1), entry(2)]})
    store.shop().budget.spend_elsewhere(2000)
    await remote.post(SET, {"m": [entry(3)]})
    await remote.post(SHOP, token="wrong")  # noqa: S106  # made up
    first, second, third = await remote.control("GET", "/calls")
    assert first["operation"] == "metafieldsSet"
    assert first["operationName"] == "Set"
    assert first["version"] == "2026-10"
    assert (first["status"], first["requested"], first["actual"], first["throttled"]) == (200, 12, 12, False)
    assert first["owners"] == ["gid://shopify/Customer/1", "gid://shopify/Customer/2"]
    assert first["startedS"] <= first["endedS"]
    assert (second["throttled"], second["actual"], second["errors"]) == (True, None, ["THROTTLED"])
    assert (third["status"], third["operation"]) == (401, "")
    assert len(await remote.control("GET", "/calls?operation=metafieldsSet&after=1")) == 1
    stats = await remote.control("GET", "/stats")
    assert stats["operations"]["metafieldsSet"] == {
        "calls": 2,
        "throttled": 1,
        "failed": 1,
        "requestedPoints": 23,
        "actualPoints": 12,
        "owners": 3,
    }
    await remote.control("DELETE", "/calls")
    assert await remote.control("GET", "/calls") == []


async def test_a_call_that_was_given_up_is_logged_when_it_ends(remote: Remote) -> None:
    await remote.control("POST", "/faults", answer="drop")
    with pytest.raises(httpx.TransportError):
        await remote.post(SHOP)
    assert (await remote.control("GET", "/stats"))["inFlight"] == 0


async def test_a_foreign_overwrite_changes_value_and_digest(remote: Remote) -> None:
    stored = (await remote.post(SET, {"m": [entry(1, "7")]})).json()["data"]["metafieldsSet"]["metafields"][0]
    await remote.control(
        "PUT",
        f"/shops/{DOMAIN}/metafields",
        customerId="1",
        namespace="loyalty",
        key="points_balance",
        value="9",
    )
    assert await points(remote) == {"1": "9"}
    entries = [entry(1, "8", compareDigest=stored["compareDigest"])]
    answer = await remote.post(SET, {"m": entries})
    assert answer.json()["data"]["metafieldsSet"]["userErrors"][0]["code"] == "STALE_OBJECT"
    deleted = await remote.control(
        "DELETE", f"/shops/{DOMAIN}/metafields", customerId=1, namespace="loyalty", key="points_balance"
    )
    assert deleted == {"deleted": True}
    assert await points(remote) == {}


async def test_customers_come_and_go(remote: Remote) -> None:
    path = f"/shops/{DOMAIN}/customers"
    assert await remote.control("POST", path, ids=[70, "gid://shopify/Customer/71"]) == {"customers": 32}
    assert await remote.control("POST", path, first=100, count=10) == {"customers": 42}
    assert await remote.control("DELETE", path, ids=[70, 71, 72]) == {"deleted": 2}


async def test_shops_are_added_and_changed(remote: Remote) -> None:
    new = {"domain": "new.myshopify.com", "token": "t", "plan": "plus", "customers": 2}
    made = await remote.control("POST", "/shops", **new)
    assert (made["plan"], made["customers"]) == ("plus", 2)
    answer = await remote.post(SHOP, path="/new.myshopify.com/admin/api/2026-10/graphql.json", token="t")  # noqa: S106  # made up
    assert answer.json()["extensions"]["cost"]["throttleStatus"]["restoreRate"] == 1000
    assert len(await remote.control("GET", "/shops")) == 3
    changed = await remote.control("PATCH", f"/shops/{DOMAIN}", plan="enterprise")
    assert changed["plan"] == "enterprise"


async def test_the_bucket_can_be_read_spent_and_filled(remote: Remote) -> None:
    path = f"/shops/{DOMAIN}/bucket"
    assert (await remote.control("POST", f"{path}/spend", points=1500))["currentlyAvailable"] == 500
    assert (await remote.control("GET", path))["currentlyAvailable"] == 500
    assert (await remote.control("POST", f"{path}/fill"))["currentlyAvailable"] == 2000


async def test_definitions_are_listed_and_deleted(remote: Remote, store: DevStore) -> None:
    store.shop().definitions.create(definition())
    (listed,) = await remote.control("GET", f"/shops/{DOMAIN}/definitions")
    assert listed["access"]["customerAccount"] == "NONE"
    path = f"/shops/{DOMAIN}/definitions"
    assert await remote.control("DELETE", path, namespace="loyalty", key="points_balance") == {"deleted": True}
    assert await remote.control("GET", path) == []


async def test_it_says_that_it_is_there(remote: Remote) -> None:
    assert await remote.control("GET", "/health") == {"ok": True, "inFlight": 0}


def test_faults_can_be_armed_in_process() -> None:
    book = FaultBook()
    number = book.add(Fault(answer=FaultAnswer.DROP, shop="one"))
    assert book.pick("two", frozenset({"shop"})) is None
    assert book.pick("one", frozenset({"shop"})) == (number, Fault(answer=FaultAnswer.DROP, shop="one"))
