"""Going on with an installation, from wherever it is: read, wait for the choice if there is one, apply, go live."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from metafield_sync.shopify import READ_DEFINITION_COST, OutcomeUnknown, QueryRefused, read_definition
from metafield_sync.shopify.installation import READ_INSTALLATION_COST, read_installation
from metafield_sync.shops import registry
from metafield_sync.sync.errands import ErrandKind
from metafield_sync.sync.install import store
from metafield_sync.sync.install.applying import apply_values
from metafield_sync.sync.install.reading import read_everybody
from metafield_sync.sync.install.scopes import describe_missing, missing_scopes
from metafield_sync.sync.orders.catch_up_state import begin_catch_up
from metafield_sync.sync.turn import paid_call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.sync.drain import Mirror
    from metafield_sync.sync.install.scopes import MissingScope
    from metafield_sync.sync.install.store import Installation
    from metafield_sync.sync.turn import Turn

log = structlog.get_logger()


async def take_step(turn: Turn) -> float | None:
    """Take the installation's next step; seconds until the one after it. None: it is finished, or waits for a choice.

    The shop goes live when everybody is known and nothing is left to decide.

    Raises:
        ShopStops: Shopify refuses the shop.
        ShopifyError: it does not answer, or not now. The same step is taken again.
    """
    db, shop_id = turn.db, turn.shop.id
    installation = await _open(db, shop_id)
    if installation is None:
        return None
    if installation.read_at is None:
        again_s = await read_everybody(turn, installation)
        await turn.resume_shop()
        if again_s is not None:
            return again_s
    await go_live(db, shop_id, turn.shop.domain)
    return None


async def go_live(db: Database, shop_id: ShopId, domain: str) -> None:
    """Finish an installation whose reading is done, if nothing is left to choose. Asks nothing of Shopify."""
    installation = await _open(db, shop_id)
    if installation is None or installation.read_at is None:
        return
    if installation.waits_for_choice:
        await _wait_for_choice(db, shop_id, domain, installation)
        return
    await apply_values(db, shop_id, installation)
    async with db.shop(shop_id) as conn, conn.cursor() as cur:
        await cur.execute(store.FINISHED, {"shop": shop_id, "id": installation.id})
        if await cur.fetchone() is not None:
            await registry.hold_shop(conn, shop_id, None, None)
            log.info("shop installed", shop=domain, customers=installation.customers, choice=installation.choice)


async def _open(db: Database, shop_id: ShopId) -> Installation | None:
    async with db.shop(shop_id) as conn:
        installation = await store.find_installation(conn, shop_id)
    return None if installation is None or installation.finished_at is not None else installation


async def _wait_for_choice(db: Database, shop_id: ShopId, domain: str, installation: Installation) -> None:
    detail = describe_choice(domain, installation)
    async with db.shop(shop_id) as conn:
        # A choice made at this very moment is in the row by now, or waits for this and finds the hold.
        await conn.execute(HOLD_INSTALLATION, {"shop": shop_id})
        current = await store.find_installation(conn, shop_id)
        if current is None or not current.waits_for_choice:
            return
        shop = await registry.get_shop(conn, shop_id)
        if shop.hold != "values_found":
            await registry.hold_shop(conn, shop_id, "values_found", detail)
            log.info("values of an earlier app found; waiting for a choice", shop=domain)


HOLD_INSTALLATION = "select 1 from installations where shop_id = %(shop)s for no key update"


def describe_choice(domain: str, installation: Installation) -> str:
    """What was found, and what may be done about it."""
    return (
        f"{domain} shows points of an earlier app: {describe_values(installation)}. Nothing is pushed until you "
        f"choose: metafield-sync shops adopt {domain} takes them over as opening balances, "
        f"metafield-sync shops overwrite {domain} replaces them by the balances here."
    )


def describe_values(installation: Installation) -> str:
    """What was found, in figures."""
    found = (
        f"{installation.with_values:,} of {installation.customers:,} customers show {installation.values_sum:,} points "
        "in all"
    )
    if installation.malformed:
        found = f"{found}, and {installation.malformed:,} something that is no whole number of points"
    return found


async def look_at_installation(mirror: Mirror, shop_id: ShopId) -> None:
    """Ask Shopify what the app may do in the shop and what its currency is, and ensure the metafield's definition.

    What is missing is said by name; only calls that are refused for it stop the mirror.
    """
    async with mirror.short_turn(shop_id, even_if_held=True) as turn:
        if missing := await ask_scopes(turn):
            log.warning("scopes are missing", shop=turn.shop.domain, detail=describe_missing(missing))
        await mirror.ensure_definition(turn, anew=True)
        await turn.resume_shop()
    async with mirror.db.shop(shop_id) as conn:
        # It may read orders now that it could not read before.
        await begin_catch_up(conn, shop_id)


async def ask_scopes(turn: Turn) -> list[MissingScope]:
    """Ask what the app may do in the shop, note it, and return what is missing; also the shop's currency.

    Raises:
        ShopStops: Shopify refuses the shop.
        ShopifyError: it does not answer, or not now.
    """
    try:
        async with paid_call(turn, READ_INSTALLATION_COST) as call:
            try:
                installation, call.cost = await read_installation(turn.client, turn.access)
            except QueryRefused as error:
                # Dealt with in here: outside, a denied access pauses the shop, and its balances need no such answer.
                call.cost = error.cost
                return _scopes_unknown(turn, error)
    except OutcomeUnknown as error:
        return _scopes_unknown(turn, error)
    async with turn.db.unscoped() as conn:
        await registry.remember_scopes(conn, turn.shop.id, installation.scopes)
        await registry.remember_shop(
            conn, turn.shop.id, currency=installation.currency, shopify_shop_id=installation.shop_id
        )
    return missing_scopes(installation.scopes)


def _scopes_unknown(turn: Turn, error: QueryRefused | OutcomeUnknown) -> list[MissingScope]:
    """Not worth stopping for: what the app may not do, the calls themselves tell."""
    log.warning("scopes not known", shop=turn.shop.domain, detail=error.detail)
    return []


async def _install(turn: Turn, subjects: Sequence[str]) -> Mapping[str, float]:
    again_s = await take_step(turn)
    return {} if again_s is None else dict.fromkeys(subjects, again_s)


async def _look(mirror: Mirror, shop_id: ShopId, _: Sequence[str]) -> Mapping[str, float]:
    await look_at_installation(mirror, shop_id)
    return {}


async def _define(mirror: Mirror, shop_id: ShopId, _: Sequence[str]) -> Mapping[str, float]:
    async with mirror.short_turn(shop_id) as turn:
        async with paid_call(turn, READ_DEFINITION_COST) as call:
            state, call.cost = await read_definition(turn.client, turn.access, mirror.definition)
        if not state.matches:
            await mirror.ensure_definition(turn, anew=True)
    return {}


DEFINITION_ERRAND = ErrandKind(name="definition", batch_max=1, run_without_turn=_define)
"""Looks, with each visit to the embedded app, whether the metafield's definition is as it should be."""
INSTALL_ERRAND = ErrandKind(name="install", batch_max=1, run=_install, even_if_held=True)
"""Reads a new shop's customers and takes it live."""
SCOPES_ERRAND = ErrandKind(name="scopes", batch_max=1, run_without_turn=_look, even_if_held=True)
"""Asks what the app may do in the shop, after each installation and whenever that changes."""
