"""Reconciliation over HTTP: its document to the letter, what it changes and what not, and what a run has on record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from devstore import Fault, FaultAnswer, FaultApply, ShopState
from devstore.gids import Gid
from devstore.metafields import Slot
from metafield_sync.runtime import open_runtime
from metafield_sync.shops.registry import PAUSED_BY_STAFF, pause_shop

if TYPE_CHECKING:
    import psycopg

    from conftest import Api

DOMAIN = "demo.myshopify.com"
SLOT = Slot("CUSTOMER", "loyalty", "points_balance")
CUSTOMERS = 10


async def sync_everybody(api: Api) -> dict[str, str]:
    """Customers 1 to 10 have 11 to 20 points, and Shopify shows them; our ids by Shopify's."""
    entries = [{"shopifyCustomerId": str(n), "amount": 10 + n, "reason": "order"} for n in range(1, CUSTOMERS + 1)]
    results = (await api.http.post("/api/ledger/batch", json={"entries": entries})).json()["results"]
    assert (await api.http.get("/api/sync-balances")).json()["synced"] == CUSTOMERS
    return {str(n): result["entry"]["customerId"] for n, result in enumerate(results, start=1)}


def overwrite(api: Api, customer: int, value: str) -> None:
    """Write the metafield as another app would."""
    shop = api.store.shop(DOMAIN)
    shop.put_metafield(Gid("Customer", customer), SLOT.namespace, SLOT.key, value, "number_integer")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_foreign_write_is_reported_and_repaired_only_if_asked(api: Api, method: str) -> None:
    ids = await sync_everybody(api)
    overwrite(api, 3, "4711")
    writes = api.writes()
    answer = await api.http.request(method, "/api/reconcile")
    assert answer.status_code == 200
    document = answer.json()
    figures = {name: document.pop(name) for name in ("runId", "pointsSpent", "durationMs")}
    assert document == {
        "message": "Reconciliation complete",
        "total": 10,
        "agreeing": 9,
        "drifted": 1,
        "repaired": 0,
        "notCompared": 0,
        "definition": "as_it_should_be",
        "definitionRepaired": False,
        "byKind": {
            "missing": 0,
            "different": 0,
            "wrong_type": 0,
            "foreign_write": 1,
            "not_pushed": 0,
            "customer_gone": 0,
        },
        "drifts": [
            {
                "customerId": ids["3"],
                "shopifyCustomerId": "3",
                "kind": "foreign_write",
                "expected": 13,
                "found": "4711",
            }
        ],
        "pushed": 0,
    }
    assert figures["pointsSpent"] > 0
    assert (api.writes(), api.metafields()[3]) == (writes, 4711)

    repaired = (await api.http.request(method, "/api/reconcile?repair=true")).json()
    assert (repaired["drifted"], repaired["repaired"], repaired["pushed"]) == (1, 1, 1)
    assert api.metafields() == {n: 10 + n for n in range(1, CUSTOMERS + 1)}
    again = (await api.http.request(method, "/api/reconcile?repair=true")).json()
    assert (again["agreeing"], again["drifted"], again["pushed"], api.writes()) == (10, 0, 0, writes + 1)


async def test_what_a_run_found_and_changed_comes_page_by_page(api: Api) -> None:
    ids = await sync_everybody(api)
    overwrite(api, 1, "4711")
    api.store.shop(DOMAIN).metafields.delete(SLOT, 2)
    api.store.shop(DOMAIN).delete_customer(3)
    result = (await api.http.get("/api/reconcile?repair=true")).json()
    assert {row["kind"] for row in result["drifts"]} == {"foreign_write", "missing", "customer_gone"}
    address = f"/api/sync-runs/{result['runId']}/changes"
    whole = (await api.http.get(address)).json()
    assert whole["nextCursor"] is None
    rows: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = (await api.http.get(f"{address}?limit=1{cursor and f'&cursor={cursor}'}")).json()
        assert len(page["changes"]) == 1
        rows += page["changes"]
        cursor = page["nextCursor"]
    assert rows == whole["changes"]
    assert all(set(row) == {
        "customerId", "shopifyCustomerId", "change", "before", "after", "reason", "at"
    } for row in rows)  # fmt: skip
    told = sorted((row["shopifyCustomerId"], row["change"], row["before"], row["after"], row["reason"]) for row in rows)
    assert told == [
        ("1", "drift", "4711", "11", "foreign_write"),
        ("1", "pushed", "11", "11", "reconcile"),
        ("2", "drift", None, "12", "missing"),
        ("2", "pushed", "12", "12", "reconcile"),
        ("3", "drift", None, "13", "customer_gone"),
        ("3", "failed", "13", "13", told[-1][-1]),
    ]
    assert {row["customerId"] for row in rows} == {ids["1"], ids["2"], ids["3"]}
    assert all(row["at"].endswith("Z") for row in rows)


async def test_a_sync_has_on_record_what_it_pushed(api: Api) -> None:
    await sync_everybody(api)
    (run,) = (await api.http.get("/api/sync-runs")).json()["runs"]
    page = (await api.http.get(f"/api/sync-runs/{run['runId']}/changes?limit=250")).json()
    assert {(row["change"], row["before"], row["reason"]) for row in page["changes"]} == {("pushed", None, "sync")}
    assert len(page["changes"]) == CUSTOMERS


async def test_a_run_says_what_kind_it_is_and_who_asked_for_it(api: Api) -> None:
    await sync_everybody(api)
    result = (await api.http.get("/api/reconcile?repair=true")).json()
    run = (await api.http.get(f"/api/sync-runs/{result['runId']}")).json()
    assert (run["kind"], run["trigger"], run["repair"], run["status"]) == ("reconcile", "api", True, "done")
    assert run["result"] == result
    assert run["progress"] == {"done": CUSTOMERS, "total": CUSTOMERS}
    kinds = [(one["kind"], one["repair"]) for one in (await api.http.get("/api/sync-runs")).json()["runs"]]
    assert kinds == [("reconcile", True), ("sync", False)]


async def test_a_reconciliation_that_outlasts_the_wait_answers_202_and_goes_on(api: Api) -> None:
    await sync_everybody(api)
    api.store.world.faults.add(Fault(FaultAnswer.NORMAL, FaultApply.FIRST, hold_ms=300, operation="nodes"))
    answer = await api.http.get("/api/reconcile?wait=0")
    assert answer.status_code == 202
    started = answer.json()
    assert started == {
        "message": "Reconciliation running",
        "runId": started["runId"],
        "statusUrl": f"/api/sync-runs/{started['runId']}",
    }
    await api.runtime.runs.wait(api.shop.id, started["runId"], wait_s=30)
    run = (await api.http.get(started["statusUrl"])).json()
    assert (run["status"], run["result"]["agreeing"]) == ("done", CUSTOMERS)


async def test_a_definition_that_was_deleted_is_told_and_made_again(api: Api) -> None:
    await sync_everybody(api)
    definitions = api.store.shop(DOMAIN).definitions
    assert definitions.delete(SLOT)
    told = (await api.http.get("/api/reconcile")).json()
    assert (told["definition"], told["definitionRepaired"], told["drifted"]) == ("missing", False, 0)
    made = (await api.http.get("/api/reconcile?repair=true")).json()
    assert (made["definition"], made["definitionRepaired"]) == ("missing", True)
    assert (await api.http.get("/api/reconcile")).json()["definition"] == "as_it_should_be"


@pytest.mark.parametrize("limited", [1, 2])
async def test_a_long_list_stops_and_names_the_page_that_has_it_all(
    api: Api, monkeypatch: pytest.MonkeyPatch, limited: int
) -> None:
    monkeypatch.setattr("metafield_sync.sync.reconcile.document.RESULT_ROWS_MAX", limited)
    await sync_everybody(api)
    for customer in (1, 2):
        overwrite(api, customer, "4711")
    document = (await api.http.get("/api/reconcile")).json()
    assert (document["drifted"], len(document["drifts"])) == (2, limited)
    address = document.get("changesUrl")
    if limited == 1:
        assert len((await api.http.get(address)).json()["changes"]) == 2
    else:
        assert address is None
    assert (await api.http.get(f"/api/sync-runs/{document['runId']}")).json()["result"] == document


async def test_what_shopify_refuses_is_502_with_the_reason(api: Api) -> None:
    await sync_everybody(api)
    api.put_shop(ShopState.FROZEN)
    answer = await api.http.get("/api/reconcile")
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["code"]) == (502, "reconcile_failed")
    assert "frozen for an unpaid balance" in problem["detail"]
    run = (await api.http.get("/api/sync-runs?limit=1")).json()["runs"][0]
    assert (run["kind"], run["status"], run["result"]) == ("reconcile", "failed", None)
    assert run["error"] in problem["detail"] + "."
    assert run["runId"] in problem["detail"]


async def test_a_shopify_that_does_not_answer_is_502_too(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metafield_sync.sync.reconcile.reading.TRY_AGAIN_FIRST_S", 0.001)
    await sync_everybody(api)
    api.store.world.faults.add(Fault(status=503, operation="metafieldDefinition", times=None))
    answer = await api.http.get("/api/reconcile")
    assert (answer.status_code, answer.json()["code"]) == (502, "reconcile_failed")
    assert "HTTP 503" in answer.json()["detail"]


async def test_a_shop_that_staff_paused_is_a_conflict(api: Api) -> None:
    async with api.runtime.db.unscoped() as conn:
        await pause_shop(conn, api.shop.id, code=PAUSED_BY_STAFF, detail="stop", resumes_by_itself=False)
    answer = await api.http.get("/api/reconcile")
    assert (answer.status_code, answer.json()["code"]) == (409, "shop_paused")
    assert "shops resume" in answer.json()["detail"]


REFUSE = """
create function refuse_a_change() returns trigger language plpgsql
as $$ begin raise exception 'no room for this' using detail = 'Customer 1 has 11 points.'; end $$;
create trigger refuses_a_change before insert on sync_run_changes for each row execute function refuse_a_change();
"""


async def test_a_failure_of_our_own_is_500_and_quotes_no_rows(api: Api, owner: psycopg.Connection) -> None:
    await sync_everybody(api)
    overwrite(api, 1, "4711")
    owner.execute(REFUSE)
    answer = await api.http.get("/api/reconcile")
    assert (answer.status_code, answer.json()["code"]) == (500, "run_failed")
    assert "no room for this" in answer.json()["detail"]
    assert "11 points" not in answer.text


async def test_a_query_that_makes_no_sense_is_refused(api: Api) -> None:
    for query, status, code in (
        ("?repair=perhaps", 400, "invalid_parameter"),
        ("?repair=true&repair=true", 400, "invalid_parameter"),
        ("?verify=true", 400, "unknown_parameter"),
        (f"?customerId={uuid4()}", 400, "unknown_parameter"),
        ("?wait=56", 400, "invalid_parameter"),
    ):
        answer = await api.http.get(f"/api/reconcile{query}")
        assert (answer.status_code, answer.json()["code"]) == (status, code), query
    assert (await api.http.post("/api/reconcile", json={"repair": True})).json()["code"] == "invalid_parameter"
    assert (await api.http.post("/api/reconcile", json={})).status_code == 200
    for path in ("", "/changes", "/corrections"):
        assert (await api.http.get(f"/api/sync-runs/{uuid4()}{path}")).json()["code"] == "run_not_found"


async def test_a_cursor_of_another_list_is_refused(api: Api) -> None:
    ids = await sync_everybody(api)
    result = (await api.http.get("/api/reconcile")).json()
    of_customers = (await api.http.get("/api/customers?limit=1")).json()["nextCursor"]
    for path in (
        f"/api/sync-runs/{result['runId']}/changes",
        f"/api/sync-runs/{result['runId']}/corrections",
        "/api/sync-runs",
        f"/api/customers/{ids['1']}/ledger",
    ):
        for cursor in (of_customers, "bm9uc2Vuc2U", "Ml8wMDA", "fHx8", "%00"):
            answer = await api.http.get(f"{path}?cursor={cursor}")
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter"), (path, cursor)


async def test_a_read_key_may_not_reconcile_but_may_look_at_what_came_of_it(api: Api) -> None:
    for method in ("GET", "POST"):
        answer = await api.reader.request(method, "/api/reconcile")
        assert (answer.status_code, answer.json()["code"]) == (403, "read_only_key")
    result = (await api.http.get("/api/reconcile")).json()
    assert (await api.reader.get(f"/api/sync-runs/{result['runId']}/changes")).status_code == 200


async def test_whoever_asks_the_run_is_on_record_for_all(api: Api) -> None:
    await sync_everybody(api)
    overwrite(api, 1, "4711")
    async with open_runtime(api.runtime.settings) as other:
        run_id = await other.runs.request(api.shop.id, kind="reconcile", trigger="cli", repair=True)
        run = await other.runs.wait(api.shop.id, run_id, wait_s=30)
    shown = (await api.http.get(f"/api/sync-runs/{run_id}")).json()
    assert (shown["trigger"], shown["result"]) == ("cli", run.result)
    assert api.metafields()[1] == 11
