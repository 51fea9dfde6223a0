"""Reading the ledger: a customer's entries, newest first, and the balance, now or as of a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg.rows import dict_row

from metafield_sync.ledger.posting import Entry

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId


async def statement_page(
    conn: AsyncConnection, shop_id: ShopId, customer_id: UUID, *, before_sequence: int | None, limit: int
) -> list[Entry]:
    """Up to `limit` entries of one customer, newest first, all older than `before_sequence` when it is given."""
    async with conn.cursor(row_factory=dict_row) as cur:
        await cur.execute(
            STATEMENT_PAGE,
            {"shop": shop_id, "customer": customer_id, "before": before_sequence, "limit": limit},
        )
        return [_entry(row) for row in await cur.fetchall()]


STATEMENT_PAGE = """
select
  l.customer_id, l.sequence, l.amount, l.balance_after, l.reason, l.external_id, m.metadata, l.actor,
  l.reverses_customer_id, l.reverses, l.occurred_at, l.created_at
from ledger_entries l
left join ledger_metadata m
  on m.shop_id = l.shop_id and m.customer_id = l.customer_id and m.sequence = l.sequence
where
  l.shop_id = %(shop)s
  and l.customer_id = %(customer)s
  and (%(before)s::bigint is null or l.sequence < %(before)s)
order by l.sequence desc
limit %(limit)s
"""


async def balance_as_of(conn: AsyncConnection, shop_id: ShopId, customer_id: UUID, at: datetime) -> tuple[int, int]:
    """Balance and sequence a customer had at `at`: those of the last entry recorded by then, or 0 and 0.

    Counts by `createdAt`, which is read under the customer's lock and never runs backwards, so an answer about the
    past never changes.
    """
    async with conn.cursor() as cur:
        await cur.execute(BALANCE_AS_OF, {"shop": shop_id, "customer": customer_id, "at": at})
        row = await cur.fetchone()
    return (0, 0) if row is None else (row[0], row[1])


BALANCE_AS_OF = """
select balance_after, sequence
from ledger_entries
where shop_id = %(shop)s and customer_id = %(customer)s and created_at <= %(at)s
order by sequence desc
limit 1
"""


async def current_balance(conn: AsyncConnection, shop_id: ShopId, customer_id: UUID) -> int:
    """The customer's balance now; 0 for nobody."""
    async with conn.cursor() as cur:
        await cur.execute(CURRENT_BALANCE, {"shop": shop_id, "customer": customer_id})
        row = await cur.fetchone()
    return 0 if row is None else row[0]


CURRENT_BALANCE = "select current_balance from customers where shop_id = %(shop)s and id = %(customer)s"


def _entry(row: dict[str, Any]) -> Entry:
    return Entry(**row)
