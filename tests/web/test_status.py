"""Health, status and figures: what turns red and what does not, and what Prometheus is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from devstore import Fault, ShopState
from devstore.gids import Gid
from metafield_sync.shops.registry import PAUSED_BY_STAFF, pause_shop

if TYPE_CHECKING:
    import psycopg

    from conftest import Api

DOMAIN = "demo.myshopify.com"
WRITE = "metafieldsSet"


def grow_old(owner: psycopg.Connection, minutes: int = 10) -> None:
    """As if every change that waits had come so much earlier."""
    owner.execute("update mirror_states set stale_since = stale_since - make_interval(mins => %s)", (minutes,))


async def figures(api: Api) -> dict[str, float]:
    """What Prometheus reads: each figure by its name and labels."""
    text = (await api.anonymous.get("/metrics")).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def pause_by_staff(api: Api) -> None:
    async with api.runtime.db.unscoped() as conn:
        await pause_shop(conn, api.shop.id, code=PAUSED_BY_STAFF, detail="Paused by staff.", resumes_by_itself=False)


async def test_alive_and_ready(api: Api) -> None:
    assert (await api.anonymous.get("/healthz")).json() == {"status": "ok"}
    assert (await api.anonymous.get("/readyz")).json() == {"status": "ready"}


async def test_the_status_of_a_shop_in_step(api: Api, owner: psycopg.Connection) -> None:
    await api.post_points(7, 10, syncToShopify=True)
    await api.http.get("/api/reconcile")
    owner.execute("insert into procrastinate_workers (last_heartbeat) values (now()), (now() - interval '1 hour')")
    answer = await api.http.get("/api/status")
    assert answer.status_code == 200
    status = answer.json()
    assert status["customers"] == {
        "total": 1, "inStep": 1, "stale": 0, "inDoubt": 0, "failing": 0, "missing": 0, "paused": 0
    }  # fmt: skip
    assert status["budget"]["maximumAvailable"] == 2000
    assert (status["oldestUnpushedSeconds"], status["alarmAfterSeconds"]) == (0, 300)
    assert (status["failures"], status["backfill"], status["workers"]) == ({}, None, 1)
    activity = status["activity"]
    assert (activity["customersPushed"], activity["customersRead"]) == (1, 1)
    assert {"conflictsOurs", "conflictsForeign", "lateWrites", "backfilled", "drifts"} <= set(activity)


async def test_the_last_runs_come_without_their_lists(api: Api) -> None:
    await api.post_points(4711, 10)
    await api.post_points(1, 10)
    results = [
        (await api.http.get(f"/api/{call}")).json()
        for call in ("sync-balances", "sync-balances?verify=true", "reconcile")
    ]
    runs = (await api.http.get("/api/status")).json()["lastRuns"]
    assert [run["kind"] for run in runs] == ["reconcile", "verify", "sync"]
    for run, result in zip(reversed(runs), results, strict=True):
        lists = {name for name, value in result.items() if isinstance(value, list)}
        assert lists
        assert run["result"] == {name: value for name, value in result.items() if name not in lists}
        assert (await api.http.get(f"/api/sync-runs/{run['runId']}")).json()["result"] == result


async def test_who_fails_is_counted_by_class(api: Api) -> None:
    for customer in (4711, 4712, 4713):
        await api.post_points(customer, 10)
    await api.http.get("/api/sync-balances")
    status = (await api.http.get("/api/status")).json()
    assert status["failures"] == {"customer_missing": 3}
    assert status["customers"]["missing"] == 3
    failure = (await api.http.get("/api/sync-failures?limit=1")).json()["failures"][0]
    await api.http.post(f"/api/sync-failures/{failure['customerId']}/dismiss")
    assert (await api.http.get("/api/status")).json()["failures"] == {"customer_missing": 2}


async def test_a_backfill_under_way_tells_how_far_it_is(api: Api, owner: psycopg.Connection) -> None:
    await api.post_points(7, 10)
    owner.execute(
        "insert into backfills (shop_id, customers, written, refused, unknown, attempts) values (%s, 9, 5, 1, 2, 3)",
        (api.shop.id,),
    )
    steps: list[str] = []
    for passed in (
        "update backfills set collected_at = now()",
        "update backfills set values_read_at = now()",
        "update backfills set finished_at = now()",
    ):
        backfill = (await api.http.get("/api/status")).json()["backfill"]
        steps.append(backfill["step"])
        assert backfill["startedAt"].endswith("Z")
        counts = [backfill[name] for name in ("customers", "written", "refused", "unknown", "attempts")]
        assert counts == [9, 5, 1, 2, 3]
        assert (await figures(api))["metafield_sync_backfilling"] == 1
        owner.execute(passed)
    assert steps == ["collecting", "reading_values", "files"]
    assert (await api.http.get("/api/status")).json()["backfill"] is None


async def test_the_alarm_is_on_the_age_of_what_is_stale(api: Api, owner: psycopg.Connection) -> None:
    await api.post_points(7, 10)
    assert (await api.http.get("/api/status")).status_code == 200
    grow_old(owner)
    answer = await api.http.get("/api/status")
    assert answer.status_code == 503
    assert answer.json()["oldestUnpushedSeconds"] > 599
    # Shopify being slow must not take posting down.
    assert (await api.anonymous.get("/readyz")).status_code == 200
    await api.http.get("/api/sync-balances")
    assert (await api.http.get("/api/status")).status_code == 200


async def test_errors_alone_turn_nothing_red_and_age_does_whatever_the_reason(
    api: Api, owner: psycopg.Connection
) -> None:
    await api.post_points(7, 10)
    api.store.world.faults.add(Fault(status=503, operation=WRITE, times=None))
    # One turn and no run, which would read back and try again while we look.
    await api.runtime.mirror.drain(api.shop.id)
    status = await api.http.get("/api/status")
    assert (status.status_code, status.json()["customers"]["inDoubt"]) == (200, 1)
    grow_old(owner)
    assert (await api.http.get("/api/status")).status_code == 503, "in doubt is waiting too"
    owner.execute("update mirror_states set in_doubt = false, failing_since = now()")
    status = await api.http.get("/api/status")
    assert (status.status_code, status.json()["customers"]["failing"]) == (503, 1)


async def test_who_is_gone_from_shopify_waits_for_nothing(api: Api, owner: psycopg.Connection) -> None:
    await api.post_points(4711, 10)
    await api.http.get("/api/sync-balances")
    grow_old(owner)
    answer = await api.http.get("/api/status")
    assert (answer.status_code, answer.json()["oldestUnpushedSeconds"]) == (200, 0)


async def test_people_wait_in_a_shop_that_shopify_refuses_and_not_in_one_that_staff_paused(
    api: Api, owner: psycopg.Connection
) -> None:
    await api.post_points(7, 10)
    api.put_shop(ShopState.FROZEN)
    await api.http.get("/api/sync-balances")
    answer = await api.http.get("/api/status")
    assert (answer.status_code, answer.json()["paused"]["code"]) == (200, "shop_frozen")
    grow_old(owner)
    answer = await api.http.get("/api/status")
    assert (answer.status_code, answer.json()["paused"]["code"]) == (503, "shop_frozen")
    await pause_by_staff(api)
    answer = await api.http.get("/api/status")
    assert (answer.status_code, answer.json()["paused"]["code"]) == (200, PAUSED_BY_STAFF)
    assert answer.json()["paused"]["nextAttemptAt"] is None
    assert answer.json()["oldestUnpushedSeconds"] > 599


async def test_prometheus_is_told_of_the_fleet_and_of_this_process(api: Api, owner: psycopg.Connection) -> None:
    await api.post_points(7, 10, syncToShopify=True)
    await api.post_points(4711, 10)
    api.store.shop(DOMAIN).put_metafield(Gid("Customer", 7), "loyalty", "points_balance", "99", "number_integer")
    await api.http.get("/api/reconcile")
    await api.post_points(7, 1)
    await api.http.get("/api/sync-balances")
    owner.execute("insert into procrastinate_workers (last_heartbeat) values (now())")
    told = await figures(api)
    for name, value in (
        ("customers_pushed_total", 2),
        ("drifts_total", 2),
        ("late_writes_total", 0),
        ('conflicts_total{writer="foreign"}', 1),
        ('conflicts_total{writer="ourselves"}', 0),
        ('failing_customers{code="customer_missing"}', 1),
        ('runs{kind="sync",status="done",trigger="api"}', 1),
        ('runs{kind="reconcile",status="done",trigger="api"}', 1),
        ("workers_alive", 1),
        ("backfilling", 0),
        ("oldest_stale_seconds", 0),
        (f'shop_oldest_stale_seconds{{shop="{DOMAIN}"}}', 0),
        (f'shop_points_maximum{{shop="{DOMAIN}"}}', 2000),
        ('http_requests_total{method="POST",route="/api/ledger",status="201"}', 3),
    ):
        assert told[f"metafield_sync_{name}"] == value, name
    assert 0 < told[f'metafield_sync_shop_points_available{{shop="{DOMAIN}"}}'] <= 2000
    assert told["metafield_sync_customers_read_total"] > 0


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
async def test_they_are_open_and_name_nobody(api: Api, path: str) -> None:
    customer = (await api.post_points(7, 10))["entry"]["customerId"]
    answer: Any = await api.anonymous.get(path)
    assert answer.status_code == 200
    assert customer not in answer.text
