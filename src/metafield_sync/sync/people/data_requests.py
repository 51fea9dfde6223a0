"""What a shopper has asked the merchant for: the requests that Shopify passed on, and the document to hand over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row, dict_row

from metafield_sync.errors import AppError
from metafield_sync.ledger.statements import statement_page

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId
    from metafield_sync.ledger.posting import Entry

ENTRIES_A_PAGE = 1_000
STATEMENT = (
    "This is everything metafield-sync stores about the customer: Shopify's id of the customer, points and why they "
    "changed, what orders gave, and the balance shown in Shopify. It stores no name, no e-mail address, no phone "
    "number and no postal address."
)


class DataRequestNotFound(AppError):
    """There is no such request in this shop."""

    code = "data_request_not_found"
    status = 404


@dataclass(frozen=True, slots=True)
class DataRequest:
    """A request, by Shopify's number for it. Without a customer it is about one who was redacted since."""

    id: int
    shopify_customer_id: int | None
    orders_requested: list[int]
    received_at: datetime
    completed_at: datetime | None


async def note_data_request(
    conn: AsyncConnection, shop_id: ShopId, request_id: int, shopify_customer_id: int, orders: Sequence[int]
) -> None:
    """Note a request that came; one that is noted already stays as it is."""
    await conn.execute(
        NOTE_DATA_REQUEST,
        {"shop": shop_id, "id": request_id, "customer": shopify_customer_id, "orders": list(orders)},
    )


# Of somebody redacted nothing is left to hand over, nor to be noted.
NOTE_DATA_REQUEST = """
insert into data_requests (shop_id, id, shopify_customer_id, orders_requested, completed_at)
select
  %(shop)s,
  %(id)s,
  case when not r.is_redacted then %(customer)s::bigint end,
  case when r.is_redacted then '{}' else %(orders)s::bigint[] end,
  case when r.is_redacted then clock_timestamp() end
from (select is_redacted(%(shop)s, %(customer)s)) r
on conflict (shop_id, id) do nothing
"""


async def data_request_page(
    conn: AsyncConnection, shop_id: ShopId, *, before: int | None, limit: int
) -> list[DataRequest]:
    """Up to `limit` requests, those with the largest numbers first, all below `before` if given."""
    async with conn.cursor(row_factory=class_row(DataRequest)) as cur:
        await cur.execute(DATA_REQUEST_PAGE, {"shop": shop_id, "before": before, "limit": limit})
        return await cur.fetchall()


DATA_REQUEST_PAGE = """
select id, shopify_customer_id, orders_requested, received_at, completed_at
from data_requests
where shop_id = %(shop)s and (%(before)s::bigint is null or id < %(before)s)
order by id desc
limit %(limit)s
"""


async def get_data_request(conn: AsyncConnection, shop_id: ShopId, request_id: int) -> DataRequest:
    """One request.

    Raises:
        DataRequestNotFound: the shop has none with this number.
    """
    async with conn.cursor(row_factory=class_row(DataRequest)) as cur:
        await cur.execute(GET_DATA_REQUEST, {"shop": shop_id, "id": request_id})
        found = await cur.fetchone()
    if found is None:
        raise DataRequestNotFound(f"This shop has no data request {request_id}. GET /api/data-requests lists them.")
    return found


GET_DATA_REQUEST = """
select id, shopify_customer_id, orders_requested, received_at, completed_at
from data_requests
where shop_id = %(shop)s and id = %(id)s
"""


async def complete_data_request(conn: AsyncConnection, shop_id: ShopId, request_id: int) -> DataRequest:
    """Note that the document was handed over; again it changes nothing. Raises as `get_data_request`."""
    await conn.execute(COMPLETE_DATA_REQUEST, {"shop": shop_id, "id": request_id})
    return await get_data_request(conn, shop_id, request_id)


COMPLETE_DATA_REQUEST = """
update data_requests
set completed_at = coalesce(completed_at, clock_timestamp())
where shop_id = %(shop)s and id = %(id)s
"""


async def data_document(conn: AsyncConnection, shop_id: ShopId, request: DataRequest) -> dict[str, Any]:
    """The document to hand over, as plain JSON: as things are now, every customer merged into the one included."""
    customers = await _customers(conn, shop_id, request)
    ids = [row["id"] for row in customers]
    return {
        "statement": STATEMENT,
        "dataRequestId": str(request.id),
        "receivedAt": request.received_at.isoformat(),
        "customers": [
            {
                "customerId": str(row["id"]),
                "shopifyCustomerId": str(row["shopify_customer_id"]),
                "balance": row["current_balance"],
                "createdAt": row["created_at"].isoformat(),
                "mergedInto": None if row["merged_into"] is None else str(row["merged_into"]),
                "shownInShopify": row["pushed_balance"],
                "shownSince": None if row["pushed_at"] is None else row["pushed_at"].isoformat(),
                "entries": [_entry(entry) for entry in await _entries(conn, shop_id, row["id"])],
            }
            for row in customers
        ],
        "orders": await _orders(conn, shop_id, ids, [row["shopify_customer_id"] for row in customers]),
        "ordersRequested": [str(order) for order in request.orders_requested],
    }


async def _customers(conn: AsyncConnection, shop_id: ShopId, request: DataRequest) -> list[dict[str, Any]]:
    async with conn.cursor(row_factory=dict_row) as cur:
        await cur.execute(WHOSE_DATA, {"shop": shop_id, "shopify": request.shopify_customer_id})
        return await cur.fetchall()


WHOSE_DATA = """
select c.id, c.shopify_customer_id, c.current_balance, c.created_at, c.merged_into, m.pushed_balance, m.pushed_at
from customers n
cross join lateral (select case when n.merged_into is not null then n.merged_into else n.id end as survivor) s
join customers c
  on c.shop_id = n.shop_id and (c.id = s.survivor or c.merged_into = s.survivor) and c.redacted_at is null
join mirror_states m on m.shop_id = c.shop_id and m.customer_id = c.id
where n.shop_id = %(shop)s and n.shopify_customer_id = %(shopify)s
order by c.merged_into nulls first, c.id
"""


async def _entries(conn: AsyncConnection, shop_id: ShopId, customer_id: UUID) -> list[Entry]:
    """Every entry, newest first."""
    entries: list[Entry] = []
    while page := await statement_page(
        conn,
        shop_id,
        customer_id,
        before_sequence=entries[-1].sequence if entries else None,
        limit=ENTRIES_A_PAGE,
    ):
        entries += page
    return entries


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.key,
        "amount": entry.amount,
        "balanceAfter": entry.balance_after,
        "reason": entry.reason,
        "externalId": entry.external_id,
        "metadata": None if entry.metadata is None else dict(entry.metadata),
        "reverses": entry.reverses_key,
        "occurredAt": entry.occurred_at.isoformat(),
        "createdAt": entry.created_at.isoformat(),
    }


async def _orders(
    conn: AsyncConnection, shop_id: ShopId, customers: Sequence[UUID], shopify_ids: Sequence[int]
) -> list[dict[str, Any]]:
    async with conn.cursor(row_factory=dict_row) as cur:
        await cur.execute(
            WHOSE_ORDERS, {"shop": shop_id, "customers": list(customers), "shopify_ids": list(shopify_ids)}
        )
        return [
            {
                "orderId": str(row["order_id"]),
                "points": int(row["points"]),
                "earningMoney": None if row["money"] is None else f"{row['money']:f}",
                "currency": row["currency"],
                "facts": row["facts"],
            }
            for row in await cur.fetchall()
        ]


WHOSE_ORDERS = """
select o.order_id, coalesce(e.points, 0) as points, o.money, o.currency, o.facts
from orders o
left join lateral (
  select sum(g.points) as points
  from order_earnings g
  where g.shop_id = o.shop_id and g.order_id = o.order_id and g.customer_id = any (%(customers)s)
) e on true
where
  o.shop_id = %(shop)s
  and (
    o.shopify_customer_id = any (%(shopify_ids)s::bigint[])
    or o.order_id in (
      select g.order_id from order_earnings g where g.shop_id = %(shop)s and g.customer_id = any (%(customers)s)
    )
  )
order by o.order_id
"""
