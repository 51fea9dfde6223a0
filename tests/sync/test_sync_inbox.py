"""The inbox: every webhook is handled once, in whatever order, whoever dies on the way; none holds up another."""

# What a worker does between claiming and handling can be stopped in no other way.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from inbox_support import EARN, Inbox, earn
from structlog.testing import capture_logs

from metafield_sync.db.database import Database, ShopId
from metafield_sync.db.migrate import DatabaseUnusable
from metafield_sync.shops.registry import add_shop, remove_shop
from metafield_sync.sync.inbox import handling
from metafield_sync.sync.inbox.handling import (
    CLAIM_ROWS_MAX,
    NOT_HANDLED,
    NOT_INSTALLED,
    RETRIES_S,
    TOPICS_OF_REMOVED_SHOPS,
    handle_due,
)
from metafield_sync.sync.inbox.records import find_webhook, resend_failed_webhooks, resend_webhook
from metafield_sync.sync.schedule import prune_history

if TYPE_CHECKING:
    import psycopg
    from psycopg import AsyncConnection

    from metafield_sync.sync.inbox.handling import Webhook

SECRET = "jane@example.com"  # noqa: S105 - what an error's text must not carry along


@pytest.fixture
def inbox(db: Database, owner: psycopg.Connection, shop_id: ShopId) -> Inbox:
    return Inbox(db, owner, shop_id)


async def fail(_: AsyncConnection, webhook: Webhook) -> str:
    raise KeyError(webhook.payload["email"])


async def test_a_webhook_is_handled_and_what_came_of_it_is_on_record(inbox: Inbox) -> None:
    (number,) = inbox.deliver({"customer": 7})
    done = await inbox.handle()
    assert (done.claimed, done.handled, done.failed) == (1, 1, 0)
    async with inbox.db.shop(inbox.shop_id) as conn:
        record = await find_webhook(conn, inbox.shop_id, number)
    assert (record.status, record.outcome, record.error) == ("handled", "customer 7: +1 point", None)
    assert record.handled_at is not None
    assert (await inbox.handle()).claimed == 0
    assert inbox.points() == 1


async def test_many_workers_at_once_handle_everything_once(inbox: Inbox, database_url: str) -> None:
    webhooks = 400
    for customer in range(1, 5):
        inbox.deliver({"customer": customer}, count=webhooks // 4)

    async def work() -> int:
        async with Database(database_url) as db:
            handled = 0
            while (done := await handle_due(db, inbox.shop_id, inbox.handlers)).claimed:
                handled += done.handled
                assert done.failed == 0
            return handled

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(work()) for _ in range(4)]
    assert sum(worker.result() for worker in workers) == webhooks
    assert inbox.points() == webhooks
    assert inbox.ask("select count(*) from inbox where handled_at is null") == 0


async def test_claims_that_end_too_soon_double_nothing(
    inbox: Inbox, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each claim is over before its rows are handled, so the workers take them from one another all the time.
    monkeypatch.setattr(handling, "CLAIM_S", 0)
    webhooks = 200
    inbox.deliver({"customer": 1}, count=webhooks)

    async def work() -> int:
        async with Database(database_url) as db:
            handled = 0
            while inbox.ask("select count(*) from inbox where handled_at is null"):
                handled += (await handle_due(db, inbox.shop_id, inbox.handlers)).handled
            return handled

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(work()) for _ in range(3)]
    assert sum(worker.result() for worker in workers) == webhooks
    assert inbox.points() == webhooks


async def test_a_claim_ends_by_itself_and_whoever_overslept_it_does_nothing(inbox: Inbox) -> None:
    inbox.deliver({"customer": 7})
    (asleep,) = await handling._claim(inbox.db, inbox.shop_id)
    assert (await inbox.handle()).claimed == 0, "claimed is not due"
    inbox.let_waiting_pass()
    (other,) = await handling._claim(inbox.db, inbox.shop_id)
    assert other.attempts == 2
    assert await handling._handle(inbox.db, asleep, inbox.handlers) == "taken"
    assert await handling._handle(inbox.db, other, inbox.handlers) == "handled"
    assert await handling._handle(inbox.db, other, inbox.handlers) == "taken"
    assert inbox.points() == 1


async def test_who_dies_in_the_middle_leaves_nothing_behind_and_it_is_handled_later(inbox: Inbox) -> None:
    async def die(conn: AsyncConnection, webhook: Webhook) -> str:
        await earn(conn, webhook)
        await asyncio.to_thread(
            inbox.owner.execute,
            """
            select pg_terminate_backend(pid, 10000)
            from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid()
            """,
        )
        await conn.execute("select 1")
        raise AssertionError("the connection is gone")

    inbox.deliver({"customer": 7})
    with pytest.raises(DatabaseUnusable):
        await handle_due(inbox.db, inbox.shop_id, {EARN: die})
    assert inbox.points() == 0
    inbox.let_waiting_pass()
    await inbox.handle_all()
    assert inbox.points() == 1


async def test_what_was_not_begun_is_given_back_when_the_worker_stops(inbox: Inbox) -> None:
    begun = asyncio.Event()

    async def wait(conn: AsyncConnection, webhook: Webhook) -> str:
        await earn(conn, webhook)
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    inbox.deliver({"customer": 1}, count=20)
    working = asyncio.create_task(handle_due(inbox.db, inbox.shop_id, {EARN: wait}))
    await begun.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    given_back = "select count(*) from inbox where due_at <= clock_timestamp() and attempts = 0"
    assert inbox.ask(given_back) == 20 - handling.HANDLED_AT_ONCE_MAX
    assert inbox.points() == 0


async def test_what_a_handler_did_before_it_failed_is_undone(inbox: Inbox) -> None:
    async def earn_and_fail(conn: AsyncConnection, webhook: Webhook) -> str:
        await earn(conn, webhook)
        raise RuntimeError

    inbox.deliver({"customer": 7})
    done = await handle_due(inbox.db, inbox.shop_id, {EARN: earn_and_fail})
    assert (done.handled, done.failed) == (0, 1)
    assert inbox.points() == 0


async def test_one_that_cannot_be_handled_holds_up_no_other_and_its_error_tells_nothing_of_it(inbox: Inbox) -> None:
    inbox.handlers["test/poison"] = fail
    inbox.deliver({"email": SECRET}, topic="test/poison")
    inbox.deliver({"customer": 1}, count=30)
    inbox.deliver({"email": SECRET}, topic="test/poison")
    with capture_logs() as logs:
        rounds = await inbox.handle_all()
    assert sum(done.handled for done in rounds) == 30
    assert inbox.points() == 30
    error = inbox.ask("select error from inbox where topic = 'test/poison'")
    assert error.startswith("KeyError in _handle_once (sync/inbox/handling.py:")
    assert SECRET not in str(logs)
    assert [log["event"] for log in logs] == ["webhook not handled"] * 2


async def test_what_the_database_says_of_a_row_is_not_kept(inbox: Inbox) -> None:
    async def collide(conn: AsyncConnection, webhook: Webhook) -> str:
        await conn.execute(
            """
            insert into inbox (shop_id, delivery_id, topic, body_digest, payload)
            select %s, %s, 'x', '', '{}' from generate_series(1, 2)
            """,
            (webhook.shop_id, webhook.payload["email"]),
        )
        return "unreachable"

    inbox.deliver({"email": SECRET}, topic="test/poison")
    await handle_due(inbox.db, inbox.shop_id, {"test/poison": collide})
    error = inbox.ask("select error from inbox")
    assert error.startswith("UniqueViolation (23505), inbox_delivery_unique in ")
    assert SECRET not in error


async def test_failures_are_tried_again_ever_later_and_then_wait_for_somebody(inbox: Inbox) -> None:
    inbox.handlers["test/poison"] = fail
    (number,) = inbox.deliver({"email": SECRET}, topic="test/poison")
    wait = "select extract(epoch from due_at - clock_timestamp())::double precision from inbox"
    with capture_logs() as logs:
        for attempt, retry_s in enumerate(RETRIES_S, start=1):
            await inbox.handle_all()
            assert retry_s - 5 < inbox.ask(wait) <= retry_s
            assert inbox.ask("select attempts from inbox") == attempt
            inbox.let_waiting_pass()
        await inbox.handle_all()
    assert inbox.ask("select failed_at is not null and due_at is null from inbox")
    assert [log["log_level"] for log in logs] == ["warning"] * len(RETRIES_S) + ["error"]
    inbox.let_waiting_pass()
    assert (await inbox.handle()).claimed == 0, "given up is given up"

    async def mended(_: AsyncConnection, __: Webhook) -> str:
        return "put right"

    inbox.handlers["test/poison"] = mended
    async with inbox.db.shop(inbox.shop_id) as conn:
        assert (await resend_webhook(conn, inbox.shop_id, number)).status == "waiting"
    await inbox.handle_all()
    assert inbox.outcomes() == [("test/poison", "put right")]
    assert inbox.ask("select attempts = 1 and error is null and failed_at is null from inbox")


async def test_all_that_were_given_up_can_be_resent_at_once_and_no_other(inbox: Inbox) -> None:
    inbox.deliver({"customer": 1}, count=5)
    await inbox.handle_all()
    inbox.owner.execute("update inbox set handled_at = null, failed_at = now() where id in (select min(id) from inbox)")
    async with inbox.db.shop(inbox.shop_id) as conn:
        assert await resend_failed_webhooks(conn, inbox.shop_id) == 1
    await inbox.handle_all()
    assert inbox.points() == 6


async def test_the_oldest_is_handled_first(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handling, "HANDLED_AT_ONCE_MAX", 1)
    seen: list[int] = []

    async def note(_: AsyncConnection, webhook: Webhook) -> str:
        seen.append(webhook.payload["n"])
        return "seen"

    now = datetime.now(UTC)
    ages = list(range(12))
    random.shuffle(ages)
    for age in ages:
        inbox.deliver({"n": age}, topic="test/note", triggered_at=now - timedelta(seconds=age))
    await handle_due(inbox.db, inbox.shop_id, {"test/note": note})
    assert seen == sorted(ages, reverse=True)


async def test_two_that_wait_for_each_other_are_both_handled(inbox: Inbox) -> None:
    meeting = asyncio.Barrier(2)
    tries: list[int] = []

    async def cross(conn: AsyncConnection, webhook: Webhook) -> str:
        first, second = webhook.payload["locks"]
        tries.append(first)
        await (await conn.execute("select pg_advisory_xact_lock(%s)", (first,))).fetchone()
        if len(tries) <= 2:
            await meeting.wait()
        await conn.execute("select pg_advisory_xact_lock(%s)", (second,))
        await earn(conn, webhook)
        return "crossed"

    inbox.deliver({"locks": [1, 2], "customer": 1})
    inbox.deliver({"locks": [2, 1], "customer": 2})
    done = await handle_due(inbox.db, inbox.shop_id, {EARN: cross})
    assert (done.handled, done.failed, inbox.points()) == (2, 0, 2)
    assert len(tries) == 3, "one of them was chosen to give way, and tried again"


async def test_numbers_lose_no_digit(inbox: Inbox) -> None:
    seen: list[Any] = []

    async def note(_: AsyncConnection, webhook: Webhook) -> str:
        seen.append(dict(webhook.payload))
        return "seen"

    inbox.owner.execute(
        "insert into inbox (shop_id, delivery_id, topic, body_digest, payload) values (%s, 'x', 'test/note', '', %s)",
        (inbox.shop_id, '{"id": 820982911946154508, "subtotal": 89.990, "tax": 0.1}'),
    )
    await handle_due(inbox.db, inbox.shop_id, {"test/note": note})
    assert seen == [{"id": 820982911946154508, "subtotal": Decimal("89.990"), "tax": Decimal("0.1")}]
    assert {type(value) for value in seen[0].values()} == {int, Decimal}


async def test_a_topic_that_nobody_handles_is_done_with(inbox: Inbox) -> None:
    inbox.deliver({}, topic="themes/publish")
    assert (await inbox.handle()).handled == 1
    assert inbox.outcomes() == [("themes/publish", NOT_HANDLED)]


async def test_of_a_removed_shop_only_what_concerns_its_end_is_handled(inbox: Inbox) -> None:
    async def note(_: AsyncConnection, __: Webhook) -> str:
        return "handled"

    async with inbox.db.shop(inbox.shop_id) as conn:
        await remove_shop(conn, inbox.shop_id)
    topics = [*sorted(TOPICS_OF_REMOVED_SHOPS), "orders/paid", "themes/publish"]
    for topic in topics:
        inbox.deliver({}, topic=topic)
    inbox.handlers = dict.fromkeys([*TOPICS_OF_REMOVED_SHOPS, "orders/paid"], note)
    await inbox.handle_all()
    assert dict(inbox.outcomes()) == {
        **dict.fromkeys(TOPICS_OF_REMOVED_SHOPS, "handled"),
        "orders/paid": NOT_INSTALLED,
        "themes/publish": NOT_INSTALLED,
    }


async def test_a_burst_takes_no_more_claims_than_it_fills(inbox: Inbox) -> None:
    inbox.deliver({"customer": 1}, count=5 * CLAIM_ROWS_MAX)

    async def note(_: AsyncConnection, __: Webhook) -> str:
        return "seen"

    inbox.handlers = {EARN: note}
    assert [done.handled for done in await inbox.handle_all()] == [CLAIM_ROWS_MAX] * 5


async def test_shops_are_found_by_what_is_due_in_them_and_touch_only_their_own(inbox: Inbox) -> None:
    async with inbox.db.unscoped() as conn:
        other, _ = await add_shop(conn, "other.myshopify.com", None)
        idle, _ = await add_shop(conn, "idle.myshopify.com", None)
    theirs = Inbox(inbox.db, inbox.owner, other.id)
    inbox.deliver({"customer": 1})
    theirs.deliver({"customer": 1})
    Inbox(inbox.db, inbox.owner, idle.id).deliver({"customer": 1})
    inbox.owner.execute("update inbox set due_at = 'infinity' where shop_id = %s", (idle.id,))

    async def found() -> list[int]:
        async with inbox.db.unscoped() as conn:
            return [row[0] for row in await (await conn.execute("select shops_with_inbox()")).fetchall()]

    assert await found() == sorted([inbox.shop_id, other.id])
    await inbox.handle_all()
    assert await found() == [other.id]
    assert inbox.ask("select count(*) from inbox where handled_at is not null") == 1


async def test_what_was_handled_goes_after_a_month_and_what_was_given_up_stays_as_long_as_history(inbox: Inbox) -> None:
    inbox.deliver({"customer": 1}, count=6)
    inbox.owner.execute(
        """
        update inbox i
        set
          received_at = now() - interval '500 days',
          due_at = case when n <= 2 then now() - interval '500 days' end,
          handled_at = now() - make_interval(days => case n when 3 then 31 when 4 then 29 end),
          failed_at = now() - make_interval(days => case n when 5 then 399 when 6 then 401 end),
          outcome = n::text
        from (select id, row_number() over (order by id) as n from inbox) r
        where r.id = i.id
        """
    )
    assert await prune_history(inbox.db, 400) == 2
    assert [outcome for _, outcome in inbox.outcomes()] == ["1", "2", "4", "5"]
    assert await prune_history(inbox.db, 7) == 2
    assert [outcome for _, outcome in inbox.outcomes()] == ["1", "2"], "what waits is never history"
