"""Installing a shop: everybody read, values of an earlier app kept until somebody chooses, no step lost to a kill."""

from __future__ import annotations

import asyncio
import json
import random
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from install_support import AppStage, open_app_mirror, open_app_stage
from sync_support import DOMAIN, SLOT

from devstore.faults import Fault, FaultAnswer, FaultApply
from devstore.installing import change_scopes
from metafield_sync.ledger.posting import Posting, post
from metafield_sync.shopify import ShopifyError
from metafield_sync.shops import registry
from metafield_sync.sync.errand_kinds import ERRAND_KINDS
from metafield_sync.sync.errand_rounds import go_on_errands
from metafield_sync.sync.inbox.handling import Webhook
from metafield_sync.sync.install.begin import NothingToChoose, choose
from metafield_sync.sync.install.reading import STARTS_UNKNOWN_MAX
from metafield_sync.sync.install.steps import go_live, look_at_installation, take_step
from metafield_sync.sync.install.store import EVERYBODY_READ, note
from metafield_sync.sync.install.webhooks import (
    handle_scopes_update,
    handle_shop_redact,
    handle_shop_update,
    handle_uninstalled,
)
from metafield_sync.sync.lease import LeaseLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import psycopg

    from metafield_sync.db.database import Database, ShopId

pytestmark = pytest.mark.anyio
EVERYBODY = 30
OURS = "*metafield_sync*"


@pytest.fixture
async def stage(db: Database, owner: psycopg.Connection) -> AsyncIterator[AppStage]:
    async with open_app_stage(db, owner, customers=EVERYBODY) as stage:
        yield stage


async def push_all(stage: AppStage, shop_id: ShopId) -> None:
    for _ in range(50):
        if (await stage.mirror.drain(shop_id, probe=True)).end == "idle":
            return
    raise AssertionError("there is always something left to push")


async def test_a_shop_without_values_goes_live_and_nobody_stays_blank(stage: AppStage) -> None:
    shop_id = (await stage.open_app()).shop.id
    assert (await stage.shop(shop_id)).hold == "installing"
    await stage.see_through(shop_id)
    assert (await stage.shop(shop_id)).status == "active"
    assert stage.balances() == dict.fromkeys(range(1, EVERYBODY + 1), 0)
    await push_all(stage, shop_id)
    assert stage.values() == dict.fromkeys(range(1, EVERYBODY + 1), "0")


async def test_a_worker_installs_a_shop_by_its_errands(stage: AppStage) -> None:
    shop_id = (await stage.open_app()).shop.id
    for _ in range(200):
        await go_on_errands(stage.mirror, shop_id, ERRAND_KINDS)
        if (await stage.shop(shop_id)).hold is None:
            break
        stage.owner.execute("update errands set due_at = least(due_at, clock_timestamp()) where kind <> 'token'")
    shop = await stage.shop(shop_id)
    assert (shop.status, shop.currency) == ("active", "USD")
    assert shop.granted_scopes is not None
    assert {"read_customers", "write_customers"} <= set(shop.granted_scopes)
    assert shop.definition_ensured is not None


async def test_values_of_an_earlier_app_wait_for_a_choice_and_nothing_is_pushed(stage: AppStage) -> None:
    stage.show(1, "100")
    stage.show(2, "250")
    stage.show(3, "many", "single_line_text_field")
    shop_id = (await stage.give_token()).shop.id
    await stage.see_through(shop_id)
    shop = await stage.shop(shop_id)
    assert (shop.status, shop.paused_code) == ("paused", "values_found")
    assert "2 of 30 customers show 350 points in all, and 1 something that is no whole number" in (
        shop.paused_detail or ""
    )
    assert f"shops adopt {DOMAIN}" in (shop.paused_detail or "")
    await post(stage.db, shop_id, "test", Posting(shopify_customer_id=4, amount=7, reason="order"))
    assert (await stage.mirror.drain(shop_id, probe=True)).end == "paused", "whoever asks"
    async with stage.db.unscoped() as conn:
        await registry.resume_shop(conn, shop_id)
    assert (await stage.mirror.drain(shop_id, probe=True)).end == "paused", "and whoever resumes it"
    assert stage.writes() == 0
    assert stage.values() == {1: "100", 2: "250", 3: "many"}


async def test_adopted_values_are_opening_balances_in_step_at_no_write(stage: AppStage) -> None:
    for customer, points in ((1, "100"), (2, "250"), (3, "-5"), (4, "0")):
        stage.show(customer, points)
    shop_id = (await stage.give_token()).shop.id
    await stage.see_through(shop_id)
    await choose(stage.db, shop_id, "adopt")
    await go_live(stage.db, shop_id, DOMAIN)
    entries = stage.owner.execute(
        "select external_id, reason, amount, balance_after, actor from ledger_entries order by external_id"
    ).fetchall()
    assert entries == [
        ("opening/1", "opening_balance", 100, 100, "installation"),
        ("opening/2", "opening_balance", 250, 250, "installation"),
        ("opening/3", "opening_balance", -5, -5, "installation"),
    ]
    in_step = stage.owner.execute("select count(*) from mirror_states where stale_since is null").fetchone()
    assert in_step == (4,)
    await push_all(stage, shop_id)
    assert stage.writes() == 2, "26 customers who showed nothing: one call of 25 and one of 1"
    assert stage.values() == {**dict.fromkeys(range(1, EVERYBODY + 1), "0"), 1: "100", 2: "250", 3: "-5"}


async def test_overwritten_values_give_way_to_the_ledger(stage: AppStage) -> None:
    stage.show(1, "100")
    stage.show(2, "many", "single_line_text_field")
    shop_id = (await stage.give_token()).shop.id
    await stage.see_through(shop_id)
    await post(stage.db, shop_id, "test", Posting(shopify_customer_id=1, amount=7, reason="order"))
    await choose(stage.db, shop_id, "overwrite")
    await go_live(stage.db, shop_id, DOMAIN)
    await push_all(stage, shop_id)
    assert stage.values() == {**dict.fromkeys(range(1, EVERYBODY + 1), "0"), 1: "7"}


async def test_whoever_has_entries_keeps_them_when_values_are_adopted(stage: AppStage) -> None:
    stage.show(1, "100")
    stage.show(2, "250")
    shop_id = (await stage.give_token("adopt")).shop.id
    await post(stage.db, shop_id, "test", Posting(shopify_customer_id=1, amount=7, reason="order"))
    await stage.see_through(shop_id)
    installation = await stage.installation(shop_id)
    assert (installation.adopted, installation.left_alone) == (1, 1)
    await push_all(stage, shop_id)
    assert (stage.balances()[1], stage.balances()[2]) == (7, 250)
    assert (stage.values()[1], stage.values()[2]) == ("7", "250")


async def test_a_choice_is_made_once(stage: AppStage) -> None:
    stage.show(1, "100")
    shop_id = (await stage.give_token()).shop.id
    await stage.see_through(shop_id)
    await choose(stage.db, shop_id, "adopt")
    await choose(stage.db, shop_id, "adopt")
    with pytest.raises(NothingToChoose):
        await choose(stage.db, shop_id, "overwrite")
    await asyncio.gather(*(go_live(stage.db, shop_id, DOMAIN) for _ in range(4)))
    assert stage.balances()[1] == 100
    with pytest.raises(NothingToChoose):
        await choose(stage.db, shop_id, "adopt")


@pytest.mark.parametrize("seed", range(3))
async def test_killed_again_and_again_an_installation_comes_to_the_same_end(stage: AppStage, seed: int) -> None:
    for customer in range(1, EVERYBODY, 2):
        stage.show(customer, str(customer * 10))
    chance = random.Random(seed)  # noqa: S311 - kills at chosen moments, guards nothing
    shop_id = (await stage.give_token("adopt")).shop.id

    async def step(mirror: Any) -> None:
        async with mirror.short_turn(shop_id, even_if_held=True) as turn:
            await take_step(turn)

    for kills in range(60):
        if (await stage.shop(shop_id)).hold is None:
            break
        async with open_app_mirror(stage.db, stage.store) as (mirror, _):
            task = asyncio.create_task(step(mirror))
            await asyncio.wait({task}, timeout=chance.uniform(0, 0.004 * kills))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            stage.owner.execute("update shop_leases set expires_at = '-infinity'")
    await stage.see_through(shop_id)
    assert len([one for one in stage.shopify.bulk.operations if one.type == "QUERY"]) <= 2, (
        "a started one is found again"
    )
    entries = stage.owner.execute("select count(*), sum(amount) from ledger_entries").fetchone()
    assert entries == (15, sum(range(1, EVERYBODY, 2)) * 10)
    assert stage.owner.execute("select count(*) from found_values").fetchone() == (0,)
    await push_all(stage, shop_id)
    wanted = {customer: str(customer * 10) if customer % 2 else "0" for customer in range(1, EVERYBODY + 1)}
    assert stage.values() == wanted


async def test_a_new_token_for_a_shop_at_work_reads_nothing_and_holds_nothing(stage: AppStage) -> None:
    shop_id = (await stage.give_token()).shop.id
    await stage.see_through(shop_id)
    again = await stage.give_token()
    assert (again.is_new, again.is_reading, again.shop.status) == (False, False, "active")
    assert len(stage.shopify.bulk.operations) == 1


async def test_a_shop_that_comes_back_is_read_again_and_its_ledger_counts(stage: AppStage) -> None:
    shop_id = (await stage.open_app()).shop.id
    await stage.see_through(shop_id)
    await post(stage.db, shop_id, "test", Posting(shopify_customer_id=1, amount=10, reason="order"))
    await push_all(stage, shop_id)
    async with stage.db.shop(shop_id) as conn:
        await registry.remove_shop(conn, shop_id)
    stage.show(1, "999")  # while it was away, somebody wrote
    stage.shopify.metafields.delete(SLOT, 2)  # or took away
    back = await stage.open_app()
    assert (back.shop.id, back.is_reading) == (shop_id, True)
    await stage.see_through(shop_id)
    assert (await stage.shop(shop_id)).status == "active", "nobody is asked: the ledger is here"
    await push_all(stage, shop_id)
    assert (stage.values()[1], stage.values()[2]) == ("10", "0")
    assert stage.balances()[1] == 10


async def test_a_choice_that_was_never_made_is_asked_for_again_after_a_reinstall(stage: AppStage) -> None:
    stage.show(1, "100")
    shop_id = (await stage.open_app()).shop.id
    await stage.see_through(shop_id)
    async with stage.db.shop(shop_id) as conn:
        await registry.remove_shop(conn, shop_id)
    await stage.open_app()
    await stage.see_through(shop_id)
    assert (await stage.shop(shop_id)).hold == "values_found"


async def test_many_customers_are_read_in_bounded_memory(db: Database, owner: psycopg.Connection) -> None:
    async with open_app_stage(db, owner, customers=25_000) as stage:
        shop_id = (await stage.give_token()).shop.id
        # Shopify is in this process too: only what the reading itself holds is counted.
        tracemalloc.start()
        try:
            await stage.see_through(shop_id)
            ours = tracemalloc.take_snapshot().filter_traces(
                [tracemalloc.Filter(inclusive=True, filename_pattern="*metafield_sync*")]
            )
        finally:
            tracemalloc.stop()
        assert len(stage.balances()) == 25_000
        assert sum(one.size for one in ours.statistics("filename")) < 5_000_000


async def test_missing_scopes_are_said_by_name_and_stop_nothing(stage: AppStage) -> None:
    shop_id = (await stage.open_app()).shop.id
    await stage.see_through(shop_id)
    change_scopes(stage.shopify, ["write_customers", "read_customers"])
    await look_at_installation(stage.mirror, shop_id)
    shop = await stage.shop(shop_id)
    assert shop.granted_scopes == ["read_customers", "write_customers"]
    await push_all(stage, shop_id)
    assert len(stage.values()) == EVERYBODY


async def see_through_trouble(stage: AppStage, shop_id: ShopId) -> int:
    """Take every step, again whenever Shopify does not answer; how often it did not."""
    troubles = 0
    while troubles < 20:
        try:
            await stage.see_through(shop_id)
        except ShopifyError:
            troubles += 1
        else:
            return troubles
    raise AssertionError("the installation does not come to an end")


async def test_a_download_that_breaks_off_begins_again(stage: AppStage) -> None:
    stage.show(1, "100")
    stage.store.world.faults.add(Fault(FaultAnswer.DROP, operation="download", times=2))
    shop_id = (await stage.give_token("adopt")).shop.id
    assert await see_through_trouble(stage, shop_id) == 2
    assert stage.balances() == {**dict.fromkeys(range(1, EVERYBODY + 1), 0), 1: 100}


async def test_a_start_without_an_answer_is_looked_for_before_another(stage: AppStage) -> None:
    stage.store.world.faults.add(Fault(FaultAnswer.DROP, FaultApply.FIRST, operation="bulkOperationRunQuery"))
    shop_id = (await stage.give_token()).shop.id
    assert await see_through_trouble(stage, shop_id) == 1
    assert len(stage.shopify.bulk.operations) == 1
    assert (await stage.installation(shop_id)).customers == EVERYBODY


async def test_a_shopify_that_takes_no_such_query_is_said_and_the_shop_goes_live(stage: AppStage) -> None:
    for operation in ("bulkOperationRunQuery", "customers"):
        stage.store.world.faults.add(Fault(FaultAnswer.GARBAGE, operation=operation, times=None))
    shop_id = (await stage.give_token()).shop.id
    assert await see_through_trouble(stage, shop_id) == 2 * (STARTS_UNKNOWN_MAX - 1)
    assert (await stage.shop(shop_id)).status == "active"
    installation = await stage.installation(shop_id)
    assert "from their first posting on" in (installation.warning or "")
    await post(stage.db, shop_id, "test", Posting(shopify_customer_id=4, amount=7, reason="order"))
    await push_all(stage, shop_id)
    assert stage.values() == {4: "7"}


async def handled(stage: AppStage, shop_id: ShopId, handler: Any, payload: dict[str, Any], **more: Any) -> str:
    webhook = Webhook(1, shop_id, "x", payload, more.get("at"), datetime.now(UTC))
    async with stage.db.shop(shop_id) as conn:
        return await handler(conn, webhook)


async def test_an_uninstall_forgets_the_token_and_revokes_keys(stage: AppStage) -> None:
    shop_id = (await stage.open_app()).shop.id
    said = await handled(stage, shop_id, handle_uninstalled, {}, at=datetime.now(UTC) + timedelta(seconds=1))
    assert said.startswith("removed")
    row = stage.owner.execute("select status, access_token, refresh_token, hold from shops").fetchone()
    assert row == ("removed", None, None, None)
    assert await handled(stage, shop_id, handle_uninstalled, {}, at=datetime.now(UTC)) == "was removed before"


async def test_a_delayed_uninstall_does_not_touch_the_installation_after_it(stage: AppStage) -> None:
    shop_id = (await stage.open_app()).shop.id
    said = await handled(stage, shop_id, handle_uninstalled, {}, at=datetime.now(UTC) - timedelta(minutes=5))
    assert said.startswith("older than the installation")
    assert (await stage.shop(shop_id)).access_token is not None


async def test_the_shop_and_its_scopes_are_noted(stage: AppStage) -> None:
    shop_id = (await stage.open_app()).shop.id
    payload = json.loads('{"id": 5, "currency": "JPY", "myshopify_domain": "demo.myshopify.com"}')
    assert await handled(stage, shop_id, handle_shop_update, payload) == "currency JPY"
    assert await handled(stage, shop_id, handle_shop_update, payload) == "nothing that matters here"
    assert (await stage.shop(shop_id)).currency == "JPY"
    stage.owner.execute("delete from errands")
    await handled(stage, shop_id, handle_scopes_update, {"current": ["read_orders"]})
    assert "scopes" in stage.noted_errands()


async def test_a_shop_that_stays_away_is_forgotten_and_asked_when_it_comes_back(stage: AppStage) -> None:
    shop_id = (await stage.open_app()).shop.id
    await stage.see_through(shop_id)
    await post(stage.db, shop_id, "test", Posting(shopify_customer_id=1, amount=10, reason="order"))
    await push_all(stage, shop_id)
    assert (await handled(stage, shop_id, handle_shop_redact, {})).startswith("installed again since")
    async with stage.db.shop(shop_id) as conn:
        await registry.remove_shop(conn, shop_id)
    assert (await handled(stage, shop_id, handle_shop_redact, {})).startswith("forgotten who 30 customers were")
    await stage.open_app()
    await stage.see_through(shop_id)
    assert (await stage.shop(shop_id)).hold == "values_found", "only what customers show tells who had what"
    await choose(stage.db, shop_id, "adopt")
    await go_live(stage.db, shop_id, DOMAIN)
    await push_all(stage, shop_id)
    assert stage.values()[1] == "10"


async def test_a_shop_that_was_added_again_without_a_token_is_read_when_it_gets_one(stage: AppStage) -> None:
    shop_id = (await stage.give_token()).shop.id
    await stage.see_through(shop_id)
    async with stage.db.shop(shop_id) as conn:
        await registry.remove_shop(conn, shop_id)
    async with stage.db.unscoped() as conn:
        await registry.add_shop(conn, DOMAIN, None)
    assert (await stage.give_token()).is_reading


async def test_one_that_overslept_its_lease_records_nothing_of_its_reading(stage: AppStage) -> None:
    shop_id = (await stage.give_token()).shop.id
    installation = await stage.installation(shop_id)
    async with stage.mirror.short_turn(shop_id, even_if_held=True) as turn:
        stage.owner.execute("update shop_leases set token = token + 1")
        with pytest.raises(LeaseLost):
            await note(turn, EVERYBODY_READ, installation, customers=0)
    assert (await stage.installation(shop_id)).read_at is None
