"""Webhooks and errands are seen to without anybody asking, by as many workers as there are, and whoever is killed."""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from devstore import Fault
from metafield_sync.shopify import read_metafields, read_metafields_cost
from metafield_sync.sync.errands import ErrandKind, note_errand
from metafield_sync.sync.inbox.handling import NOT_HANDLED
from metafield_sync.sync.turn import Turn, paid_call
from metafield_sync.worker.errands import go_on_errands_forever
from metafield_sync.worker.loops import work

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from typing import Protocol

    import psycopg
    from worker_support import Shops

    from metafield_sync.db.database import ShopId

    class Servers(Protocol):
        """The PostgreSQL servers of the session."""

        def url(self, kind: str) -> str: ...


FIRST, SECOND = "first.myshopify.com", "second.myshopify.com"
WORKER = Path(__file__).with_name("inbox_worker.py")
WEBHOOKS = 2_000
CUSTOMERS = 20
KILLS = 3
PATIENCE_S = 60

DELIVER = """
insert into inbox (shop_id, delivery_id, topic, body_digest, payload)
select %s, gen_random_uuid(), %s, '', jsonb_build_object('customer', 1 + n %% %s)
from generate_series(1, %s) n
"""


@asynccontextmanager
async def inbox_worker(url: str) -> AsyncGenerator[Process]:
    """A process that handles what comes in, killed at the end if it still lives."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), url, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
    )
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), PATIENCE_S) == b"working\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
def server_url(servers: Servers) -> str:
    """One PostgreSQL: what is killed here is not it."""
    return servers.url("embedded")


async def test_every_webhook_of_a_burst_is_handled_once_whoever_is_killed(
    owner: psycopg.Connection, shop_id: ShopId, database_url: str
) -> None:
    def handled() -> int:
        row = owner.execute("select count(*) from inbox where handled_at is not null").fetchone()
        assert row is not None
        return row[0]

    async def until(count: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while handled() < count:
            assert time.monotonic() < deadline, f"{handled()} are handled"
            await asyncio.sleep(0.005)

    async with AsyncExitStack() as stack:
        victims = [await stack.enter_async_context(inbox_worker(database_url)) for _ in range(KILLS)]
        await stack.enter_async_context(inbox_worker(database_url))
        owner.execute(DELIVER, (shop_id, "test/earn", CUSTOMERS, WEBHOOKS))
        for number, victim in enumerate(victims, start=1):
            await until(number * WEBHOOKS // 10)
            victim.kill()
            assert await victim.wait() < 0
        assert handled() < WEBHOOKS, "they were killed in the middle of it"
        await until(WEBHOOKS)
    points = owner.execute("select sum(current_balance), count(*) from customers").fetchone()
    assert points == (WEBHOOKS, CUSTOMERS)
    assert owner.execute("select count(*) from inbox where attempts > 1").fetchone() != (0,), "claims were taken over"


@pytest.fixture
async def worker(shops: Shops) -> AsyncIterator[None]:
    """The worker at work, until the test ends."""
    working = asyncio.create_task(work(shops.mirror, shops.runs, shops.schedule))
    yield
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


@pytest.mark.usefixtures("worker")
async def test_a_webhook_is_handled_without_anybody_asking_in_every_shop(
    shops: Shops, owner: psycopg.Connection
) -> None:
    for shop_id in shops.ids.values():
        owner.execute(DELIVER, (shop_id, "themes/publish", 1, 3))
    outcomes = "select outcome, count(*) from inbox group by 1"
    await shops.eventually(lambda: owner.execute(outcomes).fetchall() == [(NOT_HANDLED, 6)])


async def test_errands_are_gone_on_and_a_shopify_that_does_not_answer_holds_up_no_other_shop(
    shops: Shops, owner: psycopg.Connection
) -> None:
    asked: list[tuple[str, list[str]]] = []

    async def ask(turn: Turn, subjects: Sequence[str]) -> Mapping[str, float]:
        async with paid_call(turn, read_metafields_cost(1)) as call:
            _, call.cost = await read_metafields(turn.client, turn.access, turn.metafield, [1])
        asked.append((turn.shop.domain, sorted(subjects)))
        return {}

    fault = Fault(status=503, times=None, shop=FIRST)
    shops.store.world.faults.add(fault)
    for shop_id in shops.ids.values():
        async with shops.db.shop(shop_id) as conn:
            for subject in ("1", "2"):
                await note_errand(conn, shop_id, "ask", subject)
    with capture_logs():
        going = asyncio.create_task(go_on_errands_forever(shops.mirror, {"ask": ErrandKind("ask", 10, ask)}))
        await shops.eventually(lambda: asked == [(SECOND, ["1", "2"])])
        failing = "select count(*) from errands where failing_since is not null"
        await shops.eventually(lambda: owner.execute(failing).fetchone() == (2,))
        shops.store.world.faults.clear()
        owner.execute("update errands set due_at = clock_timestamp()")
        await shops.eventually(lambda: owner.execute("select count(*) from errands").fetchone() == (0,))
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
    assert asked == [(SECOND, ["1", "2"]), (FIRST, ["1", "2"])]
    assert owner.execute("select count(*) from shop_leases where expires_at > clock_timestamp()").fetchone() == (0,)


async def test_a_drain_gets_its_turn_between_errands_without_end(shops: Shops) -> None:
    async def always(turn: Turn, subjects: Sequence[str]) -> Mapping[str, float]:
        del turn
        return dict.fromkeys(subjects, 0)

    async with shops.db.shop(shops.ids[FIRST]) as conn:
        for subject in range(50):
            await note_errand(conn, shops.ids[FIRST], "always", str(subject))
    going = asyncio.create_task(go_on_errands_forever(shops.mirror, {"always": ErrandKind("always", 1, always)}))
    working = asyncio.create_task(work(shops.mirror, shops.runs, shops.schedule))
    await shops.post(FIRST, 1, 10)
    await shops.eventually(lambda: shops.values(FIRST) == {1: "10"})
    for task in (going, working):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
