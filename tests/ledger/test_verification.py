"""Verification: what is damaged is found, repaired from the ledger and recorded, and nothing else is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from metafield_sync.ledger.posting import Posted, Posting, post, post_batch
from metafield_sync.ledger.verification import REPAIR_CUSTOMERS_MAX, Discrepancy, verify
from metafield_sync.shops.registry import add_shop

if TYPE_CHECKING:
    from uuid import UUID

    import psycopg

    from metafield_sync.db.database import Database, ShopId

CUSTOMERS = 5
BALANCES = "select shopify_customer_id, current_balance from customers where shop_id = %s order by 1"
CORRECTIONS = "select customer_id, stored, calculated, found_by, run_id from balance_corrections order by stored"
DAMAGE = "update customers set current_balance = %s where shop_id = %s and shopify_customer_id = %s"


@pytest.fixture
async def ids(db: Database, shop_id: ShopId) -> dict[int, UUID]:
    """Our ids of customers 1 to 5, by Shopify id; customer n has 10·n points."""
    wishes = [Posting(shopify_customer_id=n, amount=10 * n, reason="order") for n in range(1, CUSTOMERS + 1)]
    outcomes = await post_batch(db, shop_id, "test", wishes)
    return {n: outcome.entry.customer_id for n, outcome in enumerate(outcomes, start=1) if isinstance(outcome, Posted)}


def right(shop_id: ShopId, owner: psycopg.Connection) -> bool:
    return owner.execute(BALANCES, (shop_id,)).fetchall() == [(n, 10 * n) for n in range(1, CUSTOMERS + 1)]


async def test_exactly_the_damaged_are_repaired_and_recorded(
    db: Database, shop_id: ShopId, owner: psycopg.Connection, ids: dict[int, UUID]
) -> None:
    owner.execute(DAMAGE, (1_000, shop_id, 2))
    owner.execute(DAMAGE, (-3, shop_id, 4))
    with capture_logs() as logs:
        found = await verify(db, shop_id)
    assert sorted(found, key=lambda it: it.shopify_customer_id) == [
        Discrepancy(ids[2], 2, 1_000, 20),
        Discrepancy(ids[4], 4, -3, 40),
    ]
    assert {it.shopify_customer_id: it.difference for it in found} == {2: -980, 4: 43}
    assert right(shop_id, owner)
    assert owner.execute(CORRECTIONS).fetchall() == [
        (ids[4], -3, 40, "verification", None),
        (ids[2], 1_000, 20, "verification", None),
    ]
    warned = [log for log in logs if log["log_level"] == "warning"]
    assert {(log["event"], log["customer_id"], log["stored"], log["calculated"]) for log in warned} == {
        ("Balance corrected", str(ids[2]), 1_000, 20),
        ("Balance corrected", str(ids[4]), -3, 40),
    }
    assert await verify(db, shop_id) == []
    assert len(owner.execute(CORRECTIONS).fetchall()) == 2


@pytest.mark.usefixtures("ids")
async def test_a_customer_without_entries_is_worth_nothing(
    db: Database, shop_id: ShopId, owner: psycopg.Connection
) -> None:
    owner.execute(
        "insert into customers (shop_id, shopify_customer_id, current_balance) values (%s, 99, 5)", (shop_id,)
    )
    (found,) = await verify(db, shop_id)
    assert (found.shopify_customer_id, found.stored, found.calculated) == (99, 5, 0)


async def test_a_repair_is_on_its_way_to_shopify(
    db: Database, shop_id: ShopId, owner: psycopg.Connection, ids: dict[int, UUID]
) -> None:
    owner.execute("update mirror_states set pushed_version = wanted_version, stale_since = null")
    owner.execute("alter table customers disable trigger balances_are_mirrored")
    owner.execute(DAMAGE, (7, shop_id, 3))
    owner.execute("alter table customers enable trigger balances_are_mirrored")
    await verify(db, shop_id)
    assert owner.execute("select customer_id from mirror_states where stale_since is not null").fetchall() == [
        (ids[3],)
    ]


@pytest.mark.usefixtures("ids")
async def test_a_dry_run_tells_and_changes_nothing(db: Database, shop_id: ShopId, owner: psycopg.Connection) -> None:
    owner.execute(DAMAGE, (7, shop_id, 3))
    with capture_logs() as logs:
        (found,) = await verify(db, shop_id, repair=False)
    assert (found.stored, found.calculated) == (7, 30)
    assert logs == []
    assert owner.execute("select current_balance from customers where shopify_customer_id = 3").fetchone() == (7,)
    assert owner.execute(CORRECTIONS).fetchall() == []


async def test_one_customer_is_verified_alone(
    db: Database, shop_id: ShopId, owner: psycopg.Connection, ids: dict[int, UUID]
) -> None:
    owner.execute(DAMAGE, (7, shop_id, 3))
    owner.execute(DAMAGE, (7, shop_id, 4))
    assert await verify(db, shop_id, customer_id=ids[1]) == []
    assert await verify(db, shop_id, customer_id=ids[3]) == [Discrepancy(ids[3], 3, 7, 30)]
    assert [it.shopify_customer_id for it in await verify(db, shop_id, repair=False)] == [4]


@pytest.mark.usefixtures("ids")
async def test_another_shop_is_left_alone(db: Database, shop_id: ShopId, owner: psycopg.Connection) -> None:
    async with db.unscoped() as conn:
        other, _ = await add_shop(conn, "other.myshopify.com", None)
    theirs = await post(db, other.id, "test", Posting(shopify_customer_id=1, amount=10, reason="order"))
    owner.execute("update customers set current_balance = 1 where shop_id = %s", (other.id,))
    assert await verify(db, shop_id) == []
    assert await verify(db, shop_id, customer_id=theirs.entry.customer_id) == []
    assert owner.execute(BALANCES, (other.id,)).fetchall() == [(1, 1)]
    assert right(shop_id, owner)


async def test_more_than_fit_one_repair_are_all_repaired(
    db: Database, shop_id: ShopId, owner: psycopg.Connection
) -> None:
    many = REPAIR_CUSTOMERS_MAX + 1
    owner.execute(
        """
        insert into customers (shop_id, shopify_customer_id, current_balance)
        select %s, n, n from generate_series(1, %s) as n
        """,
        (shop_id, many),
    )
    with capture_logs():
        assert len(await verify(db, shop_id)) == many
    assert await verify(db, shop_id) == []


@pytest.mark.usefixtures("ids")
async def test_postings_going_on_are_never_taken_for_damage(
    db: Database, shop_id: ShopId, owner: psycopg.Connection
) -> None:
    """Verifications and postings race for as long as the postings last."""
    rounds = 40
    found: list[Discrepancy] = []

    async def post_on() -> None:
        for number in range(rounds):
            wishes = [
                Posting(shopify_customer_id=n, amount=1 + (number + n) % 5, reason="order")
                for n in range(1, CUSTOMERS + 1)
            ]
            await post_batch(db, shop_id, "test", wishes)

    posting = [asyncio.create_task(post_on()) for _ in range(3)]
    looks = 0
    while not all(task.done() for task in posting):
        found += await verify(db, shop_id)
        looks += 1
    await asyncio.gather(*posting)
    assert looks > 5, "they have to overlap, or this proves nothing"
    assert found == []
    assert owner.execute("select count(*) from balance_corrections").fetchone() == (0,)
    total = owner.execute("select sum(amount), count(*) from ledger_entries").fetchone()
    assert owner.execute("select sum(current_balance) from customers").fetchone() == (total[0] if total else None,)
    assert total is not None
    assert total[1] == CUSTOMERS + 3 * rounds * CUSTOMERS
