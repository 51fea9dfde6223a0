"""Shopify Flow hears of changed balances: where a workflow listens, after the push, each change once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import pytest
from sync_support import DOMAIN

from devstore import Fault, FaultAnswer, FaultApply
from metafield_sync.shopify import ShopifyError
from metafield_sync.sync.flow import FLOW_ERRAND, FLOW_POLL_S, FlowWord, hear_flow, tell_changes

if TYPE_CHECKING:
    from sync_support import Stage

NOW = datetime(2026, 11, 1, tzinfo=UTC)
AGAIN = {"": FLOW_POLL_S}


async def listen(stage: Stage, *, listens: bool = True, as_of: datetime = NOW) -> bool:
    async with stage.db.shop(stage.shop_id) as conn:
        return await hear_flow(conn, stage.shop_id, FlowWord(listens, as_of))


async def push(stage: Stage, amounts: dict[int, int]) -> None:
    """Post and push."""
    await stage.post_all(amounts)
    assert (await stage.mirror.drain(stage.shop_id)).end == "idle"


def told(stage: Stage) -> list[tuple[int, int, int]]:
    """What Flow was told: customer, balance, change."""
    found: list[tuple[int, int, int]] = []
    for trigger in stage.shopify.flow.triggers:
        assert trigger.handle == "points-balance-changed"
        payload = cast("dict[str, int]", trigger.payload)
        found.append((payload["customer_id"], payload["Points balance"], payload["Points change"]))
    return found


async def tell(stage: Stage) -> object:
    """As if the pause in which changes gather were over."""
    stage.owner.execute("update flow_changes set due_at = clock_timestamp()")
    return await tell_changes(stage.mirror, stage.shop_id, [""])


def waiting(stage: Stage) -> int:
    row = stage.owner.execute("select count(*) from flow_changes").fetchone()
    assert row is not None
    return row[0]


async def test_a_shop_where_no_workflow_listens_is_told_nothing_and_notes_nothing(stage: Stage) -> None:
    await push(stage, {1: 10})
    await push(stage, {1: 5})
    assert waiting(stage) == 0
    assert await tell(stage) == {}
    assert told(stage) == []


async def test_a_pushed_change_is_told_once_with_the_balance_it_led_to(stage: Stage) -> None:
    await listen(stage)
    await push(stage, {1: 10})
    await push(stage, {1: 5})
    assert await tell(stage) == AGAIN
    assert await tell(stage) == AGAIN
    assert told(stage) == [(1, 15, 5)]
    assert waiting(stage) == 0


async def test_a_customers_first_value_is_no_change(stage: Stage) -> None:
    await listen(stage)
    await push(stage, dict.fromkeys(range(1, 21), 10))
    assert waiting(stage) == 0


async def test_a_burst_of_changes_is_told_as_one(stage: Stage) -> None:
    await push(stage, {1: 10, 2: 10})
    await listen(stage)
    for _ in range(5):
        await push(stage, {1: 3, 2: -1})
    await tell(stage)
    assert sorted(told(stage)) == [(1, 25, 15), (2, 5, -5)]


async def test_up_and_down_again_is_no_change(stage: Stage) -> None:
    await push(stage, {1: 10})
    await listen(stage)
    await push(stage, {1: 7})
    await push(stage, {1: -7})
    assert await tell(stage) == AGAIN
    assert told(stage) == []
    assert waiting(stage) == 0


async def test_nothing_is_told_before_the_metafield_shows_it(stage: Stage) -> None:
    await push(stage, {1: 10})
    await listen(stage)
    await stage.post(1, 5)
    await tell(stage)
    assert told(stage) == []
    await stage.mirror.drain(stage.shop_id)
    await tell(stage)
    assert told(stage) == [(1, 15, 5)]


async def test_many_changes_go_ten_a_request_within_the_budget(stage: Stage) -> None:
    everybody = range(1, 26)
    await push(stage, dict.fromkeys(everybody, 10))
    await listen(stage)
    await push(stage, dict.fromkeys(everybody, 1))
    stage.forget_log()
    await tell(stage)
    assert sorted(told(stage)) == [(customer, 11, 1) for customer in everybody]
    calls = list(stage.store.world.calls.select(shop=DOMAIN))
    assert [call.requested for call in calls] == [100, 100, 50]
    assert not any(call.throttled for call in calls)


async def test_a_scarce_budget_is_left_to_the_balances(stage: Stage) -> None:
    await push(stage, {1: 10})
    await listen(stage)
    await push(stage, {1: 5})
    stage.shopify.budget.spend_elsewhere(1_500)
    await stage.post(2, 1)
    await stage.mirror.drain(stage.shop_id)  # it learns of the low bucket
    await tell(stage)
    assert told(stage) == []
    assert waiting(stage) == 1
    stage.shopify.budget.fill()
    await stage.post(3, 1)
    await stage.mirror.drain(stage.shop_id)
    await tell(stage)
    assert told(stage) == [(1, 15, 5)]


async def test_a_request_without_an_answer_is_sent_again(stage: Stage) -> None:
    await push(stage, {1: 10})
    await listen(stage)
    await push(stage, {1: 5})
    stage.store.world.faults.add(
        Fault(answer=FaultAnswer.DROP, apply=FaultApply.NEVER, operation="flowTriggerReceive", times=1)
    )
    with pytest.raises(ShopifyError):
        await tell(stage)
    await tell(stage)
    assert told(stage) == [(1, 15, 5)]


async def test_an_older_word_of_flow_changes_nothing(stage: Stage) -> None:
    assert await listen(stage, listens=False)
    assert not await listen(stage, as_of=NOW - timedelta(seconds=1))
    await push(stage, {1: 10})
    await push(stage, {1: 5})
    assert waiting(stage) == 0


async def test_when_the_last_workflow_is_turned_off_what_waits_is_forgotten(stage: Stage) -> None:
    await push(stage, {1: 10})
    await listen(stage)
    await push(stage, {1: 5})
    assert waiting(stage) == 1
    await listen(stage, listens=False, as_of=NOW + timedelta(seconds=1))
    assert await tell(stage) == {}
    assert told(stage) == []
    assert waiting(stage) == 0


async def test_turning_a_workflow_on_sends_a_worker_to_look(stage: Stage) -> None:
    await listen(stage)
    assert stage.owner.execute("select kind from errands").fetchall() == [(FLOW_ERRAND.name,)]
