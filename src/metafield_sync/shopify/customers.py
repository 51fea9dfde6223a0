"""Which customers exist: read, without writing anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metafield_sync.shopify.ids import customer_gid
from metafield_sync.shopify.shapes import items, mapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metafield_sync.shopify.client import AdminClient, ShopAccess
    from metafield_sync.shopify.cost import Cost

FIND_CUSTOMERS_MAX = 250
"""Shopify accepts no longer list in an argument (https://shopify.dev/docs/api/usage/limits)."""

FIND_CUSTOMERS_QUERY = """
query FindCustomers($ids: [ID!]!) {
  nodes(ids: $ids) {
    ... on Customer {
      id
    }
  }
}
"""


def find_customers_cost(count: int) -> int:
    """The points to have at hand for looking `count` customers up: one for each object."""
    return count + 1


async def find_customers(
    client: AdminClient, access: ShopAccess, customer_ids: Sequence[int]
) -> tuple[set[int], Cost | None]:
    """Which of these customers exist in the shop, and what asking cost.

    Raises ValueError for more than `FIND_CUSTOMERS_MAX`, and the failures of `AdminClient.call`.
    """
    if len(customer_ids) > FIND_CUSTOMERS_MAX:
        raise ValueError(f"one call looks up to {FIND_CUSTOMERS_MAX} customers, not {len(customer_ids)}")
    by_gid = {customer_gid(number): number for number in customer_ids}
    answer = await client.call(access, FIND_CUSTOMERS_QUERY, {"ids": list(by_gid)})
    nodes = items(answer.data.get("nodes")) or []
    found = {str((mapping(node) or {}).get("id")) for node in nodes}
    return {number for gid, number in by_gid.items() if gid in found}, answer.cost
