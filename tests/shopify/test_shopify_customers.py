from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from metafield_sync.shopify import (
    READ_METAFIELDS_MAX,
    AdminClient,
    MetafieldSpec,
    OutcomeUnknown,
    ShopAccess,
    ShownMetafield,
    customer_gid,
    read_metafields,
    read_metafields_cost,
)

if TYPE_CHECKING:
    from scripted_server import ScriptedServer

SPEC = MetafieldSpec("loyalty", "points_balance")


def node(number: int, metafield: Any) -> dict[str, Any]:
    return {"id": customer_gid(number), "metafield": metafield}


def shown(value: Any = "5", kind: Any = "number_integer", digest: Any = "d") -> dict[str, Any]:
    return {"value": value, "type": kind, "compareDigest": digest}


async def test_it_asks_for_the_one_metafield_of_the_customers_named(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer({"data": {"nodes": [node(1, shown()), None]}})
    await read_metafields(client, access, SPEC, [1, 2, 1])
    assert server.received[0].variables == {
        "ids": ["gid://shopify/Customer/1", "gid://shopify/Customer/2"],
        "namespace": "loyalty",
        "key": "points_balance",
    }


async def test_who_is_gone_is_left_out_and_who_has_no_value_maps_to_none(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer({"data": {"nodes": [node(3, None), None, node(1, shown("-12", digest="abc"))]}})
    found, cost = await read_metafields(client, access, SPEC, [1, 2, 3])
    assert found == {1: ShownMetafield("-12", "number_integer", "abc"), 3: None}
    assert cost is None


@pytest.mark.parametrize(
    "nodes",
    [
        None,
        {},
        [],
        [None],
        [None, None, None],
        [node(1, None), node(1, None)],
        [node(1, None), node(9, None)],
        [node(1, None), {}],
        [node(1, None), "gone"],
        [node(1, None), {"id": customer_gid(2)}],
        [node(1, None), {"id": "gid://shopify/Product/2", "metafield": None}],
        [node(1, None), node(2, "5")],
        [node(1, None), node(2, shown(5))],
        [node(1, None), node(2, shown(kind=None))],
        [node(1, None), node(2, shown(digest=None))],
    ],
)
async def test_nobody_is_taken_for_gone_or_empty_on_an_answer_that_is_not_about_them(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, nodes: Any
) -> None:
    server.answer({"data": {"nodes": nodes}})
    with pytest.raises(OutcomeUnknown, match="not about the customers"):
        await read_metafields(client, access, SPEC, [1, 2])


async def test_too_many_are_never_asked_for(client: AdminClient, access: ShopAccess) -> None:
    with pytest.raises(ValueError, match=f"up to {READ_METAFIELDS_MAX}"):
        await read_metafields(client, access, SPEC, range(1, READ_METAFIELDS_MAX + 2))


def test_reading_costs_at_most_two_points_a_customer_and_a_full_call_fits() -> None:
    assert [read_metafields_cost(count) for count in (0, 1, READ_METAFIELDS_MAX)] == [1, 3, 501]


@pytest.mark.parametrize(
    ("value", "kind", "balance"),
    [
        ("0", "number_integer", 0),
        ("-7", "number_integer", -7),
        ("9007199254740991", "number_integer", 2**53 - 1),
        ("-9007199254740991", "number_integer", -(2**53) + 1),
        ("9007199254740992", "number_integer", None),
        ("9" * 5000, "number_integer", None),
        ("5", "number_decimal", None),
        ("5", "single_line_text_field", None),
        ("5.0", "number_integer", None),
        ("+5", "number_integer", None),
        (" 5", "number_integer", None),
        ("5\n", "number_integer", None),
        ("1_000", "number_integer", None),
        ("٣", "number_integer", None),
        ("", "number_integer", None),
        ("hello", "number_integer", None),
    ],
)
async def test_only_a_whole_number_of_the_right_type_and_size_is_a_balance(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, *, value: str, kind: str, balance: int | None
) -> None:
    server.answer({"data": {"nodes": [node(1, shown(value, kind))]}})
    found, _ = await read_metafields(client, access, SPEC, [1])
    assert found[1] is not None
    assert found[1].as_balance() == balance
