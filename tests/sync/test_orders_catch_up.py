"""What Shopify is asked about orders, over HTTP: after a loss, when two states contradict each other, and for tags."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from sync_support import DOMAIN, Stage

from devstore import NewLine, NewOrder, Order, ShopState
from devstore.customers import CustomerDetails
from devstore.order_payloads import order_payload, refund_payload
from metafield_sync.rewards.rule import EarningRule
from metafield_sync.shopify import ShopAccess
from metafield_sync.shopify.orders import OrderReader
from metafield_sync.sync.errand_rounds import go_on_errands
from metafield_sync.sync.errands import ErrandKind
from metafield_sync.sync.inbox.fields import trim
from metafield_sync.sync.orders.applying import apply_order, apply_refund
from metafield_sync.sync.orders.catch_up import CATCH_UP_ERRANDS, begin_catch_up
from metafield_sync.sync.orders.catch_up_state import get_reading
from metafield_sync.sync.orders.fetching import ORDER_ERRANDS
from metafield_sync.sync.orders.reading import digest, read_order, read_refund
from metafield_sync.sync.orders.rules import list_rules, save_rule
from metafield_sync.sync.orders.standing import order_standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metafield_sync.sync.orders.reading import Snapshot
    from metafield_sync.sync.orders.standing import OrderStanding

KINDS: dict[str, ErrandKind] = {kind.name: kind for kind in (CATCH_UP_ERRANDS, ORDER_ERRANDS)}
CUSTOMER_SCOPES = ("read_customers", "write_customers")
HOUR_S = 3_600
READINGS = {"orders", "nodes", "node"}
"""How the devstore's log calls what asks for orders; here nothing else is asked for by id."""


def sell(stage: Stage, *prices: str, **changes: Any) -> Order:
    """Place an order of customer 1, paid."""
    told: dict[str, Any] = {"lines": [NewLine(price) for price in prices], "customer": 1, **changes}
    return stage.shopify.orders.create(NewOrder(**told))


def payload(stage: Stage, number: int) -> dict[str, Any]:
    """What a webhook says of the order now, as much of it as is kept."""
    order = stage.shopify.orders.get(number)
    assert order is not None
    buyer = None if order.customer is None else stage.shopify.orders.buyer(order.customer)
    return as_kept("orders/updated", order_payload(order, buyer))


def as_kept(topic: str, document: Any) -> dict[str, Any]:
    return json.loads(json.dumps(trim(topic, json.loads(json.dumps(document)))), parse_float=Decimal)


async def deliver(stage: Stage, document: dict[str, Any]) -> str:
    async with stage.db.shop(stage.shop_id) as conn:
        return await apply_order(conn, stage.shop_id, read_order(document))


async def deliver_refund(stage: Stage, number: int, index: int = 0) -> str:
    order = stage.shopify.orders.get(number)
    assert order is not None
    document = as_kept("refunds/create", refund_payload(order, order.refunds[index]))
    async with stage.db.shop(stage.shop_id) as conn:
        return await apply_refund(conn, stage.shop_id, *read_refund(document))


async def read_by_api(stage: Stage, *numbers: int) -> list[Snapshot]:
    reader = OrderReader(stage.mirror.client, ShopAccess(DOMAIN, stage.shopify.token or ""))
    page = await reader.by_id(numbers)
    return [read_order(order) for order in page.orders]


async def go(stage: Stage, *kinds: str) -> None:
    """Go on every errand that is due, of these kinds or of both."""
    chosen = {name: kind for name, kind in KINDS.items() if name in kinds or not kinds}
    report = await go_on_errands(stage.mirror, stage.shop_id, chosen)
    assert report.end not in {"trouble", "paused"}, report.detail


async def catch_up(stage: Stage) -> None:
    async with stage.db.shop(stage.shop_id) as conn:
        await begin_catch_up(conn, stage.shop_id)
    await go(stage)


def due_in_s(stage: Stage, kind: str) -> list[tuple[str, int]]:
    """The errands of a kind, each with the seconds until it is due."""
    return stage.owner.execute(
        """
        select subject, round(extract(epoch from due_at - clock_timestamp()))::integer
        from errands
        where kind = %s
        order by subject
        """,
        (kind,),
    ).fetchall()


def calls(stage: Stage) -> int:
    """How often Shopify was asked for orders."""
    return sum(call.operation in READINGS for call in stage.store.world.calls.select(shop=DOMAIN))


def balances(stage: Stage) -> dict[int, int]:
    return dict(stage.owner.execute("select shopify_customer_id, current_balance from customers").fetchall())


async def standing(stage: Stage, number: int) -> OrderStanding:
    async with stage.db.shop(stage.shop_id) as conn:
        return await order_standing(conn, stage.shop_id, number)


def various_orders(stage: Stage) -> Sequence[Order]:
    """One of each kind that differs in what decides about points."""
    book = stage.shopify.orders
    mixed = sell(
        stage,
        lines=[NewLine("19.99", 3, discount="7.00"), NewLine("50.00", gift_card=True), NewLine("0.33", 7)],
        discount="10.00",
        tax_rate="0.19",
        taxes_included=True,
        shipping="4.90",
        presentment_currency="EUR",
        presentment_rate="0.9",
    )
    returned = sell(stage, "30.00", "12.50", tax_rate="0.2", taxes_included=True)
    book.refund(returned.number, {returned.lines[0].number: 1})
    book.refund(returned.number, amount="2.00")
    long = sell(stage, *[f"{price}.10" for price in range(1, 41)], tax_rate="0.07")
    often = sell(stage, "100.00")
    for _ in range(9):
        book.refund(often.number, amount="1.50")
    cancelled = sell(stage, "9.00")
    book.cancel(cancelled.number)
    owing = sell(stage, "25.00")
    book.edit(owing.number, add=[NewLine("5.00", 2)])
    lessened = sell(stage, "20.00", "15.00")
    book.edit(lessened.number, quantities={lessened.lines[0].number: 0})
    book.refund(lessened.number, amount="20.00")
    nobodys = sell(stage, "8.00", customer=None, test=True)
    pending = sell(stage, "7.00", paid=False)
    return (mixed, returned, long, often, cancelled, owing, lessened, nobodys, pending)


async def test_an_order_is_the_same_whether_a_webhook_or_the_admin_api_tells_of_it(stage: Stage) -> None:
    orders = various_orders(stage)
    for order in orders:
        delivered = read_order(payload(stage, order.number))
        (read,) = await read_by_api(stage, order.number)
        assert read.facts == delivered.facts
        assert (read.order_id, read.updated_at, read.customer_id, read.currency) == (
            delivered.order_id,
            delivered.updated_at,
            delivered.customer_id,
            delivered.currency,
        )
        assert digest(read) == digest(delivered)
        assert delivered.customer_tags is None
    assert {read_order(payload(stage, order.number)).facts.status for order in orders} == {
        "paid",
        "partially_refunded",
        "refunded",
        "partially_paid",
        "pending",
    }


async def test_goods_that_an_edit_took_out_cost_their_points_once_though_their_money_goes_back_later(
    stage: Stage,
) -> None:
    order = sell(stage, "20.00", "15.00", customer=1)
    stage.shopify.orders.edit(order.number, quantities={order.lines[0].number: 0})
    await deliver(stage, payload(stage, order.number))
    assert balances(stage) == {1: 15}
    stage.shopify.orders.refund(order.number, amount="20.00")
    await deliver(stage, payload(stage, order.number))
    await catch_up(stage)
    assert balances(stage) == {1: 15}


async def test_orders_whose_webhooks_were_lost_are_caught_up_with(stage: Stage) -> None:
    orders = [sell(stage, f"{10 + number}.99", customer=1 + number % 3) for number in range(12)]
    stage.shopify.orders.refund(orders[0].number, {orders[0].lines[0].number: 1})
    await catch_up(stage)
    expected = {1: 13 + 16 + 19, 2: 11 + 14 + 17 + 20, 3: 12 + 15 + 18 + 21}
    assert balances(stage) == expected
    assert calls(stage) == 3, "five orders a call"
    ((_, again_s),) = due_in_s(stage, "catch_up")
    assert 590 <= again_s <= 600
    async with stage.db.shop(stage.shop_id) as conn:
        reading = await get_reading(conn, stage.shop_id)
    assert reading is not None
    assert (reading.cursor, reading.since, reading.trouble) == (None, None, None)
    changes = [now.updated_s for order in orders if (now := stage.shopify.orders.get(order.number)) is not None]
    assert int(reading.read_until.timestamp()) == max(changes)
    await catch_up(stage)
    assert balances(stage) == expected, "what is read twice changes nothing"


async def test_no_reading_of_orders_asks_for_more_than_a_call_may_cost(stage: Stage) -> None:
    various_orders(stage)
    await catch_up(stage)
    costs = [call.requested for call in stage.store.world.calls.select(shop=DOMAIN) if call.operation in READINGS]
    assert costs
    assert max(cost for cost in costs if cost is not None) <= 1_000


async def test_a_reading_goes_on_where_it_was_when_its_process_ended(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(11):
        sell(stage, f"{number + 1}.00", customer=2)
    monkeypatch.setattr("metafield_sync.sync.orders.catch_up.CATCH_UP_PAGES_MAX", 1)
    async with stage.db.shop(stage.shop_id) as conn:
        await begin_catch_up(conn, stage.shop_id)
    for seen in (15, 55, 66):
        await go_on_errands(stage.mirror, stage.shop_id, {"catch_up": CATCH_UP_ERRANDS})
        if balances(stage).get(2) == 66:
            break
        assert balances(stage)[2] <= seen
    assert balances(stage) == {2: 66}
    assert calls(stage) == 3, "no page was read twice"


async def test_a_shop_without_the_scope_for_orders_goes_on_being_pushed_to(stage: Stage) -> None:
    stage.shopify.installation.set_scopes(CUSTOMER_SCOPES)
    await stage.post(1, 7)
    await catch_up(stage)
    ((_, again_s),) = due_in_s(stage, "catch_up")
    assert HOUR_S - 10 <= again_s <= HOUR_S, "it is asked seldom"
    assert (await stage.shop()).status == "active"
    async with stage.db.shop(stage.shop_id) as conn:
        reading = await get_reading(conn, stage.shop_id)
    assert reading is not None
    assert reading.trouble is not None
    assert "read_orders" in reading.trouble
    await stage.mirror.drain(stage.shop_id)
    assert stage.values() == {1: "7"}

    sell(stage, "30.00")
    stage.shopify.installation.set_scopes((*CUSTOMER_SCOPES, "read_orders"))
    await catch_up(stage)
    assert balances(stage) == {1: 37}


async def test_two_states_of_one_second_have_shopify_asked(stage: Stage) -> None:
    order = sell(stage, "40.00", paid=False)
    before = payload(stage, order.number)
    stage.shopify.orders.pay(order.number)
    after = payload(stage, order.number)
    # Shopify may have had a second between them; here it had not.
    before["updated_at"] = after["updated_at"]
    await deliver(stage, before)
    assert balances(stage) == {}
    assert "Shopify is asked" in await deliver(stage, after)
    assert balances(stage) == {}
    await go(stage)
    assert balances(stage) == {1: 40}
    assert "Shopify is asked" in await deliver(stage, before)
    await go(stage)
    assert balances(stage) == {1: 40}
    assert due_in_s(stage, "order") == []


async def test_a_refund_before_its_order_waits_for_it_and_nothing_is_fetched_if_it_comes(stage: Stage) -> None:
    order = sell(stage, "40.00", "2.00")
    sold = payload(stage, order.number)
    stage.shopify.orders.refund(order.number, {order.lines[0].number: 1})
    assert "waits" in await deliver_refund(stage, order.number)
    ((subject, due_s),) = due_in_s(stage, "order")
    assert (subject, 590 <= due_s <= 600) == (str(order.number), True)
    assert (await standing(stage, order.number)).state == "awaited"

    sold["updated_at"] = "2026-01-01T00:00:00Z"
    await deliver(stage, sold)
    assert balances(stage) == {1: 2}, "the refund was kept"
    stage.owner.execute("update errands set due_at = clock_timestamp()")
    await go(stage)
    assert (calls(stage), due_in_s(stage, "order")) == (0, [])


async def test_an_order_that_does_not_come_after_its_refund_is_fetched(stage: Stage) -> None:
    order = sell(stage, "40.00", "2.00")
    stage.shopify.orders.refund(order.number, {order.lines[0].number: 1})
    await deliver_refund(stage, order.number)
    stage.owner.execute("update errands set due_at = clock_timestamp()")
    await go(stage)
    assert balances(stage) == {1: 2}
    assert (calls(stage), due_in_s(stage, "order")) == (1, [])
    assert stage.owner.execute("select count(*) from order_refunds").fetchone() == (0,)


async def test_an_order_that_is_gone_from_shopify_is_asked_for_once(stage: Stage) -> None:
    async with stage.db.shop(stage.shop_id) as conn:
        refund = read_refund({"id": 5, "order_id": 404, "created_at": "2026-11-22T00:00:00Z"})
        await apply_refund(conn, stage.shop_id, *refund)
    stage.owner.execute("update errands set due_at = clock_timestamp()")
    await go(stage)
    assert (calls(stage), due_in_s(stage, "order")) == (1, [])


async def test_customers_with_a_tag_that_the_rule_leaves_out_earn_nothing(stage: Stage) -> None:
    async with stage.db.shop(stage.shop_id) as conn:
        start = (await list_rules(conn, stage.shop_id))[-1].starts_at
        rule = EarningRule(excluded_tags=frozenset({"Wholesale"}), starts_at=start)
        await save_rule(conn, stage.shop_id, rule, "test")
    stage.shopify.customers.describe(2, CustomerDetails(tags=("vip", "wholesale")))
    first, second = sell(stage, "40.00"), sell(stage, "60.00", customer=2)
    for order in (first, second):
        assert "customer tags" in await deliver(stage, payload(stage, order.number))
    assert balances(stage) == {}, "until the tags are known nothing is posted"
    await go(stage, "order")
    assert balances(stage) == {1: 40}
    assert (await standing(stage, second.number)).state == "left_out"

    # The tags count as they were when they were asked for.
    stage.shopify.customers.describe(2, CustomerDetails())
    stage.shopify.orders.edit(second.number, quantities={second.lines[0].number: 1}, add=[NewLine("1.00")])
    stage.shopify.orders.pay(second.number)
    later = payload(stage, second.number)
    later["updated_at"] = "2027-01-01T00:00:00Z"
    await deliver(stage, later)
    assert balances(stage) == {1: 40}


async def test_a_rule_that_starts_in_the_past_is_applied_to_orders_since_then(stage: Stage) -> None:
    order = sell(stage, "40.00")
    await deliver(stage, payload(stage, order.number))
    await catch_up(stage)
    async with stage.db.shop(stage.shop_id) as conn:
        start = (await list_rules(conn, stage.shop_id))[-1].starts_at
        await save_rule(conn, stage.shop_id, EarningRule(points_per_unit=Decimal(2), starts_at=start), "test")
    assert balances(stage) == {1: 40}
    await go(stage)
    assert balances(stage) == {1: 80}
    assert (await standing(stage, order.number)).rule_version == 1


async def test_while_shopify_refuses_the_shop_nothing_of_a_reading_is_lost(stage: Stage) -> None:
    sell(stage, "40.00")
    shop = stage.shopify
    shop.change(state=ShopState.FROZEN, token=shop.token, plan=shop.budget.plan)
    async with stage.db.shop(stage.shop_id) as conn:
        await begin_catch_up(conn, stage.shop_id)
    report = await go_on_errands(stage.mirror, stage.shop_id, KINDS)
    assert report.end == "paused"
    shop.change(state=ShopState.ACTIVE, token=shop.token, plan=shop.budget.plan)
    stage.owner.execute("update errands set due_at = clock_timestamp()")
    await stage.mirror.drain(stage.shop_id, probe=True)
    await go(stage)
    assert balances(stage) == {1: 40}
