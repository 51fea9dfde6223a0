"""Two shops of ours beside their Shopify, and the worker that keeps them in step."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devstore.metafields import Slot
from metafield_sync.ledger.posting import Posting, post

if TYPE_CHECKING:
    from collections.abc import Callable

    from devstore import DevStore
    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.sync.drain import Mirror
    from metafield_sync.sync.runs import Runs
    from metafield_sync.sync.schedule import Schedule

SLOT = Slot("CUSTOMER", "loyalty", "points_balance")
DOMAINS = ("first.myshopify.com", "second.myshopify.com")
PATIENCE_S = 20


@dataclass
class Shops:
    """Two shops, and what pushes to them."""

    db: Database
    store: DevStore
    mirror: Mirror
    runs: Runs
    schedule: Schedule
    ids: dict[str, ShopId]
    mirror_by: Callable[[Database], Mirror]
    """The same Shopify, by another way to the database."""

    async def post(self, domain: str, customer: int, amount: int) -> None:
        wish = Posting(shopify_customer_id=customer, amount=amount, reason="order")
        await post(self.db, self.ids[domain], "test", wish)

    def values(self, domain: str) -> dict[int, str]:
        """What Shopify shows, by Shopify id."""
        return self.store.shop(domain).metafields.dump(SLOT)

    async def eventually(self, happened: Callable[[], bool]) -> None:
        """Look again and again until it has happened."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < deadline, "it has not happened"
            await asyncio.sleep(0.005)
