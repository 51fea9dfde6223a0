"""What is not run in bulk, and how operations are found again, over real HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from devstore_support import BULK_SET, CANCEL, DOMAIN, OPERATIONS, RUN, BulkClient, one_each

from devstore import BulkStatus

if TYPE_CHECKING:
    from devstore import ManualClock

NO_SUCH_FILE = {
    "field": None,
    "message": "The JSONL file could not be found. Try uploading the file again, and check that you've entered the URL "
    "correctly for the stagedUploadPath mutation argument.",
    "code": "NO_SUCH_FILE",
}
CUSTOMERS = "{ customers { edges { node { id } } } }"


def refusal(field: list[str] | None, message: str, code: str | None) -> dict[str, Any]:
    return {"field": field, "message": message, "code": code}


@pytest.mark.parametrize(
    ("mutation", "error"),
    [
        (
            "mutation { not parseable",
            refusal(
                None,
                "Failed to parse the mutation - syntax error, unexpected end of file at [1, 16]",
                "INVALID_MUTATION",
            ),
        ),
        (
            "mutation { not real syntax",
            refusal(
                None,
                "Failed to parse the mutation - syntax error, unexpected end of file at [1, 21]",
                "INVALID_MUTATION",
            ),
        ),
        (
            "query { customers { edges { node { id } } } }",
            refusal(None, "Invalid operation type. Only `mutation` operations are supported.", "INVALID_MUTATION"),
        ),
        (
            """mutation M($m:[MetafieldsSetInput!]!, $i:CustomerInput!) {
              metafieldsSet(metafields: $m) { userErrors { code } } customerCreate(input: $i) { customer { id } } }""",
            refusal(["mutation"], "You must specify a single top level mutation.", None),
        ),
        (
            """mutation M($m:String!, $p:String!) { bulkOperationRunMutation(mutation: $m, stagedUploadPath: $p) {
              bulkOperation { id } userErrors { message } } }""",
            refusal(["mutation"], "You must use an allowed mutation name.", None),
        ),
        (
            "mutation M($q:String!) { bulkOperationRunQuery(query: $q) { bulkOperation { id } } }",
            refusal(["mutation"], "You must use an allowed mutation name.", None),
        ),
        (
            """mutation M($i:CustomerInput!) { customerCreate(input: $i) { customer {
              metafields(first: 1) { nodes { id } } again: metafields(first: 1) { edges { node { id } } } } } }""",
            refusal(["mutation"], "Bulk mutations cannot contain more than 1 connection.", None),
        ),
        (
            f"#{'a' * 65_535}\n{BULK_SET}",
            refusal(
                ["query"], f"is too large ({65_537 + len(BULK_SET)} bytes; maximum is 65535 bytes)", "INVALID_MUTATION"
            ),
        ),
    ],
)
async def test_mutations_that_are_refused_whatever_the_file(
    bulk: BulkClient, mutation: str, error: dict[str, Any]
) -> None:
    assert await bulk.run("valid", mutation) == {"bulkOperation": None, "userErrors": [error]}


async def test_a_mutation_that_is_not_in_the_schema_is_invalid(bulk: BulkClient) -> None:
    (error,) = (await bulk.run("valid", "mutation { nothingOfTheKind { id } }"))["userErrors"]
    assert (error["field"], error["code"]) == (None, "INVALID_MUTATION")


async def test_one_connection_is_allowed(bulk: BulkClient) -> None:
    mutation = """mutation M($i:CustomerInput!) { customerCreate(input: $i) { customer {
      displayName metafields(first: 1) { nodes { id } } } } }"""
    ended = await bulk.finish(await bulk.start({"i": {"firstName": "Ada"}}, mutation=mutation))
    (line,) = await bulk.lines(ended["url"])
    shown: dict[str, Any] = {"displayName": "Ada", "metafields": {"nodes": []}}
    assert line == {"data": {"customerCreate": {"customer": shown}}, "__lineNumber": 0}


@pytest.mark.parametrize(
    ("identifier", "told"),
    [
        ("abc", "is too short (minimum is 10 characters)"),
        ("x" * 256, "is too long (maximum is 255 characters)"),
    ],
)
async def test_client_identifiers_have_10_to_255_characters(bulk: BulkClient, identifier: str, told: str) -> None:
    path = await bulk.upload(*one_each(1))
    payload = await bulk.run(path, cid=identifier)
    assert payload["userErrors"] == [refusal(["clientIdentifier"], told, "INVALID_MUTATION")]
    for good in ("x" * 10, "x" * 255):
        assert (await bulk.run(path, cid=good))["userErrors"] == []


async def test_a_file_that_was_never_uploaded_is_not_found(bulk: BulkClient) -> None:
    target = await bulk.stage()
    for path in (target["fields"]["key"], "tmp/1/bulk/none/x.jsonl", ""):
        assert await bulk.run(path) == {"bulkOperation": None, "userErrors": [NO_SUCH_FILE]}


async def test_another_shops_file_is_not_found(bulk: BulkClient) -> None:
    path = await bulk.upload(*one_each(1))
    other = await bulk.remote.post(
        RUN,
        {"mutation": BULK_SET, "path": path},
        path="/other.myshopify.com/admin/api/2026-10/graphql.json",
        token="shpat_other",  # noqa: S106  # made up
    )
    assert other.json()["data"]["bulkOperationRunMutation"]["userErrors"] == [NO_SUCH_FILE]


async def test_an_empty_file_is_refused(bulk: BulkClient) -> None:
    target = await bulk.stage("PUT")
    assert (await bulk.remote.http.put(target["url"], content=b"")).status_code == 200
    path = target["url"].partition("/_uploads/")[2].partition("?")[0]
    error = refusal(None, "The input file is empty.", "INVALID_STAGED_UPLOAD_FILE")
    assert await bulk.run(path) == {"bulkOperation": None, "userErrors": [error]}


async def test_a_file_that_is_too_large_is_refused(bulk: BulkClient) -> None:
    target = await bulk.stage("PUT")
    bulk.bulk.settings.upload_bytes_max = 1024 * 1024
    # Nothing limits a PUT, as recorded; only the operation does.
    assert (await bulk.remote.http.put(target["url"], content=b" " * (1024 * 1024 + 1))).status_code == 200
    path = target["url"].partition("/_uploads/")[2].partition("?")[0]
    told = "The input file size exceeds the maximum allowed size of 1 MB."
    assert (await bulk.run(path))["userErrors"] == [refusal(None, told, "INVALID_STAGED_UPLOAD_FILE")]


async def test_five_of_a_type_run_at_once(bulk: BulkClient) -> None:
    bulk.bulk.settings.paused = True
    path = await bulk.upload(*one_each(1))
    ids = [(await bulk.run(path))["bulkOperation"]["id"] for _ in range(5)]
    told = f"A bulk mutation operation for this app and shop is already in progress: {', '.join(ids)}."
    refused = {"bulkOperation": None, "userErrors": [refusal(None, told, "OPERATION_IN_PROGRESS")]}
    assert await bulk.run(path) == refused
    # A file that is missing is noticed first, as recorded.
    assert (await bulk.run("tmp/1/bulk/none/x.jsonl"))["userErrors"] == [NO_SUCH_FILE]
    # One that is being canceled still counts.
    await bulk.data(CANCEL, id=ids[0])
    assert (await bulk.run(path))["userErrors"][0]["code"] == "OPERATION_IN_PROGRESS"
    bulk.bulk.fail(bulk.operation(ids[1]), BulkStatus.FAILED)
    assert (await bulk.run(path))["userErrors"] == []


async def test_queries_and_mutations_are_counted_apart(bulk: BulkClient) -> None:
    bulk.bulk.settings.paused = True
    path = await bulk.upload(*one_each(1))
    for _ in range(5):
        assert (await bulk.run(path))["userErrors"] == []
    ids = [(await bulk.export(CUSTOMERS))["bulkOperation"]["id"] for _ in range(5)]
    told = f"A bulk query operation for this app and shop is already in progress: {', '.join(ids)}."
    assert (await bulk.export(CUSTOMERS))["userErrors"] == [refusal(None, told, "OPERATION_IN_PROGRESS")]


async def listed(bulk: BulkClient, **variables: Any) -> list[str]:
    page = await bulk.data(OPERATIONS, **{"first": 50, "reverse": False, "sortKey": "CREATED_AT"} | variables)
    return [node["id"] for node in page["nodes"]]


async def three(bulk: BulkClient, clock: ManualClock) -> list[str]:
    """A mutation that was completed, a query that is running a day later, and one that was canceled."""
    first = await bulk.start(*one_each(1))
    await bulk.bulk.settle()
    clock.advance(86_400)
    bulk.bulk.settings.paused = True
    second = (await bulk.export(CUSTOMERS))["bulkOperation"]["id"]
    third = (await bulk.export(CUSTOMERS))["bulkOperation"]["id"]
    bulk.bulk.fail(bulk.operation(third), BulkStatus.CANCELED)
    return [first, second, third]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [2, 1, 0]),
        ("status:completed", [0]),
        ("status:CREATED operation_type:query", [1]),
        ("status:created AND operation_type:mutation", []),
        ("operation_type:QUERY", [2, 1]),
        ("created_at:>=2026-01-02", [2, 1]),
        ("created_at:<'2026-01-02T00:00:00Z' operation_type:mutation", [0]),
        ("created_at:>2026-01-02", []),
        # Recorded: what is no value of the field finds nothing, and a field that does not exist is ignored.
        ("status:expired", []),
        ("status:nonsense", []),
        ("operation_type:export", []),
        ("made_up:value", [2, 1, 0]),
        ("type:mutation", [2, 1, 0]),
    ],
)
async def test_operations_are_searched_by_the_documented_fields(
    bulk: BulkClient, clock: ManualClock, query: str, found: list[int]
) -> None:
    ids = await three(bulk, clock)
    assert await listed(bulk, query=query) == [ids[index] for index in found]


async def test_operations_are_found_by_id(bulk: BulkClient, clock: ManualClock) -> None:
    ids = await three(bulk, clock)
    number = bulk.operation(ids[1]).number
    assert await listed(bulk, query=f"id:{number}") == [ids[1]]
    assert await listed(bulk, query=f"id:{ids[1]}") == [ids[1]]
    assert await listed(bulk, query=f"id:>={number}") == [ids[2], ids[1]]
    assert await listed(bulk, query="id:nonsense") == []


async def test_operations_are_listed_in_either_order_and_in_pages(bulk: BulkClient, clock: ManualClock) -> None:
    ids = await three(bulk, clock)
    assert await listed(bulk, reverse=True) == ids
    assert await listed(bulk, sortKey="COMPLETED_AT") == [ids[0], ids[2], ids[1]]
    assert await listed(bulk, sortKey="COMPLETED_AT", reverse=True) == [ids[1], ids[2], ids[0]]
    page = await bulk.data(OPERATIONS, first=2, reverse=False)
    assert [node["id"] for node in page["nodes"]] == [ids[2], ids[1]]
    assert page["pageInfo"]["hasNextPage"]
    assert await listed(bulk, first=2, after=page["pageInfo"]["endCursor"]) == [ids[0]]


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "you must provide one of first or last"),
        ({"first": 1, "last": 1}, "providing both first and last is not supported"),
        ({"first": 1, "query": "created_at:>=not-a-date"}, "Invalid timestamp for query filter `created_at`."),
        (
            {"first": 1, "query": "status:running OR status:created"},
            "The devstore's search knows terms and AND, not OR, NOT, lists or parentheses.",
        ),
        (
            {"first": 1, "query": "-status:running"},
            "The devstore's search knows terms and AND, not OR, NOT, lists or parentheses.",
        ),
    ],
)
async def test_lists_that_are_refused(bulk: BulkClient, variables: dict[str, Any], told: str) -> None:
    (error,) = (await bulk.remote.post(OPERATIONS, variables)).json()["errors"]
    assert (error["message"], error["extensions"]["code"]) == (told, "BAD_REQUEST")


async def test_the_current_operation_is_the_newest_of_its_type(bulk: BulkClient, clock: ManualClock) -> None:
    query = "query($t:BulkOperationType){ currentBulkOperation(type:$t){ id status } }"
    assert await bulk.data(query, t="MUTATION") is None
    ids = await three(bulk, clock)
    assert await bulk.data(query, t="MUTATION") == {"id": ids[0], "status": "COMPLETED"}
    assert await bulk.data("{ currentBulkOperation { id status } }") == {"id": ids[2], "status": "CANCELED"}


async def test_ids_of_operations_are_checked(bulk: BulkClient) -> None:
    assert await bulk.poll("gid://shopify/BulkOperation/0") is None
    answer = await bulk.remote.post('{ bulkOperation(id: "gid://shopify/Product/1") { id } }')
    (error,) = answer.json()["errors"]
    assert (error["message"], error["extensions"]["code"]) == (
        "Invalid id: gid://shopify/Product/1",
        "RESOURCE_NOT_FOUND",
    )


async def test_shops_have_operations_of_their_own(bulk: BulkClient) -> None:
    gid = await bulk.start(*one_each(1))
    await bulk.bulk.settle()
    number = bulk.operation(gid).number
    assert bulk.store.shop("other.myshopify.com").bulk.operations == []
    # A shop that is added again keeps its operations.
    await bulk.remote.control("POST", "/shops", domain=DOMAIN, token="shpat_made_up")  # noqa: S106  # made up
    (kept,) = await bulk.remote.control("GET", f"/shops/{DOMAIN}/bulk")
    assert kept["number"] == number
