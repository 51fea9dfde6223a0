"""Access tokens that lapse: renewed in time, by one process of the fleet, and what happens when that goes wrong."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from install_support import AppStage, open_app_mirror, open_app_stage
from sync_support import DOMAIN

from metafield_sync.db.database import Database
from metafield_sync.shops.tokens import find_token, store_token
from metafield_sync.sync.errand_kinds import ERRAND_KINDS
from metafield_sync.sync.errand_rounds import go_on_errands
from metafield_sync.sync.install.begin import install
from metafield_sync.sync.turn import ShopStops

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import psycopg

    from metafield_sync.db.database import ShopId
    from metafield_sync.shops.tokens import StoredToken

pytestmark = pytest.mark.anyio
TURNS = 20


@pytest.fixture
async def stage(db: Database, owner: psycopg.Connection) -> AsyncIterator[AppStage]:
    async with open_app_stage(db, owner, customers=3) as stage:
        yield stage


@pytest.fixture
async def installed(stage: AppStage) -> ShopId:
    """The shop, installed by an exchange, and live."""
    shop_id = (await stage.open_app()).shop.id
    await stage.see_through(shop_id)
    return shop_id


async def stored(stage: AppStage, shop_id: ShopId) -> StoredToken:
    async with stage.db.unscoped() as conn:
        token = await find_token(conn, shop_id)
    assert token is not None
    return token


async def test_an_exchanged_token_lapses_and_is_sealed(stage: AppStage, installed: ShopId) -> None:
    token = await stored(stage, installed)
    assert (token.source, token.is_renewable) == ("exchanged", True)
    assert token.valid_s is not None
    assert 3500 < token.valid_s <= 3600
    row = stage.owner.execute("select access_token, refresh_token from shops").fetchone()
    assert row is not None
    given = stage.shopify.installation.grants()[-1]
    assert given.access_token not in row[0]
    assert given.refresh_token is not None
    assert given.refresh_token not in row[1]
    assert (await stage.mirror.tokens.valid(installed)).text == given.access_token
    assert given.access_token not in repr(await stage.mirror.tokens.valid(installed))


async def test_a_token_with_time_left_is_not_renewed(stage: AppStage, installed: ShopId) -> None:
    before = stage.grants()
    await stage.mirror.tokens.valid(installed)
    assert stage.grants() == before


@pytest.mark.parametrize("left_s", [300, -5])
async def test_many_turns_of_two_processes_renew_it_once(
    stage: AppStage, installed: ShopId, database_url: str, left_s: float
) -> None:
    before = stage.grants()
    stage.token_lapses_in(left_s)
    async with Database(database_url) as other_db, open_app_mirror(other_db, stage.store) as (other, _):
        tokens = [mirror.tokens for mirror in (stage.mirror, other) for _ in range(TURNS // 2)]
        got = await asyncio.gather(*(one.valid(installed) for one in tokens))
    assert stage.grants() == before + 1
    newest = stage.shopify.installation.grants()[-1].access_token
    assert (await stage.mirror.tokens.valid(installed)).text == newest
    if left_s < 0:
        assert {one.text for one in got} == {newest}, "a token that has lapsed is given to nobody"


async def test_a_refresher_that_was_killed_holds_nobody_up_for_long(stage: AppStage, installed: ShopId) -> None:
    before = stage.grants()
    stage.token_lapses_in(-5)
    # It had asked already: Shopify has given out the next pair, and nobody has stored it.
    token = await stored(stage, installed)
    assert token.refresh_token is not None
    await stage.app.refresh(DOMAIN, stage.mirror.tokens.vault.open(token.refresh_token))
    stage.owner.execute(
        "update shops set refresh_holder = gen_random_uuid(), refresh_until = clock_timestamp() + interval '1 second'"
    )
    began = time.monotonic()
    got = await stage.mirror.tokens.valid(installed)
    assert 0.5 < time.monotonic() - began < 10
    assert stage.grants() == before + 2
    assert got.text == stage.shopify.installation.grants()[-1].access_token


async def test_while_somebody_renews_it_a_valid_token_goes_on_being_used(stage: AppStage, installed: ShopId) -> None:
    before = (await stage.mirror.tokens.valid(installed)).text
    stage.token_lapses_in(120)
    stage.owner.execute(
        "update shops set refresh_holder = gen_random_uuid(), refresh_until = clock_timestamp() + interval '1 minute'"
    )
    began = time.monotonic()
    assert (await stage.mirror.tokens.valid(installed)).text == before
    assert time.monotonic() - began < 5


async def test_a_shopify_out_of_reach_costs_nothing_while_the_token_is_valid(
    stage: AppStage, installed: ShopId
) -> None:
    before = (await stage.mirror.tokens.valid(installed)).text
    stage.token_lapses_in(300)
    async with open_app_mirror(stage.db, stage.store, origin="http://127.0.0.1:9/{shop}") as (cut_off, _):
        assert (await cut_off.tokens.valid(installed)).text == before
        stage.token_lapses_in(-1)
        report = await cut_off.drain(installed)
    assert report.end == "trouble"
    assert (await stage.shop(installed)).status == "active", "a Shopify out of reach is no reason to pause a shop"


async def test_a_dead_refresh_token_pauses_the_shop_until_the_app_is_opened(stage: AppStage, installed: ShopId) -> None:
    stage.shopify.installation.expire(refresh_tokens=True)
    stage.token_lapses_in(-5)
    report = await stage.mirror.drain(installed, probe=True)
    assert report.end == "paused"
    shop = await stage.shop(installed)
    assert shop.paused_code == "refresh_refused"
    assert "Open the app in the Shopify admin once" in (shop.paused_detail or "")

    await stage.open_app()
    assert (await stage.shop(installed)).status == "active"
    assert (await stage.mirror.drain(installed)).end == "idle"


async def test_a_token_that_shopify_refuses_is_renewed_once_and_then_believed(
    stage: AppStage, installed: ShopId
) -> None:
    await stage.mirror.drain(installed)
    stage.shopify.installation.expire()  # our record says that it has most of an hour left
    before = stage.grants()
    stage.owner.execute("update shops set definition_ensured = null")
    assert (await stage.mirror.drain(installed, probe=True)).end == "turn_over"
    assert stage.grants() == before + 1
    assert (await stage.shop(installed)).status == "active"

    stage.shopify.installation.expire()
    refused = await stage.mirror.drain(installed, probe=True)
    assert (refused.end, stage.grants()) == ("paused", before + 1)
    assert (await stage.shop(installed)).paused_code == "access_token_refused"


async def test_client_credentials_are_asked_for_anew(stage: AppStage) -> None:
    done = await install(stage.db, stage.mirror.tokens, DOMAIN, None, "client_credentials")
    await stage.see_through(done.shop.id)
    assert stage.grants() == 1
    stage.token_lapses_in(-5)
    await stage.mirror.tokens.valid(done.shop.id)
    assert stage.grants() == 2
    assert (await stored(stage, done.shop.id)).refresh_token is None


async def test_client_credentials_of_another_organisation_say_what_to_do(stage: AppStage) -> None:
    done = await install(stage.db, stage.mirror.tokens, DOMAIN, None, "client_credentials")
    stage.store.world.app.same_organization = False
    with pytest.raises(ShopStops, match="own organisation"):
        await stage.mirror.tokens.valid(done.shop.id)


async def test_an_idle_or_paused_shop_keeps_a_fresh_token(stage: AppStage, installed: ShopId) -> None:
    before = stage.grants()
    assert "token" in stage.noted_errands()
    stage.owner.execute("update shops set status = 'paused', paused_code = 'paused_by_staff'")
    stage.token_lapses_in(200)
    stage.owner.execute("update errands set due_at = clock_timestamp() where kind = 'token'")
    await go_on_errands(stage.mirror, installed, {"token": ERRAND_KINDS["token"]})
    assert stage.grants() == before + 1
    left = stage.owner.execute(
        "select extract(epoch from due_at - clock_timestamp()) from errands where kind = 'token'"
    ).fetchone()
    assert left is not None
    assert 3000 < left[0] < 3600, "it comes back before the new one lapses"


async def test_of_two_that_fetched_a_token_the_second_stores_nothing(stage: AppStage, installed: ShopId) -> None:
    # A refresher that slept through the end of its lease: another has stored the next token meanwhile.
    slow = await stored(stage, installed)
    stage.token_lapses_in(-5)
    newest = await stage.mirror.tokens.valid(installed)
    late = stage.mirror.tokens.seal(await stage.app.exchange(stage.id_token()), "exchanged")
    async with stage.db.unscoped() as conn:
        assert not await store_token(conn, installed, late, replaces=slow.version)
    assert (await stage.mirror.tokens.valid(installed)).text == newest.text
