"""Installing a shop, whichever way its token came, and choosing what becomes of what was found there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from metafield_sync.db.database import ShopId
from metafield_sync.errors import AppError
from metafield_sync.shops import registry
from metafield_sync.shops.tokens import store_token
from metafield_sync.sync.errands import note_errand
from metafield_sync.sync.install import store
from metafield_sync.sync.install.steps import INSTALL_ERRAND, SCOPES_ERRAND
from metafield_sync.sync.orders.catch_up_state import begin_catch_up
from metafield_sync.sync.tokens import keep_token_fresh

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from metafield_sync.db.database import Database
    from metafield_sync.shopify.app.tokens import TokenPair
    from metafield_sync.shops.registry import Shop, TokenSource
    from metafield_sync.sync.install.store import Choice
    from metafield_sync.sync.tokens import ShopTokens

log = structlog.get_logger()


class NothingToChoose(AppError):
    """The shop's installation is finished, or the other choice has been made."""

    code = "nothing_to_choose"
    status = 409
    exit_status = 2


@dataclass(frozen=True, slots=True)
class Installed:
    """The shop with its token, whether it is new here, and whether its customers are being read now."""

    shop: Shop
    is_new: bool
    is_reading: bool


async def install(
    db: Database,
    tokens: ShopTokens,
    domain: str,
    pair: TokenPair | None,
    source: TokenSource,
    *,
    choice: Choice | None = None,
    resume: bool = True,
) -> Installed:
    """Give a shop its token, and begin reading its customers if it is new here or had been removed.

    A shop that is at work goes on: it has a newer token, nothing else. One that was removed is read again, and nobody
    is asked about what is found: its ledger is here, and is the truth. Nothing is asked of Shopify in here.

    Args:
        db: where shops are.
        tokens: seals the token.
        domain: the shop's, in lower case.
        pair: the token; None: it will be asked for with the client credentials.
        source: how it came.
        choice: what becomes of values found; None: somebody is asked when there are any.
        resume: set a shop to work again that staff have paused.
    """
    sealed = None if pair is None else tokens.seal(pair, source)
    async with db.unscoped() as conn, conn.cursor() as cur:
        await cur.execute(MAKE_SHOP, {"domain": domain})
        is_new = await cur.fetchone() is not None
        await cur.execute("select id from shops where domain = %s", (domain,))
        row = await cur.fetchone()
    assert row is not None, "shops are never deleted"  # noqa: S101 - the schema grants nobody the right
    shop_id = ShopId(row[0])
    async with db.shop(shop_id) as conn:
        await conn.execute("select 1 from shops where id = %s for no key update", (shop_id,))
        before = await registry.get_shop(conn, shop_id)
        await conn.execute(
            SET_TO_WORK, {"shop": shop_id, "source": source, "resume": resume, "staff": registry.PAUSED_BY_STAFF}
        )
        if sealed is not None:
            await store_token(conn, shop_id, sealed)
        is_reading = await _begin_reading(conn, before, choice)
        for kind in (SCOPES_ERRAND, *((INSTALL_ERRAND,) if is_reading else ())):
            await note_errand(conn, shop_id, kind.name)
        await begin_catch_up(conn, shop_id)
        await keep_token_fresh(conn, shop_id)
        await begin_catch_up(conn, shop_id)
        shop = await registry.get_shop(conn, shop_id)
    log.info("shop given a token", shop=domain, source=source, is_new=is_new, reading=is_reading)
    return Installed(shop, is_new, is_reading)


MAKE_SHOP = "insert into shops (domain) values (%(domain)s) on conflict (domain) do nothing returning id"

# A source without a token yet: it is asked for when it is needed.
SET_TO_WORK = """
update shops
set
  status = case
    when hold is not null or (paused_code = %(staff)s and not %(resume)s) then 'paused'
    else 'active'
  end,
  paused_code = case when paused_code = %(staff)s and not %(resume)s then paused_code else hold end,
  paused_detail = case when paused_code = %(staff)s and not %(resume)s then paused_detail else hold_detail end,
  probe_at = null,
  probes = 0,
  token_source = %(source)s,
  token_version = token_version + 1,
  access_token = case when token_source = %(source)s then access_token end,
  token_expires_at = case when token_source = %(source)s then token_expires_at end,
  refresh_token = case when token_source = %(source)s then refresh_token end,
  refresh_expires_at = case when token_source = %(source)s then refresh_expires_at end,
  installed_at = clock_timestamp(),
  uninstalled_at = null,
  definition_ensured = null
where id = %(shop)s
"""


async def _begin_reading(conn: AsyncConnection, before: Shop, choice: Choice | None) -> bool:
    """Whether the shop's customers are being read now, begun now or before."""
    is_at_work = before.installed_at is not None and before.token_source is not None
    if is_at_work and before.status != "removed":
        # It is at work, or its installation is: the reading goes on with the new token.
        if before.hold is not None and choice is not None:
            await store.set_choice(conn, before.id, choice)
        return before.hold is not None
    last = await store.find_installation(conn, before.id)
    was_settled = before.installed_at is not None and (last is None or last.finished_at is not None)
    # Where it has been at work before, the ledger is what counts.
    await store.begin_installation(conn, before.id, "overwrite" if was_settled else choice)
    await registry.hold_shop(
        conn,
        before.id,
        "installing",
        f"{before.domain} is being installed: Shopify is reading out its customers and what they show. Postings are "
        "taken, and pushed when that is done.",
    )
    return True


async def choose(db: Database, shop_id: ShopId, choice: Choice) -> None:
    """Decide what becomes of the values found, now or when they will have been; a worker goes on with it.

    Raises:
        NothingToChoose: it was decided otherwise, or there is nothing to decide.
    """
    async with db.shop(shop_id) as conn:
        chosen = await store.set_choice(conn, shop_id, choice)
        if not chosen:
            shop = await registry.get_shop(conn, shop_id)
            raise NothingToChoose(
                f"{shop.domain}: there is nothing to choose. Its installation is finished, or the other choice has "
                "been made and is being carried out."
            )
        await note_errand(conn, shop_id, INSTALL_ERRAND.name)
    log.info("choice made", shop_id=shop_id, choice=choice)
