"""`bulk_operations/finish`: Shopify is done with an operation, so whoever waits for it looks now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metafield_sync.sync.backfill.store import hasten_backfill
from metafield_sync.sync.errands import hasten_errands
from metafield_sync.sync.install.steps import INSTALL_ERRAND

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from metafield_sync.sync.inbox.handling import Webhook


async def handle_bulk_finish(conn: AsyncConnection, webhook: Webhook) -> str:
    """Make the next look at the operation due now. How it ended, that look tells: a webhook only knocks.

    A reconciliation looks by itself, every few seconds while it runs.
    """
    operation = webhook.payload.get("admin_graphql_api_id")
    if not isinstance(operation, str):
        return "names no operation"
    if await hasten_backfill(conn, webhook.shop_id, operation):
        return f"the backfill looks at {operation} now"
    async with conn.cursor() as cur:
        await cur.execute(INSTALLATION_WAITS, {"shop": webhook.shop_id, "operation": operation})
        waits = await cur.fetchone() is not None
    if waits and await hasten_errands(conn, webhook.shop_id, INSTALL_ERRAND.name):
        return f"the installation looks at {operation} now"
    return f"nothing waits for {operation}"


INSTALLATION_WAITS = """
select 1
from installations
where shop_id = %(shop)s and operation = %(operation)s and read_at is null
"""
