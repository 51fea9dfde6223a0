"""`bulk_operations/finish`: a backfill goes on as soon as Shopify says it is done, not when it would have looked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from inbox_support import Inbox
from sync_support import Stage, eventually, open_mirror

from metafield_sync.sync.errands import note_errand
from metafield_sync.sync.inbox.handlers import HANDLERS
from metafield_sync.sync.install.steps import INSTALL_ERRAND

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from metafield_sync.sync.drain import Mirror

CUSTOMERS = 30
TOPIC = "bulk_operations/finish"


@pytest.fixture
async def backfilling(stage: Stage) -> AsyncIterator[Mirror]:
    """The stage's mirror, which takes a bulk operation for all of its customers."""
    async with open_mirror(stage.db, stage.store, backfill_threshold=CUSTOMERS) as mirror:
        yield mirror
        await mirror.close()


@pytest.fixture
def inbox(stage: Stage) -> Inbox:
    return Inbox(stage.db, stage.owner, stage.shop_id, dict(HANDLERS))


async def begin(stage: Stage, mirror: Mirror) -> None:
    """Begin a backfill of everybody, with a Shopify that takes operations and does nothing about them."""
    stage.shopify.bulk.settings.paused = True
    await stage.post_all(dict.fromkeys(range(1, CUSTOMERS + 1), 5))
    await mirror.drain(stage.shop_id)


async def end(stage: Stage, kind: str) -> str:
    """Have Shopify end its one operation of a kind, when the backfill means to look in an hour; the operation's id."""
    stage.owner.execute("update backfills set next_step_at = now() + interval '1 hour'")
    stage.owner.execute("update backfill_files set poll_at = now() + interval '1 hour'")
    (operation,) = stage.operations(kind)
    stage.shopify.bulk.settings.paused = False
    await eventually(lambda: not operation.is_unfinished)
    stage.shopify.bulk.settings.paused = True
    return str(operation.gid)


async def test_a_backfill_goes_on_at_once_when_shopify_says_it_is_done(
    stage: Stage, backfilling: Mirror, inbox: Inbox
) -> None:
    await begin(stage, backfilling)
    for kind in ("QUERY", "MUTATION"):
        operation = await end(stage, kind)
        looks = len(stage.log())
        await backfilling.drain(stage.shop_id)
        assert len(stage.log()) == looks, "it looks in an hour"
        inbox.deliver({"admin_graphql_api_id": operation, "status": "completed", "type": kind.lower()}, topic=TOPIC)
        await inbox.handle()
        assert inbox.outcomes()[-1] == (TOPIC, f"the backfill looks at {operation} now")
        await backfilling.drain(stage.shop_id)
    assert inbox.ask("select count(*) from backfills where finished_at is null") == 0
    assert stage.values() == dict.fromkeys(range(1, CUSTOMERS + 1), "5")
    assert stage.writes() == [], "not one plain call"


async def test_an_operation_that_nobody_waits_for_changes_nothing(
    stage: Stage, backfilling: Mirror, inbox: Inbox
) -> None:
    await begin(stage, backfilling)
    await end(stage, "QUERY")
    inbox.deliver({"admin_graphql_api_id": "gid://shopify/BulkOperation/4711"}, topic=TOPIC)
    inbox.deliver({}, topic=TOPIC)
    await inbox.handle()
    assert inbox.outcomes() == [
        (TOPIC, "nothing waits for gid://shopify/BulkOperation/4711"),
        (TOPIC, "names no operation"),
    ]
    assert inbox.ask("select next_step_at > now() + interval '50 minutes' from backfills")


async def test_the_reading_of_an_installation_goes_on_at_once_too(stage: Stage, inbox: Inbox) -> None:
    operation = "gid://shopify/BulkOperation/1"
    stage.owner.execute(
        "insert into installations (shop_id, operation, asked_at) values (%s, %s, now())", (stage.shop_id, operation)
    )
    async with stage.db.shop(stage.shop_id) as conn:
        await note_errand(conn, stage.shop_id, INSTALL_ERRAND.name, after_s=3_600)
    for named in ("gid://shopify/BulkOperation/2", operation):
        assert inbox.ask("select due_at > now() + interval '50 minutes' from errands")
        inbox.deliver({"admin_graphql_api_id": named}, topic=TOPIC)
        await inbox.handle()
    assert inbox.ask("select due_at <= now() from errands")
    assert inbox.outcomes()[-1] == (TOPIC, f"the installation looks at {operation} now")
    stage.owner.execute("update installations set read_at = now()")
    inbox.deliver({"admin_graphql_api_id": operation}, topic=TOPIC)
    await inbox.handle()
    assert inbox.outcomes()[-1] == (TOPIC, f"nothing waits for {operation}")
