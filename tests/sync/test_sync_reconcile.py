"""Reconciliation: what Shopify shows, read back and held against the ledger: each way to differ, found and repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sync_support import DEFINITION, PATIENCE_S, SLOT, Stage, eventually, open_mirror, open_stage

from devstore import BulkStatus, Fault, FaultAnswer, FaultApply, ShopState
from devstore.gids import Gid
from metafield_sync.shops.registry import PAUSED_BY_STAFF, pause_shop
from metafield_sync.sync.reconcile.drift import DRIFT_KINDS, changes_of_run
from metafield_sync.sync.runs import Runs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    import psycopg

    from metafield_sync.db.database import Database
    from metafield_sync.sync.runs import Run

CUSTOMERS = 10
MANY = 510
"""More than are read by `nodes`."""
READ = "nodes"
HOLD_MS = 400


@pytest.fixture
async def synced(stage: Stage) -> Stage:
    """Customers 1 to 10 have 11 to 20 points, and Shopify shows them."""
    await stage.post_all({number: 10 + number for number in range(1, CUSTOMERS + 1)})
    await stage.mirror.drain(stage.shop_id)
    return stage


@pytest.fixture
async def crowded(db: Database, owner: psycopg.Connection) -> AsyncIterator[Stage]:
    """The same with customers 1 to 510, pushed and read by bulk operation."""
    async with (
        open_stage(db, owner, customers=MANY) as stage,
        open_mirror(db, stage.store, backfill_threshold=MANY) as mirror,
    ):
        await stage.post_all({number: 10 + number for number in range(1, MANY + 1)})
        runs = Runs(mirror)
        run_id = await runs.request(stage.shop_id, kind="sync", trigger="api")
        result = (await runs.wait(stage.shop_id, run_id, wait_s=PATIENCE_S)).result
        assert result is not None
        assert result["synced"] == MANY
        await runs.close()
        stage.forget_log()
        yield stage


async def request(stage: Stage, *, repair: bool = False) -> UUID:
    return await stage.runs.request(stage.shop_id, kind="reconcile", trigger="api", repair=repair)


async def reconcile(stage: Stage, *, repair: bool = False) -> dict[str, Any]:
    return await stage.result(await request(stage, repair=repair))


async def failed(stage: Stage) -> Run:
    run = await stage.runs.wait(stage.shop_id, await request(stage), wait_s=PATIENCE_S)
    assert (run.status, run.result) == ("failed", None)
    return run


async def reads(stage: Stage) -> None:
    """Wait until Shopify holds the answer to a reading."""
    await eventually(lambda: any(fired for _, fault, fired in stage.store.world.faults if fault.operation == READ))
    await stage.call_in_flight()


async def changes(stage: Stage, result: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What a run has on record: Shopify's id, change, before, after, reason."""
    async with stage.db.shop(stage.shop_id) as conn:
        rows = await changes_of_run(conn, stage.shop_id, result["runId"], after=None, limit=1_000)
    names = ("shopify_customer_id", "change", "before", "after", "reason")
    return sorted(tuple(row[name] for name in names) for row in rows)


def drifts(result: dict[str, Any]) -> dict[int, tuple[str, int, str | None]]:
    """What a result says of whom, by Shopify's id, after a look whether its numbers agree with each other."""
    assert result["drifted"] == len(result["drifts"]) == sum(result["byKind"].values())
    assert list(result["byKind"]) == list(DRIFT_KINDS)
    assert result["total"] == result["agreeing"] + result["drifted"] + result["notCompared"]
    return {int(row["shopifyCustomerId"]): (row["kind"], row["expected"], row["found"]) for row in result["drifts"]}


def remove(stage: Stage, customer: int) -> None:
    """Delete a metafield as another app would."""
    assert stage.shopify.metafields.delete(SLOT, customer)


def overwrite_as_text(stage: Stage, customer: int, value: str) -> None:
    stage.shopify.put_metafield(Gid("Customer", customer), SLOT.namespace, SLOT.key, value, "single_line_text_field")


def spoil(stage: Stage) -> dict[int, tuple[str, int, str | None]]:
    """Let four customers drift, each in a way of its own; what is to be found."""
    stage.overwrite(1, "4711")
    remove(stage, 2)
    overwrite_as_text(stage, 3, "13")
    stage.shopify.delete_customer(4)
    return {
        1: ("foreign_write", 11, "4711"),
        2: ("missing", 12, None),
        3: ("wrong_type", 13, "13"),
        4: ("customer_gone", 14, None),
    }


async def test_who_shows_the_balance_agrees_and_nothing_is_written(synced: Stage) -> None:
    writes = len(synced.writes())
    for repair in (False, True):
        result = await reconcile(synced, repair=repair)
        assert drifts(result) == {}
        assert (result["total"], result["agreeing"], result["notCompared"]) == (CUSTOMERS, CUSTOMERS, 0)
        assert (result["definition"], result["definitionRepaired"]) == ("as_it_should_be", False)
        assert (result["repaired"], result["pushed"]) == (0, 0)
        assert 0 < result["pointsSpent"] <= 2 * CUSTOMERS + 8
    assert len(synced.writes()) == writes
    assert synced.activity("drifts") == 0


async def test_every_drift_is_reported_by_kind_and_nothing_is_changed(synced: Stage) -> None:
    expected = spoil(synced)
    before, writes = synced.values(), len(synced.writes())
    states = synced.owner.execute("select * from mirror_states order by customer_id").fetchall()
    result = await reconcile(synced)
    assert drifts(result) == expected
    assert (result["total"], result["agreeing"], result["drifted"], result["repaired"]) == (10, 6, 4, 0)
    assert (synced.values(), len(synced.writes())) == (before, writes)
    assert synced.owner.execute("select * from mirror_states order by customer_id").fetchall() == states
    assert synced.activity("drifts") == 4
    assert await changes(synced, result) == [
        (1, "drift", "4711", "11", "foreign_write"),
        (2, "drift", None, "12", "missing"),
        (3, "drift", "13", "13", "wrong_type"),
        (4, "drift", None, "14", "customer_gone"),
    ]


async def test_to_repair_is_to_push_to_who_drifted_and_to_nobody_else(synced: Stage) -> None:
    expected = spoil(synced)
    writes = len(synced.writes())
    result = await reconcile(synced, repair=True)
    assert drifts(result) == expected
    assert (result["repaired"], result["pushed"]) == (3, 3)
    assert synced.values() == {n: str(10 + n) for n in range(1, CUSTOMERS + 1) if n != 4}
    assert len(synced.writes()) == writes + 1, "all in one call, over the digests just read"
    assert synced.activity("conflicts_foreign") == 0
    gone = (await synced.standing(4)).status
    assert gone == "missing"
    rows = await changes(synced, result)
    assert [row[:2] for row in rows if row[1] == "pushed"] == [(1, "pushed"), (2, "pushed"), (3, "pushed")]
    assert [row[0] for row in rows if row[1] == "failed"] == [4]
    again = await reconcile(synced, repair=True)
    assert drifts(again) == {}
    assert (again["agreeing"], again["notCompared"], again["pushed"]) == (9, 1, 0)


async def test_an_earlier_balance_of_ours_was_not_written_by_somebody_else(synced: Stage) -> None:
    await synced.post(1, 100)
    await synced.mirror.drain(synced.shop_id)
    synced.overwrite(1, "11")
    synced.overwrite(2, "0")
    result = await reconcile(synced, repair=True)
    assert drifts(result) == {1: ("not_pushed", 111, "11"), 2: ("not_pushed", 12, "0")}
    assert (synced.values()[1], synced.values()[2]) == ("111", "12")


async def test_a_change_that_waits_to_be_pushed_is_a_difference_of_its_own(synced: Stage) -> None:
    await synced.post(1, 100)
    assert drifts(await reconcile(synced)) == {1: ("different", 111, "11")}
    assert (await synced.standing(1)).status == "stale"
    assert drifts(await reconcile(synced, repair=True)) == {1: ("different", 111, "11")}
    assert synced.values()[1] == "111"


@pytest.mark.parametrize("value", ["9007199254740992", "12.5", "", "x" * 600])
async def test_what_is_no_balance_at_all_is_shown_as_it_is(synced: Stage, value: str) -> None:
    synced.overwrite(1, value)
    result = await reconcile(synced, repair=True)
    assert drifts(result) == {1: ("foreign_write", 11, value[:100])}
    assert synced.values()[1] == "11"


async def test_who_was_overwritten_and_written_back_agrees_and_the_next_push_knows(synced: Stage) -> None:
    digest = synced.mirror_state(1).digest
    for value in ("4711", "11"):
        synced.overwrite(1, value)
    assert drifts(await reconcile(synced)) == {}
    await synced.post(1, 1)
    await synced.mirror.drain(synced.shop_id)
    assert synced.values()[1] == "12"
    assert synced.activity("conflicts_foreign") == 0
    assert synced.mirror_state(1).digest != digest


async def test_a_customer_who_came_back_is_pushed_to_again(synced: Stage) -> None:
    synced.shopify.delete_customer(4)
    await reconcile(synced, repair=True)
    synced.shopify.add_customers([4])
    result = await reconcile(synced, repair=True)
    assert drifts(result) == {4: ("missing", 14, None)}
    assert (await synced.standing(4)).status == "in_step"
    assert synced.values()[4] == "14"


async def test_a_balance_that_moves_during_the_reading_is_no_drift(synced: Stage) -> None:
    synced.store.world.faults.add(Fault(FaultAnswer.NORMAL, FaultApply.FIRST, hold_ms=HOLD_MS, operation=READ))
    run_id = await request(synced)
    await reads(synced)
    await synced.post(1, 100)
    result = await synced.result(run_id)
    assert (drifts(result), result["notCompared"]) == ({}, 1)
    assert synced.activity("drifts") == 0


async def test_pushes_go_on_while_a_large_shop_is_read_and_are_no_drift(crowded: Stage) -> None:
    bulk = crowded.shopify.bulk.settings
    bulk.paused = True
    read = len(crowded.operations("QUERY"))
    run_id = await request(crowded)
    await eventually(lambda: len(crowded.operations("QUERY")) > read)
    await crowded.post_all({1: 100, 2: 100})
    while (await crowded.mirror.drain(crowded.shop_id)).end == "busy":
        pass
    assert (crowded.values()[1], crowded.values()[2]) == ("111", "112")
    # As if Shopify had read the first of them before that, and the second after somebody else had written it.
    crowded.overwrite(1, "11")
    crowded.overwrite(2, "4711")
    bulk.paused = False
    result = await crowded.result(run_id)
    assert (drifts(result), result["notCompared"]) == ({}, 2)
    assert drifts(await reconcile(crowded)) == {1: ("not_pushed", 111, "11"), 2: ("foreign_write", 112, "4711")}


async def test_of_who_is_in_doubt_the_reading_tells_nothing(synced: Stage) -> None:
    await synced.post(1, 100)
    synced.store.world.faults.add(Fault(status=503, operation="metafieldsSet"))
    await synced.mirror.drain(synced.shop_id)
    assert synced.mirror_state(1).in_doubt
    result = await reconcile(synced)
    assert (drifts(result), result["notCompared"]) == ({}, 1)


async def test_a_definition_that_was_deleted_is_missing_until_it_is_repaired(synced: Stage) -> None:
    assert synced.shopify.definitions.delete(SLOT)
    result = await reconcile(synced)
    assert (result["definition"], result["definitionRepaired"]) == ("missing", False)
    result = await reconcile(synced, repair=True)
    assert (result["definition"], result["definitionRepaired"]) == ("missing", True)
    assert (await reconcile(synced))["definition"] == "as_it_should_be"
    assert synced.values() == {n: str(10 + n) for n in range(1, CUSTOMERS + 1)}


async def test_a_definition_that_differs_is_told_in_words_and_fitted(synced: Stage) -> None:
    wanted = synced.mirror.definition
    synced.mirror.definition = type(DEFINITION)("loyalty", "points_balance", "Points", "Points.", "NONE")
    result = await reconcile(synced, repair=True)
    assert result["definition"] == "storefront access is PUBLIC_READ instead of NONE"
    assert result["definitionRepaired"] is True
    assert (await reconcile(synced))["definition"] == "as_it_should_be"
    synced.mirror.definition = wanted


async def test_what_cannot_be_repaired_is_left_with_the_reason(synced: Stage) -> None:
    remove(synced, 1)
    assert synced.shopify.definitions.delete(SLOT)
    await another_type(synced)
    result = await reconcile(synced, repair=True)
    assert result["definition"].startswith("type is single_line_text_field instead of number_integer; ")
    assert (result["definitionRepaired"], result["repaired"]) == (False, 0)
    assert result["byKind"]["missing"] == 1
    assert (await synced.shop()).paused_code == "definition_conflict"
    reasons = {row[4] for row in await changes(synced, result) if row[1] == "failed"}
    assert len(reasons) == 1
    assert "single_line_text_field" in reasons.pop()


async def another_type(stage: Stage) -> None:
    """Make a definition of another type under the same name, as the merchant would."""
    async with stage.mirror.short_turn(stage.shop_id) as turn:
        document = """
        mutation M($definition: MetafieldDefinitionInput!) {
          metafieldDefinitionCreate(definition: $definition) { userErrors { message } }
        }
        """
        definition = {
            "ownerType": "CUSTOMER",
            "namespace": SLOT.namespace,
            "key": SLOT.key,
            "name": "Points",
            "type": "single_line_text_field",
        }
        answer = await turn.client.call(turn.access, document, {"definition": definition})
        assert answer.data["metafieldDefinitionCreate"]["userErrors"] == []


@pytest.mark.parametrize("repair", [False, True])
async def test_a_large_shop_is_read_by_one_bulk_query(crowded: Stage, *, repair: bool) -> None:
    expected = spoil(crowded)
    read = len(crowded.operations("QUERY"))
    result = await reconcile(crowded, repair=repair)
    assert drifts(result) == expected
    assert (result["total"], result["agreeing"]) == (MANY, MANY - 4)
    assert len(crowded.operations("QUERY")) == read + 1
    # Who is gone is looked for once more, by one call.
    assert crowded.log().count(READ) == repair
    assert result["pointsSpent"] < 100
    shown = {n: str(10 + n) for n in range(1, MANY + 1)}
    assert [n for n, value in shown.items() if crowded.values().get(n) != value] == ([4] if repair else [1, 2, 4])
    assert (await crowded.finished(result["runId"])).progress_total == MANY


async def test_a_download_that_breaks_off_is_read_again_and_each_drift_counted_once(
    crowded: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metafield_sync.sync.reconcile.reading.TRY_AGAIN_FIRST_S", 0.01)
    monkeypatch.setattr("metafield_sync.sync.reconcile.reading.COMPARED_MAX", 50)
    expected = spoil(crowded)
    crowded.store.world.faults.add(Fault(FaultAnswer.DROP, FaultApply.FIRST, operation="download", times=2))
    result = await reconcile(crowded)
    assert drifts(result) == expected
    assert result["agreeing"] == MANY - 4
    assert crowded.activity("drifts") == 4


async def test_from_a_bulk_query_that_failed_nothing_is_concluded(crowded: Stage) -> None:
    crowded.shopify.bulk.settings.paused = True
    read = len(crowded.operations("QUERY"))
    run_id = await request(crowded, repair=True)
    await eventually(lambda: len(crowded.operations("QUERY")) > read)
    crowded.shopify.bulk.fail(crowded.operations("QUERY")[-1], BulkStatus.FAILED, "INTERNAL_SERVER_ERROR")
    run = await crowded.runs.wait(crowded.shop_id, run_id, wait_s=PATIENCE_S)
    assert run.status == "failed"
    assert "INTERNAL_SERVER_ERROR" in str(run.error)
    assert crowded.owner.execute("select count(*) from mirror_states where status = 'missing'").fetchone() == (0,)


async def test_a_shopify_that_does_not_answer_fails_the_run_with_the_reason(
    synced: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metafield_sync.sync.reconcile.reading.TRY_AGAIN_FIRST_S", 0.001)
    synced.store.world.faults.add(Fault(status=503, operation=READ, times=None))
    error = str((await failed(synced)).error)
    assert "HTTP 503" in error
    assert "Nothing was concluded" in error
    assert "written" not in error, "it was only a question"
    assert synced.activity("drifts") == 0


async def test_a_hiccup_of_shopify_is_asked_again(synced: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metafield_sync.sync.reconcile.reading.TRY_AGAIN_FIRST_S", 0.001)
    for answer in (FaultAnswer.STATUS, FaultAnswer.DROP, FaultAnswer.GARBAGE):
        synced.store.world.faults.add(Fault(answer, operation=READ))
    assert (await reconcile(synced))["agreeing"] == CUSTOMERS


async def test_a_shop_that_is_refused_fails_the_run_and_is_paused(synced: Stage) -> None:
    shop = synced.shopify
    shop.change(token=shop.token, plan=shop.budget.plan, state=ShopState.FROZEN)
    assert "frozen" in str((await failed(synced)).error)
    assert (await synced.shop()).paused_code == "shop_frozen"


async def test_a_shop_paused_by_staff_is_not_asked(synced: Stage) -> None:
    async with synced.db.unscoped() as conn:
        await pause_shop(conn, synced.shop_id, code=PAUSED_BY_STAFF, detail="stop", resumes_by_itself=False)
    synced.forget_log()
    assert "shops resume" in str((await failed(synced)).error)
    assert synced.log() == []


async def test_while_it_reads_a_run_tells_how_many_it_has_read(synced: Stage) -> None:
    synced.store.world.faults.add(Fault(FaultAnswer.NORMAL, FaultApply.FIRST, hold_ms=HOLD_MS, operation=READ))
    run_id = await request(synced)
    await reads(synced)
    run = await synced.runs.find(synced.shop_id, run_id)
    assert (run.progress_done, run.progress_total) == (0, CUSTOMERS)
    run = await synced.finished(run_id)
    assert (run.progress_done, run.progress_total) == (CUSTOMERS, CUSTOMERS)


async def test_one_that_only_reports_hurries_nobody_however_long_it_takes(
    synced: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metafield_sync.sync.runs.RUN_HEARTBEAT_S", 0.02)
    synced.owner.execute(
        """
        update mirror_states
        set
          wanted_version = wanted_version + 1, stale_since = now() - interval '1 minute', failing_since = now(),
          attempted_at = now() - interval '1 minute', due_at = now() + interval '10 minutes'
        where pushed_balance = 11
        """
    )
    synced.store.world.faults.add(Fault(FaultAnswer.NORMAL, FaultApply.FIRST, hold_ms=HOLD_MS, operation=READ))
    await reconcile(synced)
    assert synced.owner.execute("select count(*) from mirror_states where due_at > now()").fetchone() == (1,)
