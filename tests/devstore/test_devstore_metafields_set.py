"""metafieldsSet, fact by fact, as recorded from live stores."""

from __future__ import annotations

from typing import Any

import pytest
from devstore_support import SET, Bench, definition, entry, gid
from hypothesis import given
from hypothesis import strategies as st

from devstore.values import INTEGER_MAX, ValueRefusedError, normalise

STALE = "The resource has been updated since it was loaded. Try again with an updated `compareDigest` value."


def error(code: str, message: str, *field: str) -> dict[str, Any]:
    return {"field": ["metafields", *field], "message": message, "code": code, "elementIndex": None}


def test_a_value_is_created_and_read_back(bench: Bench) -> None:
    payload = bench.set(entry(1, "1500"))
    (stored,) = payload["metafields"]
    assert payload["userErrors"] == []
    assert stored["namespace"] == "loyalty"
    assert stored["key"] == "points_balance"
    assert stored["type"] == "number_integer"
    assert stored["value"] == "1500"
    assert stored["owner"] == {"id": gid(1)}
    assert stored["createdAt"] == stored["updatedAt"] == "2026-01-01T00:00:00Z"
    assert bench.value() is not None


def test_digests_are_opaque_64_hex_digits_and_follow_the_value(bench: Bench) -> None:
    digests = [bench.set(entry(1, value))["metafields"][0]["compareDigest"] for value in ("1", "2", "1")]
    assert digests[0] == digests[2] != digests[1]
    assert all(len(bytes.fromhex(digest)) == 32 for digest in digests)


def test_more_than_25_entries_are_refused_as_a_whole(bench: Bench) -> None:
    payload = bench.set(*(entry(1, str(number)) for number in range(26)))
    message = "Exceeded the maximum metafields input limit of 25."
    assert payload["metafields"] is None
    assert payload["userErrors"] == [error("LESS_THAN_OR_EQUAL_TO", message)]
    assert bench.value() is None


def test_25_entries_are_taken(bench: Bench) -> None:
    assert len(bench.set(*(entry(number) for number in range(1, 26)))["metafields"]) == 25


def test_a_missing_owner_fails_the_whole_batch_and_its_index_is_in_the_field(bench: Bench) -> None:
    refused = bench.refusals(entry(1), entry(999), entry(2))
    assert refused == [error("INVALID_VALUE", "Owner does not exist.", "1", "ownerId")]
    assert bench.value(1) is None


def test_a_refused_batch_answers_an_empty_list_not_null(bench: Bench) -> None:
    assert bench.set(entry(999))["metafields"] == []


def test_owners_of_kinds_that_are_not_held_do_not_exist(bench: Bench) -> None:
    refused = bench.refusals(entry(ownerId="gid://shopify/Product/1"))
    assert refused == [error("INVALID_VALUE", "Owner does not exist.", "0", "ownerId")]


def test_every_bad_entry_of_a_batch_is_named(bench: Bench) -> None:
    refused = bench.refusals(entry(999), entry(1, "x"), entry(2))
    assert [one["field"] for one in refused] == [["metafields", "0", "ownerId"], ["metafields", "1", "value"]]


@pytest.mark.parametrize("value", ["+5", "x", "5.5", "1e3", "٣", " 5", "0x1", "--5", "5.", "1" * 400, "NaN"])
def test_what_is_no_integer_is_refused(bench: Bench, value: str) -> None:
    assert bench.refusals(entry(1, value)) == [error("INVALID_VALUE", "Value must be an integer.", "0", "value")]


@pytest.mark.parametrize(
    ("sent", "stored"), [("5.0", "5"), ("007", "7"), ("-5", "-5"), ("-0", "0"), ("5.000", "5"), ("0", "0")]
)
def test_integers_are_stored_in_one_form(bench: Bench, sent: str, stored: str) -> None:
    assert bench.set(entry(1, sent))["metafields"][0]["value"] == stored


@pytest.mark.parametrize("value", [str(INTEGER_MAX), str(-INTEGER_MAX)])
def test_the_integer_range_is_that_of_a_double(bench: Bench, value: str) -> None:
    assert bench.set(entry(1, value))["metafields"][0]["value"] == value


@pytest.mark.parametrize("value", [str(INTEGER_MAX + 1), str(-INTEGER_MAX - 1), str(2**63)])
def test_integers_beyond_the_range_are_refused(bench: Bench, value: str) -> None:
    (refused,) = bench.refusals(entry(1, value))
    assert (refused["code"], refused["field"]) == ("INVALID_VALUE", ["metafields", "0", "value"])


@given(st.integers(-INTEGER_MAX, INTEGER_MAX))
def test_every_integer_in_range_is_stored_as_python_prints_it(number: int) -> None:
    assert normalise("number_integer", str(number)) == str(number)


@given(st.text(max_size=30))
def test_no_text_makes_a_value_that_is_not_its_own_normal_form(text: str) -> None:
    try:
        stored = normalise("number_integer", text)
    except ValueRefusedError:
        return
    assert normalise("number_integer", stored) == stored == str(int(stored))


def test_a_type_is_required_without_a_definition(bench: Bench) -> None:
    assert bench.refusals(entry(type=...)) == [error("BLANK", "Type can't be blank", "0", "type")]


def test_with_a_definition_the_type_may_be_omitted(bench: Bench) -> None:
    bench.define()
    assert bench.set(entry(type=...))["metafields"][0]["type"] == "number_integer"


def test_a_type_other_than_the_definitions_is_refused(bench: Bench) -> None:
    bench.define(type="single_line_text_field")
    (refused,) = bench.refusals(entry())
    assert (refused["code"], refused["field"]) == ("INVALID_TYPE", ["metafields", "0", "type"])


def test_an_unknown_type_is_refused(bench: Bench) -> None:
    assert bench.refusals(entry(type="number"))[0]["code"] == "INCLUSION"


def test_an_empty_value_is_blank(bench: Bench) -> None:
    assert bench.refusals(entry(1, ""))[0]["code"] == "BLANK"


@pytest.mark.parametrize(
    ("changes", "part", "code"),
    [
        ({"namespace": "ab"}, "namespace", "TOO_SHORT"),
        ({"namespace": "n" * 256}, "namespace", "TOO_LONG"),
        ({"namespace": "a b c"}, "namespace", "INVALID"),
        ({"key": "k"}, "key", "TOO_SHORT"),
        ({"key": "k" * 65}, "key", "TOO_LONG"),
        ({"key": "points.balance"}, "key", "INVALID"),
        ({"namespace": "protected"}, "namespace", "APP_NOT_AUTHORIZED"),
        ({"namespace": "shopify_standard"}, "namespace", "APP_NOT_AUTHORIZED"),
        ({"namespace": "shopify--discovery"}, "namespace", "APP_NOT_AUTHORIZED"),
        ({"namespace": "app--77--loyalty"}, "namespace", "APP_NOT_AUTHORIZED"),
    ],
)
def test_names_are_bounded_and_some_namespaces_reserved(
    bench: Bench, changes: dict[str, Any], part: str, code: str
) -> None:
    (refused,) = bench.refusals(entry(**changes))
    assert (refused["code"], refused["field"]) == (code, ["metafields", "0", part])


@pytest.mark.parametrize(("sent", "stored"), [(..., "app--1"), ("$app", "app--1"), ("$app:loyalty", "app--1--loyalty")])
def test_the_apps_own_namespaces_are_spelled_out(bench: Bench, sent: Any, stored: str) -> None:
    assert bench.set(entry(namespace=sent))["metafields"][0]["namespace"] == stored


def test_a_changed_value_moves_updated_at_and_keeps_the_rest(bench: Bench) -> None:
    (first,) = bench.set(entry(1, "1"))["metafields"]
    bench.clock.advance(60)
    (second,) = bench.set(entry(1, "2"))["metafields"]
    assert (second["id"], second["createdAt"]) == (first["id"], first["createdAt"])
    assert second["updatedAt"] == "2026-01-01T00:01:00Z"


def test_an_unchanged_value_is_a_no_op(bench: Bench) -> None:
    (first,) = bench.set(entry(1, "1"))["metafields"]
    bench.clock.advance(60)
    assert bench.set(entry(1, "1.0"))["metafields"] == [first]


def test_the_same_metafield_twice_in_a_call_is_taken_and_the_last_one_wins(bench: Bench) -> None:
    payload = bench.set(entry(1, "1"), entry(1, "2"))
    assert [one["value"] for one in payload["metafields"]] == ["2", "2"]


# -------------------------------------------------------------------------------------------- compare and set


def test_no_digest_means_no_comparison(bench: Bench) -> None:
    bench.set(entry(1, "1"))
    assert bench.set(entry(1, "2"))["userErrors"] == []


def test_a_null_digest_creates_what_is_absent(bench: Bench) -> None:
    assert bench.set(entry(1, "1", compareDigest=None))["userErrors"] == []


def test_a_null_digest_on_another_value_is_stale(bench: Bench) -> None:
    bench.set(entry(1, "1"))
    assert bench.refusals(entry(1, "2", compareDigest=None)) == [error("STALE_OBJECT", STALE, "0")]


def test_the_current_digest_is_accepted(bench: Bench) -> None:
    (first,) = bench.set(entry(1, "1"))["metafields"]
    assert bench.set(entry(1, "2", compareDigest=first["compareDigest"]))["userErrors"] == []


def test_an_older_digest_is_stale(bench: Bench) -> None:
    (first,) = bench.set(entry(1, "1"))["metafields"]
    bench.set(entry(1, "2"))
    refused = bench.refusals(entry(1, "3", compareDigest=first["compareDigest"]))
    assert refused == [error("STALE_OBJECT", STALE, "0")]


def test_a_digest_for_what_does_not_exist_is_invalid(bench: Bench) -> None:
    refused = bench.refusals(entry(1, "3", compareDigest="0" * 64))
    assert refused == [error("INVALID_COMPARE_DIGEST", "Invalid `compareDigest` value.", "0")]


@pytest.mark.parametrize("digest", [None, "", "0" * 64])
def test_an_identical_value_is_accepted_whatever_the_digest(bench: Bench, digest: str | None) -> None:
    (first,) = bench.set(entry(1, "1"))["metafields"]
    bench.clock.advance(60)
    assert bench.set(entry(1, "1", compareDigest=digest))["metafields"] == [first]


def test_one_stale_entry_writes_nothing_of_the_batch(bench: Bench) -> None:
    bench.set(entry(2, "1"))
    refused = bench.refusals(entry(1, "7"), entry(2, "7", compareDigest=None))
    assert refused == [error("STALE_OBJECT", STALE, "1")]
    assert bench.value(1) is None


def test_an_omitted_variable_in_a_literal_is_no_comparison(bench: Bench) -> None:
    bench.set(entry(1, "1"))
    query = """mutation($d: String) { metafieldsSet(metafields: [{ownerId: "gid://shopify/Customer/1",
      namespace: "loyalty", key: "points_balance", type: "number_integer", value: "2", compareDigest: $d}]) {
      userErrors { code } } }"""
    assert bench.data(query)["metafieldsSet"]["userErrors"] == []
    assert bench.data(query.replace('"2"', '"3"'), {"d": None})["metafieldsSet"]["userErrors"] == [
        {"code": "STALE_OBJECT"}
    ]


# ------------------------------------------------------------------------------------------- top-level errors


@pytest.mark.parametrize("missing", ["ownerId", "key", "value"])
@pytest.mark.parametrize("how", [..., None])
def test_missing_required_fields_are_invalid_variables(bench: Bench, missing: str, how: Any) -> None:
    answer = bench.answer(SET, {"m": [entry(1), entry(2, **{missing: how})]})
    (told,) = _errors(answer.body)
    assert answer.status == 200
    assert "data" not in answer.body
    assert told["extensions"]["code"] == "INVALID_VARIABLE"
    assert told["extensions"]["problems"] == [{"path": [1, missing], "explanation": "Expected value to not be null"}]
    assert told["message"].startswith("Variable $m of type [MetafieldsSetInput!]! was provided invalid value for 1.")


@pytest.mark.parametrize("owner", ["1", "gid://shopify/Customer/", "gid://shopify/Customer/x", "", 7])
def test_malformed_global_ids_are_invalid_variables(bench: Bench, owner: Any) -> None:
    (told,) = _errors(bench.answer(SET, {"m": [entry(ownerId=owner)]}).body)
    assert told["extensions"]["code"] == "INVALID_VARIABLE"
    assert told["extensions"]["problems"][0]["explanation"] == f"Invalid global id '{owner}'"


@pytest.mark.parametrize(
    ("variables", "explanation"),
    [
        ({}, "Expected value to not be null"),
        ({"m": [entry(extra="x")]}, "Field is not defined on MetafieldsSetInput"),
        ({"m": ["x"]}, 'Expected "x" to be a key-value object.'),
        ({"m": [entry(value=5)]}, "Could not coerce value 5 to String"),
    ],
)
def test_other_faults_of_variables_are_named_too(bench: Bench, variables: Any, explanation: str) -> None:
    (told,) = _errors(bench.answer(SET, variables).body)
    assert told["extensions"]["problems"][0]["explanation"] == explanation


def test_a_global_id_of_a_type_without_metafields_is_a_top_level_error(bench: Bench) -> None:
    answer = bench.answer(SET, {"m": [entry(ownerId="gid://shopify/Metafield/1")]})
    assert _errors(answer.body)[0]["extensions"]["code"] == "RESOURCE_NOT_FOUND"
    assert answer.body["data"] == {"metafieldsSet": None}


def test_each_alias_is_its_own_atomic_unit(bench: Bench) -> None:
    query = """mutation($a:[MetafieldsSetInput!]!,$b:[MetafieldsSetInput!]!) {
      one: metafieldsSet(metafields:$a) { userErrors { code } }
      two: metafieldsSet(metafields:$b) { userErrors { code } } }"""
    data = bench.data(query, {"a": [entry(1, "1")], "b": [entry(2, "x"), entry(3, "1")]})
    assert data == {"one": {"userErrors": []}, "two": {"userErrors": [{"code": "INVALID_VALUE"}]}}
    assert bench.value(1) is not None
    assert bench.value(3) is None


def test_the_shop_can_own_metafields(bench: Bench) -> None:
    bench.set(entry(ownerId=str(bench.shop.gid)))
    query = """{ shop { metafield(namespace:"loyalty", key:"points_balance") {
      jsonValue ownerType owner { ... on Shop { id } } } } }"""
    found = bench.data(query)["shop"]["metafield"]
    assert found == {"jsonValue": 5, "ownerType": "SHOP", "owner": {"id": str(bench.shop.gid)}}


def test_metafields_delete_removes_and_tells_what_was_there(bench: Bench) -> None:
    bench.set(entry(1))
    query = """mutation($m:[MetafieldIdentifierInput!]!) { metafieldsDelete(metafields:$m) {
      deletedMetafields { ownerId key } userErrors { message } } }"""
    names = {"namespace": "loyalty", "key": "points_balance"}
    data = bench.data(query, {"m": [{"ownerId": gid(1), **names}, {"ownerId": gid(2), **names}]})
    assert data["metafieldsDelete"]["deletedMetafields"] == [
        {"ownerId": gid(1), "key": "points_balance"},
        None,
    ]
    assert bench.value(1) is None


def _errors(body: dict[str, Any]) -> list[dict[str, Any]]:
    return body["errors"]


def test_a_definition_over_existing_values_gives_those_that_fit_its_type(bench: Bench) -> None:
    bench.set(entry(1, "5.0", type="single_line_text_field"), entry(2, "five", type="single_line_text_field"))
    bench.define(**definition())
    first, second = bench.value(1), bench.value(2)
    assert first is not None
    assert second is not None
    assert (first["type"], first["value"]) == ("number_integer", "5")
    assert (second["type"], second["value"]) == ("single_line_text_field", "five")
