"""What an order is worth, case by case. Any history at all is `tests/sync/test_orders_any_history.py`'s."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metafield_sync.rewards.order import (
    GivenBack,
    LineFacts,
    OrderFacts,
    RefundFacts,
    earning_money,
    gift_card_money,
    goods_tax,
    target,
)
from metafield_sync.rewards.rule import ORDER_POINTS_MAX, EarningRule, Rounding

START = datetime(2026, 11, 1, tzinfo=UTC)
RULE = EarningRule(starts_at=START)
ORDER = OrderFacts(
    created_at=START, is_test=False, is_cancelled=False, status="paid", taxes_included=False, subtotal=Decimal("41.90")
)


def a_refund(number: int, goods: str = "0", tax: str = "0", adjustment: str = "0") -> RefundFacts:
    return RefundFacts(
        refund_id=number, created_at=START, goods=Decimal(goods), goods_tax=Decimal(tax), adjustment=Decimal(adjustment)
    )


def a_line(price: str, quantity: int = 1, left: int | None = None, **changes: object) -> LineFacts:
    told = LineFacts(
        quantity=quantity,
        current_quantity=quantity if left is None else left,
        is_gift_card=False,
        price=Decimal(price),
        discount=Decimal(0),
        tax=Decimal(0),
    )
    return replace(told, **changes)  # pyright: ignore[reportArgumentType] - named as the fields are


@pytest.mark.parametrize(
    ("rounding", "rate", "subtotal", "points"),
    [
        ("down", "1", "41.99", 41),
        ("down", "1", "0.99", 0),
        ("half_up", "1", "41.50", 42),
        ("half_up", "1", "41.49", 41),
        ("up", "1", "41.01", 42),
        ("up", "1", "41.00", 41),
        ("down", "0.1", "99.99", 9),
        ("down", "2.5", "3.19", 7),
        ("down", "0", "500", 0),
        ("down", "0.333333", "3", 0),
        ("down", "999999", "999999999999.99", ORDER_POINTS_MAX),
    ],
)
def test_points_are_rounded_once_the_way_the_rule_says(
    rounding: Rounding, rate: str, subtotal: str, points: int
) -> None:
    rule = replace(RULE, rounding=rounding, points_per_unit=Decimal(rate))
    assert target(rule, replace(ORDER, subtotal=Decimal(subtotal)), []) == points


@pytest.mark.parametrize(
    ("status", "outstanding", "points"),
    [
        ("paid", None, 41),
        ("partially_refunded", None, 41),
        ("partially_paid", "11.90", 30),
        ("partially_paid", "-5.00", 41),
        ("partially_paid", "100.00", 0),
        ("partially_paid", None, 0),
        ("pending", None, 0),
        ("authorized", None, 0),
        ("voided", None, 0),
        ("refunded", None, 0),
        ("expired", None, 0),
        ("unknown", None, 0),
    ],
)
def test_only_what_is_paid_for_earns(status: str, outstanding: str | None, points: int) -> None:
    owed = None if outstanding is None else Decimal(outstanding)
    assert target(RULE, replace(ORDER, status=status, outstanding=owed), []) == points


def test_cancelled_and_test_orders_and_those_of_before_earn_nothing() -> None:
    assert target(RULE, replace(ORDER, is_cancelled=True), []) == 0
    assert target(RULE, replace(ORDER, is_test=True), []) == 0
    assert target(RULE, replace(ORDER, created_at=START - timedelta(seconds=1)), []) == 0
    assert target(RULE, replace(ORDER, created_at=None), []) == 41
    assert target(replace(RULE, is_enabled=False), ORDER, []) == 0


def test_tax_is_taken_off_only_where_prices_include_it_and_the_rule_says_so() -> None:
    included = replace(ORDER, taxes_included=True, goods_tax=Decimal("6.90"))
    assert target(RULE, included, []) == 35
    assert target(replace(RULE, takes_tax_off=False), included, []) == 41
    assert target(RULE, replace(included, taxes_included=False), []) == 41
    returned = a_refund(1, goods="11.60", tax="1.60")
    assert target(RULE, included, [returned]) == 25
    assert target(RULE, replace(included, taxes_included=False), [returned]) == 30


def test_a_refund_counts_once_whether_it_comes_alone_or_inside_the_order() -> None:
    alone = a_refund(7, goods="10.00", adjustment="-3.00")
    assert target(RULE, ORDER, [alone]) == 28
    inside = replace(ORDER, subtotal=Decimal("31.90"), refunds=(GivenBack(7, Decimal("-3.00")),))
    assert target(RULE, inside, []) == 28
    assert target(RULE, inside, [alone]) == 28
    assert target(RULE, ORDER, [alone, alone]) == 28


def test_money_given_back_beyond_goods_is_taken_off_and_money_kept_earns_nothing() -> None:
    fee, goodwill = GivenBack(1, Decimal("5.00")), GivenBack(2, Decimal("-8.00"))
    assert target(RULE, replace(ORDER, refunds=(fee,)), []) == 41
    assert target(RULE, replace(ORDER, refunds=(goodwill,)), []) == 33
    assert target(RULE, replace(ORDER, refunds=(fee, goodwill)), []) == 38


def test_a_return_whose_money_follows_later_takes_its_worth_off_once() -> None:
    returned = replace(ORDER, subtotal=Decimal("21.90"), refunds=(GivenBack(1, Decimal("20.00")),))
    paid_back = replace(returned, refunds=(*returned.refunds, GivenBack(2, Decimal("-20.00"))))
    assert target(RULE, returned, []) == target(RULE, paid_back, []) == 21


def test_gift_cards_contribute_their_price_less_their_discount_for_the_pieces_there_are() -> None:
    card = a_line("50.00", 3, 2, is_gift_card=True, discount=Decimal("15.00"), tax=Decimal("9.00"))
    goods = a_line("20.00", 4, 3, discount=Decimal("4.00"), tax=Decimal("8.00"))
    assert gift_card_money([card, goods]) == Decimal("90.00")
    assert goods_tax([card, goods]) == Decimal("6.00")
    assert gift_card_money([a_line("50.00", 0, 0, is_gift_card=True)]) == 0


def test_a_share_that_does_not_come_out_even_is_rounded_finer_than_any_coin() -> None:
    thirds = [a_line("1.00", 3, 2, tax=Decimal("1.00"))] * 3
    assert goods_tax(thirds) == Decimal("2.0001")
    assert goods_tax([a_line("1.00", 3, 1, tax=Decimal("-1.00"))]) == Decimal("-0.3333")


@pytest.mark.parametrize("tags", [("wholesale",), ("vip", " WholeSale "), ("Wholesale",)])
def test_a_tag_is_the_same_tag_in_capitals(tags: tuple[str, ...]) -> None:
    assert replace(RULE, excluded_tags=frozenset({"WHOLESALE"})).leaves_out(tags)
    assert not RULE.leaves_out(tags)
    assert not replace(RULE, excluded_tags=frozenset({"retail"})).leaves_out(tags)


amounts = st.decimals(min_value=0, max_value=10**9, places=2)


@given(
    subtotal=amounts,
    gift_cards=amounts,
    tax=amounts,
    given_back=st.decimals(min_value=-(10**6), max_value=10**6, places=2),
    alone=amounts,
    taxes_included=st.booleans(),
)
def test_money_that_earns_is_never_below_zero_nor_above_the_goods(
    subtotal: Decimal, gift_cards: Decimal, tax: Decimal, given_back: Decimal, alone: Decimal, *, taxes_included: bool
) -> None:
    order = replace(
        ORDER,
        subtotal=subtotal,
        gift_cards=gift_cards,
        goods_tax=tax,
        taxes_included=taxes_included,
        refunds=(GivenBack(1, given_back),),
    )
    money = earning_money(order, [a_refund(2, goods=str(alone))], takes_tax_off=True)
    assert 0 <= money <= subtotal
