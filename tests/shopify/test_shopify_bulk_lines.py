from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metafield_sync.shopify import (
    NO_LINE,
    BulkLine,
    Refusal,
    RefusalKind,
    ShownMetafield,
    UnknownOutcome,
    WrittenMetafield,
    read_bulk_line,
    read_queried_customer,
)


def encoded(document: Any) -> bytes:
    """As Shopify writes it: slashes escaped."""
    return json.dumps(document, separators=(",", ":")).replace("/", "\\/").encode()


def line(metafields: Any, *errors: Any, number: Any = 0, **more: Any) -> bytes:
    payload = {"metafields": metafields, "userErrors": list(errors)}
    return encoded({"data": {"metafieldsSet": payload}, "__lineNumber": number} | more)


def error(field: Any, code: str | None, message: str = "no") -> dict[str, Any]:
    return {"field": field, "message": message, "code": code, "elementIndex": None}


WRITTEN = {"value": "500", "compareDigest": "abc", "owner": {"id": "gid://shopify/Customer/7"}}


def test_a_written_line_tells_its_value_and_its_digest() -> None:
    raw = (
        rb'{"data":{"metafieldsSet":{"metafields":[{"value":"500","compareDigest":"abc",'
        rb'"owner":{"id":"gid:\/\/shopify\/Customer\/7"}}],"userErrors":[]}},"__lineNumber":0}'
    )
    assert read_bulk_line(raw) == BulkLine(0, WrittenMetafield(customer_id=7, value="500", digest="abc"))
    assert raw == line([WRITTEN])


def test_what_a_written_line_leaves_out_is_none() -> None:
    assert read_bulk_line(line([{}], number=12)) == BulkLine(12, WrittenMetafield(None, None, None))


@pytest.mark.parametrize(
    ("field", "code", "kind"),
    [
        (["metafields", "0", "ownerId"], "INVALID_VALUE", RefusalKind.OWNER_GONE),
        (["metafields", "0"], "STALE_OBJECT", RefusalKind.CONFLICT),
        (["metafields", "0"], "INVALID_COMPARE_DIGEST", RefusalKind.CONFLICT),
        (["metafields", "0", "type"], "INVALID_TYPE", RefusalKind.WRONG_TYPE),
        (["metafields", "0", "value"], "INVALID_VALUE", RefusalKind.OTHER),
    ],
)
@pytest.mark.parametrize("metafields", [[], None])
def test_a_refused_line_is_judged_like_a_refused_call(
    metafields: Any, field: list[str], code: str, kind: RefusalKind
) -> None:
    assert read_bulk_line(line(metafields, error(field, code), number=3)) == BulkLine(
        3, Refusal(0, kind, code, "no", tuple(field))
    )


def test_a_line_that_was_not_executed_is_refused_with_its_error() -> None:
    said = {"message": "Variable $metafields is invalid", "extensions": {"code": "INVALID_VARIABLE"}}
    documents: list[dict[str, Any]] = [{}, {"data": None}, {"data": {}}, {"data": {"metafieldsSet": None}}]
    for document in documents:
        assert read_bulk_line(encoded(document | {"errors": [said], "__lineNumber": 1})) == BulkLine(
            1, Refusal(None, RefusalKind.OTHER, "INVALID_VARIABLE", "Variable $metafields is invalid")
        )


@pytest.mark.parametrize(
    "raw",
    [
        line([WRITTEN], errors=[{"message": "beside"}]),
        line([], errors=[{"message": "beside"}]),
        encoded({"errors": [{"message": "x", "extensions": {"code": "INTERNAL_SERVER_ERROR"}}], "__lineNumber": 0}),
        encoded({"errors": [{"message": "x", "extensions": {"code": "THROTTLED"}}], "__lineNumber": 0}),
        line(None, error(None, "INTERNAL_ERROR")),
        line([WRITTEN], error(["metafields", "0"], "STALE_OBJECT")),
        line(None),
        line([]),
        line([WRITTEN, WRITTEN]),
        encoded({"data": {"metafieldsSet": {"metafields": [WRITTEN]}}, "__lineNumber": 0}),
        encoded({"data": {"metafieldsSet": None}, "__lineNumber": 0}),
        encoded({"data": {}, "__lineNumber": 0}),
        encoded({"data": None, "__lineNumber": 0}),
        encoded({"__lineNumber": 0}),
    ],
)
def test_a_line_that_fits_neither_is_unknown_and_keeps_its_number(raw: bytes) -> None:
    read = read_bulk_line(raw)
    assert read.number == 0
    assert isinstance(read.outcome, UnknownOutcome)
    assert read.outcome.what


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        line([WRITTEN])[:-10],
        line([WRITTEN], number=None),
        line([WRITTEN], number=-1),
        line([WRITTEN], number="0"),
        line([WRITTEN], number=True),
        line([WRITTEN], number=0.5),
        encoded({"data": {"metafieldsSet": {"metafields": [WRITTEN], "userErrors": []}}}),
    ],
)
def test_a_line_without_a_number_is_nobodys(raw: bytes) -> None:
    assert read_bulk_line(raw) == BulkLine(NO_LINE, UnknownOutcome("it does not tell its number"))


@given(st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(encoded))
def test_nothing_makes_reading_a_line_fail(raw: bytes) -> None:
    assert read_bulk_line(raw).number == NO_LINE
    assert read_queried_customer(raw) is None


def test_a_customer_of_a_bulk_query_shows_a_value_or_none() -> None:
    metafield = {"value": "5", "type": "number_integer", "compareDigest": "abc"}
    assert read_queried_customer(encoded({"id": "gid://shopify/Customer/1", "metafield": metafield})) == (
        1,
        ShownMetafield("5", "number_integer", "abc"),
    )
    assert read_queried_customer(rb'{"id":"gid:\/\/shopify\/Customer\/1","metafield":null}') == (1, None)


@pytest.mark.parametrize(
    "document",
    [
        {"metafield": None},
        {"id": "gid://shopify/Customer/1"},
        {"id": "gid://shopify/Order/1", "metafield": None},
        {"id": 1, "metafield": None},
        {"id": "gid://shopify/Customer/1", "metafield": "5"},
        {"id": "gid://shopify/Customer/1", "metafield": {"value": "5", "type": "number_integer"}},
        [],
        None,
    ],
)
def test_anything_else_is_no_customer(document: Any) -> None:
    assert read_queried_customer(encoded(document)) is None
