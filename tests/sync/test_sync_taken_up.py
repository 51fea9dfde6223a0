"""Runs that nobody asked this process for: found at once, spread over the fleet, and one at a time in each shop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb
from sync_support import Stage, eventually

from devstore import Fault, FaultAnswer, FaultApply
from metafield_sync.db.database import ShopId
from metafield_sync.sync.runs import RUN_ORPHANED_S, RUNS_TAKEN_UP_MAX

if TYPE_CHECKING:
    from metafield_sync.sync.runs import Runs

HOLD = Fault(FaultAnswer.NORMAL, FaultApply.FIRST, operation="metafieldsSet", hold_ms=200)


def ask(stage: Stage, *, shop_id: int | None = None, kind: str = "sync", scheduled: bool = False) -> UUID:
    """A run on record, with nobody at it yet."""
    made = stage.owner.execute(
        """
        insert into sync_runs (shop_id, kind, trigger, tick_at)
        values (%s, %s, 'schedule', case when %s then clock_timestamp() end)
        returning id
        """,
        (stage.shop_id if shop_id is None else shop_id, kind, scheduled),
    ).fetchone()
    assert made is not None
    return made[0]


def orphans(stage: Stage) -> set[UUID]:
    return {row[0] for row in stage.owner.execute("select run_id from orphaned_runs(%s)", (RUN_ORPHANED_S,))}


def statuses(stage: Stage) -> list[str]:
    return [row[0] for row in stage.owner.execute("select status from sync_runs order by requested_at")]


async def test_a_run_that_was_put_back_is_found_at_once(stage: Stage, other_runs: Runs) -> None:
    await stage.post(1, 10)
    stage.store.world.faults.add(HOLD)
    run_id = await stage.runs.request(stage.shop_id, kind="sync", trigger="api")
    await eventually(lambda: stage.values() == {1: "10"})
    assert orphans(stage) == set()
    await stage.runs.close()
    assert orphans(stage) == {run_id}
    await other_runs.resume_orphans()
    assert (await other_runs.wait(stage.shop_id, run_id, wait_s=20)).status == "done"


async def test_a_process_takes_up_a_few_at_a_time_and_leaves_the_rest_to_others(stage: Stage, other_runs: Runs) -> None:
    stage.owner.execute(
        "insert into shops (domain) select 'shop-' || n || '.myshopify.com' from generate_series(1, 10) n"
    )
    stage.owner.execute("insert into sync_runs (shop_id, kind, trigger) select id, 'sync', 'api' from shops")
    for runs in (stage.runs, other_runs):
        await runs.resume_orphans()
        await runs.resume_orphans()
        assert len(runs._tasks) == RUNS_TAKEN_UP_MAX  # pyright: ignore[reportPrivateUsage] - what it has begun
    for _ in range(3):
        await asyncio.gather(*stage.runs._tasks.values(), *other_runs._tasks.values())  # pyright: ignore[reportPrivateUsage] - the same
        await stage.runs.resume_orphans()
        await other_runs.resume_orphans()
    assert statuses(stage) == ["done"] * 11


async def test_what_was_asked_of_this_process_does_not_count(stage: Stage) -> None:
    stage.owner.execute(
        "insert into shops (domain) select 'shop-' || n || '.myshopify.com' from generate_series(1, 6) n"
    )
    shops = [ShopId(row[0]) for row in stage.owner.execute("select id from shops")]
    asked = await asyncio.gather(*(stage.runs.request(shop, kind="sync", trigger="api") for shop in shops))
    for shop, run_id in zip(shops, asked, strict=True):
        assert (await stage.runs.wait(shop, run_id, wait_s=20)).status == "done"


async def test_a_run_in_a_living_workers_queue_is_nobodys_orphan(stage: Stage) -> None:
    run_id, lost = ask(stage, scheduled=True), ask(stage, scheduled=True)
    stage.owner.execute(
        """
        insert into procrastinate_jobs (queue_name, task_name, args) values ('metafield_sync', 'execute_run', %s)
        """,
        (Jsonb({"shop_id": stage.shop_id, "run_id": str(run_id)}),),
    )
    assert orphans(stage) == {run_id, lost}, "the queue is nobody's"
    stage.owner.execute("insert into procrastinate_workers default values")
    assert orphans(stage) == {lost}
    stage.owner.execute("update procrastinate_jobs set status = 'doing'")
    assert orphans(stage) == {run_id, lost}, "fetched by a worker that died before it could begin"


async def test_a_run_that_waits_for_another_of_its_shop_is_no_orphan(stage: Stage) -> None:
    ask(stage)
    stage.owner.execute("update sync_runs set status = 'running', started_at = now(), heartbeat_at = now()")
    waiting = ask(stage, kind="verify")
    assert orphans(stage) == set()
    stage.owner.execute("update sync_runs set status = 'done', finished_at = now() where status = 'running'")
    assert orphans(stage) == {waiting}


async def test_two_runs_of_a_shop_are_never_taken_in_the_same_instant(stage: Stage, other_runs: Runs) -> None:
    both = (stage.runs, other_runs)
    for _ in range(25):
        asked = (ask(stage), ask(stage, kind="verify"))
        claims = await asyncio.gather(
            *(runs._claim(stage.shop_id, run_id) for runs in both for run_id in asked)  # pyright: ignore[reportPrivateUsage] - nothing else takes one without executing it
        )
        assert sum(claim is not None for claim in claims) <= 1
        assert statuses(stage).count("running") <= 1
        stage.owner.execute("delete from sync_runs")


async def test_a_run_taken_up_while_its_shop_has_another_at_work_is_left_for_later(
    stage: Stage, other_runs: Runs
) -> None:
    await stage.post(1, 10)
    stage.store.world.faults.add(HOLD)
    first = await stage.runs.request(stage.shop_id, kind="sync", trigger="api")
    await eventually(lambda: stage.values() == {1: "10"})
    second = ask(stage, kind="verify")
    await other_runs.take_up(stage.shop_id, second)
    assert (await stage.runs.find(stage.shop_id, second)).status == "queued"
    await stage.finished(first)
    await other_runs.take_up(stage.shop_id, second)
    assert (await stage.runs.find(stage.shop_id, second)).status == "done"


async def test_one_who_asks_for_a_run_that_was_taken_up_gets_its_result(stage: Stage) -> None:
    await stage.post(1, 10)
    taken_up = ask(stage, kind="verify", scheduled=True)
    working = asyncio.create_task(stage.runs.take_up(stage.shop_id, taken_up))
    assert await stage.runs.request(stage.shop_id, kind="verify", trigger="api") == taken_up
    run = await stage.runs.wait(stage.shop_id, taken_up, wait_s=20)
    assert (run.status, run.trigger) == ("done", "schedule")
    await working


async def test_a_run_that_is_no_more_is_taken_up_by_nobody(stage: Stage) -> None:
    await stage.runs.take_up(stage.shop_id, uuid4())


async def test_taking_up_puts_the_run_back_when_it_is_cancelled(stage: Stage) -> None:
    await stage.post(1, 10)
    stage.store.world.faults.add(HOLD)
    run_id = ask(stage)
    working = asyncio.create_task(stage.runs.take_up(stage.shop_id, run_id))
    await eventually(lambda: stage.values() == {1: "10"})
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert (await stage.runs.find(stage.shop_id, run_id)).status == "queued"
    assert orphans(stage) == {run_id}
