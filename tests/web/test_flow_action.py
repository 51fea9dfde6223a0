"""`POST /flow/adjust-points` over a real server: a workflow's step moves points once, or says why not."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from app_calls import DOMAIN, FOREIGN_SECRET, OLD_SECRET, SECRET, run_flow

from devstore.signing import body_signature
from metafield_sync.ledger.posting import POINTS_MAX
from metafield_sync.shops.registry import add_shop, remove_shop

if TYPE_CHECKING:
    import psycopg

    from conftest import Api

GIVEN = {"customer_id": "7", "points": "10"}


async def entries(api: Api, shopify_customer_id: int = 7) -> list[dict[str, Any]]:
    """The customer's ledger, newest first."""
    asked = await api.http.get(f"/api/customers?shopifyCustomerId={shopify_customer_id}")
    return [
        entry
        for customer in asked.json()["customers"]
        for entry in (await api.http.get(f"/api/customers/{customer['id']}/ledger")).json()["entries"]
    ]


async def test_a_step_adjusts_the_points_and_says_the_balance(api: Api) -> None:
    answer = await run_flow(api.anonymous, {**GIVEN, "note": "birthday of Ada"})
    assert (answer.status_code, answer.json()) == (200, {"message": "Points adjusted", "balance": 10})
    (entry,) = await entries(api)
    shown = {name: entry[name] for name in ("amount", "reason", "externalId", "actor", "metadata")}
    assert shown == {
        "amount": 10,
        "reason": "flow_adjustment",
        "externalId": "flow/run-1",
        "actor": "flow",
        "metadata": {"note": "birthday of Ada"},
    }


async def test_what_staff_typed_stands_beside_the_entry_and_not_in_it(api: Api, owner: psycopg.Connection) -> None:
    await run_flow(api.anonymous, {**GIVEN, "note": "birthday of Ada", "reason": "for Ada"})
    (row,) = owner.execute("select e::text from ledger_entries e").fetchall()
    assert "Ada" not in row[0]


async def test_a_run_that_comes_again_is_done_and_changes_nothing(api: Api) -> None:
    answers = await asyncio.gather(*(run_flow(api.anonymous, GIVEN) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    messages = sorted(answer.json()["message"] for answer in answers)
    assert messages == ["Points adjusted"] + ["Points were adjusted before"] * 19
    assert len(await entries(api)) == 1
    other = await run_flow(api.anonymous, {**GIVEN, "points": "11"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert len(await entries(api)) == 1


async def test_points_and_customer_are_read_in_every_form_that_flow_has(api: Api) -> None:
    forms: list[dict[str, Any]] = [
        {"customer_id": "7", "points": "10"},
        {"customer_id": 7, "points": 10},
        {"customer_id": "gid://shopify/Customer/7", "points": " 10.00 "},
        {"customer_id": "7", "amount": "10.0", "points": None},
        {"customer_id": "7", "amount": 10.0, "note": "", "allow_negative": ""},
        {"customer_id": "7", "points": "+10", "allow_negative": None},
    ]
    for number, properties in enumerate(forms, start=1):
        answer = await run_flow(api.anonymous, properties, run=f"run-{number}")
        assert (answer.status_code, answer.json()) == (200, {"message": "Points adjusted", "balance": 10 * number})


async def test_points_below_zero_only_where_the_step_allows_it(api: Api) -> None:
    taken = {"customer_id": "7", "points": "-10"}
    for allowed in ("false", False, "", None):
        refused = await run_flow(api.anonymous, {**taken, "allow_negative": allowed})
        assert (refused.status_code, refused.json()["code"]) == (422, "insufficient_balance")
    for number, allowed in enumerate(("true", True, "True"), start=1):
        answer = await run_flow(api.anonymous, {**taken, "allow_negative": allowed}, run=f"allowed-{number}")
        assert answer.json()["balance"] == -10 * number


async def test_what_cannot_be_done_is_given_up_with_the_reason(api: Api) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"customer_id": "7"}, "points"),
        ({"customer_id": "7", "points": "10", "amount": "10"}, "one only"),
        ({"customer_id": "7", "points": "10.5"}, "whole number"),
        ({"customer_id": "7", "points": 10.5}, "whole number"),
        ({"customer_id": "7", "points": "1e3"}, "whole number"),
        ({"customer_id": "7", "points": "ten"}, "whole number"),
        ({"customer_id": "7", "points": "\u0661\u0660"}, "whole number"),
        ({"customer_id": "7", "points": True}, "whole number"),
        ({"customer_id": "7", "points": ["10"]}, "whole number"),
        ({"customer_id": "7", "points": "0"}, "changes nothing"),
        ({"customer_id": "7", "points": str(POINTS_MAX + 1)}, "within"),
        ({"customer_id": "7", "points": "9" * 400}, "whole number"),
        ({"points": "10"}, "customer_id"),
        ({"customer_id": "", "points": "10"}, "customer_id"),
        ({"customer_id": "-7", "points": "10"}, "customer_id"),
        ({"customer_id": "gid://shopify/Order/7", "points": "10"}, "customer_id"),
        ({"customer_id": str(2**63), "points": "10"}, "customer_id"),
        ({"customer_id": f"gid://shopify/Customer/{2**63}", "points": "10"}, "customer_id"),
        ({"customer_id": "7", "points": "10", "allow_negative": "maybe"}, "allow_negative"),
        ({"customer_id": "7", "points": "10", "allow_negative": 1}, "allow_negative"),
    ]
    for properties, reason in wrong:
        answer = await run_flow(api.anonymous, properties)
        assert (answer.status_code, answer.json()["code"]) == (422, "flow_input_invalid"), properties
        assert reason in answer.json()["detail"], properties
    shapeless: list[Any] = [None, [], "points=10"]
    for properties in shapeless:
        assert (await run_flow(api.anonymous, properties)).status_code == 422
    assert await entries(api) == []


async def test_only_what_shopify_signed_moves_points(api: Api, owner: psycopg.Connection) -> None:
    for answer in (
        await run_flow(api.anonymous, GIVEN, secret=FOREIGN_SECRET),
        await run_flow(api.http, GIVEN, secret=FOREIGN_SECRET),
        await run_flow(api.anonymous, GIVEN, **{"X-Shopify-Shop-Domain": "other.myshopify.com"}),
        await run_flow(api.anonymous, GIVEN, shop="evil.example.com"),
        await run_flow(api.anonymous, GIVEN, run="two words"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authentic")
    assert owner.execute("select count(*) from ledger_entries").fetchone() == (0,)
    for run, more in (("a", {"secret": OLD_SECRET}), ("b", {"X-Shopify-Shop-Domain": DOMAIN})):
        assert (await run_flow(api.anonymous, GIVEN, run=run, **more)).status_code == 200


@pytest.mark.parametrize("shop", ["never-added", "removed"])
async def test_a_shop_without_the_app_is_given_up(api: Api, shop: str) -> None:
    async with api.runtime.db.unscoped() as conn:
        removed, _ = await add_shop(conn, "removed.myshopify.com", None)
        await remove_shop(conn, removed.id)
    answer = await run_flow(api.anonymous, GIVEN, shop=f"{shop}.myshopify.com")
    assert (answer.status_code, answer.json()["code"]) == (404, "shop_not_found")


@pytest.mark.parametrize("rate_limit_per_s", [1])
async def test_too_many_runs_at_once_are_asked_to_wait(
    api: Api, owner: psycopg.Connection, rate_limit_per_s: int
) -> None:
    answers = await asyncio.gather(*(run_flow(api.anonymous, GIVEN, run=f"run-{number}") for number in range(30)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert {answer.headers["retry-after"] for answer in answers if answer.status_code == 429} == {str(rate_limit_per_s)}
    assert owner.execute("select count(*) from ledger_entries").fetchone() == (statuses.count(200),)


async def test_while_the_database_is_away_flow_is_asked_to_try_again(api: Api, owner: psycopg.Connection) -> None:
    await run_flow(api.anonymous, GIVEN)
    owner.execute(
        """
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()
        """
    )
    assert (await run_flow(api.anonymous, GIVEN, run="run-2")).status_code == 503
    assert (await run_flow(api.anonymous, GIVEN, run="run-2")).json()["balance"] == 20


async def say_lifecycle(api: Api, *, secret: str = SECRET, **changes: Any) -> tuple[int, dict[str, Any]]:
    told = {
        "flow_trigger_definition_id": "points-balance-changed",
        "has_enabled_flow": True,
        "shop_id": "1",
        "shopify_domain": DOMAIN,
        "timestamp": "2026-11-22T18:00:00Z",
        **changes,
    }
    body = json.dumps(told).encode()
    headers = {"X-Shopify-Hmac-Sha256": body_signature(secret, body)}
    answer = await api.anonymous.post("/flow/lifecycle", content=body, headers=headers)
    return answer.status_code, answer.json()


async def test_flow_says_whether_a_workflow_listens_and_the_newest_word_counts(
    api: Api, owner: psycopg.Connection
) -> None:
    listens = "select has_enabled_flow from flow_triggers"
    assert await say_lifecycle(api) == (200, {"message": "Noted"})
    assert owner.execute(listens).fetchall() == [(True,)]
    later: dict[str, Any] = {"has_enabled_flow": False, "timestamp": "2026-11-22T18:00:01.5Z"}
    assert await say_lifecycle(api, **later) == (200, {"message": "Noted"})
    assert await say_lifecycle(api) == (200, {"message": "Something newer was heard before"})
    assert owner.execute(listens).fetchall() == [(False,)]


async def test_what_flow_did_not_sign_or_does_not_make_sense_changes_nothing(
    api: Api, owner: psycopg.Connection
) -> None:
    assert (await say_lifecycle(api, secret=FOREIGN_SECRET))[0] == 401
    assert (await say_lifecycle(api, shopify_domain="never-added.myshopify.com"))[0] == 404
    nonsense_told: list[dict[str, Any]] = [
        {"has_enabled_flow": "yes"},
        {"timestamp": "9999-12-31T23:59:59-14:00"},
        {"timestamp": None},
    ]
    for nonsense in nonsense_told:
        assert (await say_lifecycle(api, **nonsense))[0] == 422
    assert owner.execute("select 1 from flow_triggers").fetchall() == []
