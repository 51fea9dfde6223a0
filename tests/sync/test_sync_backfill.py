"""The backfill: a whole shop by bulk operation, over restarts, beside postings, at a constant number of points."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from sync_support import PATIENCE_S, Stage, eventually, open_mirror

from devstore import Fault, FaultAnswer, FaultApply
from devstore.bulk import BulkStatus
from metafield_sync.sync.one_customer import sync_customer
from metafield_sync.sync.runs import Runs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from metafield_sync.sync.drain import Mirror

THRESHOLD = 40
CUSTOMERS = 60


@pytest.fixture
async def backfilling(stage: Stage) -> AsyncIterator[Mirror]:
    """The stage's mirror, which takes a bulk operation where so many customers are stale."""
    stage.shopify.add_customers(range(31, CUSTOMERS + 1))
    async with open_mirror(stage.db, stage.store, backfill_threshold=THRESHOLD) as mirror:
        yield mirror
        await mirror.close()


async def drain_until_in_step(stage: Stage, mirror: Mirror) -> int:
    """Drain as a worker would; how many turns it took."""
    deadline = time.monotonic() + PATIENCE_S
    turns = 0
    while time.monotonic() < deadline:
        stage.owner.execute("update backfills set next_step_at = clock_timestamp() where finished_at is null")
        stage.owner.execute("update backfill_files set poll_at = clock_timestamp() where finished_at is null")
        await mirror.drain(stage.shop_id)
        turns += 1
        left = stage.owner.execute(
            "select count(*) from mirror_states where stale_since is not null and status = 'live'"
        ).fetchone()
        open_ones = stage.owner.execute("select count(*) from backfills where finished_at is null").fetchone()
        if left == (0,) and open_ones == (0,):
            return turns
        await asyncio.sleep(0.02)
    raise AssertionError("not in step in time")


async def post_to_all(stage: Stage, amount: int = 10) -> dict[int, str]:
    await stage.post_all({number: amount + number for number in range(1, CUSTOMERS + 1)})
    return {number: str(amount + number) for number in range(1, CUSTOMERS + 1)}


async def test_many_stale_customers_go_by_bulk_operation(stage: Stage, backfilling: Mirror) -> None:
    expected = await post_to_all(stage)
    await drain_until_in_step(stage, backfilling)
    assert stage.values() == expected
    assert stage.writes() == [], "not one plain call"
    assert len(stage.operations("MUTATION")) == 1
    held = "select count(*) from mirror_states where due_at = 'infinity'"
    assert stage.owner.execute(held).fetchone() == (0,)
    assert stage.owner.execute("select count(*) from backfill_lines").fetchone() == (0,)


async def test_few_stale_customers_do_not(stage: Stage, backfilling: Mirror) -> None:
    await stage.post_all(dict.fromkeys(range(1, THRESHOLD), 5))
    await drain_until_in_step(stage, backfilling)
    assert stage.operations("MUTATION") == []


async def test_values_of_an_earlier_app_are_read_first_and_written_over(stage: Stage, backfilling: Mirror) -> None:
    for number in range(1, CUSTOMERS + 1):
        stage.overwrite(number, str(1_000 + number))
    expected = await post_to_all(stage)
    await drain_until_in_step(stage, backfilling)
    assert stage.values() == expected
    assert stage.writes() == [], "the digests were known"
    assert stage.activity("conflicts_foreign") == 0


async def test_who_shows_the_balance_already_costs_no_write(stage: Stage, backfilling: Mirror) -> None:
    expected = await post_to_all(stage)
    for number in range(1, CUSTOMERS + 1):
        stage.overwrite(number, expected[number])
    await drain_until_in_step(stage, backfilling)
    assert stage.values() == expected
    assert stage.operations("MUTATION") == []
    assert stage.writes() == []


async def drain_until_file_runs(stage: Stage, mirror: Mirror) -> None:
    """Drain until Shopify has been asked to run the file, and holds it before its first line."""
    # As after an earlier backfill: values need not be read.
    stage.owner.execute(
        """
        insert into backfills (shop_id, values_read_at, finished_at)
        select id, clock_timestamp(), clock_timestamp() from shops
        """
    )
    stage.shopify.bulk.settings.paused = True
    await mirror.drain(stage.shop_id)
    assert len(stage.operations("MUTATION")) == 1


async def test_a_posting_while_it_runs_is_pushed_afterwards(stage: Stage, backfilling: Mirror) -> None:
    expected = await post_to_all(stage)
    await drain_until_file_runs(stage, backfilling)
    await stage.post(7, 100)
    await backfilling.drain(stage.shop_id)
    assert 7 not in stage.values(), "held by the backfill, not pushed beside it"
    stage.shopify.bulk.settings.paused = False
    await drain_until_in_step(stage, backfilling)
    assert stage.values() == expected | {7: "117"}


async def test_a_customer_asked_for_by_hand_is_pushed_at_once_and_not_overwritten(
    stage: Stage, backfilling: Mirror
) -> None:
    expected = await post_to_all(stage)
    await drain_until_file_runs(stage, backfilling)
    one = await stage.post(9, 100)
    told = await sync_customer(backfilling, stage.shop_id, one, wait_s=PATIENCE_S)
    assert (told.synced, told.balance, stage.values()[9]) == (True, 119, "119")
    stage.shopify.bulk.settings.paused = False
    await drain_until_in_step(stage, backfilling)
    assert stage.values() == expected | {9: "119"}


async def test_lines_without_a_result_are_pushed_again(stage: Stage, backfilling: Mirror) -> None:
    expected = await post_to_all(stage)
    stage.shopify.bulk.settings.drop_line_rate = 0.5
    await drain_until_in_step(stage, backfilling)
    assert stage.values() == expected


async def test_customers_who_are_gone_fail_alone(stage: Stage, backfilling: Mirror) -> None:
    expected = await post_to_all(stage)
    for number in (3, 4):
        stage.shopify.delete_customer(number)
    await drain_until_in_step(stage, backfilling)
    assert stage.values() == {number: value for number, value in expected.items() if number not in {3, 4}}
    assert (await stage.standing(3)).status == "missing"


@pytest.mark.parametrize("operation", ["bulkOperationRunQuery", "bulkOperationRunMutation"])
@pytest.mark.parametrize(
    "fault", [Fault(FaultAnswer.DROP, FaultApply.FIRST), Fault(FaultAnswer.THROTTLED), Fault(status=503)], ids=str
)
async def test_a_start_without_an_answer_starts_no_second_operation(
    stage: Stage, backfilling: Mirror, operation: str, fault: Fault
) -> None:
    expected = await post_to_all(stage)
    stage.store.world.faults.add(Fault(fault.answer, fault.apply, status=fault.status, operation=operation))
    for _ in range(3):
        await backfilling.drain(stage.shop_id)
        # As if Shopify had had time enough to show an operation that it had begun.
        stage.owner.execute("update backfill_files set asked_at = asked_at - interval '1 minute'")
    await drain_until_in_step(stage, backfilling)
    assert stage.values() == expected
    assert len(stage.operations("QUERY")) == len(stage.operations("MUTATION")) == 1


@pytest.mark.parametrize("operation", ["upload", "download", "stagedUploadsCreate", "bulkOperation"])
async def test_every_other_step_is_taken_again(stage: Stage, backfilling: Mirror, operation: str) -> None:
    expected = await post_to_all(stage)
    stage.store.world.faults.add(Fault(FaultAnswer.DROP, operation=operation))
    stage.store.world.faults.add(Fault(status=500, operation=operation))
    await drain_until_in_step(stage, backfilling)
    assert stage.values() == expected
    assert len(stage.operations("MUTATION")) == 1


async def test_an_operation_that_fails_leaves_the_rest_to_plain_pushes(stage: Stage, backfilling: Mirror) -> None:
    expected = await post_to_all(stage)
    await drain_until_file_runs(stage, backfilling)
    settings = stage.shopify.bulk.settings
    settings.lines_per_s, settings.paused = 100.0, False
    await eventually(lambda: len(stage.values()) > CUSTOMERS / 3)
    stage.shopify.bulk.fail(stage.operations("MUTATION")[0], BulkStatus.FAILED, "INTERNAL_SERVER_ERROR")
    assert len(stage.values()) < CUSTOMERS
    await drain_until_in_step(stage, backfilling)
    assert stage.values() == expected
    assert len(stage.operations("MUTATION")) == 1
    assert stage.writes(), "the rest went by plain calls"


async def test_a_run_waits_for_the_backfill_and_tells_how_far_it_is(stage: Stage, backfilling: Mirror) -> None:
    expected = await post_to_all(stage)
    runs = Runs(backfilling)
    try:
        run_id = await runs.request(stage.shop_id, kind="sync", trigger="api")
        run = await runs.wait(stage.shop_id, run_id, wait_s=PATIENCE_S)
        assert run.result is not None
        assert (run.result["synced"], run.result["errors"], run.result["pushed"]) == (CUSTOMERS, 0, CUSTOMERS)
        assert run.result["pointsSpent"] < 100
    finally:
        await runs.close()
    assert stage.values() == expected
