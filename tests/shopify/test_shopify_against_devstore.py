"""The same calls against the devstore, over HTTP and on the clock: what the scripted answers only claim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from scripted_server import DOMAIN, TOKEN

from devstore import DevStore, Fault, FaultAnswer, FaultApply, ShopSpec, ShopState
from metafield_sync.shopify import (
    METAFIELDS_SET_MAX,
    READ_DEFINITION_COST,
    READ_METAFIELDS_MAX,
    AdminClient,
    Budget,
    DefinitionConflict,
    DefinitionSpec,
    MetafieldSpec,
    MetafieldWrite,
    OutcomeUnknown,
    QueryRefused,
    RefusalKind,
    ShopAccess,
    ShopRefused,
    Throttled,
    ensure_definition,
    read_definition,
    read_metafields,
    read_metafields_cost,
    set_cost,
    set_metafields,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

SPEC = MetafieldSpec("loyalty", "points_balance")
DEFINITION = DefinitionSpec("loyalty", "points_balance", "Points", "What a customer may spend.", "PUBLIC_READ")
ALL = [MetafieldWrite(number, number * 100, None) for number in range(1, METAFIELDS_SET_MAX + 1)]
CREATE = """mutation M($d: MetafieldDefinitionInput!) {
  metafieldDefinitionCreate(definition: $d) { userErrors { message } }
}"""


@pytest.fixture
async def store() -> AsyncIterator[DevStore]:
    async with DevStore([ShopSpec(DOMAIN, TOKEN, customers=METAFIELDS_SET_MAX)]) as running:
        yield running


@pytest.fixture
async def client(http: httpx.AsyncClient, store: DevStore) -> AdminClient:
    return AdminClient(http, origin=store.admin_origin, api_version="2026-10")


async def stored(client: AdminClient, access: ShopAccess) -> dict[int, int | None]:
    shown, _ = await read_metafields(client, access, SPEC, [write.customer_id for write in ALL])
    return {number: metafield and metafield.as_balance() for number, metafield in shown.items()}


async def define(client: AdminClient, access: ShopAccess, **changes: Any) -> None:
    given = {"ownerType": "CUSTOMER", "namespace": "loyalty", "name": "N", "type": "number_integer"} | changes
    answer = await client.call(access, CREATE, {"d": given})
    assert answer.data["metafieldDefinitionCreate"]["userErrors"] == []


async def test_25_customers_are_written_in_one_call_of_35_points(client: AdminClient, access: ShopAccess) -> None:
    result = await set_metafields(client, access, SPEC, ALL)
    assert result.written
    assert result.cost is not None
    assert result.cost.charged == set_cost(len(ALL)) == 35
    assert await stored(client, access) == {write.customer_id: write.value for write in ALL}


async def test_one_missing_owner_is_named_and_nobody_is_written(
    client: AdminClient, access: ShopAccess, store: DevStore
) -> None:
    store.shop(DOMAIN).delete_customer(7)
    result = await set_metafields(client, access, SPEC, ALL)
    assert [(refusal.index, refusal.kind) for refusal in result.refused] == [(6, RefusalKind.OWNER_GONE)]
    assert set((await stored(client, access)).values()) == {None}
    rest = [write for write in ALL if write.customer_id != 7]
    assert (await set_metafields(client, access, SPEC, rest)).written


async def test_the_digests_of_one_write_let_the_next_through_and_no_other(
    client: AdminClient, access: ShopAccess
) -> None:
    first = await set_metafields(client, access, SPEC, ALL[:2])
    assert first.digests.keys() == {1, 2}
    again = [MetafieldWrite(1, 7, first.digests[1]), MetafieldWrite(2, 8, first.digests[2])]
    assert (await set_metafields(client, access, SPEC, again)).written
    late = [MetafieldWrite(1, 9, first.digests[1]), MetafieldWrite(2, 9, None), MetafieldWrite(3, 9, "0" * 64)]
    result = await set_metafields(client, access, SPEC, late)
    assert [(refusal.index, refusal.kind, refusal.code) for refusal in result.refused] == [
        (0, RefusalKind.CONFLICT, "STALE_OBJECT"),
        (1, RefusalKind.CONFLICT, "STALE_OBJECT"),
        (2, RefusalKind.CONFLICT, "INVALID_COMPARE_DIGEST"),
    ]
    shown, _ = await read_metafields(client, access, SPEC, [1, 2, 3])
    assert shown[3] is None
    fresh = [MetafieldWrite(number, 9, one and one.digest) for number, one in shown.items()]
    assert (await set_metafields(client, access, SPEC, fresh)).written
    assert list((await stored(client, access)).values())[:4] == [9, 9, 9, None]


async def test_reading_back_tells_gone_from_absent_and_a_foreign_value_from_a_balance(
    client: AdminClient, access: ShopAccess, store: DevStore
) -> None:
    await set_metafields(client, access, SPEC, ALL[:1])
    await define(client, access, key="other", type="single_line_text_field")
    store.shop(DOMAIN).delete_customer(2)
    shown, cost = await read_metafields(client, access, SPEC, [1, 2, 3, 99])
    assert {number: one and one.value for number, one in shown.items()} == {1: "100", 3: None}
    assert cost is not None
    assert cost.requested is not None
    assert cost.requested <= read_metafields_cost(4)


async def test_a_full_read_is_rated_below_its_estimate_and_below_what_one_call_may_ask(
    client: AdminClient, access: ShopAccess
) -> None:
    shown, cost = await read_metafields(client, access, SPEC, range(1, READ_METAFIELDS_MAX + 1))
    assert shown == dict.fromkeys(range(1, METAFIELDS_SET_MAX + 1))
    assert cost is not None
    assert cost.requested is not None
    assert cost.requested <= read_metafields_cost(READ_METAFIELDS_MAX) < 1000


async def test_looking_at_the_definition_tells_what_ensuring_would_change(
    client: AdminClient, access: ShopAccess
) -> None:
    state, cost = await read_definition(client, access, DEFINITION)
    assert (state.present, state.matches) == (False, False)
    await define(client, access, key="points_balance")
    state, cost = await read_definition(client, access, DEFINITION)
    assert (state.present, state.matches, len(state.differences)) == (True, False, 2)
    assert cost is not None
    assert cost.requested is not None
    assert cost.requested <= READ_DEFINITION_COST
    await ensure_definition(client, access, DEFINITION)
    assert (await read_definition(client, access, DEFINITION))[0].matches


async def test_a_definition_of_another_type_refuses_the_write_as_such(client: AdminClient, access: ShopAccess) -> None:
    await define(client, access, key="points_balance", type="single_line_text_field")
    result = await set_metafields(client, access, SPEC, ALL[:1])
    assert [(refusal.index, refusal.kind) for refusal in result.refused] == [(0, RefusalKind.WRONG_TYPE)]


async def test_the_definition_is_created_once_and_found_ever_after(client: AdminClient, access: ShopAccess) -> None:
    first = await ensure_definition(client, access, DEFINITION)
    again = await ensure_definition(client, access, DEFINITION)
    assert (first.outcome, first.pinned) == ("created", True)
    assert (again.outcome, again.pinned, again.id) == ("unchanged", True, first.id)


async def test_the_access_of_an_existing_definition_is_put_right_once(client: AdminClient, access: ShopAccess) -> None:
    await define(client, access, key="points_balance")
    outcomes = [(await ensure_definition(client, access, DEFINITION)).outcome for _ in range(2)]
    assert outcomes == ["updated", "unchanged"]


async def test_a_definition_of_another_type_is_a_conflict(client: AdminClient, access: ShopAccess) -> None:
    await define(client, access, key="points_balance", type="json")
    with pytest.raises(DefinitionConflict) as caught:
        await ensure_definition(client, access, DEFINITION)
    assert caught.value.found_type == "json"


async def test_past_the_pin_limit_the_definition_is_created_unpinned(client: AdminClient, access: ShopAccess) -> None:
    for number in range(20):
        await define(client, access, key=f"pinned_{number}", pin=True)
    ensured = await ensure_definition(client, access, DEFINITION)
    assert (ensured.outcome, ensured.pinned, ensured.pin_limit_reached) == ("created", False, True)


async def test_a_wrong_token_and_a_frozen_shop_are_told_apart(
    client: AdminClient, access: ShopAccess, store: DevStore
) -> None:
    with pytest.raises(ShopRefused) as caught:
        await set_metafields(client, ShopAccess(DOMAIN, "shpat_another_token"), SPEC, ALL)
    assert caught.value.reason == "access_token_refused"
    shop = store.shop(DOMAIN)
    shop.change(token=TOKEN, plan=shop.budget.plan, state=ShopState.FROZEN)
    with pytest.raises(ShopRefused) as caught:
        await set_metafields(client, access, SPEC, ALL)
    assert caught.value.reason == "shop_frozen"


async def test_a_throttled_call_is_told_what_the_bucket_holds_and_writes_nothing(
    client: AdminClient, access: ShopAccess, store: DevStore
) -> None:
    store.shop(DOMAIN).budget.spend_elsewhere(2000)
    with pytest.raises(Throttled) as caught:
        await set_metafields(client, access, SPEC, ALL)
    assert caught.value.cost is not None
    assert caught.value.cost.requested == 35
    assert caught.value.cost.currently_available is not None
    assert caught.value.cost.currently_available < 35


@pytest.mark.parametrize(
    "fault",
    [
        Fault(FaultAnswer.STATUS, FaultApply.FIRST, status=504),
        Fault(FaultAnswer.DROP, FaultApply.FIRST),
        Fault(FaultAnswer.GARBAGE, FaultApply.FIRST),
    ],
    ids=lambda fault: fault.answer,
)
async def test_an_answer_lost_after_the_write_leaves_the_outcome_unknown(
    client: AdminClient, access: ShopAccess, store: DevStore, fault: Fault
) -> None:
    store.world.faults.add(fault)
    with pytest.raises(OutcomeUnknown):
        await set_metafields(client, access, SPEC, ALL[:1])
    assert (await stored(client, access))[1] == 100


async def test_a_document_that_does_not_validate_is_a_refused_query(client: AdminClient, access: ShopAccess) -> None:
    with pytest.raises(QueryRefused):
        await client.call(access, "query Q { nothing }", {})


async def test_a_full_bucket_is_spent_down_and_never_throttled(
    client: AdminClient, access: ShopAccess, store: DevStore
) -> None:
    budget = Budget()
    store.shop(DOMAIN).budget.spend_elsewhere(1900)
    calls = 6
    for _ in range(calls):
        reservation = await budget.acquire(set_cost(len(ALL)))
        result = await set_metafields(client, access, SPEC, ALL)
        budget.settle(reservation, result.cost)
    assert budget.snapshot().known
    assert budget.snapshot().available < 35
