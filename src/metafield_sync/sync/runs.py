"""Runs: a whole shop synced, or verified and then synced, on record from the wish to the result."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import structlog
from psycopg.rows import class_row
from psycopg.types.json import Json

from metafield_sync.errors import AppError
from metafield_sync.ledger.verification import verify
from metafield_sync.sync.reconcile.document import reconcile_document
from metafield_sync.sync.reconcile.reading import reconcile
from metafield_sync.sync.run_progress import (
    count_left,
    cover_corrected,
    make_due,
    make_stale,
    note_alive,
    note_progress,
)
from metafield_sync.sync.run_result import result_document

if TYPE_CHECKING:
    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.sync.drain import DrainReport, Mirror
    from metafield_sync.sync.reconcile.reading import ReadBack

RUN_POLL_S = 0.1
"""How often a run looks again while another drain holds the shop, or another process does the run."""
RUN_POLL_CUSTOMERS_PER_S = 50_000
RUN_POLL_LAST_S = 2.0
"""Counting who is left of a million takes a while: a run looks less often, the more there are."""
RUN_HEARTBEAT_S = 3
RUN_ORPHANED_S = 15
"""A run whose process has not been heard of for so long is taken up by another."""
RUN_STUCK_S = 60.0
"""A run that gets no further for so long ends, and names why: throttled without end, say."""
RUN_TROUBLE_TURNS_MAX = 3
RUN_TROUBLE_PAUSE_S = 1.0
"""A run gives up on a Shopify that does not answer after three turns, with pauses of 1, 2 and 3 s between them."""
RUNS_TAKEN_UP_MAX = 4
"""So many runs a process takes up at a time without being asked for them; the rest are for others, or for later."""

UNEXPECTED_ERROR = "Something unexpected went wrong, and is in the log: "
"""How the error on record of a run begins that failed for a reason of ours. Only the first line of it follows: further
ones may quote rows."""

Kind = Literal["sync", "verify", "reconcile"]
Trigger = Literal["api", "cli", "demo", "schedule"]

log = structlog.get_logger()


class RunNotFound(AppError):
    """No such run in this shop."""

    code = "run_not_found"
    status = 404


@dataclass(frozen=True, slots=True)
class Run:
    """One run as it stands. `result` is the document that its kind answers, once `status` is `done`."""

    id: UUID
    kind: Kind
    trigger: Trigger
    forced: bool
    repair: bool
    status: Literal["queued", "running", "done", "failed"]
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress_done: int
    progress_total: int
    result: dict[str, Any] | None
    error: str | None


@dataclass(slots=True)
class _Patience:
    """How long a run goes on with a Shopify that does not answer, or a queue that does not move."""

    troubles: int = 0
    least_left: int | None = None
    moved_at: float = field(default_factory=time.monotonic)

    def is_over(self, report: DrainReport, left: int, *, backfilling: bool) -> bool:
        """Whether the run has tried for long enough; `left` customers are untried after this turn.

        A bulk operation takes as long as Shopify takes, which ends it by itself after a day at the latest.
        """
        if backfilling or self.least_left is None or left < self.least_left:
            self.least_left, self.moved_at = left, time.monotonic()
        self.troubles += report.end == "trouble"
        return self.troubles >= RUN_TROUBLE_TURNS_MAX or time.monotonic() - self.moved_at > RUN_STUCK_S

    def pause_s(self, report: DrainReport, left: int) -> float:
        """How long to wait before the next turn; the longer, the more there are to count."""
        if report.end == "trouble":
            return RUN_TROUBLE_PAUSE_S * self.troubles
        if report.end not in {"busy", "idle", "backfilling"}:
            return 0.0
        return min(max(RUN_POLL_S, left / RUN_POLL_CUSTOMERS_PER_S), RUN_POLL_LAST_S)


class Runs:
    """Starts, joins, executes and finds runs; one a process."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._db: Database = mirror.db
        self._executor = f"{socket.gethostname()}:{os.getpid()}"
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._asked: set[UUID] = set()
        """Those of them that somebody asked this process for, and it sees to it that they are executed."""

    async def request(
        self, shop_id: ShopId, *, kind: Kind, trigger: Trigger, forced: bool = False, repair: bool = False
    ) -> UUID:
        """Ask for a run, and set about executing it in this process.

        Joins the run there is if that covers every posting committed before this call; else makes one that follows it.

        Args:
            shop_id: whose.
            kind: what it does.
            trigger: who asks.
            forced: a sync that writes everybody, in step or not.
            repair: a reconciliation that writes what it finds wrong.
        """
        wish = {"shop": shop_id, "kind": kind, "trigger": trigger, "forced": forced, "repair": repair}
        async with self._db.shop(shop_id) as conn:
            # One asker at a time, and none while a run makes up its result: so two at once get one run, and whoever
            # joins a run can be sure that it has not looked for the last time.
            await conn.execute(LOCK_SHOP, {"shop": shop_id})
            async with conn.cursor() as cur:
                await cur.execute(JOIN_RUN, wish)
                row = await cur.fetchone()
                if row is None:
                    await cur.execute(MAKE_RUN, wish)
                    row = await cur.fetchone()
        assert row is not None, "an insert returns its row"  # noqa: S101 - PostgreSQL's promise, not input
        self._asked.add(row[0])
        self._begin(shop_id, row[0])
        return row[0]

    async def wait(self, shop_id: ShopId, run_id: UUID, *, wait_s: float) -> Run:
        """The run, when it has ended or `wait_s` seconds have passed, whichever comes first."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while (run := await self.find(shop_id, run_id)).finished_at is None:
                    task = self._tasks.get(run_id)
                    if task is None:
                        await asyncio.sleep(RUN_POLL_S)
                    else:
                        await asyncio.wait([task])
                return run
        return await self.find(shop_id, run_id)

    async def find(self, shop_id: ShopId, run_id: UUID) -> Run:
        """One run.

        Raises:
            RunNotFound: the shop has no such run.
        """
        async with self._db.shop(shop_id) as conn, conn.cursor(row_factory=class_row(Run)) as cur:
            await cur.execute(FIND_RUN, {"shop": shop_id, "run": run_id})
            run = await cur.fetchone()
        if run is None:
            raise RunNotFound(f"This shop has no run {run_id}. GET /api/sync-runs lists them.")
        return run

    async def page(self, shop_id: ShopId, *, before: tuple[datetime, UUID] | None, limit: int) -> list[Run]:
        """Up to `limit` runs, newest first, all asked for before `before` when it is given."""
        at, run_id = before or (None, None)
        async with self._db.shop(shop_id) as conn, conn.cursor(row_factory=class_row(Run)) as cur:
            await cur.execute(RUN_PAGE, {"shop": shop_id, "at": at, "run": run_id, "limit": limit})
            return await cur.fetchall()

    async def take_up(self, shop_id: ShopId, run_id: UUID) -> None:
        """Execute a run that nobody asked this process for, until it is over; unless somebody else is at it already.

        Cancelled, it puts the run back.
        """
        if run_id not in self._tasks:
            await self._begin(shop_id, run_id)

    async def resume_orphans(self) -> None:
        """Begin runs that nobody executes: their process stopped or died, or never got round to them.

        A few only, chosen by chance, so that they spread over whoever looks for them.
        """
        room = RUNS_TAKEN_UP_MAX - len(self._tasks.keys() - self._asked)
        if room <= 0:
            return
        async with self._db.unscoped() as conn, conn.cursor() as cur:
            await cur.execute(SOME_ORPHANS, {"orphaned": RUN_ORPHANED_S, "limit": room})
            orphans = await cur.fetchall()
        for shop_id, run_id in orphans:
            self._begin(shop_id, run_id)

    async def close(self) -> None:
        """Stop executing and pushing. What is unfinished is taken up by another process, or by the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._mirror.close()

    def _begin(self, shop_id: ShopId, run_id: UUID) -> asyncio.Task[None]:
        task = self._tasks.get(run_id)
        if task is None or task.done():
            task = asyncio.create_task(self._execute(shop_id, run_id), name=f"run {run_id}")
            self._tasks[run_id] = task
            task.add_done_callback(lambda ended: self._ended(run_id, ended))
        return task

    def _ended(self, run_id: UUID, task: asyncio.Task[None]) -> None:
        if self._tasks.get(run_id) is task:
            del self._tasks[run_id]
            self._asked.discard(run_id)

    async def _execute(self, shop_id: ShopId, run_id: UUID) -> None:
        try:
            run = await self._claim(shop_id, run_id)
            while run is None and run_id in self._asked and not await self._is_over(shop_id, run_id):
                # Another run of the shop is at work, or another process at this one. If that process dies, the run is
                # taken from it.
                await asyncio.sleep(RUN_POLL_S)
                run = await self._claim(shop_id, run_id)
            if run is None:
                return
            heartbeat = asyncio.create_task(self._heartbeat(shop_id, run))
            try:
                await self._carry_out(shop_id, run)
            except asyncio.CancelledError:
                await self._put_back(shop_id, run_id)
                raise
            finally:
                heartbeat.cancel()
                await asyncio.gather(heartbeat, return_exceptions=True)
        except AppError as error:
            log.warning("run failed", shop_id=shop_id, run_id=str(run_id), detail=error.detail)
            await self._fail(shop_id, run_id, error.detail)
        except Exception as error:
            log.exception("run failed", shop_id=shop_id, run_id=str(run_id))
            await self._fail(shop_id, run_id, UNEXPECTED_ERROR + (str(error).strip() or repr(error)).splitlines()[0])

    async def _fail(self, shop_id: ShopId, run_id: UUID, error: str) -> None:
        """A run that cannot go on says so on its record; whoever waits for it must not wait for ever."""
        with suppress(AppError):
            async with self._db.shop(shop_id) as conn:
                await conn.execute(FAIL_RUN, {"shop": shop_id, "run": run_id, "error": error})

    async def _put_back(self, shop_id: ShopId, run_id: UUID) -> None:
        """This process stops: whoever is asked next, or looks for orphans, begins the run afresh at once."""
        async with self._db.shop(shop_id) as conn:
            await conn.execute(PUT_BACK_RUN, {"shop": shop_id, "run": run_id})

    async def _claim(self, shop_id: ShopId, run_id: UUID) -> Run | None:
        """Take the run if it is free, and no other run of the shop is at work; else None."""
        async with self._db.shop(shop_id) as conn:
            # One at a time, or two processes could take two runs of the shop in the same instant. Nobody waits here:
            # while a run makes up its result, which may take a while, no other can be taken anyway.
            locked = await conn.execute(LOCK_SHOP_IF_FREE, {"shop": shop_id})
            if await locked.fetchone() is None:
                return None
            async with conn.cursor(row_factory=class_row(Run)) as cur:
                await cur.execute(
                    CLAIM_RUN,
                    {"shop": shop_id, "run": run_id, "executor": self._executor, "orphaned": RUN_ORPHANED_S},
                )
                return await cur.fetchone()

    async def _is_over(self, shop_id: ShopId, run_id: UUID) -> bool:
        try:
            return (await self.find(shop_id, run_id)).finished_at is not None
        except RunNotFound:
            return True

    async def _heartbeat(self, shop_id: ShopId, run: Run) -> None:
        # A reconciliation's progress is what it has read back, and one that only reports makes nobody due.
        note = note_alive if run.kind == "reconcile" else note_progress
        while True:
            await asyncio.sleep(RUN_HEARTBEAT_S)
            try:
                await note(self._db, shop_id, run.id)
            except Exception as error:  # noqa: BLE001 - one that fails is followed by the next; the run itself goes on
                log.warning("run not heard of", shop_id=shop_id, run_id=str(run.id), error=str(error))

    async def _carry_out(self, shop_id: ShopId, run: Run) -> None:
        read_back: ReadBack | None = None
        if run.kind == "verify":
            await verify(self._db, shop_id, run_id=run.id)
            await cover_corrected(self._db, shop_id, run.id)
        if run.kind == "reconcile":
            read_back = await reconcile(self._mirror, shop_id, run.id, repair=run.repair)
            if not run.repair:
                await self._finish(shop_id, run, None, read_back)
                return
        await make_due(self._db, shop_id, run.id)
        if run.forced:
            await make_stale(self._db, shop_id, run.id)
        await note_progress(self._db, shop_id, run.id)
        patience = _Patience()
        looked_for_missing = False
        while True:
            report = await self._mirror.drain(shop_id, probe=True, look_for_missing=not looked_for_missing)
            looked_for_missing = looked_for_missing or report.end not in {"busy", "trouble"}
            left, backfilling = await note_progress(self._db, shop_id, run.id)
            if left == 0 and looked_for_missing:
                if await self._finish(shop_id, run, None, read_back):
                    return
            elif report.end == "paused" or patience.is_over(report, left, backfilling=backfilling):
                await self._finish(shop_id, run, report, read_back)
                return
            else:
                await asyncio.sleep(patience.pause_s(report, left))

    async def _finish(self, shop_id: ShopId, run: Run, stopped: DrainReport | None, read_back: ReadBack | None) -> bool:
        """Make up the result and close the run; False if something has come up that it has to cover."""
        async with self._db.shop(shop_id) as conn:
            await conn.execute(LOCK_SHOP, {"shop": shop_id})
            if stopped is None and (run.kind != "reconcile" or run.repair) and await count_left(conn, shop_id, run.id):
                return False
            stopped_because = stopped and stopped.detail
            result = (
                await result_document(conn, shop_id, run.id, stopped_because)
                if read_back is None
                else await reconcile_document(
                    conn, shop_id, run.id, read_back, repair=run.repair, stopped_because=stopped_because
                )
            )
            await conn.execute(FINISH_RUN, {"shop": shop_id, "run": run.id, "result": Json(result)})
        log.info(
            "run done",
            shop_id=shop_id,
            run_id=str(run.id),
            kind=run.kind,
            total=result["total"],
            errors=result.get("errors", 0),
            corrected=result.get("corrected", 0),
            drifted=result.get("drifted", 0),
            pushed=result["pushed"],
            points_spent=result["pointsSpent"],
            duration_ms=result["durationMs"],
        )
        return True


SOME_ORPHANS = "select shop_id, run_id from orphaned_runs(%(orphaned)s) order by random() limit %(limit)s"

LOCK_SHOP = "select 1 from shops where id = %(shop)s for no key update"
LOCK_SHOP_IF_FREE = "select 1 from shops where id = %(shop)s for no key update skip locked"

# A run covers what was committed when it began. So a running one may be joined only if nobody is stale since: neither
# by a change after its start, nor by one before that was committed after the run had pushed the customer. A
# verification looks at balances once, so it may be joined only if none has changed at all; a reconciliation reads what
# Shopify shows, where anybody may have written since, and is joined only before it has begun.
JOIN_RUN = """
select r.id
from sync_runs r
where
  r.shop_id = %(shop)s
  and r.kind = %(kind)s
  and (r.forced or not %(forced)s)
  and r.repair = %(repair)s
  and (
    r.status = 'queued'
    or (
      r.status = 'running'
      and r.kind <> 'reconcile'
      and not exists (
        select
        from mirror_states m
        where
          m.shop_id = r.shop_id
          and (m.changed_at >= r.started_at or m.stale_since > r.started_at)
          and (r.kind = 'verify' or (m.stale_since is not null and m.status = 'live'))
      )
    )
  )
order by r.requested_at desc
limit 1
"""

MAKE_RUN = """
insert into sync_runs (shop_id, kind, trigger, forced, repair)
values (%(shop)s, %(kind)s, %(trigger)s, %(forced)s, %(repair)s)
returning id
"""

CLAIM_RUN = """
update sync_runs r
set
  status = 'running',
  executor = %(executor)s,
  started_at = coalesce(r.started_at, clock_timestamp()),
  heartbeat_at = clock_timestamp(),
  points_before = case when r.started_at is null then a.points_spent else r.points_before end,
  pushed_before = case when r.started_at is null then a.customers_pushed else r.pushed_before end
from shop_activity a
where
  r.shop_id = %(shop)s
  and r.id = %(run)s
  and a.shop_id = r.shop_id
  and (
    r.status = 'queued'
    or (r.status = 'running' and r.heartbeat_at < clock_timestamp() - make_interval(secs => %(orphaned)s))
  )
  and not exists (
    select
    from sync_runs o
    where
      o.shop_id = r.shop_id
      and o.id <> r.id
      and o.status = 'running'
      and o.heartbeat_at >= clock_timestamp() - make_interval(secs => %(orphaned)s)
  )
returning
  r.id, r.kind, r.trigger, r.forced, r.repair, r.status, r.requested_at, r.started_at, r.finished_at,
  r.progress_done, r.progress_total, r.result, r.error
"""

FINISH_RUN = """
update sync_runs
set
  status = 'done', finished_at = clock_timestamp(), result = %(result)s, progress_done = progress_total
where shop_id = %(shop)s and id = %(run)s and status = 'running'
"""

PUT_BACK_RUN = """
update sync_runs
set status = 'queued', started_at = null, heartbeat_at = null, executor = null
where shop_id = %(shop)s and id = %(run)s and status = 'running'
"""

FAIL_RUN = """
update sync_runs
set status = 'failed', finished_at = clock_timestamp(), error = %(error)s
where shop_id = %(shop)s and id = %(run)s and status in ('queued', 'running')
"""

FIND_RUN = """
select
  id, kind, trigger, forced, repair, status, requested_at, started_at, finished_at, progress_done, progress_total,
  result, error
from sync_runs
where shop_id = %(shop)s and id = %(run)s
"""

RUN_PAGE = """
select
  id, kind, trigger, forced, repair, status, requested_at, started_at, finished_at, progress_done, progress_total,
  result, error
from sync_runs
where
  shop_id = %(shop)s
  and (%(at)s::timestamptz is null or (requested_at, id) < (%(at)s, %(run)s::uuid))
order by requested_at desc, id desc
limit %(limit)s
"""
