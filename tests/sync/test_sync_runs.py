"""Runs: joined when they cover what was asked, followed when not, taken up when their process died."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb
from structlog.testing import capture_logs
from sync_support import SLOT, Stage, eventually

from devstore import Fault, FaultAnswer, FaultApply
from metafield_sync.ledger.posting import POINTS_MAX
from metafield_sync.ledger.verification import verify
from metafield_sync.shops.registry import PAUSED_BY_STAFF, add_shop, pause_shop
from metafield_sync.sync.runs import RunNotFound

if TYPE_CHECKING:
    from metafield_sync.sync.runs import Kind, Runs

WRITE = "metafieldsSet"
HOLD = Fault(FaultAnswer.NORMAL, FaultApply.FIRST, operation=WRITE, hold_ms=200)


async def request(stage: Stage, runs: Runs | None = None, *, kind: Kind = "sync", forced: bool = False) -> UUID:
    return await (runs or stage.runs).request(stage.shop_id, kind=kind, trigger="api", forced=forced)


async def begin_slow_run(stage: Stage, *, kind: Kind = "sync") -> UUID:
    """A run in the middle of its one call to Shopify, for customer 1."""
    await stage.post(1, 10)
    stage.store.world.faults.add(HOLD)
    run_id = await request(stage, kind=kind)
    await eventually(lambda: stage.values() == {1: "10"})
    return run_id


async def test_a_run_tells_what_it_came_to(stage: Stage) -> None:
    ids = await stage.post_all({n: n for n in range(1, 4)})
    result = await stage.run()
    run_id = UUID(result["runId"])
    assert list(result)[:5] == ["message", "total", "synced", "errors", "failedSyncs"]
    assert (result["message"], result["total"], result["synced"]) == ("Sync complete", 3, 3)
    assert (result["pushed"], result["unchanged"], result["pointsSpent"]) == (3, 0, 10 + 13)
    run = await stage.runs.find(stage.shop_id, run_id)
    assert (run.kind, run.trigger, run.status, run.progress_done, run.progress_total) == ("sync", "api", "done", 3, 3)
    assert run.started_at is not None
    assert run.finished_at is not None
    assert run.requested_at <= run.started_at <= run.finished_at
    assert len(ids) == 3


async def test_two_requests_at_once_join_one_run_across_processes_too(stage: Stage, other_runs: Runs) -> None:
    await stage.post(1, 10)
    asked = await asyncio.gather(*(request(stage, runs) for runs in (stage.runs, other_runs, stage.runs, other_runs)))
    assert len(set(asked)) == 1
    assert (await stage.result(asked[0]))["errors"] == 0
    assert len(stage.writes()) == 1


async def test_a_request_joins_a_run_at_work_that_covers_everything(stage: Stage) -> None:
    first = await begin_slow_run(stage)
    assert await request(stage) == first
    await stage.finished(first)


async def test_a_request_after_a_new_posting_gets_a_run_that_follows(stage: Stage, other_runs: Runs) -> None:
    first_id = await begin_slow_run(stage)
    await stage.post(1, 5)
    second_id, third_id = await request(stage), await request(stage, other_runs)
    assert second_id == third_id != first_id
    first, second = await stage.finished(first_id), await stage.finished(second_id)
    assert first.finished_at is not None
    assert second.started_at is not None
    assert second.started_at >= first.finished_at
    assert stage.values() == {1: "15"}
    assert second.result is not None
    assert second.result["synced"] == 1


async def test_a_forced_request_does_not_join_one_that_is_not(stage: Stage) -> None:
    first = await begin_slow_run(stage)
    second = await request(stage, forced=True)
    assert second != first
    await stage.finished(second)


async def test_a_finished_run_is_not_joined(stage: Stage) -> None:
    first = await stage.run()
    assert (await stage.run())["runId"] != first["runId"]


async def test_a_forced_run_writes_everybody(stage: Stage) -> None:
    await stage.post_all({n: n for n in range(1, 31)})
    await stage.run()
    result = await stage.run(forced=True)
    assert (result["synced"], result["pushed"], result["unchanged"]) == (30, 30, 0)
    assert [len(call.owners) for call in stage.writes()][-2:] == [25, 5]


async def test_a_run_retries_who_fails_whatever_the_back_off_and_looks_for_the_missing(stage: Stage) -> None:
    await stage.post_all({1: 10, 2: 20, 3: 30})
    stage.shopify.delete_customer(2)
    stage.store.world.faults.add(Fault(status=503, operation=WRITE, skip=1))
    await stage.mirror.drain(stage.shop_id)
    assert [(await stage.standing(n)).status for n in (1, 2, 3)] == ["in_doubt", "missing", "in_doubt"]
    stage.owner.execute("update mirror_states set due_at = clock_timestamp() + interval '1 hour'")
    stage.shopify.add_customers([2])
    result = await stage.run()
    assert (result["synced"], result["errors"]) == (3, 0)
    assert stage.values() == {1: "10", 2: "20", 3: "30"}


async def die(stage: Stage) -> None:
    """End the process of the stage's runs as `kill -9` does: nothing of what it left on record is tidied up."""
    left = stage.owner.execute("select id, status, started_at, heartbeat_at, executor from sync_runs").fetchall()
    await stage.runs.close()
    for run in left:
        stage.owner.execute(
            "update sync_runs set (status, started_at, heartbeat_at, executor) = (%s, %s, %s, %s) where id = %s",
            (*run[1:], run[0]),
        )


async def test_a_run_whose_process_stops_is_finished_by_whoever_is_asked_next(stage: Stage, other_runs: Runs) -> None:
    run_id = await begin_slow_run(stage)
    await stage.runs.close()
    assert await request(stage, other_runs) == run_id
    assert (await other_runs.wait(stage.shop_id, run_id, wait_s=20)).status == "done"


async def test_a_run_whose_process_died_is_taken_up_by_another(stage: Stage, other_runs: Runs) -> None:
    run_id = await begin_slow_run(stage)
    await die(stage)
    assert (await stage.runs.find(stage.shop_id, run_id)).status == "running"
    await stage.post(2, 20)
    await other_runs.resume_orphans()
    assert other_runs._tasks == {}  # pyright: ignore[reportPrivateUsage] - not yet: its process may still be at it
    stage.owner.execute("update sync_runs set heartbeat_at = heartbeat_at - interval '1 minute'")
    await other_runs.resume_orphans()
    run = await other_runs.wait(stage.shop_id, run_id, wait_s=20)
    assert run.status == "done"
    assert run.result is not None
    assert (run.result["total"], run.result["errors"]) == (2, 0)
    assert stage.values()[1] == "10"


async def test_a_run_nobody_got_round_to_is_taken_up(stage: Stage) -> None:
    await stage.post(1, 10)
    made = stage.owner.execute(
        """
        insert into sync_runs (shop_id, kind, trigger, requested_at)
        values (%s, 'sync', 'api', clock_timestamp() - interval '1 minute')
        returning id
        """,
        (stage.shop_id,),
    ).fetchone()
    assert made is not None
    await stage.runs.resume_orphans()
    assert (await stage.result(made[0]))["synced"] == 1


async def test_a_run_whose_process_died_is_not_in_the_way_of_the_next(stage: Stage) -> None:
    await begin_slow_run(stage)
    await die(stage)
    stage.owner.execute("update sync_runs set heartbeat_at = heartbeat_at - interval '1 minute'")
    await stage.post(1, 5)
    assert (await stage.run())["synced"] == 1
    assert stage.values() == {1: "15"}


async def test_who_waits_too_briefly_sees_the_run_at_work(stage: Stage) -> None:
    run_id = await begin_slow_run(stage)
    run = await stage.runs.wait(stage.shop_id, run_id, wait_s=0.01)
    assert (run.status, run.result) == ("running", None)
    assert (await stage.finished(run_id)).status == "done"


async def test_a_verification_repairs_records_and_syncs_what_changed(stage: Stage) -> None:
    ids = await stage.post_all({n: 10 * n for n in range(1, 6)})
    await stage.run()
    stage.owner.execute("alter table customers disable trigger balances_are_mirrored")
    stage.owner.execute("update customers set current_balance = 1000 where shopify_customer_id = 3")
    stage.owner.execute("alter table customers enable trigger balances_are_mirrored")
    stage.shopify.metafields.delete(SLOT, 3)
    result = await stage.run("verify")
    assert list(result)[:5] == ["message", "total", "verified", "corrected", "discrepancies"]
    assert (result["message"], result["total"]) == ("Balance verification complete", 5)
    assert (result["verified"], result["corrected"]) == (4, 1)
    assert result["discrepancies"] == [
        {
            "customerId": str(ids[3]),
            "shopifyCustomerId": "3",
            "stored": 1000,
            "calculated": 30,
            "difference": -970,
        }
    ]
    assert (result["synced"], result["errors"], result["pushed"]) == (5, 0, 1)
    assert stage.values()[3] == "30"
    found_by = stage.owner.execute("select run_id, found_by from balance_corrections").fetchall()
    assert found_by == [(UUID(result["runId"]), "verification")]


@pytest.mark.usefixtures("short_back_off")
async def test_a_verification_gives_whom_it_repairs_a_second_chance_too(stage: Stage) -> None:
    await stage.post_all({1: 10, 2: 20})
    await stage.run()
    stage.owner.execute("update customers set current_balance = 999 where shopify_customer_id = 1")
    await stage.mirror.drain(stage.shop_id)
    stage.store.world.faults.add(Fault(status=503, operation=WRITE))
    result = await stage.run("verify")
    assert (result["corrected"], result["synced"], result["errors"]) == (1, 2, 0)
    assert stage.values() == {1: "10", 2: "20"}


async def test_extreme_balances_reach_shopify_as_they_are(stage: Stage) -> None:
    await stage.post_all({1: POINTS_MAX, 2: 1})
    stage.owner.execute("update customers set current_balance = %s where shopify_customer_id = 2", (-POINTS_MAX,))
    assert (await stage.run())["errors"] == 0
    assert stage.values() == {1: "9007199254740991", 2: "-9007199254740991"}


async def test_an_empty_shop_has_a_run_of_nothing(stage: Stage) -> None:
    result = await stage.run()
    assert (result["total"], result["synced"], result["errors"], result["failedSyncs"]) == (0, 0, 0, [])


async def test_runs_are_listed_newest_first_page_by_page(stage: Stage) -> None:
    made = [(await stage.run())["runId"] for _ in range(3)]
    first = await stage.runs.page(stage.shop_id, before=None, limit=2)
    rest = await stage.runs.page(stage.shop_id, before=(first[-1].requested_at, first[-1].id), limit=2)
    assert [str(run.id) for run in (*first, *rest)] == made[::-1]


async def test_a_run_of_another_shop_is_not_found(stage: Stage) -> None:
    async with stage.db.unscoped() as conn:
        other, _ = await add_shop(conn, "other.myshopify.com", None)
    mine = UUID((await stage.run())["runId"])
    for shop_id, run_id in ((other.id, mine), (stage.shop_id, uuid4())):
        with pytest.raises(RunNotFound):
            await stage.runs.find(shop_id, run_id)


async def test_a_run_that_cannot_go_on_says_so(stage: Stage) -> None:
    await stage.post(1, 10)
    stage.owner.execute("alter function act_for_shop rename to act_for_shop_away")
    with pytest.raises(Exception, match="act_for_shop"):
        await request(stage)
    stage.owner.execute("alter function act_for_shop_away rename to act_for_shop")
    stage.owner.execute("revoke select on customers from metafield_sync_app")
    run = await stage.runs.wait(stage.shop_id, await request(stage), wait_s=20)
    assert run.status == "failed"
    assert run.error is not None
    assert "permission denied" in run.error


async def test_runs_verifications_and_batches_never_wait_for_each_other_in_a_circle(
    stage: Stage, database_url: str
) -> None:
    # Straight to the database, since `post_batch` would quietly try again. Paused, so that runs are all about rows.
    batch = Jsonb([{"shopifyCustomerId": n, "amount": 1, "reason": "order"} for n in range(1, 201)])
    post_them = "select count(*) from post_entries(%s, 'test', %s)"
    async with stage.db.unscoped() as conn:
        await pause_shop(conn, stage.shop_id, code=PAUSED_BY_STAFF, detail="still", resumes_by_itself=False)
    # The last twenty are in no batch, so that only the verification repairs them.
    everybody = Jsonb([{"shopifyCustomerId": n, "amount": 1, "reason": "order"} for n in range(1, 221)])
    async with stage.db.connection() as conn:
        await conn.execute(post_them, (stage.shop_id, everybody))
    runs_are_over = asyncio.Event()
    posted = 0

    async def post_on() -> None:
        nonlocal posted
        while not runs_are_over.is_set():
            async with stage.db.connection() as conn:
                await conn.execute(post_them, (stage.shop_id, batch))
            posted += 1

    # Each touches one customer a transaction, so that no circle can be of its own making.
    damage = """
    do $$
    declare one record;
    begin
      for one in select shop_id, id from customers loop
        update customers set current_balance = -1 where shop_id = one.shop_id and id = one.id;
        commit;
      end loop;
    end
    $$
    """
    repaired = 0

    async def verify_on() -> None:
        nonlocal repaired
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as by_hand:
            while not runs_are_over.is_set():
                await by_hand.execute(damage)
                with capture_logs():
                    repaired += len(await verify(stage.db, stage.shop_id))

    posting = [asyncio.create_task(work()) for work in (post_on, post_on, verify_on)]
    runs = 0
    while runs < 12 or posted <= 5 or repaired <= 5:
        assert (await stage.run(forced=True))["total"] == 220
        runs += 1
        for work in posting:
            if work.done():
                work.result()
        assert runs < 300, f"they have to overlap, or this proves nothing: {posted} batches, {repaired} repairs"
    runs_are_over.set()
    await asyncio.gather(*posting)
