"""Posting: what the ledger takes, what it refuses, and what stays true."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg
import pytest

from metafield_sync.ledger.posting import (
    POINTS_MAX,
    BalanceOutOfRange,
    EntryNotFound,
    IdempotencyConflict,
    InsufficientBalance,
    Posted,
    Posting,
    PostingToUnknownCustomer,
    post,
    post_batch,
    reverse,
)

if TYPE_CHECKING:
    from metafield_sync.db.database import Database, ShopId

ACTOR = "test"


async def test_a_posting_creates_the_customer_it_names(db: Database, shop_id: ShopId) -> None:
    posted = await post(db, shop_id, ACTOR, Posting(shopify_customer_id=7, amount=10, reason="order"))
    assert (posted.entry.sequence, posted.entry.balance_after, posted.balance, posted.is_new) == (
        1,
        10,
        10,
        True,
    )
    again = await post(db, shop_id, ACTOR, Posting(customer_id=posted.entry.customer_id, amount=-4, reason="spent"))
    assert (again.entry.sequence, again.balance) == (2, 6)


async def test_the_same_request_again_returns_the_first_entry(db: Database, shop_id: ShopId) -> None:
    wish = Posting(shopify_customer_id=7, amount=10, reason="order", external_id="o1", metadata={"a": [1, None]})
    first = await post(db, shop_id, ACTOR, wish)
    again = await post(db, shop_id, "somebody else", wish)
    assert again.entry == first.entry
    assert again.entry.metadata == {"a": [1, None]}
    assert not again.is_new


async def test_a_key_with_another_amount_or_reason_is_refused(db: Database, shop_id: ShopId) -> None:
    await post(db, shop_id, ACTOR, Posting(shopify_customer_id=7, amount=10, reason="order", external_id="o1"))
    for amount, reason in ((11, "order"), (10, "gift")):
        with pytest.raises(IdempotencyConflict):
            await post(
                db,
                shop_id,
                ACTOR,
                Posting(shopify_customer_id=7, amount=amount, reason=reason, external_id="o1"),
            )


async def test_a_refused_posting_creates_no_customer(db: Database, shop_id: ShopId, owner: psycopg.Connection) -> None:
    with pytest.raises(InsufficientBalance):
        await post(db, shop_id, ACTOR, Posting(shopify_customer_id=7, amount=-1, reason="spent"))
    assert owner.execute("select count(*) from customers").fetchone() == (0,)


async def test_below_zero_only_when_allowed(db: Database, shop_id: ShopId) -> None:
    wish = Posting(shopify_customer_id=7, amount=-5, reason="clawback", allow_negative=True)
    assert (await post(db, shop_id, ACTOR, wish)).balance == -5
    # Adding to a negative balance needs no leave, even if it stays below zero.
    assert (await post(db, shop_id, ACTOR, Posting(shopify_customer_id=7, amount=2, reason="order"))).balance == -3


async def test_a_balance_stays_within_what_shopify_can_show(db: Database, shop_id: ShopId) -> None:
    await post(db, shop_id, ACTOR, Posting(shopify_customer_id=7, amount=POINTS_MAX, reason="all"))
    with pytest.raises(BalanceOutOfRange):
        await post(db, shop_id, ACTOR, Posting(shopify_customer_id=7, amount=1, reason="one more"))


async def test_an_unknown_customer_is_not_found(db: Database, shop_id: ShopId) -> None:
    with pytest.raises(PostingToUnknownCustomer):
        await post(db, shop_id, ACTOR, Posting(customer_id=uuid4(), amount=1, reason="x"))


async def test_a_batch_adds_up_in_order_and_a_refusal_leaves_its_neighbours(db: Database, shop_id: ShopId) -> None:
    outcomes = await post_batch(
        db,
        shop_id,
        ACTOR,
        [
            Posting(shopify_customer_id=7, amount=10, reason="a", external_id="k1"),
            Posting(shopify_customer_id=8, amount=-1, reason="b"),
            Posting(shopify_customer_id=7, amount=-30, reason="c", external_id="k2"),
            Posting(shopify_customer_id=7, amount=25, reason="d"),
            Posting(shopify_customer_id=7, amount=-30, reason="c", external_id="k2"),
            Posting(shopify_customer_id=7, amount=10, reason="a", external_id="k1"),
            Posting(shopify_customer_id=7, amount=11, reason="a", external_id="k1"),
            Posting(customer_id=uuid4(), amount=11, reason="a"),
        ],
    )
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [
        Posted, InsufficientBalance, InsufficientBalance, Posted, Posted, Posted, IdempotencyConflict,
        PostingToUnknownCustomer,
    ]  # fmt: skip
    first, second, third, replay = (outcomes[i] for i in (0, 3, 4, 5))
    assert isinstance(first, Posted)
    assert isinstance(second, Posted)
    assert isinstance(third, Posted)
    assert isinstance(replay, Posted)
    assert [p.entry.sequence for p in (first, second, third)] == [1, 2, 3]
    assert [p.entry.balance_after for p in (first, second, third)] == [10, 35, 5]
    assert replay.entry == first.entry
    assert not replay.is_new


async def test_a_batch_knows_one_customer_by_both_ids(db: Database, shop_id: ShopId) -> None:
    known = await post(db, shop_id, ACTOR, Posting(shopify_customer_id=7, amount=1, reason="a"))
    outcomes = await post_batch(
        db,
        shop_id,
        ACTOR,
        [
            Posting(shopify_customer_id=7, amount=2, reason="b", external_id="k"),
            Posting(customer_id=known.entry.customer_id, amount=2, reason="b", external_id="k"),
            Posting(customer_id=known.entry.customer_id, amount=3, reason="c"),
        ],
    )
    assert [o.entry.sequence for o in outcomes if isinstance(o, Posted)] == [2, 2, 3]
    assert [o.balance for o in outcomes if isinstance(o, Posted)] == [3, 3, 6]


async def test_an_entry_is_reversed_once(db: Database, shop_id: ShopId) -> None:
    posted = await post(db, shop_id, ACTOR, Posting(shopify_customer_id=7, amount=10, reason="order"))
    reversal = await reverse(db, shop_id, ACTOR, posted.entry.key, reason="mistake")
    assert (reversal.entry.amount, reversal.entry.reverses, reversal.balance) == (-10, 1, 0)
    again = await reverse(db, shop_id, ACTOR, posted.entry.key, reason="another reason")
    assert (again.entry, again.is_new) == (reversal.entry, False)


async def test_a_reversal_of_spent_points_needs_leave_to_go_below_zero(db: Database, shop_id: ShopId) -> None:
    posted = await post(db, shop_id, ACTOR, Posting(shopify_customer_id=7, amount=10, reason="order"))
    await post(db, shop_id, ACTOR, Posting(shopify_customer_id=7, amount=-8, reason="spent"))
    with pytest.raises(InsufficientBalance):
        await reverse(db, shop_id, ACTOR, posted.entry.key, reason="refund")
    assert (await reverse(db, shop_id, ACTOR, posted.entry.key, reason="refund", allow_negative=True)).balance == -8


@pytest.mark.parametrize("key", ["nonsense", f"{uuid4()}-1", f"{uuid4()}-0", f"{uuid4()}-99999999999999999999"])
async def test_an_unknown_entry_cannot_be_reversed(db: Database, shop_id: ShopId, key: str) -> None:
    with pytest.raises(EntryNotFound):
        await reverse(db, shop_id, ACTOR, key, reason="x")


async def test_a_damaged_balance_never_spoils_the_next_entry(
    db: Database, shop_id: ShopId, owner: psycopg.Connection
) -> None:
    await post(db, shop_id, ACTOR, Posting(shopify_customer_id=7, amount=10, reason="order"))
    owner.execute("update customers set current_balance = 99")
    posted = await post(db, shop_id, ACTOR, Posting(shopify_customer_id=7, amount=1, reason="order"))
    assert (posted.entry.balance_after, posted.entry.sequence) == (11, 2)
    assert owner.execute("select current_balance from customers").fetchone() == (11,)
    assert owner.execute("select stored, calculated, found_by from balance_corrections").fetchall() == [
        (99, 10, "posting")
    ]


async def test_recorded_times_never_run_backwards(db: Database, shop_id: ShopId, owner: psycopg.Connection) -> None:
    for _ in range(20):
        await post(db, shop_id, ACTOR, Posting(shopify_customer_id=7, amount=1, reason="order"))
    times = [row[0] for row in owner.execute("select created_at from ledger_entries order by sequence")]
    assert times == sorted(times)


async def test_a_thousand_postings_at_once_half_of_them_repeats(
    db: Database, shop_id: ShopId, owner: psycopg.Connection
) -> None:
    wishes = [
        Posting(shopify_customer_id=1 + n % 10, amount=1 + n % 7, reason="order", external_id=f"k{n}")
        for n in range(500)
    ] * 2
    results = await asyncio.gather(*(post(db, shop_id, ACTOR, wish) for wish in wishes))
    assert sum(result.is_new for result in results) == 500
    by_key: dict[tuple[UUID, str | None], set[int]] = {}
    for result in results:
        by_key.setdefault((result.entry.customer_id, result.entry.external_id), set()).add(result.entry.sequence)
    assert len(by_key) == 500
    assert all(len(sequences) == 1 for sequences in by_key.values()), "both askers get the one entry"
    expected = [(c, sum(1 + n % 7 for n in range(500) if 1 + n % 10 == c), 50) for c in range(1, 11)]
    assert (
        owner.execute(
            """
        select c.shopify_customer_id, c.current_balance, count(*)
        from customers c
        join ledger_entries l on l.customer_id = c.id
        group by c.shop_id, c.id
        having
          min(l.sequence) = 1
          and max(l.sequence) = count(distinct l.sequence)
          and sum(l.amount) = c.current_balance
        order by 1
        """
        ).fetchall()
        == expected
    )


@pytest.mark.parametrize(
    "statement",
    ["update ledger_entries set amount = 1", "delete from ledger_entries", "truncate ledger_entries cascade"],
)
async def test_entries_are_history_for_the_application_and_for_the_owner(
    db: Database, shop_id: ShopId, owner: psycopg.Connection, statement: str
) -> None:
    await post(db, shop_id, ACTOR, Posting(shopify_customer_id=7, amount=10, reason="order"))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with db.shop(shop_id) as conn:
            await conn.execute(statement.encode())
    with pytest.raises(psycopg.errors.RestrictViolation):
        owner.execute(statement.encode())
