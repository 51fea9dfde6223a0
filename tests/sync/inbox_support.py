"""What the inbox's tests share: webhooks delivered to one shop, and handlers whose doings can be counted."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from metafield_sync.ledger.posting import Posted, Posting, post_within
from metafield_sync.sync.inbox.handling import Handled, handle_due

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import psycopg
    from psycopg import AsyncConnection

    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.sync.inbox.handling import Handler, Webhook

EARN = "test/earn"
"""A topic whose handler posts a point to the customer named, with no key: done twice, it would be seen twice."""


async def earn(conn: AsyncConnection, webhook: Webhook) -> str:
    posting = Posting(shopify_customer_id=webhook.payload["customer"], amount=1, reason="webhook")
    (posted,) = await post_within(conn, webhook.shop_id, "test", [posting])
    assert isinstance(posted, Posted)
    return f"customer {webhook.payload['customer']}: +1 point"


@dataclass
class Inbox:
    """One shop's inbox."""

    db: Database
    owner: psycopg.Connection
    shop_id: ShopId
    handlers: dict[str, Handler] = field(default_factory=lambda: {EARN: earn})

    def deliver(
        self, payload: Mapping[str, Any], *, topic: str = EARN, count: int = 1, triggered_at: datetime | None = None
    ) -> list[int]:
        """Put webhooks into the inbox, each a delivery of its own; their numbers."""
        rows = self.owner.execute(
            """
            insert into inbox (shop_id, delivery_id, topic, triggered_at, body_digest, payload)
            select %s, gen_random_uuid(), %s, %s, '', %s
            from generate_series(1, %s)
            returning id
            """,
            (self.shop_id, topic, triggered_at, json.dumps(payload), count),
        ).fetchall()
        return [row[0] for row in rows]

    async def handle(self) -> Handled:
        """Handle some of what is due."""
        return await handle_due(self.db, self.shop_id, self.handlers)

    async def handle_all(self) -> list[Handled]:
        """Handle until nothing is due; what each round came to."""
        rounds: list[Handled] = []
        while (done := await self.handle()).claimed:
            rounds.append(done)
        return rounds

    def ask(self, query: str) -> Any:
        """What a query's first row has in its first column, as the owner sees it."""
        row = self.owner.execute(query.encode()).fetchone()
        return None if row is None else row[0]

    def points(self) -> int:
        """All points of the shop's ledger."""
        return int(self.ask("select coalesce(sum(amount), 0) from ledger_entries"))

    def outcomes(self) -> Sequence[tuple[str, str | None]]:
        """Topic and outcome of every webhook, in the order they came in."""
        return self.owner.execute("select topic, outcome from inbox order by id").fetchall()

    def let_waiting_pass(self) -> None:
        """As if so much time had gone by that everything that waits is due, claims included."""
        self.owner.execute("update inbox set due_at = clock_timestamp() where due_at is not null")
