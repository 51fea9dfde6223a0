"""The OpenAPI document: good enough to generate a client from, and true."""

# schemathesis leaves its generics open, so what comes out of it has no full type.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

if TYPE_CHECKING:
    from conftest import Api

EXAMPLES_PER_OPERATION = 12
"""Enough to meet every kind of body and parameter; the edges have tests of their own."""
HELD_TO = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


async def test_every_operation_is_named_and_documents_its_answers(api: Api) -> None:
    document = (await api.anonymous.get("/openapi.json")).json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    for operation in operations:
        assert operation.get("description") or operation.get("summary")
        success = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
        assert success
        assert all(answer.get("content") for answer in success), operation["operationId"]
    referenced = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert referenced <= set(document["components"]["schemas"])
    assert "HTTPValidationError" not in document["components"]["schemas"]


async def test_answers_keep_to_what_the_document_says(api: Api) -> None:
    await api.post_points(1, 100, externalId="seed")
    document = (await api.anonymous.get("/openapi.json")).json()
    schema = schemathesis.openapi.from_dict(document)
    base = str(api.http.base_url)
    headers = {"Authorization": api.http.headers["Authorization"]}

    def exercise() -> None:
        for result in schema.get_all_operations():
            operation = result.ok()  # pyright: ignore[reportAttributeAccessIssue] - an Err fails the test, rightly

            @settings(
                max_examples=EXAMPLES_PER_OPERATION,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            )
            @given(case=operation.as_strategy())
            def check(case: schemathesis.Case) -> None:
                response = case.call(base_url=base, headers=headers)
                case.validate_response(response, checks=HELD_TO)

            check()

    await asyncio.to_thread(exercise)
