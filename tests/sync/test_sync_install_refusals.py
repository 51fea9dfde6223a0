"""What Shopify refuses, or never comes to an end with, of an installation's reading holds no shop for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
import pytest
from install_support import AppStage, open_app_mirror, open_app_stage

from metafield_sync.ledger.posting import Posting, post
from metafield_sync.shopify import customers
from metafield_sync.sync.inbox.handling import Webhook
from metafield_sync.sync.install.reading import BUSY_AGAIN_S, QUIET_MAX_S
from metafield_sync.sync.install.steps import look_at_installation, take_step
from metafield_sync.sync.install.webhooks import handle_uninstalled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import psycopg

    from metafield_sync.db.database import Database, ShopId

pytestmark = pytest.mark.anyio
EVERYBODY = 600
"""Three pages."""


class Denials(httpx.AsyncHTTPTransport):
    """A Shopify that answers ACCESS_DENIED to some fields, or is busy, and is the devstore for all others."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: set[str] = set()
        self.is_busy = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        document = request.content.decode()
        if self.is_busy and " bulkOperationRunQuery(" in document:
            busy = {"field": None, "message": "A bulk query is in progress.", "code": "OPERATION_IN_PROGRESS"}
            answered = {"bulkOperationRunQuery": {"bulkOperation": None, "userErrors": [busy]}}
            return httpx.Response(200, json={"data": answered}, request=request)
        for field in self.fields:
            if f" {field}(" in document or f" {field} {{" in document:
                extensions = {"code": "ACCESS_DENIED", "requiredAccess": "`read_customers` access scope."}
                message = f"Access denied for {field} field. Required access: `read_customers` access scope."
                error = {"message": message, "path": [field], "extensions": extensions}
                return httpx.Response(200, json={"data": None, "errors": [error]}, request=request)
        return await super().handle_async_request(request)


@pytest.fixture
def denials() -> Denials:
    return Denials()


@pytest.fixture
async def stage(db: Database, owner: psycopg.Connection, denials: Denials) -> AsyncIterator[AppStage]:
    async with open_app_stage(db, owner, customers=EVERYBODY, transport=denials) as stage:
        yield stage


async def push_all(stage: AppStage, shop_id: ShopId) -> None:
    for _ in range(100):
        if (await stage.mirror.drain(shop_id, probe=True)).end == "idle":
            return
    raise AssertionError("there is always something left to push")


def quiet_for(stage: AppStage, seconds: float) -> None:
    """As if Shopify had come no further with the reading for so long."""
    stage.owner.execute(
        "update installations set quiet_since = clock_timestamp() - make_interval(secs => %s)", (seconds,)
    )


async def step(stage: AppStage, shop_id: ShopId) -> float | None:
    async with stage.mirror.short_turn(shop_id, even_if_held=True) as turn:
        return await take_step(turn)


async def test_scopes_that_may_not_be_asked_for_pause_nothing(stage: AppStage, denials: Denials) -> None:
    shop_id = (await stage.give_token()).shop.id
    await stage.see_through(shop_id)
    denials.fields |= {"currentAppInstallation"}
    await look_at_installation(stage.mirror, shop_id)
    shop = await stage.shop(shop_id)
    assert (shop.status, shop.granted_scopes) == ("active", None)


async def test_a_refused_bulk_query_is_replaced_by_pages(stage: AppStage, denials: Denials) -> None:
    stage.show(1, "100")
    stage.show(EVERYBODY, "250")
    denials.fields |= {"bulkOperationRunQuery"}
    shop_id = (await stage.give_token()).shop.id
    await stage.see_through(shop_id)
    installation = await stage.installation(shop_id)
    assert (installation.customers, installation.with_values, int(installation.values_sum)) == (EVERYBODY, 2, 350)
    assert (await stage.shop(shop_id)).hold == "values_found", "nothing of an earlier app is overwritten unasked"
    assert len(stage.balances()) == EVERYBODY


async def test_where_customers_may_be_read_in_no_way_the_shop_goes_live_with_a_warning(
    stage: AppStage, denials: Denials
) -> None:
    denials.fields |= {"bulkOperationRunQuery", "customers"}
    shop_id = (await stage.give_token()).shop.id
    await stage.see_through(shop_id)
    assert (await stage.shop(shop_id)).status == "active"
    warning = (await stage.installation(shop_id)).warning or ""
    assert "read_customers" in warning
    assert "from their first posting on" in warning
    await post(stage.db, shop_id, "test", Posting(shopify_customer_id=4, amount=7, reason="order"))
    await push_all(stage, shop_id)
    assert stage.values() == {4: "7"}


async def test_a_bulk_query_that_comes_no_further_is_replaced_by_pages(stage: AppStage) -> None:
    stage.show(2, "100")
    stage.shopify.bulk.settings.paused = True
    shop_id = (await stage.give_token()).shop.id
    for _ in range(5):
        assert await step(stage, shop_id) is not None
    assert not (await stage.installation(shop_id)).is_paged
    quiet_for(stage, QUIET_MAX_S)
    await stage.see_through(shop_id)
    installation = await stage.installation(shop_id)
    assert (installation.customers, installation.with_values, installation.warning) == (EVERYBODY, 1, None)


async def test_a_bulk_query_that_never_gets_its_turn_is_replaced_by_pages(stage: AppStage, denials: Denials) -> None:
    denials.is_busy = True
    shop_id = (await stage.give_token()).shop.id
    for _ in range(3):
        assert await step(stage, shop_id) == BUSY_AGAIN_S
    quiet_for(stage, QUIET_MAX_S)
    await stage.see_through(shop_id)
    assert (await stage.installation(shop_id)).customers == EVERYBODY
    assert (await stage.shop(shop_id)).status == "active"


async def test_pages_go_on_after_a_kill_where_the_last_one_ended(stage: AppStage, denials: Denials) -> None:
    stage.show(1, "100")
    denials.fields |= {"bulkOperationRunQuery"}
    shop_id = (await stage.give_token("adopt")).shop.id
    await step(stage, shop_id)
    cursors: list[str | None] = []
    while (await stage.installation(shop_id)).read_at is None:
        cursors.append((await stage.installation(shop_id)).page_after)
        async with (
            open_app_mirror(stage.db, stage.store, transport=Denials()) as (mirror, _),
            mirror.short_turn(shop_id, even_if_held=True) as turn,
        ):
            await take_step(turn)
    assert len(set(cursors)) == EVERYBODY // customers.CUSTOMERS_PAGE_MAX + 1, "each page was read once"
    assert stage.balances() == {**dict.fromkeys(range(1, EVERYBODY + 1), 0), 1: 100}
    assert (await stage.installation(shop_id)).customers == EVERYBODY


async def uninstalled(stage: AppStage, shop_id: ShopId, updated_at: datetime | None, at: datetime | None) -> str:
    payload = {} if updated_at is None else {"updated_at": updated_at.isoformat(timespec="seconds")}
    webhook = Webhook(1, shop_id, "app/uninstalled", payload, at, datetime.now(UTC))
    async with stage.db.shop(shop_id) as conn:
        return await handle_uninstalled(conn, webhook)


async def test_a_late_uninstall_leaves_the_new_installation_and_has_its_token_tried(stage: AppStage) -> None:
    shop_id = (await stage.open_app()).shop.id
    now = datetime.now(UTC)
    said = await uninstalled(stage, shop_id, now, now - timedelta(minutes=5))
    assert said.startswith("older than the installation")
    assert (await stage.shop(shop_id)).access_token is not None
    assert "scopes" in stage.noted_errands(), "whether the token still works is asked"


async def test_a_shop_that_was_last_changed_long_ago_is_uninstalled_all_the_same(stage: AppStage) -> None:
    shop_id = (await stage.open_app()).shop.id
    now = datetime.now(UTC)
    said = await uninstalled(stage, shop_id, now - timedelta(days=400), now + timedelta(seconds=1))
    assert said.startswith("removed")
