"""schema.graphql is a true subset of what Shopify publishes, in every supported version."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from devstore_support import CUSTOMERS, VALIDATED, Bench
from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    build_schema,
    is_required_argument,
    is_required_input_field,
    parse,
    print_ast,
    validate,
)
from order_support import ORDER_DOCUMENTS

from devstore.schema import SDL_PATH, load_schema
from devstore.web import SUPPORTED_VERSIONS

Input = GraphQLArgument | GraphQLInputField

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from graphql import GraphQLNamedType


def _typed(one: Input) -> str:
    # graphql-core leaves the type arguments of list and non-null types open; as text all types compare.
    return str(cast("object", one.type))


def _default(one: Input) -> str | None:
    # graphql-core keeps it as it was written; `default_value` is not set from a schema's text.
    return print_ast(one.default.literal) if one.default and one.default.literal else None


def _named(schema: GraphQLSchema) -> Iterator[GraphQLNamedType]:
    return (kind for kind in schema.type_map.values() if not kind.name.startswith("__"))


def _input_differences(
    where: str,
    ours: Mapping[str, Input],
    theirs: Mapping[str, Input],
) -> Iterator[str]:
    for name, mine in ours.items():
        other = theirs.get(name)
        if other is None:
            yield f"{where}({name}) is not published"
            continue
        here, there = _typed(mine), _typed(other)
        if here != there:
            yield f"{where}({name}) is {here}, published {there}"
        if _default(mine) != _default(other):
            yield f"{where}({name}) defaults to {_default(mine)}, published {_default(other)}"
    for name, other in theirs.items():
        required = is_required_argument(other) if isinstance(other, GraphQLArgument) else is_required_input_field(other)
        if required and name not in ours:
            yield f"{where}({name}) is required and missing here"


def _field_differences(
    ours: GraphQLObjectType | GraphQLInterfaceType, theirs: GraphQLObjectType | GraphQLInterfaceType
) -> Iterator[str]:
    published_interfaces = {one.name for one in theirs.interfaces}
    yield from (
        f"{ours.name} does not implement {one.name}" for one in ours.interfaces if one.name not in published_interfaces
    )
    for name, mine in ours.fields.items():
        other = theirs.fields.get(name)
        where = f"{ours.name}.{name}"
        if other is None:
            yield f"{where} is not published"
            continue
        if str(mine.type) != str(other.type):
            yield f"{where} is {mine.type}, published {other.type}"
        if (mine.deprecation_reason is None) != (other.deprecation_reason is None):
            yield f"{where}: deprecated {mine.deprecation_reason!r}, published {other.deprecation_reason!r}"
        yield from _input_differences(where, mine.args, other.args)


def differences(ours: GraphQLSchema, theirs: GraphQLSchema) -> Iterator[str]:
    """Whatever a document could use here and not there, or would have to send there and need not here."""
    for mine in _named(ours):
        other = theirs.type_map.get(mine.name)
        if other is None or type(mine) is not type(other):
            yield f"{mine.name} is {type(mine).__name__}, published {type(other).__name__}"
        elif isinstance(mine, GraphQLObjectType | GraphQLInterfaceType):
            assert isinstance(other, GraphQLObjectType | GraphQLInterfaceType)
            yield from _field_differences(mine, other)
        elif isinstance(mine, GraphQLInputObjectType):
            assert isinstance(other, GraphQLInputObjectType)
            yield from _input_differences(mine.name, mine.fields, other.fields)
        elif isinstance(mine, GraphQLEnumType):
            assert isinstance(other, GraphQLEnumType)
            yield from (f"{mine.name}.{name} is not published" for name in mine.values.keys() - other.values.keys())
        elif isinstance(mine, GraphQLUnionType):
            assert isinstance(other, GraphQLUnionType)
            known = {one.name for one in other.types}
            yield from (f"{mine.name} has no member {one.name}" for one in mine.types if one.name not in known)


@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
def test_the_sdl_is_a_subset_of_the_published_schema(version: str, published_schemas: dict[str, GraphQLSchema]) -> None:
    assert list(differences(build_schema(SDL_PATH.read_text(encoding="utf-8")), published_schemas[version])) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("type Count { count: Int precision: CountPrecision! }", "Count.count is Int, published Int!"),
        ("type Count { counted: Int! }", "Count.counted is not published"),
        ("enum CountPrecision { EXACT ROUGH }", "CountPrecision.ROUGH is not published"),
        ("input CustomerDeleteInput { id: String! }", "CustomerDeleteInput(id) is String!, published ID!"),
        (
            "input CustomerDeleteInput { name: String }",
            "CustomerDeleteInput(id) is required and missing here",
        ),
        ("type Invented { id: ID! }", "Invented is GraphQLObjectType, published NoneType"),
        (
            (
                "type BulkOperation { id: ID! } enum BulkOperationType { MUTATION QUERY } "
                "type Mutation { bulkOperationRunQuery(query: String!, groupObjects: Boolean! = true): ID }"
            ),
            "Mutation.bulkOperationRunQuery(groupObjects) defaults to true, published false",
        ),
        ("type Shop { metafield(key: String): ID }", "Shop.metafield(key) is String, published String!"),
    ],
)
def test_the_comparison_notices_what_is_not_published(
    change: str, told: str, published_schemas: dict[str, GraphQLSchema]
) -> None:
    # A schema that is a subset but for the change, which may replace one of its types.
    types = ("enum CountPrecision { EXACT }", "type Shop { id: ID! }")
    kept = [one for one in types if not change.startswith(one.partition("{")[0])]
    sdl = "\n".join(["schema { query: QueryRoot } type QueryRoot { shop: Shop! }", *kept, change])
    assert told in list(differences(build_schema(sdl), published_schemas["2026-10"]))


@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
def test_the_documents_of_these_tests_are_valid_for_shopify(
    version: str, published_schemas: dict[str, GraphQLSchema]
) -> None:
    for text in [CUSTOMERS, *(query for query, _ in (*VALIDATED.values(), *ORDER_DOCUMENTS.values()))]:
        assert validate(published_schemas[version], parse(text)) == []


def test_the_schema_is_sound() -> None:
    assert validate(load_schema(), parse("{ shop { id } }")) == []


@pytest.mark.parametrize("name", VALIDATED)
def test_validated_documents_run(bench: Bench, name: str) -> None:
    query, variables = VALIDATED[name]
    assert bench.data(query, variables)
