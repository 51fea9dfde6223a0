"""Orders, refunds and customers as webhooks show them: the REST resources, with everything Shopify puts into them.

That is more than most apps should keep: names, e-mail and addresses too. Money is text, beside it the same as a
`…_set` in the shop's currency and the shopper's; only a refund line's `subtotal` and `total_tax` are JSON numbers.
A refund names neither customer nor whether its order was a test.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from devstore.clock import timestamp
from devstore.customers import CustomerDetails
from devstore.money import ZERO, rest_text, rounded
from devstore.orders import Adjustment, Line, Order, Refund, RefundLine

Json = dict[str, object]

_REASONS = {"refund_discrepancy": "Refund discrepancy", "pending_refund_discrepancy": "Pending refund discrepancy"}


@dataclass(frozen=True, slots=True)
class Buyer:
    """A customer as far as payloads show one."""

    number: int
    created_s: int
    updated_s: int
    details: CustomerDetails

    @property
    def email(self) -> str:
        """Somebody who checks out gives an address, even if the shop's records have none."""
        return self.details.email or f"customer-{self.number}@example.com"

    @property
    def first_name(self) -> str:
        """First name."""
        return self.details.first_name or "Customer"

    @property
    def last_name(self) -> str:
        """Last name."""
        return self.details.last_name or str(self.number)


def order_payload(order: Order, buyer: Buyer | None) -> Json:
    """An order: of orders/create, /updated, /paid and /cancelled."""
    email = buyer.email if buyer else "guest@example.com"
    address = _address(buyer)
    lines = [_line(order, line) for line in order.lines]
    return {
        "id": order.number,
        "admin_graphql_api_id": f"gid://shopify/Order/{order.number}",
        "app_id": 580111,
        "browser_ip": "192.0.2.1",
        "buyer_accepts_marketing": False,
        "cancel_reason": order.cancel_reason,
        "cancelled_at": _moment(order.cancelled_s),
        "closed_at": None,
        "confirmed": True,
        "contact_email": email,
        "created_at": timestamp(order.created_s),
        "currency": order.currency,
        **_money(order, "current_subtotal_price", order.current_subtotal),
        **_money(order, "current_total_discounts", order.current_discounts),
        **_money(order, "current_total_price", order.current_total),
        **_money(order, "current_total_tax", order.current_tax),
        "customer_locale": "en",
        "discount_codes": [],
        "email": email,
        "financial_status": order.financial_status,
        "fulfillment_status": None,
        "name": order.name,
        "note": None,
        "note_attributes": [],
        "number": order.ordinal - 1000,
        "order_number": order.ordinal,
        "payment_gateway_names": ["bogus"] if order.received else [],
        "phone": "+15550100",
        "presentment_currency": order.presentment_currency,
        "processed_at": timestamp(order.processed_s),
        "source_name": "web",
        **_money(order, "subtotal_price", order.subtotal),
        "tags": "",
        "tax_lines": [_tax_line(order, order.tax, None)] if order.tax else [],
        "taxes_included": order.taxes_included,
        "test": order.test,
        **_money(order, "total_discounts", order.discounts),
        **_money(order, "total_line_items_price", sum((line.price * line.quantity for line in order.lines), ZERO)),
        "total_outstanding": rest_text(order.outstanding, order.currency),
        **_money(order, "total_price", order.total),
        "total_shipping_price_set": money_set(order, order.shipping),
        **_money(order, "total_tax", order.tax),
        "total_tip_received": rest_text(order.tip, order.currency),
        "updated_at": timestamp(order.updated_s),
        "billing_address": address,
        "customer": customer_payload(buyer) if buyer else None,
        "discount_applications": _applications(order),
        "fulfillments": [],
        "line_items": lines,
        "payment_terms": None,
        "refunds": [refund_payload(order, refund) for refund in order.refunds],
        "returns": [],
        "shipping_address": address,
        "shipping_lines": [_shipping_line(order)] if order.shipping else [],
    }


def refund_payload(order: Order, refund: Refund) -> Json:
    """A refund: of refunds/create, and inside its order."""
    transactions: list[Json] = []
    if refund.amount:
        transactions.append(
            {
                "id": refund.transaction,
                "order_id": order.number,
                "kind": "refund",
                "gateway": "bogus",
                "status": "success",
                "message": "Bogus Gateway: Forced success",
                "created_at": timestamp(refund.created_s),
                "test": order.test,
                "amount": rest_text(refund.amount, order.currency),
                "currency": order.currency,
                "admin_graphql_api_id": f"gid://shopify/OrderTransaction/{refund.transaction}",
            }
        )
    shipping: list[Json] = []
    if refund.shipping:
        shipping.append({"id": refund.number, "subtotal_amount_set": money_set(order, refund.shipping)})
    return {
        "id": refund.number,
        "admin_graphql_api_id": f"gid://shopify/Refund/{refund.number}",
        "order_id": order.number,
        "created_at": timestamp(refund.created_s),
        "processed_at": timestamp(refund.created_s),
        "note": refund.note,
        "restock": any(line.restock_type != "no_restock" for line in refund.lines),
        "user_id": 548380009,
        "duties": [],
        "order_adjustments": [_adjustment(order, refund, one) for one in refund.adjustments],
        "refund_line_items": [_refund_line(order, one) for one in refund.lines],
        "refund_shipping_lines": shipping,
        "return": None,
        "total_duties_set": money_set(order, ZERO),
        "transactions": transactions,
    }


def edit_payload(order: Order, number: int, additions: Mapping[int, int], removals: Mapping[int, int]) -> Json:
    """An edit: of orders/edited. What was changed is by line and number of units."""
    return {
        "order_edit": {
            "id": number,
            "app_id": None,
            "created_at": timestamp(order.updated_s),
            "notify_customer": False,
            "order_id": order.number,
            "staff_note": "",
            "user_id": 548380009,
            "line_items": {
                "additions": [{"id": line, "delta": units} for line, units in additions.items()],
                "removals": [{"id": line, "delta": units} for line, units in removals.items()],
            },
            "discounts": {"line_item": {"additions": [], "removals": []}},
            "shipping_lines": {"additions": [], "removals": []},
        }
    }


def customer_payload(buyer: Buyer) -> Json:
    """A customer: of customers/create and /update, and inside an order. Tags are not in it, as in Shopify's."""
    return {
        "id": buyer.number,
        "admin_graphql_api_id": f"gid://shopify/Customer/{buyer.number}",
        "created_at": timestamp(buyer.created_s),
        "updated_at": timestamp(buyer.updated_s),
        "email": buyer.email,
        "first_name": buyer.first_name,
        "last_name": buyer.last_name,
        "phone": "+15550100",
        "state": "disabled",
        "note": buyer.details.note,
        "verified_email": True,
        "multipass_identifier": None,
        "tax_exempt": False,
        "tax_exemptions": [],
        "currency": "USD",
        "default_address": {**_address(buyer), "id": buyer.number, "customer_id": buyer.number, "default": True},
    }


def deleted_customer_payload(number: int) -> Json:
    """What customers/delete says."""
    return {"id": number, "tax_exemptions": [], "admin_graphql_api_id": f"gid://shopify/Customer/{number}"}


def money_set(order: Order, amount: Decimal) -> Json:
    """An amount in the shop's currency and in the shopper's."""
    shown = presentment(order, amount)
    return {
        "shop_money": {"amount": rest_text(amount, order.currency), "currency_code": order.currency},
        "presentment_money": {
            "amount": rest_text(shown, order.presentment_currency),
            "currency_code": order.presentment_currency,
        },
    }


def presentment(order: Order, amount: Decimal) -> Decimal:
    """An amount in the shopper's currency."""
    return rounded(amount * order.presentment_rate, order.presentment_currency)


def _money(order: Order, name: str, amount: Decimal) -> Json:
    return {name: rest_text(amount, order.currency), f"{name}_set": money_set(order, amount)}


def _line(order: Order, line: Line) -> Json:
    allocations = [
        {
            "amount": rest_text(part, order.currency),
            "amount_set": money_set(order, part),
            "discount_application_index": i,
        }
        for i, part in enumerate(one for one in (line.line_discount, line.order_discount) if one)
    ]
    return {
        "id": line.number,
        "admin_graphql_api_id": f"gid://shopify/LineItem/{line.number}",
        "current_quantity": line.current_quantity,
        "fulfillable_quantity": line.current_quantity,
        "fulfillment_service": "gift_card" if line.gift_card else "manual",
        "fulfillment_status": None,
        "gift_card": line.gift_card,
        "grams": 0,
        "name": line.title,
        "price": rest_text(line.price, order.currency),
        "price_set": money_set(order, line.price),
        "product_exists": True,
        "product_id": 788032119674292922,
        "properties": [],
        "quantity": line.quantity,
        "requires_shipping": not line.gift_card,
        "sku": f"SKU-{line.number % 1000}",
        "taxable": not line.gift_card,
        "title": line.title,
        **_money(order, "total_discount", line.discount),
        "variant_id": None,
        "vendor": None,
        "tax_lines": [_tax_line(order, line.tax, line.tax_rate)] if line.tax else [],
        "duties": [],
        "discount_allocations": allocations,
    }


def _refund_line(order: Order, one: RefundLine) -> Json:
    return {
        "id": one.number,
        "line_item_id": one.line,
        "location_id": None,
        "quantity": one.quantity,
        "restock_type": one.restock_type,
        # Numbers, in JSON: shown so by every sample there is.
        "subtotal": float(one.subtotal),
        "subtotal_set": money_set(order, one.subtotal),
        "total_tax": float(one.tax),
        "total_tax_set": money_set(order, one.tax),
        "line_item": _line(order, order.line(one.line)),
    }


def _adjustment(order: Order, refund: Refund, one: Adjustment) -> Json:
    return {
        "id": one.number,
        "order_id": order.number,
        "refund_id": refund.number,
        "kind": "refund_discrepancy",
        "reason": _REASONS[one.reason],
        **_money(order, "amount", one.amount),
        **_money(order, "tax_amount", ZERO),
    }


def _applications(order: Order) -> list[Json]:
    kinds = [
        (sum((line.line_discount for line in order.lines), ZERO), "explicit", "one"),
        (sum((line.order_discount for line in order.lines), ZERO), "all", "across"),
    ]
    return [
        {
            "target_type": "line_item",
            "type": "manual",
            "value": rest_text(amount, order.currency),
            "value_type": "fixed_amount",
            "allocation_method": method,
            "target_selection": selection,
            "title": "Discount",
        }
        for amount, selection, method in kinds
        if amount
    ]


def _tax_line(order: Order, amount: Decimal, rate: Decimal | None) -> Json:
    shown = None if rate is None else float(rate)
    return {
        "title": "Tax",
        "rate": shown,
        "price": rest_text(amount, order.currency),
        "price_set": money_set(order, amount),
        "channel_liable": False,
    }


def _shipping_line(order: Order) -> Json:
    return {
        "id": order.number,
        "title": "Standard",
        "code": "Standard",
        "source": "shopify",
        "price": rest_text(order.shipping, order.currency),
        "price_set": money_set(order, order.shipping),
        "tax_lines": [],
        "discount_allocations": [],
    }


def _address(buyer: Buyer | None) -> Json:
    first, last = (buyer.first_name, buyer.last_name) if buyer else ("Guest", "Shopper")
    return {
        "first_name": first,
        "last_name": last,
        "name": f"{first} {last}",
        "company": None,
        "address1": "123 Example Street",
        "address2": None,
        "city": "Ottawa",
        "province": "Ontario",
        "province_code": "ON",
        "zip": "K2P 0V6",
        "country": "Canada",
        "country_code": "CA",
        "phone": "+15550100",
        "latitude": 45.4,
        "longitude": -75.7,
    }


def _moment(seconds: int | None) -> str | None:
    return None if seconds is None else timestamp(seconds)
