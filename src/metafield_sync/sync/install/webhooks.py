"""Webhooks about the app and the shop itself: it left, it granted something else, it changed, it is to be forgotten."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from metafield_sync.shops import registry
from metafield_sync.sync.errands import note_errand
from metafield_sync.sync.install.steps import SCOPES_ERRAND
from metafield_sync.sync.orders.catch_up_state import begin_catch_up
from metafield_sync.sync.people.redaction import redact_shop

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from metafield_sync.sync.inbox.handling import Webhook

CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


async def handle_uninstalled(conn: AsyncConnection, webhook: Webhook) -> str:
    """Forget the token, which is dead already, and revoke the shop's API keys; the ledger stays.

    One that was delayed until after the app was installed again means the installation before. What the body says of
    time is when the shop was last changed, which tells nothing about that.
    """
    shop = await registry.get_shop(conn, webhook.shop_id)
    if shop.status == "removed":
        return "was removed before"
    told_at = webhook.triggered_at or webhook.received_at
    if shop.installed_at is not None and told_at < shop.installed_at:
        # Where it is gone after all, the call is refused, and says so.
        await note_errand(conn, webhook.shop_id, SCOPES_ERRAND.name)
        return f"older than the installation of {shop.installed_at:%Y-%m-%d %H:%M:%S} UTC"
    await registry.remove_shop(conn, webhook.shop_id)
    return "removed: token forgotten, API keys revoked; the ledger stays"


async def handle_scopes_update(conn: AsyncConnection, webhook: Webhook) -> str:
    """Have the truth asked for: webhooks come late and in any order."""
    await note_errand(conn, webhook.shop_id, SCOPES_ERRAND.name)
    # Orders may be readable now that were not.
    await begin_catch_up(conn, webhook.shop_id)
    return "scopes are asked for"


async def handle_shop_update(conn: AsyncConnection, webhook: Webhook) -> str:
    """Note the shop's currency, which points are earned in. Nothing else of it is kept."""
    currency, shop_id = webhook.payload.get("currency"), webhook.payload.get("id")
    is_currency = isinstance(currency, str) and CURRENCY.fullmatch(currency) is not None
    is_number = isinstance(shop_id, int) and not isinstance(shop_id, bool) and 0 < shop_id < 2**63
    changed = await registry.remember_shop(
        conn,
        webhook.shop_id,
        currency=currency if is_currency else None,
        shopify_shop_id=shop_id if is_number else None,
    )
    return f"currency {currency}" if changed and is_currency else "nothing that matters here"


async def handle_shop_redact(conn: AsyncConnection, webhook: Webhook) -> str:
    """Forget who the shop's customers were, two days after it left; a shop that has come back since keeps them."""
    shop = await registry.get_shop(conn, webhook.shop_id)
    if shop.status != "removed":
        return "installed again since: nothing is forgotten"
    customers = await redact_shop(conn, webhook.shop_id)
    # What its customers show is all that tells who had what: whoever installs it again is asked about that.
    await conn.execute(FORGET_INSTALLATION, {"shop": webhook.shop_id})
    return f"forgotten who {customers:,} customers were; amounts are kept"


FORGET_INSTALLATION = "update shops set installed_at = null where id = %(shop)s"
