"""The orders of one shop: kept in storage, changed by what staff and shoppers do, and told to whoever listens.

Every action that changes an order sets its `updated_at`, in whole seconds, so that two within a second share one, and
emits what Shopify would. Which events belong to which action is known from the topics' descriptions; that each comes
with orders/updated, and last, is how shops have it commonly.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import cast

from devstore.customers import CustomerBook
from devstore.money import DECIMALS, ZERO, AmountError, read_amount
from devstore.order_payloads import Buyer, edit_payload, order_payload, refund_payload
from devstore.order_texts import read_order, write_order
from devstore.orders import (
    Line,
    Order,
    OrderError,
    Removal,
    RestockType,
    allocated,
    cancelled,
    grown,
    paid,
    refunded,
    removed,
    tax_on,
)
from devstore.storage import Storage

# Takes a topic and a payload.
Emit = Callable[[str, Mapping[str, object]], object]
Amount = Decimal | int | str

LINES_MAX = 500
QUANTITY_MAX = 1_000_000
CANCEL_REASONS = ("customer", "declined", "fraud", "inventory", "other", "staff")
_FIRST_ORDINAL = 1_001

_PUT = """
insert or replace into orders (
    id, shop, customer, ordinal, created_s, updated_s, processed_s, financial_status, cancelled, test, last_id, content
) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_GET = "select customer, content from orders where shop = ? and id = ?"
_GIVE = "update orders set customer = ? where shop = ? and customer = ?"
_COUNT = "select count(*) from orders where shop = ? and customer = ?"
_LAST_ORDINAL = "select coalesce(max(ordinal), ?) from orders where shop = ?"


@dataclass(frozen=True, slots=True)
class NewLine:
    """A line to be ordered.

    Attributes:
        price: of one unit.
        quantity: how many units.
        title: what is sold.
        gift_card: it is a gift card: no tax, and no part in discounts on the whole order.
        discount: what its own discounts take off all units together.
        tax_rate: 0.2 for 20 %; the order's if it is not said.
    """

    price: Amount
    quantity: int = 1
    title: str = "Something"
    gift_card: bool = False
    discount: Amount = ZERO
    tax_rate: Amount | None = None


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order to be placed.

    Attributes:
        lines: what is ordered.
        customer: whose it is; None is a guest's.
        paid: whether it is paid at once.
        discount: what is taken off the whole order, spread over its lines that are no gift cards.
        taxes_included: prices include tax.
        test: it was placed to try the checkout.
        currency: the shop's; None is what the shop has.
        presentment_currency: what the shopper sees and pays; None is the shop's.
        presentment_rate: how much of it one unit of the shop's currency is.
        created_s: when it was created, for one of the past; it was processed at the same moment unless that is said.
    """

    lines: Sequence[NewLine]
    customer: int | None = None
    paid: bool = True
    shipping: Amount = ZERO
    tip: Amount = ZERO
    discount: Amount = ZERO
    tax_rate: Amount = ZERO
    taxes_included: bool = False
    test: bool = False
    currency: str | None = None
    presentment_currency: str | None = None
    presentment_rate: Amount = 1
    created_s: int | None = None
    processed_s: int | None = None


class OrderBook:
    """Orders of one shop.

    Attributes:
        currency: what the shop sells in, unless an order says otherwise.

    Args:
        storage: where they are kept.
        shop: the shop's number.
        customers: the shop's customers.
        emit: takes the events.
        now_s: tells the time in seconds since 1970.
    """

    def __init__(
        self, storage: Storage, shop: int, customers: CustomerBook, emit: Emit, now_s: Callable[[], int]
    ) -> None:
        self.currency = "USD"
        self._storage = storage
        self._shop = shop
        self._customers = customers
        self._emit = emit
        self._now_s = now_s
        self._last_ordinal: int | None = None

    def create(self, new: NewOrder) -> Order:
        """Place an order, paid or not.

        Raises:
            OrderError: it has no lines, or too many, or its customer does not exist.
            AmountError: an amount is none.
        """
        self._check_customer(new.customer)
        now_s = self._now_s()
        currency = new.currency or self.currency
        created_s = now_s if new.created_s is None else new.created_s
        presentment = new.presentment_currency or currency
        for one in (currency, presentment):
            if one not in DECIMALS:
                raise OrderError(f"{one} is none of the currencies there are: {', '.join(DECIMALS)}")
        order = Order(
            number=self._storage.next_order_id(),
            ordinal=self._next_ordinal(),
            customer=new.customer,
            created_s=created_s,
            updated_s=now_s,
            processed_s=created_s if new.processed_s is None else new.processed_s,
            cancelled_s=None,
            cancel_reason=None,
            test=new.test,
            currency=currency,
            presentment_currency=presentment,
            presentment_rate=_rate(new.presentment_rate, "presentment_rate"),
            taxes_included=new.taxes_included,
            shipping=read_amount(new.shipping, currency, "shipping"),
            tip=read_amount(new.tip, currency, "tip"),
            received=ZERO,
            lines=self._new_lines(new, currency),
            refunds=(),
        )
        topics = ["orders/create"]
        if new.paid:
            order = paid(order, None) if order.outstanding else order
        if order.outstanding <= 0:
            topics += ["orders/paid", "orders/updated"]
        return self._keep(order, *topics)

    def get(self, number: int) -> Order | None:
        """An order by its id; None if there is none."""
        row = self._storage.db.execute(_GET, (self._shop, number)).fetchone()
        return None if row is None else read_order(*cast("tuple[int | None, str]", row))

    def pay(self, number: int, amount: Amount | None = None) -> Order:
        """Money comes in: all that is outstanding, or part of it.

        Raises:
            OrderError: there is no such order, or it does not owe that much.
            AmountError: the amount is none.
        """
        order = self._find(number)
        order = paid(order, None if amount is None else read_amount(amount, order.currency))
        order = replace(order, updated_s=self._now_s())
        topics = ["orders/updated"] if order.outstanding > 0 else ["orders/paid", "orders/updated"]
        return self._keep(order, *topics)

    def edit(self, number: int, *, add: Sequence[NewLine] = (), quantities: Mapping[int, int] | None = None) -> Order:
        """Add lines, and set how many units of a line there are to be.

        Raises:
            OrderError: there is no such order or line, it was cancelled, or nothing would change.
            AmountError: an amount is none.
        """
        before = self._find(number)
        if before.cancelled_s is not None:
            raise OrderError(f"order {before.name} was cancelled")
        more: dict[int, int] = {}
        less: dict[int, int] = {}
        for line_number, wanted in (quantities or {}).items():
            change = _units(wanted, 0) - before.line(line_number).current_quantity
            if change:
                (more if change > 0 else less)[line_number] = abs(change)
        added = [self._new_line(one, before.currency, ZERO, ZERO, before.taxes_included) for one in add]
        if not (added or more or less):
            raise OrderError("an edit adds a line, or changes a quantity")
        if len(before.lines) + len(added) > LINES_MAX:
            raise OrderError(f"an order has at most {LINES_MAX} lines")
        now_s = self._now_s()
        order = replace(grown(before, added, more), updated_s=now_s)
        if less:
            taken = Removal(less, restock_type=RestockType.CANCEL)
            order = removed(order, taken, now_s, self._storage.next_order_id)
        self._put(order)
        more |= {line.number: line.quantity for line in added}
        self._emit("orders/edited", edit_payload(order, self._storage.next_order_id(), more, less))
        return self._tell(order, *(("refunds/create",) if less else ()), "orders/updated")

    def refund(
        self,
        number: int,
        quantities: Mapping[int, int] | None = None,
        *,
        amount: Amount | None = None,
        shipping: Amount = ZERO,
        restock: bool = False,
        note: str | None = None,
    ) -> Order:
        """Take units of lines away and give their money back, or another amount; or an amount alone, as goodwill.

        Raises:
            OrderError: there is no such order or line, or not so many units or so much money left.
            AmountError: an amount is none.
        """
        order = self._find(number)
        now_s = self._now_s()
        restock_type = RestockType.RETURN if restock else RestockType.NO_RESTOCK
        taken = Removal(
            {line: units for line, units in (quantities or {}).items() if _units(units, 0)},
            read_amount(shipping, order.currency, "shipping"),
            restock_type=restock_type,
        )
        given = None if amount is None else read_amount(amount, order.currency)
        order = refunded(order, taken, given, now_s, self._storage.next_order_id, note)
        return self._keep(replace(order, updated_s=now_s), "refunds/create", "orders/updated")

    def cancel(self, number: int, *, reason: str = "customer", refund: bool = True) -> Order:
        """Cancel an order; with a refund everything is taken away and all money goes back.

        Raises:
            OrderError: there is no such order, or no such reason, or it was cancelled before.
        """
        if reason not in CANCEL_REASONS:
            raise OrderError(f"{reason!r} is none of {', '.join(CANCEL_REASONS)}")
        before, now_s = self._find(number), self._now_s()
        order = cancelled(before, now_s, reason, self._storage.next_order_id, refund=refund)
        topics = ["orders/cancelled", "orders/updated"]
        if len(order.refunds) > len(before.refunds):
            topics.insert(1, "refunds/create")
        return self._keep(replace(order, updated_s=now_s), *topics)

    def set_customer(self, number: int, customer: int | None) -> Order:
        """Give an order to a customer, or to nobody.

        Raises:
            OrderError: there is no such order or customer.
        """
        order = self._find(number)
        self._check_customer(customer)
        return self._keep(replace(order, customer=customer, updated_s=self._now_s()), "orders/updated")

    def count_of(self, customer: int) -> int:
        """How many orders a customer has."""
        return cast("tuple[int]", self._storage.db.execute(_COUNT, (self._shop, customer)).fetchone())[0]

    def give_all(self, giver: int, taker: int) -> None:
        """Move a customer's orders to another, in the caller's transaction.

        Assumed: a merge neither touches their `updated_at` nor tells of each.
        """
        self._storage.db.execute(_GIVE, (taker, self._shop, giver))

    def buyer(self, customer: int) -> Buyer:
        """A customer as payloads show one."""
        created_s = self._customers.created_s(customer)
        return Buyer(customer, created_s, created_s, self._customers.details(customer))

    def _find(self, number: int) -> Order:
        order = self.get(number)
        if order is None:
            raise OrderError(f"there is no order {number}")
        return order

    def _check_customer(self, customer: int | None) -> None:
        if customer is not None and not self._customers.exists(customer):
            raise OrderError(f"there is no customer {customer}")

    def _next_ordinal(self) -> int:
        if self._last_ordinal is None:
            row = self._storage.db.execute(_LAST_ORDINAL, (_FIRST_ORDINAL - 1, self._shop)).fetchone()
            self._last_ordinal = cast("tuple[int]", row)[0]
        self._last_ordinal += 1
        return self._last_ordinal

    def _new_lines(self, new: NewOrder, currency: str) -> tuple[Line, ...]:
        if not 0 < len(new.lines) <= LINES_MAX:
            raise OrderError(f"an order has 1 to {LINES_MAX} lines")
        nets: list[Decimal] = []
        for one in new.lines:
            own = read_amount(one.price, currency, "price") * _units(one.quantity, 1)
            net = own - read_amount(one.discount, currency, "discount")
            if net < 0:
                raise OrderError(f"a discount of {one.discount} is more than the line costs")
            nets.append(ZERO if one.gift_card else net)
        discount = read_amount(new.discount, currency, "discount")
        if discount > sum(nets, ZERO):
            raise OrderError(f"a discount of {discount} is more than what it is on costs")
        shares = allocated(discount, nets, currency)
        rate = _rate(new.tax_rate, "tax_rate")
        return tuple(
            self._new_line(one, currency, part, rate, new.taxes_included)
            for one, part in zip(new.lines, shares, strict=True)
        )

    def _new_line(
        self,
        new: NewLine,
        currency: str,
        order_discount: Decimal,
        tax_rate: Decimal,
        taxes_included: bool,  # noqa: FBT001  # as the order has it
    ) -> Line:
        price, quantity = read_amount(new.price, currency, "price"), _units(new.quantity, 1)
        line_discount = read_amount(new.discount, currency, "discount")
        discount = line_discount + order_discount
        net = price * quantity - discount
        if net < 0:
            raise OrderError(f"a discount of {line_discount} is more than the line costs")
        rate = tax_rate if new.tax_rate is None else _rate(new.tax_rate, "tax_rate")
        rate = ZERO if new.gift_card else rate
        tax = tax_on(net, rate, currency, included=taxes_included)
        return Line(
            number=self._storage.next_order_id(),
            title=new.title,
            price=price,
            quantity=quantity,
            gift_card=new.gift_card,
            line_discount=line_discount,
            order_discount=order_discount,
            tax_rate=rate,
            tax=tax,
            current_quantity=quantity,
            current_discount=discount,
            current_tax=tax,
        )

    def _keep(self, order: Order, *topics: str) -> Order:
        self._put(order)
        return self._tell(order, *topics)

    def _put(self, order: Order) -> None:
        values = (
            order.number,
            self._shop,
            order.customer,
            order.ordinal,
            order.created_s,
            order.updated_s,
            order.processed_s,
            order.financial_status,
            order.cancelled_s is not None,
            order.test,
            self._storage.last_order_id,
            write_order(order),
        )
        self._storage.db.execute(_PUT, values)

    def _tell(self, order: Order, *topics: str) -> Order:
        buyer = None if order.customer is None else self.buyer(order.customer)
        whole = order_payload(order, buyer)
        for topic in topics:
            self._emit(topic, refund_payload(order, order.refunds[-1]) if topic == "refunds/create" else whole)
        return order


def _units(given: object, least: int) -> int:
    """A number of units."""
    if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= QUANTITY_MAX:
        raise OrderError(f"a quantity is {least} to {QUANTITY_MAX} units, not {given!r}")
    return given


def _rate(given: Amount, name: str) -> Decimal:
    """A rate, of tax or exchange."""
    try:
        rate = Decimal(str(given))
    except ArithmeticError as error:
        raise AmountError(f"{name} must be a number, not {given!r}") from error
    if not rate.is_finite() or not 0 <= rate <= QUANTITY_MAX:
        raise AmountError(f"{name} must be from 0 to {QUANTITY_MAX}, not {given!r}")
    return rate
