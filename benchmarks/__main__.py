"""Run the benchmarks: `python -m benchmarks [posting] [verification] [sync] [backfill] [webhooks] …`."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path
from typing import Literal

import cyclopts

from benchmarks import backfill, posting, sync, verification, webhooks
from metafield_sync.db.embedded import EmbeddedPostgres
from metafield_sync.db.migrate import migrate

app = cyclopts.App(name="benchmarks", help="What the guarantees cost, measured side by side in one run.")

Which = Literal["posting", "verification", "sync", "backfill", "webhooks"]


@app.default
def main(
    *which: Which,
    seconds: int = 5,
    rounds: int = 3,
    sync_seconds: int = 30,
    customers: int = 100_000,
    hurry: bool = False,
    burst_seconds: int = 20,
) -> None:
    """Measure on an embedded PostgreSQL of its own, with fsync on, and print a table each.

    Args:
        which: what to measure; the database's part if nothing is named. `sync` and `backfill` take some minutes.
        seconds: how long each measurement of postings runs.
        sync_seconds: how long a push goes on at the restore rate, once the bucket is empty.
        customers: how many are backfilled with the worker killed at each step.
        hurry: leave out waiting for the leases of killed workers, which is most of the time that takes.
        burst_seconds: how long webhooks come in a burst.
        rounds: how often each is repeated, in turn with the others; medians are printed.
    """
    print(f"Machine: {platform.machine()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB, {platform.system()}")
    with tempfile.TemporaryDirectory(prefix="metafield-sync-bench-") as folder:
        server = EmbeddedPostgres(Path(folder))
        url = server.start()
        try:
            migrate(url, url)
            if not which or "posting" in which:
                posting.measure(url, seconds=seconds, rounds=rounds)
            if not which or "verification" in which:
                verification.measure(url, rounds=rounds)
            if "sync" in which:
                sync.measure(url, seconds=sync_seconds)
            if "backfill" in which:
                backfill.measure(url, customers=customers, hurry=hurry)
            if "webhooks" in which:
                webhooks.measure(url, seconds=burst_seconds)
        finally:
            server.stop()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


app()
