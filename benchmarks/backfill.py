"""A backfill whose worker is killed at each step in turn: it goes on, at the same cost, in bounded memory."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psycopg
from cryptography.fernet import Fernet

from benchmarks.sync import Store, add_shops, post_to_all
from metafield_sync.db.database import Database
from metafield_sync.shops.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOP = "backfill-killed.myshopify.com"
POINTS_MAX = 200
MEMORY_MIB_MAX = 200
PATIENCE_S = 600

STEPS: Mapping[str, str] = {
    "lines are collected": "b.collected_after is not null",
    "all lines are collected": "b.collected_at is not null",
    "Shopify is asked to read values": "b.reading_asked_at is not null",
    "Shopify reads values": "b.reading_operation is not null",
    "values are read": "b.values_read_at is not null",
    "the file is uploaded": "f.staged_path is not null",
    "Shopify is asked to run the file": "f.asked_at is not null",
    "Shopify runs the file": "f.operation is not null",
    "results are recorded": "b.written > 0",
}
"""Each step, and how it shows; in their order, so that a later one means that an earlier one is past."""


def measure(url: str, *, customers: int, hurry: bool) -> None:
    """Back a shop fill with the worker killed at each step, and print what it came to.

    Args:
        url: the database.
        customers: how many.
        hurry: leave out waiting for a killed worker's lease, and for what it may have asked of Shopify.
    """
    asyncio.run(_measure(url, customers, hurry=hurry))


async def _measure(url: str, customers: int, *, hurry: bool) -> None:
    keys = Fernet.generate_key().decode()
    store = Store("standard", {SHOP: customers})
    environment = {
        **os.environ,
        "DATABASE_URL": url,
        "ENCRYPTION_KEYS": keys,
        "SHOPIFY_ADMIN_ORIGIN": store.origin,
        "LOG_LEVEL": "warning",
        "BACKFILL_THRESHOLD": str(min(customers, 5_000)),
    }
    try:
        async with Database(url) as db:
            shop_id = (await add_shops(db, Vault([keys]), [SHOP]))[SHOP]
            expected = await post_to_all(db, shop_id, customers)
        began, memory = time.monotonic(), 0.0
        with psycopg.connect(url, autocommit=True) as conn:
            for step, shows in STEPS.items():
                memory = max(memory, _kill_at(conn, environment, step, shows))
                if hurry:
                    conn.execute("update shop_leases set expires_at = '-infinity'")
                    conn.execute("update backfill_files set asked_at = asked_at - interval '1 minute'")
            memory = max(memory, _finish(conn, environment))
            begun = conn.execute("select count(*) from backfills").fetchone()
        _judge(store, expected, memory, begun, time.monotonic() - began)
    finally:
        store.close()


def _worker(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "metafield_sync", "worker"], env=environment)


def _ended(worker: subprocess.Popen[bytes]) -> float:
    """Wait for its end; the most memory it had, in MiB."""
    _, status, usage = os.wait4(worker.pid, 0)
    worker.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss / 1_024


def _kill_at(conn: psycopg.Connection, environment: dict[str, str], step: str, shows: str) -> float:
    later = list(STEPS.values())[list(STEPS).index(step) + 1 :]
    look = f"""
    select {shows}, {" or ".join(later) or "false"} or b.finished_at is not null
    from backfills b
    left join backfill_files f on f.shop_id = b.shop_id and f.backfill_id = b.id
    """  # noqa: S608 - our own words, above
    worker = _worker(environment)
    deadline = time.monotonic() + PATIENCE_S
    row = None
    while time.monotonic() < deadline:
        row = conn.execute(look.encode()).fetchone()
        if row is not None and (row[0] or row[1]):
            break
        time.sleep(0.001)
    worker.send_signal(signal.SIGKILL)
    assert row is not None, f"it did not come to this: {step}"
    print(f"killed when {step}{'' if not row[1] else ' (and the next step was taken already)'}", flush=True)
    return _ended(worker)


def _finish(conn: psycopg.Connection, environment: dict[str, str]) -> float:
    worker = _worker(environment)
    deadline = time.monotonic() + PATIENCE_S
    left: tuple[int, int] | None = None
    while time.monotonic() < deadline and left != (0, 0):
        left = conn.execute(LEFT).fetchone()
        time.sleep(0.2)
    worker.send_signal(signal.SIGTERM)
    assert left == (0, 0), f"customers and backfills left: {left}"
    return _ended(worker)


LEFT = """
select
  (select count(*) from mirror_states where stale_since is not null),
  (select count(*) from backfills where finished_at is null)
"""


def _judge(
    store: Store, expected: dict[int, int], memory: float, begun: tuple[int, ...] | None, seconds: float
) -> None:
    calls = store.calls(SHOP)
    points = sum(call["actual"] or 0 for call in calls)
    runs = [one for one in store.bulk_operations(SHOP) if one["type"] == "MUTATION"]
    wrong = store.wrong(SHOP, expected)
    print(
        f"{len(expected):,} customers in {seconds:.0f} s with {len(STEPS)} kills: {wrong} wrong, {points} points, "
        f"{memory:.0f} MiB at most, {begun and begun[0]} backfill of "
        f"{len(runs)} files (collecting that is interrupted goes on in a new one)"
    )
    assert wrong == 0
    assert begun == (1,)
    assert sum(int(run["objectCount"]) for run in runs) == len(expected), "nobody was in two operations"
    assert points < POINTS_MAX
    assert memory < MEMORY_MIB_MAX
