"""Reading balances back: what the customers of a shop show at this moment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metafield_sync.shopify.failures import OutcomeUnknown
from metafield_sync.shopify.ids import customer_gid, read_customer_id
from metafield_sync.shopify.metafields import METAFIELD_TYPE
from metafield_sync.shopify.shapes import items, mapping, text, verbatim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metafield_sync.shopify.client import AdminClient, ShopAccess
    from metafield_sync.shopify.cost import Cost
    from metafield_sync.shopify.metafields import MetafieldSpec

READ_METAFIELDS_MAX = 250
"""Shopify accepts no longer list in an argument (https://shopify.dev/docs/api/usage/limits)."""
BALANCE_MAX = 2**53 - 1
"""A `number_integer` is within ± this."""

_INTEGER = re.compile(r"-?[0-9]{1,16}", re.ASCII)

READ_METAFIELDS_QUERY = """
query ReadMetafields($ids: [ID!]!, $namespace: String!, $key: String!) {
  nodes(ids: $ids) {
    ... on Customer {
      id
      metafield(namespace: $namespace, key: $key) {
        value
        type
        compareDigest
      }
    }
  }
}
"""

CUSTOMERS_PAGE_MAX = 250
"""Shopify gives no longer page."""
CUSTOMERS_PAGE_COST = 2 * CUSTOMERS_PAGE_MAX + 1
"""Points to have at hand for one page: one for each customer and each metafield, one to spare."""
CURSOR_CHARS_MAX = 1_000

CUSTOMERS_PAGE_QUERY = f"""
query CustomersPage($after: String, $namespace: String!, $key: String!) {{
  customers(first: {CUSTOMERS_PAGE_MAX}, after: $after) {{
    nodes {{
      id
      metafield(namespace: $namespace, key: $key) {{
        value
        type
        compareDigest
      }}
    }}
    pageInfo {{
      hasNextPage
      endCursor
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class ShownMetafield:
    """A customer's metafield as it is in Shopify, whoever wrote it.

    `value` is text, whatever the `type`, cut at 500 characters and its control characters struck out; `digest` is
    its `compareDigest`, which a write that may replace it has to name.
    """

    value: str
    type: str
    digest: str

    def as_balance(self) -> int | None:
        """The balance it shows; None if that is none: another type, or no integer within ±`BALANCE_MAX`."""
        if self.type != METAFIELD_TYPE or _INTEGER.fullmatch(self.value) is None:
            return None
        balance = int(self.value)
        return balance if abs(balance) <= BALANCE_MAX else None


def read_metafields_cost(count: int) -> int:
    """The points to have at hand for reading `count` customers: one each, one for each metafield, one to spare."""
    return 2 * count + 1


async def read_metafields(
    client: AdminClient, access: ShopAccess, spec: MetafieldSpec, customer_ids: Sequence[int]
) -> tuple[dict[int, ShownMetafield | None], Cost | None]:
    """Read what these customers show, and what asking cost.

    A customer without the metafield maps to None. A customer who is gone from the shop, or never was in it, is not in
    the dict at all. Raises ValueError for more than `READ_METAFIELDS_MAX`, the failures of `AdminClient.call`, and
    OutcomeUnknown when the answer is not about the customers asked for: nobody is taken for gone on such evidence.
    """
    if len(customer_ids) > READ_METAFIELDS_MAX:
        raise ValueError(f"one call reads up to {READ_METAFIELDS_MAX} customers, not {len(customer_ids)}")
    asked = dict.fromkeys(customer_ids)
    variables = {"ids": [customer_gid(number) for number in asked], "namespace": spec.namespace, "key": spec.key}
    answer = await client.call(access, READ_METAFIELDS_QUERY, variables)
    nodes = items(answer.data.get("nodes")) or []
    found = [read_shown(node) for node in nodes if node is not None]
    shown = {one[0]: one[1] for one in found if one is not None}
    if len(nodes) != len(asked) or len(shown) != len(found) or not shown.keys() <= asked.keys():
        raise OutcomeUnknown(
            f"{access.domain}: Shopify's answer is not about the customers who were asked for.", cost=answer.cost
        )
    return shown, answer.cost


@dataclass(frozen=True, slots=True)
class CustomersPage:
    """Some of a shop's customers, with what they show. `after`: where the next page begins; None: this is the last."""

    customers: tuple[tuple[int, ShownMetafield | None], ...]
    after: str | None


async def read_customers_page(
    client: AdminClient, access: ShopAccess, spec: MetafieldSpec, after: str | None
) -> tuple[CustomersPage, Cost | None]:
    """Read the page of the shop's customers that begins there (None: the first), and what asking cost.

    Raises the failures of `AdminClient.call`, and OutcomeUnknown when the answer is no such page: nobody is left out on
    such evidence.
    """
    variables = {"after": after, "namespace": spec.namespace, "key": spec.key}
    answer = await client.call(access, CUSTOMERS_PAGE_QUERY, variables)
    connection = mapping(answer.data.get("customers")) or {}
    nodes, info = items(connection.get("nodes")), mapping(connection.get("pageInfo")) or {}
    shown = [one for node in nodes or [] if (one := read_shown(node)) is not None]
    more, end = info.get("hasNextPage"), verbatim(info.get("endCursor"), chars_max=CURSOR_CHARS_MAX)
    is_whole = nodes is not None and len(shown) == len(nodes) and isinstance(more, bool)
    if not is_whole or (more and (not shown or end is None or end == after)):
        raise OutcomeUnknown(f"{access.domain}: Shopify's answer is no page of its customers.", cost=answer.cost)
    return CustomersPage(tuple(shown), end if more else None), answer.cost


def read_shown(node: Any) -> tuple[int, ShownMetafield | None] | None:
    """Read `{"id", "metafield": {"value", "type", "compareDigest"} | null}`; None if it is anything else."""
    described = mapping(node) or {}
    customer_id = read_customer_id(described.get("id"))
    if customer_id is None or "metafield" not in described:
        return None
    if described["metafield"] is None:
        return customer_id, None
    metafield = mapping(described["metafield"]) or {}
    value, type_name = text(metafield.get("value")), text(metafield.get("type"))
    digest = text(metafield.get("compareDigest"))
    if value is None or type_name is None or digest is None:
        return None
    return customer_id, ShownMetafield(value, type_name, digest)
