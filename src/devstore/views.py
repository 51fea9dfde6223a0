"""What GraphQL sees of the stored things: one small class for each object type, read by attribute."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from devstore.app import ACCESS_SCOPES
from devstore.clock import timestamp
from devstore.customers import CustomerDetails
from devstore.definitions import Definition
from devstore.gids import Gid
from devstore.metafields import OWNER_KINDS, Slot, StoredMetafield
from devstore.shops import Shop
from devstore.values import json_value, resolve_namespace

# Categories as Shopify groups the metafield types; the rest are references and text.
_CATEGORIES = {
    "number_integer": "NUMBER",
    "number_decimal": "NUMBER",
    "boolean": "TRUE_FALSE",
    "json": "JSON",
}


class OwnerView:
    """An object that may have metafields."""

    graphql_type: ClassVar[str]

    def __init__(self, shop: Shop, number: int) -> None:
        self.shop = shop
        self.number = number

    @property
    def gid(self) -> Gid:
        """Its global id."""
        return Gid(self.graphql_type, self.number)

    @property
    def id(self) -> str:
        """Its global id, as text."""
        return str(self.gid)

    def slot(self, namespace: str | None, key: str) -> Slot:
        """Where a metafield of this object would stand."""
        return Slot(self.graphql_type.upper(), resolve_namespace(namespace), key)


class CustomerView(OwnerView):
    """Type `Customer`. A customer nobody described is called after its number."""

    graphql_type = "Customer"

    @cached_property
    def _details(self) -> CustomerDetails:
        return self.shop.customers.details(self.number)

    @property
    def legacy_resource_id(self) -> int:
        """The number alone."""
        return self.number

    @property
    def created_at(self) -> str:
        """When it was created."""
        return timestamp(self.shop.customers.created_s(self.number))

    @property
    def updated_at(self) -> str:
        """Same as created: whether a metafield write touches its customer is not known."""
        return self.created_at

    @property
    def display_name(self) -> str:
        """What people call the customer."""
        return self._details.display_name(self.number)

    @property
    def email(self) -> str | None:
        """Email address, if given."""
        return self._details.email

    @property
    def first_name(self) -> str | None:
        """First name, if given."""
        return self._details.first_name

    @property
    def last_name(self) -> str | None:
        """Last name, if given."""
        return self._details.last_name

    @property
    def note(self) -> str | None:
        """Note, if given."""
        return self._details.note

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags, perhaps none."""
        return self._details.tags


class ShopView(OwnerView):
    """Type `Shop`."""

    graphql_type = "Shop"
    currency_code = "USD"
    iana_timezone = "Etc/UTC"

    def __init__(self, shop: Shop) -> None:
        super().__init__(shop, shop.number)

    @property
    def name(self) -> str:
        """What the shop is called."""
        return self.shop.name

    @property
    def myshopify_domain(self) -> str:
        """Its permanent domain."""
        return self.shop.domain

    @property
    def created_at(self) -> str:
        """When this stand-in first saw the shop."""
        return timestamp(self.shop.created_s)

    @property
    def plan(self) -> dict[str, object]:
        """Type `ShopPlan`, following the plan that sizes the bucket."""
        plan = self.shop.budget.plan
        return {
            "partnerDevelopment": True,
            "publicDisplayName": plan.value.capitalize(),
            "shopifyPlus": plan.value in {"plus", "enterprise"},
        }


@dataclass(frozen=True, slots=True)
class AppInstallationView:
    """Type `AppInstallation`: the one app that calls here."""

    graphql_type: ClassVar[str] = "AppInstallation"
    shop: Shop
    id: str = "gid://shopify/AppInstallation/1"

    @property
    def access_scopes(self) -> list[dict[str, str]]:
        """Type `AccessScope`, one each."""
        scopes = self.shop.installation.scopes
        return [{"handle": handle, "description": ACCESS_SCOPES.get(handle, handle)} for handle in scopes]


class MetafieldView:
    """Type `Metafield`."""

    graphql_type: ClassVar[str] = "Metafield"
    __slots__ = ("shop", "stored")

    def __init__(self, shop: Shop, stored: StoredMetafield) -> None:
        self.shop = shop
        self.stored = stored

    @property
    def id(self) -> str:
        """Its global id."""
        return f"gid://shopify/Metafield/{self.stored.number}"

    @property
    def legacy_resource_id(self) -> int:
        """The number alone."""
        return self.stored.number

    @property
    def namespace(self) -> str:
        """Its namespace, spelled out."""
        return self.stored.slot.namespace

    @property
    def key(self) -> str:
        """Its key."""
        return self.stored.slot.key

    @property
    def type(self) -> str:
        """Its type's name."""
        return self.stored.type

    @property
    def value(self) -> str:
        """The value; text whatever the type."""
        return self.stored.value

    @property
    def json_value(self) -> object:
        """The value as JSON: a number for an integer."""
        return json_value(self.stored.type, self.stored.value)

    @property
    def compare_digest(self) -> str:
        """What compare-and-set compares."""
        return self.stored.digest

    @property
    def created_at(self) -> str:
        """When it was first set."""
        return timestamp(self.stored.created_s)

    @property
    def updated_at(self) -> str:
        """When its value last changed."""
        return timestamp(self.stored.updated_s)

    @property
    def owner_type(self) -> str:
        """Member of `MetafieldOwnerType`."""
        return self.stored.slot.owner_type

    @property
    def owner(self) -> OwnerView:
        """The object it belongs to."""
        if OWNER_KINDS[self.owner_type] == "Shop":
            return ShopView(self.shop)
        return CustomerView(self.shop, self.stored.owner)

    @property
    def definition(self) -> "DefinitionView | None":
        """Its definition, if there is one."""
        definition = self.shop.definitions.get(self.stored.slot)
        return DefinitionView(self.shop, definition) if definition else None


class DefinitionView:
    """Type `MetafieldDefinition`."""

    graphql_type: ClassVar[str] = "MetafieldDefinition"
    # No validation options are taken, so none are shown.
    validations: ClassVar[tuple[()]] = ()
    __slots__ = ("definition", "shop")

    def __init__(self, shop: Shop, definition: Definition) -> None:
        self.shop = shop
        self.definition = definition

    @property
    def id(self) -> str:
        """Its global id."""
        return f"gid://shopify/MetafieldDefinition/{self.definition.number}"

    @property
    def namespace(self) -> str:
        """Its namespace, spelled out."""
        return self.definition.slot.namespace

    @property
    def key(self) -> str:
        """Its key."""
        return self.definition.slot.key

    @property
    def owner_type(self) -> str:
        """Member of `MetafieldOwnerType`."""
        return self.definition.slot.owner_type

    @property
    def name(self) -> str:
        """Name for people."""
        return self.definition.name

    @property
    def description(self) -> str | None:
        """Description for people."""
        return self.definition.description

    @property
    def pinned_position(self) -> int | None:
        """Place among the pinned ones, from 1; None is not pinned."""
        return self.definition.pinned_position

    @property
    def type(self) -> dict[str, str]:
        """Type `MetafieldDefinitionType`."""
        kind = self.definition.type
        return {
            "name": kind,
            "category": _CATEGORIES.get(kind, "REFERENCE" if "reference" in kind else "TEXT"),
        }

    @property
    def access(self) -> dict[str, str]:
        """Type `MetafieldAccess`."""
        access = self.definition.access
        return {
            "admin": access.admin,
            "storefront": access.storefront,
            "customerAccount": access.customer_account,
        }

    @property
    def metafields_count(self) -> int:
        """How many objects have a value."""
        return self.shop.metafields.count(self.definition.slot)
