from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from metafield_sync.shopify import (
    AdminClient,
    BulkOperation,
    BulkRefused,
    BulkRefusedKind,
    BulkStatus,
    Cost,
    OutcomeUnknown,
    ShopAccess,
    Throttled,
    Unreachable,
    bulk_set_mutation,
    find_bulk_operation,
    get_bulk_operation,
    run_bulk_mutation,
    run_bulk_query,
)
from metafield_sync.shopify.bulk import FIND_BULK_PAGES_MAX

if TYPE_CHECKING:
    from scripted_server import ScriptedServer

GID = "gid://shopify/BulkOperation/1"
MARKER = "Backfill_0123456789abcdef"
SINCE = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SIGNED = "https://storage.test/result?Signature=" + "s3cret" * 200


def operation(**changes: Any) -> dict[str, Any]:
    """As recorded in 2026-04: counts and sizes are text."""
    return {
        "id": GID,
        "status": "CREATED",
        "errorCode": None,
        "createdAt": "2026-11-22T12:00:00Z",
        "completedAt": None,
        "objectCount": "0",
        "fileSize": None,
        "url": None,
        "partialDataUrl": None,
        "type": "MUTATION",
        "query": bulk_set_mutation(MARKER),
    } | changes


def answer(data: dict[str, Any], cost: int = 10) -> dict[str, Any]:
    return {"data": data, "extensions": {"cost": {"requestedQueryCost": cost, "actualQueryCost": cost}}}


def started(found: Any, *errors: Any, name: str = "bulkOperationRunMutation") -> dict[str, Any]:
    return answer({name: {"bulkOperation": found, "userErrors": list(errors)}})


def error(code: str | None, message: str = "No.", field: Any = None) -> dict[str, Any]:
    return {"field": field, "message": message, "code": code}


async def run(client: AdminClient, access: ShopAccess) -> tuple[BulkOperation, Cost | None]:
    return await run_bulk_mutation(client, access, bulk_set_mutation(MARKER), "tmp/1/bulk/a/x.jsonl", MARKER)


async def test_a_mutation_is_started_on_the_staged_file_under_its_identifier(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(started(operation()))
    found, cost = await run(client, access)
    assert found == BulkOperation(
        id=GID,
        status=BulkStatus.CREATED,
        error_code=None,
        created_at=SINCE,
        completed_at=None,
        object_count=0,
        file_size=None,
        url=None,
        partial_data_url=None,
        kind="MUTATION",
        query=bulk_set_mutation(MARKER),
    )
    assert cost == Cost(10, 10)
    assert server.received[0].variables == {
        "mutation": bulk_set_mutation(MARKER),
        "path": "tmp/1/bulk/a/x.jsonl",
        "clientIdentifier": MARKER,
    }


async def test_a_query_is_started_by_its_text_alone(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    found_as = operation(type="QUERY", query="{ customers }")
    server.answer(started(found_as, name="bulkOperationRunQuery"))
    found, _ = await run_bulk_query(client, access, "{ customers }")
    assert (found.kind, found.query) == ("QUERY", "{ customers }")
    assert server.received[0].variables == {"query": "{ customers }"}


@pytest.mark.parametrize("identifier", ["", "x" * 9, "x" * 256])
async def test_an_identifier_that_shopify_would_refuse_is_never_sent(
    client: AdminClient, access: ShopAccess, identifier: str
) -> None:
    with pytest.raises(ValueError, match="10 to 255"):
        await run_bulk_mutation(client, access, "mutation", "path", identifier)


@pytest.mark.parametrize(
    ("codes", "kind", "code"),
    [
        (["OPERATION_IN_PROGRESS"], BulkRefusedKind.IN_PROGRESS, "OPERATION_IN_PROGRESS"),
        (["NO_SUCH_FILE"], BulkRefusedKind.NO_FILE, "NO_SUCH_FILE"),
        (["LIMIT_REACHED"], BulkRefusedKind.RETRY, "LIMIT_REACHED"),
        (["INTERNAL_FILE_SERVER_ERROR"], BulkRefusedKind.RETRY, "INTERNAL_FILE_SERVER_ERROR"),
        (["NEWLY_INVENTED"], BulkRefusedKind.RETRY, "NEWLY_INVENTED"),
        (["INVALID_MUTATION"], BulkRefusedKind.INVALID, "INVALID_MUTATION"),
        (["INVALID_STAGED_UPLOAD_FILE"], BulkRefusedKind.INVALID, "INVALID_STAGED_UPLOAD_FILE"),
        (["INVALID"], BulkRefusedKind.INVALID, "INVALID"),
        ([None], BulkRefusedKind.INVALID, None),
        (["LIMIT_REACHED", "NO_SUCH_FILE", "OPERATION_IN_PROGRESS"], BulkRefusedKind.NO_FILE, "NO_SUCH_FILE"),
        (["LIMIT_REACHED", "INVALID_MUTATION"], BulkRefusedKind.INVALID, "INVALID_MUTATION"),
    ],
)
async def test_a_refusal_says_what_to_do(
    client: AdminClient,
    access: ShopAccess,
    server: ScriptedServer,
    *,
    codes: list[str | None],
    kind: BulkRefusedKind,
    code: str | None,
) -> None:
    errors = [error(one, "A bulk mutation is already in progress.") for one in codes]
    server.answer(started(None, *errors), started(None, *errors, name="bulkOperationRunQuery"))
    for start in (run(client, access), run_bulk_query(client, access, "{ customers }")):
        with pytest.raises(BulkRefused, match="already in progress") as caught:
            await start
        assert (caught.value.kind, caught.value.shopify_code) == (kind, code)
        assert caught.value.cost == Cost(10, 10)


@pytest.mark.parametrize(
    "document",
    [
        started(None),
        started(operation(), error("LIMIT_REACHED")),
        started({"id": GID}),
        started(operation(status="INVENTED")),
        started(operation(status=["CREATED"])),
        started(operation(type="SOMETHING")),
        answer({"bulkOperationRunMutation": {"bulkOperation": operation()}}),
        answer({"bulkOperationRunMutation": None}),
        answer({}),
    ],
)
async def test_an_answer_that_tells_neither_operation_nor_error_leaves_it_unknown(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, document: dict[str, Any]
) -> None:
    server.answer(document)
    with pytest.raises(OutcomeUnknown):
        await run(client, access)


async def test_the_failures_of_the_call_come_through(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, http: Any
) -> None:
    server.answer({"errors": [{"message": "Throttled", "extensions": {"code": "THROTTLED"}}]})
    with pytest.raises(Throttled):
        await run(client, access)
    nowhere = AdminClient(http, origin="http://127.0.0.1:1/{shop}", api_version="2026-10")
    with pytest.raises(Unreachable):
        await run(nowhere, access)


async def test_one_that_ended_tells_its_result_and_its_size(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    ended = operation(
        status="COMPLETED",
        completedAt="2026-11-22T12:00:03+01:00",
        objectCount="18446744073709551615",
        fileSize="189",
        url=SIGNED,
    )
    server.answer(answer({"bulkOperation": ended}, cost=1))
    found, cost = await get_bulk_operation(client, access, GID)
    assert found is not None
    assert (found.ended, found.result_url, found.file_size) == (True, SIGNED, 189)
    assert found.object_count == 2**64 - 1
    assert found.completed_at == datetime(2026, 11, 22, 11, 0, 3, tzinfo=UTC)
    assert cost == Cost(1, 1)
    assert server.received[0].variables == {"id": GID}
    assert "s3cret" not in repr(found)


@pytest.mark.parametrize("status", list(BulkStatus))
async def test_only_four_statuses_are_an_end(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, status: BulkStatus
) -> None:
    server.answer(answer({"bulkOperation": operation(status=status, partialDataUrl=SIGNED, errorCode="TIMEOUT")}))
    found, _ = await get_bulk_operation(client, access, GID)
    assert found is not None
    assert found.ended == (status in {"COMPLETED", "FAILED", "CANCELED", "EXPIRED"})
    assert (found.result_url, found.error_code) == (SIGNED, "TIMEOUT")


async def test_counts_and_times_that_are_odd_are_left_out(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    odd = operation(
        objectCount="many", fileSize="1" * 5000, createdAt="yesterday", completedAt=7, url=5, query="\ud800"
    )
    server.answer(answer({"bulkOperation": odd}))
    found, _ = await get_bulk_operation(client, access, GID)
    assert found is not None
    assert (found.object_count, found.file_size, found.url, found.query) == (0, None, None, None)
    assert (found.created_at, found.completed_at) == (None, None)


async def test_there_may_be_none_of_that_id(client: AdminClient, access: ShopAccess, server: ScriptedServer) -> None:
    server.answer(answer({"bulkOperation": None}))
    assert (await get_bulk_operation(client, access, GID))[0] is None
    server.answer(answer({}), answer({"bulkOperation": []}))
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            await get_bulk_operation(client, access, GID)


def page(*operations: Any, after: str | None = None) -> dict[str, Any]:
    paging = {"hasNextPage": after is not None, "endCursor": after or "end"}
    return answer({"bulkOperations": {"nodes": list(operations), "pageInfo": paging}}, cost=9)


async def find(client: AdminClient, access: ShopAccess) -> tuple[BulkOperation | None, Cost | None]:
    return await find_bulk_operation(client, access, kind="MUTATION", marker=MARKER, since=SINCE)


def at(minutes: float, **changes: Any) -> dict[str, Any]:
    return operation(createdAt=(SINCE + timedelta(minutes=minutes)).isoformat(), **changes)


async def test_the_one_with_the_marker_is_found_among_others(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(
        page(
            at(4, id="gid://shopify/BulkOperation/7", query=bulk_set_mutation(MARKER + "0")),
            at(3, id="gid://shopify/BulkOperation/6", query=bulk_set_mutation("x" + MARKER)),
            at(3, id="gid://shopify/BulkOperation/5", query=bulk_set_mutation(MARKER[:-1])),
            at(2, id="gid://shopify/BulkOperation/4", type="QUERY"),
            at(1, id="gid://shopify/BulkOperation/3", query=None),
            at(-4, id="gid://shopify/BulkOperation/2", status="RUNNING"),
            at(-10, id="gid://shopify/BulkOperation/1"),
        )
    )
    found, cost = await find(client, access)
    assert found is not None
    assert (found.id, found.status) == ("gid://shopify/BulkOperation/2", BulkStatus.RUNNING)
    assert cost == Cost(9, 9)
    assert server.received[0].variables == {
        "filter": "operation_type:mutation created_at:>=2026-11-21",
        "first": 50,
        "after": None,
    }


async def test_what_the_search_should_have_left_out_is_not_believed(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(page(at(1, type="QUERY"), at(-5.1), at(1, query="mutation Other { x }")))
    assert (await find(client, access))[0] is None


async def test_one_whose_time_cannot_be_read_is_known_by_its_marker(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(page(operation(createdAt=None)))
    assert (await find(client, access))[0] is not None


async def test_it_turns_pages_until_they_are_older(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    other = {"query": "mutation Other { x }"}
    server.answer(page(at(9, **other), at(8, **other), after="one"), page(at(7, **other), at(-6), after="two"))
    found, cost = await find(client, access)
    assert found is None
    assert cost == Cost(18, 18)
    assert [request.variables["after"] for request in server.received] == [None, "one"]


async def test_an_order_the_other_way_round_is_looked_through_to_its_end(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(page(at(-20), at(-10), after="one"), page(at(-9), at(1)))
    assert (await find(client, access))[0] is not None


@pytest.mark.parametrize(
    "document",
    [
        answer({}),
        answer({"bulkOperations": None}),
        answer({"bulkOperations": {"nodes": None, "pageInfo": {"hasNextPage": False}}}),
        answer({"bulkOperations": {"nodes": []}}),
        page({"id": GID}),
        page(operation(status="INVENTED")),
    ],
)
async def test_what_cannot_be_read_is_not_taken_for_nothing(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, document: dict[str, Any]
) -> None:
    server.answer(document)
    with pytest.raises(OutcomeUnknown):
        await find(client, access)


async def test_one_that_cannot_be_read_does_not_hide_ours(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(page(operation(status="INVENTED"), operation()))
    assert (await find(client, access))[0] is not None


async def test_a_list_without_end_is_given_up(client: AdminClient, access: ShopAccess, server: ScriptedServer) -> None:
    for number in range(FIND_BULK_PAGES_MAX):
        server.answer(page(at(1, query="mutation Other { x }"), after=str(number)))
    with pytest.raises(OutcomeUnknown, match="too many"):
        await find(client, access)
