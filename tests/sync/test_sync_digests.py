"""Every write names what it replaces: what somebody else wrote, or we wrote late, is found and written over at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs
from sync_support import SLOT, Stage

from devstore import Fault, FaultAnswer, FaultApply
from devstore.gids import Gid
from metafield_sync.sync.claims import claim_stale
from metafield_sync.sync.lease import shop_lease
from metafield_sync.sync.one_customer import sync_customer
from metafield_sync.sync.outcomes import record_pushed

if TYPE_CHECKING:
    from sync_probes import Listener

WRITE, READ = "metafieldsSet", "nodes"
LOST_AND_LATE = Fault(FaultAnswer.DROP, FaultApply.LATER, later_ms=3_600_000, operation=WRITE)
"""No answer, and executed when the test says so."""


def digest_of(stage: Stage, customer: int) -> str | None:
    """Shopify's digest of what it holds."""
    found = stage.shopify.metafields.get(SLOT, customer)
    return None if found is None else found.digest


def conflicts(stage: Stage) -> tuple[int, int]:
    """How many refused digests were our own doing, and how many somebody else's."""
    return stage.activity("conflicts_ours"), stage.activity("conflicts_foreign")


def found_by_others(logs: list[Any]) -> list[tuple[str, Any]]:
    """What the log says of values that were not what we believed: level and value."""
    return [(one["log_level"], one["found"]) for one in logs if "somebody else wrote" in one["event"]]


async def test_the_first_write_goes_through_only_if_absent_and_each_next_one_only_over_the_last(stage: Stage) -> None:
    shopify = stage.listen()
    replaced: list[str | None] = []
    for amount in (10, 5, -3):
        replaced.append(digest_of(stage, 1))
        await stage.post(1, amount)
        await stage.mirror.drain(stage.shop_id)
        assert stage.mirror_state(1).digest == digest_of(stage, 1)
    assert shopify.digests == [{1: None}, {1: replaced[1]}, {1: replaced[2]}]
    assert len(set(replaced)) == 3
    assert (stage.values(), conflicts(stage)) == ({1: "12"}, (0, 0))


async def test_a_forced_write_names_what_it_replaces_too(stage: Stage) -> None:
    await stage.post(1, 10)
    await stage.run()
    shopify = stage.listen()
    await stage.run(forced=True)
    assert shopify.digests == [{1: digest_of(stage, 1)}]


async def test_what_somebody_else_wrote_is_written_over_in_the_same_turn_counted_and_told(stage: Stage) -> None:
    await stage.post(1, 10)
    await stage.mirror.drain(stage.shop_id)
    stage.overwrite(1, "999")
    await stage.post(1, 5)
    stage.forget_log()
    with capture_logs() as logs:
        report = await stage.mirror.drain(stage.shop_id)
    assert (report.end, report.pushed, report.refused) == ("idle", 1, 0)
    assert stage.values() == {1: "15"}
    assert stage.log() == [WRITE, READ, WRITE]
    counted = {name: stage.activity(name) for name in ("customers_pushed", "customers_read", "customers_refused")}
    assert counted == {"customers_pushed": 2, "customers_read": 1, "customers_refused": 0}
    assert (conflicts(stage), stage.activity("late_writes")) == ((0, 1), 0)
    assert found_by_others(logs) == [("warning", 999)]
    standing = await stage.standing(1)
    assert (standing.status, standing.attempts, standing.error) == ("in_step", 0, None)
    assert stage.mirror_state(1).owes_no_check


async def test_what_somebody_deleted_is_written_again_in_the_same_turn(stage: Stage) -> None:
    await stage.post(1, 10)
    await stage.mirror.drain(stage.shop_id)
    shopify = stage.listen()
    held = digest_of(stage, 1)
    stage.shopify.metafields.delete(SLOT, 1)
    await stage.post(1, 5)
    with capture_logs() as logs:
        await stage.mirror.drain(stage.shop_id)
    assert shopify.digests == [{1: held}, {1: None}]
    assert (stage.values(), conflicts(stage), found_by_others(logs)) == ({1: "15"}, (0, 1), [("warning", None)])
    assert (await stage.standing(1)).status == "in_step"


async def test_what_is_of_another_type_is_written_over(stage: Stage) -> None:
    await stage.post(1, 10)
    await stage.mirror.drain(stage.shop_id)
    stage.shopify.put_metafield(Gid("Customer", 1), SLOT.namespace, SLOT.key, "10", "single_line_text_field")
    await stage.post(1, 5)
    with capture_logs() as logs:
        await stage.mirror.drain(stage.shop_id)
    shown = stage.shopify.metafields.get(SLOT, 1)
    assert shown is not None
    assert (shown.type, shown.value) == ("number_integer", "15")
    assert (conflicts(stage), found_by_others(logs)) == ((0, 1), [("warning", None)])


async def test_somebody_who_wrote_the_same_is_no_conflict(stage: Stage) -> None:
    await stage.post(1, 10)
    await stage.mirror.drain(stage.shop_id)
    stage.overwrite(1, "15")
    await stage.post(1, 5)
    stage.forget_log()
    await stage.mirror.drain(stage.shop_id)
    assert (stage.log(), stage.values(), conflicts(stage)) == ([WRITE], {1: "15"}, (0, 0))


async def test_a_conflict_holds_up_nobody_else_in_the_batch(stage: Stage) -> None:
    await stage.post_all({n: n for n in range(1, 11)})
    await stage.mirror.drain(stage.shop_id)
    for customer in (3, 8):
        stage.overwrite(customer, "999")
    await stage.post_all(dict.fromkeys(range(1, 11), 100))
    stage.forget_log()
    report = await stage.mirror.drain(stage.shop_id)
    assert (report.pushed, report.refused, conflicts(stage)) == (10, 0, (0, 2))
    assert stage.values() == {n: str(n + 100) for n in range(1, 11)}
    assert len(stage.log()) <= 4


async def test_a_late_write_of_our_own_that_came_between_is_counted_as_ours(stage: Stage) -> None:
    await stage.post(1, 10)
    await stage.mirror.drain(stage.shop_id)
    stage.store.world.faults.add(LOST_AND_LATE)
    await stage.post(1, 5)
    await stage.mirror.drain(stage.shop_id)
    await stage.post(1, 1)
    stage.let_back_off_pass()
    # It was read back as 10; before 16 is written over that, the lost 15 arrives.
    stage.listen().before.append(stage.store.world.apply_late)
    with capture_logs() as logs:
        await stage.mirror.drain(stage.shop_id)
    assert stage.log()[-4:] == [READ, WRITE, READ, WRITE]
    assert (stage.values(), conflicts(stage), stage.activity("late_writes")) == ({1: "16"}, (1, 0), 0)
    assert found_by_others(logs) == []
    assert (await stage.standing(1)).status == "in_step"


async def test_a_late_write_that_comes_after_its_successor_is_refused_by_its_digest(stage: Stage) -> None:
    for amount in (10, 5):
        stage.store.world.faults.add(LOST_AND_LATE)
        await stage.post(1, amount)
        await stage.mirror.drain(stage.shop_id)
        stage.let_back_off_pass()
        await stage.mirror.drain(stage.shop_id)
    await stage.post(1, 1)
    await stage.mirror.drain(stage.shop_id)
    assert stage.store.world.apply_late() == 2
    assert (stage.values(), conflicts(stage)) == ({1: "16"}, (0, 0))


async def test_who_is_deleted_before_being_read_back_is_gone_and_no_foreign_write(stage: Stage) -> None:
    await stage.post(1, 10)
    await stage.mirror.drain(stage.shop_id)
    stage.overwrite(1, "999")
    await stage.post(1, 5)
    stage.forget_log()
    soon = asyncio.get_running_loop().call_soon
    stage.listen().before.append(lambda: soon(stage.shopify.delete_customer, 1))
    await stage.mirror.drain(stage.shop_id)
    assert (stage.log(), conflicts(stage)) == ([WRITE, READ], (0, 0))
    assert (await stage.standing(1)).status == "missing"
    assert stage.mirror_state(1).owes_no_check


async def test_who_was_pushed_before_digests_were_kept_is_read_once_and_is_nobody_elses_doing(stage: Stage) -> None:
    await stage.post_all({n: n for n in range(1, 26)})
    await stage.mirror.drain(stage.shop_id)
    stage.owner.execute("update mirror_states set digest = null")
    await stage.post_all(dict.fromkeys(range(1, 26), 100))
    stage.forget_log()
    await stage.mirror.drain(stage.shop_id)
    assert stage.log() == [WRITE, READ, WRITE]
    assert stage.values() == {n: str(n + 100) for n in range(1, 26)}
    assert conflicts(stage) == (25, 0)


async def test_whose_digest_an_acknowledgement_leaves_out_is_read_back_before_the_next_write(stage: Stage) -> None:
    await stage.post(1, 10)
    async with shop_lease(stage.db, stage.shop_id, "holder") as lease:
        assert lease is not None
        async with stage.db.shop(stage.shop_id) as conn:
            batch = await claim_stale(conn, lease, limit=25, besides=())
        assert batch is not None
        stage.overwrite(1, "10")
        await record_pushed(stage.db, lease, batch, {})
    assert ((await stage.standing(1)).status, stage.mirror_state(1).digest) == ("in_step", None)
    assert stage.owner.execute("select shops_with_work()").fetchall() == [(stage.shop_id,)]
    await stage.mirror.drain(stage.shop_id)
    assert (stage.log(), stage.mirror_state(1).digest) == ([READ], digest_of(stage, 1))
    assert stage.mirror_state(1).owes_no_check


async def test_the_values_of_an_earlier_app_cost_one_reading_for_a_full_batch(stage: Stage) -> None:
    for customer in range(1, 26):
        stage.overwrite(customer, str(1_000 + customer))
    await stage.post_all({n: n for n in range(1, 26)})
    report = await stage.mirror.drain(stage.shop_id)
    assert stage.log() == [WRITE, READ, WRITE]
    assert (report.pushed, report.refused) == (25, 0)
    assert stage.values() == {n: str(n) for n in range(1, 26)}
    assert conflicts(stage) == (0, 25)


async def test_so_they_do_if_shopify_names_only_the_first_of_those_it_refuses(stage: Stage) -> None:
    for customer in range(1, 26):
        stage.overwrite(customer, str(1_000 + customer))
    await stage.post_all({n: n for n in range(1, 26)})
    stage.listen(names_one_at_a_time=True)
    await stage.mirror.drain(stage.shop_id)
    assert stage.log() == [WRITE, READ, WRITE]
    assert stage.values() == {n: str(n) for n in range(1, 26)}
    assert [(await stage.standing(n)).status for n in range(1, 26)] == ["in_step"] * 25
    assert conflicts(stage) == (0, 1), "whose digest was refused; the others were read before they could be"


async def test_an_earlier_apps_values_among_customers_without_one_are_found_in_one_reading(stage: Stage) -> None:
    for customer in range(1, 31, 3):
        stage.overwrite(customer, "7")
    await stage.post_all(dict.fromkeys(range(1, 31), 5))
    stage.listen(names_one_at_a_time=True)
    await stage.mirror.drain(stage.shop_id)
    assert stage.values() == dict.fromkeys(range(1, 31), "5")
    assert len(stage.log()) <= 6, "two batches, each of them refused once, read back once and written"


def fight(stage: Stage, rounds: int) -> Listener:
    """Have somebody overwrite customer 1's metafield right before each of our next writes."""
    shopify = stage.listen()
    for number in range(rounds):
        shopify.before.append(lambda value=str(900 + number): stage.overwrite(1, value))
    return shopify


async def test_who_is_fought_over_is_left_alone_for_a_while(stage: Stage) -> None:
    await stage.post(1, 10)
    shopify = fight(stage, rounds=5)
    report = await stage.mirror.drain(stage.shop_id)
    assert (report.end, len(shopify.digests)) == ("idle", 3), "twice again at once, then no more"
    standing = await stage.standing(1)
    assert (standing.status, standing.attempts) == ("in_doubt", 3)
    assert standing.error is not None
    assert "another value than believed" in standing.error
    state = stage.mirror_state(1)
    assert state.conflicted
    assert state.failing_since is not None
    assert state.waits
    shopify.before.clear()
    stage.let_back_off_pass()
    await stage.mirror.drain(stage.shop_id)
    standing = await stage.standing(1)
    assert (stage.values(), standing.status, standing.attempts, standing.error) == ({1: "10"}, "in_step", 0, None)
    assert conflicts(stage) == (0, 3)


async def test_a_run_tells_who_is_fought_over_and_ends(stage: Stage) -> None:
    await stage.post_all({1: 10, 2: 20})
    fight(stage, rounds=100)
    result = await stage.run()
    assert (result["synced"], result["errors"]) == (1, 1)
    (row,) = result["failedSyncs"]
    assert row["shopifyCustomerId"] == "1"
    assert "another value than believed" in row["error"]


async def test_whoever_waits_for_one_who_is_fought_over_is_told(stage: Stage) -> None:
    one = await stage.post(1, 10)
    fight(stage, rounds=100)
    told = await sync_customer(stage.mirror, stage.shop_id, one, wait_s=10)
    assert told.error is not None
    assert "another value than believed" in told.error


@pytest.mark.parametrize("kind", ["sync", "verify"])
async def test_a_run_written_into_by_somebody_else_ends_with_the_ledgers_balances(stage: Stage, kind: Any) -> None:
    await stage.post_all({1: 10, 2: 20})
    await stage.run()
    await stage.post_all({1: 1, 2: 1})
    fight(stage, rounds=1)
    result = await stage.run(kind)
    assert (result["synced"], result["errors"], result["pushed"]) == (2, 0, 2)
    assert stage.values() == {1: "11", 2: "21"}
