"""The staff's pages of orders: `/{shop}/admin/orders`, and one for each order. Plain forms, no JavaScript."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from http import HTTPStatus
from typing import cast

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from devstore import html
from devstore.clock import timestamp
from devstore.money import DECIMALS, AmountError, rest_text
from devstore.order_book import CANCEL_REASONS, NewLine, NewOrder
from devstore.order_search import OrderSearch, find_orders
from devstore.orders import Order, OrderError, Refund
from devstore.pages import PageRequest
from devstore.shops import Shop
from devstore.web import World

ORDERS_SHOWN_MAX = 50
FORM_LINES = 3


class OrderPages:
    """Pages and forms, each a method that takes the request and gives its response."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def orders(self, request: Request) -> Response:
        """The newest orders, and a form that places one."""
        shop = shop_of(self._world, request)
        return NOT_FOUND if shop is None else _orders_page(shop)

    async def create(self, request: Request) -> Response:
        """Place an order."""
        shop = shop_of(self._world, request)
        if shop is None:
            return NOT_FOUND
        form = await html.read_form(request)
        try:
            order = shop.orders.create(_new_order(form))
        except (OrderError, AmountError) as error:
            return _orders_page(shop, str(error))
        return _seen(order_path(shop, order.number))

    async def order(self, request: Request) -> Response:
        """One order, with what can be done to it."""
        shop = shop_of(self._world, request)
        order = None if shop is None else shop.orders.get(cast("int", request.path_params["number"]))
        return NOT_FOUND if shop is None or order is None else _order_page(shop, order)

    async def act(self, request: Request) -> Response:
        """Do something to an order."""
        shop = shop_of(self._world, request)
        number = cast("int", request.path_params["number"])
        order = None if shop is None else shop.orders.get(number)
        action = _ACTIONS.get(cast("str", request.path_params["action"]))
        if shop is None or order is None or action is None:
            return NOT_FOUND
        form = await html.read_form(request)
        try:
            action(shop, order, form)
        except (OrderError, AmountError) as error:
            return _order_page(shop, order, str(error))
        return _seen(order_path(shop, number))


def order_page_routes(world: World) -> list[Route]:
    """The routes of these pages."""
    pages, root = OrderPages(world), "/{shop}/admin/orders"
    return [
        Route(root, pages.orders, methods=["GET"]),
        Route(root, pages.create, methods=["POST"]),
        Route(f"{root}/{{number:int}}", pages.order, methods=["GET"]),
        Route(f"{root}/{{number:int}}/{{action}}", pages.act, methods=["POST"]),
    ]


NOT_FOUND = Response("Not Found", HTTPStatus.NOT_FOUND)


def shop_of(world: World, request: Request) -> Shop | None:
    """The shop a page is of."""
    return world.shops.get(cast("str", request.path_params["shop"]))


def order_path(shop: Shop, number: int) -> str:
    """Where an order's page is."""
    return f"/{shop.domain}/admin/orders/{number}"


def customer_path(shop: Shop, number: int) -> str:
    """Where a customer's page is."""
    return f"/{shop.domain}/admin/customers/{number}"


def customer_link(shop: Shop, number: int | None) -> Markup:
    """A customer's name, leading to their page."""
    if number is None:
        return Markup("No customer")
    return html.link(customer_path(shop, number), shop.customers.details(number).display_name(number))


def order_table(shop: Shop, caption: str, search: OrderSearch) -> Markup:
    """The newest orders there are of some."""
    request = PageRequest(first=ORDERS_SHOWN_MAX, reverse=True)
    page = find_orders(shop.storage, shop.number, search, request, "ID")
    orders = [cast("Order", shop.orders.get(number)) for number in page.numbers]
    rows = [
        (
            html.link(order_path(shop, order.number), order.name),
            timestamp(order.created_s),
            customer_link(shop, order.customer),
            _badges(order),
            _money(order, order.current_total),
        )
        for order in orders
    ]
    return html.table(caption, ("Order", "Placed", "Customer", "Status", "Total"), rows, numbers=(4,))


def text(form: Mapping[str, str], name: str) -> str:
    """A field of a form, without spaces around it; empty if there is none."""
    return form.get(name, "").strip()


def number(form: Mapping[str, str], name: str, what: str) -> int | None:
    """A whole number in a form, or nothing. Raises OrderError if it is something else."""
    given = text(form, name)
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < len(str(2**63))):
        raise OrderError(f"{what} must be a whole number, not {given!r}")
    return int(given)


def _seen(path: str) -> Response:
    # Whoever reloads the page that follows does not send the form again.
    return RedirectResponse(path, HTTPStatus.SEE_OTHER)


# ------------------------------------------------------------------------------------------------------ forms


def _new_order(form: Mapping[str, str]) -> NewOrder:
    lines: list[NewLine] = []
    for i in range(1, FORM_LINES + 1):
        if text(form, f"price_{i}"):
            quantity = number(form, f"quantity_{i}", f"the quantity of item {i}")
            title = text(form, f"title_{i}") or f"Item {i}"
            gift_card = text(form, f"gift_card_{i}") == "yes"
            lines.append(NewLine(text(form, f"price_{i}"), 1 if quantity is None else quantity, title, gift_card))
    return NewOrder(
        lines,
        customer=number(form, "customer", "the customer"),
        paid=text(form, "paid") == "yes",
        shipping=text(form, "shipping") or 0,
        tip=text(form, "tip") or 0,
        discount=text(form, "discount") or 0,
        tax_rate=_percent(text(form, "tax_percent")),
        taxes_included=text(form, "taxes_included") == "yes",
        test=text(form, "test") == "yes",
        currency=text(form, "currency") or None,
    )


def _percent(given: str) -> Decimal:
    try:
        return Decimal(given or "0") / 100
    except ArithmeticError as error:
        raise AmountError(f"the tax must be a percentage, not {given!r}") from error


def _quantities(form: Mapping[str, str], order: Order) -> dict[int, int]:
    asked = {line.number: number(form, f"line_{line.number}", line.title) for line in order.lines}
    return {line: units for line, units in asked.items() if units is not None}


def _pay(shop: Shop, order: Order, form: Mapping[str, str]) -> None:
    shop.orders.pay(order.number, text(form, "amount") or None)


def _edit(shop: Shop, order: Order, form: Mapping[str, str]) -> None:
    price, title = text(form, "price"), text(form, "title") or "Something"
    units = number(form, "quantity", "the quantity")
    add = [NewLine(price, 1 if units is None else units, title)] if price else []
    shop.orders.edit(order.number, add=add, quantities=_quantities(form, order))


def _refund(shop: Shop, order: Order, form: Mapping[str, str]) -> None:
    shop.orders.refund(
        order.number,
        _quantities(form, order),
        amount=text(form, "amount") or None,
        shipping=text(form, "shipping") or 0,
        restock=text(form, "restock") == "yes",
        note=text(form, "note") or None,
    )


def _cancel(shop: Shop, order: Order, form: Mapping[str, str]) -> None:
    reason = text(form, "reason") or CANCEL_REASONS[0]
    shop.orders.cancel(order.number, reason=reason, refund=text(form, "refund") == "yes")


def _set_customer(shop: Shop, order: Order, form: Mapping[str, str]) -> None:
    shop.orders.set_customer(order.number, number(form, "customer", "the customer"))


_ACTIONS: Mapping[str, Callable[[Shop, Order, Mapping[str, str]], None]] = {
    "pay": _pay,
    "edit": _edit,
    "refund": _refund,
    "cancel": _cancel,
    "customer": _set_customer,
}


# ------------------------------------------------------------------------------------------------------ pages


def _orders_page(shop: Shop, wrong: str | None = None) -> Response:
    body = Markup("<h1>Orders</h1>")
    if wrong is not None:
        body += html.problem(wrong)
    body += html.section("Place an order", _order_form(shop))
    body += html.section(
        "All orders", order_table(shop, f"The newest {ORDERS_SHOWN_MAX}, newest first.", OrderSearch())
    )
    status = HTTPStatus.OK if wrong is None else HTTPStatus.UNPROCESSABLE_ENTITY
    return html.page("Orders", shop.domain, body, status=status)


def _order_form(shop: Shop, customer: int | None = None) -> Markup:
    """The form that places an order; the customer is given if it stands on their page."""
    lines = [
        _group(
            html.field(f"Item {i}", f"title_{i}", placeholder=f"Item {i}"),
            html.field(f"Price of item {i}", f"price_{i}", inputmode="decimal", class_="short"),
            html.field(f"Quantity of item {i}", f"quantity_{i}", 1, kind="number", min=1, class_="short"),
            html.check(f"Item {i} is a gift card", f"gift_card_{i}"),
        )
        for i in range(1, FORM_LINES + 1)
    ]
    owner = html.field("Customer number", "customer", "" if customer is None else customer, inputmode="numeric")
    currencies = sorted(DECIMALS, key=lambda one: one != shop.orders.currency)
    return html.form(
        f"/{shop.domain}/admin/orders",
        "Place order",
        *lines,
        _group(
            owner,
            html.choice("Currency", "currency", [(one, one) for one in currencies]),
            html.field("Discount", "discount", inputmode="decimal", class_="short"),
            html.field("Shipping", "shipping", inputmode="decimal", class_="short"),
            html.field("Tip", "tip", inputmode="decimal", class_="short"),
            html.field("Tax in %", "tax_percent", inputmode="decimal", class_="short"),
        ),
        _group(
            html.check("Prices include tax", "taxes_included"),
            html.check("Paid at once", "paid", checked=True),
            html.check("Test order", "test"),
        ),
        stacked=True,
    )


def order_form(shop: Shop, customer: int) -> Markup:
    """The form that places an order for a customer."""
    return _order_form(shop, customer)


def _order_page(shop: Shop, order: Order, wrong: str | None = None) -> Response:
    body = Markup("<h1>Order {} {}</h1>").format(order.name, _badges(order))
    if wrong is not None:
        body += html.problem(wrong)
    body += html.section("Items", _line_table(order))
    body += html.section("Amounts", _amounts(shop, order))
    body += html.section("Refunds", _refund_table(order))
    for section in _forms(shop, order):
        body += section
    status = HTTPStatus.OK if wrong is None else HTTPStatus.UNPROCESSABLE_ENTITY
    return html.page(f"Order {order.name}", shop.domain, body, status=status)


def _forms(shop: Shop, order: Order) -> list[Markup]:
    path, forms = order_path(shop, order.number), list[Markup]()
    if order.outstanding > 0 and order.cancelled_s is None:
        amount = html.field("Amount", "amount", inputmode="decimal", placeholder=order.outstanding, class_="short")
        note = Markup('<p class="note">Without an amount, all that is outstanding.</p>')
        forms.append(html.section("Payment", note, html.form(f"{path}/pay", "Mark as paid", amount)))
    forms.append(html.section("Refund", _refund_form(order, path)))
    if order.cancelled_s is None:
        forms.append(html.section("Edit", _edit_form(order, path)))
        reasons = [(one, one.capitalize()) for one in CANCEL_REASONS]
        fields = (html.choice("Reason", "reason", reasons), html.check("Give all money back", "refund", checked=True))
        forms.append(html.section("Cancel", html.form(f"{path}/cancel", "Cancel order", *fields, style="danger")))
    owner = html.field("Customer number", "customer", order.customer or "", inputmode="numeric")
    note = Markup('<p class="note">Without a number, nobody\'s.</p>')
    forms.append(html.section("Customer", note, html.form(f"{path}/customer", "Set customer", owner, style="plain")))
    return forms


def _refund_form(order: Order, path: str) -> Markup:
    lines = [
        html.field(
            f"Refund of {line.title} (up to {line.current_quantity})",
            f"line_{line.number}",
            kind="number",
            min=0,
            max=line.current_quantity,
            class_="short",
        )
        for line in order.lines
        if line.current_quantity
    ]
    note = Markup('<p class="note">An amount takes the place of what the items cost; alone it is goodwill.</p>')
    form = html.form(
        f"{path}/refund",
        "Refund",
        _group(*lines),
        _group(
            html.field("Amount", "amount", inputmode="decimal", class_="short"),
            html.field("Shipping", "shipping", inputmode="decimal", class_="short"),
            html.field("Note", "note"),
            html.check("Restock", "restock"),
        ),
        stacked=True,
    )
    return note + form


def _edit_form(order: Order, path: str) -> Markup:
    lines = [
        html.field(
            f"New quantity of {line.title}",
            f"line_{line.number}",
            line.current_quantity,
            kind="number",
            min=0,
            class_="short",
        )
        for line in order.lines
    ]
    return html.form(
        f"{path}/edit",
        "Save changes",
        _group(*lines),
        _group(
            html.field("Added item", "title"),
            html.field("Its price", "price", inputmode="decimal", class_="short"),
            html.field("Its quantity", "quantity", kind="number", min=1, class_="short"),
        ),
        style="plain",
        stacked=True,
    )


def _line_table(order: Order) -> Markup:
    rows = [
        (
            Markup("{} {}").format(line.title, _badge("gift card") if line.gift_card else ""),
            _money(order, line.price),
            line.quantity,
            line.current_quantity,
            _money(order, line.current_discount),
            _money(order, line.current_tax),
            _money(order, line.current_subtotal),
        )
        for line in order.lines
    ]
    columns = ("Item", "Price", "Ordered", "Left", "Discount", "Tax", "Subtotal")
    caption = "Discount, tax and subtotal are those of the units that are left."
    return html.table(caption, columns, rows, numbers=range(1, 7))


def _amounts(shop: Shop, order: Order) -> Markup:
    included = " (included)" if order.taxes_included else ""
    pairs: list[tuple[str, object]] = [
        ("Customer", customer_link(shop, order.customer)),
        ("Placed", timestamp(order.created_s)),
        ("Last changed", timestamp(order.updated_s)),
        ("Subtotal", _money(order, order.current_subtotal)),
        (f"Tax{included}", _money(order, order.current_tax)),
        ("Shipping", _money(order, order.current_shipping)),
        ("Tip", _money(order, order.current_tip)),
        ("Total", _money(order, order.current_total)),
        ("Paid", _money(order, order.received)),
        ("Refunded", _money(order, order.refunded)),
        ("Outstanding", _money(order, order.outstanding)),
    ]
    return html.facts(pairs)


def _refund_table(order: Order) -> Markup:
    rows = [
        (timestamp(refund.created_s), _what(order, refund), refund.note or "", _money(order, refund.amount))
        for refund in order.refunds
    ]
    return html.table("What was taken away, oldest first.", ("When", "What", "Note", "Money"), rows, numbers=(3,))


def _what(order: Order, refund: Refund) -> str:
    units = [f"{one.quantity} × {order.line(one.line).title}" for one in refund.lines]  # noqa: RUF001  # a times sign
    return ", ".join([*units, *(("shipping",) if refund.shipping else ())]) or "an amount"


def _badges(order: Order) -> Markup:
    texts = [order.financial_status.replace("_", " ")]
    if order.cancelled_s is not None:
        texts.append("cancelled")
    if order.test:
        texts.append("test")
    return Markup(" ").join(_badge(one) for one in texts)


def _badge(text: str) -> Markup:
    return Markup('<span class="badge">{}</span>').format(text)


def _group(*fields: Markup) -> Markup:
    return Markup('<div class="fields">{}</div>').format(Markup("\n").join(fields))


def _money(order: Order, amount: Decimal) -> str:
    return f"{rest_text(amount, order.currency)} {order.currency}"
