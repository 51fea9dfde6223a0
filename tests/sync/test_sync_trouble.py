"""When Shopify misbehaves: nobody is lost, nothing is believed that is not known, and what is over heals by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sync_support import DOMAIN, SLOT, Stage, eventually

from devstore import Fault, FaultAnswer, FaultApply, ShopState
from metafield_sync.shops.registry import PAUSED_BY_STAFF, pause_shop, resume_shop

if TYPE_CHECKING:
    from metafield_sync.shops.registry import Shop

WRITE = "metafieldsSet"
UNKNOWN = [
    Fault(FaultAnswer.DROP, FaultApply.FIRST, operation=WRITE),
    Fault(FaultAnswer.DROP, FaultApply.NEVER, operation=WRITE),
    Fault(FaultAnswer.STATUS, FaultApply.FIRST, status=504, operation=WRITE),
    Fault(FaultAnswer.STATUS, FaultApply.NEVER, status=504, operation=WRITE),
    Fault(FaultAnswer.STATUS, FaultApply.FIRST, status=500, operation=WRITE),
    Fault(FaultAnswer.STATUS, FaultApply.NEVER, status=503, operation=WRITE),
    Fault(FaultAnswer.GARBAGE, FaultApply.FIRST, operation=WRITE),
    Fault(FaultAnswer.GARBAGE, FaultApply.NEVER, operation=WRITE),
]


def name_of(fault: Fault) -> str:
    return f"{fault.answer}-{fault.status if fault.answer is FaultAnswer.STATUS else ''}-{fault.apply}"


@pytest.mark.parametrize("fault", UNKNOWN, ids=name_of)
async def test_an_unknown_outcome_leaves_everybody_in_doubt_until_read_back(stage: Stage, fault: Fault) -> None:
    await stage.post_all({1: 10, 2: 20})
    stage.store.world.faults.add(fault)
    await stage.mirror.drain(stage.shop_id)
    for customer in (1, 2):
        standing = await stage.standing(customer)
        assert (standing.status, standing.attempts, standing.pushed_balance) == ("in_doubt", 1, None)
        assert standing.error is not None
        assert "may have been applied" in standing.error
    await stage.post(1, 5)
    await stage.mirror.drain(stage.shop_id)
    assert stage.log() == [WRITE], "a posting does not hurry it: what Shopify holds is not known"
    stage.let_back_off_pass()
    await stage.mirror.drain(stage.shop_id)
    assert stage.values() == {1: "15", 2: "20"}
    assert stage.log() == [WRITE, "nodes", WRITE]
    rewritten = 1 if fault.apply is FaultApply.FIRST else 2
    assert len(stage.writes()[-1].owners) == rewritten, "who shows the balance already is not written again"
    for customer in (1, 2):
        standing = await stage.standing(customer)
        assert (standing.status, standing.attempts, standing.error) == ("in_step", 0, None)


@pytest.mark.usefixtures("short_back_off")
async def test_a_shopify_that_does_not_answer_ends_the_turn_and_a_run_tells_so(stage: Stage) -> None:
    await stage.post_all(dict.fromkeys(range(1, 31), 10))
    await stage.mirror.drain(stage.shop_id)
    await stage.post(1, 5)
    stage.store.world.faults.add(Fault(status=503, times=None))
    result = await stage.run()
    assert (result["total"], result["synced"], result["errors"]) == (30, 29, 1)
    (row,) = result["failedSyncs"]
    assert row["shopifyCustomerId"] == "1"
    assert "HTTP 503" in row["error"]
    stage.store.world.faults.clear()
    assert (await stage.run())["errors"] == 0
    assert stage.values()[1] == "15"


async def test_a_throttle_without_a_word_about_cost_loses_nobody(stage: Stage) -> None:
    stage.store.world.faults.add(Fault(FaultAnswer.THROTTLED, operation=WRITE))
    await stage.post_all({n: n for n in range(1, 31)})
    result = await stage.run()
    assert (result["synced"], result["errors"]) == (30, 0)
    assert stage.values() == {n: str(n) for n in range(1, 31)}
    assert [call.number for call in stage.writes() if call.throttled] != [], "or this proves nothing"


async def test_a_bucket_somebody_else_has_emptied_loses_nobody(stage: Stage) -> None:
    await stage.post(1, 1)
    await stage.mirror.drain(stage.shop_id)
    stage.shopify.budget.spend_elsewhere(stage.shopify.budget.maximum)
    await stage.post_all({n: n for n in range(2, 27)})
    result = await stage.run()
    assert (result["synced"], result["errors"]) == (26, 0)
    throttled = [call for call in stage.writes() if call.throttled]
    assert 1 <= len(throttled) <= 4, "as many as were in flight when it was found empty"
    assert (await stage.standing(2)).status == "in_step"


@pytest.mark.parametrize(
    ("breaks", "code", "cure"),
    [
        ({"token": "another one"}, "access_token_refused", "new one"),
        ({"state": ShopState.FROZEN}, "shop_frozen", "unpaid"),
        ({"state": ShopState.FORBIDDEN}, "forbidden", "write_customers"),
        ({"state": ShopState.LOCKED}, "shop_locked", "locked"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_refused_shop_is_paused_with_the_reason_and_resumes_by_itself(
    stage: Stage, breaks: dict[str, Any], code: str, cure: str
) -> None:
    await stage.post_all({1: 10, 2: 20})
    await stage.mirror.drain(stage.shop_id)
    await stage.post_all({2: 1, 3: 30})
    before: dict[str, Any] = {
        "token": stage.shopify.token,
        "plan": stage.shopify.budget.plan,
        "state": stage.shopify.state,
    }
    stage.shopify.change(**before | breaks)
    result = await stage.run()
    shop = await stage.shop()
    assert (shop.status, shop.paused_code, shop.probe_at is not None) == ("paused", code, True)
    assert shop.paused_detail is not None
    assert cure in shop.paused_detail
    assert (result["total"], result["synced"], result["errors"]) == (3, 1, 2)
    assert {row["shopifyCustomerId"]: row["error"] for row in result["failedSyncs"]} == {
        "2": shop.paused_detail,
        "3": shop.paused_detail,
    }
    assert [(await stage.standing(n)).status for n in (1, 2, 3)] == ["in_step", "paused", "paused"]

    calls = len(stage.store.world.calls.entries)
    assert (await stage.mirror.drain(stage.shop_id)).end == "paused"
    assert len(stage.store.world.calls.entries) == calls, "before the time has come it is not asked again"

    stage.shopify.change(**before)
    stage.let_back_off_pass()
    assert stage.owner.execute("select shops_with_work()").fetchall() == [(stage.shop_id,)]
    await stage.mirror.drain(stage.shop_id)
    shop = await stage.shop()
    assert (shop.status, shop.paused_code, shop.paused_detail, shop.probe_at) == ("active", None, None, None)
    assert stage.values() == {1: "10", 2: "21", 3: "30"}


async def define(stage: Stage, **given: object) -> None:
    wanted = {"ownerType": "CUSTOMER", "namespace": "loyalty", "name": "N", "type": "number_integer"} | given
    assert not stage.shopify.definitions.create(wanted).errors


async def test_a_definition_of_another_type_pauses_the_shop_with_the_cure(stage: Stage) -> None:
    await define(stage, key="points_balance", type="single_line_text_field")
    await stage.post(1, 10)
    result = await stage.run()
    shop = await stage.shop()
    assert (shop.status, shop.paused_code) == ("paused", "definition_conflict")
    (row,) = result["failedSyncs"]
    assert row["error"] == shop.paused_detail
    assert "Delete it in the Shopify admin" in row["error"]
    assert stage.writes() == []
    stage.shopify.definitions.delete(SLOT)
    stage.let_back_off_pass()
    await stage.mirror.drain(stage.shop_id)
    assert ((await stage.shop()).status, stage.values()) == ("active", {1: "10"})


async def test_a_definition_that_changes_its_type_later_is_noticed_too(stage: Stage) -> None:
    await stage.post(1, 10)
    await stage.mirror.drain(stage.shop_id)
    stage.shopify.definitions.delete(SLOT)
    stage.shopify.metafields.delete(SLOT, 1)
    await define(stage, key="points_balance", type="single_line_text_field")
    await stage.post(1, 1)
    await stage.run()
    await stage.run()
    assert (await stage.shop()).paused_code == "definition_conflict"


async def test_where_nothing_more_can_be_pinned_the_definition_is_made_unpinned(stage: Stage) -> None:
    for number in range(20):
        await define(stage, key=f"other_{number}", pin=True)
    await stage.post(1, 10)
    assert (await stage.run())["errors"] == 0
    definition = stage.shopify.definitions.get(SLOT)
    assert definition is not None
    assert definition.pinned_position is None
    assert stage.values() == {1: "10"}


async def staff_pause(stage: Stage) -> Shop:
    async with stage.db.unscoped() as conn:
        await pause_shop(conn, stage.shop_id, code=PAUSED_BY_STAFF, detail="stocktaking", resumes_by_itself=False)
    return await stage.shop()


async def test_a_pause_by_staff_is_kept_whatever_shopify_says(stage: Stage) -> None:
    await stage.post(1, 10)
    paused = await staff_pause(stage)
    async with stage.db.unscoped() as conn:
        await pause_shop(conn, stage.shop_id, code="shop_frozen", detail="unpaid", resumes_by_itself=True)
    assert await stage.shop() == paused
    result = await stage.run()
    assert (result["errors"], result["failedSyncs"][0]["error"]) == (1, "stocktaking")
    assert len(stage.store.world.calls.entries) == 0
    assert stage.owner.execute("select shops_with_work()").fetchall() == []
    async with stage.db.unscoped() as conn:
        await resume_shop(conn, stage.shop_id)
    assert (await stage.run())["errors"] == 0


async def test_a_pause_by_staff_while_a_push_is_under_way_outlasts_it(stage: Stage) -> None:
    await stage.post(1, 10)
    async with stage.db.unscoped() as conn:
        await pause_shop(conn, stage.shop_id, code="shop_frozen", detail="unpaid", resumes_by_itself=True)
    stage.let_back_off_pass()
    stage.store.world.faults.add(Fault(FaultAnswer.NORMAL, FaultApply.FIRST, operation=WRITE, hold_ms=150))
    probing = asyncio.create_task(stage.mirror.drain(stage.shop_id))
    await eventually(lambda: stage.values() == {1: "10"})
    paused = await staff_pause(stage)
    await probing
    assert (await stage.shop()).paused_by_staff
    assert (await stage.shop()).paused_detail == paused.paused_detail == "stocktaking"


async def test_staff_who_pause_a_refused_shop_are_not_overruled_by_its_recovery(stage: Stage) -> None:
    await stage.post(1, 10)
    stage.shopify.change(token=None, plan=stage.shopify.budget.plan, state=stage.shopify.state)
    await stage.run()
    await staff_pause(stage)
    shop = await stage.shop()
    assert (shop.paused_code, shop.probe_at) == (PAUSED_BY_STAFF, None)
    stage.let_back_off_pass()
    assert (await stage.mirror.drain(stage.shop_id, probe=True)).end == "paused"


async def test_a_shop_without_a_token_says_what_to_do(stage: Stage) -> None:
    await stage.post(1, 10)
    stage.owner.execute("update shops set access_token = null")
    result = await stage.run()
    assert f"shops add {DOMAIN} --access-token" in result["failedSyncs"][0]["error"]
    assert (await stage.shop()).paused_code == "no_access_token"


async def test_a_token_sealed_with_another_key_says_what_to_do(stage: Stage) -> None:
    await stage.post(1, 10)
    stage.owner.execute("update shops set access_token = 'gAAAAAB-nonsense'")
    result = await stage.run()
    assert "ENCRYPTION_KEYS" in result["failedSyncs"][0]["error"]
    # The trouble is this process's: another may have the right key, and must not find the shop paused.
    assert (await stage.shop()).status == "active"
