"""What is kept of a webhook's payload: the fields that its handler needs, by name, and so nothing personal.

The same list is asked of Shopify as the subscription's `include_fields` (`shopify.app.toml`), so that the rest is not
even sent; a test holds the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MONEY = ("amount", "currency_code")
"""What a `shop_money` is made of. Its twin, `presentment_money`, is in whatever currency the shopper saw."""


def _under(name: str, fields: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{name}.{field}" for field in fields)


REFUND_LINE = (
    "id",
    "line_item_id",
    "quantity",
    "subtotal",
    "subtotal_set.shop_money",
    "total_tax",
    "total_tax_set.shop_money",
    "line_item.id",
    "line_item.gift_card",
)
REFUND = (
    "id",
    "created_at",
    "processed_at",
    *_under("refund_line_items", REFUND_LINE),
    *_under("order_adjustments", ("id", "kind", "reason", "amount", "amount_set.shop_money", "tax_amount")),
)
ORDER_LINE = (
    "id",
    "gift_card",
    "quantity",
    "current_quantity",
    "price",
    "price_set.shop_money",
    *_under("discount_allocations", ("amount", "amount_set.shop_money")),
    *_under("tax_lines", ("price", "price_set.shop_money")),
)
ORDER = (
    "id",
    "admin_graphql_api_id",
    "test",
    "currency",
    "financial_status",
    "cancelled_at",
    "created_at",
    "processed_at",
    "updated_at",
    "current_subtotal_price",
    "current_subtotal_price_set.shop_money",
    "current_total_tax",
    "current_total_tax_set.shop_money",
    "total_outstanding",
    "taxes_included",
    "customer.id",
    *_under("line_items", ORDER_LINE),
    *_under("refunds", REFUND),
)

# Shopify drops a webhook as a duplicate of another with the same payload that went out shortly before; `updated_at`
# is there where the other fields may well be the same twice.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "app/scopes_update": ("id", "previous", "current", "updated_at", "shop_id"),
    "app/uninstalled": ("id", "myshopify_domain", "updated_at"),
    "bulk_operations/finish": (
        "admin_graphql_api_id",
        "completed_at",
        "created_at",
        "error_code",
        "status",
        "type",
    ),
    "customers/create": ("id",),
    "customers/data_request": ("shop_id", "shop_domain", "orders_requested", "customer.id", "data_request.id"),
    "customers/delete": ("id",),
    "customers/merge": (
        "admin_graphql_api_customer_kept_id",
        "admin_graphql_api_customer_deleted_id",
        "admin_graphql_api_job_id",
        "status",
        # Not their message: it names people.
        "errors.customer_ids",
        "errors.field",
    ),
    "customers/redact": ("shop_id", "shop_domain", "customer.id", "orders_to_redact"),
    "orders/cancelled": ORDER,
    "orders/paid": ORDER,
    "orders/updated": ORDER,
    "refunds/create": ("order_id", *REFUND),
    "shop/redact": ("shop_id", "shop_domain"),
    "shop/update": ("id", "myshopify_domain", "currency", "plan_name", "taxes_included", "updated_at"),
}
"""By topic, the paths of the fields that are kept; a period leads into an object, or into each of a list's."""

COMPLIANCE_TOPICS = frozenset({"customers/data_request", "customers/redact", "shop/redact"})
"""Subscribed by `compliance_topics`, whose payloads cannot be narrowed."""

SHOP_NAMED_BY = {
    "app/uninstalled": "myshopify_domain",
    "customers/data_request": "shop_domain",
    "customers/redact": "shop_domain",
    "shop/redact": "shop_domain",
    "shop/update": "myshopify_domain",
}
"""Where the signed body itself names the shop. All that can do harm to a shop is among these."""

Tree = dict[str, "Tree"]
DROPPED = object()


def _tree(paths: Iterable[str]) -> Tree:
    root: Tree = {}
    for path in paths:
        node = root
        for name in path.split("."):
            node = node.setdefault(name, {})
        if path.endswith(".shop_money"):
            node.update({name: {} for name in MONEY})
    return root


TREES = {topic: _tree(paths) for topic, paths in FIELDS.items()}


def include_fields(topic: str) -> tuple[str, ...] | None:
    """The `include_fields` of a topic's subscription; None for one that has none, because Shopify offers it none."""
    return None if topic in COMPLIANCE_TOPICS else FIELDS[topic]


def trim(topic: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the payload that are kept, in their places. What is not there is left out, null stays null.

    Where a plain value is expected an object is dropped, so nothing comes along because Shopify changed a shape.
    """
    return _keep_of_object(payload, TREES[topic])


def _keep(value: Any, tree: Tree) -> Any:
    match value:
        case dict():
            return _keep_of_object(cast("dict[str, Any]", value), tree) if tree else DROPPED
        case list():
            # No list of Shopify's holds a list.
            items = (item for item in cast("list[Any]", value) if not isinstance(item, list))
            return [kept for item in items if (kept := _keep(item, tree)) is not DROPPED]
        case None:
            return None
        case _:
            return DROPPED if tree else value


def _keep_of_object(value: Mapping[str, Any], tree: Tree) -> dict[str, Any]:
    found = {name: _keep(value[name], inner) for name, inner in tree.items() if name in value}
    return {name: kept for name, kept in found.items() if kept is not DROPPED}
