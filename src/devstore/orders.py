"""An order and its arithmetic: what is left of it after edits and refunds, what is owed, what it is called.

An order never changes: each action here makes the next one out of it. Whatever is taken away takes its share of
discount and tax with it, and the last unit takes the rest; so the parts always add up to the whole, to the cent.

Known from the published schema: `quantity`, taxes and allocated discounts include what was refunded or removed, and
`currentQuantity` does not; an `OrderAdjustment` is the difference between what a refund should be and what it is.
Recorded: a refund of an amount alone has no lines and a negative "refund_discrepancy"; units that an edit takes away
are written down as a refund, and while their money was not given back as a pair of opposite discrepancies, one of
them "pending". Assumed: shipping and tips bear no tax, and a refund that is not of lines leaves the subtotal alone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from devstore.money import ZERO, rounded, share


class OrderError(Exception):
    """The shop does not do that to this order; the text says why."""


class FinancialStatus(StrEnum):
    """How far an order is paid for, as the REST API spells it."""

    PENDING = "pending"
    PARTIALLY_PAID = "partially_paid"
    PAID = "paid"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    VOIDED = "voided"


class RestockType(StrEnum):
    """What became of the stock of refunded units."""

    NO_RESTOCK = "no_restock"
    CANCEL = "cancel"
    RETURN = "return"


class Reason(StrEnum):
    """Why a refund is not what its lines come to."""

    REFUND = "refund_discrepancy"
    PENDING = "pending_refund_discrepancy"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an order.

    Attributes:
        number: its id.
        title: what is sold.
        price: of one unit, before discounts.
        quantity: units ordered, those taken away since included.
        gift_card: it is a gift card; no tax is charged on it.
        line_discount: what its own discounts take off all units.
        order_discount: its share of the discounts on the whole order.
        tax_rate: tax on one unit of money, 0.2 for 20 %.
        tax: tax on all units.
        current_quantity: units that are left.
        current_discount: discounts on those.
        current_tax: tax on those.
    """

    number: int
    title: str
    price: Decimal
    quantity: int
    gift_card: bool
    line_discount: Decimal
    order_discount: Decimal
    tax_rate: Decimal
    tax: Decimal
    current_quantity: int
    current_discount: Decimal
    current_tax: Decimal

    @property
    def discount(self) -> Decimal:
        """All discounts on all units."""
        return self.line_discount + self.order_discount

    @property
    def subtotal(self) -> Decimal:
        """All units after discounts."""
        return self.price * self.quantity - self.discount

    @property
    def current_subtotal(self) -> Decimal:
        """The units that are left, after discounts."""
        return self.price * self.current_quantity - self.current_discount


@dataclass(frozen=True, slots=True)
class RefundLine:
    """Units of a line that a refund took away; `line` is the line's id."""

    number: int
    line: int
    quantity: int
    restock_type: RestockType
    subtotal: Decimal
    tax: Decimal


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A difference between what a refund should be and what it is; negative is in the customer's favour."""

    number: int
    reason: Reason
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Refund:
    """One refund.

    Attributes:
        number: its id.
        created_s: when it was made.
        lines: what was taken away.
        shipping: shipping costs given back.
        tip: tip given back.
        amount: the money that went back; the number of its transaction is `transaction`.
        goodwill: how much more that is than was due, negative if less.
        adjustments: how Shopify shows the differences.
        note: why.
    """

    number: int
    created_s: int
    lines: tuple[RefundLine, ...]
    shipping: Decimal
    tip: Decimal
    amount: Decimal
    goodwill: Decimal
    transaction: int
    adjustments: tuple[Adjustment, ...]
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """One order. Amounts are in the shop's currency, `currency`.

    Attributes:
        number: its id.
        ordinal: its number for people, counted from 1001.
        customer: whose it is; None is nobody's that the shop knows.
        presentment_currency: what the shopper saw and paid.
        presentment_rate: how much of it one unit of the shop's currency is.
        taxes_included: prices include tax.
        received: money that came in, whatever went back since.
    """

    number: int
    ordinal: int
    customer: int | None
    created_s: int
    updated_s: int
    processed_s: int
    cancelled_s: int | None
    cancel_reason: str | None
    test: bool
    currency: str
    presentment_currency: str
    presentment_rate: Decimal
    taxes_included: bool
    shipping: Decimal
    tip: Decimal
    received: Decimal
    lines: tuple[Line, ...]
    refunds: tuple[Refund, ...]

    @property
    def name(self) -> str:
        """What people call it, `#1001`."""
        return f"#{self.ordinal}"

    @property
    def subtotal(self) -> Decimal:
        """All lines after discounts, before anything was taken away."""
        return sum((line.subtotal for line in self.lines), ZERO)

    @property
    def current_subtotal(self) -> Decimal:
        """What is left of the lines, after discounts; with tax if prices include it. Never shipping nor tips."""
        return sum((line.current_subtotal for line in self.lines), ZERO)

    @property
    def discounts(self) -> Decimal:
        """All discounts."""
        return sum((line.discount for line in self.lines), ZERO)

    @property
    def current_discounts(self) -> Decimal:
        """Discounts on what is left."""
        return sum((line.current_discount for line in self.lines), ZERO)

    @property
    def tax(self) -> Decimal:
        """All tax."""
        return sum((line.tax for line in self.lines), ZERO)

    @property
    def current_tax(self) -> Decimal:
        """Tax on what is left."""
        return sum((line.current_tax for line in self.lines), ZERO)

    @property
    def current_shipping(self) -> Decimal:
        """Shipping that was not given back."""
        return self.shipping - sum((refund.shipping for refund in self.refunds), ZERO)

    @property
    def current_tip(self) -> Decimal:
        """Tip that was not given back."""
        return self.tip - sum((refund.tip for refund in self.refunds), ZERO)

    @property
    def total(self) -> Decimal:
        """Everything, before anything was taken away."""
        return self.subtotal + self.shipping + self.tip + (ZERO if self.taxes_included else self.tax)

    @property
    def current_total(self) -> Decimal:
        """Everything that is left."""
        added = ZERO if self.taxes_included else self.current_tax
        return self.current_subtotal + self.current_shipping + self.current_tip + added

    @property
    def refunded(self) -> Decimal:
        """Money that went back."""
        return sum((refund.amount for refund in self.refunds), ZERO)

    @property
    def net_payment(self) -> Decimal:
        """Money that came in and did not go back."""
        return self.received - self.refunded

    @property
    def outstanding(self) -> Decimal:
        """What the customer still owes; negative is what the shop does."""
        return self.current_total - self.net_payment - sum((refund.goodwill for refund in self.refunds), ZERO)

    @property
    def financial_status(self) -> FinancialStatus:
        """What it is called. An order that owes again after an edit is partially paid, refunds or not."""
        if not self.received:
            unpaid = FinancialStatus.PENDING if self.cancelled_s is None else FinancialStatus.VOIDED
            return unpaid if self.total else FinancialStatus.PAID
        if self.refunded >= self.received:
            return FinancialStatus.REFUNDED
        if self.outstanding > 0:
            return FinancialStatus.PARTIALLY_PAID
        return FinancialStatus.PARTIALLY_REFUNDED if self.refunded else FinancialStatus.PAID

    def line(self, number: int) -> Line:
        """A line by its id. Raises OrderError if there is none."""
        found = next((line for line in self.lines if line.number == number), None)
        if found is None:
            raise OrderError(f"order {self.name} has no line {number}")
        return found


# Gives out ids, one at a time, for what is in an order.
NextId = Callable[[], int]


def tax_on(subtotal: Decimal, rate: Decimal, currency: str, *, included: bool) -> Decimal:
    """Tax on an amount that includes it, or comes without."""
    return rounded(subtotal * rate / (1 + rate) if included else subtotal * rate, currency)


def paid(order: Order, amount: Decimal | None) -> Order:
    """Money comes in: what is outstanding, unless less is said.

    Raises:
        OrderError: nothing is owed, or less than this, or the order was cancelled.
    """
    if order.cancelled_s is not None:
        raise OrderError(f"order {order.name} was cancelled")
    if order.outstanding <= 0:
        raise OrderError(f"nothing is outstanding on order {order.name}")
    given = order.outstanding if amount is None else amount
    if not 0 < given <= order.outstanding:
        raise OrderError(f"{order.outstanding} is outstanding on order {order.name}: pay that, or less")
    return replace(order, received=order.received + given)


def grown(order: Order, added: Iterable[Line], more: Mapping[int, int]) -> Order:
    """An edit adds lines, and units to lines; added units have no discount."""
    lines: list[Line] = []
    for line in order.lines:
        units = more.get(line.number, 0)
        tax = tax_on(line.price * units, line.tax_rate, order.currency, included=order.taxes_included)
        lines.append(
            replace(
                line,
                quantity=line.quantity + units,
                current_quantity=line.current_quantity + units,
                tax=line.tax + tax,
                current_tax=line.current_tax + tax,
            )
        )
    return replace(order, lines=(*lines, *added))


@dataclass(frozen=True, slots=True)
class Removal:
    """Units to take away.

    Attributes:
        quantities: how many units of which line.
        shipping: shipping costs to give back.
        tip: tip to give back.
        restock_type: what becomes of the stock.
    """

    quantities: Mapping[int, int]
    shipping: Decimal = ZERO
    tip: Decimal = ZERO
    restock_type: RestockType = RestockType.NO_RESTOCK


def refunded(
    order: Order, removal: Removal, amount: Decimal | None, now_s: int, next_id: NextId, note: str | None = None
) -> Order:
    """Take units away and give money back: what they cost as far as it was paid, unless an amount is said.

    What exceeds the price of the units and what the shop owes from an earlier edit is goodwill.

    Raises:
        OrderError: there are not so many units, or not so much money.
    """
    number = next_id()
    lines, left = _taken(order, removal, next_id)
    if removal.shipping > order.current_shipping:
        raise OrderError(f"order {order.name} has {order.current_shipping} of shipping left")
    refund = Refund(number, now_s, left, removal.shipping, removal.tip, ZERO, ZERO, 0, (), note)
    after = replace(order, lines=lines, refunds=(*order.refunds, refund))
    due = max(ZERO, -after.outstanding)
    suggested = min(due, order.current_total - after.current_total)
    # Goodwill of before is not given twice: no more goes back than there is left of what came in.
    given = min(suggested, order.net_payment) if amount is None else amount
    if given > order.net_payment:
        raise OrderError(f"order {order.name} has {order.net_payment} left to give back, not {given}")
    if not left and not given and not removal.shipping:
        raise OrderError("a refund is of some line, of shipping, or of an amount")
    # Less than it should be is in the shop's favour; more pays what an earlier edit left due, then is goodwill.
    goodwill = given - suggested if given < suggested else max(ZERO, given - due)
    adjustments: tuple[Adjustment, ...] = ()
    if given != suggested:
        adjustments = (Adjustment(next_id(), Reason.REFUND, suggested - given),)
    transaction = next_id() if given else 0
    refund = replace(refund, amount=given, goodwill=goodwill, transaction=transaction, adjustments=adjustments)
    return replace(after, refunds=(*order.refunds, refund))


def removed(order: Order, removal: Removal, now_s: int, next_id: NextId) -> Order:
    """An edit takes units away. Their money stays due to the customer until a refund gives it back."""
    number = next_id()
    lines, left = _taken(order, removal, next_id)
    refund = Refund(number, now_s, left, ZERO, ZERO, ZERO, ZERO, 0, ())
    after = replace(order, lines=lines, refunds=(*order.refunds, refund))
    pending = max(ZERO, -after.outstanding) - max(ZERO, -order.outstanding)
    if pending:
        adjustments = (
            Adjustment(next_id(), Reason.REFUND, pending),
            Adjustment(next_id(), Reason.PENDING, -pending),
        )
        after = replace(after, refunds=(*order.refunds, replace(refund, adjustments=adjustments)))
    return after


def cancelled(order: Order, now_s: int, reason: str, next_id: NextId, *, refund: bool) -> Order:
    """Cancel: with a refund, everything is taken away and all money goes back; without, everything stays.

    Raises:
        OrderError: it was cancelled before.
    """
    if order.cancelled_s is not None:
        raise OrderError(f"order {order.name} was cancelled already")
    if refund:
        left = {line.number: line.current_quantity for line in order.lines if line.current_quantity}
        everything = Removal(left, order.current_shipping, order.current_tip, RestockType.CANCEL)
        if left or order.net_payment:
            order = refunded(order, everything, order.net_payment, now_s, next_id)
    return replace(order, cancelled_s=now_s, cancel_reason=reason)


def _taken(order: Order, removal: Removal, next_id: NextId) -> tuple[tuple[Line, ...], tuple[RefundLine, ...]]:
    """The lines after taking units away, and what was taken."""
    taken: list[RefundLine] = []
    for number, units in removal.quantities.items():
        line = order.line(number)
        if not 0 < units <= line.current_quantity:
            raise OrderError(f"line {number} of order {order.name} has {line.current_quantity} units left")
        discount = share(line.current_discount, units, line.current_quantity, order.currency)
        tax = share(line.current_tax, units, line.current_quantity, order.currency)
        subtotal = line.price * units - discount
        taken.append(RefundLine(next_id(), number, units, removal.restock_type, subtotal, tax))
    by_line = {one.line: one for one in taken}
    return tuple(_less(line, by_line.get(line.number)) for line in order.lines), tuple(taken)


def _less(line: Line, taken: RefundLine | None) -> Line:
    if taken is None:
        return line
    return replace(
        line,
        current_quantity=line.current_quantity - taken.quantity,
        current_discount=line.current_discount - (line.price * taken.quantity - taken.subtotal),
        current_tax=line.current_tax - taken.tax,
    )


def allocated(discount: Decimal, weights: Sequence[Decimal], currency: str) -> list[Decimal]:
    """Spread a discount on the whole order over its lines, in proportion; the parts add up to it."""
    shares: list[Decimal] = []
    left, weight_left = discount, sum(weights, ZERO)
    for weight in weights:
        part = rounded(left * weight / weight_left, currency) if weight_left else ZERO
        shares.append(part)
        left, weight_left = left - part, weight_left - weight
    return shares
