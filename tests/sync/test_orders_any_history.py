"""Whatever happens to orders, and however its webhooks come, the points end where an independent model says.

Ten thousand random histories go through the real handlers, the real merge and a real PostgreSQL. What the catch-up job
would read is given to the code that applies it, in the Admin API's own form; that it reads it, page by page over HTTP,
is shown in `test_orders_catch_up.py`. Many histories share a transaction, as they share nothing else: each has orders
and customers of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from order_histories import History, Play, Step, random_history, shrunk
from order_world import EPOCH, Rule, World

from metafield_sync.db.database import Database, ShopId
from metafield_sync.rewards.rule import EarningRule
from metafield_sync.shopify.orders import _as_webhook  # pyright: ignore[reportPrivateUsage] - what reading ends in
from metafield_sync.shops.registry import add_shop
from metafield_sync.sync.inbox.fields import trim
from metafield_sync.sync.inbox.handlers import HANDLERS
from metafield_sync.sync.inbox.handling import Webhook
from metafield_sync.sync.orders.applying import apply_order
from metafield_sync.sync.orders.reading import read_order
from metafield_sync.sync.orders.rules import save_rule
from metafield_sync.sync.people.merges import merge_customers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from psycopg import AsyncConnection

HISTORIES = int(os.environ.get("ORDER_HISTORIES", "10000"))
SEED = int(os.environ.get("ORDER_SEED", "20261122"))
HISTORIES_A_TRANSACTION = 25
WORKERS = 3
IDS_A_HISTORY = 10

# What differs between two servers is not what this is about, and it is the longest test there is.
ONE_SERVER = pytest.mark.parametrize("server_url", ["embedded"], indirect=True)
TAG = "wholesale"

RULES = (
    Rule(),
    Rule(),
    Rule(points_a_hundred=250, rounding="half_up"),
    Rule(points_a_hundred=33, rounding="up", takes_tax_off=False),
    Rule(excluded_tag=TAG),
)


@dataclass(frozen=True)
class Stage:
    db: Database
    shop_id: ShopId
    rule: Rule


@asynccontextmanager
async def stages(url: str) -> AsyncGenerator[list[Stage]]:
    """A shop for each rule."""
    async with Database(url) as db:
        yield [await stage_for(db, f"shop-{number}.myshopify.com", rule) for number, rule in enumerate(RULES)]


async def stage_for(db: Database, domain: str, rule: Rule) -> Stage:
    async with db.unscoped() as conn:
        shop, _ = await add_shop(conn, domain, None)
    saved = EarningRule(
        points_per_unit=Decimal(rule.points_a_hundred) / 100,
        rounding=rule.rounding,  # pyright: ignore[reportArgumentType] - the model's is plain text
        excluded_tags=frozenset() if rule.excluded_tag is None else frozenset({rule.excluded_tag.upper()}),
        takes_tax_off=rule.takes_tax_off,
        starts_at=EPOCH,
    )
    async with db.shop(shop.id) as conn:
        await save_rule(conn, shop.id, saved, "test")
    return Stage(db, shop.id, rule)


class Wrong(Exception):
    """The points are not where the model has them."""


async def play(conn: AsyncConnection, stage: Stage, history: History, number: int) -> None:
    """Play a history to its end, and compare. `number` keeps its ids from all others'."""
    first = 1_000 + number * IDS_A_HISTORY
    played = Play(history, first, (first, first + 1, first + 2))
    if stage.rule.excluded_tag is not None:
        played.tags[first + 2] = ["vip", TAG]
    under_way: list[tuple[int, Callable[[], Any]]] = []
    random = Random(history.shuffle)  # noqa: S311 - the same again for the same seed
    for now, step in enumerate(history.steps):
        under_way += [(now + late, act) for late, act in await happen(conn, stage, played, step)]
        due = [act for when, act in under_way if when <= now]
        under_way = [one for one in under_way if one[0] > now]
        random.shuffle(due)
        for act in due:
            await act()
    random.shuffle(under_way)
    for _, act in under_way:
        await act()
    await catch_up(conn, stage, played)
    await compare(conn, stage, played)


async def happen(conn: AsyncConnection, stage: Stage, played: Play, step: Step) -> list[tuple[int, Callable[[], Any]]]:
    """Let the step happen; what comes of it for us, each with how many steps later."""
    if step.kind == "merge":
        merged = played.merge(step)
        if merged is None:
            return []
        kept, deleted = merged
        # What tells of a merge is another matter than orders, so it is never lost here; it may be late, and doubled.
        late = step.late[0] or (0,)
        return [
            (one, lambda: merge_customers(conn, stage.shop_id, kept_shopify_id=kept, deleted_shopify_id=deleted))
            for one in late
        ]
    if step.kind == "read":
        world = played.worlds[step.order % len(played.worlds)]
        if not world.lines:
            return []
        asked_at = await clock(conn)
        seen = world.copy()
        return [(one, lambda: read(conn, stage, seen, asked_at)) for one in step.late[0][:1]]
    return [
        (one, lambda topic=topic, text=text: deliver(conn, stage, topic, text))
        for (topic, payload), late in zip(played.act(step), step.late, strict=False)
        for text in [json.dumps(payload)]
        for one in late
    ]


async def deliver(conn: AsyncConnection, stage: Stage, topic: str, body: str) -> None:
    """Hand a webhook's body to its handler, as the inbox does after keeping what is kept of it."""
    kept = trim(topic, json.loads(body))
    payload = json.loads(json.dumps(kept), parse_float=Decimal)
    now = datetime.now(UTC)
    await HANDLERS[topic](conn, Webhook(1, stage.shop_id, topic, payload, now, now))


async def read(conn: AsyncConnection, stage: Stage, world: World, asked_at: datetime) -> None:
    """Apply an order as the Admin API showed it at some moment."""
    snapshot = read_order(_as_webhook(world.node(), world.number))
    await apply_order(conn, stage.shop_id, snapshot, read_at=asked_at)


async def clock(conn: AsyncConnection) -> datetime:
    row = await (await conn.execute("select clock_timestamp()")).fetchone()
    assert row is not None
    return row[0]


async def catch_up(conn: AsyncConnection, stage: Stage, played: Play) -> None:
    """The errands that were noted, and after a loss the catch-up: it reads every order that changed."""
    for world in played.worlds:
        if world.lines:
            # Nothing was lost: then only what is to be asked of Shopify is read.
            parameters = (stage.shop_id, world.number)
            noted = await conn.execute(
                "select read_wanted_at from orders where shop_id = %s and order_id = %s", parameters
            )
            wanted = await noted.fetchone()
            if not played.history.is_lossless or (wanted is not None and wanted[0] is not None):
                await read(conn, stage, world, await clock(conn))


async def compare(conn: AsyncConnection, stage: Stage, played: Play) -> None:
    expected = dict.fromkeys(played.customers, 0)
    for world in played.worlds:
        if world.customer is not None and world.lines:
            expected[played.survivor(world.customer)] += world.points(stage.rule)
    found = await conn.execute(TOTALS, {"shop": stage.shop_id, "customers": list(played.customers)})
    totals = dict.fromkeys(played.customers, (0, 0, 0))
    totals |= {customer: (balance, entries, earned) for customer, balance, entries, earned in await found.fetchall()}
    wanted = {customer: (points, points, points) for customer, points in expected.items()}
    if totals != wanted:
        raise Wrong(f"(balance, sum of entries, of orders) by customer is {totals}, and should be {wanted}")


TOTALS = """
select
  c.shopify_customer_id,
  c.current_balance,
  (
    select coalesce(sum(l.amount), 0)::bigint
    from ledger_entries l
    where l.shop_id = c.shop_id and l.customer_id = c.id
  ),
  (
    select coalesce(sum(e.points), 0)::bigint
    from order_earnings e
    where e.shop_id = c.shop_id and e.customer_id = c.id
  )
from customers c
where c.shop_id = %(shop)s and c.shopify_customer_id = any (%(customers)s)
"""


class Undone(Exception):
    """Takes a trial back."""


async def trouble_with(stage: Stage, history: History, number: int) -> str | None:
    """What is wrong with a history played by itself, which leaves no trace; None: nothing."""
    try:
        async with stage.db.shop(stage.shop_id) as conn:
            await play(conn, stage, history, number)
            raise Undone  # noqa: TRY301 - it is how a transaction is taken back
    except Undone:
        return None
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a counter-example
        return f"{type(error).__name__}: {error}"


def seeded(seed: int, *, merges: bool) -> History:
    return random_history(Random(seed), merges=merges)  # noqa: S311 - the same again for the same seed


async def explain(stage: Stage, history: History, number: int) -> str:
    async def fails(one: History) -> bool:
        return await trouble_with(stage, one, number) is not None

    smallest = await shrunk(history, fails)
    return f"{await trouble_with(stage, smallest, number)}\n{stage.rule}\n  {smallest}"


async def play_some(stage: Stage, histories: list[tuple[int, History]]) -> str | None:
    """Play histories in one transaction; of one that goes wrong, as small as it gets, what is wrong."""
    try:
        async with stage.db.shop(stage.shop_id) as conn:
            for number, history in histories:
                await play(conn, stage, history, number)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told of
        for number, history in histories:
            if await trouble_with(stage, history, number) is not None:
                return await explain(stage, history, number)
        return f"together they fail, each by itself does not: {error}"
    return None


@ONE_SERVER
@pytest.mark.timeout(900)
async def test_ten_thousand_histories_end_where_the_model_says(database_url: str) -> None:
    async with stages(database_url) as all_stages:
        batches: asyncio.Queue[tuple[Stage, list[tuple[int, History]]]] = asyncio.Queue()
        for begin in range(0, HISTORIES, HISTORIES_A_TRANSACTION):
            stage = all_stages[begin // HISTORIES_A_TRANSACTION % len(all_stages)]
            # Tags are those of the customer an order names; a merge that moved it is not what they are about.
            merges = stage.rule.excluded_tag is None
            numbers = range(begin, min(begin + HISTORIES_A_TRANSACTION, HISTORIES))
            batch = [(number, seeded(SEED + number, merges=merges)) for number in numbers]
            batches.put_nowait((stage, batch))

        troubles: list[str] = []

        async def work() -> None:
            while not batches.empty() and not troubles:
                trouble = await play_some(*batches.get_nowait())
                troubles.extend([] if trouble is None else [trouble])

        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(work())
        assert not troubles, troubles[0]


def without_goodwill(world: World, rule: Rule, points: Callable[[World, Rule], int]) -> int:
    forgetful = world.copy()
    forgetful.refunds = [refund for refund in forgetful.refunds if refund.pieces]
    return points(forgetful, rule)


@ONE_SERVER
async def test_a_counter_example_shrinks_to_what_matters(database_url: str) -> None:
    """A model that does not know goodwill is contradicted by a sale, a payment and goodwill, and nothing besides."""

    with pytest.MonkeyPatch.context() as patch:
        async with stages(database_url) as all_stages:
            stage = all_stages[0]
            knowing = World.points

            def ignorant(world: World, rule: Rule) -> int:
                return without_goodwill(world, rule, knowing)

            patch.setattr(World, "points", ignorant)
            failing = [
                history
                for seed in range(400)
                if "goodwill" in str(history := seeded(seed, merges=True))
                and await trouble_with(stage, history, 1) is not None
            ]
            assert failing
            for history in failing[:5]:
                explained = await explain(stage, history, 1)
                kinds = [line.split()[2].split("(")[0] for line in explained.splitlines() if " s " in line]
                assert len(kinds) == 3, explained
                assert {"sell", "goodwill"} < set(kinds), explained
                assert set(kinds) & {"pay", "pay_part"}, explained
