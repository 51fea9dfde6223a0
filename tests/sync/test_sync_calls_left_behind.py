"""A process that dies, or loses its lease, with calls under way: whoever takes over looks before it writes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs
from sync_support import Stage, end_lease, eventually, kill, open_mirror

from devstore import Fault, FaultAnswer, FaultApply
from metafield_sync.sync import outcomes
from metafield_sync.sync.doubt import adopt_calls_left_behind
from metafield_sync.sync.lease import shop_lease

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from metafield_sync.db.database import Database
    from metafield_sync.sync.claims import Batch
    from metafield_sync.sync.lease import Lease

WRITE, READ = "metafieldsSet", "nodes"
APPLIED = Fault(FaultAnswer.NORMAL, FaultApply.FIRST, operation=WRITE, hold_ms=60_000)
"""Executed, and not answered before the process dies."""
LATE = Fault(FaultAnswer.NORMAL, FaultApply.LATER, operation=WRITE, hold_ms=60_000, later_ms=3_600_000)
"""The same, executed when the test says so."""


async def die_pushing(stage: Stage, fault: Fault) -> None:
    """A process sends what is due and dies before it has an answer."""
    stage.store.world.faults.add(fault)
    async with open_mirror(stage.db, stage.store) as elsewhere:
        drain = asyncio.create_task(elsewhere.drain(stage.shop_id))
        await eventually(lambda: any(fired for _, _, fired in stage.store.world.faults))
        await eventually(lambda: bool(stage.values() if fault.apply is FaultApply.FIRST else stage.store.world.late))
        await kill(stage, drain)


def leave_behind(stage: Stage, token: int, *calls: dict[UUID, int]) -> None:
    """Put calls on record as a holder of the lease with that token would, and left them."""
    for call in calls:
        stage.owner.execute(
            "insert into push_calls (shop_id, token, customers, balances) values (%s, %s, %s, %s)",
            (stage.shop_id, token, list(call), list(call.values())),
        )


async def drain_anew(stage: Stage) -> list[str]:
    """Drain; what Shopify was asked for in that turn."""
    stage.forget_log()
    await stage.mirror.drain(stage.shop_id)
    return stage.log()


async def test_a_call_is_on_record_from_before_it_leaves_until_its_outcome_is(stage: Stage) -> None:
    ids = await stage.post_all({1: 10, 2: 20})
    on_record: list[tuple[dict[UUID, int], bool]] = []

    def look() -> None:
        ((_, customers, balances),) = stage.calls_on_record()
        on_record.append((dict(zip(customers, balances, strict=True)), bool(stage.values())))

    stage.listen().before.append(look)
    await stage.mirror.drain(stage.shop_id)
    assert on_record == [({ids[1]: 10, ids[2]: 20}, False)]
    assert stage.calls_on_record() == []


async def test_whom_a_killed_process_wrote_is_read_first_and_written_only_where_it_is_wrong(stage: Stage) -> None:
    ids = await stage.post_all({1: 10, 2: 20})
    await die_pushing(stage, APPLIED)
    ((_, customers, balances),) = stage.calls_on_record()
    assert dict(zip(customers, balances, strict=True)) == {ids[1]: 10, ids[2]: 20}
    await stage.post(1, 5)
    assert stage.owner.execute("select shops_with_work()").fetchall() == [(stage.shop_id,)]
    stage.forget_log()
    with capture_logs() as logs:
        report = await stage.mirror.drain(stage.shop_id)
    assert (stage.log(), report.pushed, stage.values()) == ([READ, WRITE], 1, {1: "15", 2: "20"})
    assert [one["customers"] for one in logs if "left behind" in one["event"]] == [2]
    assert stage.calls_on_record() == []
    assert [(await stage.standing(n)).status for n in (1, 2)] == ["in_step", "in_step"]
    assert [stage.mirror_state(n).doubtful_balances for n in (1, 2)] == [[10], [20]]
    assert [stage.mirror_state(n).check_after_s for n in (1, 2)] == [10, 10]
    assert (stage.activity("conflicts_ours"), stage.activity("conflicts_foreign")) == (0, 0)


async def test_what_a_killed_process_sent_and_was_not_applied_is_written(stage: Stage) -> None:
    await stage.post_all({1: 10, 2: 20})
    await die_pushing(stage, LATE)
    assert await drain_anew(stage) == [READ, WRITE]
    assert stage.values() == {1: "10", 2: "20"}
    await stage.post_all({1: 1, 2: 2})
    await stage.mirror.drain(stage.shop_id)
    assert stage.store.world.apply_late() == 1
    assert stage.values() == {1: "11", 2: "22"}, "refused: it was to create what is there by now"


async def test_a_killed_process_s_write_that_arrives_late_does_not_win_in_the_end(stage: Stage) -> None:
    await stage.post(1, 10)
    await stage.mirror.drain(stage.shop_id)
    await stage.post(1, 5)
    await die_pushing(stage, LATE)
    await stage.post(1, -5)
    assert await drain_anew(stage) == [READ]
    assert (await stage.standing(1)).status == "in_step"
    assert stage.store.world.apply_late() == 1
    assert stage.values() == {1: "15"}, "or this proves nothing"
    stage.let_time_pass(10)
    assert await drain_anew(stage) == [READ, WRITE]
    assert (stage.values(), stage.activity("late_writes"), stage.activity("conflicts_foreign")) == ({1: "10"}, 1, 0)


async def test_who_is_in_step_and_named_by_a_call_left_behind_is_read_back_all_the_same(stage: Stage) -> None:
    ids = await stage.post_all({1: 10, 2: 20})
    await stage.mirror.drain(stage.shop_id)
    leave_behind(stage, 0, {ids[1]: 7, ids[2]: 20}, {ids[1]: 8})
    stage.overwrite(1, "7")
    assert await drain_anew(stage) == [READ, WRITE]
    assert stage.values() == {1: "10", 2: "20"}
    assert len(stage.writes()[-1].owners) == 1
    assert stage.mirror_state(1).doubtful_balances == [7, 8]
    assert [(await stage.standing(n)).status for n in (1, 2)] == ["in_step", "in_step"]
    for _ in range(3):
        stage.let_time_pass(400)
        await stage.mirror.drain(stage.shop_id)
    assert stage.mirror_state(1).owes_no_check
    assert stage.mirror_state(2).owes_no_check


async def test_who_is_known_to_be_gone_stays_so(stage: Stage) -> None:
    one = await stage.post(1, 10)
    stage.shopify.delete_customer(1)
    await stage.mirror.drain(stage.shop_id)
    leave_behind(stage, 0, {one: 10})
    assert await drain_anew(stage) == []
    assert (await stage.standing(1)).status == "missing"
    assert stage.mirror_state(1).owes_no_check
    assert stage.calls_on_record() == []


async def test_only_calls_of_earlier_holders_are_taken_for_left_behind(stage: Stage) -> None:
    ids = await stage.post_all({1: 10, 2: 20, 3: 30})
    await stage.mirror.drain(stage.shop_id)
    async with shop_lease(stage.db, stage.shop_id, "holder") as lease:
        assert lease is not None
        leave_behind(stage, lease.token - 1, {ids[1]: 10})
        leave_behind(stage, lease.token, {ids[2]: 20})
        leave_behind(stage, lease.token + 1, {ids[3]: 30})
        assert await adopt_calls_left_behind(stage.db, lease) == 1
        assert await adopt_calls_left_behind(stage.db, lease) == 0
    assert [stage.mirror_state(n).in_doubt for n in (1, 2, 3)] == [True, False, False]
    assert [call[0] for call in stage.calls_on_record()] == [lease.token, lease.token + 1]
    for _ in range(3):
        await stage.mirror.drain(stage.shop_id)
    assert stage.calls_on_record() == []


async def test_a_process_that_is_told_to_stop_leaves_no_call_behind(stage: Stage) -> None:
    one = await stage.post(1, 10)
    stage.store.world.faults.add(Fault(FaultAnswer.NORMAL, FaultApply.FIRST, operation=WRITE, hold_ms=150))
    async with open_mirror(stage.db, stage.store) as elsewhere:
        elsewhere.begin_drain(stage.shop_id, serve=one)
        await eventually(lambda: stage.values() == {1: "10"})
        assert len(stage.calls_on_record()) == 1
        await elsewhere.close()
    assert stage.calls_on_record() == []
    assert (await stage.standing(1)).status == "in_step"


class Sleeper:
    """Holds up the first recording of a push until it is woken, as when the whole process is stopped for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._may_go_on = asyncio.Event()
        self._record = outcomes.record_pushed
        self._sleeps = True
        monkeypatch.setattr(outcomes, "record_pushed", self._record_pushed)

    async def _record_pushed(self, db: Database, lease: Lease, batch: Batch, digests: Mapping[int, str]) -> None:
        if self._sleeps:
            self._sleeps = False
            await self._may_go_on.wait()
        await self._record(db, lease, batch, digests)

    def wake(self) -> None:
        self._may_go_on.set()


async def test_who_lost_the_lease_after_sending_puts_whom_it_wrote_in_doubt(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.post_all({1: 10, 2: 20})
    sleeper = Sleeper(monkeypatch)
    overslept = asyncio.create_task(stage.mirror.drain(stage.shop_id))
    await eventually(lambda: len(stage.values()) == 2)
    await end_lease(stage)
    await stage.post(1, 5)
    stage.forget_log()
    async with open_mirror(stage.db, stage.store) as elsewhere:
        assert (await elsewhere.drain(stage.shop_id)).end == "idle"
    assert stage.log() == [READ, WRITE]
    assert [(await stage.standing(n)).status for n in (1, 2)] == ["in_step", "in_step"]
    before = stage.mirror_state(1).doubt_since
    sleeper.wake()
    report = await overslept
    assert (report.end, report.pushed) == ("busy", 0)
    state = stage.mirror_state(1)
    assert (state.in_doubt, state.doubtful_balances) == (True, [10, 10]), "what has left may be applied at any time"
    assert before is not None
    assert state.doubt_since is not None
    assert state.doubt_since > before
    assert await drain_anew(stage) == [READ]
    assert [(await stage.standing(n)).status for n in (1, 2)] == ["in_step", "in_step"]
    assert (stage.values(), stage.mirror_state(1).check_after_s) == ({1: "15", 2: "20"}, 10)


async def test_a_doubt_that_is_told_while_the_successor_writes_is_looked_into_after_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.post(1, 10)
    sleeper = Sleeper(monkeypatch)
    overslept = asyncio.create_task(stage.mirror.drain(stage.shop_id))
    await eventually(lambda: stage.values() == {1: "10"})
    await end_lease(stage)
    await stage.post(1, 5)
    stage.store.world.faults.add(Fault(FaultAnswer.NORMAL, FaultApply.FIRST, operation=WRITE, hold_ms=200))
    async with open_mirror(stage.db, stage.store) as elsewhere:
        successor = asyncio.create_task(elsewhere.drain(stage.shop_id))
        await eventually(lambda: stage.values() == {1: "15"})
        sleeper.wake()
        assert (await overslept).end == "busy"
        assert stage.mirror_state(1).in_doubt
        await successor
    assert stage.log() == [WRITE, READ, WRITE, READ]
    assert ((await stage.standing(1)).status, stage.values()) == ("in_step", {1: "15"})


async def test_who_lost_the_lease_and_gets_no_answer_either_records_nothing_and_ends(stage: Stage) -> None:
    await stage.post(1, 10)
    await stage.mirror.drain(stage.shop_id)
    await stage.post(1, 5)
    stage.store.world.faults.add(
        Fault(FaultAnswer.DROP, FaultApply.LATER, operation=WRITE, hold_ms=300, later_ms=3_600_000)
    )
    overslept = asyncio.create_task(stage.mirror.drain(stage.shop_id))
    await eventually(lambda: bool(stage.store.world.late))
    await end_lease(stage)
    await stage.post(1, -5)
    async with open_mirror(stage.db, stage.store) as elsewhere:
        await elsewhere.drain(stage.shop_id)
        assert (await overslept).end == "busy"
        await elsewhere.drain(stage.shop_id)
    assert ((await stage.standing(1)).status, stage.values()) == ("in_step", {1: "10"})
    assert stage.store.world.apply_late() == 1
    assert stage.values() == {1: "15"}, "or this proves nothing"
    stage.let_time_pass(10)
    await stage.mirror.drain(stage.shop_id)
    assert ((await stage.standing(1)).status, stage.values()) == ("in_step", {1: "10"})
