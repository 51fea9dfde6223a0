"""The lease: one drain a shop at a time, and one that overslept records nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest
from sync_support import Stage, end_lease, eventually, open_mirror

from devstore import Fault, FaultAnswer, FaultApply
from metafield_sync.sync import claims, outcomes
from metafield_sync.sync.claims import Check
from metafield_sync.sync.lease import LEASE_MARGIN_S, LeaseLost, shop_lease

if TYPE_CHECKING:
    from metafield_sync.sync.claims import Batch, Claim
    from metafield_sync.sync.lease import Lease

HOLD = Fault(FaultAnswer.NORMAL, FaultApply.FIRST, operation="metafieldsSet", hold_ms=200)
MIRROR_STATE = "select to_jsonb(m) - 'due_at' from mirror_states m"


DIGESTS = {1: "digest of 1", 2: "digest of 2"}


async def claim(stage: Stage, lease: Lease) -> Batch | None:
    async with stage.db.shop(stage.shop_id) as conn:
        return await claims.claim_stale(conn, lease, limit=25, besides=())


async def claim_some(stage: Stage, lease: Lease) -> Batch:
    batch = await claim(stage, lease)
    assert batch is not None
    return batch


def check_of(claim: Claim) -> Check:
    return Check(
        customer_id=claim.customer_id,
        shopify_customer_id=claim.shopify_customer_id,
        version=claim.version,
        balance=claim.balance,
        pushed_balance=None,
        stale=True,
        in_doubt=False,
        conflicted=False,
        missing=False,
        doubtful_balances=None,
        attempts=claim.attempts,
        claimed_at=claim.claimed_at,
    )


async def test_while_one_drains_another_returns_at_once(stage: Stage) -> None:
    await stage.post(1, 10)
    stage.store.world.faults.add(HOLD)
    draining = asyncio.create_task(stage.mirror.drain(stage.shop_id))
    await eventually(lambda: stage.values() == {1: "10"})
    async with open_mirror(stage.db, stage.store) as elsewhere:
        assert (await elsewhere.drain(stage.shop_id)).end == "busy"
        assert (await draining).pushed == 1
        assert (await elsewhere.drain(stage.shop_id)).end == "idle", "given back at the end"
    assert len(stage.writes()) == 1


async def test_of_many_that_reach_for_a_free_lease_one_gets_it(stage: Stage) -> None:
    held: list[int] = []
    everybody_has_tried = asyncio.Event()
    tries = 0

    async def reach(number: int) -> None:
        nonlocal tries
        async with shop_lease(stage.db, stage.shop_id, f"holder {number}") as lease:
            tries += 1
            if tries == 10:
                everybody_has_tried.set()
            if lease is not None:
                held.append(lease.token)
                await everybody_has_tried.wait()

    await asyncio.gather(*(reach(number) for number in range(10)))
    assert len(held) == 1


async def test_each_taking_of_the_lease_has_a_higher_token(stage: Stage) -> None:
    tokens: list[int] = []
    for _ in range(3):
        async with shop_lease(stage.db, stage.shop_id, "somebody") as lease:
            assert lease is not None
            tokens.append(lease.token)
    assert tokens == sorted(set(tokens))


async def test_a_holder_whose_lease_another_took_claims_and_records_nothing(stage: Stage) -> None:
    await stage.post_all({1: 10, 2: 20})
    async with shop_lease(stage.db, stage.shop_id, "sleeper") as old:
        assert old is not None
        batch = await claim_some(stage, old)
        await end_lease(stage)
        async with shop_lease(stage.db, stage.shop_id, "successor") as new:
            assert new is not None
            before = stage.owner.execute(MIRROR_STATE).fetchall(), stage.calls_on_record()
            gone = outcomes.Failure(batch.claims[0], "code", "message", gone=True)
            check = check_of(batch.claims[0])
            with pytest.raises(LeaseLost):
                await outcomes.record_pushed(stage.db, old, batch, DIGESTS)
            with pytest.raises(LeaseLost):
                await outcomes.record_failures(stage.db, old, batch, [gone])
            with pytest.raises(LeaseLost):
                await outcomes.record_readings(stage.db, old, [outcomes.Reading(check, None, None, gone=True)])
            with pytest.raises(LeaseLost):
                await outcomes.record_not_read(stage.db, old, [check], code="code", error="error")
            assert await claim(stage, old) is None
            assert (stage.owner.execute(MIRROR_STATE).fetchall(), stage.calls_on_record()) == before
            await outcomes.record_pushed(stage.db, new, batch, DIGESTS)
    assert (await stage.standing(1)).status == "in_step"
    assert stage.mirror_state(1).digest == DIGESTS[1]


async def test_who_gives_a_lost_lease_back_does_not_take_it_from_the_successor(stage: Stage) -> None:
    async with shop_lease(stage.db, stage.shop_id, "sleeper") as old:
        assert old is not None
        await end_lease(stage)
        successor = shop_lease(stage.db, stage.shop_id, "successor")
        assert await successor.__aenter__() is not None
    async with shop_lease(stage.db, stage.shop_id, "third") as lease:
        assert lease is None
    await successor.__aexit__(None, None, None)


async def test_an_expired_lease_that_nobody_took_still_counts(stage: Stage) -> None:
    await stage.post(1, 10)
    async with shop_lease(stage.db, stage.shop_id, "slow") as lease:
        assert lease is not None
        batch = await claim_some(stage, lease)
        await end_lease(stage)
        await outcomes.record_pushed(stage.db, lease, batch, DIGESTS)
    assert (await stage.standing(1)).status == "in_step"


async def test_a_drain_that_loses_its_lease_in_the_middle_leaves_the_work_to_the_successor(stage: Stage) -> None:
    await stage.post(1, 10)
    stage.store.world.faults.add(HOLD)
    overslept = asyncio.create_task(stage.mirror.drain(stage.shop_id))
    await eventually(lambda: stage.values() == {1: "10"})
    await end_lease(stage)
    await stage.post(1, 5)
    async with open_mirror(stage.db, stage.store) as elsewhere:
        assert (await elsewhere.drain(stage.shop_id)).pushed == 1
    assert stage.values() == {1: "15"}
    report = await overslept
    assert (report.end, report.pushed) == ("busy", 0)
    assert (await stage.standing(1)).pushed_balance == 15
    await stage.mirror.drain(stage.shop_id)
    assert stage.log()[:3] == ["metafieldsSet", "nodes", "metafieldsSet"], "the successor looks before it writes"
    assert ((await stage.standing(1)).status, stage.values()) == ("in_step", {1: "15"})


async def test_what_came_of_a_push_is_recorded_though_a_hand_written_transaction_stood_in_the_way(
    stage: Stage, database_url: str
) -> None:
    await stage.post_all({1: 10, 2: 20})
    async with shop_lease(stage.db, stage.shop_id, "holder") as lease:
        assert lease is not None
        batch = await claim_some(stage, lease)
        first, last = sorted(one.customer_id for one in batch.claims)
        touch = "update mirror_states set attempts = attempts where customer_id = %s"
        async with await psycopg.AsyncConnection.connect(database_url) as by_hand:
            await by_hand.execute(touch, (last,))
            recording = asyncio.create_task(outcomes.record_pushed(stage.db, lease, batch, DIGESTS))
            waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
            await eventually(lambda: stage.owner.execute(waiting).fetchone() == (1,))
            await by_hand.execute(touch, (first,))  # a circle: PostgreSQL picks who has waited longest, the recorder
        await recording
    assert [(await stage.standing(n)).status for n in (1, 2)] == ["in_step", "in_step"]


async def test_a_turn_ends_in_time_and_what_is_left_stays_due(stage: Stage) -> None:
    await stage.post_all(dict.fromkeys(range(1, 31), 1))
    assert (await stage.mirror.drain(stage.shop_id, turn_s=0)).end == "turn_over"
    assert stage.writes() == []
    assert (await stage.mirror.drain(stage.shop_id)).pushed == 30


async def test_a_drain_without_time_left_on_its_lease_sends_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.post(1, 10)
    await stage.mirror.drain(stage.shop_id)
    written = len(stage.writes())
    await stage.post(1, 5)
    # As after a stop of the whole process: the lease has run out before the first call of the turn.
    monkeypatch.setattr("metafield_sync.sync.lease.LEASE_S", LEASE_MARGIN_S)
    report = await stage.mirror.drain(stage.shop_id)
    monkeypatch.undo()
    assert (report.end, len(stage.writes())) == ("busy", written)
    assert (await stage.standing(1)).status == "stale", "what never left leaves nobody in doubt"
    assert stage.calls_on_record() == []
    await stage.mirror.drain(stage.shop_id)
    assert stage.values() == {1: "15"}


async def test_a_customer_who_was_missing_and_is_there_after_all_is_found_by_the_next_run(stage: Stage) -> None:
    await stage.post(4_711, 10)
    assert (await stage.run())["errors"] == 1
    written = len(stage.writes())
    assert (await stage.run())["errors"] == 1
    assert len(stage.writes()) == written, "looked for by reading, not by writing"
    stage.shopify.add_customers([4_711])
    assert (await stage.run())["synced"] == 1
    assert stage.values()[4_711] == "10"
