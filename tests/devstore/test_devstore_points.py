"""What calls cost, and the bucket they are paid from."""

from __future__ import annotations

import json
from typing import Any

import pytest
from devstore_support import CUSTOMERS, READ, SET, Bench, entry, gid
from hypothesis import given
from hypothesis import strategies as st

from devstore.budget import Budget, Plan
from devstore.clock import ManualClock

THROTTLED = {
    "message": "Throttled",
    "extensions": {"code": "THROTTLED", "documentation": "https://shopify.dev/api/usage/rate-limits"},
}


def cost(bench: Bench, query: str, variables: dict[str, Any] | None = None) -> tuple[int | None, int | None]:
    answer = bench.answer(query, variables)
    return answer.requested, answer.actual


@pytest.mark.parametrize("customers", [1, 2, 25])
def test_metafields_set_costs_10_and_one_for_each_distinct_customer(bench: Bench, customers: int) -> None:
    entries = [entry(1 + number % customers, str(number)) for number in range(25)]
    assert cost(bench, SET, {"m": entries}) == (10 + customers, 10 + customers)


@pytest.mark.parametrize(
    "shown",
    [
        "userErrors { code }",
        "metafields { value compareDigest owner { ... on Customer { id } } } userErrors { field message code }",
        'metafields { owner { metafield(namespace: "abc", key: "def") { definition { access { admin } } } } }',
    ],
)
def test_what_metafields_set_shows_costs_nothing(bench: Bench, shown: str) -> None:
    query = f"mutation($m:[MetafieldsSetInput!]!) {{ metafieldsSet(metafields: $m) {{ {shown} }} }}"
    assert cost(bench, query, {"m": [entry(number) for number in range(1, 26)]}) == (35, 35)


@pytest.mark.parametrize(
    ("kind", "weight"),
    [("Order", 10), ("Product", 4), ("ProductVariant", 2), ("Collection", 1), ("Shop", 1), ("Page", 0)],
)
def test_owners_weigh_by_their_kind(bench: Bench, kind: str, weight: int) -> None:
    assert cost(bench, SET, {"m": [entry(ownerId=f"gid://shopify/{kind}/1")]}) == (10 + weight, 10 + weight)


def test_every_alias_pays_its_own_base_and_owners(bench: Bench) -> None:
    query = """mutation($m:[MetafieldsSetInput!]!) {
      a: metafieldsSet(metafields:$m) { userErrors { code } }
      b: metafieldsSet(metafields:$m) { userErrors { code } } }"""
    assert cost(bench, query, {"m": [entry(1), entry(2)]}) == (24, 24)


@pytest.mark.parametrize(
    ("query", "requested", "actual"),
    [
        ("{ shop { id name } }", 1, 1),
        ("{ shop { plan { shopifyPlus } } }", 2, 2),
        ('{ customer(id: "gid://shopify/Customer/1") { id } }', 1, 1),
        ('{ customer(id: "gid://shopify/Customer/99") { id } }', 1, 0),
        ("{ customers(first: 100) { nodes { id } } }", 100, 30),
        ("{ customers(first: 100) { edges { cursor node { id } } } }", 100, 30),
        ("{ customers(last: 7) { nodes { id } pageInfo { hasNextPage } } }", 7, 7),
        (
            '{ customers(first: 10) { nodes { metafield(namespace: "abc", key: "de") { id } } } }',
            20,
            10,
        ),
        ("{ customers(first: 10) { nodes { metafields(first: 4) { nodes { id } } } } }", 50, 10),
        ("{ customersCount { count } }", 1, 1),
        ("{ __typename }", 0, 0),
        (
            """{ node(id: "gid://shopify/Customer/1") { ...C } }
            fragment C on Customer { metafields(last: 5) { nodes { id } } }""",
            6,
            1,
        ),
        ("{ ...F } fragment F on QueryRoot { shop { id } again: shop { id } }", 2, 2),
        ('mutation { customerDelete(input: {id: "gid://shopify/Customer/1"}) { shop { id } } }', 10, 10),
    ],
)
def test_queries_cost_their_objects(bench: Bench, query: str, requested: int, actual: int) -> None:
    assert cost(bench, query) == (requested, actual)


def test_nodes_cost_by_the_number_of_ids_and_refund_what_is_missing(bench: Bench) -> None:
    bench.set(entry(1))
    assert cost(bench, READ, {"ids": [gid(1), gid(2), gid(999)]}) == (6, 3)


def test_what_was_requested_and_not_used_is_given_back(bench: Bench) -> None:
    bench.answer(CUSTOMERS, {"first": 250})
    assert bench.shop.budget.status().currently_available == 2000 - 30


def test_a_query_over_1000_points_is_refused_before_it_is_executed(bench: Bench) -> None:
    query = "{ customers(first: 250) { nodes { metafields(first: 4) { nodes { id } } } } }"
    answer = bench.answer(query)
    (told,) = _errors(answer.body)
    assert told["message"].startswith("Query cost is 1250, which exceeds the single query max cost limit (1000)")
    assert told["extensions"]["code"] == "MAX_COST_EXCEEDED"
    assert (answer.status, answer.requested, answer.actual) == (200, 1250, None)
    assert bench.shop.budget.status().currently_available == 2000


def test_28_aliases_of_25_customers_just_fit(bench: Bench) -> None:
    aliases = " ".join(f"a{number}: metafieldsSet(metafields:$m) {{ userErrors {{ code }} }}" for number in range(28))
    entries = [entry(number) for number in range(1, 26)]
    assert cost(bench, f"mutation($m:[MetafieldsSetInput!]!) {{ {aliases} }}", {"m": entries}) == (980, 980)


def test_an_answer_carries_cost_and_throttle_status(bench: Bench) -> None:
    body = bench.answer(SET, {"m": [entry(number) for number in range(1, 26)]}).body
    assert body["extensions"] == {
        "cost": {
            "requestedQueryCost": 35,
            "actualQueryCost": 35,
            "throttleStatus": {"maximumAvailable": 2000.0, "currentlyAvailable": 1965, "restoreRate": 100.0},
        }
    }
    assert '"maximumAvailable": 2000.0' in json.dumps(body)


def test_a_throttled_call_says_so_and_executes_nothing(bench: Bench) -> None:
    bench.shop.budget.spend_elsewhere(1997)
    answer = bench.answer(SET, {"m": [entry(number) for number in range(1, 26)]})
    assert answer.body == {
        "errors": [THROTTLED],
        "extensions": {
            "cost": {
                "requestedQueryCost": 35,
                "actualQueryCost": None,
                "throttleStatus": {"maximumAvailable": 2000.0, "currentlyAvailable": 3, "restoreRate": 100.0},
            }
        },
    }
    assert (answer.status, answer.throttled) == (200, True)
    assert bench.shop.metafields.of_owner("CUSTOMER", 1) == []


def test_the_bucket_refills_by_the_clock(bench: Bench) -> None:
    bench.shop.budget.spend_elsewhere(2000)
    assert bench.answer(SET, {"m": [entry(1)]}).throttled
    bench.clock.advance(0.11)
    assert not bench.answer(SET, {"m": [entry(1)]}).throttled
    bench.clock.advance(1000)
    assert bench.shop.budget.status().currently_available == 2000


@pytest.mark.parametrize(
    ("plan", "rate"), [(Plan.STANDARD, 100), (Plan.ADVANCED, 200), (Plan.PLUS, 1000), (Plan.ENTERPRISE, 2000)]
)
def test_plans_restore_at_shopifys_rates_and_hold_20_seconds(plan: Plan, rate: int) -> None:
    status = Budget(plan, lambda: 0.0).status()
    assert (status.restore_rate, status.maximum_available) == (rate, 20 * rate)


@given(st.lists(st.tuples(st.sampled_from(["take", "wait", "back"]), st.integers(0, 500)), max_size=40))
def test_the_bucket_never_overflows_nor_goes_below_empty(steps: list[tuple[str, int]]) -> None:
    clock = ManualClock()
    budget = Budget(Plan.STANDARD, clock.clock.monotonic)
    taken = waited = 0
    for step, amount in steps:
        if step == "take":
            taken += amount if budget.take(amount) else 0
        elif step == "wait":
            clock.advance(amount / 100)
            waited += amount
        else:
            back = min(amount, taken)
            budget.give_back(back)
            taken -= back
        assert 0 <= budget.status().currently_available <= 2000
    # Nobody spends more than a full bucket and what came back meanwhile.
    assert taken <= 2000 + waited


def test_the_debug_header_lists_the_fields(bench: Bench) -> None:
    body = json.dumps({"query": '{ shop { id } node(id: "gid://shopify/Customer/1") { id } }'}).encode()
    call = bench.api.read(body, cost_debug=True)
    answer = bench.api.run(bench.shop, call)  # pyright: ignore[reportArgumentType]  # the body is a sound one
    extensions: Any = answer.body["extensions"]
    assert extensions["cost"]["fields"] == [
        {"path": ["shop", "id"], "definedCost": 0, "requestedTotalCost": 0, "requestedChildrenCost": None},
        {"path": ["shop"], "definedCost": 1, "requestedTotalCost": 1, "requestedChildrenCost": 0},
        {"path": ["node", "id"], "definedCost": 0, "requestedTotalCost": 0, "requestedChildrenCost": None},
        {"path": ["node"], "definedCost": 1, "requestedTotalCost": 1, "requestedChildrenCost": 0},
    ]


@pytest.mark.parametrize("query", ["{", "{a" * 3000, "{ nothing }", "{ shop { id } } { shop { id } }"])
def test_what_cannot_be_executed_costs_nothing(bench: Bench, query: str) -> None:
    answer = bench.answer(query)
    assert answer.status == 200
    assert _errors(answer.body)
    assert answer.requested is None


def _errors(body: dict[str, Any]) -> list[dict[str, Any]]:
    return body["errors"]
