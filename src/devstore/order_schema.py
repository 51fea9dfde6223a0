"""Resolvers of orders, refunds and merges of customers."""

from collections.abc import Callable, Sequence
from typing import cast

from devstore.arguments import Info, Input, read_gid_of, read_page
from devstore.gids import customer_gid, parse_gid
from devstore.installing import has_scope
from devstore.merges import Merge, MergeError, MergeStatus
from devstore.order_search import OrderSearch, find_orders
from devstore.order_views import LineItemView, OrderAdjustmentView, OrderView, RefundLineItemView, RefundView, money_bag
from devstore.orders import Order
from devstore.pages import cut_list
from devstore.shops import Shop
from devstore.views import CustomerView

# Without the scope `read_all_orders` older orders are not there for an app.
READABLE_S = 60 * 24 * 60 * 60

Json = dict[str, object]

# The amounts of an order: field of the type, and property of `Order`.
_AMOUNTS = {
    "currentShippingPriceSet": "current_shipping",
    "currentSubtotalPriceSet": "current_subtotal",
    "currentTotalDiscountsSet": "current_discounts",
    "currentTotalPriceSet": "current_total",
    "currentTotalTaxSet": "current_tax",
    "netPaymentSet": "net_payment",
    "subtotalPriceSet": "subtotal",
    "totalDiscountsSet": "discounts",
    "totalOutstandingSet": "outstanding",
    "totalPriceSet": "total",
    "totalReceivedSet": "received",
    "totalRefundedSet": "refunded",
    "totalShippingPriceSet": "shipping",
    "totalTaxSet": "tax",
    "totalTipReceivedSet": "tip",
}


# ---------------------------------------------------------------------------------------------------- queries


def find_order(shop: Shop, number: int) -> OrderView | None:
    """An order by number; None if there is none, or it is older than the app may see."""
    order = shop.orders.get(number)
    return None if order is None or order.created_s < _oldest_s(shop) else OrderView(shop, order)


def _oldest_s(shop: Shop) -> int:
    return 0 if has_scope(shop.installation.scopes, "read_all_orders") else shop.now_s() - READABLE_S


def _query_order(_root: object, info: Info, id: str) -> OrderView | None:  # noqa: A002  # the schema's name
    return find_order(info.context, read_gid_of(id, "Order").number)


def _query_orders(_root: object, info: Info, **arguments: object) -> Json:
    return _orders(info.context, OrderSearch(), "PROCESSED_AT", arguments)


def _customer_orders(customer: CustomerView, _info: Info, **arguments: object) -> Json:
    search = OrderSearch()
    search.equal["customer"] = customer.number
    return _orders(customer.shop, search, "ID", arguments)


def _orders(shop: Shop, search: OrderSearch, sort_key: str, arguments: dict[str, object]) -> Json:
    search = search.read(cast("str | None", arguments.get("query")))
    search.narrow("created_s", ">=", _oldest_s(shop))
    wanted = cast("str | None", arguments.get("sort_key")) or sort_key
    found = find_orders(shop.storage, shop.number, search, read_page(arguments), wanted)
    orders = [cast("Order", shop.orders.get(number)) for number in found.numbers]
    return found.as_connection([OrderView(shop, order) for order in orders])


def _customer_count(customer: CustomerView, _info: Info) -> int:
    return customer.shop.orders.count_of(customer.number)


def _line_items(view: OrderView, _info: Info, **page: object) -> Json:
    by_number = {line.number: line for line in view.order.lines}
    found = cut_list(read_page(page), list(by_number))
    return found.as_connection([LineItemView(view.order, by_number[number]) for number in found.numbers])


def _tax_lines(view: LineItemView, _info: Info, *, first: int | None = None) -> Sequence[Json]:
    return view.tax_lines[:first]


def _refunds(view: OrderView, _info: Info, *, first: int | None = None) -> list[RefundView]:
    return [RefundView(view.shop, view.order, refund) for refund in view.order.refunds[:first]]


def _refund_lines(view: RefundView, _info: Info, **page: object) -> Json:
    by_number = {line.number: line for line in view.refund.lines}
    found = cut_list(read_page(page), list(by_number))
    return found.as_connection([RefundLineItemView(view.entry, by_number[number]) for number in found.numbers])


def _adjustments(view: RefundView, _info: Info, **page: object) -> Json:
    by_number = {one.number: one for one in view.refund.adjustments}
    found = cut_list(read_page(page), list(by_number))
    return found.as_connection([OrderAdjustmentView(view.entry, by_number[number]) for number in found.numbers])


def _amount(name: str) -> Callable[[OrderView, Info], Json]:
    def resolve(view: OrderView, _info: Info) -> Json:
        return money_bag(view.order, getattr(view.order, name))

    return resolve


# ----------------------------------------------------------------------------------------------------- merges


def _merge_customers(
    _root: object, info: Info, *, customer_one_id: str, customer_two_id: str, override_fields: Input | None = None
) -> Json:
    keep = parse_gid(str((override_fields or {}).get("customerIdOfEmailToKeep")))
    one, two = read_gid_of(customer_one_id, "Customer"), read_gid_of(customer_two_id, "Customer")
    try:
        merge = info.context.merges.request(one.number, two.number, keep_email_of=keep.number if keep else None)
    except MergeError as error:
        problem = {"field": None, "message": str(error), "code": "INVALID_CUSTOMER_ID"}
        return {"job": None, "resultingCustomerId": None, "userErrors": [problem]}
    return {"job": _job(merge), "resultingCustomerId": customer_gid(merge.kept), "userErrors": ()}


def _query_job(_root: object, info: Info, id: str) -> Json | None:  # noqa: A002  # the schema's name
    merge = info.context.merges.find(id)
    return None if merge is None else _job(merge)


def _query_merge(_root: object, info: Info, *, job_id: str) -> Json | None:
    merge = info.context.merges.find(job_id)
    if merge is None:
        return None
    errors = [{"errorFields": [one.field.upper()], "message": one.message} for one in merge.problems]
    return {
        "customerMergeErrors": errors,
        "jobId": merge.job,
        "resultingCustomerId": customer_gid(merge.kept),
        "status": merge.status,
    }


def _job(merge: Merge) -> Json:
    return {"id": merge.job, "done": merge.status is not MergeStatus.REQUESTED}


ORDER_RESOLVERS: dict[str, Callable[..., object]] = {
    "QueryRoot.customerMergeJobStatus": _query_merge,
    "QueryRoot.job": _query_job,
    "QueryRoot.order": _query_order,
    "QueryRoot.orders": _query_orders,
    "Customer.numberOfOrders": _customer_count,
    "Customer.orders": _customer_orders,
    "LineItem.taxLines": _tax_lines,
    "Order.lineItems": _line_items,
    "Order.refunds": _refunds,
    "Refund.orderAdjustments": _adjustments,
    "Refund.refundLineItems": _refund_lines,
    "Mutation.customerMerge": _merge_customers,
    **{f"Order.{field}": _amount(name) for field, name in _AMOUNTS.items()},
}
