"""Several workers, each a process of its own: they share the shops, and one that dies or freezes is replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
import pytest
from cryptography.fernet import Fernet

from devstore import DevStore, Fault, FaultAnswer, FaultApply, Latency, ShopSpec
from devstore.metafields import Slot
from metafield_sync.ledger.posting import Posting, post
from metafield_sync.settings import Settings
from metafield_sync.shops.registry import add_shop
from metafield_sync.shops.vault import Vault
from metafield_sync.sync.turn import CALLS_IN_FLIGHT_MAX

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from typing import Protocol

    from devstore.calls import CallEntry
    from metafield_sync.db.database import Database, ShopId

    class Servers(Protocol):
        """The PostgreSQL servers of the session."""

        def url(self, kind: str) -> str: ...


TOKEN = "shpat_of_the_tests"  # noqa: S105 - opens the tests' own devstore
KEY = Fernet.generate_key().decode()
SLOT = Slot("CUSTOMER", "loyalty", "points_balance")
DOMAINS = [f"shop-{n}.myshopify.com" for n in range(1, 9)]
CUSTOMERS = 30
PATIENCE_S = 60
TAKEOVER_S = 15
"""How soon another worker has to have taken over. A lease lasts 10 s."""

# Every taking and every giving back of a lease, as the database saw it.
KEEP_LEASE_LOG = """
create table lease_log (shop_id integer, token bigint, holder text, at timestamptz default clock_timestamp());
create function log_lease() returns trigger language plpgsql security definer as $$
begin
  insert into lease_log (shop_id, token, holder) values (new.shop_id, new.token, new.holder);
  return null;
end
$$;
create trigger leases_are_logged after update of token, holder on shop_leases
for each row when (old.token <> new.token or old.holder <> new.holder) execute function log_lease();
"""

LEASES = """
select
  shop_id,
  holder,
  extract(epoch from at)::double precision,
  extract(epoch from lead(at, 1, 'infinity') over (partition by shop_id order by at))::double precision
from lease_log
"""


@dataclass
class Fleet:
    """Worker processes, the shops they work for, and Shopify."""

    db: Database
    owner: psycopg.Connection
    store: DevStore
    ids: dict[str, ShopId]
    environment: dict[str, str]
    posted: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])

    @asynccontextmanager
    async def worker(self) -> AsyncGenerator[Process]:
        """A worker at work, killed at the end if it still lives."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "metafield_sync",
            "worker",
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            env=self.environment,
        )
        assert process.stderr is not None
        said: list[bytes] = []
        while not any(b'"working"' in line for line in said):
            line = await asyncio.wait_for(process.stderr.readline(), PATIENCE_S)
            assert line, b"".join(said).decode()
            said.append(line)
        reading = asyncio.create_task(process.stderr.read())
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await reading

    async def post(self, domain: str, customer: int, amount: int) -> None:
        self.posted[domain, customer] += amount
        wish = Posting(shopify_customer_id=customer, amount=amount, reason="order")
        await post(self.db, self.ids[domain], "test", wish)

    async def eventually(self, happened: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + within_s
        while not happened():
            assert time.monotonic() < deadline, "it has not happened"
            await asyncio.sleep(0.02)

    def is_in_step(self) -> bool:
        """Whether Shopify shows every balance, and we know it."""
        shown = {
            (domain, customer): int(value)
            for domain in self.ids
            for customer, value in self.store.shop(domain).metafields.dump(SLOT).items()
        }
        behind = self.owner.execute("select count(*) from mirror_states where stale_since is not null").fetchone()
        return shown == dict(self.posted) and behind == (0,)

    def holder(self, domain: str) -> int | None:
        """The process that has the shop's lease, as long as it lasts."""
        row = self.owner.execute(
            "select holder from shop_leases where shop_id = %s and expires_at > clock_timestamp()", (self.ids[domain],)
        ).fetchone()
        return int(row[0].rpartition(":")[2]) if row and row[0] else None


@pytest.fixture
def server_url(servers: Servers) -> str:
    """One PostgreSQL, not each: what is tried here is the program, several times."""
    return servers.url("embedded")


@pytest.fixture
async def fleet(db: Database, owner: psycopg.Connection, database_url: str) -> AsyncIterator[Fleet]:
    ours = {name.upper() for name in Settings.model_fields}
    async with DevStore([ShopSpec(domain, TOKEN, customers=CUSTOMERS) for domain in DOMAINS]) as store:
        environment = {name: value for name, value in os.environ.items() if name not in ours} | {
            "DATABASE_URL": database_url,
            "SHOPIFY_ADMIN_ORIGIN": store.admin_origin,
            "ENCRYPTION_KEYS": KEY,
            "LOG_FORMAT": "json",
        }
        vault = Vault([KEY])
        async with db.unscoped() as conn:
            ids = {domain: (await add_shop(conn, domain, vault.seal(TOKEN)))[0].id for domain in DOMAINS}
        owner.execute(KEEP_LEASE_LOG)
        yield Fleet(db, owner, store, ids, environment)


def most_at_once(calls: list[CallEntry]) -> int:
    """How many calls were under way at the same time, at most."""
    turns = sorted([(call.started_s, 1) for call in calls] + [(call.ended_s, -1) for call in calls])
    at_work = most = 0
    for _, change in turns:
        at_work += change
        most = max(most, at_work)
    return most


async def test_four_workers_share_eight_shops_and_each_shop_has_one_drain_at_a_time(fleet: Fleet) -> None:
    fleet.store.world.latency = Latency(20, 60)
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(fleet.worker()) for _ in range(4)]
        for _ in range(6):
            await asyncio.gather(
                *(fleet.post(domain, customer, 1) for domain in DOMAINS for customer in range(1, CUSTOMERS + 1))
            )
            await asyncio.sleep(0.3)
        await fleet.eventually(fleet.is_in_step)
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        assert [await asyncio.wait_for(worker.wait(), PATIENCE_S) for worker in workers] == [0] * 4
    leases = fleet.owner.execute(LEASES).fetchall()
    drains = Counter[int]()
    for domain, shop_id in fleet.ids.items():
        calls = list(fleet.store.world.calls.select(shop=domain))
        assert not any(call.throttled for call in calls)
        assert most_at_once(calls) <= CALLS_IN_FLIGHT_MAX
        for call in calls:
            ended_at = call.wall_s + call.ended_s - call.started_s
            during = {
                holder
                for shop, holder, begun, over in leases
                if shop == shop_id and begun <= call.wall_s < ended_at < over
            }
            assert len(during) == 1, "each call lies within one lease, from its sending to its answer"
            drains[int(during.pop().rpartition(":")[2])] += 1
    assert len(drains) > 1, "or one worker did it all"
    assert drains.keys() <= {worker.pid for worker in workers}


async def held_up_mid_drain(fleet: Fleet, workers: dict[int, Process]) -> int:
    """Let a worker of the fleet send a call that Shopify carries out and does not answer for long; which one it is."""
    fleet.store.world.faults.add(
        Fault(FaultAnswer.NORMAL, FaultApply.FIRST, operation="metafieldsSet", shop=DOMAINS[0], hold_ms=60_000)
    )
    await fleet.post(DOMAINS[0], 1, 10)
    await fleet.eventually(lambda: fleet.store.shop(DOMAINS[0]).metafields.dump(SLOT) == {1: "10"})
    held_up = fleet.holder(DOMAINS[0])
    assert held_up in workers
    return held_up


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_worker_that_dies_or_freezes_in_the_middle_of_a_drain_is_replaced(
    fleet: Fleet, how: signal.Signals
) -> None:
    async with fleet.worker() as first, fleet.worker() as second:
        workers = {worker.pid: worker for worker in (first, second)}
        lost = await held_up_mid_drain(fleet, workers)
        (other,) = workers.keys() - {lost}
        workers[lost].send_signal(how)
        lost_at = time.monotonic()
        await fleet.post(DOMAINS[0], 1, 5)
        await fleet.post(DOMAINS[0], 2, 7)
        await fleet.post(DOMAINS[1], 1, 3)
        await fleet.eventually(lambda: fleet.holder(DOMAINS[0]) == other, TAKEOVER_S)
        await fleet.eventually(fleet.is_in_step, TAKEOVER_S - (time.monotonic() - lost_at) + 5)
        if how == signal.SIGSTOP:
            # Awake again, it has lost its lease: it may record nothing of what it believes, and goes on as any other.
            workers[lost].send_signal(signal.SIGCONT)
            await fleet.post(DOMAINS[0], 1, -2)
            await fleet.eventually(fleet.is_in_step)
            workers[other].send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(workers[other].wait(), PATIENCE_S) == 0
            await fleet.post(DOMAINS[0], 3, 4)
            await fleet.eventually(fleet.is_in_step)


RECORDING = """
select count(distinct a.pid)
from pg_stat_activity a
join pg_locks l on l.pid = a.pid
where
  a.datname = current_database()
  and a.state = %s
  and a.query like '%% for share'
  and l.relation = 'shop_leases'::regclass
  and l.mode = 'RowShareLock'
"""


async def test_a_worker_frozen_in_the_middle_of_a_transaction_locks_nobody_out(fleet: Fleet, database_url: str) -> None:
    def is_recording(state: str) -> bool:
        return fleet.owner.execute(RECORDING, (state,)).fetchone() == (1,)

    fleet.store.world.faults.add(
        Fault(FaultAnswer.NORMAL, FaultApply.FIRST, operation="metafieldsSet", shop=DOMAINS[0], hold_ms=500)
    )
    async with fleet.worker() as first, fleet.worker() as second:
        workers = {worker.pid: worker for worker in (first, second)}
        await fleet.post(DOMAINS[0], 1, 10)
        await fleet.eventually(lambda: fleet.store.shop(DOMAINS[0]).metafields.dump(SLOT) == {1: "10"})
        lost = fleet.holder(DOMAINS[0])
        assert lost in workers
        # It is to record what came of its call, under the lease; there it is held up, and frozen when it waits.
        async with await psycopg.AsyncConnection.connect(database_url) as in_the_way:
            await in_the_way.execute("select from shop_leases where shop_id = %s for update", (fleet.ids[DOMAINS[0]],))
            await fleet.eventually(lambda: is_recording("active"))
            workers[lost].send_signal(signal.SIGSTOP)
        await fleet.eventually(lambda: is_recording("idle in transaction"))
        (other,) = workers.keys() - {lost}
        await fleet.post(DOMAINS[0], 2, 5)
        await fleet.eventually(lambda: fleet.holder(DOMAINS[0]) == other, TAKEOVER_S)
        await fleet.eventually(fleet.is_in_step)
