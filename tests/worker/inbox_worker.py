"""A worker's inbox as a process of its own, to be killed: each webhook posts a point without a key."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from metafield_sync.db.database import Database
from metafield_sync.ledger.posting import Posted, Posting, post_within
from metafield_sync.sync.inbox import handling
from metafield_sync.worker.inbox import handle_inbox_forever

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from metafield_sync.sync.inbox.handling import Webhook

CLAIM_S = 2
"""Shorter than in life: the test waits for the claims of those it killed."""


async def earn(conn: AsyncConnection, webhook: Webhook) -> str:
    posting = Posting(shopify_customer_id=webhook.payload["customer"], amount=1, reason="webhook")
    (posted,) = await post_within(conn, webhook.shop_id, "test", [posting])
    assert isinstance(posted, Posted)
    return "+1 point"


async def main(url: str) -> None:
    handling.CLAIM_S = CLAIM_S
    async with Database(url) as db:
        sys.stdout.write("working\n")
        sys.stdout.flush()
        await handle_inbox_forever(db, {"test/earn": earn})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
