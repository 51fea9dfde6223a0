"""Access scopes: which fields need one, and what a call gets that lacks it."""

from collections.abc import Callable

from graphql import GraphQLError

from devstore.arguments import Info
from devstore.installing import has_scope
from devstore.shops import Shop

_PAGE = "https://shopify.dev/api/usage/access-scopes"
_FIELD_SCOPES: dict[str, str] = {
    "QueryRoot.customer": "read_customers",
    "QueryRoot.customers": "read_customers",
    "QueryRoot.customersCount": "read_customers",
    "QueryRoot.order": "read_orders",
    "QueryRoot.orders": "read_orders",
    "QueryRoot.ordersCount": "read_orders",
    "Customer.orders": "read_orders",
    "Mutation.customerCreate": "write_customers",
    "Mutation.customerDelete": "write_customers",
    "Mutation.customerMerge": "write_customer_merge",
    "Mutation.customerUpdate": "write_customers",
    "Mutation.metafieldsDelete": "write_customers",
    "Mutation.metafieldsSet": "write_customers",
}
_KIND_SCOPES = {"Customer": "read_customers", "Order": "read_orders"}

Resolver = Callable[..., object]


def guarded(field: str, resolver: Resolver) -> Resolver:
    """The resolver of a field, `Type.name`, refusing calls without the field's scope; it itself if it needs none."""
    scope = _FIELD_SCOPES.get(field)
    if scope is None:
        return resolver
    name = field.partition(".")[2]

    def guard(source: object, info: Info, **arguments: object) -> object:
        _require(info.context, scope, name)
        return resolver(source, info, **arguments)

    return guard


def require_kind(shop: Shop, kind: str) -> None:
    """Refuse to show an object of a type that a call has no scope for. Raises GraphQLError."""
    scope = _KIND_SCOPES.get(kind)
    if scope is not None:
        _require(shop, scope, "node")


def _require(shop: Shop, scope: str, field: str) -> None:
    if has_scope(shop.installation.scopes, scope):
        return
    needed = f"`{scope}` access scope."
    extensions = {"code": "ACCESS_DENIED", "documentation": _PAGE, "requiredAccess": needed}
    raise GraphQLError(f"Access denied for {field} field. Required access: {needed}", extensions=extensions)
