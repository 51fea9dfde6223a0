"""Customers: pages, counts, nodes, creating and deleting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from devstore_support import CUSTOMERS, READ, Bench, entry, gid, make_bench

from devstore.app import ACCESS_SCOPES

if TYPE_CHECKING:
    from devstore.admin import AdminApi


def page(bench: Bench, **arguments: Any) -> tuple[list[int], dict[str, Any]]:
    found = bench.data(CUSTOMERS, arguments)["customers"]
    return [int(node["id"].rpartition("/")[2]) for node in found["nodes"]], found["pageInfo"]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("size", "start", "more"), [("first", "after", "endCursor"), ("last", "before", "startCursor")]
)
def test_pages_walk_through_everybody_once(bench: Bench, size: str, start: str, more: str, *, reverse: bool) -> None:
    seen: list[int] = []
    cursor, info = None, dict[str, Any]()
    for _ in range(5):
        numbers, info = page(bench, **{size: 7, start: cursor, "reverse": reverse})
        seen = [*seen, *numbers] if size == "first" else [*numbers, *seen]
        cursor = info[more]
    assert seen == sorted(range(1, 31), reverse=reverse)
    assert not info["hasNextPage" if size == "first" else "hasPreviousPage"]
    assert info["hasPreviousPage" if size == "first" else "hasNextPage"]


def test_a_page_without_items_has_no_cursors(bench: Bench) -> None:
    _, info = page(bench, first=5, query="id:>100")
    assert info == {"hasNextPage": False, "hasPreviousPage": False, "startCursor": None, "endCursor": None}


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("id:7", [7]),
        ("id:>28", [29, 30]),
        ("id:>=29", [29, 30]),
        ("id:<3", [1, 2]),
        ("id:<=2", [1, 2]),
        ("id:>3 AND id:<6", [4, 5]),
        ("(id:>=3) AND (id:<=3)", [3]),
        ("id:gid://shopify/Customer/9", [9]),
        ("nonsense:1 id:<2", [1]),
    ],
)
def test_customers_are_searched_by_id_and_unknown_terms_ignored(bench: Bench, query: str, numbers: list[int]) -> None:
    assert page(bench, first=50, query=query)[0] == numbers


@pytest.mark.parametrize(
    "arguments", [{}, {"first": 1, "last": 1}, {"first": 251}, {"first": -1}, {"first": 1, "after": "x"}]
)
def test_a_page_that_makes_no_sense_is_a_top_level_error(bench: Bench, arguments: dict[str, Any]) -> None:
    answer = bench.answer(CUSTOMERS, arguments)
    assert answer.status == 200
    assert answer.body["data"] is None
    assert answer.body["errors"]


@pytest.mark.parametrize(
    ("arguments", "count", "precision"),
    [
        ("", 30, "EXACT"),
        ("(limit: 10)", 10, "AT_LEAST"),
        ("(limit: 30)", 30, "EXACT"),
        ("(limit: null)", 30, "EXACT"),
    ],
)
def test_counts_stop_at_their_limit(bench: Bench, arguments: str, count: int, precision: str) -> None:
    found = bench.data(f"{{ customersCount{arguments} {{ count precision }} }}")
    assert found["customersCount"] == {"count": count, "precision": precision}


def test_counts_stop_at_10000_by_default(api: AdminApi) -> None:
    bench = make_bench(api, customers=10_001)
    assert bench.data("{ customersCount { count precision } }")["customersCount"]["precision"] == "AT_LEAST"


def test_nodes_answers_in_order_with_null_for_what_is_gone(bench: Bench) -> None:
    bench.set(entry(2, "7"))
    nodes = bench.data(READ, {"ids": [gid(2), gid(99), gid(1), gid(2)]})["nodes"]
    assert [node and node["id"] for node in nodes] == [gid(2), None, gid(1), gid(2)]
    assert nodes[0]["metafield"]["value"] == "7"
    assert nodes[2]["metafield"] is None


def test_a_metafield_is_a_node(bench: Bench) -> None:
    number = bench.set(entry(2, "7"))["metafields"][0]["id"]
    query = """query($id:ID!){ node(id:$id){ id ... on Metafield {
      jsonValue legacyResourceId owner { ... on Customer { id } } } } }"""
    found = bench.data(query, {"id": number})["node"]
    assert found == {"id": number, "jsonValue": 7, "legacyResourceId": "1", "owner": {"id": gid(2)}}
    assert bench.data(query, {"id": "gid://shopify/Metafield/99"})["node"] is None
    assert bench.data(query, {"id": "gid://shopify/Order/1"})["node"] is None


def test_an_id_of_another_type_is_not_found(bench: Bench) -> None:
    answer = bench.answer('{ customer(id: "gid://shopify/Product/1") { id } }')
    errors: Any = answer.body["errors"]
    assert errors[0]["extensions"]["code"] == "RESOURCE_NOT_FOUND"
    assert answer.body["data"] == {"customer": None}


def test_a_literal_that_is_no_global_id_is_told_so(bench: Bench) -> None:
    errors: Any = bench.answer('{ customer(id: "7") { id } }').body["errors"]
    assert errors[0]["message"] == "Invalid global id '7'"


def test_seeded_customers_are_synthetic(bench: Bench) -> None:
    query = '{ customer(id: "gid://shopify/Customer/12") { displayName email legacyResourceId tags createdAt } }'
    assert bench.data(query)["customer"] == {
        "displayName": "Customer 12",
        "email": None,
        "legacyResourceId": "12",
        "tags": [],
        "createdAt": "2026-01-01T00:00:00Z",
    }


def test_a_customer_is_created_with_details(bench: Bench) -> None:
    query = """mutation($i: CustomerInput!) { customerCreate(input: $i) {
      customer { id displayName email note tags } userErrors { field message } } }"""
    made = bench.data(query, {"i": {"email": "a@example.com", "note": "n", "tags": ["t"]}})["customerCreate"]
    assert made["customer"] == {
        "id": gid(31),
        "displayName": "a@example.com",
        "email": "a@example.com",
        "note": "n",
        "tags": ["t"],
    }
    assert bench.data(query, {"i": {}})["customerCreate"]["userErrors"][0]["field"] is None


def test_a_deleted_customer_takes_its_metafields_along(bench: Bench) -> None:
    bench.set(entry(3))
    query = """mutation($id: ID!) { customerDelete(input: {id: $id}) {
      deletedCustomerId shop { id } userErrors { field message } } }"""
    assert bench.data(query, {"id": gid(3)})["customerDelete"]["deletedCustomerId"] == gid(3)
    again = bench.data(query, {"id": gid(3)})["customerDelete"]
    assert again["userErrors"] == [{"field": ["id"], "message": "Customer can't be found"}]
    bench.shop.add_customers([3])
    assert bench.value(3) is None


def test_metafields_of_a_customer_are_listed(bench: Bench) -> None:
    bench.set(
        entry(1),
        entry(1, key="tier", type="single_line_text_field", value="gold"),
        entry(1, namespace="other"),
    )

    def listed(arguments: str) -> list[str]:
        fields = f"metafields({arguments}) {{ edges {{ node {{ namespace key }} }} }}"
        query = f'{{ customer(id: "{gid(1)}") {{ {fields} }} }}'
        edges = bench.data(query)["customer"]["metafields"]["edges"]
        return [f"{edge['node']['namespace']}.{edge['node']['key']}" for edge in edges]

    assert listed("first: 5") == ["loyalty.points_balance", "loyalty.tier", "other.points_balance"]
    assert listed('first: 5, namespace: "loyalty"') == ["loyalty.points_balance", "loyalty.tier"]
    assert listed('first: 5, keys: ["loyalty.tier"]') == ["loyalty.tier"]
    assert listed("last: 1") == ["other.points_balance"]


def test_large_ids_are_held(bench: Bench) -> None:
    bench.shop.add_customers([2**60])
    assert bench.set(entry(2**60))["userErrors"] == []
    assert page(bench, last=1)[0] == [2**60]


def test_the_app_shows_its_scopes(bench: Bench) -> None:
    scopes = bench.data("{ currentAppInstallation { accessScopes { handle } } }")["currentAppInstallation"]
    assert {one["handle"] for one in scopes["accessScopes"]} == set(ACCESS_SCOPES)
