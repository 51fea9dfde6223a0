"""Statements: pages of entries, newest first, and the balance as of a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from metafield_sync.ledger.posting import Posted, Posting, post, post_batch
from metafield_sync.ledger.statements import balance_as_of, statement_page

if TYPE_CHECKING:
    import psycopg

    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.ledger.posting import Entry

ENTRIES = 7


@pytest.fixture
async def entries(db: Database, shop_id: ShopId) -> list[Entry]:
    """Seven entries of one customer, each posted by itself, oldest first; a second customer has one beside them."""
    await post(db, shop_id, "test", Posting(shopify_customer_id=8, amount=100, reason="other"))
    wishes = [
        Posting(shopify_customer_id=7, amount=number, reason="order", external_id=f"o{number}", metadata={"n": number})
        for number in range(1, ENTRIES + 1)
    ]
    return [(await post(db, shop_id, "test", wish)).entry for wish in wishes]


async def pages(db: Database, shop_id: ShopId, customer_id: UUID, limit: int) -> list[list[Entry]]:
    """Every page, one after the other, as a reader turns them."""
    turned: list[list[Entry]] = []
    before: int | None = None
    while True:
        async with db.shop(shop_id) as conn:
            page = await statement_page(conn, shop_id, customer_id, before_sequence=before, limit=limit)
        if not page:
            return turned
        turned.append(page)
        before = page[-1].sequence


@pytest.mark.parametrize("limit", [1, 3, ENTRIES, 50])
async def test_pages_hold_every_entry_once_newest_first(
    db: Database, shop_id: ShopId, entries: list[Entry], limit: int
) -> None:
    turned = await pages(db, shop_id, entries[0].customer_id, limit)
    assert [entry for page in turned for entry in page] == entries[::-1]
    assert all(len(page) == limit for page in turned[:-1])


async def test_an_entry_posted_while_pages_are_turned_moves_none_of_them(
    db: Database, shop_id: ShopId, entries: list[Entry]
) -> None:
    customer_id = entries[0].customer_id
    async with db.shop(shop_id) as conn:
        first = await statement_page(conn, shop_id, customer_id, before_sequence=None, limit=3)
    await post(db, shop_id, "test", Posting(customer_id=customer_id, amount=1, reason="order"))
    async with db.shop(shop_id) as conn:
        rest = await statement_page(conn, shop_id, customer_id, before_sequence=first[-1].sequence, limit=50)
    assert [*first, *rest] == entries[::-1]


async def test_a_customer_without_entries_has_an_empty_statement_and_nothing(db: Database, shop_id: ShopId) -> None:
    nobody = uuid4()
    assert await pages(db, shop_id, nobody, 50) == []
    async with db.shop(shop_id) as conn:
        assert await balance_as_of(conn, shop_id, nobody, datetime.now(UTC)) == (0, 0)


async def test_the_balance_as_of_a_time_is_that_of_the_last_entry_recorded_by_then(
    db: Database, shop_id: ShopId, entries: list[Entry]
) -> None:
    customer_id = entries[0].customer_id
    async with db.shop(shop_id) as conn:
        for entry in entries:
            found = await balance_as_of(conn, shop_id, customer_id, entry.created_at)
            assert found == (entry.balance_after, entry.sequence)
        just_before = entries[3].created_at - timedelta(microseconds=1)
        assert await balance_as_of(conn, shop_id, customer_id, just_before) == (6, 3)
        assert await balance_as_of(conn, shop_id, customer_id, datetime(2000, 1, 1, tzinfo=UTC)) == (0, 0)
        assert await balance_as_of(conn, shop_id, customer_id, datetime(9000, 1, 1, tzinfo=UTC)) == (28, 7)


async def test_when_it_happened_does_not_change_what_was_known_then(
    db: Database, shop_id: ShopId, entries: list[Entry]
) -> None:
    last = entries[-1]
    long_ago = datetime(2001, 1, 1, 12, tzinfo=UTC)
    posted = await post(
        db, shop_id, "test", Posting(customer_id=last.customer_id, amount=50, reason="found", occurred_at=long_ago)
    )
    assert posted.entry.occurred_at == long_ago
    assert posted.entry.created_at >= last.created_at
    async with db.shop(shop_id) as conn:
        assert await balance_as_of(conn, shop_id, last.customer_id, long_ago) == (0, 0)
        assert await balance_as_of(conn, shop_id, last.customer_id, last.created_at) == (28, 7)


async def test_entries_of_one_batch_are_recorded_at_one_time_and_the_last_of_them_counts(
    db: Database, shop_id: ShopId
) -> None:
    wishes = [Posting(shopify_customer_id=7, amount=amount, reason="order") for amount in (1, 2, 3)]
    outcomes = await post_batch(db, shop_id, "test", wishes)
    made = [outcome.entry for outcome in outcomes if isinstance(outcome, Posted)]
    assert len({entry.created_at for entry in made}) == 1
    async with db.shop(shop_id) as conn:
        assert await balance_as_of(conn, shop_id, made[0].customer_id, made[0].created_at) == (6, 3)


async def test_emptied_metadata_leaves_the_entry_as_it_was(
    db: Database, shop_id: ShopId, entries: list[Entry], owner: psycopg.Connection
) -> None:
    async with db.shop(shop_id) as conn:
        await conn.execute("delete from ledger_metadata where customer_id = %s", (entries[0].customer_id,))
    (page,) = await pages(db, shop_id, entries[0].customer_id, 50)
    assert [entry.metadata for entry in page] == [None] * ENTRIES
    assert [entry.amount for entry in page] == [entry.amount for entry in entries[::-1]]
    replay = await post(db, shop_id, "test", Posting(shopify_customer_id=7, amount=1, reason="order", external_id="o1"))
    assert (replay.is_new, replay.entry.metadata) == (False, None)
    assert owner.execute("select count(*) from ledger_entries").fetchone() == (ENTRIES + 1,)
