"""The three calls people schedule: their documents, to the letter, and what they do to Shopify."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from devstore import Fault, FaultAnswer, FaultApply, ShopState

if TYPE_CHECKING:
    import psycopg

    from conftest import Api

DOMAIN = "demo.myshopify.com"


async def post_to_everybody(api: Api, customers: int = 60) -> None:
    entries = [{"shopifyCustomerId": str(n), "amount": n, "reason": "order"} for n in range(1, customers + 1)]
    answer = await api.http.post("/api/ledger/batch", json={"entries": entries})
    assert {result["status"] for result in answer.json()["results"]} == {201}


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_everybody_is_synced_and_a_second_time_costs_no_write(api: Api, method: str) -> None:
    await post_to_everybody(api)
    answer = await api.http.request(method, "/api/sync-balances")
    assert answer.status_code == 200
    document = answer.json()
    assert list(document)[:5] == ["message", "total", "synced", "errors", "failedSyncs"]
    assert document["message"] == "Sync complete"
    assert (document["total"], document["synced"], document["errors"], document["failedSyncs"]) == (60, 60, 0, [])
    assert (document["pushed"], document["unchanged"]) == (60, 0)
    assert api.metafields() == {n: n for n in range(1, 61)}
    writes = api.writes()
    again = (await api.http.request(method, "/api/sync-balances")).json()
    assert (again["synced"], again["pushed"], again["unchanged"], again["pointsSpent"]) == (60, 0, 60, 0)
    assert api.writes() == writes


async def test_force_writes_everybody(api: Api) -> None:
    await post_to_everybody(api, 30)
    await api.http.get("/api/sync-balances")
    writes = api.writes()
    document = (await api.http.get("/api/sync-balances?force=true")).json()
    assert (document["synced"], document["pushed"]) == (30, 30)
    assert api.writes() == writes + 2


async def test_one_customer(api: Api) -> None:
    posted = await api.post_points(7, 1500)
    customer = posted["entry"]["customerId"]
    answer = await api.http.get(f"/api/sync-balances?customerId={customer}")
    assert answer.status_code == 200
    assert answer.json() == {"message": "Customer synced", "customerId": customer, "balance": 1500, "synced": True}
    assert api.metafields() == {7: 1500}
    # In step by now; the call asks Shopify all the same.
    writes = api.writes()
    await api.http.post(f"/api/customers/{customer}/sync")
    assert api.writes() == writes + 1


async def test_one_customer_that_shopify_refuses(api: Api) -> None:
    posted = await api.post_points(4711, 20)
    customer = posted["entry"]["customerId"]
    answer = await api.http.get(f"/api/sync-balances?customerId={customer}")
    assert answer.status_code == 502
    document = answer.json()
    error = document.pop("error")
    assert document == {"message": "Customer sync failed", "customerId": customer, "balance": 20, "synced": False}
    assert "no such customer" in error


async def test_one_bad_customer_never_holds_up_the_others(api: Api) -> None:
    await post_to_everybody(api)
    for gone in (3, 33):
        api.store.shop(DOMAIN).delete_customer(gone)
    document = (await api.http.get("/api/sync-balances")).json()
    assert (document["total"], document["synced"], document["errors"]) == (60, 58, 2)
    assert sorted(row["shopifyCustomerId"] for row in document["failedSyncs"]) == ["3", "33"]
    assert all(set(row) == {"customerId", "shopifyCustomerId", "error"} for row in document["failedSyncs"])
    assert api.metafields() == {n: n for n in range(1, 61) if n not in {3, 33}}
    failures = (await api.http.get("/api/sync-failures?limit=1")).json()
    assert failures["failures"][0]["status"] == "missing"
    rest = (await api.http.get(f"/api/sync-failures?cursor={failures['nextCursor']}")).json()
    assert {f["shopifyCustomerId"] for f in [*failures["failures"], *rest["failures"]]} == {"3", "33"}


async def test_a_customer_who_is_gone_can_be_dismissed(api: Api) -> None:
    gone = (await api.post_points(4711, 20))["entry"]["customerId"]
    well = (await api.post_points(1, 20))["entry"]["customerId"]
    await api.http.get("/api/sync-balances")
    assert (await api.http.post(f"/api/sync-failures/{well}/dismiss")).json()["code"] == "not_dismissible"
    assert (await api.http.post(f"/api/sync-failures/{gone}/dismiss")).status_code == 200
    assert (await api.http.get("/api/sync-failures")).json()["failures"] == []
    document = (await api.http.get("/api/sync-balances")).json()
    assert (document["total"], document["errors"]) == (1, 0)


async def test_verification_repairs_and_syncs_what_changed(api: Api, owner: psycopg.Connection) -> None:
    await post_to_everybody(api)
    await api.http.get("/api/sync-balances")
    owner.execute("update customers set current_balance = current_balance - 5 where shopify_customer_id in (10, 20)")
    answer = await api.http.get("/api/sync-balances?verify=true")
    document = answer.json()
    assert list(document)[:5] == ["message", "total", "verified", "corrected", "discrepancies"]
    assert document["message"] == "Balance verification complete"
    assert (document["total"], document["verified"], document["corrected"]) == (60, 58, 2)
    rows = sorted(document["discrepancies"], key=lambda row: int(row["shopifyCustomerId"]))
    assert [{**row, "customerId": ""} for row in rows] == [
        {"customerId": "", "shopifyCustomerId": "10", "stored": 5, "calculated": 10, "difference": 5},
        {"customerId": "", "shopifyCustomerId": "20", "stored": 15, "calculated": 20, "difference": 5},
    ]
    assert api.metafields() == {n: n for n in range(1, 61)}
    corrections = (await api.http.get(f"/api/sync-runs/{document['runId']}/corrections?limit=1")).json()
    assert len(corrections["corrections"]) == 1
    assert corrections["nextCursor"] is not None


async def test_one_customer_verified_and_synced(api: Api, owner: psycopg.Connection) -> None:
    customer = (await api.post_points(7, 10))["entry"]["customerId"]
    owner.execute("update customers set current_balance = 99")
    document = (await api.http.get(f"/api/sync-balances?customerId={customer}&verify=true")).json()
    assert (document["balance"], document["synced"], document["corrected"]) == (10, True, 1)
    assert document["discrepancies"][0]["difference"] == -89
    assert api.metafields() == {7: 10}


async def test_a_run_that_outlasts_the_wait_answers_202_and_goes_on(api: Api) -> None:
    await post_to_everybody(api)
    api.store.world.faults.add(Fault(answer=FaultAnswer.NORMAL, apply=FaultApply.FIRST, hold_ms=400))
    answer = await api.http.get("/api/sync-balances?wait=0")
    assert answer.status_code == 202
    started = answer.json()
    assert started == {
        "message": "Sync running",
        "runId": started["runId"],
        "statusUrl": f"/api/sync-runs/{started['runId']}",
    }
    await api.runtime.runs.wait(api.shop.id, started["runId"], wait_s=30)
    run = (await api.http.get(started["statusUrl"])).json()
    assert run["status"] == "done"
    assert run["progress"] == {"done": run["progress"]["total"], "total": run["progress"]["total"]}
    assert run["result"]["synced"] == 60
    assert {"runId", "kind", "trigger", "status", "startedAt", "finishedAt", "progress", "result"} <= set(run)
    listed = (await api.http.get("/api/sync-runs")).json()["runs"]
    assert [row["runId"] for row in listed] == [started["runId"]]


async def test_two_callers_at_once_join_one_run(api: Api) -> None:
    await post_to_everybody(api)
    api.store.world.faults.add(Fault(answer=FaultAnswer.NORMAL, apply=FaultApply.FIRST, hold_ms=300))
    answers = await asyncio.gather(*(api.http.get("/api/sync-balances") for _ in range(5)))
    assert len({answer.json()["runId"] for answer in answers}) == 1


async def test_a_refused_token_is_everybodys_error_and_the_shop_resumes_by_itself(api: Api) -> None:
    await post_to_everybody(api, 3)
    api.put_shop(ShopState.FROZEN)
    document = (await api.http.get("/api/sync-balances")).json()
    assert (document["total"], document["synced"], document["errors"]) == (3, 0, 3)
    assert len({row["error"] for row in document["failedSyncs"]}) == 1
    status = (await api.http.get("/api/status")).json()
    assert (status["status"], status["paused"]["code"], status["customers"]["paused"]) == ("paused", "shop_frozen", 3)
    assert status["paused"]["nextAttemptAt"] is not None
    api.put_shop(ShopState.ACTIVE)
    document = (await api.http.get("/api/sync-balances")).json()
    assert (document["synced"], document["errors"]) == (3, 0)
    assert (await api.http.get("/api/status")).json()["status"] == "active"


async def test_a_posting_may_wait_for_shopify(api: Api) -> None:
    shown = await api.post_points(7, 10, syncToShopify=True)
    assert shown["synced"] is True
    assert api.metafields() == {7: 10}
    api.put_shop(ShopState.FROZEN)
    kept = await api.post_points(7, 10, syncToShopify=True)
    assert (kept["synced"], kept["balance"]) == (False, 20)


async def test_a_query_that_makes_no_sense_is_refused(api: Api) -> None:
    for query, status, code in (
        ("?customerId=abc", 400, "invalid_parameter"),
        ("?customerId=", 400, "invalid_parameter"),
        (f"?customerId={uuid4()}", 404, "customer_not_found"),
        ("?costumerId=1", 400, "unknown_parameter"),
        ("?verify=perhaps", 400, "invalid_parameter"),
        ("?verify=true&verify=false", 400, "invalid_parameter"),
        ("?wait=56", 400, "invalid_parameter"),
        ("?wait=-1", 400, "invalid_parameter"),
    ):
        answer = await api.http.get(f"/api/sync-balances{query}")
        problem: dict[str, Any] = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), query
        assert problem["detail"]
    assert api.writes() == 0


async def test_a_read_key_may_not_sync_not_even_by_get(api: Api) -> None:
    for method in ("GET", "POST"):
        answer = await api.reader.request(method, "/api/sync-balances")
        assert (answer.status_code, answer.json()["code"]) == (403, "read_only_key")
