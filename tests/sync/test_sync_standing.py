"""How things stand: each status for its reason, failures page by page, and the shop in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sync_support import Stage

from devstore import Fault
from metafield_sync.customers.identity import CustomerNotFound
from metafield_sync.shopify import set_cost
from metafield_sync.shops.registry import PAUSED_BY_STAFF, pause_shop
from metafield_sync.sync.one_customer import sync_customer
from metafield_sync.sync.standing import (
    CustomerStanding,
    NotDismissible,
    SyncFailure,
    customer_page,
    dismiss_failure,
    failure_page,
    one_standing,
    shop_standing,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

WRITE = "metafieldsSet"


async def failures(stage: Stage, *, after: UUID | None = None, limit: int = 50) -> list[SyncFailure]:
    async with stage.db.shop(stage.shop_id) as conn:
        return await failure_page(conn, stage.shop_id, after=after, limit=limit)


async def dismiss(stage: Stage, customer_id: UUID) -> None:
    async with stage.db.shop(stage.shop_id) as conn:
        await dismiss_failure(conn, stage.shop_id, customer_id)


async def three_gone(stage: Stage) -> list[UUID]:
    """Five customers, of whom 2, 3 and 5 are gone from Shopify and known to be; our ids of these, sorted."""
    ids = await stage.post_all({n: n for n in range(1, 6)})
    for customer in (2, 3, 5):
        stage.shopify.delete_customer(customer)
    await stage.mirror.drain(stage.shop_id)
    return sorted(ids[n] for n in (2, 3, 5))


async def test_each_customer_is_called_after_what_is_worst_about_them(stage: Stage) -> None:
    await stage.post_all({n: n for n in range(1, 4)})
    assert (await stage.standing(1)).status == "stale"
    stage.shopify.delete_customer(2)
    await stage.mirror.drain(stage.shop_id)
    await stage.post(3, 1)
    stage.store.world.faults.add(Fault(status=503, operation=WRITE))
    await stage.mirror.drain(stage.shop_id)
    await stage.post(4, 4)
    assert [(await stage.standing(n)).status for n in range(1, 5)] == ["in_step", "missing", "in_doubt", "stale"]
    stage.owner.execute("update mirror_states set in_doubt = false")
    assert (await stage.standing(3)).status == "failing"


async def test_a_standing_tells_ledger_and_mirror_side_by_side(stage: Stage) -> None:
    one = await stage.post(1, 10)
    await stage.mirror.drain(stage.shop_id)
    await stage.post(1, -3)
    standing = await stage.standing(1)
    assert (standing.id, standing.shopify_customer_id) == (one, 1)
    assert (standing.balance, standing.sequence, standing.pushed_balance) == (7, 2, 10)
    assert standing.stale_since is not None
    assert standing.pushed_at is not None
    assert standing.pushed_at <= standing.stale_since
    assert (standing.attempts, standing.error) == (0, None)


async def test_an_unknown_customer_has_no_standing(stage: Stage) -> None:
    async with stage.db.shop(stage.shop_id) as conn:
        with pytest.raises(CustomerNotFound):
            await one_standing(conn, stage.shop_id, customer_id=uuid4())
        with pytest.raises(CustomerNotFound):
            await one_standing(conn, stage.shop_id, shopify_customer_id=99)


async def by_page(turn: Callable[[UUID | None], Awaitable[list[CustomerStanding]]]) -> list[UUID]:
    ids: list[UUID] = []
    while page := await turn(ids[-1] if ids else None):
        assert len(page) <= 2
        ids += [standing.id for standing in page]
    return ids


async def test_customers_come_page_by_page_each_once(stage: Stage) -> None:
    ids = await stage.post_all({n: n for n in range(1, 6)})

    async def turn(after: UUID | None) -> list[CustomerStanding]:
        async with stage.db.shop(stage.shop_id) as conn:
            return await customer_page(conn, stage.shop_id, after=after, limit=2)

    assert await by_page(turn) == sorted(ids.values())


async def test_failures_come_page_by_page_each_once(stage: Stage) -> None:
    gone = await three_gone(stage)
    first = await failures(stage, limit=2)
    rest = await failures(stage, after=first[-1].customer_id, limit=2)
    assert [failure.customer_id for failure in (*first, *rest)] == gone
    assert {failure.status for failure in first} == {"missing"}
    assert {failure.next_attempt_at for failure in first} == {None}
    assert all("no such customer" in failure.error for failure in first)


async def test_who_fails_for_now_says_when_it_is_tried_again(stage: Stage) -> None:
    await stage.post(1, 10)
    stage.store.world.faults.add(Fault(status=503, operation=WRITE))
    await stage.mirror.drain(stage.shop_id)
    (failure,) = await failures(stage)
    assert (failure.status, failure.attempts) == ("in_doubt", 1)
    assert failure.next_attempt_at is not None
    assert 1 <= (failure.next_attempt_at - failure.since).total_seconds() <= 3


async def test_in_a_paused_shop_everybody_stale_fails_for_that_reason(stage: Stage) -> None:
    await stage.post_all({1: 1, 2: 2})
    await stage.mirror.drain(stage.shop_id)
    await stage.post(2, 1)
    async with stage.db.unscoped() as conn:
        await pause_shop(conn, stage.shop_id, code=PAUSED_BY_STAFF, detail="stocktaking", resumes_by_itself=False)
    (failure,) = await failures(stage)
    assert (failure.shopify_customer_id, failure.status, failure.error) == (2, "paused", "stocktaking")
    assert (await stage.standing(1)).status == "in_step"


async def test_a_dismissed_customer_is_on_no_list_and_in_no_count(stage: Stage) -> None:
    gone = await three_gone(stage)
    for customer_id in (gone[0], gone[0], gone[1]):
        await dismiss(stage, customer_id)
    assert [failure.customer_id for failure in await failures(stage)] == gone[2:]
    result = await stage.run()
    assert (result["total"], result["synced"], result["errors"]) == (3, 2, 1)
    assert [row["customerId"] for row in result["failedSyncs"]] == [str(gone[2])]
    assert len(stage.writes()) == 2, "who is gone is looked for by reading; nobody is written again"


async def test_a_dismissed_customer_who_is_synced_by_hand_counts_again(stage: Stage) -> None:
    gone = await three_gone(stage)
    await dismiss(stage, gone[0])
    told = await sync_customer(stage.mirror, stage.shop_id, gone[0], wait_s=10)
    assert not told.synced
    assert gone[0] in [failure.customer_id for failure in await failures(stage)]
    assert (await stage.run())["total"] == 5


async def test_only_who_is_known_to_be_gone_can_be_dismissed(stage: Stage) -> None:
    one = await stage.post(1, 10)
    with pytest.raises(NotDismissible, match="stale, not missing"):
        await dismiss(stage, one)
    with pytest.raises(CustomerNotFound):
        await dismiss(stage, uuid4())


async def test_the_shop_in_numbers(stage: Stage) -> None:
    await three_gone(stage)
    await stage.post(1, 1)
    stage.store.world.faults.add(Fault(status=503, operation=WRITE))
    await stage.mirror.drain(stage.shop_id)
    await stage.post(4, 1)
    stage.owner.execute("update mirror_states set stale_since = stale_since - interval '1 hour' where in_doubt")
    async with stage.db.shop(stage.shop_id) as conn:
        numbers = await shop_standing(conn, stage.shop_id)
    assert (numbers["customers"], numbers["missing"], numbers["in_doubt"]) == (5, 3, 1)
    assert (numbers["waiting"], numbers["failing"]) == (1, 0)
    assert 3_600 <= numbers["oldest_s"] < 3_660
    calls = list(stage.store.world.calls.entries)
    assert (numbers["calls"], numbers["outcomes_unknown"], numbers["throttled"]) == (len(calls), 1, 0)
    unanswered = set_cost(1)
    assert numbers["points_spent"] == unanswered + sum(call.actual or 0 for call in calls)
    assert (numbers["customers_pushed"], numbers["budget_maximum"], numbers["budget_restore_rate"]) == (2, 2000, 100)


async def test_fleet_counts_add_the_shops_up(stage: Stage) -> None:
    await three_gone(stage)
    await stage.post(1, 1)
    async with stage.db.unscoped() as conn:
        row = await (
            await conn.execute("select shops_active, stale, missing, customers_pushed from fleet_counts()")
        ).fetchone()
    assert row == (1, 1, 3, 2)
