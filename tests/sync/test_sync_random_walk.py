"""Whatever goes wrong, in whatever order: when it is quiet again, Shopify shows the ledger's balances."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from sync_support import SLOT, Stage, end_lease, eventually, kill, open_mirror

from devstore import Fault, FaultAnswer, FaultApply
from devstore.gids import Gid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from metafield_sync.sync.drain import Mirror

WRITE, READ = "metafieldsSet", "nodes"
CUSTOMERS = 5
STEPS = 60
LATE_MS = 3_600_000
LATE_MAX_S = 240
"""A write arrives at most so long after it was sent: five minutes after it nobody looks any more."""


class Walk:
    """Steps in an order that the seed decides. `balances`: the ledger's, by Shopify id, of who is not deleted."""

    def __init__(self, stage: Stage, mirrors: list[Mirror], seed: int) -> None:
        self.stage = stage
        self.mirrors = mirrors
        self.random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self.balances = dict.fromkeys(range(1, CUSTOMERS + 1), 0)
        self.taken: list[str] = []
        self.sent_s = 0.0
        """So long ago the oldest write was sent that may arrive yet."""

    async def step(self) -> None:
        steps: dict[Callable[[], Awaitable[None]], int] = {
            self.post: 25,
            self.drain: 30,
            self.let_time_pass: 20,
            self.let_one_arrive: 8,
            self.lose_write: 10,
            self.break_something: 6,
            self.write_elsewhere: 6,
            self.die: 4,
            self.lose_lease: 4,
            self.delete_customer: 1,
        }
        (step,) = self.random.choices(list(steps), list(steps.values()))
        self.taken.append(step.__name__)
        await step()

    def somebody(self) -> int:
        return self.random.choice(list(self.balances))

    async def post(self) -> None:
        customer = self.somebody()
        # Few different balances, so that they return to what they were, and with them the digests.
        amount = -5 if self.balances[customer] else 5
        await self.stage.post(customer, amount)
        self.balances[customer] += amount

    async def drain(self) -> None:
        await self.random.choice(self.mirrors).drain(self.stage.shop_id)

    async def lose_write(self) -> None:
        """No answer, and executed when somebody lets it arrive."""
        self.stage.store.world.faults.add(Fault(FaultAnswer.DROP, FaultApply.LATER, later_ms=LATE_MS, operation=WRITE))
        await self.post()
        await self.drain()

    async def break_something(self) -> None:
        answer = self.random.choice([FaultAnswer.STATUS, FaultAnswer.DROP, FaultAnswer.GARBAGE, FaultAnswer.THROTTLED])
        apply = self.random.choice(list(FaultApply))
        status = self.random.choice([500, 502, 503, 504])
        operation = self.random.choice([WRITE, WRITE, READ])
        self.stage.store.world.faults.add(
            Fault(answer, apply, status=status, later_ms=LATE_MS, operation=operation, skip=self.random.randrange(2))
        )

    async def let_time_pass(self) -> None:
        seconds = self.random.choice([1, 3, 10, 30])
        if self.sent_s + seconds > LATE_MAX_S:
            await self.let_all_arrive()
        self.sent_s += seconds
        self.stage.let_time_pass(seconds)

    async def let_one_arrive(self) -> None:
        late = list(self.stage.store.world.late.values())
        if late:
            self.random.choice(late).run()

    async def let_all_arrive(self) -> None:
        late = list(self.stage.store.world.late.values())
        self.random.shuffle(late)
        for call in late:
            call.run()
        self.sent_s = 0.0

    async def write_elsewhere(self) -> None:
        customer, what = self.somebody(), self.random.choice(["number", "text", "nothing"])
        if what == "nothing":
            self.stage.shopify.metafields.delete(SLOT, customer)
        elif what == "number":
            self.stage.overwrite(customer, str(self.random.choice([0, 5, 10, 999])))
        else:
            self.stage.shopify.put_metafield(
                Gid("Customer", customer), SLOT.namespace, SLOT.key, "5", "single_line_text_field"
            )

    async def die(self) -> None:
        apply = self.random.choice([FaultApply.FIRST, FaultApply.LATER])
        number = self.stage.store.world.faults.add(
            Fault(FaultAnswer.NORMAL, apply, operation=WRITE, hold_ms=60_000, later_ms=LATE_MS)
        )
        await self.post()
        drain = asyncio.create_task(self.random.choice(self.mirrors).drain(self.stage.shop_id))
        await eventually(lambda: drain.done() or self.has_fired(number))
        if not drain.done():
            await kill(self.stage, drain)
        self.stage.store.world.faults.remove(number)

    async def lose_lease(self) -> None:
        number = self.stage.store.world.faults.add(
            Fault(FaultAnswer.NORMAL, FaultApply.FIRST, operation=WRITE, hold_ms=30)
        )
        await self.post()
        one, other = self.random.sample(self.mirrors, 2)
        drain = asyncio.create_task(one.drain(self.stage.shop_id))
        await eventually(lambda: drain.done() or self.has_fired(number))
        await end_lease(self.stage)
        await asyncio.gather(drain, other.drain(self.stage.shop_id))
        self.stage.store.world.faults.remove(number)

    async def delete_customer(self) -> None:
        customer = self.somebody()
        if len(self.balances) > CUSTOMERS // 2:
            self.stage.shopify.delete_customer(customer)
            del self.balances[customer]

    def has_fired(self, number: int) -> bool:
        return any(fired for one, _, fired in self.stage.store.world.faults if one == number)

    async def come_to_rest(self) -> None:
        """Nothing goes wrong any more but for what is on its way, and time passes."""
        self.stage.store.world.faults.clear()
        # A foreign write is found when the customer is written next; till then only a reconciliation would find it.
        for customer in self.balances:
            await self.stage.post(customer, 5)
            self.balances[customer] += 5
        await self.let_one_arrive()
        await self.drain()
        await self.let_all_arrive()
        for seconds in (3, 10, 60, 300, 600):
            self.stage.let_time_pass(seconds)
            await self.drain()


@pytest.mark.parametrize("seed", [124, 147, 150, 158])
async def test_when_it_is_quiet_again_everybody_shows_the_ledgers_balance(stage: Stage, seed: int) -> None:
    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(open_mirror(stage.db, stage.store)) for _ in range(2)]
        walk = Walk(stage, [stage.mirror, *others], seed)
        for _ in range(STEPS):
            await walk.step()
        await walk.come_to_rest()
    shown = {customer: value for customer, value in stage.values().items() if customer in walk.balances}
    assert shown == {customer: str(balance) for customer, balance in walk.balances.items()}, walk.taken
    for customer in walk.balances:
        assert (await stage.standing(customer)).status == "in_step"
        assert stage.mirror_state(customer).owes_no_check
    assert stage.calls_on_record() == []
