from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metafield_sync.shopify import (
    METAFIELDS_SET_MAX,
    AdminClient,
    Cost,
    MetafieldSpec,
    MetafieldWrite,
    OutcomeUnknown,
    QueryRefused,
    RefusalKind,
    SetResult,
    ShopAccess,
    Throttled,
    customer_gid,
    metafield_input,
    set_cost,
    set_metafields,
)

if TYPE_CHECKING:
    from scripted_server import ScriptedServer

SPEC = MetafieldSpec("loyalty", "points_balance")
TWO = [MetafieldWrite(1, 500, None), MetafieldWrite(2, -7, "digest-2")]
COST = {
    "cost": {
        "requestedQueryCost": 12,
        "actualQueryCost": 12,
        "throttleStatus": {"maximumAvailable": 2000.0, "currentlyAvailable": 1988, "restoreRate": 100.0},
    }
}


def answer(metafields: Any, *errors: Any) -> dict[str, Any]:
    payload = {"metafields": metafields, "userErrors": list(errors)}
    return {"data": {"metafieldsSet": payload}, "extensions": COST}


def error(field: Any, code: str | None = "INVALID_VALUE", message: str = "no") -> dict[str, Any]:
    return {"field": field, "message": message, "code": code, "elementIndex": None}


async def write(client: AdminClient, access: ShopAccess) -> SetResult:
    return await set_metafields(client, access, SPEC, TWO)


async def test_values_are_sent_as_whole_numbers_in_text_with_their_type(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(answer([{"value": "500"}, {"value": "-7"}]))
    result = await write(client, access)
    assert result.written
    assert result == SetResult(refused=(), cost=Cost(12, 12, 2000, 1988, 100))
    common = {"namespace": "loyalty", "key": "points_balance", "type": "number_integer"}
    assert server.received[0].variables == {
        "metafields": [
            {"ownerId": "gid://shopify/Customer/1", "value": "500", "compareDigest": None} | common,
            {"ownerId": "gid://shopify/Customer/2", "value": "-7", "compareDigest": "digest-2"} | common,
        ]
    }


async def test_no_digest_is_sent_as_null_since_a_key_left_out_would_compare_nothing(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(answer([{"value": "500"}, {"value": "-7"}]))
    await write(client, access)
    assert b'"compareDigest":null' in server.received[0].body


@given(st.builds(MetafieldWrite, st.integers(1, 2**63 - 1), st.integers(), st.none() | st.text()))
def test_every_input_names_its_digest_whatever_it_is(write: MetafieldWrite) -> None:
    made = metafield_input(SPEC, write)
    assert made == {
        "ownerId": customer_gid(write.customer_id),
        "namespace": "loyalty",
        "key": "points_balance",
        "type": "number_integer",
        "value": str(write.value),
        "compareDigest": write.digest,
    }


def written(customer_id: Any, value: str, digest: Any) -> dict[str, Any]:
    return {"value": value, "compareDigest": digest, "owner": {"id": f"gid://shopify/Customer/{customer_id}"}}


@pytest.mark.parametrize("step", [1, -1])
async def test_the_digests_for_the_next_write_are_told_by_owner_in_whatever_order(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, step: int
) -> None:
    server.answer(answer([written(1, "500", "new-1"), written(2, "-7", "new-2")][::step]))
    assert (await write(client, access)).digests == {1: "new-1", 2: "new-2"}


@pytest.mark.parametrize(
    "second",
    [
        {"value": "-7"},
        {"value": "-7", "compareDigest": "new-2"},
        {"value": "-7", "compareDigest": "new-2", "owner": None},
        {"value": "-7", "compareDigest": "new-2", "owner": {}},
        {"value": "-7", "compareDigest": "new-2", "owner": {"id": 2}},
        {"value": "-7", "compareDigest": "new-2", "owner": {"id": "gid://shopify/Product/2"}},
        written(2, "-7", None),
        written(2, "-7", 5),
        written(3, "-7", "new-3"),
    ],
)
async def test_a_digest_that_is_not_told_is_missing_and_no_error(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, second: Any
) -> None:
    server.answer(answer([written(1, "500", "new-1"), second]))
    result = await write(client, access)
    assert result.written
    assert result.digests == {1: "new-1"}


async def test_the_order_of_the_acknowledgement_does_not_matter(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(answer([{"value": "-7"}, {"value": "500"}]))
    assert (await write(client, access)).written


async def test_a_missing_owner_is_named_by_its_place_in_the_field_path(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(answer([], error(["metafields", "1", "ownerId"], message="Owner does not exist.")))
    result = await write(client, access)
    assert not result.written
    (refusal,) = result.refused
    assert (refusal.index, refusal.kind, refusal.code) == (1, RefusalKind.OWNER_GONE, "INVALID_VALUE")
    assert refusal.message == "Owner does not exist."
    assert refusal.field == ("metafields", "1", "ownerId")
    assert result.cost is not None


@pytest.mark.parametrize(
    ("field", "code", "index", "kind"),
    [
        (["metafields", "0", "value"], "INVALID_VALUE", 0, RefusalKind.OTHER),
        (["metafields", "0", "type"], "INVALID_TYPE", 0, RefusalKind.WRONG_TYPE),
        (["metafields", "0"], "INVALID_TYPE", 0, RefusalKind.WRONG_TYPE),
        (["metafields", "0", "type"], "BLANK", 0, RefusalKind.WRONG_TYPE),
        (["metafields", "0"], "STALE_OBJECT", 0, RefusalKind.CONFLICT),
        (["metafields", "1"], "INVALID_COMPARE_DIGEST", 1, RefusalKind.CONFLICT),
        (None, "STALE_OBJECT", None, RefusalKind.CONFLICT),
        (["metafields", "0"], "INTERNAL_ERROR", 0, RefusalKind.OTHER),
        (["metafields", "0"], None, 0, RefusalKind.OTHER),
        (["metafields"], "LESS_THAN_OR_EQUAL_TO", None, RefusalKind.OTHER),
        (["metafields", "2", "ownerId"], "INVALID_VALUE", None, RefusalKind.OWNER_GONE),
        (["metafields", "-1", "ownerId"], "INVALID_VALUE", None, RefusalKind.OWNER_GONE),
        (["metafields", "x", "value"], "INVALID_VALUE", None, RefusalKind.OTHER),
        (["metafields", "²", "value"], "INVALID_VALUE", None, RefusalKind.OTHER),
        (["metafields", "0" * 5000, "value"], "INVALID_VALUE", None, RefusalKind.OTHER),
        (["metafields", 1, "value"], "INVALID_VALUE", None, RefusalKind.OTHER),
        (["other", "0", "value"], "INVALID_VALUE", None, RefusalKind.OTHER),
        ([], "APP_NOT_AUTHORIZED", None, RefusalKind.OTHER),
        (None, "APP_NOT_AUTHORIZED", None, RefusalKind.OTHER),
        ("metafields", "INVALID", None, RefusalKind.OTHER),
    ],
)
async def test_a_refusal_is_read_from_code_and_field_path_and_an_unreadable_path_names_nobody(
    client: AdminClient,
    access: ShopAccess,
    server: ScriptedServer,
    *,
    field: Any,
    code: str | None,
    index: int | None,
    kind: RefusalKind,
) -> None:
    server.answer(answer(None, error(field, code)))
    (refusal,) = (await write(client, access)).refused
    assert (refusal.index, refusal.kind, refusal.code) == (index, kind, code)


async def test_the_element_index_names_nobody(client: AdminClient, access: ShopAccess, server: ScriptedServer) -> None:
    server.answer(answer([], error(["metafields"]) | {"elementIndex": 1}))
    (refusal,) = (await write(client, access)).refused
    assert refusal.index is None


async def test_every_error_of_a_refused_call_is_reported(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(answer([], error(["metafields", "0", "ownerId"]), error(["metafields", "1", "ownerId"])))
    assert [refusal.index for refusal in (await write(client, access)).refused] == [0, 1]


async def test_errors_that_are_no_errors_of_shopifys_still_refuse_the_call(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(answer(None, "no", None))
    assert [refusal.index for refusal in (await write(client, access)).refused] == [None, None]


@pytest.mark.parametrize(
    "document",
    [
        answer(None),
        answer([]),
        answer([{"value": "500"}]),
        answer([{"value": "500"}, {"value": "8"}]),
        answer([{"value": "500"}, {"value": "-7"}, {"value": "1"}]),
        answer([{"value": "500"}, None]),
        answer([{"value": "500"}, {}]),
        answer({"value": "500"}),
        answer([{"value": "500"}], error(["metafields", "1", "ownerId"])),
        answer(None, error(None, "INTERNAL_ERROR")),
        {"data": {"metafieldsSet": None}},
        {"data": {"metafieldsSet": {"metafields": [{"value": "500"}, {"value": "-7"}]}}},
        {"data": {}},
    ],
)
async def test_an_answer_that_fits_neither_success_nor_refusal_leaves_the_outcome_unknown(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, document: dict[str, Any]
) -> None:
    server.answer(document)
    with pytest.raises(OutcomeUnknown, match="written again") as caught:
        await write(client, access)
    assert (caught.value.cost is not None) == ("extensions" in document)


async def test_the_failures_of_the_call_come_through(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer({"errors": [{"message": "Throttled", "extensions": {"code": "THROTTLED"}}]})
    with pytest.raises(Throttled):
        await write(client, access)
    server.answer({"errors": [{"message": "invalid id", "extensions": {"code": "INVALID_VARIABLE"}}]})
    with pytest.raises(QueryRefused):
        await write(client, access)


@pytest.mark.parametrize("count", [0, METAFIELDS_SET_MAX + 1])
async def test_too_few_and_too_many_are_never_sent(client: AdminClient, access: ShopAccess, count: int) -> None:
    writes = [MetafieldWrite(number, 0, None) for number in range(1, count + 1)]
    with pytest.raises(ValueError, match=f"1 to {METAFIELDS_SET_MAX}"):
        await set_metafields(client, access, SPEC, writes)


async def test_one_customer_twice_is_never_sent(client: AdminClient, access: ShopAccess) -> None:
    with pytest.raises(ValueError, match="each customer once"):
        await set_metafields(client, access, SPEC, [MetafieldWrite(1, 1, None), MetafieldWrite(1, 2, None)])


def test_a_call_costs_its_base_and_one_point_a_customer() -> None:
    assert [set_cost(count) for count in (1, 25)] == [11, 35]
