"""What GraphQL sees of orders: one small class for each object type, read by attribute."""

from collections.abc import Sequence
from decimal import Decimal
from typing import ClassVar

from devstore.clock import timestamp
from devstore.money import DECIMALS, ZERO, graphql_text
from devstore.order_payloads import presentment
from devstore.orders import Adjustment, Line, Order, Refund, RefundLine
from devstore.shops import Shop
from devstore.views import CustomerView

Json = dict[str, object]


def money_bag(order: Order, amount: Decimal) -> Json:
    """Type `MoneyBag`."""
    shown = presentment(order, amount)
    return {
        "shopMoney": {"amount": graphql_text(amount), "currencyCode": order.currency},
        "presentmentMoney": {"amount": graphql_text(shown), "currencyCode": order.presentment_currency},
    }


class LineItemView:
    """Type `LineItem`."""

    graphql_type: ClassVar[str] = "LineItem"
    __slots__ = ("line", "order")

    def __init__(self, order: Order, line: Line) -> None:
        self.order = order
        self.line = line

    @property
    def id(self) -> str:
        """Its global id."""
        return f"gid://shopify/LineItem/{self.line.number}"

    @property
    def name(self) -> str:
        """What is sold."""
        return self.line.title

    title = name

    @property
    def quantity(self) -> int:
        """Units ordered, refunded and removed ones included."""
        return self.line.quantity

    @property
    def current_quantity(self) -> int:
        """Units that are left."""
        return self.line.current_quantity

    refundable_quantity = current_quantity

    @property
    def is_gift_card(self) -> bool:
        """It is a gift card."""
        return self.line.gift_card

    @property
    def taxable(self) -> bool:
        """Tax may be charged on it."""
        return not self.line.gift_card

    @property
    def original_unit_price_set(self) -> Json:
        """Price of a unit before discounts."""
        return money_bag(self.order, self.line.price)

    @property
    def original_total_set(self) -> Json:
        """The same of all units."""
        return money_bag(self.order, self.line.price * self.line.quantity)

    @property
    def discounted_unit_price_set(self) -> Json:
        """Price of a unit after the line's own discounts, about."""
        return money_bag(self.order, self._unit(self.line.line_discount))

    @property
    def discounted_unit_price_after_all_discounts_set(self) -> Json:
        """The same after all discounts."""
        return money_bag(self.order, self._unit(self.line.discount))

    @property
    def discounted_total_set(self) -> Json:
        """All units after the line's own discounts."""
        return money_bag(self.order, self.line.price * self.line.quantity - self.line.line_discount)

    @property
    def total_discount_set(self) -> Json:
        """The line's own discounts."""
        return money_bag(self.order, self.line.line_discount)

    @property
    def discount_allocations(self) -> list[Json]:
        """Type `DiscountAllocation`: the line's own discount and its share of the order's, those there are."""
        parts = (self.line.line_discount, self.line.order_discount)
        return [{"allocatedAmountSet": money_bag(self.order, part)} for part in parts if part]

    @property
    def tax_lines(self) -> list[Json]:
        """Type `TaxLine`, one at most."""
        rate = self.line.tax_rate
        tax: Json = {"title": "Tax", "rate": float(rate), "priceSet": money_bag(self.order, self.line.tax)}
        return [tax] if self.line.tax else []

    def _unit(self, discount: Decimal) -> Decimal:
        net = self.line.price * self.line.quantity - discount
        unit = net / self.line.quantity if self.line.quantity else ZERO
        return unit.quantize(Decimal(1).scaleb(-DECIMALS[self.order.currency]))


class RefundLineItemView:
    """Type `RefundLineItem`."""

    graphql_type: ClassVar[str] = "RefundLineItem"
    __slots__ = ("order", "taken")

    def __init__(self, order: Order, taken: RefundLine) -> None:
        self.order = order
        self.taken = taken

    @property
    def id(self) -> str:
        """Its global id."""
        return f"gid://shopify/RefundLineItem/{self.taken.number}"

    @property
    def line_item(self) -> LineItemView:
        """The line it is of."""
        return LineItemView(self.order, self.order.line(self.taken.line))

    @property
    def quantity(self) -> int:
        """Units taken away."""
        return self.taken.quantity

    @property
    def restock_type(self) -> str:
        """Member of `RefundLineItemRestockType`."""
        return self.taken.restock_type.upper()

    @property
    def restocked(self) -> bool:
        """They are in stock again."""
        return self.taken.restock_type != "no_restock"

    @property
    def subtotal_set(self) -> Json:
        """What they cost after discounts."""
        return money_bag(self.order, self.taken.subtotal)

    @property
    def total_tax_set(self) -> Json:
        """Tax on them."""
        return money_bag(self.order, self.taken.tax)


class OrderAdjustmentView:
    """Type `OrderAdjustment`."""

    graphql_type: ClassVar[str] = "OrderAdjustment"
    __slots__ = ("adjustment", "order")

    def __init__(self, order: Order, adjustment: Adjustment) -> None:
        self.order = order
        self.adjustment = adjustment

    @property
    def id(self) -> str:
        """Its global id."""
        return f"gid://shopify/OrderAdjustment/{self.adjustment.number}"

    @property
    def amount_set(self) -> Json:
        """How much; negative is in the customer's favour."""
        return money_bag(self.order, self.adjustment.amount)

    @property
    def tax_amount_set(self) -> Json:
        """Tax in it: none."""
        return money_bag(self.order, ZERO)

    @property
    def reason(self) -> str:
        """Member of `OrderAdjustmentDiscrepancyReason`."""
        return self.adjustment.reason.upper()


class RefundView:
    """Type `Refund`."""

    graphql_type: ClassVar[str] = "Refund"
    __slots__ = ("entry", "refund", "shop")

    def __init__(self, shop: Shop, order: Order, refund: Refund) -> None:
        self.shop = shop
        self.entry = order
        self.refund = refund

    @property
    def id(self) -> str:
        """Its global id."""
        return f"gid://shopify/Refund/{self.refund.number}"

    @property
    def legacy_resource_id(self) -> int:
        """The number alone."""
        return self.refund.number

    @property
    def created_at(self) -> str:
        """When it was made."""
        return timestamp(self.refund.created_s)

    processed_at = created_at
    updated_at = created_at

    @property
    def note(self) -> str | None:
        """Why."""
        return self.refund.note

    @property
    def order(self) -> "OrderView":
        """The order it is of."""
        return OrderView(self.shop, self.entry)

    @property
    def total_refunded_set(self) -> Json:
        """Money that went back."""
        return money_bag(self.entry, self.refund.amount)


class OrderView:
    """Type `Order`."""

    graphql_type: ClassVar[str] = "Order"
    # Nothing is ever closed, and nobody tags orders here.
    closed: ClassVar[bool] = False
    confirmed: ClassVar[bool] = True
    tags: ClassVar[Sequence[str]] = ()
    source_name: ClassVar[str] = "web"
    __slots__ = ("order", "shop")

    def __init__(self, shop: Shop, order: Order) -> None:
        self.shop = shop
        self.order = order

    @property
    def id(self) -> str:
        """Its global id."""
        return f"gid://shopify/Order/{self.order.number}"

    @property
    def legacy_resource_id(self) -> int:
        """The number alone."""
        return self.order.number

    @property
    def name(self) -> str:
        """What people call it."""
        return self.order.name

    @property
    def test(self) -> bool:
        """It was placed to try the checkout."""
        return self.order.test

    @property
    def created_at(self) -> str:
        """When it was placed."""
        return timestamp(self.order.created_s)

    @property
    def processed_at(self) -> str:
        """When it counts as placed."""
        return timestamp(self.order.processed_s)

    @property
    def updated_at(self) -> str:
        """When it last changed."""
        return timestamp(self.order.updated_s)

    @property
    def cancelled_at(self) -> str | None:
        """When it was cancelled."""
        return None if self.order.cancelled_s is None else timestamp(self.order.cancelled_s)

    @property
    def cancel_reason(self) -> str | None:
        """Member of `OrderCancelReason`."""
        return None if self.order.cancel_reason is None else self.order.cancel_reason.upper()

    @property
    def display_financial_status(self) -> str:
        """Member of `OrderDisplayFinancialStatus`."""
        return self.order.financial_status.upper()

    @property
    def fully_paid(self) -> bool:
        """Nothing is owed."""
        return self.order.outstanding <= 0

    @property
    def unpaid(self) -> bool:
        """Nothing came in yet."""
        return self.order.outstanding > 0 and not self.order.received

    @property
    def taxes_included(self) -> bool:
        """Prices include tax."""
        return self.order.taxes_included

    @property
    def currency_code(self) -> str:
        """The shop's currency."""
        return self.order.currency

    @property
    def presentment_currency_code(self) -> str:
        """The shopper's currency."""
        return self.order.presentment_currency

    @property
    def customer(self) -> CustomerView | None:
        """Whose it is."""
        number = self.order.customer
        return None if number is None else CustomerView(self.shop, number)
