"""Bulk mutations over real HTTP: lines, their order, their results, and how operations end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from devstore_support import BULK_SET, CANCEL, DOMAIN, SET, BulkClient, entry, gid, one_each

from devstore import BulkStatus, CanceledResult

if TYPE_CHECKING:
    from devstore import ManualClock

POINTS = f"/shops/{DOMAIN}/metafields?namespace=loyalty&key=points_balance"


async def test_each_line_is_executed_and_answered_under_its_number(bulk: BulkClient) -> None:
    started = await bulk.run(await bulk.upload(*one_each(1, 2, 3)))
    assert started["userErrors"] == []
    created = started["bulkOperation"]
    assert (created["status"], created["type"], created["query"]) == ("CREATED", "MUTATION", BULK_SET)
    assert (created["objectCount"], created["rootObjectCount"], created["url"]) == ("0", "0", None)
    ended = await bulk.finish(created["id"])
    assert (ended["status"], ended["errorCode"], ended["partialDataUrl"]) == ("COMPLETED", None, None)
    assert (ended["objectCount"], ended["rootObjectCount"]) == ("3", "3")
    assert ended["createdAt"] == ended["completedAt"] == "2026-01-01T00:00:00Z"
    lines = {line["__lineNumber"]: line for line in await bulk.lines(ended["url"])}
    assert sorted(lines) == [0, 1, 2]
    for number, customer in enumerate((1, 2, 3)):
        payload = lines[number]["data"]["metafieldsSet"]
        assert payload["userErrors"] == []
        assert (payload["metafields"][0]["value"], payload["metafields"][0]["owner"]["id"]) == ("5", gid(customer))
    assert await bulk.remote.control("GET", POINTS) == {"1": "5", "2": "5", "3": "5"}


async def test_the_file_is_written_as_recorded(bulk: BulkClient) -> None:
    ended = await bulk.finish(await bulk.start({"m": [entry(1)]}, mutation=SET))
    answer = await bulk.remote.http.get(ended["url"])
    assert answer.headers["content-type"] == "application/jsonl"
    assert str(len(answer.content)) == ended["fileSize"]
    text = answer.text
    assert text.startswith('{"data":{"metafieldsSet":{"metafields":[{"id":"gid:\\/\\/shopify\\/Metafield\\/')
    assert text.endswith('"userErrors":[]}},"__lineNumber":0}\n')


async def test_lines_are_executed_and_written_in_an_order_drawn_from_the_seed(bulk: BulkClient) -> None:
    async def order(seed: int) -> list[int]:
        bulk.bulk.settings.seed = seed
        bulk.bulk.operations.clear()
        ended = await bulk.finish(await bulk.start(*one_each(*range(1, 31))))
        return [line["__lineNumber"] for line in await bulk.lines(ended["url"])]

    first, again, other = [await order(1), await order(1), await order(2)]
    assert sorted(first) == list(range(30)) == sorted(other)
    assert first == again
    assert list(range(30)) != first != other


async def test_the_last_line_that_is_executed_wins_not_the_last_of_the_file(bulk: BulkClient) -> None:
    values = [str(number) for number in range(20)]
    ended = await bulk.finish(await bulk.start(*({"m": [entry(1, value)]} for value in values)))
    last = (await bulk.lines(ended["url"]))[-1]
    assert await bulk.remote.control("GET", POINTS) == {"1": values[last["__lineNumber"]]}


async def test_an_operation_is_completed_when_every_line_has_user_errors(bulk: BulkClient) -> None:
    ended = await bulk.finish(await bulk.start(*one_each(901, 902)))
    assert (ended["status"], ended["objectCount"]) == ("COMPLETED", "2")
    for line in await bulk.lines(ended["url"]):
        payload = line["data"]["metafieldsSet"]
        assert payload["metafields"] == []
        (error,) = payload["userErrors"]
        assert (error["field"], error["code"]) == (["metafields", "0", "ownerId"], "INVALID_VALUE")


async def test_a_line_is_atomic_and_the_others_are_not_touched_by_it(bulk: BulkClient) -> None:
    both = {"m": [entry(1), entry(901)]}
    too_many = {"m": [entry(2, str(number)) for number in range(26)]}
    ended = await bulk.finish(await bulk.start(both, too_many, *one_each(3)))
    errors = {
        line["__lineNumber"]: [error["code"] for error in line["data"]["metafieldsSet"]["userErrors"]]
        for line in await bulk.lines(ended["url"])
    }
    assert errors == {0: ["INVALID_VALUE"], 1: ["LESS_THAN_OR_EQUAL_TO"], 2: []}
    assert await bulk.remote.control("GET", POINTS) == {"3": "5"}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ({"m": [{"namespace": "loyalty"}]}, "INVALID_VARIABLE"),
        ({}, "INVALID_VARIABLE"),
        ({"m": [entry(ownerId="gid://shopify/Unheard/1")]}, "RESOURCE_NOT_FOUND"),
        (b"{", None),
        (b"[]", None),
        (b'{"m": "\xff"}', None),
        (b'{"m": [{"value": "\\ud800"}]}', None),
    ],
)
async def test_a_line_that_cannot_be_executed_has_errors(bulk: BulkClient, line: Any, code: str | None) -> None:
    ended = await bulk.finish(await bulk.start(line, *one_each(2)))
    assert (ended["status"], ended["objectCount"]) == ("COMPLETED", "2")
    failed, good = sorted(await bulk.lines(ended["url"]), key=lambda one: one["__lineNumber"])
    assert failed["errors"][0].get("extensions", {}).get("code") == code
    assert failed.get("data", {"metafieldsSet": None}) == {"metafieldsSet": None}
    assert good["data"]["metafieldsSet"]["userErrors"] == []


async def test_blank_lines_are_skipped_and_counted_in_the_numbers(bulk: BulkClient) -> None:
    first, second = one_each(1, 2)
    ended = await bulk.finish(await bulk.start(b"", first, b"  ", second))
    assert ended["objectCount"] == "2"
    assert {line["__lineNumber"] for line in await bulk.lines(ended["url"])} == {1, 3}


async def test_calls_cost_as_recorded_and_lines_cost_nothing(bulk: BulkClient) -> None:
    path = await bulk.upload(*one_each(*range(1, 31)))
    gid = (await bulk.run(path))["bulkOperation"]["id"]
    await bulk.finish(gid)
    await bulk.data(CANCEL, id=gid)
    await bulk.export("{ customers { edges { node { id } } } }")
    calls = await bulk.remote.control("GET", "/calls")
    costs = {call["operation"]: (call["requested"], call["actual"]) for call in calls}
    assert costs == {
        "stagedUploadsCreate": (11, 11),
        "upload": (None, None),
        "bulkOperationRunMutation": (10, 10),
        "bulkOperation": (1, 1),
        "bulkOperationCancel": (10, 10),
        "bulkOperationRunQuery": (10, 10),
    }
    assert bulk.store.shop(DOMAIN).budget.spent_points == 11 + 10 + 1 + 10 + 10


async def test_it_waits_before_it_starts_and_goes_at_a_pace(bulk: BulkClient) -> None:
    bulk.bulk.settings.start_delay_ms = 3_600_000
    first = await bulk.start(*one_each(*range(1, 31)))
    assert (await bulk.poll(first))["status"] == "CREATED"
    bulk.bulk.settings.start_delay_ms = 0
    bulk.bulk.settings.lines_per_s = 50
    operation = await bulk.until(first, 1)
    polled = await bulk.poll(first)
    assert (polled["status"], polled["objectCount"] != "0", polled["url"]) == ("RUNNING", True, None)
    assert 0 < operation.executed < operation.lines == 30
    bulk.bulk.settings.lines_per_s = None
    assert (await bulk.finish(first))["objectCount"] == "30"


async def test_nothing_moves_while_it_is_paused(bulk: BulkClient) -> None:
    bulk.bulk.settings.paused = True
    gid = await bulk.start(*one_each(1))
    assert (await bulk.poll(gid))["status"] == "CREATED"
    canceled = await bulk.data(CANCEL, id=gid)
    assert (canceled["bulkOperation"]["status"], canceled["userErrors"]) == ("CANCELING", [])
    # Asking again changes nothing.
    assert (await bulk.data(CANCEL, id=gid))["userErrors"] == []
    assert (await bulk.poll(gid))["status"] == "CANCELING"
    bulk.bulk.settings.paused = False
    ended = await bulk.finish(gid)
    assert (ended["status"], ended["url"], ended["partialDataUrl"]) == ("CANCELED", None, None)
    assert await bulk.remote.control("GET", POINTS) == {}


@pytest.mark.parametrize("shown", CanceledResult)
async def test_a_canceled_operation_keeps_what_it_did(bulk: BulkClient, shown: CanceledResult) -> None:
    bulk.bulk.settings.canceled_result = shown
    bulk.bulk.settings.lines_per_s = 50
    gid = await bulk.start(*one_each(*range(1, 31)))
    await bulk.until(gid, 2)
    await bulk.data(CANCEL, id=gid)
    ended = await bulk.finish(gid)
    assert (ended["status"], ended["completedAt"], ended["fileSize"]) == ("CANCELED", None, None)
    assert 0 < int(ended["objectCount"]) < 30
    written = await bulk.remote.control("GET", POINTS)
    assert len(written) == int(ended["objectCount"])
    addresses = {name: ended[name] for name in ("url", "partialDataUrl") if ended[name] is not None}
    assert list(addresses) == ([] if shown is CanceledResult.NONE else [shown.value])
    for url in addresses.values():
        assert {str(1 + line["__lineNumber"]) for line in await bulk.lines(url)} == set(written)


async def test_an_operation_that_has_ended_cannot_be_canceled(bulk: BulkClient) -> None:
    gid = await bulk.start(*one_each(1))
    await bulk.finish(gid)
    payload = await bulk.data(CANCEL, id=gid)
    assert payload["bulkOperation"]["status"] == "COMPLETED"
    message = "A bulk operation cannot be canceled when it is completed"
    assert payload["userErrors"] == [{"field": None, "message": message}]


async def test_an_unknown_operation_cannot_be_canceled(bulk: BulkClient) -> None:
    payload = await bulk.data(CANCEL, id="gid://shopify/BulkOperation/0")
    assert payload["bulkOperation"] is None
    assert payload["userErrors"] == [{"field": ["id"], "message": "Bulk operation does not exist"}]


@pytest.mark.parametrize(("status", "code"), [("FAILED", "TIMEOUT"), ("EXPIRED", None), ("CANCELED", None)])
async def test_an_operation_that_is_ended_from_outside_has_a_partial_result(
    bulk: BulkClient, status: str, code: str | None
) -> None:
    bulk.bulk.settings.lines_per_s = 50
    gid = await bulk.start(*one_each(*range(1, 31)))
    operation = await bulk.until(gid, 2)
    path = f"/shops/{DOMAIN}/bulk/{operation.number}/fail"
    await bulk.remote.control("POST", path, status=status, errorCode=code)
    ended = await bulk.poll(gid)
    assert (ended["status"], ended["errorCode"], ended["completedAt"]) == (status, code, None)
    assert (ended["url"], ended["fileSize"]) == (None, None)
    assert (
        len(await bulk.lines(ended["partialDataUrl"]))
        == operation.executed
        == len(await bulk.remote.control("GET", POINTS))
    )


async def test_a_paused_operation_can_be_ended_too(bulk: BulkClient) -> None:
    bulk.bulk.settings.paused = True
    gid = await bulk.start(*one_each(1))
    bulk.bulk.fail(bulk.operation(gid), BulkStatus.FAILED, "INTERNAL_SERVER_ERROR")
    ended = await bulk.finish(gid)
    assert (ended["status"], ended["partialDataUrl"]) == ("FAILED", None)


async def test_a_result_that_expires_is_gone(bulk: BulkClient) -> None:
    gid = await bulk.start(*one_each(1))
    url = (await bulk.finish(gid))["url"]
    path = f"/shops/{DOMAIN}/bulk/{bulk.operation(gid).number}/fail"
    await bulk.remote.control("POST", path, status="EXPIRED")
    ended = await bulk.poll(gid)
    assert (ended["status"], ended["url"], ended["partialDataUrl"]) == ("EXPIRED", None, None)
    answer = await bulk.remote.http.get(url)
    assert (answer.status_code, "<Code>ExpiredToken</Code>" in answer.text) == (400, True)


async def test_lost_lines_were_executed(bulk: BulkClient) -> None:
    bulk.bulk.settings.drop_line_rate = 0.5
    gid = await bulk.start(*one_each(*range(1, 31)))
    ended = await bulk.finish(gid)
    lines = await bulk.lines(ended["url"])
    operation = bulk.operation(gid)
    assert (ended["status"], ended["objectCount"]) == ("COMPLETED", "30")
    assert 0 < operation.dropped == 30 - len(lines) < 30
    assert len(await bulk.remote.control("GET", POINTS)) == 30


async def test_without_a_single_line_of_output_there_is_no_url(bulk: BulkClient) -> None:
    bulk.bulk.settings.drop_line_rate = 1
    ended = await bulk.finish(await bulk.start(*one_each(1)))
    assert (ended["status"], ended["url"], ended["fileSize"]) == ("COMPLETED", None, None)


async def test_a_file_that_is_changed_before_it_is_read_fails_the_operation(bulk: BulkClient) -> None:
    bulk.bulk.settings.paused = True
    target = await bulk.stage()
    await bulk.send(target, b'{"m": []}\n')
    gid = (await bulk.run(target["fields"]["key"]))["bulkOperation"]["id"]
    await bulk.send(target, b'{"m": [], "other": 1}\n')
    bulk.bulk.settings.paused = False
    ended = await bulk.finish(gid)
    assert (ended["status"], ended["errorCode"]) == ("FAILED", "INTERNAL_SERVER_ERROR")


async def test_calls_are_answered_while_thousands_of_lines_are_executed(bulk: BulkClient) -> None:
    gid = await bulk.start(*({"m": [entry(1 + number % 30, str(number))]} for number in range(2_000)))
    polled = 0
    while (await bulk.poll(gid))["status"] in {"CREATED", "RUNNING"}:
        polled += 1
    assert polled > 10


async def test_operations_tell_whom_they_write_and_when(bulk: BulkClient, clock: ManualClock) -> None:
    first = bulk.operation(await bulk.start(*one_each(1, 2)))
    await bulk.bulk.settle()
    clock.advance(1)
    second = bulk.operation(await bulk.start(*one_each(2, 3)))
    await bulk.bulk.settle()
    assert first.owners() == {gid(1), gid(2)}
    assert first.ended_s is not None
    assert first.started_s <= first.ended_s < second.started_s
    path = f"/shops/{DOMAIN}/bulk/{second.number}/owners"
    assert await bulk.remote.control("GET", path) == [gid(2), gid(3)]


async def test_two_mutations_of_a_document_and_every_operation_have_numbers_of_their_own(bulk: BulkClient) -> None:
    path = await bulk.upload(*one_each(1))
    ids = {(await bulk.run(path))["bulkOperation"]["id"] for _ in range(3)}
    assert len(ids) == 3
    await bulk.bulk.settle()
    for one in ids:
        assert (await bulk.poll(one))["status"] == "COMPLETED"
        node = await bulk.data("query N($id:ID!){ node(id:$id){ id ... on BulkOperation { status } } }", id=one)
        assert node == {"id": one, "status": "COMPLETED"}
