"""One customer, now: asked of Shopify whatever is believed, and the outcome told in time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sync_support import SLOT, Stage, eventually, open_mirror

from devstore import Fault, FaultAnswer, FaultApply
from metafield_sync.customers.identity import CustomerNotFound
from metafield_sync.shops.registry import PAUSED_BY_STAFF, pause_shop
from metafield_sync.sync.one_customer import NOT_IN_TIME, CustomerSync, sync_customer

if TYPE_CHECKING:
    from uuid import UUID

WRITE = "metafieldsSet"
WAIT_S = 10


async def sync(stage: Stage, customer_id: UUID, *, wait_s: float = WAIT_S) -> CustomerSync:
    return await sync_customer(stage.mirror, stage.shop_id, customer_id, wait_s=wait_s)


async def test_a_stale_customer_is_pushed(stage: Stage) -> None:
    one = await stage.post(1, 10)
    assert await sync(stage, one) == CustomerSync(one, 10, synced=True)
    assert stage.values() == {1: "10"}


async def test_a_customer_in_step_is_asked_of_shopify_all_the_same(stage: Stage) -> None:
    one = await stage.post(1, 10)
    await sync(stage, one)
    stage.shopify.metafields.delete(SLOT, 1)
    assert stage.values() == {}
    assert (await sync(stage, one)).synced
    assert stage.values() == {1: "10"}


async def test_who_is_waited_for_goes_before_all_others(stage: Stage) -> None:
    ids = await stage.post_all(dict.fromkeys(range(1, 31), 1))
    assert (await sync(stage, ids[30])).synced
    assert "gid://shopify/Customer/30" in stage.writes()[0].owners


async def test_an_unknown_customer_is_not_found(stage: Stage) -> None:
    with pytest.raises(CustomerNotFound):
        await sync(stage, uuid4())


async def test_a_customer_who_is_gone_is_told_each_time_and_found_again_when_back(stage: Stage) -> None:
    one = await stage.post(1, 10)
    stage.shopify.delete_customer(1)
    for _ in range(2):
        told = await sync(stage, one)
        assert (told.synced, told.balance) == (False, 10)
        assert told.error is not None
        assert "no such customer" in told.error
    assert len(stage.writes()) == 2
    stage.shopify.add_customers([1])
    assert (await sync(stage, one)).synced
    assert (await stage.standing(1)).status == "in_step"


@pytest.mark.usefixtures("short_back_off")
async def test_who_meets_with_trouble_once_gets_a_second_chance_after_being_read_back(stage: Stage) -> None:
    one = await stage.post(1, 10)
    stage.store.world.faults.add(Fault(status=503, operation=WRITE))
    assert await sync(stage, one) == CustomerSync(one, 10, synced=True)
    assert stage.log() == [WRITE, "nodes", WRITE]


@pytest.mark.usefixtures("short_back_off")
async def test_who_turns_out_to_have_been_written_is_not_written_again(stage: Stage) -> None:
    one = await stage.post(1, 10)
    stage.store.world.faults.add(Fault(FaultAnswer.DROP, FaultApply.FIRST, operation=WRITE))
    assert await sync(stage, one) == CustomerSync(one, 10, synced=True)
    assert stage.log() == [WRITE, "nodes"]


@pytest.mark.usefixtures("short_back_off")
async def test_what_shopify_answers_instead_a_second_time_is_told(stage: Stage) -> None:
    one = await stage.post(1, 10)
    stage.store.world.faults.add(Fault(status=503, operation=WRITE, times=2))
    told = await sync(stage, one)
    assert (told.synced, told.balance) == (False, 10)
    assert told.error is not None
    assert "HTTP 503" in told.error
    assert stage.log() == [WRITE, "nodes", WRITE]
    assert ((await stage.standing(1)).status, stage.mirror_state(1).attempts) == ("in_doubt", 2)


@pytest.mark.usefixtures("short_back_off")
async def test_what_shopify_answers_to_the_reading_back_is_told_too(stage: Stage) -> None:
    one = await stage.post(1, 10)
    stage.store.world.faults.add(Fault(FaultAnswer.DROP, operation=WRITE))
    stage.store.world.faults.add(Fault(status=502, operation="nodes"))
    told = await sync(stage, one)
    assert told.error is not None
    assert "HTTP 502" in told.error
    assert stage.log() == [WRITE, "nodes"]
    assert (await stage.standing(1)).status == "in_doubt"


async def test_who_is_in_doubt_is_read_back_at_once_when_somebody_asks(stage: Stage) -> None:
    one = await stage.post(1, 10)
    stage.store.world.faults.add(Fault(FaultAnswer.DROP, operation=WRITE))
    await stage.mirror.drain(stage.shop_id)
    stage.owner.execute("update mirror_states set check_at = clock_timestamp() + interval '1 hour'")
    assert (await sync(stage, one)).synced
    assert stage.log() == [WRITE, "nodes", WRITE]


async def test_an_unreachable_shopify_is_told(stage: Stage) -> None:
    one = await stage.post(1, 10)
    stage.store.world.faults.add(Fault(status=503, times=None))
    told = await sync(stage, one)
    assert not told.synced
    assert told.error is not None
    assert "HTTP 503" in told.error


async def test_a_refused_shop_is_told_and_asked_again_the_next_time(stage: Stage) -> None:
    one = await stage.post(1, 10)
    token, budget, state = stage.shopify.token, stage.shopify.budget, stage.shopify.state
    stage.shopify.change(token=None, plan=budget.plan, state=state)
    told = await sync(stage, one)
    assert told.error == (await stage.shop()).paused_detail
    stage.shopify.change(token=token, plan=budget.plan, state=state)
    assert (await sync(stage, one)).synced, "somebody asked: the back-off does not count"
    assert (await stage.shop()).status == "active"


async def test_a_pause_by_staff_is_told_and_nothing_sent(stage: Stage) -> None:
    one = await stage.post(1, 10)
    async with stage.db.unscoped() as conn:
        await pause_shop(conn, stage.shop_id, code=PAUSED_BY_STAFF, detail="stocktaking", resumes_by_itself=False)
    told = await sync(stage, one)
    assert not told.synced
    assert told.error is not None
    assert "paused" in told.error
    assert len(stage.store.world.calls.entries) == 0


async def test_who_waits_is_answered_in_time_and_the_push_goes_on(stage: Stage) -> None:
    one = await stage.post(1, 10)
    await stage.mirror.drain(stage.shop_id)
    await stage.post(1, 5)
    stage.store.world.faults.add(Fault(FaultAnswer.NORMAL, FaultApply.FIRST, operation=WRITE, hold_ms=1_500))
    began = time.monotonic()
    told = await sync(stage, one, wait_s=0.3)
    assert told == CustomerSync(one, 15, synced=False, error=NOT_IN_TIME)
    assert time.monotonic() - began < 1.2, "not after Shopify's answer"
    standing = await stage.standing(1)
    while standing.status != "in_step":
        await asyncio.sleep(0.02)
        standing = await stage.standing(1)
    assert (standing.pushed_balance, stage.values()) == (15, {1: "15"})


async def test_a_sync_joins_the_drain_at_work(stage: Stage) -> None:
    ids = await stage.post_all({1: 10, 2: 20})
    await stage.mirror.drain(stage.shop_id)
    await stage.post(1, 1)
    stage.store.world.faults.add(Fault(FaultAnswer.NORMAL, FaultApply.FIRST, operation=WRITE, hold_ms=150))
    async with open_mirror(stage.db, stage.store) as elsewhere:
        draining = asyncio.create_task(elsewhere.drain(stage.shop_id))
        await eventually(lambda: stage.values()[1] == "11")
        syncs = await asyncio.gather(sync(stage, ids[1]), sync(stage, ids[2]))
        await draining
    assert [one.synced for one in syncs] == [True, True]
    assert [len(call.owners) for call in stage.writes()[1:]] == [1, 2], "both in one call, after the one at work"


async def test_many_at_once_share_calls(stage: Stage) -> None:
    ids = await stage.post_all({n: n for n in range(1, 26)})
    syncs = await asyncio.gather(*(sync(stage, one) for one in ids.values()))
    assert all(one.synced for one in syncs)
    assert len(stage.writes()) < len(ids) / 2
    assert stage.values() == {n: str(n) for n in range(1, 26)}
