"""Without a known outcome nothing is believed: read back before the next write, and again while it may come late."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs
from sync_support import SLOT, Stage

from devstore import Fault, FaultAnswer, FaultApply
from devstore.gids import Gid

if TYPE_CHECKING:
    from uuid import UUID

WRITE, READ = "metafieldsSet", "nodes"
LOST = Fault(FaultAnswer.DROP, FaultApply.NEVER, operation=WRITE)
LOST_AND_APPLIED = Fault(FaultAnswer.DROP, FaultApply.FIRST, operation=WRITE)
LOST_AND_LATE = Fault(FaultAnswer.DROP, FaultApply.LATER, later_ms=3_600_000, operation=WRITE)
"""No answer, and executed when the test says so."""
CHECKS_S = (10, 60, 300)
"""So long after the last write without a known outcome a customer is read back, whatever was written since."""


async def push_with(stage: Stage, fault: Fault, amount: int) -> UUID:
    """Post to customer 1 and push, the fault upon the write."""
    stage.store.world.faults.add(fault)
    one = await stage.post(1, amount)
    await stage.mirror.drain(stage.shop_id)
    assert stage.mirror_state(1).in_doubt
    return one


async def drain_anew(stage: Stage) -> list[str]:
    """Drain; what Shopify was asked for in that turn."""
    stage.forget_log()
    await stage.mirror.drain(stage.shop_id)
    return stage.log()


def has_work(stage: Stage) -> bool:
    return stage.owner.execute("select shops_with_work()").fetchall() == [(stage.shop_id,)]


async def test_who_is_in_doubt_is_read_back_before_being_written(stage: Stage) -> None:
    await push_with(stage, LOST, 10)
    assert await drain_anew(stage) == []
    assert not has_work(stage)
    stage.let_time_pass(3)
    assert has_work(stage)
    assert await drain_anew(stage) == [READ, WRITE]
    assert (stage.values(), (await stage.standing(1)).status) == ({1: "10"}, "in_step")


async def test_who_is_in_doubt_is_not_written_however_urgent_it_is_before_being_read_back(stage: Stage) -> None:
    await push_with(stage, LOST, 10)
    stage.owner.execute("update mirror_states set due_at = '-infinity'")
    assert await drain_anew(stage) == []
    stage.let_time_pass(3)
    assert await drain_anew(stage) == [READ, WRITE]


async def test_who_shows_the_balance_already_is_not_written_again(stage: Stage) -> None:
    await push_with(stage, LOST_AND_APPLIED, 10)
    stage.let_back_off_pass()
    assert await drain_anew(stage) == [READ]
    standing = await stage.standing(1)
    assert (standing.status, standing.pushed_balance, standing.attempts) == ("in_step", 10, 0)
    assert standing.pushed_at is not None
    found = stage.shopify.metafields.get(SLOT, 1)
    assert found is not None
    assert stage.mirror_state(1).digest == found.digest
    await stage.post(1, 5)
    assert await drain_anew(stage) == [WRITE], "the digest that was read fits"
    assert (stage.values(), stage.activity("conflicts_ours")) == ({1: "15"}, 0)


async def test_a_posting_after_the_lost_write_is_written_over_what_is_there(stage: Stage) -> None:
    await push_with(stage, LOST_AND_APPLIED, 10)
    await stage.post(1, 5)
    stage.let_back_off_pass()
    assert await drain_anew(stage) == [READ, WRITE]
    assert (stage.values(), (await stage.standing(1)).status) == ({1: "15"}, "in_step")
    assert [stage.activity(f"conflicts_{whose}") for whose in ("ours", "foreign")] == [0, 0]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503, operation=READ),
        Fault(FaultAnswer.DROP, operation=READ),
        Fault(FaultAnswer.GARBAGE, operation=READ),
        Fault(FaultAnswer.GARBAGE, FaultApply.FIRST, operation=READ),
    ],
    ids=lambda fault: f"{fault.answer}-{fault.apply}",
)
async def test_a_reading_that_fails_keeps_the_doubt_and_backs_off(stage: Stage, fault: Fault) -> None:
    await push_with(stage, LOST, 10)
    before = stage.mirror_state(1)
    stage.store.world.faults.add(fault)
    stage.let_back_off_pass()
    assert await drain_anew(stage) == [READ]
    state = stage.mirror_state(1)
    assert (state.in_doubt, state.doubtful_balances, state.attempts) == (True, [10], 2)
    assert state.doubt_since == before.doubt_since
    assert state.check_at is not None
    assert 2.5 < (state.check_at - datetime.now(UTC)).total_seconds() <= 5, "4 s, and a quarter by chance"
    assert state.waits
    assert not has_work(stage)
    assert (await stage.standing(1)).error is not None
    stage.let_time_pass(5)
    assert await drain_anew(stage) == [READ, WRITE]
    assert (stage.values(), (await stage.standing(1)).attempts) == ({1: "10"}, 0)


async def test_a_throttled_reading_is_asked_again_and_changes_nothing(stage: Stage) -> None:
    await push_with(stage, LOST, 10)
    stage.store.world.faults.add(Fault(FaultAnswer.THROTTLED, operation=READ))
    stage.let_back_off_pass()
    assert await drain_anew(stage) == [READ, READ, WRITE]
    assert stage.values() == {1: "10"}


async def test_who_was_in_doubt_is_read_back_after_10_and_60_seconds_and_5_minutes_and_then_no_more(
    stage: Stage,
) -> None:
    await push_with(stage, LOST, 10)
    stage.let_time_pass(3)
    await stage.mirror.drain(stage.shop_id)
    passed_s = 3
    for check_s in CHECKS_S:
        state = stage.mirror_state(1)
        assert (state.in_doubt, state.doubtful_balances, state.check_after_s) == (False, [10], check_s)
        assert not has_work(stage)
        assert await drain_anew(stage) == []
        stage.let_time_pass(check_s - passed_s)
        passed_s = check_s
        assert has_work(stage), "though nothing is to be pushed"
        assert await drain_anew(stage) == [READ]
        assert (await stage.standing(1)).status == "in_step"
    assert stage.mirror_state(1).owes_no_check
    stage.let_time_pass(3_600)
    assert await drain_anew(stage) == []
    assert (stage.values(), stage.activity("late_writes")) == ({1: "10"}, 0)


async def test_a_check_that_comes_late_stands_for_those_before_it(stage: Stage) -> None:
    await push_with(stage, LOST, 10)
    stage.let_time_pass(70)
    await stage.mirror.drain(stage.shop_id)
    assert stage.mirror_state(1).check_after_s == 300
    stage.let_time_pass(3_600)
    assert await drain_anew(stage) == [READ]
    assert stage.mirror_state(1).owes_no_check


async def test_another_lost_write_begins_the_checks_anew_and_both_are_remembered(stage: Stage) -> None:
    await push_with(stage, LOST, 10)
    first = stage.mirror_state(1).doubt_since
    stage.let_time_pass(70)
    await stage.mirror.drain(stage.shop_id)
    await push_with(stage, LOST, 5)
    state = stage.mirror_state(1)
    assert state.doubt_since is not None
    assert first is not None
    assert state.doubt_since > first
    assert state.doubtful_balances == [10, 15]
    stage.let_time_pass(3)
    await stage.mirror.drain(stage.shop_id)
    assert stage.mirror_state(1).check_after_s == 10
    stage.let_time_pass(600)
    await stage.mirror.drain(stage.shop_id)
    assert stage.mirror_state(1).owes_no_check


async def test_between_checks_a_posting_is_pushed_at_once(stage: Stage) -> None:
    await push_with(stage, LOST, 10)
    stage.let_time_pass(3)
    await stage.mirror.drain(stage.shop_id)
    await stage.post(1, 5)
    assert await drain_anew(stage) == [WRITE]
    state = stage.mirror_state(1)
    assert (state.in_doubt, state.check_after_s) == (False, 10), "what may come late is looked for all the same"


async def test_a_posting_when_a_check_is_due_is_pushed_after_the_check(stage: Stage) -> None:
    await push_with(stage, LOST, 10)
    stage.let_time_pass(3)
    await stage.mirror.drain(stage.shop_id)
    stage.let_time_pass(10)
    await stage.post(1, 5)
    assert await drain_anew(stage) == [READ, WRITE]
    assert (stage.values(), stage.mirror_state(1).check_after_s) == ({1: "15"}, 60)


async def test_a_check_that_is_not_answered_keeps_the_customer_in_step_and_is_made_up_for(stage: Stage) -> None:
    await push_with(stage, LOST, 10)
    stage.let_time_pass(3)
    await stage.mirror.drain(stage.shop_id)
    stage.let_time_pass(10)
    stage.store.world.faults.add(Fault(status=503, operation=READ))
    assert await drain_anew(stage) == [READ]
    standing = await stage.standing(1)
    assert (standing.status, standing.error, stage.mirror_state(1).failing_since) == ("in_step", None, None)
    stage.let_time_pass(3)
    assert await drain_anew(stage) == [READ]
    assert stage.mirror_state(1).check_after_s == 60


@pytest.mark.parametrize("found_after_s", CHECKS_S)
async def test_a_late_write_that_its_digest_does_not_stop_is_found_and_written_over(
    stage: Stage, found_after_s: int
) -> None:
    """The balance returns to what the late write was made over, so its digest fits again when it arrives."""
    await stage.post(1, 10)
    await stage.mirror.drain(stage.shop_id)
    await push_with(stage, LOST_AND_LATE, 5)
    stage.let_time_pass(3)
    await stage.mirror.drain(stage.shop_id)
    await stage.post(1, -5)
    await stage.mirror.drain(stage.shop_id)
    assert ((await stage.standing(1)).status, stage.values()) == ("in_step", {1: "10"})
    passed_s = 3
    for check_s in CHECKS_S:
        if check_s == found_after_s:
            assert stage.store.world.apply_late() == 1
            assert stage.values() == {1: "15"}, "or this proves nothing"
        stage.let_time_pass(check_s - passed_s)
        passed_s = check_s
        with capture_logs() as logs:
            asked = await drain_anew(stage)
        assert asked == ([READ, WRITE] if check_s == found_after_s else [READ])
        late = [one["found"] for one in logs if "a late write of ours" in one["event"]]
        assert late == ([15] if check_s == found_after_s else [])
        assert ((await stage.standing(1)).status, stage.values()) == ("in_step", {1: "10"})
    assert stage.mirror_state(1).owes_no_check
    counted = {name: stage.activity(name) for name in ("late_writes", "conflicts_ours", "conflicts_foreign")}
    assert counted == {"late_writes": 1, "conflicts_ours": 0, "conflicts_foreign": 0}


async def test_what_a_check_finds_that_was_never_ours_is_counted_as_somebody_elses(stage: Stage) -> None:
    await push_with(stage, LOST, 10)
    stage.let_time_pass(3)
    await stage.mirror.drain(stage.shop_id)
    stage.overwrite(1, "999")
    stage.let_time_pass(10)
    with capture_logs() as logs:
        assert await drain_anew(stage) == [READ, WRITE]
    assert [one["found"] for one in logs if "somebody else wrote" in one["event"]] == [999]
    assert (stage.activity("conflicts_foreign"), stage.activity("late_writes")) == (1, 0)
    assert stage.values() == {1: "10"}


async def test_who_turns_out_to_be_gone_is_missing_and_in_doubt_no_more(stage: Stage) -> None:
    one = await push_with(stage, LOST, 10)
    stage.shopify.delete_customer(1)
    stage.let_back_off_pass()
    assert await drain_anew(stage) == [READ]
    standing = await stage.standing(1)
    assert standing.status == "missing"
    assert standing.error is not None
    assert "no such customer" in standing.error
    state = stage.mirror_state(1)
    assert state.owes_no_check
    assert (state.digest, stage.activity("conflicts_foreign")) == (None, 0)
    result = await stage.run()
    assert [row["customerId"] for row in result["failedSyncs"]] == [str(one)]
    stage.shopify.add_customers([1])
    assert (await stage.run())["synced"] == 1
    assert stage.values() == {1: "10"}


async def test_who_is_gone_when_a_check_is_due_is_missing_though_everything_was_in_step(stage: Stage) -> None:
    await push_with(stage, LOST, 10)
    stage.let_time_pass(3)
    await stage.mirror.drain(stage.shop_id)
    stage.shopify.delete_customer(1)
    stage.let_time_pass(10)
    assert await drain_anew(stage) == [READ]
    assert (await stage.standing(1)).status == "missing"
    assert stage.mirror_state(1).owes_no_check
    assert (stage.activity("late_writes"), stage.activity("conflicts_foreign")) == (0, 0)


async def test_who_turns_out_to_be_gone_when_written_owes_no_check_any_more(stage: Stage) -> None:
    await push_with(stage, LOST, 10)
    stage.let_time_pass(3)
    await stage.mirror.drain(stage.shop_id)
    stage.shopify.delete_customer(1)
    await stage.post(1, 5)
    assert await drain_anew(stage) == [WRITE]
    assert (await stage.standing(1)).status == "missing"
    state = stage.mirror_state(1)
    assert state.owes_no_check
    assert state.digest is None, "who comes back comes without a value"


async def test_a_value_of_another_type_found_by_reading_back_is_written_over(stage: Stage) -> None:
    await push_with(stage, LOST, 10)
    stage.shopify.put_metafield(Gid("Customer", 1), SLOT.namespace, SLOT.key, "10", "single_line_text_field")
    stage.let_back_off_pass()
    assert await drain_anew(stage) == [READ, WRITE]
    found = stage.shopify.metafields.get(SLOT, 1)
    assert found is not None
    assert (found.type, found.value, (await stage.standing(1)).status) == ("number_integer", "10", "in_step")


async def test_many_in_doubt_are_read_back_in_one_call(stage: Stage) -> None:
    stage.store.world.faults.add(LOST_AND_APPLIED)
    stage.store.world.faults.add(LOST)
    await stage.post_all({n: n for n in range(1, 31)})
    await stage.mirror.drain(stage.shop_id)
    stage.let_back_off_pass()
    asked = await drain_anew(stage)
    assert asked in ([READ, WRITE], [READ, WRITE, WRITE])
    assert len({owner for call in stage.writes() for owner in call.owners}) in {5, 25}, "who had been written is not"
    assert stage.values() == {n: str(n) for n in range(1, 31)}


async def test_in_doubt_and_conflicted_while_shopify_keeps_silent_nobody_is_written_blindly(stage: Stage) -> None:
    await stage.post(1, 10)
    await stage.mirror.drain(stage.shop_id)
    stage.overwrite(1, "999")
    await stage.post(1, 5)
    stage.store.world.faults.add(Fault(status=503, operation=READ))
    assert await drain_anew(stage) == [WRITE, READ]
    state = stage.mirror_state(1)
    assert (state.in_doubt, state.conflicted) == (True, True)
    stage.let_time_pass(10)
    assert await drain_anew(stage) == [READ, WRITE]
    assert (stage.values(), stage.activity("conflicts_foreign")) == ({1: "15"}, 1)
    assert stage.mirror_state(1).owes_no_check, "no write of ours is unaccounted for"


async def test_a_run_reads_back_at_once_whoever_is_in_doubt(stage: Stage) -> None:
    await push_with(stage, LOST, 10)
    stage.owner.execute("update mirror_states set (due_at, check_at) = (now() + '1 hour', now() + '1 hour')")
    stage.forget_log()
    result = await stage.run()
    assert (result["synced"], stage.log(), stage.values()) == (1, [READ, WRITE], {1: "10"})


async def test_the_shop_in_numbers_counts_who_is_in_doubt_and_what_was_read(stage: Stage) -> None:
    await push_with(stage, LOST, 10)
    counted = "select in_doubt, outcomes_unknown, customers_read from fleet_counts()"
    assert stage.owner.execute(counted).fetchone() == (1, 1, 0)
    stage.let_back_off_pass()
    await stage.mirror.drain(stage.shop_id)
    assert stage.owner.execute(counted).fetchone() == (0, 1, 1)
