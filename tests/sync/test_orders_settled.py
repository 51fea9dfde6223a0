"""Single stories of orders: what is posted, under which reason, and what staff are told."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from order_world import EPOCH, Line, Refund, World, shopifys_sample

from metafield_sync.db.database import again_after_deadlock
from metafield_sync.ledger.posting import POINTS_MAX, Posting, post
from metafield_sync.rewards.rule import EarningRule
from metafield_sync.sync.inbox.fields import trim
from metafield_sync.sync.orders.applying import apply_order, apply_refund
from metafield_sync.sync.orders.earnings import forget_orders
from metafield_sync.sync.orders.reading import read_order, read_refund
from metafield_sync.sync.orders.rules import list_rules, rule_of_order, save_rule
from metafield_sync.sync.orders.standing import OrderUnknown, order_standing
from metafield_sync.sync.people.merges import merge_customers
from metafield_sync.sync.people.redaction import redact_customer

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.sync.orders.standing import OrderStanding

ORDER = 1001
ANNA, BERT = 71, 72


@pytest.fixture
async def rule(db: Database, shop_id: ShopId) -> EarningRule:
    """One point a unit, from before the tests' orders on."""
    wanted = EarningRule(starts_at=EPOCH)
    async with db.shop(shop_id) as conn:
        await save_rule(conn, shop_id, wanted, "test")
    return wanted


@pytest.fixture
def world(rule: EarningRule) -> World:
    """An order of Anna's for two at 20.00, paid."""
    assert rule
    world = World(ORDER, customer=ANNA, status="paid")
    world.lines.append(Line(2_000, 2, gift_card=False, discount=0, tax=0, left=2))
    return world


class Shop:
    """One shop that is told of orders."""

    def __init__(self, db: Database, shop_id: ShopId, owner: psycopg.Connection) -> None:
        self.db, self.shop_id, self.owner = db, shop_id, owner

    async def told(self, world: World, changes: dict[str, Any] | None = None, *, later: int = 1) -> str:
        """Deliver the order as it is, `later` seconds after the last time."""
        world.updated += later
        return await self.hand(world.order_payload() | (changes or {}))

    async def hand(self, payload: dict[str, Any]) -> str:
        async def transact() -> str:
            async with self.db.shop(self.shop_id) as conn:
                return await apply_order(conn, self.shop_id, read_order(payload))

        return await again_after_deadlock(transact)

    async def refunded(self, payload: dict[str, Any]) -> str:
        async with self.db.shop(self.shop_id) as conn:
            return await apply_refund(conn, self.shop_id, *read_refund(payload))

    def entries(self) -> list[tuple[int, int, str, str]]:
        """(customer, points, reason, key), as they were posted."""
        return self.owner.execute(
            """
            select c.shopify_customer_id, l.amount, l.reason, l.external_id
            from ledger_entries l
            join customers c on c.shop_id = l.shop_id and c.id = l.customer_id
            where l.reason <> 'merge'
            order by l.external_id collate "C"
            """
        ).fetchall()

    def balances(self) -> dict[int | None, int]:
        return dict(self.owner.execute("select shopify_customer_id, current_balance from customers").fetchall())

    def wants_reading(self) -> bool:
        """Whether Shopify is to be asked for an order."""
        wanted = self.owner.execute("select count(*) from orders where read_wanted_at is not null").fetchone()
        return wanted != (0,)

    async def standing(self, number: int = ORDER) -> OrderStanding:
        async with self.db.shop(self.shop_id) as conn:
            return await order_standing(conn, self.shop_id, number)


@pytest.fixture
def shop(db: Database, shop_id: ShopId, owner: psycopg.Connection) -> Shop:
    return Shop(db, shop_id, owner)


def refund(world: World, pieces: dict[int, int], adjustment: int = 0) -> dict[str, Any]:
    """Refund some pieces; the webhook about it."""
    world.updated += 1
    number = 500 + len(world.refunds)
    world.refunds.append(Refund(number, world.updated, pieces, adjustment))
    for index, count in pieces.items():
        world.lines[index].left -= count
    return world.refund_payload(world.refunds[-1])


async def test_every_change_is_told_in_words_that_staff_read(shop: Shop, world: World) -> None:
    assert await shop.told(world) == "order 1001: +40 points"
    world.lines.append(Line(500, 1, gift_card=False, discount=0, tax=0, left=1))
    await shop.told(world)
    world.lines[1].left = 0
    await shop.told(world)
    refund(world, {0: 1})
    assert await shop.told(world) == "order 1001: -20 points"
    world.status = "pending"
    await shop.told(world)
    world.status = "paid"
    await shop.told(world)
    world.cancelled = True
    await shop.told(world)
    assert shop.entries() == [
        (ANNA, 40, "order_paid", "order/1001/1"),
        (ANNA, 5, "order_increased", "order/1001/2"),
        (ANNA, -5, "order_reduced", "order/1001/3"),
        (ANNA, -20, "order_refunded", "order/1001/4"),
        (ANNA, -20, "order_unpaid", "order/1001/5"),
        (ANNA, 20, "order_paid", "order/1001/6"),
        (ANNA, -20, "order_cancelled", "order/1001/7"),
    ]
    found = await shop.standing()
    assert (found.state, found.points, found.posted, found.explanation) == (
        "settled",
        0,
        0,
        "It is cancelled, so it earns nothing.",
    )
    assert [entry.amount for entry in found.entries] == [-20, 20, -20, -20, -5, 5, 40]
    assert found.entries[-1].metadata == {
        "orderId": "1001",
        "earningMoney": "40",
        "rule": 1,
        "orderPoints": 40,
        "before": 0,
    }
    assert found.entries[-1].occurred_at == EPOCH + timedelta(seconds=1)


async def test_staff_are_told_why_an_order_has_its_points(shop: Shop, world: World) -> None:
    await shop.told(world)
    found = await shop.standing()
    assert found.explanation == "40.00 EUR of its price earns, by rule 1: 40 points."
    world.customer = None
    nobodys = World(2, customer=None, status="paid", lines=world.lines)
    await shop.told(nobodys)
    assert (await shop.standing(2)).state == "without_customer"
    early = World(3, customer=ANNA, status="paid", lines=world.lines, created=-5)
    await shop.told(early)
    assert "before earning began" in (await shop.standing(3)).explanation
    with pytest.raises(OrderUnknown, match="order 4"):
        await shop.standing(4)


async def test_a_clawback_may_take_a_balance_below_zero(shop: Shop, world: World) -> None:
    await shop.told(world)
    await post(shop.db, shop.shop_id, "test", Posting(shopify_customer_id=ANNA, amount=-35, reason="spent"))
    await shop.refunded(refund(world, {0: 2}))
    assert shop.balances() == {ANNA: -35}


async def test_an_order_that_gets_a_customer_later_earns_then_and_another_customer_takes_it_over(
    shop: Shop, world: World
) -> None:
    world.customer = None
    await shop.told(world)
    assert shop.entries() == []
    world.customer = ANNA
    await shop.told(world)
    world.customer = BERT
    await shop.told(world)
    assert shop.balances() == {ANNA: 0, BERT: 40}
    assert shop.entries()[1] == (ANNA, -40, "order_reassigned", "order/1001/2")
    world.customer = None
    await shop.told(world)
    assert shop.balances() == {ANNA: 0, BERT: 0}


async def test_a_webhook_of_before_changes_nothing(shop: Shop, world: World) -> None:
    early = deepcopy(world.order_payload())
    world.lines[0].left = 1
    await shop.told(world)
    assert await shop.hand(early) == "order 1001: older than what is known"
    assert await shop.told(world, later=0) == "order 1001: nothing new"
    assert shop.balances() == {ANNA: 20}


async def test_an_answer_asked_for_before_a_doubt_arose_does_not_settle_it(shop: Shop, world: World) -> None:
    await shop.told(world)
    sold = deepcopy(world.order_payload())
    async with shop.db.shop(shop.shop_id) as conn:
        row = await (await conn.execute("select clock_timestamp()")).fetchone()
    assert row is not None
    world.lines[0].left = 1
    assert "Shopify is asked" in await shop.told(world, later=0)
    async with shop.db.shop(shop.shop_id) as conn:
        await apply_order(conn, shop.shop_id, read_order(sold), read_at=row[0])
    assert shop.owner.execute("select read_wanted_at is not null from orders").fetchall() == [(True,)]


async def test_a_refund_inside_the_order_is_not_taken_off_again_when_it_comes_alone(shop: Shop, world: World) -> None:
    alone = refund(world, {0: 1})
    await shop.told(world)
    assert "contains" in await shop.refunded(alone)
    assert shop.balances() == {ANNA: 20}


async def test_one_order_told_of_by_many_at_once_is_posted_once(shop: Shop, world: World) -> None:
    tellings: list[Coroutine[Any, Any, str]] = []
    for left in (2, 1, 2, 1, 0, 2):
        world.lines[0].left = left
        world.updated += 1
        tellings.append(shop.hand(deepcopy(world.order_payload())))
    await asyncio.gather(*tellings)
    assert shop.balances() == {ANNA: 40}
    assert sum(points for _, points, _, _ in shop.entries()) == 40


async def test_merges_and_orders_at_the_same_moment_lose_nothing(shop: Shop, world: World) -> None:
    async def merge() -> str:
        async def transact() -> str:
            async with shop.db.shop(shop.shop_id) as conn:
                return await merge_customers(conn, shop.shop_id, kept_shopify_id=BERT, deleted_shopify_id=ANNA)

        return await again_after_deadlock(transact)

    await shop.told(world)
    tellings: list[Coroutine[Any, Any, str]] = []
    for left in (1, 2, 0, 1):
        world.lines[0].left = left
        world.updated += 1
        tellings.append(shop.hand(deepcopy(world.order_payload())))
    await asyncio.gather(*tellings[:2], merge(), *tellings[2:])
    assert shop.balances() == {ANNA: 0, BERT: 20}
    world.customer = BERT
    await shop.told(world)
    assert shop.balances() == {ANNA: 0, BERT: 20}
    await shop.refunded(refund(world, {0: 1}))
    assert shop.balances() == {ANNA: 0, BERT: 0}


async def test_what_the_ledger_refuses_is_shown_and_tried_again_at_the_next_change(shop: Shop, world: World) -> None:
    full = Posting(shopify_customer_id=ANNA, amount=POINTS_MAX - 10, reason="test")
    await post(shop.db, shop.shop_id, "test", full)
    assert "refused" in await shop.told(world)
    found = await shop.standing()
    assert (found.state, found.posted) == ("refused", 0)
    assert "±9007199254740991" in found.explanation
    await post(shop.db, shop.shop_id, "test", Posting(shopify_customer_id=ANNA, amount=-1_000, reason="test"))
    await shop.told(world)
    assert ((await shop.standing()).state, (await shop.standing()).posted) == ("settled", 40)


async def test_a_key_that_somebody_else_used_holds_nothing_up_for_ever(shop: Shop, world: World) -> None:
    squatter = Posting(shopify_customer_id=ANNA, amount=1, reason="test", external_id=f"order/{ORDER}/1")
    await post(shop.db, shop.shop_id, "test", squatter)
    assert "already used" in await shop.told(world)
    assert await shop.told(world, later=1) == "order 1001: +40 points"


async def test_an_order_that_was_redacted_is_changed_by_nothing(shop: Shop, world: World) -> None:
    await shop.told(world)
    async with shop.db.shop(shop.shop_id) as conn:
        await forget_orders(conn, shop.shop_id, [ORDER, 1002], of_customers=[ANNA])
    assert "redacted" in await shop.told(world)
    assert "redacted" in await shop.refunded(refund(world, {0: 1}))
    late = World(1002, customer=ANNA, status="paid", lines=world.lines)
    assert "redacted" in await shop.told(late)
    assert len(shop.entries()) == 1
    assert shop.owner.execute("select shopify_customer_id, facts from orders").fetchall() == [(None, None)] * 2
    found = await shop.standing()
    assert (found.state, found.posted, found.shopify_customer_id) == ("redacted", 40, None)


async def test_nothing_that_names_a_person_is_kept_of_an_order(shop: Shop, world: World) -> None:
    personal: dict[str, Any] = {
        "email": "jane@example.com",
        "customer": {"id": ANNA, "first_name": "Jane", "tags": "vip"},
    }
    await shop.told(world, personal)
    (row,) = shop.owner.execute("select row_to_json(o)::text from orders o").fetchall()
    assert "jane" not in row[0].lower()
    assert "vip" not in row[0]


async def test_a_rule_of_later_leaves_orders_of_before_as_they_were(shop: Shop, world: World) -> None:
    await shop.told(world)
    later = EarningRule(points_per_unit=Decimal(10), starts_at=EPOCH + timedelta(seconds=60))
    async with shop.db.shop(shop.shop_id) as conn:
        saved = await save_rule(conn, shop.shop_id, later, "test")
        assert (await save_rule(conn, shop.shop_id, later, "test")).version == saved.version, "the same is no other"
    world.lines[0].left = 1
    await shop.told(world)
    fresh = World(1002, customer=BERT, status="paid", lines=world.lines, created=60)
    await shop.told(fresh)
    assert shop.balances() == {ANNA: 20, BERT: 200}


async def test_a_shop_that_saved_no_rule_earns_from_when_it_was_added(shop: Shop) -> None:
    async with shop.db.shop(shop.shop_id) as conn:
        (only,) = await list_rules(conn, shop.shop_id)
    assert (only.version, only.points_per_unit, only.rounding) == (0, 1, "down")
    assert rule_of_order([only], EPOCH) is only
    lines = [Line(2_000, 2, gift_card=False, discount=0, tax=0, left=2)]
    old = World(1, customer=ANNA, status="paid", lines=lines)
    await shop.told(old)
    await shop.told(World(2, customer=BERT, status="paid", lines=lines), {"created_at": only.starts_at.isoformat()})
    assert shop.balances() == {BERT: 40}


async def test_rules_are_history_for_the_application(db: Database, shop_id: ShopId, rule: EarningRule) -> None:
    assert rule
    for statement in ("update earning_rules set points_per_unit = 9", "delete from earning_rules"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with db.shop(shop_id) as conn:
                await conn.execute(statement)


async def test_shopifys_own_sample_of_a_paid_order_earns(shop: Shop, rule: EarningRule) -> None:
    assert rule
    assert await shop.hand(trim("orders/paid", shopifys_sample())) == "order 820982911946154508: +414 points"
    assert shop.balances() == {115310627314723954: 414}


@pytest.mark.parametrize("refund_first", [True, False])
async def test_a_state_later_than_a_refund_it_does_not_list_is_believed_and_shopify_is_asked(
    shop: Shop, world: World, *, refund_first: bool
) -> None:
    await shop.told(world)
    alone = refund(world, {0: 1})
    world.refunds.clear()
    if refund_first:
        await shop.refunded(alone)
        assert shop.balances() == {ANNA: 20}
        await shop.told(world)
    else:
        await shop.told(world)
        await shop.refunded(alone)
    assert shop.balances() == {ANNA: 20}
    assert shop.wants_reading()
    async with shop.db.shop(shop.shop_id) as conn:
        row = await (await conn.execute("select clock_timestamp()")).fetchone()
        assert row is not None
        await apply_order(conn, shop.shop_id, read_order(world.order_payload()), read_at=row[0])
    assert not shop.wants_reading(), "what Shopify answers settles it"
    world.lines[0].quantity = 3
    await shop.told(world)
    assert not shop.wants_reading(), "a refund is asked about once"
    assert shop.balances() == {ANNA: 20}


@pytest.mark.parametrize("is_first", [True, False])
async def test_of_two_states_of_one_second_the_one_with_what_is_never_undone_is_later(
    shop: Shop, world: World, *, is_first: bool
) -> None:
    await shop.told(world)
    sold = deepcopy(world.order_payload())
    refund(world, {0: 1})
    refunded = world.order_payload() | {"updated_at": sold["updated_at"]}
    cancelled = refunded | {"cancelled_at": sold["updated_at"], "id": 1002}
    for states in ((sold, refunded), (refunded | {"id": 1002}, cancelled)):
        for state in states if is_first else reversed(states):
            await shop.hand(state)
    assert shop.balances() == {ANNA: 20}
    assert not shop.wants_reading()


async def test_of_two_states_of_one_second_that_each_go_further_shopify_is_asked(shop: Shop, world: World) -> None:
    await shop.told(world)
    sold = deepcopy(world.order_payload())
    assert "Shopify is asked" in await shop.hand(sold | {"current_subtotal_price_set": {"shop_money": {"amount": "1"}}})
    refund(world, {0: 1})
    refunded = world.order_payload() | {"updated_at": sold["updated_at"]}
    assert await shop.hand(refunded) == "order 1001: -20 points"
    assert "Shopify is asked" in await shop.hand(sold | {"cancelled_at": sold["updated_at"]})
    assert shop.wants_reading()


async def test_a_question_stays_open_when_another_state_of_that_second_is_the_later_one(
    shop: Shop, world: World
) -> None:
    await shop.told(world)
    sold = deepcopy(world.order_payload())
    await shop.hand(sold | {"current_subtotal_price_set": {"shop_money": {"amount": "1"}}})
    await shop.hand(sold | {"cancelled_at": sold["updated_at"]})
    assert shop.wants_reading()


@pytest.mark.parametrize("is_known", [True, False])
async def test_an_order_of_somebody_redacted_is_not_linked_to_them_again(
    shop: Shop, world: World, *, is_known: bool
) -> None:
    if is_known:
        world.customer = BERT
        await shop.told(world)
    async with shop.db.shop(shop.shop_id) as conn:
        await redact_customer(conn, shop.shop_id, ANNA)
    world.customer = ANNA
    assert "redacted" in await shop.told(world)
    assert shop.owner.execute("select shopify_customer_id, facts, is_forgotten from orders").fetchall() == [
        (None, None, True)
    ]
    assert "redacted" in await shop.refunded(refund(world, {0: 1}))
    assert ANNA not in shop.balances()
