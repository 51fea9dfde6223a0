"""Bulk queries over real HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from devstore_support import SET, BulkClient, entry, gid

from devstore.gids import Gid

POINTS = """#graphql
{
  customers {
    edges {
      node {
        id
        metafield(namespace: "loyalty", key: "points_balance") { id value type compareDigest updatedAt }
      }
    }
  }
}"""


async def exported(bulk: BulkClient, query: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    payload = await bulk.export(query)
    assert payload["userErrors"] == []
    assert (payload["bulkOperation"]["status"], payload["bulkOperation"]["type"]) == ("CREATED", "QUERY")
    assert payload["bulkOperation"]["query"] == query
    ended = await bulk.finish(payload["bulkOperation"]["id"])
    assert ended["status"] == "COMPLETED", bulk.bulk.operations[-1].trouble
    return ended, await bulk.lines(ended["url"])


async def test_every_customer_is_a_line(bulk: BulkClient) -> None:
    stored = (await bulk.remote.post(SET, {"m": [entry(2, "7")]})).json()["data"]["metafieldsSet"]["metafields"][0]
    ended, lines = await exported(bulk, POINTS)
    assert (ended["objectCount"], ended["rootObjectCount"]) == ("30", "30")
    assert [line["id"] for line in lines] == [gid(number) for number in range(1, 31)]
    assert lines[0] == {"id": gid(1), "metafield": None}
    shown = {name: stored[name] for name in ("id", "value", "type", "compareDigest", "updatedAt")}
    assert lines[1] == {"id": gid(2), "metafield": shown}


async def test_slashes_are_escaped(bulk: BulkClient) -> None:
    ended, _ = await exported(bulk, POINTS)
    text = (await bulk.remote.http.get(ended["url"])).text
    assert text.startswith('{"id":"gid:\\/\\/shopify\\/Customer\\/1",')
    assert str(len(text)) == ended["fileSize"]


async def test_more_customers_than_a_page_and_whatever_the_document_asks_for(bulk: BulkClient) -> None:
    bulk.store.shop().seed_customers(400, 1_000)
    query = (
        '{ all: customers(first: 3, after: "nonsense") { e: edges { cursor n: node { id } } pageInfo { endCursor } } }'
    )
    _, lines = await exported(bulk, query)
    assert [line["id"] for line in lines] == [gid(number) for number in (*range(1, 31), *range(1_000, 1_400))]


async def test_a_search_and_an_order_are_obeyed(bulk: BulkClient) -> None:
    _, lines = await exported(bulk, '{ customers(query: "id:>=29", reverse: true) { edges { node { id } } } }')
    assert lines == [{"id": gid(30)}, {"id": gid(29)}]


async def test_nested_connections_become_lines_with_their_parents_id(bulk: BulkClient) -> None:
    await bulk.remote.post(SET, {"m": [entry(1, "7"), entry(1, "8", key="other_one"), entry(3, "9")]})
    query = """{ customers { edges { node { ...C } } } }
    fragment C on Customer { id metafields(first: 1, namespace: "loyalty") { edges { node { key value
      owner { ... on Customer { displayName } } } } } }"""
    ended, lines = await exported(bulk, query)
    assert (ended["objectCount"], ended["rootObjectCount"]) == ("33", "30")
    owner = {"displayName": "Customer 1"}
    assert lines[:4] == [
        {"id": gid(1)},
        {"key": "points_balance", "value": "7", "owner": owner, "__parentId": gid(1)},
        {"key": "other_one", "value": "8", "owner": owner, "__parentId": gid(1)},
        {"id": gid(2)},
    ]
    assert lines[5]["__parentId"] == gid(3)


async def test_connections_two_levels_deep_and_inside_objects(bulk: BulkClient) -> None:
    await bulk.remote.post(SET, {"m": [entry(1, "7")]})
    query = """{ customers(query: "id:1") { edges { node { id metafields { edges { node { id owner {
      metafields { edges { node { value } } } } } } } } } } }"""
    _, (customer, metafield, below) = await exported(bulk, query)
    assert customer == {"id": gid(1)}
    assert metafield == {"id": metafield["id"], "owner": {}, "__parentId": gid(1)}
    assert below == {"value": "7", "__parentId": metafield["id"]}


async def test_other_connections_can_be_exported_too(bulk: BulkClient) -> None:
    bulk.store.shop().definitions.create(
        {"ownerType": "CUSTOMER", "namespace": "loyalty", "key": "points", "name": "P", "type": "number_integer"}
    )
    _, lines = await exported(bulk, "{ metafieldDefinitions(ownerType: CUSTOMER) { edges { node { key } } } }")
    assert lines == [{"key": "points"}]


async def test_a_shop_without_customers_has_no_result(bulk: BulkClient) -> None:
    payload = await bulk.export('{ customers(query: "id:>1000") { edges { node { id } } } }')
    ended = await bulk.finish(payload["bulkOperation"]["id"])
    assert (ended["status"], ended["url"], ended["objectCount"]) == ("COMPLETED", None, "0")


async def test_a_page_that_cannot_be_had_fails_the_operation(bulk: BulkClient) -> None:
    await bulk.remote.post(SET, {"m": [entry(1, "7")]})
    shop = bulk.store.shop()
    for number in range(260):
        shop.put_metafield(Gid("Customer", 2), "many", f"key_{number}", "1", "number_integer")
    payload = await bulk.export("{ customers { edges { node { id metafields { edges { node { id } } } } } } }")
    ended = await bulk.finish(payload["bulkOperation"]["id"])
    assert (ended["status"], ended["errorCode"], ended["url"]) == ("FAILED", "INTERNAL_SERVER_ERROR", None)


BELOW = "edges { node { id owner { metafields { %s } } } }"
DEEP = BELOW % (BELOW % "edges { node { id } }")


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("{ shop { id } }", ["Bulk queries must contain at least one connection."]),
        ("", ["Invalid bulk query: syntax error, unexpected end of file"]),
        (
            "{ customers { nodes { id } } }",
            [
                (
                    "All connection fields in a bulk query must select their contents using 'edges' > 'node', e.g: "
                    "'customers { edges { node {'. Selecting via 'nodes' is not supported. Invalid connection fields: "
                    "'customers'."
                )
            ],
        ),
        (
            '{ node(id: "gid://shopify/Customer/1") { id } }',
            [
                "Bulk queries cannot contain a top level `node` field.",
                "Bulk queries must contain at least one connection.",
            ],
        ),
        (
            f"{{ customers {{ edges {{ node {{ id metafields {{ {DEEP} }} }} }} }} }}",
            ["Bulk queries cannot contain connections with a nesting depth greater than 2."],
        ),
        (
            "{ customers { edges { node { id "
            + " ".join(f"m{number}: metafields {{ edges {{ node {{ id }} }} }}" for number in range(5))
            + " } } } }",
            ["Bulk queries cannot contain more than 5 connections."],
        ),
        (
            "{ customers { edges { node { email metafields { edges { node { id } } } } } } }",
            [
                (
                    "The parent 'node' field for a nested connection must select the 'id' field without an alias and "
                    "must be of 'ID' return type. Connection fields without 'id': customers."
                )
            ],
        ),
        (
            'mutation { customerDelete(input: {id: "gid://shopify/Customer/1"}) { shop { id } } }',
            ["Invalid operation type. Only `query` operations are supported."],
        ),
        (
            f"{{ customers {{ edges {{ node {{ id }} }} }} }} #{'a' * 65_535}",
            ["Query is too large (65576 bytes; maximum is 65535 bytes)"],
        ),
        (
            "{ shop { id } customers { edges { node { id } } } }",
            ["The devstore exports one connection at the top of a query without variables."],
        ),
        (
            "{ shop { metafields { edges { node { id } } } } }",
            ["The devstore exports one connection at the top of a query without variables."],
        ),
        (
            "query($q:String) { customers(query: $q) { edges { node { id } } } }",
            ["The devstore exports one connection at the top of a query without variables."],
        ),
    ],
)
async def test_queries_that_are_refused(bulk: BulkClient, query: str, told: list[str]) -> None:
    errors = [{"field": ["query"], "message": message, "code": "INVALID"} for message in told]
    assert await bulk.export(query) == {"bulkOperation": None, "userErrors": errors}


async def test_a_query_that_is_not_in_the_schema_is_invalid(bulk: BulkClient) -> None:
    (error,) = (await bulk.export("{ customers { edges { node { nothing } } } }"))["userErrors"]
    assert error["message"].startswith("Invalid bulk query: ")
    assert (error["field"], error["code"]) == (["query"], "INVALID")


async def test_a_connection_within_a_list_is_refused(bulk: BulkClient) -> None:
    query = '{ nodes(ids: ["gid://shopify/Customer/1"]) { ... on Customer { metafields { edges { node { id } } } } } }'
    assert [error["message"] for error in (await bulk.export(query))["userErrors"]] == [
        "Bulk queries cannot contain a top level `nodes` field.",
        "Queries that contain a connection field within a list field are not currently supported.",
    ]


async def test_a_query_is_canceled_and_paced_like_a_mutation(bulk: BulkClient) -> None:
    bulk.store.shop().seed_customers(2_000, 1_000)
    bulk.bulk.settings.lines_per_s = 500
    gid = (await bulk.export(POINTS))["bulkOperation"]["id"]
    while (await bulk.poll(gid))["objectCount"] == "0":
        pass
    bulk.bulk.cancel(bulk.operation(gid))
    ended = await bulk.finish(gid)
    assert ended["status"] == "CANCELED"
    assert len(await bulk.lines(ended["partialDataUrl"])) == int(ended["objectCount"]) < 2_030
