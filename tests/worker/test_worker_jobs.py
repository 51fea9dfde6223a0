"""What is scheduled happens: by whichever worker, once, whatever login it has, and whatever befalls the worker."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb
from structlog.testing import capture_logs
from worker_support import Shops

from metafield_sync.db.database import Database
from metafield_sync.db.migrate import check_role
from metafield_sync.sync.runs import RUNS_TAKEN_UP_MAX, Runs
from metafield_sync.sync.schedule import Schedule, workers_alive
from metafield_sync.worker.jobs import job_app, run_jobs, tidy_queue
from metafield_sync.worker.loops import work

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

FIRST, SECOND = "first.myshopify.com", "second.myshopify.com"
EVERY_MINUTE = Schedule({"verify": "* * * * *"}, 400)
EVERYTHING = Schedule({"verify": "0 */6 * * *", "prune": "17 2 * * *"}, 400)


@asynccontextmanager
async def working(shops: Shops, schedule: Schedule, runs: Runs | None = None) -> AsyncGenerator[asyncio.Task[None]]:
    """A worker of the fleet, until the block ends."""
    task = asyncio.create_task(work(shops.mirror, runs or shops.runs, schedule))
    try:
        yield task
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def missed(owner: psycopg.Connection, *kinds: str) -> None:
    """The fleet was last at work long ago."""
    for kind in kinds:
        owner.execute(
            "insert into schedule_ticks (kind, tick_at) values (%s, %s)", (kind, datetime(2026, 1, 1, tzinfo=UTC))
        )


def count(owner: psycopg.Connection, query: str) -> int:
    row = owner.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


DONE = "select count(*) from sync_runs where status = 'done' and trigger = 'schedule'"


async def test_what_was_missed_while_nobody_worked_is_made_up_for_once(shops: Shops, owner: psycopg.Connection) -> None:
    await shops.post(FIRST, 1, 10)
    owner.execute("update customers set current_balance = 1000")
    missed(owner, "verify", "prune")
    async with working(shops, EVERYTHING), working(shops, EVERYTHING, Runs(shops.mirror)):
        await shops.eventually(lambda: count(owner, DONE) == 2)
        await shops.eventually(lambda: shops.values(FIRST) == {1: "10"})
        await shops.eventually(lambda: count(owner, "select count(*) from procrastinate_jobs") == 0)
    assert owner.execute("select kind, count(*) from sync_runs group by kind").fetchall() == [("verify", 2)]
    assert owner.execute("select stored, calculated, found_by from balance_corrections").fetchall() == [
        (1000, 10, "verification")
    ]


async def test_a_new_installation_waits_for_its_first_tick(shops: Shops, owner: psycopg.Connection) -> None:
    async with working(shops, EVERYTHING):
        await shops.eventually(lambda: count(owner, "select count(*) from schedule_ticks") == 2)
        await shops.eventually(lambda: count(owner, "select count(*) from procrastinate_jobs") == 0)
    assert count(owner, "select count(*) from sync_runs") == 0


async def test_runs_are_spread_over_the_workers(shops: Shops, owner: psycopg.Connection) -> None:
    owner.execute("insert into shops (domain) select 'shop-' || n || '.myshopify.com' from generate_series(1, 30) n")
    missed(owner, "verify")
    # Somebody else drains every shop, so that no run gets further than waiting for the lease.
    owner.execute("update shop_leases set expires_at = 'infinity'")
    other = Runs(shops.mirror)
    other._executor = "other"  # pyright: ignore[reportPrivateUsage] - as another process would have it
    at_work = "select count(*) from sync_runs where status = 'running' group by executor"
    async with working(shops, EVERYTHING), working(shops, EVERYTHING, other):
        await shops.eventually(lambda: owner.execute(at_work).fetchall() == [(RUNS_TAKEN_UP_MAX,)] * 2)
        owner.execute("update shop_leases set expires_at = '-infinity'")
        await shops.eventually(lambda: count(owner, DONE) == 32)


async def test_a_worker_counts_while_it_works_and_not_when_it_has_stopped(
    shops: Shops, owner: psycopg.Connection
) -> None:
    alive = "select workers_alive()"
    assert count(owner, alive) == 0
    async with working(shops, EVERYTHING), working(shops, EVERYTHING):
        await shops.eventually(lambda: count(owner, alive) == 2)
        async with shops.db.unscoped() as conn:
            assert await workers_alive(conn) == 2
    assert count(owner, alive) == 0


async def settled(shops: Shops, owner: psycopg.Connection) -> None:
    """Wait until the one worker is at work and has nothing to do, and let the next tick be due at once."""
    await shops.eventually(lambda: count(owner, "select count(*) from schedule_ticks") == 2)
    await shops.eventually(lambda: count(owner, "select count(*) from procrastinate_jobs") == 0)
    owner.execute("update schedule_ticks set tick_at = '2026-01-01'")
    owner.execute("delete from procrastinate_periodic_defers")


async def test_jobs_go_on_after_the_database_was_away(shops: Shops, owner: psycopg.Connection) -> None:
    with capture_logs() as logs:
        async with working(shops, EVERYTHING):
            await settled(shops, owner)
            owner.execute("alter table procrastinate_jobs rename to away")
            await shops.eventually(lambda: any(entry.get("loop") == "jobs" for entry in logs))
            assert count(owner, DONE) == 0
            owner.execute("alter table away rename to procrastinate_jobs")
            await shops.eventually(lambda: count(owner, DONE) == 2)


async def test_a_worker_struck_off_while_it_was_frozen_joins_again(shops: Shops, owner: psycopg.Connection) -> None:
    with capture_logs():
        async with working(shops, EVERYTHING):
            await settled(shops, owner)
            owner.execute("delete from procrastinate_workers")
            job = "insert into procrastinate_jobs (queue_name, task_name, args) values ('metafield_sync', 'tick', %s)"
            owner.execute(job, (Jsonb({"timestamp": 0}),))
            await shops.eventually(lambda: count(owner, DONE) == 2)
            assert count(owner, "select workers_alive()") == 1


async def test_a_job_lost_with_its_worker_is_missed_by_nobody(shops: Shops, owner: psycopg.Connection) -> None:
    missed(owner, "verify")
    owner.execute("insert into procrastinate_workers (last_heartbeat) values (now() - interval '1 minute')")
    async with shops.db.unscoped() as conn:
        await conn.execute("select take_tick('verify', '2026-11-01T06:00:00Z')")
    owner.execute(
        "update procrastinate_jobs set status = 'doing', worker_id = (select min(id) from procrastinate_workers)"
    )
    async with working(shops, EVERYTHING):
        await shops.eventually(lambda: count(owner, DONE) >= 2)


async def test_a_run_at_work_is_put_back_when_its_worker_stops(shops: Shops, owner: psycopg.Connection) -> None:
    await shops.post(FIRST, 1, 10)
    missed(owner, "verify")
    # Somebody else has the lease, so that the run gets no further than waiting for it.
    owner.execute("update shop_leases set holder = 'other', expires_at = 'infinity'")
    async with working(shops, EVERYTHING):
        await shops.eventually(lambda: count(owner, "select count(*) from sync_runs where status = 'running'") == 2)
    assert count(owner, "select count(*) from sync_runs where status = 'queued' and executor is null") == 2
    assert count(owner, "select count(*) from sync_runs where status = 'running'") == 0
    assert count(owner, "select count(*) from procrastinate_jobs where status = 'doing'") == 0


async def test_the_queue_is_tidied(shops: Shops, owner: psycopg.Connection) -> None:
    owner.execute(
        """
        insert into procrastinate_workers (last_heartbeat)
        select now() - make_interval(hours => h) from unnest(array[2, 0]) h
        """
    )
    owner.execute(
        """
        insert into procrastinate_jobs (queue_name, task_name, status, worker_id)
        select q, 'tick', s::procrastinate_job_status, (select min(id) from procrastinate_workers)
        from unnest(array['metafield_sync', 'theirs']) q, unnest(array['doing', 'failed', 'aborted', 'todo']) s
        """
    )
    owner.execute(
        """
        insert into procrastinate_events (job_id, type, at)
        select id, 'failed', now() - interval '31 days' from procrastinate_jobs where status in ('failed', 'aborted')
        """
    )
    app = job_app(shops.db, shops.runs, EVERYTHING)
    await tidy_queue(app)
    left = "select queue_name, status::text from procrastinate_jobs order by 1, 2"
    assert owner.execute(left).fetchall() == [
        ("metafield_sync", "failed"),
        ("metafield_sync", "todo"),
        *[("theirs", status) for status in ("aborted", "doing", "failed", "todo")],
    ]
    assert count(owner, "select count(*) from procrastinate_workers") == 1


@contextmanager
def login(database_url: str, attributes: str) -> Generator[str]:
    """An app's own login, which owns nothing and is no superuser; its URL."""
    name = f"login_{uuid4().hex}"
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(f"create role {name} login {attributes}".encode())
        conn.execute(f"grant metafield_sync_app to {name}".encode())
        try:
            yield make_conninfo(database_url, user=name)
        finally:
            conn.execute(f"drop role {name}".encode())


@pytest.mark.parametrize("attributes", ["inherit", "noinherit"])
async def test_a_worker_needs_no_more_rights_than_the_application(
    shops: Shops, owner: psycopg.Connection, database_url: str, attributes: str
) -> None:
    missed(owner, "verify", "prune")
    with login(database_url, attributes) as url:
        check_role(url)
        async with Database(url) as db:
            jobs = asyncio.create_task(run_jobs(db, Runs(shops.mirror_by(db)), EVERYTHING))
            await shops.eventually(lambda: count(owner, DONE) == 2)
            await shops.eventually(lambda: count(owner, "select count(*) from procrastinate_jobs") == 0)
            jobs.cancel()
            with pytest.raises(asyncio.CancelledError):
                await jobs
