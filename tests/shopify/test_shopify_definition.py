from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from metafield_sync.shopify import (
    ENSURE_COST_MAX,
    READ_DEFINITION_COST,
    AdminClient,
    Cost,
    DefinitionConflict,
    DefinitionRefused,
    DefinitionSpec,
    DefinitionState,
    EnsuredDefinition,
    OutcomeUnknown,
    ShopAccess,
    ensure_definition,
    read_definition,
)

if TYPE_CHECKING:
    from scripted_server import ScriptedServer

SPEC = DefinitionSpec("loyalty", "points_balance", "Points", "What a customer may spend.", "PUBLIC_READ")
GID = "gid://shopify/MetafieldDefinition/1"
IDENTIFIER = {"ownerType": "CUSTOMER", "namespace": "loyalty", "key": "points_balance"}
ACCESS = {"storefront": "PUBLIC_READ", "customerAccount": "READ"}


def definition(type_name: str = "number_integer", *, pinned: bool = True, **access: str | None) -> dict[str, Any]:
    return {
        "id": GID,
        "type": {"name": type_name},
        "access": ACCESS | access,
        "pinnedPosition": 1 if pinned else None,
    }


def answer(data: dict[str, Any], *, cost: int = 10) -> dict[str, Any]:
    status = {"maximumAvailable": 2000.0, "currentlyAvailable": 1990 - cost, "restoreRate": 100.0}
    spent = {"requestedQueryCost": cost, "actualQueryCost": cost, "throttleStatus": status}
    return {"data": data, "extensions": {"cost": spent}}


def created(found: dict[str, Any] | None, *errors: dict[str, Any]) -> dict[str, Any]:
    return answer({"metafieldDefinitionCreate": {"createdDefinition": found, "userErrors": list(errors)}})


def read(found: dict[str, Any] | None) -> dict[str, Any]:
    return answer({"metafieldDefinition": found}, cost=3)


def updated(found: dict[str, Any] | None, *errors: dict[str, Any]) -> dict[str, Any]:
    return answer({"metafieldDefinitionUpdate": {"updatedDefinition": found, "userErrors": list(errors)}})


def error(code: str | None, message: str = "no.") -> dict[str, Any]:
    return {"field": ["definition", "key"], "message": message, "code": code}


TAKEN = error("TAKEN", "Key is in use for Customer metafields on the 'loyalty' namespace.")
PIN_LIMIT = error("PINNED_LIMIT_REACHED", "Limit of 20 pinned definitions.")


async def ensure(client: AdminClient, access: ShopAccess) -> EnsuredDefinition:
    return await ensure_definition(client, access, SPEC)


async def test_it_is_created_pinned_readable_by_the_customer_and_without_admin_access(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(created(definition()))
    ensured = await ensure(client, access)
    assert (ensured.id, ensured.outcome, ensured.pinned, ensured.pin_limit_reached) == (
        GID,
        "created",
        True,
        False,
    )
    (request,) = server.received
    assert request.variables["definition"] == IDENTIFIER | {
        "name": "Points",
        "description": "What a customer may spend.",
        "type": "number_integer",
        "pin": True,
        "access": ACCESS,
    }


async def test_at_the_pin_limit_it_is_created_unpinned_and_says_so(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(created(None, PIN_LIMIT), created(definition(pinned=False)))
    ensured = await ensure(client, access)
    assert (ensured.outcome, ensured.pinned, ensured.pin_limit_reached) == ("created", False, True)
    assert [request.variables["definition"]["pin"] for request in server.received] == [True, False]


async def test_one_that_fits_is_left_as_it_is_pinned_or_not(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(created(None, TAKEN), read(definition(pinned=False)))
    ensured = await ensure(client, access)
    assert (ensured.id, ensured.outcome, ensured.pinned) == (GID, "unchanged", False)
    assert server.received[1].variables == {"identifier": IDENTIFIER}


@pytest.mark.parametrize(
    "found",
    [
        {"storefront": "NONE"},
        {"storefront": None},
        {"customerAccount": "NONE"},
        {"customerAccount": "READ_WRITE"},
    ],
)
async def test_another_access_is_updated_and_nothing_else_of_it(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, found: dict[str, Any]
) -> None:
    server.answer(created(None, TAKEN), read(definition(**found)), updated(definition()))
    ensured = await ensure(client, access)
    assert (ensured.outcome, ensured.pinned) == ("updated", True)
    assert server.received[2].variables == {"definition": IDENTIFIER | {"access": ACCESS}}


async def test_no_storefront_access_wanted_and_none_there_is_a_fit(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(created(None, TAKEN), read(definition(storefront=None)))
    spec = DefinitionSpec("loyalty", "points_balance", "Points", "", "NONE")
    assert (await ensure_definition(client, access, spec)).outcome == "unchanged"


async def test_another_type_is_a_conflict_that_names_it_and_both_cures(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(created(None, TAKEN), read(definition("single_line_text_field")))
    with pytest.raises(DefinitionConflict) as caught:
        await ensure(client, access)
    assert (caught.value.code, caught.value.found_type) == ("definition_conflict", "single_line_text_field")
    for part in ("loyalty.points_balance", "single_line_text_field", "number_integer", "METAFIELD_NAMESPACE"):
        assert part in caught.value.detail
    assert "Settings → Custom data → Customers" in caught.value.detail
    assert caught.value.cost == Cost(13, 13, 2000, 1987, 100)


async def test_taken_and_not_to_be_read_is_refused(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(created(None, TAKEN), read(None))
    with pytest.raises(DefinitionRefused, match="taken"):
        await ensure(client, access)


async def test_created_by_somebody_else_between_two_attempts_is_found(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(created(None, PIN_LIMIT), created(None, TAKEN), read(definition(pinned=False)))
    ensured = await ensure(client, access)
    assert (ensured.outcome, ensured.pinned) == ("unchanged", False)


@pytest.mark.parametrize("code", ["RESERVED_NAMESPACE_KEY", "RESOURCE_TYPE_LIMIT_EXCEEDED", None])
async def test_any_other_user_error_is_refused_with_shopifys_message(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, code: str | None
) -> None:
    server.answer(created(None, error(code, "Stores can only have 256 definitions.")))
    with pytest.raises(DefinitionRefused, match="Stores can only have 256 definitions") as caught:
        await ensure(client, access)
    assert caught.value.shopify_code == code
    assert caught.value.code == "definition_refused"


async def test_an_update_that_is_refused_says_so(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(created(None, TAKEN), read(definition(storefront="NONE")))
    server.answer(updated(None, error("APP_CONFIG_MANAGED", "Managed by app configuration.")))
    with pytest.raises(DefinitionRefused, match="Managed by app configuration"):
        await ensure(client, access)


@pytest.mark.parametrize(
    "document",
    [
        created(None),
        created({"id": GID}),
        {"data": {"metafieldDefinitionCreate": None}},
        {"data": {"metafieldDefinitionCreate": {"createdDefinition": []}}},
        {"data": {}},
    ],
)
async def test_an_answer_without_definition_and_without_error_leaves_the_outcome_unknown(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, document: dict[str, Any]
) -> None:
    server.answer(document)
    with pytest.raises(OutcomeUnknown):
        await ensure(client, access)


async def test_the_cost_of_all_calls_is_added_up_and_within_what_is_to_be_reserved(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(created(None, PIN_LIMIT), created(None, TAKEN))
    server.answer(read(definition(storefront="NONE")), updated(definition()))
    ensured = await ensure(client, access)
    assert ensured.cost == Cost(33, 33, 2000, 1980, 100)
    assert ENSURE_COST_MAX >= 33


async def test_a_cost_that_only_some_answers_tell_is_kept(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    silent = created(None, TAKEN)
    del silent["extensions"]
    server.answer(silent, read(definition()))
    assert (await ensure(client, access)).cost == Cost(3, 3, 2000, 1987, 100)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (None, DefinitionState(present=False, matches=False, differences=())),
        (definition(pinned=False), DefinitionState(present=True, matches=True, differences=())),
        (
            definition("json", storefront=None, customerAccount="READ_WRITE"),
            DefinitionState(
                present=True,
                matches=False,
                differences=(
                    "type is json instead of number_integer",
                    "storefront access is NONE instead of PUBLIC_READ",
                    "customer account access is READ_WRITE instead of READ",
                ),
            ),
        ),
    ],
)
async def test_looking_tells_what_differs_and_changes_nothing(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, found: Any, state: DefinitionState
) -> None:
    server.answer(read(found))
    assert await read_definition(client, access, SPEC) == (state, Cost(3, 3, 2000, 1987, 100))
    (request,) = server.received
    assert request.query.lstrip().startswith("query ")
    assert request.variables == {"identifier": IDENTIFIER}
    assert READ_DEFINITION_COST >= 3


@pytest.mark.parametrize("data", [{}, {"metafieldDefinition": []}, {"metafieldDefinition": {"id": GID}}])
async def test_an_answer_that_does_not_say_is_not_taken_for_none(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, data: dict[str, Any]
) -> None:
    server.answer(answer(data))
    with pytest.raises(OutcomeUnknown):
        await read_definition(client, access, SPEC)
