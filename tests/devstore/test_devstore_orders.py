"""What becomes of an order when it is paid, edited, refunded and cancelled."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from order_support import an_order, usd

from devstore import FinancialStatus, NewLine, NewOrder, OrderError
from devstore.money import AmountError, graphql_text, rest_text
from devstore.orders import Reason, RestockType

if TYPE_CHECKING:
    from devstore_support import Bench

BEYOND_DOUBLES = 2**53


def test_an_order_is_worth_its_lines_and_shipping(bench: Bench) -> None:
    order = an_order(bench.shop, tip="2.00", tax_rate="0.1", discount="10.00")
    assert (order.subtotal, order.current_subtotal) == (usd("90.00"), usd("90.00"))
    assert (order.tax, order.total, order.outstanding) == (usd("9.00"), usd("106.00"), usd("0.00"))
    assert order.financial_status is FinancialStatus.PAID
    assert [line.order_discount for line in order.lines] == [usd("6.00"), usd("4.00")]


def test_numbers_are_larger_than_a_double_holds(bench: Bench) -> None:
    order = an_order(bench.shop)
    assert min(order.number, *(line.number for line in order.lines)) > BEYOND_DOUBLES
    again = an_order(bench.shop)
    assert again.number > order.lines[-1].number
    assert (order.name, again.name) == ("#1001", "#1002")


def test_included_tax_is_part_of_the_subtotal(bench: Bench) -> None:
    order = an_order(bench.shop, tax_rate="0.25", taxes_included=True)
    assert (order.current_subtotal, order.current_tax, order.total) == (usd("100.00"), usd("20.00"), usd("105.00"))


def test_gift_cards_bear_no_tax_and_take_no_share_of_a_discount(bench: Bench) -> None:
    lines = [NewLine("50", gift_card=True), NewLine("50")]
    order = bench.shop.orders.create(NewOrder(lines, discount="10", tax_rate="0.2"))
    assert [(line.discount, line.tax) for line in order.lines] == [(0, 0), (usd("10"), usd("8"))]


def test_a_partial_refund_takes_its_share_of_discount_and_tax(bench: Bench) -> None:
    order = an_order(bench.shop, discount="10.00", tax_rate="0.1")
    shirt = order.lines[0].number
    order = bench.shop.orders.refund(order.number, {shirt: 1}, restock=True)
    (refund,) = order.refunds
    (line,) = refund.lines
    assert (line.subtotal, line.tax, line.restock_type) == (usd("18.00"), usd("1.80"), RestockType.RETURN)
    assert (refund.amount, refund.adjustments) == (usd("19.80"), ())
    assert (order.current_subtotal, order.subtotal) == (usd("72.00"), usd("90.00"))
    assert (order.lines[0].quantity, order.lines[0].current_quantity) == (3, 2)
    assert (order.financial_status, order.outstanding) == (FinancialStatus.PARTIALLY_REFUNDED, 0)


def test_goodwill_leaves_the_subtotal_alone(bench: Bench) -> None:
    order = an_order(bench.shop)
    order = bench.shop.orders.refund(order.number, amount="12.50")
    (refund,) = order.refunds
    assert (refund.lines, refund.amount, refund.goodwill) == ((), usd("12.50"), usd("12.50"))
    assert [(one.reason, one.amount) for one in refund.adjustments] == [(Reason.REFUND, usd("-12.50"))]
    assert (order.current_subtotal, order.current_total) == (usd("100.00"), usd("105.00"))
    assert (order.financial_status, order.outstanding) == (FinancialStatus.PARTIALLY_REFUNDED, 0)


def test_after_goodwill_no_more_goes_back_than_is_left(bench: Bench) -> None:
    order = an_order(bench.shop)
    bench.shop.orders.refund(order.number, amount="30.00")
    order = bench.shop.orders.refund(order.number, {line.number: line.quantity for line in order.lines})
    assert (order.refunds[1].amount, order.refunds[1].goodwill) == (usd("75.00"), usd("-25.00"))
    assert (order.net_payment, order.outstanding, order.financial_status) == (0, 0, FinancialStatus.REFUNDED)


def test_a_refund_of_less_than_the_lines_cost_is_in_the_shops_favour(bench: Bench) -> None:
    order = an_order(bench.shop)
    order = bench.shop.orders.refund(order.number, {order.lines[1].number: 1}, amount="35.00")
    assert [(one.reason, one.amount) for one in order.refunds[0].adjustments] == [(Reason.REFUND, usd("5.00"))]
    assert (order.current_subtotal, order.net_payment, order.outstanding) == (usd("60.00"), usd("70.00"), 0)


def test_everything_refunded_is_refunded(bench: Bench) -> None:
    order = an_order(bench.shop)
    everything = {line.number: line.quantity for line in order.lines}
    order = bench.shop.orders.refund(order.number, everything, shipping="5.00")
    assert (order.financial_status, order.current_total, order.net_payment) == (FinancialStatus.REFUNDED, 0, 0)


def test_an_unpaid_order_is_pending_until_all_of_it_is_paid(bench: Bench) -> None:
    order = an_order(bench.shop, paid=False)
    assert (order.financial_status, order.outstanding) == (FinancialStatus.PENDING, usd("105.00"))
    order = bench.shop.orders.pay(order.number, "5.00")
    assert (order.financial_status, order.outstanding) == (FinancialStatus.PARTIALLY_PAID, usd("100.00"))
    assert bench.shop.orders.pay(order.number).financial_status is FinancialStatus.PAID


def test_an_order_that_costs_nothing_is_paid(bench: Bench) -> None:
    order = bench.shop.orders.create(NewOrder([NewLine("10")], discount="10", paid=False))
    assert order.financial_status is FinancialStatus.PAID


def test_an_edit_that_adds_owes_and_is_paid_again(bench: Bench) -> None:
    order = an_order(bench.shop, tax_rate="0.1")
    order = bench.shop.orders.edit(order.number, add=[NewLine("10.00", 2)], quantities={order.lines[1].number: 2})
    assert (order.current_subtotal, order.outstanding) == (usd("160.00"), usd("64.00"))
    assert order.financial_status is FinancialStatus.PARTIALLY_PAID
    assert (order.lines[1].quantity, order.lines[1].tax) == (2, usd("8.00"))
    assert bench.shop.orders.pay(order.number).financial_status is FinancialStatus.PAID


def test_an_edit_that_removes_is_a_refund_whose_money_is_still_due(bench: Bench) -> None:
    order = an_order(bench.shop)
    order = bench.shop.orders.edit(order.number, quantities={order.lines[0].number: 1})
    (refund,) = order.refunds
    assert (refund.lines[0].quantity, refund.amount) == (2, 0)
    pair = [(one.reason, one.amount) for one in refund.adjustments]
    assert pair == [(Reason.REFUND, usd("40.00")), (Reason.PENDING, usd("-40.00"))]
    assert (order.current_subtotal, order.outstanding) == (usd("60.00"), usd("-40.00"))
    assert order.financial_status is FinancialStatus.PAID
    # Giving the money back is no goodwill: it was due. What exceeds it is.
    order = bench.shop.orders.refund(order.number, amount="41.00")
    assert (order.refunds[1].goodwill, order.outstanding) == (usd("1.00"), 0)


def test_an_edit_of_an_unpaid_order_owes_nobody_money(bench: Bench) -> None:
    order = an_order(bench.shop, paid=False)
    order = bench.shop.orders.edit(order.number, quantities={order.lines[0].number: 0})
    assert (order.refunds[0].adjustments, order.outstanding) == ((), usd("45.00"))
    assert order.financial_status is FinancialStatus.PENDING


def test_a_cancelled_order_gives_everything_back(bench: Bench) -> None:
    order = an_order(bench.shop, tip="2.00", tax_rate="0.1")
    bench.shop.orders.refund(order.number, amount="7.00")
    order = bench.shop.orders.cancel(order.number, reason="fraud")
    assert (order.cancel_reason, order.cancelled_s) == ("fraud", bench.shop.now_s())
    assert (order.current_subtotal, order.current_total, order.net_payment, order.outstanding) == (0, 0, 0, 0)
    assert order.financial_status is FinancialStatus.REFUNDED
    assert {line.restock_type for line in order.refunds[-1].lines} == {RestockType.CANCEL}
    # The goodwill of before is taken into account: no more goes back than came in.
    assert order.refunded == order.received


def test_a_cancelled_order_may_keep_the_money(bench: Bench) -> None:
    order = bench.shop.orders.cancel(an_order(bench.shop).number, refund=False)
    assert (order.refunds, order.financial_status) == ((), FinancialStatus.PAID)
    assert order.current_subtotal == usd("100.00")


def test_an_unpaid_order_that_is_cancelled_is_voided(bench: Bench) -> None:
    order = bench.shop.orders.cancel(an_order(bench.shop, paid=False).number)
    assert (order.financial_status, order.refunded) == (FinancialStatus.VOIDED, 0)


def test_every_action_changes_updated_at_in_whole_seconds(bench: Bench) -> None:
    orders, order = bench.shop.orders, an_order(bench.shop, paid=False)
    line = order.lines[0].number
    actions = [
        lambda: orders.pay(order.number),
        lambda: orders.edit(order.number, quantities={line: 4}),
        lambda: orders.refund(order.number, {line: 1}),
        lambda: orders.set_customer(order.number, None),
        lambda: orders.cancel(order.number),
    ]
    for action in actions:
        bench.clock.advance(1.5)
        changed = action()
        assert (changed.updated_s, changed.created_s) == (int(bench.clock.wall_s), order.created_s)
        assert orders.get(order.number) == changed


def test_a_customer_may_come_later_or_change(bench: Bench) -> None:
    order = an_order(bench.shop, customer=None)
    assert bench.shop.orders.set_customer(order.number, 2).customer == 2
    assert bench.shop.orders.set_customer(order.number, 3).customer == 3
    assert (bench.shop.orders.count_of(2), bench.shop.orders.count_of(3)) == (0, 1)


def test_currencies_have_their_own_coins(bench: Bench) -> None:
    order = bench.shop.orders.create(NewOrder([NewLine("333", 3)], currency="JPY", discount="100", tax_rate="0.1"))
    order = bench.shop.orders.refund(order.number, {order.lines[0].number: 1})
    assert (order.refunds[0].lines[0].subtotal, order.refunds[0].amount) == (usd("300"), usd("330"))
    assert (rest_text(order.current_subtotal, "JPY"), graphql_text(order.current_subtotal)) == ("599", "599.0")
    assert (rest_text(usd("5"), "KWD"), graphql_text(usd("5.500"))) == ("5.000", "5.5")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lines": []}, "1 to 500 lines"),
        ({"customer": 99}, "no customer 99"),
        ({"lines": [NewLine("1", 0)]}, "a quantity is 1"),
        ({"lines": [NewLine("1.001")]}, "more than 2 decimals"),
        ({"lines": [NewLine("-1")]}, "from 0 to"),
        ({"lines": [NewLine("much")]}, "must be a number"),
        ({"lines": [NewLine("5", discount="6")]}, "more than the line costs"),
        ({"discount": "100.01"}, "more than what it is on costs"),
        ({"currency": "XXX"}, "none of the currencies"),
        ({"tax_rate": "NaN"}, "from 0 to"),
    ],
)
def test_an_order_that_makes_no_sense_is_not_placed(bench: Bench, changes: dict[str, Any], told: str) -> None:
    with pytest.raises((OrderError, AmountError), match=told):
        an_order(bench.shop, **changes)
    assert bench.shop.orders.count_of(1) == 0


def test_what_cannot_be_done_changes_nothing(bench: Bench) -> None:
    orders, order = bench.shop.orders, an_order(bench.shop)
    line = order.lines[0].number
    refusals = [
        (lambda: orders.pay(order.number), "nothing is outstanding"),
        (lambda: orders.pay(7), "no order 7"),
        (lambda: orders.refund(order.number, {line: 4}), "3 units left"),
        (lambda: orders.refund(order.number, {7: 1}), "no line 7"),
        (lambda: orders.refund(order.number), "of some line"),
        (lambda: orders.refund(order.number, amount="105.01"), "105.00 left to give back"),
        (lambda: orders.refund(order.number, shipping="5.01"), "5.00 of shipping left"),
        (lambda: orders.edit(order.number, quantities={line: 3}), "adds a line, or changes"),
        (lambda: orders.cancel(order.number, reason="boredom"), "none of customer"),
        (lambda: orders.set_customer(order.number, 99), "no customer 99"),
    ]
    for action, told in refusals:
        with pytest.raises(OrderError, match=told):
            action()
    assert orders.get(order.number) == order
    orders.cancel(order.number)
    for action in (lambda: orders.cancel(order.number), lambda: orders.edit(order.number, quantities={line: 9})):
        with pytest.raises(OrderError, match="cancelled"):
            action()


def test_a_shopper_may_pay_in_another_currency(bench: Bench) -> None:
    lines = [NewLine(Decimal("9.99"))]
    order = bench.shop.orders.create(NewOrder(lines, presentment_currency="EUR", presentment_rate="0.9"))
    order_id = f"gid://shopify/Order/{order.number}"
    document = """query($id: ID!) { order(id: $id) { currentSubtotalPriceSet {
      shopMoney { amount currencyCode } presentmentMoney { amount currencyCode } } } }"""
    bag = bench.data(document, {"id": order_id})["order"]["currentSubtotalPriceSet"]
    assert bag == {
        "shopMoney": {"amount": "9.99", "currencyCode": "USD"},
        "presentmentMoney": {"amount": "8.99", "currencyCode": "EUR"},
    }
