"""What a worker does, all of it supervised: drains, the inbox, errands, jobs, and runs whose process died."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from metafield_sync.sync.errand_kinds import ERRAND_KINDS
from metafield_sync.sync.inbox.handlers import HANDLERS
from metafield_sync.worker.drains import drain_forever
from metafield_sync.worker.errands import go_on_errands_forever
from metafield_sync.worker.inbox import handle_inbox_forever
from metafield_sync.worker.jobs import run_jobs
from metafield_sync.worker.supervision import supervised

if TYPE_CHECKING:
    from metafield_sync.sync.drain import Mirror
    from metafield_sync.sync.runs import Runs
    from metafield_sync.sync.schedule import Schedule

ORPHANED_RUNS_POLL_S = 2.0


async def work(mirror: Mirror, runs: Runs, schedule: Schedule) -> None:
    """Push what is stale, handle what came in, ask what has to be asked, do what is scheduled; until cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(supervised("drains", lambda: drain_forever(mirror)))
        group.create_task(supervised("inbox", lambda: handle_inbox_forever(mirror.db, HANDLERS)))
        group.create_task(supervised("errands", lambda: go_on_errands_forever(mirror, ERRAND_KINDS)))
        group.create_task(supervised("jobs", lambda: run_jobs(mirror.db, runs, schedule)))
        group.create_task(resume_runs(runs))


async def resume_runs(runs: Runs) -> None:
    """Take up runs whose process died, until cancelled. A web process without a worker beside it does this too."""
    await supervised("orphaned runs", lambda: _resume_forever(runs))


async def _resume_forever(runs: Runs) -> None:
    while True:
        await runs.resume_orphans()
        await asyncio.sleep(ORPHANED_RUNS_POLL_S)
