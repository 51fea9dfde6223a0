"""The inbox over HTTP: what came in, in pages, what came of it, and having it handled again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from metafield_sync.shops.registry import add_shop
from metafield_sync.sync.errands import note_errand
from metafield_sync.sync.inbox.handlers import HANDLERS
from metafield_sync.sync.inbox.handling import handle_due

if TYPE_CHECKING:
    import psycopg

    from conftest import Api

TOPIC = "bulk_operations/finish"
OPERATION = "gid://shopify/BulkOperation/1"


def deliver(api: Api, owner: psycopg.Connection, *, topic: str = TOPIC, count: int = 1, shop: int | None = None) -> int:
    """Put webhooks into the inbox; the number of the last one."""
    rows = owner.execute(
        """
        insert into inbox (shop_id, delivery_id, topic, triggered_at, body_digest, payload)
        select
          %s, gen_random_uuid(), %s, '2026-11-22T12:00:00Z', '', jsonb_build_object('admin_graphql_api_id', %s::text)
        from generate_series(1, %s)
        returning id
        """,
        (api.shop.id if shop is None else shop, topic, OPERATION, count),
    ).fetchall()
    return rows[-1][0]


async def figures(api: Api) -> dict[str, float]:
    """What Prometheus reads of what came in."""
    text = (await api.anonymous.get("/metrics")).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    prefix = "metafield_sync_"
    return {
        name.removeprefix(prefix): float(value)
        for name, _, value in lines
        if name.startswith((f"{prefix}inbox_", f"{prefix}errands_"))
    }


async def listed(api: Api, query: str = "") -> list[dict[str, Any]]:
    answer = await api.reader.get(f"/api/inbox{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()["webhooks"]


async def test_a_webhook_is_shown_from_its_arrival_to_its_outcome(api: Api, owner: psycopg.Connection) -> None:
    number = deliver(api, owner)
    (waiting,) = await listed(api)
    assert (waiting["id"], waiting["topic"], waiting["status"]) == (number, TOPIC, "waiting")
    assert waiting["triggeredAt"] == "2026-11-22T12:00:00Z"
    assert waiting["nextAttemptAt"] is not None
    assert "payload" not in waiting
    await handle_due(api.runtime.db, api.shop.id, HANDLERS)
    answer = await api.reader.get(f"/api/inbox/{number}")
    assert answer.status_code == 200
    handled = answer.json()
    assert (handled["status"], handled["outcome"]) == ("handled", f"nothing waits for {OPERATION}")
    assert (handled["attempts"], handled["nextAttemptAt"], handled["error"]) == (1, None, None)
    assert handled["payload"] == {"admin_graphql_api_id": OPERATION}
    assert {"deliveryId", "eventId", "apiVersion", "receivedAt", "handledAt", "failedAt"} <= set(handled)


async def test_webhooks_come_in_pages_the_latest_first_and_by_what_became_of_them(
    api: Api, owner: psycopg.Connection
) -> None:
    deliver(api, owner, count=3)
    last = deliver(api, owner, topic="orders/paid", count=4)
    owner.execute("update inbox set due_at = null, failed_at = now(), error = 'x' where topic = %s", (TOPIC,))
    seen: list[int] = []
    cursor = ""
    while True:
        page = (await api.reader.get(f"/api/inbox?limit=3{cursor}")).json()
        seen += [webhook["id"] for webhook in page["webhooks"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert seen == sorted(seen, reverse=True)
    assert (len(seen), seen[0]) == (7, last)
    assert {webhook["topic"] for webhook in await listed(api, "?status=failed")} == {TOPIC}
    assert len(await listed(api, "?status=waiting")) == 4
    assert await listed(api, "?status=handled") == []
    assert len(await listed(api, "?topic=orders/paid")) == 4
    assert await listed(api, "?topic=orders/paid&status=failed") == []


@pytest.mark.parametrize(
    "query", ["status=lost", "topic=ORDERS_PAID", "topic=", "cursor=nonsense", "limit=0", "stauts=failed"]
)
async def test_a_wrong_question_is_refused(api: Api, query: str) -> None:
    answer = await api.reader.get(f"/api/inbox?{query}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


async def test_what_was_given_up_is_handled_when_somebody_resends_it_and_what_was_handled_too(
    api: Api, owner: psycopg.Connection
) -> None:
    number = deliver(api, owner)
    owner.execute("update inbox set due_at = null, failed_at = now(), attempts = 8, error = 'KeyError'")
    for _ in range(2):
        answer = await api.http.post(f"/api/inbox/{number}/resend")
        assert answer.status_code == 202
        resent = answer.json()
        assert (resent["status"], resent["attempts"], resent["error"]) == ("waiting", 0, None)
        assert (resent["outcome"], resent["failedAt"], resent["handledAt"]) == (None, None, None)
        assert (await handle_due(api.runtime.db, api.shop.id, HANDLERS)).handled == 1
        assert (await listed(api))[0]["status"] == "handled"


async def test_a_key_that_may_only_read_resends_nothing(api: Api, owner: psycopg.Connection) -> None:
    number = deliver(api, owner)
    assert (await api.reader.post(f"/api/inbox/{number}/resend")).status_code == 403
    assert (await api.anonymous.get("/api/inbox")).status_code == 401


async def test_another_shops_webhooks_are_not_there(api: Api, owner: psycopg.Connection) -> None:
    async with api.runtime.db.unscoped() as conn:
        other, _ = await add_shop(conn, "other.myshopify.com", None)
    theirs = deliver(api, owner, shop=other.id)
    owner.execute("update inbox set due_at = null, failed_at = now()")
    assert await listed(api) == []
    for method, path in (("GET", f"/api/inbox/{theirs}"), ("POST", f"/api/inbox/{theirs}/resend")):
        answer = await api.http.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (404, "webhook_not_found")
    assert owner.execute("select count(*) from inbox where failed_at is not null").fetchone() == (1,)


@pytest.mark.parametrize("number", ["0", "-1", "x", str(2**63)])
async def test_what_is_no_number_is_no_webhook(api: Api, number: str) -> None:
    assert (await api.reader.get(f"/api/inbox/{number}")).status_code == 400


async def test_status_and_figures_tell_what_waits_and_what_was_given_up(api: Api, owner: psycopg.Connection) -> None:
    status = (await api.http.get("/api/status")).json()
    assert (status["inbox"], status["errands"]) == ({"waiting": 0, "failed": 0, "oldestSeconds": 0}, [])
    assert await figures(api) == {
        **dict.fromkeys(("inbox_waiting", "inbox_failed", "inbox_oldest_seconds"), 0),
        **dict.fromkeys(("errands_waiting", "errands_failing", "errands_oldest_seconds"), 0),
    }
    deliver(api, owner, count=5)
    owner.execute("update inbox set received_at = now() - interval '1 hour'")
    owner.execute(
        "update inbox set due_at = null, failed_at = now() where id in (select id from inbox order by id limit 2)"
    )
    async with api.runtime.db.shop(api.shop.id) as conn:
        await note_errand(conn, api.shop.id, "order", "1001")
        await note_errand(conn, api.shop.id, "order", "1002")
        await note_errand(conn, api.shop.id, "catch_up", after_s=600)
    owner.execute(
        """
        update errands
        set
          due_at = now() + interval '1 hour', attempts = 9, failing_since = now() - interval '2 hours',
          error = 'shopify_unreachable: no connection'
        where subject = '1002'
        """
    )
    answer = await api.http.get("/api/status")
    assert answer.status_code == 200, "the alarm is on balances alone"
    status = answer.json()
    assert (status["inbox"]["waiting"], status["inbox"]["failed"]) == (3, 2)
    assert 3_600 <= status["inbox"]["oldestSeconds"] < 3_700
    (errands,) = status["errands"]
    assert 7_200 <= errands.pop("oldestSeconds") < 7_300
    assert errands == {"kind": "order", "waiting": 1, "failing": 1, "error": "shopify_unreachable: no connection"}
    told = await figures(api)
    assert 3_600 <= told.pop("inbox_oldest_seconds") < 3_700
    assert 7_200 <= told.pop("errands_oldest_seconds") < 7_300
    assert told == {"inbox_waiting": 3, "inbox_failed": 2, "errands_waiting": 1, "errands_failing": 1}
