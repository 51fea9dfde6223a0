"""The executable schema: `schema.graphql` and a resolver for every field that is more than an attribute."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import cast

from graphql import (
    GraphQLError,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    build_schema,
)

from devstore.access import guarded, require_kind
from devstore.arguments import Info, Input, read_gid, read_gid_of, read_page
from devstore.bulk_schema import BULK_RESOLVERS, find_operation
from devstore.customers import COUNT_DEFAULT_MAX, CustomerDetails
from devstore.definitions import Definition, Outcome, slot_of
from devstore.gids import Gid, parse_gid
from devstore.metafields import OWNER_TYPES, Slot
from devstore.order_schema import ORDER_RESOLVERS, find_order
from devstore.pages import cut, cut_list, search_ids
from devstore.set_metafields import InvalidIdError
from devstore.shops import CustomerHasOrdersError, Shop
from devstore.values import resolve_namespace
from devstore.views import (
    AppInstallationView,
    CustomerView,
    DefinitionView,
    MetafieldView,
    OwnerView,
    ShopView,
)

SDL_PATH = Path(__file__).with_name("schema.graphql")

_UPPER = re.compile(r"(?<!^)(?=[A-Z])")


@cache
def load_schema() -> GraphQLSchema:
    """The schema, built once: it holds no state. The context of an execution is the `Shop` that is called."""
    schema = build_schema(SDL_PATH.read_text(encoding="utf-8"))
    for kind in schema.type_map.values():
        if isinstance(kind, GraphQLInterfaceType):
            kind.resolve_type = _resolve_type
        elif isinstance(kind, GraphQLObjectType) and not kind.name.startswith("__"):
            for name, field in kind.fields.items():
                path = f"{kind.name}.{name}"
                field.resolve = guarded(path, _RESOLVERS.get(path) or _attribute(name))
                for argument_name, argument in field.args.items():
                    argument.out_name = _snake(argument_name)
    # Shopify prints 64-bit numbers as text, since JavaScript would round them.
    cast("GraphQLScalarType", schema.type_map["UnsignedInt64"]).coerce_output_value = _as_text
    return schema


def _snake(name: str) -> str:
    return _UPPER.sub("_", name).lower()


def _attribute(name: str) -> Callable[[object, Info], object]:
    attribute = _snake(name)

    def resolve(source: object, _info: Info) -> object:
        if isinstance(source, dict):
            return cast("dict[str, object]", source).get(name)
        return cast("object", getattr(source, attribute))

    return resolve


def _resolve_type(value: object, _info: object, _abstract: object) -> str:
    return cast("OwnerView", value).graphql_type


def _as_text(value: object) -> str:
    return str(value)


# ---------------------------------------------------------------------------------------------------- queries


def _query_shop(_root: object, info: Info) -> ShopView:
    return ShopView(info.context)


def _query_installation(_root: object, info: Info) -> AppInstallationView:
    return AppInstallationView(info.context)


def _query_customer(_root: object, info: Info, id: str) -> CustomerView | None:  # noqa: A002  # the schema's name
    return cast("CustomerView | None", _node(info.context, read_gid_of(id, "Customer")))


def _query_node(_root: object, info: Info, id: str) -> object:  # noqa: A002  # the schema's name
    return _node(info.context, read_gid(id))


def _query_nodes(_root: object, info: Info, ids: Sequence[str]) -> list[object]:
    gids = [read_gid(text) for text in ids]
    return [_node(info.context, gid) for gid in gids]


def _node(shop: Shop, gid: Gid) -> object:
    """Any object by id; None if there is none, of whatever type."""
    require_kind(shop, gid.kind)
    if gid == shop.gid:
        return ShopView(shop)
    find = _FINDERS.get(gid.kind)
    if find is not None:
        return find(shop, gid.number)
    installation = AppInstallationView(shop)
    return installation if str(gid) == installation.id else None


def _find_customer(shop: Shop, number: int) -> CustomerView | None:
    return CustomerView(shop, number) if shop.customers.exists(number) else None


def _find_metafield(shop: Shop, number: int) -> MetafieldView | None:
    stored = shop.metafields.find(number)
    return MetafieldView(shop, stored) if stored else None


def _find_definition_by_number(shop: Shop, number: int) -> DefinitionView | None:
    definition = shop.definitions.find(number)
    return DefinitionView(shop, definition) if definition else None


# What is found by its number alone, by type.
_FINDERS: dict[str, Callable[[Shop, int], object]] = {
    "BulkOperation": find_operation,
    "Customer": _find_customer,
    "Metafield": _find_metafield,
    "MetafieldDefinition": _find_definition_by_number,
    "Order": find_order,
}


def _query_customers(_root: object, info: Info, *, query: str | None = None, **page: object) -> dict[str, object]:
    shop = info.context
    found = cut(
        read_page(page),
        search_ids(query),
        lambda span, limit, backwards: shop.customers.page(span, limit, backwards=backwards),
    )
    return found.as_connection([CustomerView(shop, number) for number in found.numbers])


def _query_customers_count(
    _root: object,
    info: Info,
    *,
    limit: int | None = COUNT_DEFAULT_MAX,
    query: str | None = None,
) -> dict[str, object]:
    # One more than the limit tells an exact count from a floor.
    count = info.context.customers.count(search_ids(query), None if limit is None else limit + 1)
    capped = limit is not None and count > limit
    return {"count": limit if capped else count, "precision": "AT_LEAST" if capped else "EXACT"}


def _query_definition(
    _root: object,
    info: Info,
    *,
    id: str | None = None,  # noqa: A002  # the schema's name
    identifier: Input | None = None,
) -> DefinitionView | None:
    return _definition_view(info, _find_definition(info, id, identifier))


def _query_definitions(
    _root: object,
    info: Info,
    *,
    owner_type: str,
    namespace: str | None = None,
    key: str | None = None,
    pinned_status: str = "ANY",
    **page: object,
) -> dict[str, object]:
    shop = info.context
    wanted = None if namespace is None else resolve_namespace(namespace)
    by_number = {
        one.number: one
        for one in shop.definitions.of_type(owner_type)
        if (wanted is None or one.slot.namespace == wanted)
        and (key is None or one.slot.key == key)
        and (pinned_status == "ANY" or (one.pinned_position is not None) == (pinned_status == "PINNED"))
    }
    found = cut_list(read_page(page), list(by_number))
    return found.as_connection([DefinitionView(shop, by_number[number]) for number in found.numbers])


def _owner_metafield(owner: OwnerView, info: Info, key: str, namespace: str | None = None) -> MetafieldView | None:
    shop = info.context
    stored = shop.metafields.get(owner.slot(namespace, key), owner.number)
    return MetafieldView(shop, stored) if stored else None


def _owner_metafields(
    owner: OwnerView,
    info: Info,
    *,
    namespace: str | None = None,
    keys: Sequence[str] | None = None,
    **page: object,
) -> dict[str, object]:
    shop = info.context
    wanted = None if namespace is None else resolve_namespace(namespace)
    # Keys may carry their namespace ("loyalty.points_balance") or rely on the argument.
    full = None if keys is None else {key if "." in key else f"{wanted}.{key}" for key in keys}
    by_number = {
        one.number: one
        for one in shop.metafields.of_owner(OWNER_TYPES[owner.graphql_type], owner.number)
        if (wanted is None or one.slot.namespace == wanted)
        and (full is None or f"{one.slot.namespace}.{one.slot.key}" in full)
    }
    found = cut_list(read_page(page), list(by_number))
    return found.as_connection([MetafieldView(shop, by_number[number]) for number in found.numbers])


def _find_definition(info: Info, gid: str | None, identifier: Input | None) -> Definition | None:
    definitions = info.context.definitions
    if identifier is not None:
        return definitions.get(slot_of(identifier))
    return None if gid is None else definitions.find(read_gid_of(gid, "MetafieldDefinition").number)


def _definition_view(info: Info, definition: Definition | None) -> DefinitionView | None:
    return DefinitionView(info.context, definition) if definition else None


# -------------------------------------------------------------------------------------------------- mutations


def _metafields_set(_root: object, info: Info, metafields: Sequence[Input]) -> dict[str, object]:
    shop = info.context
    try:
        result = shop.setter.run(metafields, shop, shop.now_s())
    except InvalidIdError as error:
        raise GraphQLError(f"Invalid id: {error}", extensions={"code": "RESOURCE_NOT_FOUND"}) from error
    shown = None if result.metafields is None else [MetafieldView(shop, one) for one in result.metafields]
    return {"metafields": shown, "userErrors": result.errors}


def _metafields_delete(_root: object, info: Info, metafields: Sequence[Input]) -> dict[str, object]:
    shop = info.context
    deleted: list[Input | None] = []
    with shop.storage.transaction():
        for one in metafields:
            owner = read_gid(cast("str", one["ownerId"]))
            owner_type = OWNER_TYPES.get(owner.kind, "")
            slot = Slot(owner_type, resolve_namespace(cast("str", one["namespace"])), cast("str", one["key"]))
            deleted.append(one if shop.metafields.delete(slot, owner.number) else None)
    return {"deletedMetafields": deleted, "userErrors": ()}


def _definition_create(_root: object, info: Info, definition: Input) -> dict[str, object]:
    return _outcome(info, "createdDefinition", info.context.definitions.create(definition))


def _definition_update(_root: object, info: Info, definition: Input) -> dict[str, object]:
    return _outcome(info, "updatedDefinition", info.context.definitions.update(definition))


def _definition_pin(
    _root: object,
    info: Info,
    *,
    definition_id: str | None = None,
    identifier: Input | None = None,
) -> dict[str, object]:
    found = _find_definition(info, definition_id, identifier)
    return _outcome(info, "pinnedDefinition", info.context.definitions.pin(found))


def _definition_unpin(
    _root: object,
    info: Info,
    *,
    definition_id: str | None = None,
    identifier: Input | None = None,
) -> dict[str, object]:
    found = _find_definition(info, definition_id, identifier)
    return _outcome(info, "unpinnedDefinition", info.context.definitions.unpin(found))


def _outcome(info: Info, name: str, outcome: Outcome) -> dict[str, object]:
    return {name: _definition_view(info, outcome.definition), "userErrors": outcome.errors}


def _flow_trigger(
    _root: object, info: Info, *, handle: str | None = None, payload: object = None, **_unused: object
) -> dict[str, object]:
    # `body` is how it was done before there were handles.
    if not handle or not isinstance(payload, dict):
        error = {"field": ["handle"], "message": "A handle and a payload are required."}
        return {"userErrors": [error]}
    info.context.flow.receive(handle, cast("object", payload))
    return {"userErrors": ()}


def _customer_create(_root: object, info: Info, input: Input) -> dict[str, object]:  # noqa: A002  # the schema's name
    shop = info.context
    details = _details(input, CustomerDetails())
    if not (details.email or details.first_name or details.last_name):
        message = "A name, phone number, or email address must be present"
        return {"customer": None, "userErrors": [{"field": None, "message": message}]}
    return {"customer": CustomerView(shop, shop.create_customer(details)), "userErrors": ()}


def _customer_update(_root: object, info: Info, input: Input) -> dict[str, object]:  # noqa: A002  # the schema's name
    shop = info.context
    gid = parse_gid(str(input.get("id")))
    if gid is None or gid.kind != "Customer" or not shop.customers.exists(gid.number):
        return {"customer": None, "userErrors": [{"field": ["id"], "message": "Customer does not exist"}]}
    shop.describe_customer(gid.number, _details(input, shop.customers.details(gid.number)))
    return {"customer": CustomerView(shop, gid.number), "userErrors": ()}


def _details(given: Input, known: CustomerDetails) -> CustomerDetails:
    """What is known of a customer with what an input says of it; what it leaves out stays."""
    return CustomerDetails(
        email=cast("str | None", given.get("email", known.email)),
        first_name=cast("str | None", given.get("firstName", known.first_name)),
        last_name=cast("str | None", given.get("lastName", known.last_name)),
        note=cast("str | None", given.get("note", known.note)),
        tags=tuple(cast("Sequence[str]", given.get("tags", known.tags) or ())),
    )


def _customer_delete(_root: object, info: Info, input: Input) -> dict[str, object]:  # noqa: A002  # the schema's name
    shop = info.context
    gid = read_gid_of(cast("str", input["id"]), "Customer")
    payload: dict[str, object] = {"shop": ShopView(shop), "deletedCustomerId": None, "userErrors": ()}
    try:
        found = shop.delete_customer(gid.number)
    except CustomerHasOrdersError as error:
        return payload | {"userErrors": [{"field": ["id"], "message": str(error)}]}
    if found:
        return payload | {"deletedCustomerId": str(gid)}
    return payload | {"userErrors": [{"field": ["id"], "message": "Customer can't be found"}]}


_RESOLVERS: dict[str, Callable[..., object]] = {
    **BULK_RESOLVERS,
    **ORDER_RESOLVERS,
    "QueryRoot.currentAppInstallation": _query_installation,
    "QueryRoot.customer": _query_customer,
    "QueryRoot.customers": _query_customers,
    "QueryRoot.customersCount": _query_customers_count,
    "QueryRoot.metafieldDefinition": _query_definition,
    "QueryRoot.metafieldDefinitions": _query_definitions,
    "QueryRoot.node": _query_node,
    "QueryRoot.nodes": _query_nodes,
    "QueryRoot.shop": _query_shop,
    "Customer.metafield": _owner_metafield,
    "Customer.metafields": _owner_metafields,
    "Shop.metafield": _owner_metafield,
    "Shop.metafields": _owner_metafields,
    "Mutation.customerCreate": _customer_create,
    "Mutation.customerDelete": _customer_delete,
    "Mutation.customerUpdate": _customer_update,
    "Mutation.flowTriggerReceive": _flow_trigger,
    "Mutation.metafieldDefinitionCreate": _definition_create,
    "Mutation.metafieldDefinitionPin": _definition_pin,
    "Mutation.metafieldDefinitionUnpin": _definition_unpin,
    "Mutation.metafieldDefinitionUpdate": _definition_update,
    "Mutation.metafieldsDelete": _metafields_delete,
    "Mutation.metafieldsSet": _metafields_set,
}
