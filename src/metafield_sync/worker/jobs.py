"""The jobs a worker carries out: procrastinate on our own connections, and what it is to run.

Its queue is never what makes anything safe or certain. A tick is taken once because of a row in the database, a run is
executed once because it is claimed, and a job that is lost with its worker is missed by nobody: the next minute's tick
and the search for orphaned runs find what it left. That is why no job here has a lock, a queueing lock or a retry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from procrastinate import App
from procrastinate.connector import BaseAsyncConnector
from procrastinate.jobs import DeleteJobCondition, Status
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from metafield_sync.db.database import ShopId
from metafield_sync.sync.runs import RUNS_TAKEN_UP_MAX
from metafield_sync.sync.schedule import prune_history, take_ticks

if TYPE_CHECKING:
    from typing import LiteralString

    from metafield_sync.db.database import Database
    from metafield_sync.sync.runs import Runs
    from metafield_sync.sync.schedule import Schedule

QUEUE = "metafield_sync"
"""The queue of all our jobs, `take_tick` in the database names it too: the tables may hold somebody else's."""

TICK_CRON = "* * * * *"
TICK_PRIORITY = 10
"""Once a minute it is looked whether a tick is to be taken, before any run that waits for its turn."""

JOB_POLL_S = 1.0
"""How often a worker looks for a job. Nothing here is in such a hurry that it would be worth a LISTEN, which no pooler
passes on."""
WORKER_GONE_S = 3_600
"""A worker not heard of for so long is struck off. Long after it has ceased to count as alive, since one that was only
frozen would have to be started anew."""
FAILED_JOBS_KEPT_H = 30 * 24

log = structlog.get_logger()


class JobsStopped(Exception):
    """procrastinate's worker has stopped by itself, as it does when one of its own tasks has failed."""


async def run_jobs(db: Database, runs: Runs, schedule: Schedule) -> None:
    """Carry out jobs until cancelled; a run that is at work then is put back.

    Raises:
        JobsStopped: procrastinate has given up; it has logged why.
    """
    app = job_app(db, runs, schedule)
    async with app.open_async():
        await app.run_worker_async(
            queues=[QUEUE],
            concurrency=RUNS_TAKEN_UP_MAX,
            fetch_job_polling_interval=JOB_POLL_S,
            listen_notify=False,
            shutdown_graceful_timeout=0,
            install_signal_handlers=False,
            delete_jobs=DeleteJobCondition.SUCCESSFUL,
            stalled_worker_timeout=WORKER_GONE_S,
        )
    raise JobsStopped("the job worker has stopped")


def job_app(db: Database, runs: Runs, schedule: Schedule) -> App:
    """What there is to do, ready for a worker."""
    app = App(connector=OwnConnections(db))

    @app.periodic(cron=TICK_CRON)
    @app.task(name="tick", queue=QUEUE, priority=TICK_PRIORITY)
    async def tick(timestamp: int) -> None:  # pyright: ignore[reportUnusedFunction] - procrastinate finds it by name
        del timestamp  # when it was meant to run; what counts is when it does
        for kind in await take_ticks(db, schedule):
            log.info("tick", kind=kind)

    @app.task(name="execute_run", queue=QUEUE)
    async def execute_run(shop_id: int, run_id: str) -> None:  # pyright: ignore[reportUnusedFunction] - the same
        await runs.take_up(ShopId(shop_id), UUID(run_id))

    @app.task(name="prune_history", queue=QUEUE)
    async def prune() -> None:  # pyright: ignore[reportUnusedFunction] - the same
        removed = await prune_history(db, schedule.history_days)
        await tidy_queue(app)
        log.info("history pruned", rows=removed, kept_days=schedule.history_days)

    return app


async def tidy_queue(app: App) -> None:
    """End the jobs of workers that were killed, and remove what ended long ago; what succeeds goes at once."""
    manager = app.job_manager
    for job in await manager.get_stalled_jobs(queue=QUEUE, seconds_since_heartbeat=WORKER_GONE_S):
        await manager.finish_job(job, Status.FAILED, delete_job=False)
    await manager.prune_stalled_workers(WORKER_GONE_S)
    await manager.delete_old_jobs(
        FAILED_JOBS_KEPT_H, queue=QUEUE, include_failed=True, include_cancelled=True, include_aborted=True
    )


class OwnConnections(BaseAsyncConnector):
    """procrastinate's way to the database: each statement is a transaction of ours.

    So it has the unprivileged role's rights, whatever the login, and goes through any pooler.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    async def open_async(self, pool: object = None) -> None:
        """Nothing to open: the connections are the program's."""

    async def close_async(self) -> None:
        """Nor to close."""

    async def execute_query_async(self, query: LiteralString, **arguments: Any) -> None:
        """Run a statement whose rows nobody reads."""
        async with self._db.unscoped() as conn:
            await conn.execute(query, _adapted(arguments))

    async def execute_query_one_async(self, query: LiteralString, **arguments: Any) -> dict[str, Any]:
        """Run a statement that has a row."""
        return (await self.execute_query_all_async(query, **arguments))[0]

    async def execute_query_all_async(self, query: LiteralString, **arguments: Any) -> list[dict[str, Any]]:
        """Run a statement and return its rows."""
        async with self._db.unscoped() as conn, conn.cursor(row_factory=dict_row) as cur:
            await cur.execute(query, _adapted(arguments))
            return await cur.fetchall()


def _adapted(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: Jsonb(value) if isinstance(value, dict) else value for name, value in arguments.items()}
