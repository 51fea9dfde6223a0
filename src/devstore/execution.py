"""Executing one prepared document: what a call to the API and a line of a bulk operation have in common."""

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from graphql import ExecutionResult, Executor, GraphQLError, GraphQLSchema, MiddlewareManager

from devstore.documents import Operation, Prepared

Json = dict[str, object]


def read_json(text: bytes) -> object:
    """Read a JSON document. Raises ValueError or RecursionError if it is none, or holds what is no text."""
    read = cast("object", json.loads(text))
    if b"\\u" in text:
        # Half a surrogate pair is no text: it could be neither stored nor sent back.
        json.dumps(read, ensure_ascii=False).encode()
    return read


def build_executor(
    schema: GraphQLSchema,
    prepared: Prepared,
    operation: Operation,
    variables: Mapping[str, object],
    context: object,
    middleware: MiddlewareManager | None = None,
) -> Executor[Any] | list[GraphQLError]:
    """Make an operation ready to be executed with these variables, or say what is wrong with them."""
    # graphql-core leaves parts of this signature without type arguments; what comes back is pinned here.
    build = cast("Callable[..., Executor[Any] | list[GraphQLError]]", Executor.build)  # pyright: ignore[reportUnknownMemberType]
    return build(
        schema,
        prepared.document,
        context_value=context,
        raw_variable_values=variables,
        operation_name=operation.name,
        is_awaitable=_never,
        middleware=middleware,
    )


def execute(executor: Executor[Any]) -> tuple[Json | None, list[Json]]:
    """Execute, and give the data and the errors as an answer shows them."""
    result = cast("ExecutionResult", executor.execute_operation())
    return cast("Json | None", result.data), [_shown(error) for error in result.errors or ()]


def _never(_value: object) -> bool:
    # No resolver here is asynchronous; asking each value would cost a third of the execution.
    return False


def _shown(error: GraphQLError) -> Json:
    formatted: Json = dict(error.formatted)
    if error.original_error is not None and not isinstance(error.original_error, GraphQLError):
        formatted["extensions"] = {"code": "INTERNAL_SERVER_ERROR"}
    return formatted
