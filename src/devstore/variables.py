"""Checks the variables of a call before anything runs, with errors in the shape Shopify gives them.

Shopify's own checker (it is written in Ruby) differs from graphql-core's in wording, in listing every fault
of a variable in one error, and in refusing whatever is no global id where the schema says ID.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from graphql import (
    GraphQLEnumType,
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLScalarType,
    GraphQLSchema,
    TypeNode,
    print_ast,
    type_from_ast,  # pyright: ignore[reportUnknownVariableType]  # graphql-core leaves a type argument open
)

from devstore.documents import Operation
from devstore.gids import is_gid

_MISSING = object()

Json = dict[str, object]
_Path = tuple[str | int, ...]
_Problems = Iterator[tuple[_Path, str]]


def variable_errors(schema: GraphQLSchema, operation: Operation, given: Mapping[str, object]) -> Iterator[Json]:
    """INVALID_VARIABLE errors: one for each variable that is wrong, naming every path in it that is."""
    for definition in operation.node.variable_definitions or ():
        value = given.get(definition.variable.name.value, _MISSING)
        if value is _MISSING and definition.default_value is not None:
            continue
        problems = list(_problems(_type(schema, definition.type), value, ()))
        if not problems:
            continue
        told = ", ".join(f"{'.'.join(map(str, path))} ({why})" if path else why for path, why in problems)
        where = "invalid value for " if problems[0][0] else "invalid value "
        start = definition.loc.start_token if definition.loc else None
        name = definition.variable.name.value
        yield {
            "message": f"Variable ${name} of type {print_ast(definition.type)} was provided {where}{told}",
            "locations": [{"line": start.line, "column": start.column}] if start else [],
            "extensions": {
                "code": "INVALID_VARIABLE",
                "value": None if value is _MISSING else value,
                "problems": [{"path": list(path), "explanation": why} for path, why in problems],
            },
        }


def _type(schema: GraphQLSchema, node: TypeNode) -> object:
    return cast("object", type_from_ast(schema, node))


def _problems(kind: object, value: object, path: _Path) -> _Problems:
    if isinstance(kind, GraphQLNonNull):
        if value is None or value is _MISSING:
            yield path, "Expected value to not be null"
        else:
            yield from _problems(cast("object", kind.of_type), value, path)
    elif value is None or value is _MISSING:
        return
    elif isinstance(kind, GraphQLList):
        # A single value stands for a list of one.
        inner = cast("object", kind.of_type)
        if not isinstance(value, list):
            yield from _problems(inner, value, path)
            return
        for index, item in enumerate(cast("Sequence[object]", value)):
            yield from _problems(inner, item, (*path, index))
    elif isinstance(kind, GraphQLInputObjectType):
        yield from _object_problems(kind, value, path)
    else:
        yield from _leaf_problems(cast("GraphQLScalarType | GraphQLEnumType", kind), value, path)


def _object_problems(kind: GraphQLInputObjectType, value: object, path: _Path) -> _Problems:
    if not isinstance(value, dict):
        yield path, f"Expected {json.dumps(value)} to be a key-value object."
        return
    given = cast("Json", value)
    for name in given.keys() - kind.fields.keys():
        yield (*path, name), f"Field is not defined on {kind.name}"
    for name, field in kind.fields.items():
        if name in given or field.default is None:
            yield from _problems(cast("object", field.type), given.get(name, _MISSING), (*path, name))


def _leaf_problems(kind: GraphQLScalarType | GraphQLEnumType, value: object, path: _Path) -> _Problems:
    if kind.name == "ID":
        if not isinstance(value, str) or not is_gid(value):
            yield path, f"Invalid global id '{value}'"
        return
    try:
        kind.parse_value(cast("str", value))
    except (GraphQLError, TypeError, ValueError):
        yield path, f"Could not coerce value {json.dumps(value)} to {kind.name}"
