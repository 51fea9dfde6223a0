"""Metafield definitions: creating, reading, changing, pinning, and every refusal that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from devstore_support import Bench

UPDATE = """mutation($d:MetafieldDefinitionUpdateInput!){ metafieldDefinitionUpdate(definition:$d){
  updatedDefinition{ name pinnedPosition access{ admin storefront customerAccount } }
  userErrors{ field message code } } }"""
FIND = """{ metafieldDefinition(identifier:{ownerType:CUSTOMER,namespace:"loyalty",key:"points_balance"}){
  id pinnedPosition type{name category} access{ admin storefront customerAccount } metafieldsCount } }"""
WHICH = {"ownerType": "CUSTOMER", "namespace": "loyalty", "key": "points_balance"}


def _pin(verb: str) -> str:
    return f"""mutation($i:MetafieldDefinitionIdentifierInput!){{ metafieldDefinition{verb}(identifier:$i){{
      {verb.lower()}nedDefinition{{ pinnedPosition }} userErrors{{ field message code }} }} }}"""


def test_a_definition_is_created_with_default_access(bench: Bench) -> None:
    payload = bench.define()
    assert payload["userErrors"] == []
    assert payload["createdDefinition"]["type"] == {"name": "number_integer"}
    assert payload["createdDefinition"]["pinnedPosition"] is None
    assert payload["createdDefinition"]["access"] == {
        "admin": "PUBLIC_READ_WRITE",
        "storefront": "NONE",
        "customerAccount": "NONE",
    }


def test_access_is_taken_as_asked(bench: Bench) -> None:
    bench.define(access={"customerAccount": "READ", "storefront": "PUBLIC_READ"})
    access = bench.data(FIND)["metafieldDefinition"]["access"]
    assert (access["customerAccount"], access["storefront"]) == ("READ", "PUBLIC_READ")


def test_the_same_definition_again_is_taken(bench: Bench) -> None:
    bench.define()
    assert bench.define() == {
        "createdDefinition": None,
        "userErrors": [
            {
                "field": ["definition", "key"],
                "message": "Key is in use for Customer metafields on the 'loyalty' namespace.",
                "code": "TAKEN",
            }
        ],
    }


def test_admin_access_is_not_permitted_on_a_merchants_namespace(bench: Bench) -> None:
    (refused,) = bench.define(access={"admin": "MERCHANT_READ"})["userErrors"]
    assert refused == {
        "field": ["definition", "access", "admin"],
        "message": 'Setting this access control is not permitted. It must be one of ["public_read_write"].',
        "code": "INVALID",
    }


def test_admin_access_is_permitted_on_the_apps_own_namespace(bench: Bench) -> None:
    payload = bench.define(namespace="$app:loyalty", access={"admin": "MERCHANT_READ"})
    assert payload["createdDefinition"]["access"]["admin"] == "MERCHANT_READ"
    assert payload["createdDefinition"]["namespace"] == "app--1--loyalty"


@pytest.mark.parametrize(
    ("changes", "part", "code"),
    [
        ({"namespace": "ab"}, "namespace", "TOO_SHORT"),
        ({"namespace": "n" * 256}, "namespace", "TOO_LONG"),
        ({"key": "k"}, "key", "TOO_SHORT"),
        ({"key": "k" * 65}, "key", "TOO_LONG"),
        ({"key": "points balance"}, "key", "INVALID_CHARACTER"),
        ({"namespace": "shopify_standard"}, "namespace", "RESERVED_NAMESPACE_KEY"),
        ({"namespace": "app--9--x"}, "namespace", "RESERVED_NAMESPACE_KEY"),
        ({"type": "integer"}, "type", "INCLUSION"),
        ({"name": " "}, "name", "BLANK"),
        ({"name": "n" * 256}, "name", "TOO_LONG"),
        ({"description": "d" * 256}, "description", "TOO_LONG"),
    ],
)
def test_bad_definitions_are_refused(bench: Bench, changes: dict[str, str], part: str, code: str) -> None:
    (refused,) = bench.define(**changes)["userErrors"]
    assert (refused["field"], refused["code"]) == (["definition", part], code)


def test_twenty_definitions_can_be_pinned_and_no_more(bench: Bench) -> None:
    for number in range(20):
        assert bench.define(key=f"key-{number}", pin=True)["createdDefinition"]["pinnedPosition"] == number + 1
    (refused,) = bench.define(pin=True)["userErrors"]
    assert refused["code"] == "PINNED_LIMIT_REACHED"
    assert bench.data(FIND)["metafieldDefinition"] is None
    assert bench.define()["userErrors"] == []
    assert bench.data(_pin("Pin"), {"i": WHICH})["metafieldDefinitionPin"]["userErrors"][0]["code"] == (
        "PINNED_LIMIT_REACHED"
    )
    update = bench.data(UPDATE, {"d": {**WHICH, "pin": True}})["metafieldDefinitionUpdate"]
    assert update["userErrors"][0]["code"] == "PINNED_LIMIT_REACHED"


def test_a_shop_has_256_definitions_an_owner_type(bench: Bench) -> None:
    for number in range(256):
        bench.shop.budget.fill()
        bench.define(key=f"key-{number}")
    assert bench.define()["userErrors"] == [
        {
            "field": ["definition"],
            "message": "Stores can only have 256 definitions for each store resource.",
            "code": "RESOURCE_TYPE_LIMIT_EXCEEDED",
        }
    ]
    assert bench.define(ownerType="SHOP")["userErrors"] == []


def test_pinning_and_unpinning(bench: Bench) -> None:
    bench.define()

    def run(verb: str) -> tuple[Any, list[str]]:
        payload = bench.data(_pin(verb), {"i": WHICH})[f"metafieldDefinition{verb}"]
        return payload[f"{verb.lower()}nedDefinition"], [one["code"] for one in payload["userErrors"]]

    assert run("Unpin") == (None, ["NOT_PINNED"])
    assert run("Pin") == ({"pinnedPosition": 1}, [])
    assert run("Pin") == (None, ["ALREADY_PINNED"])
    assert run("Unpin") == ({"pinnedPosition": None}, [])


def test_unpinning_moves_the_later_ones_up(bench: Bench) -> None:
    for number in range(3):
        bench.define(key=f"key-{number}", pin=True)
    bench.data(_pin("Unpin"), {"i": {**WHICH, "key": "key-0"}})
    positions = {one.slot.key: one.pinned_position for one in bench.shop.definitions.of_type("CUSTOMER")}
    assert positions == {"key-0": None, "key-1": 1, "key-2": 2}


@pytest.mark.parametrize("verb", ["Pin", "Unpin"])
def test_pinning_what_does_not_exist(bench: Bench, verb: str) -> None:
    payload = bench.data(_pin(verb), {"i": WHICH})[f"metafieldDefinition{verb}"]
    assert [one["code"] for one in payload["userErrors"]] == ["NOT_FOUND"]


def test_an_update_changes_what_it_names(bench: Bench) -> None:
    bench.define(access={"storefront": "PUBLIC_READ"})
    payload = bench.data(UPDATE, {"d": {**WHICH, "pin": True, "access": {"customerAccount": "READ"}}})
    assert payload["metafieldDefinitionUpdate"]["updatedDefinition"] == {
        "name": "Points",
        "pinnedPosition": 1,
        "access": {"admin": "PUBLIC_READ_WRITE", "storefront": "PUBLIC_READ", "customerAccount": "READ"},
    }


def test_an_update_of_what_does_not_exist(bench: Bench) -> None:
    payload = bench.data(UPDATE, {"d": {**WHICH, "name": "New"}})["metafieldDefinitionUpdate"]
    assert payload["updatedDefinition"] is None
    assert payload["userErrors"][0]["code"] == "NOT_FOUND"


def test_definitions_are_listed_and_filtered(bench: Bench) -> None:
    for namespace, pin in (("loyalty", True), ("reviews", False)):
        bench.define(namespace=namespace, pin=pin)

    def listed(arguments: str) -> list[str]:
        field = f"metafieldDefinitions(first: 5, ownerType: CUSTOMER{arguments})"
        query = f"{{ {field} {{ nodes {{ namespace }} }} }}"
        return [one["namespace"] for one in bench.data(query)["metafieldDefinitions"]["nodes"]]

    assert listed("") == ["loyalty", "reviews"]
    assert listed(', namespace: "reviews"') == ["reviews"]
    assert listed(", pinnedStatus: PINNED") == ["loyalty"]
    assert listed(', key: "other"') == []


def test_a_definition_is_found_by_id_and_counts_its_values(bench: Bench) -> None:
    number = bench.define()["createdDefinition"]["id"]
    bench.shop.put_metafield(bench.shop.gid, "loyalty", "points_balance", "1", "number_integer")
    query = """query($id: ID!) { metafieldDefinition(id: $id) { key metafieldsCount type { category } }
      node(id: $id) { id } }"""
    assert bench.data(query, {"id": number}) == {
        "metafieldDefinition": {
            "key": "points_balance",
            "metafieldsCount": 0,
            "type": {"category": "NUMBER"},
        },
        "node": {"id": number},
    }
