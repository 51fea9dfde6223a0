from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

import pytest
from graphql import GraphQLObjectType, parse, validate

import metafield_sync.shopify
from metafield_sync.shopify import (
    METAFIELDS_SET_MUTATION,
    BulkStatus,
    MetafieldSpec,
    bulk_set_mutation,
    customer_values_query,
)
from metafield_sync.shopify.bulk import _KINDS  # pyright: ignore[reportPrivateUsage] - compared with the schema
from metafield_sync.shopify.flow import flow_trigger_mutation
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
        "INSTALLATION_QUERY",
        "READ_METAFIELDS_QUERY",
        "CUSTOMERS_PAGE_QUERY",
        "STAGE_UPLOAD_MUTATION",
        "BULK_RUN_MUTATION",
        "BULK_RUN_QUERY_MUTATION",
        "BULK_OPERATION_QUERY",
        "BULK_OPERATIONS_QUERY",
        "ORDERS_BY_ID_QUERY",
        "ORDERS_SINCE_QUERY",
        "ORDER_LINES_QUERY",
        "ORDER_REFUNDS_QUERY",
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_every_document_validates_against_the_published_schema(
    version: str, published_schemas: dict[str, GraphQLSchema]
) -> None:
    schema = published_schemas[version]
    spec = MetafieldSpec("loyalty", "points_balance")
    made = {"Flow": flow_trigger_mutation(1), "Flow, many": flow_trigger_mutation(10)}
    made |= {"bulk set": bulk_set_mutation("Marker_1"), "bulk values": customer_values_query(spec, "Marker_1")}
    errors = {name: validate(schema, parse(text)) for name, text in (documents() | made).items()}
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
        type: "number_integer", value: "1", compareDigest: null
      }]) { userErrors { code } }
      stagedUploadsCreate(input: [{
        resource: BULK_MUTATION_VARIABLES, filename: "a.jsonl", mimeType: "text/jsonl", httpMethod: POST
      }]) { userErrors { message } }
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
        for name in (
            "MetafieldsSetUserErrorCode",
            "MetafieldDefinitionCreateUserErrorCode",
            "BulkMutationErrorCode",
            "BulkOperationUserErrorCode",
            "BulkOperationStatus",
            "BulkOperationType",
        )
    }
    assert {
        "INVALID_VALUE",
        "INVALID_TYPE",
        "INTERNAL_ERROR",
        "STALE_OBJECT",
        "INVALID_COMPARE_DIGEST",
    } <= published["MetafieldsSetUserErrorCode"]
    assert {"TAKEN", "PINNED_LIMIT_REACHED"} <= published["MetafieldDefinitionCreateUserErrorCode"]
    ours = {code for code in _KINDS if code is not None}
    assert published["BulkMutationErrorCode"] | published["BulkOperationUserErrorCode"] == ours
    assert published["BulkOperationStatus"] == set(BulkStatus)
    assert published["BulkOperationType"] == {"MUTATION", "QUERY"}


@pytest.mark.parametrize("version", VERSIONS)
def test_an_operation_cannot_be_found_by_its_client_identifier(
    version: str, published_schemas: dict[str, GraphQLSchema]
) -> None:
    schema = published_schemas[version]
    assert schema.query_type is not None
    operation = schema.type_map["BulkOperation"]
    assert isinstance(operation, GraphQLObjectType)
    assert {"query", "createdAt", "type"} <= operation.fields.keys()
    assert not any("identifier" in name.lower() for name in operation.fields)
    listing = schema.query_type.fields["bulkOperations"]
    assert "newest operations first" in (listing.description or "").replace("\n", " ")
    assert "identifier" not in (listing.args["query"].description or "").lower()


def test_a_document_for_a_bulk_operation_differs_from_its_like_only_in_its_marker() -> None:
    marked = bulk_set_mutation("Backfill_0123")
    assert marked.replace("mutation Backfill_0123(", "mutation MetafieldsSet(") == METAFIELDS_SET_MUTATION
    assert marked != METAFIELDS_SET_MUTATION
    assert "# Export_0123\n" in customer_values_query(MetafieldSpec("my-shop", "points_2"), "Export_0123")


@pytest.mark.parametrize("marker", ["", "1st", "a-b", "a b", "a\nb", "a{", "ä", "x" * 256])
def test_what_is_no_name_is_no_marker(marker: str) -> None:
    with pytest.raises(ValueError, match="a marker is"):
        bulk_set_mutation(marker)
    with pytest.raises(ValueError, match="a marker is"):
        customer_values_query(MetafieldSpec("loyalty", "points_balance"), marker)


@pytest.mark.parametrize("name", ["", '"', "a b", 'x") { id } #', "a\n", "ä", "$app"])
def test_a_name_that_could_leave_its_quotes_never_becomes_text(name: str) -> None:
    for spec in (MetafieldSpec(name, "points_balance"), MetafieldSpec("loyalty", name)):
        with pytest.raises(ValueError, match="letters, digits"):
            customer_values_query(spec, "Marker")
