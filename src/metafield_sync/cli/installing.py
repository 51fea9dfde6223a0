"""What the commands about shops share of an installation: seen through to its end, chosen for, and told."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from metafield_sync.cli.output import hint, progress, say, warn
from metafield_sync.shopify import ShopifyError
from metafield_sync.sync.install import store
from metafield_sync.sync.install.scopes import describe_missing, missing_scopes
from metafield_sync.sync.install.steps import ask_scopes, describe_values, go_live, take_step
from metafield_sync.sync.lease import LeaseLost

if TYPE_CHECKING:
    from metafield_sync.runtime import Runtime
    from metafield_sync.shops.registry import Shop
    from metafield_sync.sync.install.store import Choice, Installation

TRIES_MAX = 8
"""So often in a row a step may fail before the rest is left to a worker."""
TRY_AGAIN_FIRST_S, TRY_AGAIN_LAST_S = 0.5, 5.0
WAIT_MAX_S = 20.0
"""Where Shopify asks to come back later than that, the rest is left to a worker."""
PROGRESS_POLL_S = 0.5
QUIET_MAX_S = 60.0
"""Where Shopify comes no further for so long, the rest is left to a worker."""

Existing = Literal["ask", "adopt", "overwrite"]
ExistingOption = Annotated[
    Existing,
    Parameter(
        help="What becomes of points that the shop's customers show already: ask waits for `shops adopt` or `shops "
        "overwrite` if there are any."
    ),
]


def chosen(existing: Existing) -> Choice | None:
    """The choice an option stands for."""
    return None if existing == "ask" else existing


async def see_through(runtime: Runtime, shop: Shop) -> str | None:
    """Go on with the shop's installation until it is live or waits for a choice; else why that is left to a worker.

    Raises:
        ShopPaused: Shopify refuses the shop.
    """
    failures, reached, reached_at = 0, 0, time.monotonic()
    with progress("Reading customers", plain_lines=True) as tell:
        while True:
            try:
                async with runtime.mirror.short_turn(shop.id, even_if_held=True) as turn:
                    again_s = await take_step(turn)
            except (ShopifyError, LeaseLost) as error:
                failures += 1
                if failures >= TRIES_MAX:
                    return error.detail
                again_s = min(TRY_AGAIN_FIRST_S * 2 ** (failures - 1), TRY_AGAIN_LAST_S)
            else:
                failures = 0
            read = await look(runtime, shop)
            if read is not None:
                count = read.customers or read.objects
                tell(count, count)
                if count > reached:
                    reached, reached_at = count, time.monotonic()
            if again_s is None:
                return None
            if time.monotonic() + again_s - reached_at > QUIET_MAX_S:
                return f"Shopify has come no further with reading them out for {QUIET_MAX_S:.0f} s."
            if again_s > WAIT_MAX_S:
                return None if read is None else read.error
            await asyncio.sleep(again_s)


async def look(runtime: Runtime, shop: Shop) -> Installation | None:
    """The shop's installation as it is now."""
    async with runtime.db.shop(shop.id) as conn:
        return await store.find_installation(conn, shop.id)


async def learn_scopes(runtime: Runtime, shop: Shop) -> None:
    """Have Shopify say what the app may do, if it will; nothing depends on it."""
    try:
        async with runtime.mirror.short_turn(shop.id, even_if_held=True) as turn:
            await ask_scopes(turn)
    except (ShopifyError, LeaseLost) as error:
        hint(f"What the app may do in the shop is not known yet: {error.detail}")


async def carry_out(runtime: Runtime, shop: Shop) -> None:
    """Apply the choice made, showing how far it is. It goes on where it is after an interruption."""
    working = asyncio.create_task(go_live(runtime.db, shop.id, shop.domain))
    try:
        with progress("Opening balances", plain_lines=True) as tell:
            while not working.done():
                await asyncio.wait({working}, timeout=PROGRESS_POLL_S)
                if (now := await look(runtime, shop)) is not None and now.choice == "adopt":
                    tell(now.adopted + now.left_alone, now.with_values)
        await working
    finally:
        working.cancel()


def tell_installation(shop: Shop, installation: Installation | None, trouble: str | None) -> None:
    """Say how the installation stands, and what a person may do about it."""
    if trouble is not None:
        warn(
            f"{shop.domain}: its customers are not read yet: {trouble} A worker goes on with it: metafield-sync worker"
        )
    if installation is not None:
        _tell_found(shop, installation)
    if missing := missing_scopes(shop.granted_scopes):
        warn(f"{shop.domain}: the app lacks access scopes. Without {describe_missing(missing)}.")


def _tell_found(shop: Shop, installation: Installation) -> None:
    if installation.warning is not None:
        warn(f"{shop.domain}: {installation.warning}")
    elif installation.waits_for_choice:
        say(f"Points of an earlier app: {describe_values(installation)}. Nothing is pushed until you choose:")
        say(f"  metafield-sync shops adopt {shop.domain}      takes them over as opening balances")
        say(f"  metafield-sync shops overwrite {shop.domain}  replaces them by the balances here")
    elif installation.finished_at is not None:
        say(_told_finished(installation))


def _told_finished(installation: Installation) -> str:
    read = f"{installation.customers:,} customers read"
    if not installation.has_values:
        return f"{read}, none of whom shows points: the shop is live."
    if installation.choice == "adopt":
        alone = f"; {installation.left_alone:,} had entries here, which stand" if installation.left_alone else ""
        return f"{read}: {installation.adopted:,} opening balances posted{alone}. The shop is live."
    replaced = installation.with_values + installation.malformed
    return f"{read}: what {replaced:,} of them show is replaced. The shop is live."


def installation_document(shop: Shop, installation: Installation | None) -> dict[str, Any]:
    """The installation for `--json`, and the scopes that are missing."""
    document: dict[str, Any] = {
        "missingScopes": [scope.name for scope in missing_scopes(shop.granted_scopes)],
        "installation": None,
    }
    if installation is not None:
        document["installation"] = {
            "state": _state(installation),
            "customers": installation.customers,
            "withValues": installation.with_values,
            "valuesSum": int(installation.values_sum),
            "malformed": installation.malformed,
            "choice": installation.choice,
            "adopted": installation.adopted,
            "leftAlone": installation.left_alone,
            "warning": installation.warning,
        }
    return document


def _state(installation: Installation) -> str:
    if installation.finished_at is not None:
        return "live"
    return "values_found" if installation.waits_for_choice else "installing"
