"""What the mirror's tests share: one shop of ours beside its Shopify, a devstore behind real HTTP."""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
from cryptography.fernet import Fernet
from psycopg.rows import class_row
from sync_probes import Listener, MirrorState

from devstore import DevStore, Plan, ShopSpec
from devstore.gids import Gid
from devstore.metafields import Slot
from metafield_sync.ledger.posting import Posted, Posting, post, post_batch
from metafield_sync.shopify import AdminClient, DefinitionSpec
from metafield_sync.shops.registry import add_shop, get_shop
from metafield_sync.shops.vault import Vault
from metafield_sync.sync.drain import BACKFILL_THRESHOLD, Mirror
from metafield_sync.sync.runs import Runs
from metafield_sync.sync.standing import one_standing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from uuid import UUID

    import psycopg

    from devstore import Shop as DevShop
    from devstore.bulk import BulkOperation
    from devstore.calls import CallEntry
    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.shops.registry import Shop
    from metafield_sync.sync.drain import DrainReport
    from metafield_sync.sync.runs import Kind, Run
    from metafield_sync.sync.standing import CustomerStanding

DOMAIN = "demo.myshopify.com"
TOKEN = "shpat_of_the_tests"  # noqa: S105 - opens the tests' own devstore
SLOT = Slot("CUSTOMER", "loyalty", "points_balance")
DEFINITION = DefinitionSpec("loyalty", "points_balance", "Points", "What a customer may spend.", "PUBLIC_READ")
PATIENCE_S = 20
"""How long a test waits for something that has to happen."""
VAULT = Vault([Fernet.generate_key().decode()])


@dataclass
class Stage:
    """One shop, as the ledger, the mirror and Shopify see it."""

    db: Database
    owner: psycopg.Connection
    store: DevStore
    mirror: Mirror
    runs: Runs
    shop_id: ShopId

    @property
    def shopify(self) -> DevShop:
        return self.store.shop(DOMAIN)

    async def shop(self) -> Shop:
        async with self.db.unscoped() as conn:
            return await get_shop(conn, self.shop_id)

    async def post(self, customer: int, amount: int) -> UUID:
        """Post to a customer by Shopify id; our id."""
        wish = Posting(shopify_customer_id=customer, amount=amount, reason="order")
        return (await post(self.db, self.shop_id, "test", wish)).entry.customer_id

    async def post_all(self, amounts: dict[int, int]) -> dict[int, UUID]:
        """Post to many at once; our ids by Shopify id."""
        wishes = [Posting(shopify_customer_id=one, amount=amount, reason="order") for one, amount in amounts.items()]
        outcomes = await post_batch(self.db, self.shop_id, "test", wishes)
        assert all(isinstance(outcome, Posted) for outcome in outcomes)
        return {
            one: outcome.entry.customer_id
            for one, outcome in zip(amounts, outcomes, strict=True)
            if isinstance(outcome, Posted)
        }

    def values(self) -> dict[int, str]:
        """What Shopify shows, by Shopify id."""
        return self.shopify.metafields.dump(SLOT)

    def writes(self) -> list[CallEntry]:
        """The log of `metafieldsSet` calls, in the order their answers went out."""
        return list(self.store.world.calls.select(shop=DOMAIN, operation="metafieldsSet"))

    def operations(self, kind: str) -> list[BulkOperation]:
        """The bulk operations Shopify was asked for, oldest first; `kind` is QUERY or MUTATION."""
        return [operation for operation in self.shopify.bulk.operations if operation.type == kind]

    def overwrite(self, customer: int, value: str) -> None:
        """Write the metafield as another app would."""
        self.shopify.put_metafield(Gid("Customer", customer), SLOT.namespace, SLOT.key, value, "number_integer")

    def activity(self, column: str) -> int:
        """A count of the shop's activity."""
        row = self.owner.execute("select to_jsonb(a) -> %s from shop_activity a", (column,)).fetchone()
        assert row is not None
        return row[0]

    async def standing(self, customer: int) -> CustomerStanding:
        async with self.db.shop(self.shop_id) as conn:
            return await one_standing(conn, self.shop_id, shopify_customer_id=customer)

    async def run(self, kind: Kind = "sync", *, forced: bool = False) -> dict[str, Any]:
        """A run from the wish to its result."""
        run_id = await self.runs.request(self.shop_id, kind=kind, trigger="api", forced=forced)
        return await self.result(run_id)

    async def result(self, run_id: UUID) -> dict[str, Any]:
        run = await self.finished(run_id)
        assert run.result is not None
        return run.result

    async def finished(self, run_id: UUID) -> Run:
        run = await self.runs.wait(self.shop_id, run_id, wait_s=PATIENCE_S)
        assert (run.status, run.error) == ("done", None)
        return run

    async def call_in_flight(self) -> None:
        """Wait until Shopify holds a call that it has not answered."""
        await eventually(lambda: self.store.world.calls.in_flight > 0)

    def let_back_off_pass(self) -> None:
        """As if so much time had gone by that everything that waits is due."""
        self.owner.execute(
            """
            update mirror_states
            set
              due_at = case when due_at < 'infinity' then least(due_at, clock_timestamp()) else due_at end,
              check_at = case when check_at is not null then least(check_at, clock_timestamp()) end
            """
        )
        self.owner.execute("update shops set probe_at = least(probe_at, clock_timestamp())")

    def let_time_pass(self, seconds: float) -> None:
        """As if everything that the mirror has done and planned lay so much further back."""
        passed = {"passed": timedelta(seconds=seconds)}
        self.owner.execute(
            """
            update mirror_states
            set due_at = due_at - %(passed)s, check_at = check_at - %(passed)s, doubt_since = doubt_since - %(passed)s
            """,
            passed,
        )
        self.owner.execute("update shops set probe_at = probe_at - %(passed)s", passed)

    def mirror_state(self, customer: int) -> MirrorState:
        """What the mirror has on record of a customer, by Shopify id."""
        with self.owner.cursor(row_factory=class_row(MirrorState)) as cur:
            cur.execute(
                """
                select
                  m.digest, m.in_doubt, m.conflicted, m.check_at, m.doubt_since, m.doubtful_balances, m.attempts,
                  m.stale_since, m.failing_since, m.due_at > clock_timestamp() as waits
                from mirror_states m
                join customers c on c.shop_id = m.shop_id and c.id = m.customer_id
                where c.shopify_customer_id = %s
                """,
                (customer,),
            )
            found = cur.fetchone()
        assert found is not None
        return found

    def calls_on_record(self) -> list[tuple[Any, ...]]:
        """Calls that have left and whose outcome is not recorded: none, unless a process was killed."""
        return self.owner.execute("select token, customers, balances from push_calls order by id").fetchall()

    def log(self) -> list[str]:
        """What Shopify was asked, call by call as they came in; the definition, which comes first of all, left out."""
        calls = sorted(self.store.world.calls.select(shop=DOMAIN), key=lambda call: call.number)
        return [call.operation for call in calls if call.late_of is None and "efinition" not in call.operation]

    def forget_log(self) -> None:
        """Begin the log anew."""
        self.store.world.calls.clear()

    def listen(self, *, names_one_at_a_time: bool = False) -> Listener:
        """Hear from now on what `metafieldsSet` is asked to write, before it does; see `Listener`."""
        setter = self.shopify.setter
        listener = Listener(setter.storage, setter.metafields, setter.definitions, names_one_at_a_time)
        self.shopify.setter = listener
        return listener


async def eventually(happened: Callable[[], bool]) -> None:
    """Look again and again until it has happened."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, "it has not happened"
        await asyncio.sleep(0.005)


async def kill(stage: Stage, drain: asyncio.Task[DrainReport]) -> None:
    """End a drain with a call under way as `kill -9` does, and let its lease run out.

    What came of the call is not recorded.
    """
    drain.cancel()
    await asyncio.sleep(0.02)
    assert not drain.done(), "told to stop, it waits for the call"
    while not drain.done():
        drain.cancel()
        await asyncio.wait([drain], timeout=0.05)
    assert drain.cancelled()
    await end_lease(stage)


async def end_lease(stage: Stage) -> None:
    """As if whoever holds the lease had slept through the end of it."""
    # In a thread: the holder, in this very loop, may be in a transaction that this has to wait for.
    await asyncio.to_thread(stage.owner.execute, "update shop_leases set expires_at = '-infinity'")


@asynccontextmanager
async def open_stage(
    db: Database, owner: psycopg.Connection, *, customers: int = 30, plan: Plan = Plan.STANDARD
) -> AsyncGenerator[Stage]:
    async with (
        DevStore([ShopSpec(DOMAIN, TOKEN, plan, customers=customers)]) as store,
        open_mirror(db, store) as mirror,
    ):
        async with db.unscoped() as conn:
            shop, _ = await add_shop(conn, DOMAIN, VAULT.seal(TOKEN))
        runs = Runs(mirror)
        try:
            yield Stage(db, owner, store, mirror, runs, shop.id)
        finally:
            await runs.close()


@asynccontextmanager
async def open_mirror(
    db: Database, store: DevStore, *, backfill_threshold: int = BACKFILL_THRESHOLD
) -> AsyncGenerator[Mirror]:
    """A mirror with connections of its own, as another process would have one."""
    # A bare context: loading the machine's certificates takes longer than a test here, and nothing is https.
    async with httpx.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as http:
        client = AdminClient(http, origin=store.admin_origin, api_version="2026-10")
        yield Mirror(db, client, VAULT, DEFINITION, backfill_threshold=backfill_threshold)
