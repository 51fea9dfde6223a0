"""Merged customers: one has what two had, whatever comes later and by whichever id, and Shopify shows it."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sync_support import Stage, end_lease

from metafield_sync.customers.identity import ShopifyCustomerId, find_by_shopify_id
from metafield_sync.db.database import again_after_deadlock
from metafield_sync.ledger.posting import IdempotencyConflict, NotReversible, Posted, Posting, post, post_batch, reverse
from metafield_sync.sync.errand_kinds import ERRAND_KINDS
from metafield_sync.sync.errand_rounds import go_on_errands
from metafield_sync.sync.one_customer import sync_customer
from metafield_sync.sync.people.merges import merge_customers, note_merge
from metafield_sync.sync.standing import one_standing

if TYPE_CHECKING:
    import psycopg

    from metafield_sync.db.database import Database, ShopId

A, B, C = 1, 2, 3
ADDING_UP = """
select bool_and(c.current_balance = coalesce(l.total, 0))
from customers c
left join (select customer_id, sum(amount) as total from ledger_entries group by 1) l on l.customer_id = c.id
"""


async def merge(db: Database, shop_id: ShopId, deleted: int, kept: int) -> str:
    async def transact() -> str:
        async with db.shop(shop_id) as conn:
            return await merge_customers(conn, shop_id, kept_shopify_id=kept, deleted_shopify_id=deleted)

    return await again_after_deadlock(transact)


async def earn(db: Database, shop_id: ShopId, customer: int | UUID, amount: int, key: str | None = None) -> Posted:
    by_our_id = isinstance(customer, UUID)
    posting = Posting(
        customer_id=customer if by_our_id else None,
        shopify_customer_id=None if by_our_id else customer,
        amount=amount,
        reason="order",
        external_id=key,
        allow_negative=True,
    )
    return await post(db, shop_id, "test", posting)


def balances(owner: psycopg.Connection) -> dict[int, int]:
    assert owner.execute(ADDING_UP).fetchone() in ((True,), (None,))
    return dict(owner.execute("select shopify_customer_id, current_balance from customers").fetchall())


def entries(owner: psycopg.Connection) -> int:
    row = owner.execute("select count(*) from ledger_entries").fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("amount", [30, -30])
async def test_the_points_move_and_both_histories_stay(
    db: Database, shop_id: ShopId, owner: psycopg.Connection, amount: int
) -> None:
    loser = (await earn(db, shop_id, A, amount)).entry.customer_id
    survivor = (await earn(db, shop_id, B, 5)).entry.customer_id
    await merge(db, shop_id, A, B)
    assert balances(owner) == {A: 0, B: amount + 5}
    history = owner.execute(
        "select customer_id, amount, reason, external_id from ledger_entries order by customer_id = %s, sequence",
        (loser,),
    ).fetchall()
    assert history == [
        (survivor, 5, "order", None),
        (survivor, amount, "merge", f"merge/from/{loser}"),
        (loser, amount, "order", None),
        (loser, -amount, "merge", f"merge/into/{survivor}"),
    ]


async def test_what_is_posted_to_either_afterwards_is_the_survivors(
    db: Database, shop_id: ShopId, owner: psycopg.Connection
) -> None:
    loser = (await earn(db, shop_id, A, 1)).entry.customer_id
    await merge(db, shop_id, A, B)
    for customer in (A, loser, B):
        await earn(db, shop_id, customer, 10)
    by_each = [
        Posting(shopify_customer_id=A, amount=100, reason="x"),
        Posting(customer_id=loser, amount=100, reason="x"),
    ]
    outcomes = await post_batch(db, shop_id, "test", by_each)
    assert [outcome.balance for outcome in outcomes if isinstance(outcome, Posted)] == [131, 231]
    assert balances(owner) == {A: 0, B: 231}


async def test_a_merge_with_somebody_unknown_makes_later_events_land_right(
    db: Database, shop_id: ShopId, owner: psycopg.Connection
) -> None:
    await merge(db, shop_id, A, B)
    await earn(db, shop_id, A, 7)
    assert balances(owner) == {A: 0, B: 7}


@pytest.mark.parametrize("order", list(itertools.permutations([(A, B), (B, C), (A, B)])))
async def test_a_chain_ends_the_same_in_every_order_and_doubled(
    db: Database, shop_id: ShopId, owner: psycopg.Connection, order: tuple[tuple[int, int], ...]
) -> None:
    for number, customer in enumerate((A, B, C)):
        await earn(db, shop_id, customer, 10**number, key="first")
    for deleted, kept in order:
        await merge(db, shop_id, deleted, kept)
    await earn(db, shop_id, A, 1000)
    assert balances(owner) == {A: 0, B: 0, C: 1111}
    made = entries(owner)
    for number, customer in itertools.product(range(3), (A, B, C)):
        again = await earn(db, shop_id, customer, 10**number, key="first")
        assert not again.is_new, "each of the three used the key for a posting of their own"
        assert again.entry.amount == 10**number
    for way in (post_one, post_in_batch):
        with pytest.raises(IdempotencyConflict):
            await way(db, shop_id, Posting(shopify_customer_id=B, amount=3, reason="order", external_id="first"))
    assert entries(owner) == made


async def post_one(db: Database, shop_id: ShopId, posting: Posting) -> Any:
    return await post(db, shop_id, "test", posting)


async def post_in_batch(db: Database, shop_id: ShopId, posting: Posting) -> Any:
    (outcome,) = await post_batch(db, shop_id, "test", [posting])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def test_a_circle_and_a_second_survivor_are_ignored(
    db: Database, shop_id: ShopId, owner: psycopg.Connection
) -> None:
    await earn(db, shop_id, A, 4)
    await merge(db, shop_id, A, B)
    assert "ignored" in await merge(db, shop_id, B, A)
    assert "ignored" in await merge(db, shop_id, A, C)
    assert "before" in await merge(db, shop_id, A, B)
    assert balances(owner) == {A: 0, B: 4, C: 0}


async def test_an_entry_from_before_is_taken_back_once_and_from_the_survivor(
    db: Database, shop_id: ShopId, owner: psycopg.Connection
) -> None:
    theirs = (await earn(db, shop_id, A, 10)).entry
    own = (await earn(db, shop_id, B, 100)).entry
    await merge(db, shop_id, A, B)
    first = await reverse(db, shop_id, "test", theirs.key, reason="undo")
    assert (first.entry.customer_id, first.entry.reverses_key, first.balance) == (own.customer_id, theirs.key, 100)
    assert not (await reverse(db, shop_id, "test", theirs.key, reason="undo")).is_new
    second = await reverse(db, shop_id, "test", own.key, reason="undo")
    assert (second.is_new, second.entry.reverses_key) == (True, own.key), "both are number 1, of different customers"
    with pytest.raises(NotReversible):
        await reverse(db, shop_id, "test", f"{theirs.customer_id}-2", reason="undo")
    assert balances(owner) == {A: 0, B: 0}


async def test_postings_during_merges_are_neither_lost_nor_doubled(
    db: Database, shop_id: ShopId, owner: psycopg.Connection
) -> None:
    ids = [(await earn(db, shop_id, customer, 1)).entry.customer_id for customer in (A, B, C)]

    async def keep_posting(worker: int) -> int:
        posted = 0
        for number in range(30):
            named = (A, B, C, *ids)[(worker + number) % 6]
            posted += (await earn(db, shop_id, named, 1, key=f"{worker}/{number}")).is_new
            await post_batch(db, shop_id, "test", [Posting(shopify_customer_id=C, amount=1, reason="tick")] * 2)
        return posted

    async def keep_merging() -> None:
        for deleted, kept in ((A, B), (B, A), (A, B), (B, C)):
            await asyncio.sleep(0)
            await merge(db, shop_id, deleted, kept)

    posting = [asyncio.create_task(keep_posting(worker)) for worker in range(5)]
    await asyncio.gather(keep_merging(), keep_merging())
    assert sum(await asyncio.gather(*posting)) == 150
    assert balances(owner) == {A: 0, B: 0, C: 3 + 150 + 5 * 30 * 2}


async def test_the_same_request_racing_a_merge_counts_once(
    db: Database, shop_id: ShopId, owner: psycopg.Connection
) -> None:
    await earn(db, shop_id, A, 10, key="order/1")
    await asyncio.gather(
        merge(db, shop_id, A, B), *(earn(db, shop_id, A, 10, key="order/1") for _ in range(8)), merge(db, shop_id, A, B)
    )
    assert balances(owner) == {A: 0, B: 10}


async def test_the_survivor_is_pushed_and_the_loser_left_alone(stage: Stage) -> None:
    loser = await stage.post(A, 30)
    survivor = await stage.post(B, 5)
    await stage.run()
    assert stage.values()[B] == "5"
    stage.shopify.delete_customer(A)
    await note(stage, kept=B, deleted=A)
    report = await errands(stage)
    assert (report.done, report.failed) == (1, 0)
    result = await stage.run()
    assert (result["total"], result["synced"], result["errors"]) == (1, 1, 0)
    assert stage.values()[B] == "35"
    assert A not in stage.values()
    async with stage.db.shop(stage.shop_id) as conn:
        gone = await one_standing(conn, stage.shop_id, customer_id=loser)
        assert (gone.status, gone.merged_into, gone.balance) == ("merged", survivor, 0)
        assert (await find_by_shopify_id(conn, stage.shop_id, ShopifyCustomerId(A))).id == survivor
    asked = await sync_customer(stage.mirror, stage.shop_id, loser, wait_s=10)
    assert (asked.customer_id, asked.balance, asked.synced) == (survivor, 35, True)


async def test_the_survivor_is_pushed_though_the_balance_is_the_same(stage: Stage) -> None:
    await stage.post(B, 5)
    await stage.run()
    # Shopify has kept the other one's metafield.
    stage.overwrite(B, "99")
    stage.shopify.delete_customer(A)
    await note(stage, kept=B, deleted=A)
    await errands(stage)
    await stage.run()
    assert stage.values()[B] == "5"


async def test_a_merge_that_shopify_does_not_show_moves_nothing_and_is_asked_about_again(stage: Stage) -> None:
    await stage.post(A, 30)
    await stage.post(B, 5)
    await note(stage, kept=B, deleted=A)
    report = await errands(stage)
    assert report.failed == 1
    assert balances(stage.owner) == {A: 30, B: 5}
    error = stage.owner.execute("select error, attempts from errands where kind = 'merge'").fetchone()
    assert error is not None
    assert "does not show it" in error[0]
    stage.shopify.delete_customer(A)
    stage.owner.execute("update errands set due_at = now() where kind = 'merge'")
    assert (await errands(stage)).done == 1
    assert balances(stage.owner) == {A: 0, B: 35}


async def test_a_kept_one_who_was_merged_away_since_is_no_hindrance(stage: Stage) -> None:
    await stage.post(A, 1)
    for gone in (A, B):
        stage.shopify.delete_customer(gone)
    await note(stage, kept=B, deleted=A)
    assert (await errands(stage)).failed == 1
    await note(stage, kept=C, deleted=B)
    await errands(stage)
    stage.owner.execute("update errands set due_at = now() where kind = 'merge'")
    await errands(stage)
    assert balances(stage.owner) == {A: 0, B: 0, C: 1}


async def note(stage: Stage, *, kept: int, deleted: int) -> None:
    async with stage.db.shop(stage.shop_id) as conn:
        await note_merge(conn, stage.shop_id, kept=kept, deleted=deleted)


async def errands(stage: Stage) -> Any:
    await end_lease(stage)
    return await go_on_errands(stage.mirror, stage.shop_id, {"merge": ERRAND_KINDS["merge"]})
