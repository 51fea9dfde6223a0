from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

import pytest
from graphql import parse, validate

import metafield_sync.shopify
from published_schema import VERSIONS

if TYPE_CHECKING:
    from graphql import GraphQLSchema


def documents() -> dict[str, str]:
    """Every GraphQL document of the package: the constants that are named for what they are."""
    found: dict[str, str] = {}
    for info in pkgutil.iter_modules(metafield_sync.shopify.__path__):
        module = importlib.import_module(f"metafield_sync.shopify.{info.name}")
        constants = {name: value for name, value in vars(module).items() if isinstance(value, str)}
        found |= {name: text for name, text in constants.items() if name.endswith(("_MUTATION", "_QUERY"))}
    return found


def test_every_document_is_named_as_one_and_so_gets_validated() -> None:
    for info in pkgutil.iter_modules(metafield_sync.shopify.__path__):
        module = importlib.import_module(f"metafield_sync.shopify.{info.name}")
        for name, value in vars(module).items():
            if isinstance(value, str) and value.lstrip().startswith(("mutation ", "query ", "{")):
                assert name in documents()
    assert set(documents()) == {
        "METAFIELDS_SET_MUTATION",
        "DEFINITION_CREATE_MUTATION",
        "DEFINITION_UPDATE_MUTATION",
        "DEFINITION_QUERY",
        "FIND_CUSTOMERS_QUERY",
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_every_document_validates_against_the_published_schema(
    version: str, published_schemas: dict[str, GraphQLSchema]
) -> None:
    schema = published_schemas[version]
    errors = {name: validate(schema, parse(text)) for name, text in documents().items()}
    assert {name: found for name, found in errors.items() if found} == {}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_values_we_send_in_variables_exist_in_the_published_schema(
    version: str, published_schemas: dict[str, GraphQLSchema]
) -> None:
    schema = published_schemas[version]
    literals = """
    mutation {
      metafieldDefinitionCreate(definition: {
        ownerType: CUSTOMER, namespace: "loyalty", key: "points_balance", name: "n", description: "d",
        type: "number_integer", pin: true, access: { storefront: PUBLIC_READ, customerAccount: READ }
      }) { userErrors { code } }
      metafieldDefinitionUpdate(definition: {
        ownerType: CUSTOMER, namespace: "loyalty", key: "points_balance",
        access: { storefront: NONE, customerAccount: READ }
      }) { userErrors { code } }
      metafieldsSet(metafields: [{
        ownerId: "gid://shopify/Customer/1", namespace: "loyalty", key: "points_balance",
        type: "number_integer", value: "1"
      }]) { userErrors { code } }
    }
    """
    assert validate(schema, parse(literals)) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_every_code_we_tell_apart_is_one_shopify_publishes(
    version: str, published_schemas: dict[str, GraphQLSchema]
) -> None:
    types = published_schemas[version].type_map
    published = {
        name: set(getattr(types[name], "values", {}))
        for name in ("MetafieldsSetUserErrorCode", "MetafieldDefinitionCreateUserErrorCode")
    }
    assert {"INVALID_VALUE", "INVALID_TYPE", "INTERNAL_ERROR"} <= published["MetafieldsSetUserErrorCode"]
    assert {"TAKEN", "PINNED_LIMIT_REACHED"} <= published["MetafieldDefinitionCreateUserErrorCode"]
