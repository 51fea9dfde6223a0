"""What the ledger keeps beside its entries in free words, emptied. The entries stay: they name nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId


async def forget_metadata(conn: AsyncConnection, shop_id: ShopId, customers: Sequence[UUID] | None) -> None:
    """Remove the metadata of these customers' entries; None: of everybody's in the shop."""
    await conn.execute(FORGET_METADATA, {"shop": shop_id, "customers": None if customers is None else list(customers)})


FORGET_METADATA = """
delete from ledger_metadata
where shop_id = %(shop)s and (%(customers)s::uuid[] is null or customer_id = any (%(customers)s))
"""
