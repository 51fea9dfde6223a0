"""The schedule: each tick once over the fleet, the latest missed one made up for, and history that ends."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metafield_sync.db.database import Database, ShopId
from metafield_sync.shops.registry import PAUSED_BY_STAFF, add_shop, pause_shop
from metafield_sync.sync.schedule import (
    PRUNE_ROWS_MAX,
    Schedule,
    latest_tick,
    prune_history,
    take_ticks,
    workers_alive,
)

if TYPE_CHECKING:
    from metafield_sync.sync.schedule import Scheduled

EVERY_SIX_HOURS = Schedule({"verify": "0 */6 * * *"}, 400)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

MADE = "select shop_id, kind, trigger, status, repair, tick_at from sync_runs order by shop_id"
JOBS = "select task_name, status::text, lock, queueing_lock, args from procrastinate_jobs order by (args ->> 'shop_id')"


@pytest.fixture
async def shop_ids(db: Database) -> dict[str, ShopId]:
    """A shop at work, one that Shopify refuses for now, one paused by staff, and one that was removed."""
    async with db.unscoped() as conn:
        ids = {
            name: (await add_shop(conn, f"{name}.myshopify.com", None))[0].id
            for name in ("active", "refused", "paused", "removed")
        }
        await pause_shop(conn, ids["refused"], code="shop_frozen", detail="402", resumes_by_itself=True)
        await pause_shop(conn, ids["paused"], code=PAUSED_BY_STAFF, detail="stop", resumes_by_itself=False)
        await conn.execute("update shops set status = 'removed' where id = %s", (ids["removed"],))
    return ids


def remember_tick(owner: psycopg.Connection, kind: Scheduled = "verify", at: datetime = LONG_AGO) -> None:
    """Let the fleet have taken this tick, and none since."""
    owner.execute(
        """
        insert into schedule_ticks (kind, tick_at) values (%s, %s)
        on conflict (kind) do update set tick_at = excluded.tick_at
        """,
        (kind, at),
    )


def database_now(owner: psycopg.Connection) -> datetime:
    row = owner.execute("select clock_timestamp()").fetchone()
    assert row is not None
    return row[0]


async def test_a_fresh_installation_has_missed_nothing(
    db: Database, owner: psycopg.Connection, shop_ids: dict[str, ShopId]
) -> None:
    assert await take_ticks(db, EVERY_SIX_HOURS) == []
    assert await take_ticks(db, EVERY_SIX_HOURS) == []
    assert owner.execute(MADE).fetchall() == []
    assert owner.execute(JOBS).fetchall() == []
    assert len(shop_ids) == 4


async def test_a_tick_asks_for_a_run_of_every_shop_that_is_not_paused_by_staff(
    db: Database, owner: psycopg.Connection, shop_ids: dict[str, ShopId]
) -> None:
    remember_tick(owner)
    assert await take_ticks(db, EVERY_SIX_HOURS) == ["verify"]
    tick = latest_tick("0 */6 * * *", database_now(owner))
    wanted = sorted((shop_ids["active"], shop_ids["refused"]))
    assert owner.execute(MADE).fetchall() == [(shop, "verify", "schedule", "queued", False, tick) for shop in wanted]
    jobs = owner.execute(JOBS).fetchall()
    assert [job[:4] for job in jobs] == [("execute_run", "todo", None, None)] * 2, "no lock of any kind, ever"
    runs = dict(owner.execute("select id, shop_id from sync_runs").fetchall())
    assert {UUID(job[4]["run_id"]): job[4]["shop_id"] for job in jobs} == runs


async def test_what_was_missed_happens_once_whoever_asks_and_however_many_at_once(
    db: Database, owner: psycopg.Connection, shop_id: ShopId, database_url: str
) -> None:
    remember_tick(owner)
    async with AsyncExitStack() as stack:
        fleet = [db, *[await stack.enter_async_context(Database(database_url)) for _ in range(3)]]
        taken = await asyncio.gather(*(take_ticks(member, EVERY_SIX_HOURS) for member in fleet * 5))
    assert sorted(taken, reverse=True) == [["verify"]] + [[]] * 19
    assert owner.execute(MADE).fetchall() == [
        (shop_id, "verify", "schedule", "queued", False, latest_tick("0 */6 * * *", database_now(owner)))
    ]


async def test_a_tick_older_than_one_that_was_taken_is_refused(
    db: Database, owner: psycopg.Connection, shop_id: ShopId
) -> None:
    # As when VERIFY_CRON is changed: for a while the old workers of the fleet know of other ticks than the new ones.
    remember_tick(owner, at=database_now(owner) - timedelta(seconds=1))
    assert await take_ticks(db, EVERY_SIX_HOURS) == []
    assert owner.execute(MADE).fetchall() == []
    assert shop_id


async def test_a_tick_that_fails_half_way_is_not_taken(
    db: Database, owner: psycopg.Connection, shop_id: ShopId
) -> None:
    remember_tick(owner)
    owner.execute("alter function procrastinate_defer_jobs_v1 rename to away")
    with pytest.raises(psycopg.errors.UndefinedFunction):
        await take_ticks(db, EVERY_SIX_HOURS)
    assert owner.execute("select tick_at from schedule_ticks").fetchall() == [(LONG_AGO,)]
    assert owner.execute(MADE).fetchall() == []
    owner.execute("alter function away rename to procrastinate_defer_jobs_v1")
    assert await take_ticks(db, EVERY_SIX_HOURS) == ["verify"]
    assert [row[0] for row in owner.execute(MADE)] == [shop_id]


async def test_a_shop_whose_verification_has_not_begun_gets_no_second_one(
    db: Database, owner: psycopg.Connection, shop_id: ShopId
) -> None:
    for _ in range(2):
        remember_tick(owner)
        assert await take_ticks(db, EVERY_SIX_HOURS) == ["verify"]
        assert len(owner.execute(MADE).fetchall()) == 1
    owner.execute("update sync_runs set status = 'running', started_at = now(), heartbeat_at = now()")
    remember_tick(owner)
    assert await take_ticks(db, EVERY_SIX_HOURS) == ["verify"]
    assert [row[0] for row in owner.execute(MADE)] == [shop_id] * 2


async def test_a_scheduled_reconciliation_is_one_that_repairs(
    db: Database, owner: psycopg.Connection, shop_id: ShopId
) -> None:
    owner.execute("insert into sync_runs (shop_id, kind, trigger) values (%s, 'reconcile', 'api')", (shop_id,))
    remember_tick(owner, "reconcile")
    assert await take_ticks(db, Schedule({"reconcile": "30 3 * * *"}, 400)) == ["reconcile"]
    made = owner.execute("select trigger, repair from sync_runs order by requested_at").fetchall()
    assert made == [("api", False), ("schedule", True)], "one that only reports does not do for it"


async def test_pruning_is_one_job_and_no_run(db: Database, owner: psycopg.Connection, shop_id: ShopId) -> None:
    remember_tick(owner, "prune")
    assert await take_ticks(db, Schedule({"prune": "17 2 * * *"}, 400)) == ["prune"]
    assert owner.execute(MADE).fetchall() == []
    assert owner.execute(JOBS).fetchall() == [("prune_history", "todo", None, None, {})]
    assert shop_id


MINUTE = timedelta(minutes=1)


@given(
    cron=st.sampled_from(["0 */6 * * *", "30 3 * * *", "* * * * *", "@daily", "17 2 1,15 * *", "59 23 31 12 *"]),
    now=st.datetimes(datetime(2020, 1, 1), datetime(2039, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - given above
    exactly=st.booleans(),
)
def test_the_latest_tick_is_the_last_that_has_come(cron: str, now: datetime, *, exactly: bool) -> None:
    tick = latest_tick(cron, now)
    assert tick <= now
    assert (tick.second, tick.microsecond, tick.tzinfo) == (0, 0, UTC)
    if exactly:
        assert latest_tick(cron, tick) == tick
        before = latest_tick(cron, tick - timedelta(microseconds=1))
        assert before < tick
    for later in (tick + (now - tick) * part for part in (0.25, 0.5, 0.75)):
        assert latest_tick(cron, later) == tick


async def add_old_runs(owner: psycopg.Connection, shop_id: ShopId, *, count: int, days: int) -> list[UUID]:
    made = owner.execute(
        """
        insert into sync_runs (shop_id, kind, trigger, status, requested_at, started_at, finished_at)
        select %(shop)s, 'verify', 'api', 'done', t.at, t.at, t.at
        from (select clock_timestamp() - make_interval(days => %(days)s) as at) t, generate_series(1, %(count)s)
        returning id
        """,
        {"shop": shop_id, "count": count, "days": days},
    )
    return [row[0] for row in made]


async def test_history_ends_with_all_that_hangs_on_it_and_nothing_younger_goes(
    db: Database, owner: psycopg.Connection, shop_id: ShopId
) -> None:
    (old,) = await add_old_runs(owner, shop_id, count=1, days=401)
    (young,) = await add_old_runs(owner, shop_id, count=1, days=399)
    owner.execute(
        "insert into sync_runs (shop_id, kind, trigger, status, requested_at) values (%s, 'sync', 'api', 'queued', %s)",
        (shop_id, LONG_AGO - timedelta(days=500)),
    )
    owner.execute(
        "insert into customers (shop_id, shopify_customer_id) select %s, n from generate_series(1, %s) n",
        (shop_id, PRUNE_ROWS_MAX + 1),
    )
    for run in (old, young):
        owner.execute(
            """
            insert into balance_corrections (shop_id, customer_id, stored, calculated, found_by, run_id)
            select shop_id, id, 1, 2, 'verification', %(run)s from customers
            """,
            {"run": run},
        )
        owner.execute(
            """
            insert into sync_run_changes (shop_id, run_id, customer_id, change, reason)
            select shop_id, %(run)s, id, 'pushed', 'verify' from customers
            """,
            {"run": run},
        )
    owner.execute(
        """
        insert into balance_corrections (shop_id, customer_id, stored, calculated, found_by, corrected_at)
        select shop_id, id, 1, 2, 'posting', clock_timestamp() - make_interval(days => d)
        from customers, unnest(array[399, 401]) d
        where shopify_customer_id = 1
        """
    )
    assert await prune_history(db, 400) == 2 * (PRUNE_ROWS_MAX + 1) + 1 + 1
    kept = owner.execute("select id, status from sync_runs order by status").fetchall()
    assert [status for _, status in kept] == ["done", "queued"]
    assert kept[0][0] == young
    counts = owner.execute(
        """
        select
          (select count(*) from balance_corrections where run_id is not null),
          (select count(*) from balance_corrections where run_id is null),
          (select count(*) from sync_run_changes)
        """
    ).fetchone()
    assert counts == (PRUNE_ROWS_MAX + 1, 1, PRUNE_ROWS_MAX + 1)
    assert await prune_history(db, 400) == 0


async def test_one_step_of_pruning_removes_no_more_than_it_is_allowed(
    db: Database, owner: psycopg.Connection, shop_id: ShopId
) -> None:
    await add_old_runs(owner, shop_id, count=7, days=500)
    removed: list[int] = []
    for _ in range(4):
        async with db.unscoped() as conn:
            row = await (await conn.execute("select prune_history(400, 3)")).fetchone()
        assert row is not None
        removed.append(row[0])
    assert removed == [3, 3, 1, 0]


async def test_old_backfills_are_pruned_but_for_the_last_that_knows_the_values(
    db: Database, owner: psycopg.Connection, shop_id: ShopId
) -> None:
    owner.execute(
        """
        with made as (
          insert into backfills (shop_id, started_at, finished_at, values_read_at)
          select %s, t.at, t.at, t.at from (select clock_timestamp() - make_interval(days => d) as at
          from unnest(array[700, 600, 500]) d) t
          returning shop_id, id
        )
        insert into backfill_files (shop_id, backfill_id, number) select shop_id, id, 0 from made
        """,
        (shop_id,),
    )
    assert await prune_history(db, 400) == 2
    assert owner.execute("select count(*) from backfills").fetchone() == (1,)
    assert owner.execute("select count(*) from backfill_files").fetchone() == (1,)


@pytest.mark.parametrize(
    "statement",
    [
        "delete from sync_runs",
        "delete from balance_corrections",
        "delete from sync_run_changes",
        "insert into schedule_ticks (kind, tick_at) values ('verify', now())",
        "select from schedule_ticks",
    ],
)
async def test_the_application_cannot_do_by_hand_what_these_functions_do(db: Database, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with db.unscoped() as conn:
            await conn.execute(statement.encode())


async def test_workers_not_heard_of_for_half_a_minute_are_not_alive(db: Database, owner: psycopg.Connection) -> None:
    owner.execute(
        """
        insert into procrastinate_workers (last_heartbeat)
        select clock_timestamp() - make_interval(secs => age) from unnest(array[0, 25, 31, 4000]) age
        """
    )
    async with db.unscoped() as conn:
        assert await workers_alive(conn) == 2
