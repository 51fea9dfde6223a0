"""The worker: pushes what is stale without being asked, in every shop, and goes on whatever happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs
from worker_support import Shops

from devstore import Fault, FaultAnswer, FaultApply
from metafield_sync.worker.loops import work
from metafield_sync.worker.supervision import LOOP_PAUSE_FIRST_S, LOOP_PAUSE_LAST_S, pause_after

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, MutableMapping

    import psycopg

FIRST, SECOND = "first.myshopify.com", "second.myshopify.com"


@pytest.fixture
async def worker(shops: Shops) -> AsyncIterator[asyncio.Task[None]]:
    """The worker at work, until the test ends."""
    working = asyncio.create_task(work(shops.mirror, shops.runs, shops.schedule))
    yield working
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


@pytest.mark.usefixtures("worker")
async def test_a_posting_is_pushed_without_anybody_asking(shops: Shops) -> None:
    await shops.post(FIRST, 1, 10)
    await shops.eventually(lambda: shops.values(FIRST) == {1: "10"})
    await shops.post(FIRST, 1, -4)
    await shops.eventually(lambda: shops.values(FIRST) == {1: "6"})


@pytest.mark.usefixtures("worker")
async def test_every_shop_is_pushed_each_its_own(shops: Shops) -> None:
    await shops.post(FIRST, 1, 10)
    await shops.post(SECOND, 1, 20)
    await shops.eventually(lambda: shops.values(FIRST) == {1: "10"} and shops.values(SECOND) == {1: "20"})


@pytest.mark.usefixtures("worker")
async def test_a_shop_whose_api_does_not_answer_holds_up_no_other(shops: Shops) -> None:
    shops.store.world.faults.add(Fault(status=503, times=None, shop=FIRST))
    await shops.post(FIRST, 1, 10)
    await shops.post(SECOND, 1, 20)
    await shops.eventually(lambda: shops.values(SECOND) == {1: "20"})
    assert shops.values(FIRST) == {}
    shops.store.world.faults.clear()
    await shops.eventually(lambda: shops.values(FIRST) == {1: "10"})


@pytest.mark.usefixtures("worker")
async def test_a_shop_with_trouble_is_left_alone_ever_longer(shops: Shops) -> None:
    fault = shops.store.world.faults.add(Fault(status=503, times=None, shop=FIRST))
    await shops.post(FIRST, 1, 10)

    def fired() -> int:
        return next(times for number, _, times in shops.store.world.faults if number == fault)

    await shops.eventually(lambda: fired() == 2)
    first, second = [call.started_s for call in shops.store.world.calls.select(shop=FIRST)]
    assert second - first >= LOOP_PAUSE_FIRST_S


async def test_a_loop_that_fails_is_begun_again(shops: Shops, owner: psycopg.Connection) -> None:
    owner.execute("alter function shops_with_work rename to shops_with_work_away")
    logs: list[MutableMapping[str, Any]]
    with capture_logs() as logs:
        working = asyncio.create_task(work(shops.mirror, shops.runs, shops.schedule))
        await shops.post(FIRST, 1, 10)
        await shops.eventually(lambda: any(log["event"] == "loop failed" for log in logs))
        assert not working.done()
        owner.execute("alter function shops_with_work_away rename to shops_with_work")
        await shops.eventually(lambda: shops.values(FIRST) == {1: "10"})
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
    assert [log["loop"] for log in logs if log["event"] == "loop failed"] == ["drains"]


@pytest.mark.usefixtures("worker")
async def test_a_lost_database_connection_is_survived(shops: Shops, owner: psycopg.Connection) -> None:
    owner.execute(
        """
        select pg_terminate_backend(pid, 10000)
        from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()
        """
    )
    await shops.post(SECOND, 1, 20)
    await shops.eventually(lambda: shops.values(SECOND) == {1: "20"})


async def test_a_run_whose_process_died_is_finished_by_the_next_worker(shops: Shops, owner: psycopg.Connection) -> None:
    owner.execute(
        """
        insert into sync_runs (shop_id, kind, trigger, status, started_at, heartbeat_at, requested_at)
        select id, 'sync', 'api', 'running', t.past, t.past, t.past
        from shops, (select clock_timestamp() - interval '1 minute' as past) t
        """
    )
    working = asyncio.create_task(work(shops.mirror, shops.runs, shops.schedule))
    done = "select count(*) from sync_runs where status = 'done'"
    await shops.eventually(lambda: owner.execute(done).fetchone() == (2,))
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


async def test_a_worker_that_is_stopped_waits_for_what_has_left_and_gives_its_leases_back(
    shops: Shops, owner: psycopg.Connection
) -> None:
    working = asyncio.create_task(work(shops.mirror, shops.runs, shops.schedule))
    await shops.post(FIRST, 1, 10)
    await shops.eventually(lambda: shops.values(FIRST) == {1: "10"})
    shops.store.world.faults.add(Fault(FaultAnswer.NORMAL, FaultApply.FIRST, operation="metafieldsSet", hold_ms=200))
    await shops.post(FIRST, 1, 1)
    await shops.eventually(lambda: shops.values(FIRST) == {1: "11"})
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert shops.store.world.calls.in_flight == 0
    assert owner.execute("select count(*) from mirror_states where stale_since is not null").fetchone() == (0,)
    assert owner.execute("select count(*) from shop_leases where expires_at > clock_timestamp()").fetchone() == (0,)


def test_pauses_double_up_to_a_minute_and_a_bit_of_chance() -> None:
    for failures in range(2_000):
        shortest = min(LOOP_PAUSE_FIRST_S * 2 ** min(failures, 20), LOOP_PAUSE_LAST_S)
        assert shortest <= pause_after(failures) <= shortest * 1.25
