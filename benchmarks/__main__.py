"""Run the benchmarks: `python -m benchmarks [posting] [verification] [--seconds N] [--rounds N]`."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path
from typing import Literal

import cyclopts

from benchmarks import posting, verification
from metafield_sync.db.embedded import EmbeddedPostgres
from metafield_sync.db.migrate import migrate

app = cyclopts.App(name="benchmarks", help="What the guarantees cost, measured side by side in one run.")

Which = Literal["posting", "verification"]


@app.default
def main(*which: Which, seconds: int = 5, rounds: int = 3) -> None:
    """Measure on an embedded PostgreSQL of its own, with fsync on, and print a table each.

    Args:
        which: what to measure; everything if nothing is named.
        seconds: how long each measurement of postings runs.
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
        finally:
            server.stop()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


app()
