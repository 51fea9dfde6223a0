"""Whatever is done to an order, in whatever order: the amounts add up to the cent."""

from __future__ import annotations

from decimal import Decimal

from devstore_support import DOMAIN, TOKEN, a_depot
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from devstore import FinancialStatus, ManualClock, NewLine, NewOrder, Order, ShopSpec
from devstore.money import DECIMALS, rounded
from devstore.order_texts import read_order, write_order
from devstore.orders import Reason, allocated
from devstore.shops import open_shop
from devstore.storage import Storage

ZERO = Decimal(0)

CENTS = st.integers(0, 20_000).map(lambda cents: Decimal(cents).scaleb(-2))
RATES = st.sampled_from(["0", "0.05", "0.19", "0.077", "1.5"])
LINES = st.builds(NewLine, CENTS, st.integers(1, 7), gift_card=st.booleans())


@st.composite
def new_orders(draw: st.DrawFn) -> NewOrder:
    lines = draw(st.lists(LINES, min_size=1, max_size=4))
    most = sum((Decimal(one.price) * one.quantity for one in lines if not one.gift_card), ZERO)
    discount = (most * draw(st.integers(0, 100)) / 100).quantize(Decimal("0.01"), "ROUND_DOWN")
    return NewOrder(
        lines,
        paid=draw(st.booleans()),
        shipping=draw(CENTS),
        tip=draw(CENTS),
        discount=discount,
        tax_rate=draw(RATES),
        taxes_included=draw(st.booleans()),
    )


class Histories(RuleBasedStateMachine):
    """Random histories of one order."""

    @initialize(new=new_orders())
    def place(self, new: NewOrder) -> None:
        storage = Storage(None)
        self.shop = open_shop(storage, ShopSpec(DOMAIN, TOKEN, customers=1), ManualClock().clock, a_depot())
        self.order = self.shop.orders.create(new)

    def teardown(self) -> None:
        if hasattr(self, "shop"):
            self.shop.storage.close()

    @rule(data=st.data())
    def pay(self, data: st.DataObject) -> None:
        if self.order.outstanding > 0 and self.order.cancelled_s is None:
            cents = data.draw(st.integers(1, int(self.order.outstanding * 100)))
            amount = data.draw(st.sampled_from([None, Decimal(cents).scaleb(-2)]))
            self.order = self.shop.orders.pay(self.order.number, amount)

    @rule(data=st.data(), restock=st.booleans(), own_amount=st.booleans())
    def refund(self, data: st.DataObject, restock: bool, own_amount: bool) -> None:  # noqa: FBT001  # drawn
        order = self.order
        units = {line.number: data.draw(st.integers(0, line.current_quantity)) for line in order.lines}
        amount = Decimal(data.draw(st.integers(0, int(order.net_payment * 100)))).scaleb(-2) if own_amount else None
        shipping = data.draw(st.sampled_from([ZERO, order.current_shipping]))
        if any(units.values()) or amount or shipping:
            self.order = self.shop.orders.refund(order.number, units, amount=amount, shipping=shipping, restock=restock)

    @rule(data=st.data(), add=st.lists(LINES, max_size=2))
    def edit(self, data: st.DataObject, add: list[NewLine]) -> None:
        order = self.order
        units = {line.number: data.draw(st.integers(0, 7)) for line in order.lines}
        changes = any(line.current_quantity != units[line.number] for line in order.lines)
        if order.cancelled_s is None and (add or changes):
            self.order = self.shop.orders.edit(order.number, add=add, quantities=units)

    @rule(refund=st.booleans())
    def cancel(self, refund: bool) -> None:  # noqa: FBT001  # drawn
        if self.order.cancelled_s is None:
            self.order = self.shop.orders.cancel(self.order.number, refund=refund)

    @invariant()
    def parts_add_up(self) -> None:
        order = self.order
        taken = [line for refund in order.refunds for line in refund.lines]
        assert order.subtotal == order.current_subtotal + sum((one.subtotal for one in taken), ZERO)
        assert order.tax == order.current_tax + sum((one.tax for one in taken), ZERO)
        for line in order.lines:
            of_line = [one for one in taken if one.line == line.number]
            assert line.quantity == line.current_quantity + sum(one.quantity for one in of_line)
            assert line.subtotal == line.current_subtotal + sum((one.subtotal for one in of_line), ZERO)
            assert min(line.current_quantity, line.current_subtotal, line.current_tax, line.current_discount) >= 0
            if not line.current_quantity:
                assert (line.current_subtotal, line.current_tax, line.current_discount) == (0, 0, 0)
        assert all(one.subtotal >= 0 and one.tax >= 0 for one in taken)

    @invariant()
    def money_is_accounted_for(self) -> None:
        order = self.order
        assert 0 <= order.refunded <= order.received
        owed = sum((refund.goodwill for refund in order.refunds), ZERO)
        assert order.current_total == order.net_payment + order.outstanding + owed
        amounts = [order.current_subtotal, order.current_total, order.outstanding, order.tax, order.refunded]
        assert all(amount == rounded(amount, order.currency) for amount in amounts)
        for refund in order.refunds:
            pending = [one.amount for one in refund.adjustments if one.reason is Reason.PENDING]
            assert all(one.amount for one in refund.adjustments)
            assert not pending or (not refund.amount and sum((one.amount for one in refund.adjustments), ZERO) == 0)
            assert bool(refund.transaction) == bool(refund.amount)

    @invariant()
    def status_says_how_it_stands(self) -> None:
        order, status = self.order, self.order.financial_status
        if status is FinancialStatus.PAID:
            assert order.outstanding <= 0 or not order.total
        if status is FinancialStatus.REFUNDED:
            assert order.received == order.refunded > 0
        if status is FinancialStatus.PARTIALLY_PAID:
            assert order.outstanding > 0
        if status in {FinancialStatus.PENDING, FinancialStatus.VOIDED}:
            assert not order.received
            assert (status is FinancialStatus.VOIDED) == (order.cancelled_s is not None)

    @invariant()
    def it_is_stored_as_it_is(self) -> None:
        assert self.shop.orders.get(self.order.number) == self.order


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)


@given(
    weights=st.lists(st.integers(0, 10_000), min_size=1, max_size=8),
    percent=st.integers(0, 100),
    currency=st.sampled_from(sorted(DECIMALS)),
)
@settings(max_examples=200, deadline=None)
def test_a_discount_is_spread_to_the_last_coin(weights: list[int], percent: int, currency: str) -> None:
    coins = -DECIMALS[currency]
    nets = [Decimal(weight).scaleb(coins) for weight in weights]
    discount = Decimal(sum(weights) * percent // 100).scaleb(coins)
    shares = allocated(discount, nets, currency)
    assert sum(shares, ZERO) == discount
    assert all(0 <= part <= net for part, net in zip(shares, nets, strict=True))


def test_an_order_comes_back_from_text_as_it_was() -> None:
    storage = Storage(None)
    shop = open_shop(storage, ShopSpec(DOMAIN, TOKEN, customers=1), ManualClock().clock, a_depot())
    order: Order = shop.orders.create(NewOrder([NewLine("0.10", 3)], customer=1, discount="0.05", tax_rate="0.19"))
    order = shop.orders.edit(order.number, quantities={order.lines[0].number: 1})
    assert read_order(1, write_order(order)) == order
    storage.close()
