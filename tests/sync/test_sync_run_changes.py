"""What a run changed, customer by customer: what Shopify showed before, what it shows now, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sync_support import Stage

from devstore import Fault, FaultAnswer, FaultApply

if TYPE_CHECKING:
    from collections.abc import Mapping

WRITE, READ = "metafieldsSet", "nodes"
Change = tuple[int, str, str | None, str | None, str]


def changes(stage: Stage, result: Mapping[str, Any]) -> list[Change]:
    """What is on record of a run: Shopify id, change, before, after, reason."""
    return stage.owner.execute(
        """
        select c.shopify_customer_id, d.change, d.before, d.after, d.reason
        from sync_run_changes d
        join customers c on c.shop_id = d.shop_id and c.id = d.customer_id
        where d.run_id = %s
        order by 1, 2
        """,
        (result["runId"],),
    ).fetchall()


async def test_a_run_has_a_row_for_each_customer_it_pushed_and_none_for_who_was_in_step(stage: Stage) -> None:
    await stage.post_all({1: 10, 2: 20, 3: 30})
    assert changes(stage, await stage.run()) == [
        (1, "pushed", None, "10", "sync"),
        (2, "pushed", None, "20", "sync"),
        (3, "pushed", None, "30", "sync"),
    ]
    await stage.post_all({1: 5, 3: -30})
    assert changes(stage, await stage.run()) == [
        (1, "pushed", "10", "15", "sync"),
        (3, "pushed", "30", "0", "sync"),
    ]
    assert changes(stage, await stage.run()) == []


async def test_a_forced_run_has_a_row_for_everybody(stage: Stage) -> None:
    await stage.post_all({1: 10, 2: 20})
    await stage.run()
    await stage.post(2, 1)
    assert changes(stage, await stage.run(forced=True)) == [
        (1, "pushed", "10", "10", "sync"),
        (2, "pushed", "20", "21", "sync"),
    ]


async def test_a_verification_has_a_row_for_who_was_repaired(stage: Stage) -> None:
    await stage.post_all({1: 10, 2: 20})
    await stage.run()
    stage.owner.execute("update customers set current_balance = 999 where shopify_customer_id = 1")
    await stage.mirror.drain(stage.shop_id)
    assert changes(stage, await stage.run("verify")) == [(1, "pushed", "999", "10", "verify")]


async def test_who_could_not_be_pushed_has_a_row_with_the_reason(stage: Stage) -> None:
    await stage.post_all({1: 10, 2: 20})
    stage.shopify.delete_customer(2)
    found = changes(stage, await stage.run())
    assert found[0] == (1, "pushed", None, "10", "sync")
    assert found[1][:4] == (2, "failed", None, "20")
    assert "no such customer" in found[1][4]
    assert len(found) == 2


async def test_a_conflict_leaves_one_row_with_the_outcome(stage: Stage) -> None:
    await stage.post(1, 10)
    await stage.run()
    stage.overwrite(1, "999")
    await stage.post(1, 5)
    assert changes(stage, await stage.run()) == [(1, "pushed", "10", "15", "sync")]


@pytest.mark.usefixtures("short_back_off")
@pytest.mark.parametrize("apply", [FaultApply.FIRST, FaultApply.NEVER])
async def test_a_push_whose_answer_was_lost_has_its_row_too(stage: Stage, apply: FaultApply) -> None:
    await stage.post(1, 10)
    await stage.run()
    await stage.post(1, 5)
    stage.forget_log()
    stage.store.world.faults.add(Fault(FaultAnswer.DROP, apply, operation=WRITE))
    result = await stage.run()
    assert stage.log() == ([WRITE, READ] if apply is FaultApply.FIRST else [WRITE, READ, WRITE])
    assert (result["synced"], result["errors"]) == (1, 0)
    assert changes(stage, result) == [(1, "pushed", "10", "15", "sync")]


async def test_what_is_pushed_while_no_run_is_at_work_is_in_none(stage: Stage) -> None:
    await stage.post(1, 10)
    await stage.mirror.drain(stage.shop_id)
    assert stage.owner.execute("select count(*) from sync_run_changes").fetchone() == (0,)
    assert changes(stage, await stage.run()) == []
