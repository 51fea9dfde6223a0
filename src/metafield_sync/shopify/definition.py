"""The metafield's definition: what shows the balance to staff, on the customer page, and to shoppers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from metafield_sync.shopify.cost import Cost, add_costs
from metafield_sync.shopify.failures import OutcomeUnknown, ShopifyError
from metafield_sync.shopify.metafields import METAFIELD_TYPE
from metafield_sync.shopify.shapes import items, mapping, text

if TYPE_CHECKING:
    from metafield_sync.shopify.client import AdminClient, ShopAccess

StorefrontAccess = Literal["PUBLIC_READ", "NONE"]
Outcome = Literal["created", "updated", "unchanged"]

ENSURE_COST_MAX = 40
"""Points to reserve for one `ensure_definition`: at worst three mutations of 10 and a query of a few
objects."""
READ_DEFINITION_COST = 5
"""Points to reserve for one `read_definition`: an object for the definition, its type and its access, and two to
spare."""
CUSTOMER_ACCOUNT_ACCESS = "READ"
"""Shoppers may see their balance in customer accounts. READ_WRITE would let them set it."""
OWNER_TYPE = "CUSTOMER"

_WHERE = "the Shopify admin under Settings → Custom data → Customers"
_RENAME = "set METAFIELD_NAMESPACE or METAFIELD_KEY to another name"

DEFINITION_CREATE_MUTATION = """
mutation CreateMetafieldDefinition($definition: MetafieldDefinitionInput!) {
  metafieldDefinitionCreate(definition: $definition) {
    createdDefinition {
      id
      type {
        name
      }
      access {
        storefront
        customerAccount
      }
      pinnedPosition
    }
    userErrors {
      field
      message
      code
    }
  }
}
"""

DEFINITION_UPDATE_MUTATION = """
mutation UpdateMetafieldDefinition($definition: MetafieldDefinitionUpdateInput!) {
  metafieldDefinitionUpdate(definition: $definition) {
    updatedDefinition {
      id
      type {
        name
      }
      access {
        storefront
        customerAccount
      }
      pinnedPosition
    }
    userErrors {
      field
      message
      code
    }
  }
}
"""

DEFINITION_QUERY = """
query MetafieldDefinition($identifier: MetafieldDefinitionIdentifierInput!) {
  metafieldDefinition(identifier: $identifier) {
    id
    type {
      name
    }
    access {
      storefront
      customerAccount
    }
    pinnedPosition
  }
}
"""


@dataclass(frozen=True, slots=True)
class DefinitionSpec:
    """The definition wanted. `name` and `description` are what staff read; they are set on creation only."""

    namespace: str
    key: str
    name: str
    description: str
    storefront: StorefrontAccess


@dataclass(frozen=True, slots=True)
class EnsuredDefinition:
    """A definition known to be as wanted.

    `id` is its gid. `pinned` tells whether staff see it on the customer page without looking for it;
    `pin_limit_reached` that it was created unpinned because the shop has pinned as many as Shopify allows
    (20). `cost` is that of all calls made, None if no answer told.
    """

    id: str
    outcome: Outcome
    pinned: bool
    pin_limit_reached: bool
    cost: Cost | None


@dataclass(frozen=True, slots=True)
class DefinitionState:
    """The definition as it is found, beside the one wanted.

    `matches` is True if it is there and as wanted; `differences` says in plain words what is not, one each: empty if
    it matches, and if there is none.
    """

    present: bool
    matches: bool
    differences: tuple[str, ...]


class DefinitionConflict(ShopifyError):
    """A definition of another type is in the way; only a person can decide what becomes of it.

    `found_type` is the type it has, such as `single_line_text_field`.
    """

    code: ClassVar[str] = "definition_conflict"
    status: ClassVar[int] = 409

    def __init__(self, detail: str, *, found_type: str, cost: Cost | None = None) -> None:
        super().__init__(detail, cost=cost)
        self.found_type = found_type


class DefinitionRefused(ShopifyError):
    """Shopify does not accept the definition, by its own rules; `detail` carries its message.

    `shopify_code` is the first user error's code, such as `RESERVED_NAMESPACE_KEY`; None if it gave none.
    """

    code: ClassVar[str] = "definition_refused"

    def __init__(self, detail: str, *, shopify_code: str | None, cost: Cost | None = None) -> None:
        super().__init__(detail, cost=cost)
        self.shopify_code = shopify_code


@dataclass(frozen=True, slots=True)
class _Definition:
    id: str
    type: str
    storefront: str
    customer_account: str
    pinned: bool


@dataclass(frozen=True, slots=True)
class _Reply:
    """One mutation's outcome: the definition, or the codes and messages of its user errors."""

    definition: _Definition | None
    codes: tuple[str | None, ...]
    messages: tuple[str, ...]
    cost: Cost | None


async def ensure_definition(client: AdminClient, access: ShopAccess, spec: DefinitionSpec) -> EnsuredDefinition:
    """Create the definition, or make the existing one fit. Doing it again changes nothing; 1 to 4 calls.

    Creating first and looking only when the name is taken makes two of us at once safe: one creates, the
    other finds it. Of an existing definition only the access is changed; name, description and pinning are
    the merchant's choice. Raises DefinitionConflict (another type), DefinitionRefused (any other user error),
    and the failures of `AdminClient.call`; after an OutcomeUnknown it is safe to call again.
    """
    reply = await _create(client, access, spec, pin=True)
    cost, pin_limit_reached = reply.cost, False
    if "PINNED_LIMIT_REACHED" in reply.codes and "TAKEN" not in reply.codes:
        pin_limit_reached = True
        reply = await _create(client, access, spec, pin=False)
        cost = add_costs(cost, reply.cost)
    if "TAKEN" in reply.codes:
        return await _fit_existing(client, access, spec, cost)
    definition = _definition_or_raise(reply, access, spec, cost)
    return EnsuredDefinition(definition.id, "created", definition.pinned, pin_limit_reached, cost)


async def read_definition(
    client: AdminClient, access: ShopAccess, spec: DefinitionSpec
) -> tuple[DefinitionState, Cost | None]:
    """See whether the definition is there and as wanted, changing nothing, and what looking cost.

    Name, description and pinning are not compared: they are the merchant's choice. Raises the failures of
    `AdminClient.call`, and OutcomeUnknown when the answer does not say.
    """
    answer = await client.call(access, DEFINITION_QUERY, {"identifier": _identifier(spec)})
    told = answer.data.get("metafieldDefinition", "nothing")
    if told is None:
        return DefinitionState(present=False, matches=False, differences=()), answer.cost
    found = _definition(told)
    if found is None:
        raise OutcomeUnknown(
            f"{access.domain}: Shopify's answer about the metafield definition {_name(spec)} cannot be read.",
            cost=answer.cost,
        )
    differences = _differences(found, spec)
    return DefinitionState(present=True, matches=not differences, differences=differences), answer.cost


async def _fit_existing(
    client: AdminClient, access: ShopAccess, spec: DefinitionSpec, cost: Cost | None
) -> EnsuredDefinition:
    answer = await client.call(access, DEFINITION_QUERY, {"identifier": _identifier(spec)})
    cost = add_costs(cost, answer.cost)
    found = _definition(answer.data.get("metafieldDefinition"))
    if found is None:
        raise DefinitionRefused(
            f"{access.domain}: the name {_name(spec)} is taken, yet no such definition can be read. Try "
            f"again; if that does not help, {_RENAME}.",
            shopify_code="TAKEN",
            cost=cost,
        )
    if found.type != METAFIELD_TYPE:
        raise DefinitionConflict(
            f"{access.domain}: customers have a metafield definition {_name(spec)} of type {found.type}, "
            f"and a points balance needs {METAFIELD_TYPE}. Delete it in {_WHERE} (its values may go with "
            f"it), or {_RENAME}.",
            found_type=found.type,
            cost=cost,
        )
    if not _differences(found, spec):
        return EnsuredDefinition(found.id, "unchanged", found.pinned, pin_limit_reached=False, cost=cost)
    definition = _identifier(spec) | {"access": _access(spec)}
    answer = await client.call(access, DEFINITION_UPDATE_MUTATION, {"definition": definition})
    reply = _reply(answer.data.get("metafieldDefinitionUpdate"), "updatedDefinition", answer.cost)
    cost = add_costs(cost, reply.cost)
    updated = _definition_or_raise(reply, access, spec, cost)
    return EnsuredDefinition(updated.id, "updated", updated.pinned, pin_limit_reached=False, cost=cost)


async def _create(client: AdminClient, access: ShopAccess, spec: DefinitionSpec, *, pin: bool) -> _Reply:
    # `access.admin` is left out: it is permitted on app-owned namespaces only and refused on a merchant's.
    definition: dict[str, Any] = _identifier(spec) | {
        "name": spec.name,
        "description": spec.description,
        "type": METAFIELD_TYPE,
        "pin": pin,
        "access": _access(spec),
    }
    answer = await client.call(access, DEFINITION_CREATE_MUTATION, {"definition": definition})
    return _reply(answer.data.get("metafieldDefinitionCreate"), "createdDefinition", answer.cost)


def _identifier(spec: DefinitionSpec) -> dict[str, Any]:
    return {"ownerType": OWNER_TYPE, "namespace": spec.namespace, "key": spec.key}


def _access(spec: DefinitionSpec) -> dict[str, str]:
    return {"storefront": spec.storefront, "customerAccount": CUSTOMER_ACCOUNT_ACCESS}


def _differences(found: _Definition, spec: DefinitionSpec) -> tuple[str, ...]:
    compared = (
        ("type", found.type, METAFIELD_TYPE),
        ("storefront access", found.storefront, spec.storefront),
        ("customer account access", found.customer_account, CUSTOMER_ACCOUNT_ACCESS),
    )
    return tuple(f"{what} is {is_now} instead of {wanted}" for what, is_now, wanted in compared if is_now != wanted)


def _name(spec: DefinitionSpec) -> str:
    return f"{spec.namespace}.{spec.key}"


def _reply(payload: Any, field: str, cost: Cost | None) -> _Reply:
    known = mapping(payload) or {}
    errors = [mapping(error) or {} for error in items(known.get("userErrors")) or []]
    return _Reply(
        definition=None if errors else _definition(known.get(field)),
        codes=tuple(text(error.get("code")) for error in errors),
        messages=tuple(text(error.get("message")) or "no message" for error in errors),
        cost=cost,
    )


def _definition(value: Any) -> _Definition | None:
    """Read a MetafieldDefinition; None if it is none. `access.storefront` is nullable, which is no access."""
    found = mapping(value) or {}
    access = mapping(found.get("access")) or {}
    gid, type_name = text(found.get("id")), text((mapping(found.get("type")) or {}).get("name"))
    if gid is None or type_name is None:
        return None
    return _Definition(
        id=gid,
        type=type_name,
        storefront=text(access.get("storefront")) or "NONE",
        customer_account=text(access.get("customerAccount")) or "NONE",
        pinned=found.get("pinnedPosition") is not None,
    )


def _definition_or_raise(reply: _Reply, access: ShopAccess, spec: DefinitionSpec, cost: Cost | None) -> _Definition:
    if reply.messages:
        raise DefinitionRefused(
            f"{access.domain}: Shopify refused the metafield definition {_name(spec)}: "
            f"{'; '.join(reply.messages)} Put that right in {_WHERE}, or {_RENAME}.",
            shopify_code=reply.codes[0],
            cost=cost,
        )
    if reply.definition is None:
        raise OutcomeUnknown(
            f"{access.domain}: Shopify's answer about the metafield definition {_name(spec)} held none, and no error.",
            cost=cost,
        )
    return reply.definition
