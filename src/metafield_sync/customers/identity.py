"""A customer's two ids, and finding one by either."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType
from uuid import UUID

from psycopg.rows import class_row

from metafield_sync.errors import AppError

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId

CustomerId = NewType("CustomerId", UUID)
"""Ours."""
ShopifyCustomerId = NewType("ShopifyCustomerId", int)
"""Shopify's: the number at the end of `gid://shopify/Customer/…`. Beyond 2^53, so a string of digits in JSON."""

SHOPIFY_ID_MAX = 2**63 - 1


class CustomerNotFound(AppError):
    """No such customer in this shop. Another shop's customer looks the same: their existence is not ours to tell."""

    code = "customer_not_found"
    status = 404


class CustomerRedacted(AppError):
    """Who this customer was has been erased; the amounts are kept, and nothing is shown of them or added to them."""

    code = "customer_redacted"
    status = 410


@dataclass(frozen=True, slots=True)
class Customer:
    """One customer of one shop, without the balance: that is the ledger's to say.

    `merged_into`: who has their points since they were merged; None: they have them themselves.
    """

    id: CustomerId
    shopify_customer_id: ShopifyCustomerId
    merged_into: CustomerId | None = None


async def ensure_customer(
    conn: AsyncConnection, shop_id: ShopId, shopify_customer_id: ShopifyCustomerId
) -> tuple[CustomerId, bool]:
    """The customer with this Shopify id, created at a balance of 0 if new; of a merged one, the survivor.

    Returns:
        Our id, and whether it was created now.

    Raises:
        CustomerRedacted: whoever had this id was redacted, and is not brought back.
    """
    async with conn.cursor() as cur:
        await cur.execute(ENSURE_CUSTOMER, {"shop": shop_id, "shopify": shopify_customer_id})
        made = await cur.fetchone()
        if made is not None:
            return CustomerId(made[0]), True
        return (await find_by_shopify_id(conn, shop_id, shopify_customer_id)).id, False


ENSURE_CUSTOMER = """
insert into customers (shop_id, shopify_customer_id)
values (%(shop)s, %(shopify)s)
on conflict (shop_id, shopify_customer_id) do nothing
returning id
"""


async def find_by_shopify_id(
    conn: AsyncConnection, shop_id: ShopId, shopify_customer_id: ShopifyCustomerId
) -> Customer:
    """Look a customer up by Shopify's id: of a merged one, the survivor, who has the points.

    Raises:
        CustomerNotFound: the shop has none with it.
        CustomerRedacted: it had one, who was redacted.
    """
    async with conn.cursor(row_factory=class_row(Customer)) as cur:
        await cur.execute(FIND_BY_SHOPIFY_ID, {"shop": shop_id, "shopify": shopify_customer_id})
        found = await cur.fetchone()
        if found is None:
            await _refuse_redacted(conn, shop_id, shopify_customer_id)
    if found is None:
        raise CustomerNotFound(
            f"This shop has no customer with the Shopify id {shopify_customer_id}. "
            "A posting that names it, or POST /api/customers, creates it."
        )
    return found


# By CASE: under row-level security a condition on COALESCE is kept from the index.
FIND_BY_SHOPIFY_ID = """
select s.id, s.shopify_customer_id
from customers c
join customers s
  on s.shop_id = c.shop_id and s.id = case when c.merged_into is not null then c.merged_into else c.id end
where c.shop_id = %(shop)s and c.shopify_customer_id = %(shopify)s
"""


async def _refuse_redacted(conn: AsyncConnection, shop_id: ShopId, shopify_customer_id: ShopifyCustomerId) -> None:
    if await is_redacted(conn, shop_id, shopify_customer_id):
        raise CustomerRedacted(
            f"The customer with the Shopify id {shopify_customer_id} was redacted and is not brought back."
        )


async def is_redacted(conn: AsyncConnection, shop_id: ShopId, shopify_customer_id: ShopifyCustomerId) -> bool:
    """Whether the shop had a customer with this Shopify id who was redacted."""
    async with conn.cursor() as cur:
        await cur.execute("select is_redacted(%s, %s)", (shop_id, shopify_customer_id))
        return await cur.fetchone() == (True,)


async def require_customer(conn: AsyncConnection, shop_id: ShopId, customer_id: CustomerId) -> Customer:
    """Look a customer up by our id, merged or not; see `find_survivor`.

    Raises:
        CustomerNotFound: the shop has none with it.
        CustomerRedacted: they were redacted.
    """
    async with conn.cursor() as cur:
        await cur.execute(FIND_BY_ID, {"shop": shop_id, "customer": customer_id})
        found = await cur.fetchone()
    if found is None:
        raise CustomerNotFound(
            f"This shop has no customer {customer_id}. "
            "Look them up by Shopify id: GET /api/customers?shopifyCustomerId=…"
        )
    if found[1] is None:
        raise CustomerRedacted(f"Customer {customer_id} was redacted: who they were has been erased.")
    return Customer(*found)


FIND_BY_ID = """
select id, shopify_customer_id, merged_into
from customers
where shop_id = %(shop)s and id = %(customer)s
"""


async def find_survivor(conn: AsyncConnection, shop_id: ShopId, customer_id: CustomerId) -> Customer:
    """Who has this customer's points now: whom they were merged into, or themselves. Raises as `require_customer`."""
    found = await require_customer(conn, shop_id, customer_id)
    return found if found.merged_into is None else await require_customer(conn, shop_id, found.merged_into)
