"""What else names a customer: webhooks that came, errands, results of runs, values read at an installation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Json

from metafield_sync.shopify.ids import customer_gid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId

REDACTED = "redacted"
"""What stands where words about somebody stood."""


@dataclass(frozen=True, slots=True)
class Redacted:
    """Who is redacted: our ids, Shopify's, and Shopify's of their orders."""

    customers: Sequence[UUID]
    shopify_ids: Sequence[int]
    orders: Sequence[int]


async def orders_of(conn: AsyncConnection, shop_id: ShopId, shopify_ids: Sequence[int]) -> list[int]:
    """Shopify's ids of the orders known to be these customers'."""
    async with conn.cursor() as cur:
        await cur.execute(ORDERS_OF, {"shop": shop_id, "shopify_ids": list(shopify_ids)})
        return [row[0] for row in await cur.fetchall()]


ORDERS_OF = """
select order_id
from orders
where shop_id = %(shop)s and shopify_customer_id = any (%(shopify_ids)s::bigint[])
"""


async def all_orders(conn: AsyncConnection, shop_id: ShopId) -> list[int]:
    """Shopify's ids of all orders of a shop that are not forgotten."""
    async with conn.cursor() as cur:
        await cur.execute(ALL_ORDERS, {"shop": shop_id})
        return [row[0] for row in await cur.fetchall()]


ALL_ORDERS = "select order_id from orders where shop_id = %(shop)s and not is_forgotten"


async def wipe_traces(conn: AsyncConnection, shop_id: ShopId, whom: Redacted) -> None:
    """Empty or remove all that names these customers. Webhooks about them that wait are done with."""
    parameters = {
        "shop": shop_id,
        "customers": list(whom.customers),
        "shopify_ids": list(whom.shopify_ids),
        "ids": [str(one) for one in whom.shopify_ids],
        "gids": [customer_gid(one) for one in whom.shopify_ids],
        "orders": [str(one) for one in whom.orders],
        "redacted": REDACTED,
    }
    for statement in (WIPE_INBOX, WIPE_ERRANDS, WIPE_FOUND_VALUES, WIPE_DATA_REQUESTS, WIPE_CHANGES):
        await conn.execute(statement, parameters)
    names = {str(one) for one in (*whom.shopify_ids, *whom.customers)}
    await _wipe_results(
        conn,
        shop_id,
        [f'%"{name}"%' for name in sorted(names)],
        lambda row: not names & {row["customerId"], row["shopifyCustomerId"]},
    )


# Payloads have ids as numbers; that of a merge has them as gids.
WIPE_INBOX = """
update inbox i
set
  payload = '{}',
  error = null,
  outcome = %(redacted)s,
  handled_at = coalesce(i.handled_at, clock_timestamp()),
  due_at = null,
  failed_at = null
where
  i.shop_id = %(shop)s
  and i.payload <> '{}'
  and (
    (
      i.topic like 'customers/%%'
      and (
        i.payload ->> 'id' = any (%(ids)s)
        or i.payload #>> '{customer,id}' = any (%(ids)s)
        or i.payload ->> 'admin_graphql_api_customer_kept_id' = any (%(gids)s)
        or i.payload ->> 'admin_graphql_api_customer_deleted_id' = any (%(gids)s)
      )
    )
    or (
      i.topic like 'orders/%%'
      and (i.payload #>> '{customer,id}' = any (%(ids)s) or i.payload ->> 'id' = any (%(orders)s))
    )
    or (i.topic like 'refunds/%%' and i.payload ->> 'order_id' = any (%(orders)s))
  )
"""

WIPE_ERRANDS = """
delete from errands
where
  shop_id = %(shop)s
  and (
    (kind = 'merge' and string_to_array(subject, '/') && %(ids)s::text[])
    or (kind = 'order' and subject = any (%(orders)s))
  )
"""

WIPE_FOUND_VALUES = """
delete from found_values
where shop_id = %(shop)s and shopify_customer_id = any (%(shopify_ids)s::bigint[])
"""

WIPE_DATA_REQUESTS = """
update data_requests
set shopify_customer_id = null, orders_requested = '{}', completed_at = coalesce(completed_at, clock_timestamp())
where shop_id = %(shop)s and shopify_customer_id = any (%(shopify_ids)s::bigint[])
"""

WIPE_CHANGES = """
update sync_run_changes
set reason = %(redacted)s
where shop_id = %(shop)s and customer_id = any (%(customers)s) and change = 'failed'
"""


async def wipe_all_traces(conn: AsyncConnection, shop_id: ShopId) -> None:
    """The same of everybody in a shop."""
    for statement in (
        WIPE_ALL_INBOX,
        WIPE_ALL_ERRANDS,
        WIPE_ALL_FOUND_VALUES,
        WIPE_ALL_DATA_REQUESTS,
        WIPE_ALL_CHANGES,
    ):
        await conn.execute(statement, {"shop": shop_id, "redacted": REDACTED})
    await _wipe_results(conn, shop_id, ['%"shopifyCustomerId"%'], lambda _: False)


WIPE_ALL_INBOX = """
update inbox
set
  payload = '{}',
  error = null,
  outcome = %(redacted)s,
  handled_at = coalesce(handled_at, clock_timestamp()),
  due_at = null,
  failed_at = null
where
  shop_id = %(shop)s
  and payload <> '{}'
  and (topic like 'customers/%%' or topic like 'orders/%%' or topic like 'refunds/%%')
"""

WIPE_ALL_ERRANDS = "delete from errands where shop_id = %(shop)s and kind in ('merge', 'order')"

WIPE_ALL_FOUND_VALUES = "delete from found_values where shop_id = %(shop)s"

WIPE_ALL_DATA_REQUESTS = """
update data_requests
set shopify_customer_id = null, orders_requested = '{}', completed_at = coalesce(completed_at, clock_timestamp())
where shop_id = %(shop)s and shopify_customer_id is not null
"""

WIPE_ALL_CHANGES = """
update sync_run_changes
set reason = %(redacted)s
where shop_id = %(shop)s and change = 'failed'
"""

RESULT_LISTS = ("failedSyncs", "discrepancies", "drifts")
"""Where the results of runs name customers."""


async def _wipe_results(
    conn: AsyncConnection, shop_id: ShopId, like: list[str], keeps: Callable[[dict[str, Any]], bool]
) -> None:
    """Take rows off the lists in results of runs whose text is like one of these. What was counted stays counted."""
    async with conn.cursor() as cur:
        await cur.execute(RUNS_NAMING, {"shop": shop_id, "like": like})
        runs = [row[0] for row in await cur.fetchall()]
        # One by one: a result may name 1,000 customers, and there may be years of runs.
        for run_id in runs:
            await cur.execute("select result from sync_runs where shop_id = %s and id = %s", (shop_id, run_id))
            row = await cur.fetchone()
            result: dict[str, Any] = {} if row is None else row[0]
            wiped = {
                name: [one for one in value if keeps(one)] if name in RESULT_LISTS else value
                for name, value in result.items()
            }
            await cur.execute(WIPE_RESULT, {"shop": shop_id, "run": run_id, "result": Json(wiped)})


RUNS_NAMING = """
select id
from sync_runs
where shop_id = %(shop)s and result::text like any (%(like)s::text[])
order by id
"""

WIPE_RESULT = """
update sync_runs
set result = %(result)s
where shop_id = %(shop)s and id = %(run)s
"""
