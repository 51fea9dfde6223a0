"""Customers, ledger, pages, keys, health: the rest of the interface."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx

from metafield_sync.shops.api_keys import list_keys, revoke_key
from metafield_sync.shops.registry import add_shop
from metafield_sync.web.gate import BODY_BYTES_MAX, Rates

if TYPE_CHECKING:
    from conftest import Api

JSON = {"Content-Type": "application/json"}
CLIENTS = 64


async def test_a_posting_answers_the_entry_and_again_the_same(api: Api) -> None:
    body: dict[str, Any] = {
        "shopifyCustomerId": "7",
        "amount": 150,
        "reason": "order_paid",
        "externalId": "order/1",
        "metadata": {"order": "#1001", "lines": [1, 2.5, None, True]},
        "occurredAt": "2026-01-02T03:04:05+01:00",
    }
    first = await api.http.post("/api/ledger", json=body)
    assert first.status_code == 201
    document = first.json()
    entry = document["entry"]
    assert (document["message"], document["balance"], document["synced"]) == ("Transaction recorded", 150, False)
    assert entry == {
        "id": entry["id"],
        "customerId": entry["customerId"],
        "amount": 150,
        "balanceAfter": 150,
        "sequence": 1,
        "reason": "order_paid",
        "externalId": "order/1",
        "metadata": body["metadata"],
        "actor": entry["actor"],
        "reverses": None,
        "occurredAt": "2026-01-02T02:04:05Z",
        "createdAt": entry["createdAt"],
    }
    assert entry["createdAt"].endswith("Z")
    again = await api.http.post("/api/ledger", json={**body, "metadata": None, "allowNegative": True})
    assert (again.status_code, again.json()["message"]) == (200, "Transaction already processed")
    assert again.json()["entry"] == entry
    other = await api.http.post("/api/ledger", json={**body, "amount": 151})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


async def test_a_deduction_below_zero_is_refused_unless_allowed(api: Api) -> None:
    body = {"shopifyCustomerId": "7", "amount": -1, "reason": "spent"}
    refused = await api.http.post("/api/ledger", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "insufficient_balance")
    assert (await api.http.get("/api/customers?shopifyCustomerId=7")).json()["customers"] == []
    assert (await api.http.post("/api/ledger", json={**body, "allowNegative": True})).json()["balance"] == -1


async def test_an_entry_is_taken_back_once(api: Api) -> None:
    entry = (await api.post_points(7, 10))["entry"]
    first = await api.http.post(f"/api/ledger/{entry['id']}/reverse", json={"reason": "mistake"})
    assert first.status_code == 201
    reversal = first.json()["entry"]
    assert (reversal["amount"], reversal["reverses"], reversal["reason"]) == (-10, entry["id"], "mistake")
    again = await api.http.post(f"/api/ledger/{entry['id']}/reverse")
    assert (again.status_code, again.json()["entry"]) == (200, reversal)
    unknown = await api.http.post(f"/api/ledger/{uuid4()}-1/reverse")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "entry_not_found")


async def test_each_entry_of_a_batch_has_its_own_outcome(api: Api) -> None:
    answer = await api.http.post(
        "/api/ledger/batch",
        json={
            "entries": [
                {"shopifyCustomerId": "1", "amount": 5, "reason": "a"},
                {"shopifyCustomerId": "1", "amount": 0, "reason": "a"},
                {"shopifyCustomerId": "1", "amount": 1.5, "reason": "a"},
                {"shopifyCustomerId": "1", "amount": "5", "reason": "a"},
                {"shopifyCustomerId": "1", "amount": 2**53, "reason": "a"},
                {"shopifyCustomerId": "1", "amount": -6, "reason": "a"},
                {"customerId": str(uuid4()), "amount": 1, "reason": "a"},
                {"amount": 1, "reason": "a"},
                "nonsense",
                {"shopifyCustomerId": "1", "amount": 2, "reason": "a", "externalId": "k"},
                {"shopifyCustomerId": "1", "amount": 2, "reason": "a", "externalId": "k"},
            ]
        },
    )
    results = answer.json()["results"]
    assert [(result["status"], result.get("code")) for result in results] == [
        (201, None),
        (422, "amount_zero"),
        (422, "invalid_request"),
        (422, "invalid_request"),
        (422, "balance_out_of_range"),
        (422, "insufficient_balance"),
        (404, "customer_not_found"),
        (422, "invalid_request"),
        (422, "invalid_request"),
        (201, None),
        (200, None),
    ]
    assert results[-1]["entry"] == results[-2]["entry"]
    assert results[-1]["entry"]["balanceAfter"] == 7
    assert set(results[0]) == {"status", "entry"}
    assert set(results[1]) == {"status", "code", "detail"}
    assert (await api.http.post("/api/ledger/batch", json={"entries": []})).json() == {"results": []}
    too_many = [{"shopifyCustomerId": "1", "amount": 1, "reason": "a"}] * 1001
    assert (await api.http.post("/api/ledger/batch", json={"entries": too_many})).status_code == 422


BAD_BODIES: list[tuple[bytes, int, str]] = [
    (b"{", 400, "malformed_json"),
    (b"", 422, "invalid_request"),
    (b"\xff\xfe", 400, "malformed_json"),
    (b"[]", 422, "invalid_request"),
    (b'{"shopifyCustomerId":"1","amount":1}', 422, "invalid_request"),
    (b'{"shopifyCustomerId":"1","amount":1.0,"reason":"a"}', 422, "invalid_request"),
    (b'{"shopifyCustomerId":"1","amount":"1","reason":"a"}', 422, "invalid_request"),
    (b'{"shopifyCustomerId":"1","amount":true,"reason":"a"}', 422, "invalid_request"),
    (b'{"shopifyCustomerId":"1","amount":0,"reason":"a"}', 422, "amount_zero"),
    (b'{"shopifyCustomerId":"1","amount":9007199254740992,"reason":"a"}', 422, "balance_out_of_range"),
    (b'{"shopifyCustomerId":"1","amount":-9007199254740992,"reason":"a"}', 422, "balance_out_of_range"),
    (b'{"shopifyCustomerId":"1","amount":' + b"9" * 5000 + b',"reason":"a"}', 400, "malformed_json"),
    (b'{"shopifyCustomerId":1,"amount":1,"reason":"a"}', 422, "invalid_request"),
    (b'{"shopifyCustomerId":"01","amount":1,"reason":"a"}', 400, "malformed_id"),
    (b'{"shopifyCustomerId":"9999999999999999999","amount":1,"reason":"a"}', 400, "malformed_id"),
    (b'{"customerId":"x","amount":1,"reason":"a"}', 400, "malformed_id"),
    (b'{"amount":1,"reason":"a"}', 422, "invalid_request"),
    (b'{"shopifyCustomerId":"1","amount":1,"reason":""}', 422, "invalid_request"),
    (b'{"shopifyCustomerId":"1","amount":1,"reason":"a\\u0000"}', 422, "invalid_request"),
    (b'{"shopifyCustomerId":"1","amount":1,"reason":"\\ud800"}', 422, "invalid_request"),
    (b'{"shopifyCustomerId":"1","amount":1,"reason":"a","metadata":[]}', 422, "invalid_request"),
    (b'{"shopifyCustomerId":"1","amount":1,"reason":"a","metadata":{"a":"\\u0000"}}', 422, "invalid_request"),
    (b'{"shopifyCustomerId":"1","amount":1,"reason":"a","metadata":{"\\udfff":1}}', 422, "invalid_request"),
    (b'{"shopifyCustomerId":"1","amount":1,"reason":"a","metadata":{"a":NaN}}', 422, "invalid_request"),
    (b'{"shopifyCustomerId":"1","amount":1,"reason":"a","metadata":{"a":1e999}}', 422, "invalid_request"),
    (
        b'{"shopifyCustomerId":"1","amount":1,"reason":"a","metadata":{"a":"' + b"x" * 20_000 + b'"}}',
        422,
        "invalid_request",
    ),
    (
        b'{"shopifyCustomerId":"1","amount":1,"reason":"a","metadata":{"a":' + b"[" * 99_999 + b"]" * 99_999 + b"}}",
        400,
        "malformed_json",
    ),
    (b'{"shopifyCustomerId":"1","amount":1,"reason":"a","occurredAt":"yesterday"}', 422, "invalid_request"),
    (b'{"shopifyCustomerId":"1","amount":1,"reason":"a","occurredAt":"2026-01-01T00:00:00"}', 422, "invalid_request"),
    (
        b'{"shopifyCustomerId":"1","amount":1,"reason":"a","occurredAt":"0001-01-01T00:00:00+14:00"}',
        422,
        "invalid_request",
    ),
    (b'{"shopifyCustomerId":"1","ammount":1,"amount":1,"reason":"a"}', 422, "invalid_request"),
    (b'{"shopifyCustomerId":"1","amount":1,"reason":"a","allowNegative":"yes"}', 422, "invalid_request"),
    (b"x" * (BODY_BYTES_MAX + 1), 413, "body_too_large"),
    (b"x" * 5_000_000, 413, "body_too_large"),
]


async def test_a_bad_body_gets_a_problem_and_changes_nothing(api: Api) -> None:
    for body, status, code in BAD_BODIES:
        answer = await api.http.post("/api/ledger", content=body, headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (status, code), (body[:200], answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert set(answer.json()) == {"type", "title", "status", "code", "detail"}
    assert (await api.http.get("/api/customers")).json() == {"customers": [], "nextCursor": None}


async def test_a_form_is_told_to_send_json(api: Api) -> None:
    answer = await api.http.post("/api/ledger", data={"amount": "1"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_customers_are_created_once_and_paged(api: Api) -> None:
    made = [await api.http.post("/api/customers", json={"shopifyCustomerId": str(n)}) for n in (1, 2, 3, 1)]
    assert [answer.status_code for answer in made] == [201, 201, 201, 200]
    assert made[0].json()["mirror"]["status"] == "stale"
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await api.http.get(f"/api/customers?limit=1{cursor}")).json()
        seen += [customer["shopifyCustomerId"] for customer in page["customers"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert sorted(seen) == ["1", "2", "3"]
    one = made[0].json()
    assert (await api.http.get(f"/api/customers/{one['id']}")).json() == one
    assert set(one) == {"id", "shopifyCustomerId", "balance", "sequence", "createdAt", "mergedInto", "mirror"}
    assert set(one["mirror"]) == {"status", "pushedBalance", "pushedAt", "staleSince", "attempts", "error"}


async def test_a_customer_is_mirrored_from_creation_at_zero_too(api: Api) -> None:
    await api.http.post("/api/customers", json={"shopifyCustomerId": "5"})
    await api.http.get("/api/sync-balances")
    assert api.metafields() == {5: 0}


async def test_a_statement_is_newest_first_and_the_past_can_be_asked(api: Api) -> None:
    entries = [(await api.post_points(7, amount))["entry"] for amount in (10, -4, 7)]
    customer = entries[0]["customerId"]
    page = (await api.http.get(f"/api/customers/{customer}/ledger?limit=2")).json()
    assert [entry["sequence"] for entry in page["entries"]] == [3, 2]
    rest = (await api.http.get(f"/api/customers/{customer}/ledger?cursor={page['nextCursor']}")).json()
    assert ([entry["sequence"] for entry in rest["entries"]], rest["nextCursor"]) == ([1], None)
    then = (await api.http.get(f"/api/customers/{customer}", params={"asOf": entries[1]["createdAt"]})).json()
    assert (then["balance"], then["sequence"], then["asOf"]) == (6, 2, entries[1]["createdAt"])
    assert (await api.http.get(f"/api/customers/{customer}?asOf=2001-01-01T00:00:00Z")).json()["balance"] == 0


async def test_a_path_or_query_that_makes_no_sense_is_400(api: Api) -> None:
    for path in (
        "/api/customers?cursor=%00",
        "/api/customers?cursor=bm9uc2Vuc2U",
        "/api/customers?limit=251",
        "/api/customers?limit=0",
        "/api/customers?shopifyCustomerId=abc",
        "/api/customers/not-a-uuid",
        "/api/customers/not-a-uuid/ledger",
        "/api/sync-runs?cursor=bm9uc2Vuc2U",
        "/api/sync-runs/not-a-uuid",
        "/api/sync-failures?status=missing",
    ):
        assert (await api.http.get(path)).status_code == 400, path


async def test_another_shops_customer_is_not_there(api: Api) -> None:
    async with api.runtime.db.unscoped() as conn:
        other, _ = await add_shop(conn, "other.myshopify.com", None)
    async with api.runtime.db.shop(other.id) as conn:
        cursor = await conn.execute(
            "insert into customers (shop_id, shopify_customer_id) values (%s, 1) returning id", (other.id,)
        )
        row = await cur_fetch(cursor)
    for path in (f"/api/customers/{row}", f"/api/sync-balances?customerId={row}", f"/api/customers/{row}/ledger"):
        assert (await api.http.get(path)).status_code == 404
    body = {"customerId": str(row), "amount": 1, "reason": "a"}
    assert (await api.http.post("/api/ledger", json=body)).status_code == 404


async def cur_fetch(cursor: Any) -> Any:
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def test_without_a_good_key_there_is_no_way_in(api: Api) -> None:
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic abc"}, {"Cookie": "key=1"}):
        answer = await api.anonymous.get("/api/customers", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    async with api.runtime.db.shop(api.shop.id) as conn:
        (writer,) = [key for key in await list_keys(conn, api.shop.id) if key.scope == "write"]
        await revoke_key(conn, api.shop.id, writer.id)
    assert (await api.http.get("/api/customers")).json()["code"] == "invalid_key"


async def test_a_read_key_reads_and_writes_nothing(api: Api) -> None:
    assert (await api.reader.get("/api/customers")).status_code == 200
    answer = await api.reader.post("/api/ledger", json={"shopifyCustomerId": "1", "amount": 1, "reason": "a"})
    assert (answer.status_code, answer.json()["code"]) == (403, "read_only_key")


def test_a_key_has_its_rate() -> None:
    now = 0.0
    rates = Rates(2, clock=lambda: now)
    assert [rates.allow(1) for _ in range(3)] == [True, True, False]
    assert rates.allow(2)
    now = 0.5
    assert [rates.allow(1) for _ in range(2)] == [True, False]


async def test_a_database_that_went_away_is_said_so(api: Api, owner: Any) -> None:
    owner.execute("alter table alembic_version rename to elsewhere")
    answer = await api.anonymous.get("/readyz")
    owner.execute("alter table elsewhere rename to alembic_version")
    assert answer.status_code >= 500


async def test_a_thousand_concurrent_postings_over_http(api: Api) -> None:
    wishes = [
        {"shopifyCustomerId": str(1 + n % 10), "amount": 1 + n % 7, "reason": "order", "externalId": f"k{n}"}
        for n in range(500)
    ] * 2
    # httpx looks through all waiting requests at each step, so a thousand in its queue would measure httpx.
    room = asyncio.Semaphore(CLIENTS)

    async def send(wish: dict[str, Any]) -> httpx.Response:
        async with room:
            return await api.http.post("/api/ledger", json=wish)

    answers = await asyncio.gather(*map(send, wishes))
    assert sorted(answer.status_code for answer in answers) == [200] * 500 + [201] * 500
    balances = {
        customer["shopifyCustomerId"]: (customer["balance"], customer["sequence"])
        for customer in (await api.http.get("/api/customers")).json()["customers"]
    }
    assert balances == {str(c): (sum(1 + n % 7 for n in range(500) if 1 + n % 10 == c), 50) for c in range(1, 11)}
