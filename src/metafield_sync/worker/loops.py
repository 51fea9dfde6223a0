"""What a worker does, all of it supervised: drains, jobs, and the search for runs whose process died."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from metafield_sync.worker.drains import drain_forever
from metafield_sync.worker.jobs import run_jobs
from metafield_sync.worker.supervision import supervised

if TYPE_CHECKING:
    from metafield_sync.sync.drain import Mirror
    from metafield_sync.sync.runs import Runs
    from metafield_sync.sync.schedule import Schedule

ORPHANED_RUNS_POLL_S = 2.0


async def work(mirror: Mirror, runs: Runs, schedule: Schedule) -> None:
    """Drain whatever is due and carry out whatever is scheduled, until cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(supervised("drains", lambda: drain_forever(mirror)))
        group.create_task(supervised("jobs", lambda: run_jobs(mirror.db, runs, schedule)))
        group.create_task(resume_runs(runs))


async def resume_runs(runs: Runs) -> None:
    """Take up runs whose process died, until cancelled. A web process without a worker beside it does this too."""
    await supervised("orphaned runs", lambda: _resume_forever(runs))


async def _resume_forever(runs: Runs) -> None:
    while True:
        await runs.resume_orphans()
        await asyncio.sleep(ORPHANED_RUNS_POLL_S)
