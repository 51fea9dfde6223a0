"""The drain: what is stale reaches Shopify, in few calls, and nothing that happens meanwhile is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sync_support import DOMAIN, SLOT, Stage, eventually, open_stage

from devstore import Fault, FaultAnswer, FaultApply, Plan
from metafield_sync.customers.identity import ShopifyCustomerId, ensure_customer

if TYPE_CHECKING:
    import psycopg

    from metafield_sync.db.database import Database

HOLD = Fault(FaultAnswer.NORMAL, FaultApply.FIRST, operation="metafieldsSet", hold_ms=150)


async def test_the_first_push_makes_the_definition_pinned_and_reaches_everybody_at_zero_too(stage: Stage) -> None:
    await stage.post_all({1: 10, 2: 20})
    async with stage.db.shop(stage.shop_id) as conn:
        await ensure_customer(conn, stage.shop_id, ShopifyCustomerId(3))
    report = await stage.mirror.drain(stage.shop_id)
    assert (report.end, report.pushed, report.refused) == ("idle", 3, 0)
    assert report.calls == 2, "one for the definition, one for all three"
    assert stage.values() == {1: "10", 2: "20", 3: "0"}
    definition = stage.shopify.definitions.get(SLOT)
    assert definition is not None
    assert (definition.type, definition.pinned_position) == ("number_integer", 1)
    assert (definition.access.storefront, definition.access.customer_account) == ("PUBLIC_READ", "READ")


async def test_a_second_run_of_an_unchanged_shop_calls_nothing(stage: Stage) -> None:
    await stage.post_all(dict.fromkeys(range(1, 31), 5))
    first = await stage.run()
    assert (first["total"], first["synced"], first["errors"], first["pushed"]) == (30, 30, 0, 30)
    calls = len(stage.store.world.calls.entries)
    second = await stage.run()
    assert (second["synced"], second["pushed"], second["unchanged"], second["pointsSpent"]) == (30, 0, 30, 0)
    assert len(stage.store.world.calls.entries) == calls


async def test_25_customers_go_out_in_one_call(stage: Stage) -> None:
    await stage.post_all({n: n for n in range(1, 31)})
    await stage.mirror.drain(stage.shop_id)
    assert sorted(len(call.owners) for call in stage.writes()) == [5, 25]
    assert sorted(call.actual or 0 for call in stage.writes()) == [15, 35]
    assert stage.values() == {n: str(n) for n in range(1, 31)}


async def test_ten_changes_cost_one_push_of_the_last(stage: Stage) -> None:
    for _ in range(10):
        await stage.post(1, 7)
    await stage.mirror.drain(stage.shop_id)
    assert stage.values() == {1: "70"}
    assert [len(call.owners) for call in stage.writes()] == [1]


async def test_a_repair_typed_by_the_owner_reaches_shopify(stage: Stage) -> None:
    await stage.post_all({1: 10, 2: 10})
    await stage.mirror.drain(stage.shop_id)
    stage.owner.execute("update customers set current_balance = current_balance - 3 where shopify_customer_id = 1")
    assert (await stage.standing(1)).status == "stale"
    await stage.mirror.drain(stage.shop_id)
    assert stage.values() == {1: "7", 2: "10"}
    assert len(stage.writes()[-1].owners) == 1


async def test_a_change_that_changes_nothing_is_not_pushed(stage: Stage) -> None:
    await stage.post(1, 10)
    await stage.mirror.drain(stage.shop_id)
    stage.owner.execute("update customers set current_balance = current_balance")
    assert (await stage.standing(1)).status == "in_step"


async def test_one_deleted_customer_does_not_hold_up_the_other_24(stage: Stage) -> None:
    await stage.post_all({n: n for n in range(1, 26)})
    stage.shopify.delete_customer(7)
    result = await stage.run()
    assert stage.values() == {n: str(n) for n in range(1, 26) if n != 7}
    gone = await stage.standing(7)
    assert (gone.status, gone.attempts) == ("missing", 1)
    assert (result["total"], result["synced"], result["errors"]) == (25, 24, 1)
    assert result["failedSyncs"] == [
        {"customerId": str(gone.id), "shopifyCustomerId": "7", "error": gone.error},
    ]
    calls = len(stage.writes())
    stage.let_back_off_pass()
    await stage.mirror.drain(stage.shop_id)
    assert len(stage.writes()) == calls, "who is gone is not asked for again by itself"


async def test_many_deleted_customers_are_all_found_and_the_others_written(stage: Stage) -> None:
    await stage.post_all({n: n for n in range(1, 31)})
    gone = {2, 3, 11, 25, 26, 30}
    for customer in gone:
        stage.shopify.delete_customer(customer)
    result = await stage.run()
    assert stage.values() == {n: str(n) for n in range(1, 31) if n not in gone}
    assert {int(row["shopifyCustomerId"]) for row in result["failedSyncs"]} == gone


async def test_a_posting_during_a_push_is_pushed_after_it(stage: Stage) -> None:
    await stage.post(1, 10)
    stage.store.world.faults.add(HOLD)
    draining = asyncio.create_task(stage.mirror.drain(stage.shop_id))
    await eventually(lambda: stage.values() == {1: "10"})
    await stage.post(1, 5)
    standing = await stage.standing(1)
    assert (standing.status, standing.balance, standing.pushed_balance) == ("stale", 15, None)
    report = await draining
    assert (report.end, report.pushed) == ("idle", 2)
    assert stage.values() == {1: "15"}
    standing = await stage.standing(1)
    assert (standing.status, standing.pushed_balance, standing.stale_since) == ("in_step", 15, None)


async def test_a_customer_is_in_one_call_at_a_time(stage: Stage) -> None:
    """Postings go on and on while every call is slow: no two calls that overlap name the same customer."""
    stage.store.world.latency.min_ms = stage.store.world.latency.max_ms = 20
    stage.shopify.change(token=stage.shopify.token, plan=Plan.PLUS, state=stage.shopify.state)
    stage.shopify.budget.fill()
    await stage.post_all(dict.fromkeys(range(1, 31), 1))
    draining = asyncio.create_task(stage.mirror.drain(stage.shop_id))
    for number in range(60):
        await stage.post(1 + number % 5, 1)
    await draining
    await stage.mirror.drain(stage.shop_id)
    calls = stage.writes()
    overlapping = [
        (one.number, two.number)
        for one in calls
        for two in calls
        if one.number < two.number and two.started_s < one.ended_s and set(one.owners) & set(two.owners)
    ]
    assert overlapping == []
    assert stage.values() == {n: "13" if n <= 5 else "1" for n in range(1, 31)}


async def test_a_full_push_waits_for_the_budget_and_is_never_throttled(db: Database, owner: psycopg.Connection) -> None:
    async with open_stage(db, owner, customers=500, plan=Plan.PLUS) as stage:
        await stage.post_all({n: n for n in range(1, 501)})
        # Room for a few calls; the rest has to come from what is restored meanwhile.
        stage.shopify.budget.spend_elsewhere(stage.shopify.budget.maximum - 300)
        result = await stage.run()
        assert (result["synced"], result["errors"]) == (500, 0)
        assert stage.values() == {n: str(n) for n in range(1, 501)}
        calls = list(stage.store.world.calls.select(shop=DOMAIN))
        assert [call.number for call in calls if call.throttled] == []
        assert [len(call.owners) for call in stage.writes()] == [25] * 20
        assert result["pointsSpent"] == sum(call.actual or 0 for call in calls) == 10 + 20 * 35, (
            "the definition's 10 too"
        )
