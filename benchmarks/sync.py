"""Syncing: the obvious loop, our push, our backfill and a second sync, against a devstore that takes 100 ms a call."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
from cryptography.fernet import Fernet

from metafield_sync.db.database import Database
from metafield_sync.ledger.posting import Posting, post, post_batch
from metafield_sync.shopify import AdminClient, MetafieldSpec, MetafieldWrite, ShopAccess, Throttled, set_metafields
from metafield_sync.shops.registry import add_shop
from metafield_sync.shops.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Generator

    from metafield_sync.db.database import ShopId

LATENCY_MS = 100
RATES = {"standard": 100, "advanced": 200, "plus": 1_000, "enterprise": 2_000}
BUCKET_SECONDS = 20
"""What the devstore assumes of every plan: a full bucket is so many seconds' worth of points."""
POINTS_A_CUSTOMER = 35 / 25
CHANGES_PER_S = 50
TOKEN = "shpat_of_the_benchmark"  # noqa: S105 - opens our own devstore
SPEC = MetafieldSpec("loyalty", "points_balance")


@dataclass(frozen=True, slots=True)
class Row:
    """What one way of syncing came to. `points` by Shopify's count; `share` of the restore rate, in percent."""

    what: str
    customers: int
    seconds: float
    calls: int
    points: int
    throttled: int
    share: float | None
    memory_mib: float | None = None


class Store:
    """A devstore in a process of its own, seen through its control API."""

    def __init__(self, plan: str, shops: dict[str, int]) -> None:
        command = [sys.executable, "-m", "devstore", "--plan", plan, "--latency-ms", str(LATENCY_MS)]
        for name in shops:
            command += ["--shop", f"{name}:{TOKEN}"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own program
        assert self._process.stdout is not None
        told = json.loads(self._process.stdout.readline())
        self.origin: str = told["adminOrigin"]
        self._http = httpx.Client(base_url=told["origin"], timeout=120)
        for name, customers in shops.items():
            self._ask("POST", f"/shops/{name}/customers", {"count": customers})

    def close(self) -> None:
        """Stop it."""
        self._http.close()
        self._process.terminate()
        self._process.wait()

    def calls(self, shop: str) -> list[dict[str, Any]]:
        """Its log of this shop's calls to the Admin API; uploads and downloads are none."""
        found = self._ask("GET", f"/calls?shop={shop}")
        return [call for call in found if call["operation"] not in {"upload", "download"}]

    def bulk_operations(self, shop: str) -> list[dict[str, Any]]:
        """The shop's bulk operations, oldest first."""
        return self._ask("GET", f"/shops/{shop}/bulk")

    def level(self, shop: str) -> float:
        """What is in the shop's bucket now."""
        return self._ask("GET", f"/shops/{shop}/bucket")["currentlyAvailable"]

    def wrong(self, shop: str, expected: dict[int, int]) -> int:
        """How many customers show something else than expected."""
        path = f"/shops/{shop}/metafields?namespace={SPEC.namespace}&key={SPEC.key}"
        shown = self._ask("GET", path)
        shown = shown.get("metafields", shown)
        return sum(shown.get(str(number)) != str(balance) for number, balance in expected.items())

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self._http.request(method, f"/_devstore{path}", json=body)
        answer.raise_for_status()
        return answer.json()


def measure(url: str, *, seconds: int) -> None:
    """Measure on a Standard and on a Plus shop, and print a table each."""
    # One key: a process refuses to start with tokens of another shop that it cannot read.
    keys = Fernet.generate_key().decode()
    for plan in ("standard", "plus"):
        asyncio.run(_measure(url, plan, keys, seconds))


async def _measure(url: str, plan: str, keys: str, seconds: int) -> None:
    # A push from a full bucket: what is in it, then `seconds` at the restore rate.
    many = int(RATES[plan] * (BUCKET_SECONDS + seconds) / POINTS_A_CUSTOMER)
    changes = CHANGES_PER_S * seconds
    sizes = {"loop": many, "push": many, "backfill": max(many, 20_000), "changes": changes}
    shops = {f"{name}-{plan}.myshopify.com": count for name, count in sizes.items()}
    loop, push, backfill, live = shops
    store = Store(plan, shops)
    environment = {
        **os.environ,
        "DATABASE_URL": url,
        "ENCRYPTION_KEYS": keys,
        "SHOPIFY_ADMIN_ORIGIN": store.origin,
        "LOG_LEVEL": "error",
        "BACKFILL_THRESHOLD": "1000000000",
    }
    try:
        async with Database(url) as db:
            ids = await add_shops(db, Vault([keys]), [push, backfill, live])
            rows = [await _loop(store, loop, seconds)]
            for shop, what, threshold in ((push, "our push", None), (backfill, "our backfill", "5000")):
                expected = await post_to_all(db, ids[shop], sizes[shop.partition("-")[0]])
                with_threshold = environment | ({"BACKFILL_THRESHOLD": threshold} if threshold else {})
                rows.append(_sync(store, shop, what, len(expected), with_threshold, RATES[plan]))
                assert store.wrong(shop, expected) == 0
            rows.append(_sync(store, push, "a second sync, nothing changed", sizes["push"], environment, RATES[plan]))
            _print(plan, rows)
            if plan == "standard":
                _print_latency(await _latency(url, db, ids[live], environment, changes))
    finally:
        store.close()


async def add_shops(db: Database, vault: Vault, shops: list[str]) -> dict[str, ShopId]:
    """Add shops to ours; their numbers."""
    async with db.unscoped() as conn:
        return {shop: (await add_shop(conn, shop, vault.seal(TOKEN)))[0].id for shop in shops}


async def post_to_all(db: Database, shop_id: ShopId, count: int) -> dict[int, int]:
    """Post to customers 1 to `count`; their balances by Shopify's id."""
    balances = {number: number % 5_000 + 1 for number in range(1, count + 1)}
    wishes = [Posting(shopify_customer_id=one, amount=amount, reason="order") for one, amount in balances.items()]
    for first in range(0, count, 1_000):
        await post_batch(db, shop_id, "benchmark", wishes[first : first + 1_000])
    return balances


async def _loop(store: Store, shop: str, seconds: int) -> Row:
    """What anybody would write first: one call a customer, one after the other, a second's wait when throttled."""
    async with httpx.AsyncClient() as http:
        client = AdminClient(http, origin=store.origin, api_version="2026-10")
        began, done = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            try:
                write = MetafieldWrite(done + 1, 100, None)
                await set_metafields(client, ShopAccess(shop, TOKEN), SPEC, [write])
            except Throttled:
                await asyncio.sleep(1)
            else:
                done += 1
        return _row(store, shop, "one call a customer", done, time.monotonic() - began, None)


def _sync(store: Store, shop: str, what: str, customers: int, environment: dict[str, str], rate: int) -> Row:
    """One `metafield-sync sync`, from its first call to its last answer."""
    known, level = len(store.calls(shop)), store.level(shop)
    command = [sys.executable, "-m", "metafield_sync", "sync", "--shop", shop, "--json"]
    began = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603 - our own program
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"sync ended with {process.returncode}"
    calls = store.calls(shop)[known:]
    ended = max((call["endedS"] for call in calls), default=time.monotonic())
    seconds = ended - (calls[0]["startedS"] if calls else began)
    spent = sum(call["actual"] or 0 for call in calls)
    # Of what was restored while it ran (one clock for both processes), and not of what the bucket held before.
    level_at_end = store.level(shop) - rate * (time.monotonic() - ended)
    share = 100 * (spent - (level - level_at_end)) / (rate * seconds) if spent > level else None
    return _row(store, shop, what, customers, seconds, share, since=known, memory_mib=usage.ru_maxrss / 1_024)


def _row(
    store: Store,
    shop: str,
    what: str,
    customers: int,
    seconds: float,
    share: float | None,
    *,
    since: int = 0,
    memory_mib: float | None = None,
) -> Row:
    calls = store.calls(shop)[since:]
    points = sum(call["actual"] or 0 for call in calls)
    throttled = sum(call["throttled"] for call in calls)
    return Row(what, customers, seconds, len(calls), points, throttled, share, memory_mib)


async def _latency(
    url: str, db: Database, shop_id: ShopId, environment: dict[str, str], changes: int
) -> tuple[float, float, float]:
    """Seconds from a posting's commit until Shopify's acknowledgement is recorded: median, 99th percentile, longest."""
    with _worker(environment):
        # Its start is not what is measured.
        await asyncio.sleep(3)
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(changes):
                await asyncio.sleep(max(0.0, began + number / CHANGES_PER_S - time.monotonic()))
                wish = Posting(shopify_customer_id=number + 1, amount=10, reason="order")
                group.create_task(post(db, shop_id, "benchmark", wish))
        deadline = time.monotonic() + 60
        with psycopg.connect(url, autocommit=True) as conn:
            while time.monotonic() < deadline:
                row = conn.execute(LATENCIES, (shop_id,)).fetchone()
                assert row is not None
                if row[0] == changes:
                    return row[1], row[2], row[3]
                await asyncio.sleep(0.2)
    raise AssertionError("not everything was pushed in time")


LATENCIES = """
select
  count(m.pushed_at),
  percentile_cont(0.5) within group (order by extract(epoch from m.pushed_at - l.created_at)::double precision),
  percentile_cont(0.99) within group (order by extract(epoch from m.pushed_at - l.created_at)::double precision),
  max(extract(epoch from m.pushed_at - l.created_at))::double precision
from ledger_entries l
join mirror_states m on m.shop_id = l.shop_id and m.customer_id = l.customer_id
where l.shop_id = %s and m.stale_since is null
"""


@contextlib.contextmanager
def _worker(environment: dict[str, str]) -> Generator[None]:
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", "metafield_sync", "worker"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603 - our own program
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def _print(plan: str, rows: list[Row]) -> None:
    print(f"\n{plan.capitalize()} ({RATES[plan]:,} points a second), {LATENCY_MS} ms a call\n")
    print("| | customers | seconds | customers a second | calls | points | restore rate used | THROTTLED | memory |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        share = "" if row.share is None else f"{row.share:.0f} %"
        memory = "" if row.memory_mib is None else f"{row.memory_mib:.0f} MiB"
        print(
            f"| {row.what} | {row.customers:,} | {row.seconds:.1f} | {row.customers / row.seconds:,.0f} | "
            f"{row.calls:,} | {row.points:,} | {share} | {row.throttled} | {memory} |"
        )


def _print_latency(found: tuple[float, float, float]) -> None:
    middle, late, longest = found
    print(
        f"\nCommit to acknowledged at {CHANGES_PER_S} changes a second on Standard: median {middle:.2f} s, "
        f"99th percentile {late:.2f} s, longest {longest:.2f} s"
    )
