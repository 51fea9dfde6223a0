"""The staff's pages of customers: `/{shop}/admin/customers`, and one for each with metafields and orders."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import cast

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from devstore import html
from devstore.customers import CustomerDetails, IdRange
from devstore.merges import MergeError, MergeStatus
from devstore.order_pages import NOT_FOUND, customer_link, customer_path, number, order_form, order_table, shop_of, text
from devstore.order_search import OrderSearch
from devstore.orders import OrderError
from devstore.shops import CustomerHasOrdersError, Shop
from devstore.web import World

CUSTOMERS_SHOWN_MAX = 50
MERGES_SHOWN_MAX = 10


class CustomerPages:
    """Pages and forms, each a method that takes the request and gives its response."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def customers(self, request: Request) -> Response:
        """Customers a page at a time, with forms to add, find and merge them."""
        shop = shop_of(self._world, request)
        if shop is None:
            return NOT_FOUND
        asked = request.query_params
        found, after = asked.get("number", ""), asked.get("after", "")
        if found.isascii() and found.isdigit() and shop.customers.exists(int(found[:18])):
            return RedirectResponse(customer_path(shop, int(found)), HTTPStatus.SEE_OTHER)
        wrong = f"There is no customer {found}." if found else None
        return _customers_page(shop, int(after[:18]) if after.isascii() and after.isdigit() else 0, wrong)

    async def create(self, request: Request) -> Response:
        """Add a customer."""
        shop = shop_of(self._world, request)
        if shop is None:
            return NOT_FOUND
        added = shop.create_customer(_details(await html.read_form(request)))
        return RedirectResponse(customer_path(shop, added), HTTPStatus.SEE_OTHER)

    async def merge(self, request: Request) -> Response:
        """Merge two customers."""
        shop = shop_of(self._world, request)
        if shop is None:
            return NOT_FOUND
        form = await html.read_form(request)
        try:
            one, two = number(form, "one", "the first customer"), number(form, "two", "the second customer")
            shop.merges.request(one or 0, two or 0)
        except (MergeError, OrderError) as error:
            return _customers_page(shop, 0, str(error))
        return RedirectResponse(f"/{shop.domain}/admin/customers", HTTPStatus.SEE_OTHER)

    async def customer(self, request: Request) -> Response:
        """One customer."""
        shop = shop_of(self._world, request)
        wanted = cast("int", request.path_params["number"])
        if shop is None or not shop.customers.exists(wanted):
            return NOT_FOUND
        return _customer_page(shop, wanted)

    async def describe(self, request: Request) -> Response:
        """Change what is known of one."""
        shop = shop_of(self._world, request)
        wanted = cast("int", request.path_params["number"])
        if shop is None or not shop.customers.exists(wanted):
            return NOT_FOUND
        shop.describe_customer(wanted, _details(await html.read_form(request)))
        return RedirectResponse(customer_path(shop, wanted), HTTPStatus.SEE_OTHER)

    async def delete(self, request: Request) -> Response:
        """Delete one."""
        shop = shop_of(self._world, request)
        wanted = cast("int", request.path_params["number"])
        if shop is None or not shop.customers.exists(wanted):
            return NOT_FOUND
        try:
            shop.delete_customer(wanted)
        except CustomerHasOrdersError as error:
            return _customer_page(shop, wanted, str(error))
        return RedirectResponse(f"/{shop.domain}/admin/customers", HTTPStatus.SEE_OTHER)


def customer_page_routes(world: World) -> list[Route]:
    """The routes of these pages."""
    pages, root = CustomerPages(world), "/{shop}/admin/customers"
    return [
        Route(root, pages.customers, methods=["GET"]),
        Route(root, pages.create, methods=["POST"]),
        Route(f"{root}/merge", pages.merge, methods=["POST"]),
        Route(f"{root}/{{number:int}}", pages.customer, methods=["GET"]),
        Route(f"{root}/{{number:int}}", pages.describe, methods=["POST"]),
        Route(f"{root}/{{number:int}}/delete", pages.delete, methods=["POST"]),
    ]


def _details(form: Mapping[str, str]) -> CustomerDetails:
    tags = tuple(one.strip() for one in text(form, "tags").split(",") if one.strip())
    return CustomerDetails(
        email=text(form, "email") or None,
        first_name=text(form, "first_name") or None,
        last_name=text(form, "last_name") or None,
        note=text(form, "note") or None,
        tags=tags,
    )


def _detail_fields(known: CustomerDetails) -> tuple[Markup, ...]:
    return (
        html.field("First name", "first_name", known.first_name or ""),
        html.field("Last name", "last_name", known.last_name or ""),
        html.field("E-mail", "email", known.email or "", kind="email"),
        html.field("Tags", "tags", ", ".join(known.tags)),
        html.field("Note", "note", known.note or ""),
    )


def _customers_page(shop: Shop, after: int, wrong: str | None = None) -> Response:
    root = f"/{shop.domain}/admin/customers"
    body = Markup("<h1>Customers</h1>")
    if wrong is not None:
        body += html.problem(wrong)
    find = Markup('<form method="get" action="{}">{}<button class="plain">Show</button></form>')
    body += html.section("Find", find.format(root, html.field("Number", "number", inputmode="numeric")))
    numbers = shop.customers.page(IdRange(after + 1), CUSTOMERS_SHOWN_MAX + 1)
    rows = [
        (customer_link(shop, one), one, ", ".join(shop.customers.details(one).tags), shop.orders.count_of(one))
        for one in numbers[:CUSTOMERS_SHOWN_MAX]
    ]
    caption = f"{shop.count_customers()} customers."
    parts = [html.table(caption, ("Customer", "Number", "Tags", "Orders"), rows, numbers=(1, 3))]
    if len(numbers) > CUSTOMERS_SHOWN_MAX:
        parts.append(html.link(f"{root}?after={numbers[CUSTOMERS_SHOWN_MAX - 1]}", "Next page"))
    body += html.section("All customers", *parts)
    body += html.section("Add a customer", html.form(root, "Add customer", *_detail_fields(CustomerDetails())))
    body += html.section("Merge", *_merge_parts(shop, root))
    status = HTTPStatus.OK if wrong is None else HTTPStatus.UNPROCESSABLE_ENTITY
    return html.page("Customers", shop.domain, body, status=status)


def _merge_parts(shop: Shop, root: str) -> list[Markup]:
    fields = [
        html.field("First customer", "one", inputmode="numeric"),
        html.field("Second customer", "two", inputmode="numeric"),
    ]
    note = "The second is kept, unless only the first has an e-mail address. It takes a moment."
    parts = [Markup('<p class="note">{}</p>').format(note), html.form(f"{root}/merge", "Merge customers", *fields)]
    rows = [
        (
            one.deleted,
            customer_link(shop, one.kept) if shop.customers.exists(one.kept) else one.kept,
            "waiting" if one.status is MergeStatus.REQUESTED else one.status.lower(),
            " ".join(problem.message for problem in one.problems),
        )
        for one in reversed(shop.merges.merges[-MERGES_SHOWN_MAX:])
    ]
    if rows:
        parts.append(html.table("The latest merges.", ("Merged", "Into", "Status", "Problem"), rows))
    return parts


def _customer_page(shop: Shop, wanted: int, wrong: str | None = None) -> Response:
    known, path = shop.customers.details(wanted), customer_path(shop, wanted)
    name = known.display_name(wanted)
    body = Markup("<h1>{}</h1>").format(name)
    if wrong is not None:
        body += html.problem(wrong)
    metafields = [
        (f"{one.slot.namespace}.{one.slot.key}", one.type, one.value)
        for one in shop.metafields.of_owner("CUSTOMER", wanted)
    ]
    table = html.table(f"Customer number {wanted}.", ("Metafield", "Type", "Value"), metafields, numbers=(2,))
    body += html.section("Metafields", table)
    search = OrderSearch()
    search.equal["customer"] = wanted
    body += html.section("Orders", order_table(shop, "Newest first.", search))
    body += html.section("Place an order", order_form(shop, wanted))
    body += html.section("Details", html.form(path, "Save details", *_detail_fields(known), style="plain"))
    body += html.section("Delete", html.form(f"{path}/delete", "Delete customer", style="danger"))
    status = HTTPStatus.OK if wrong is None else HTTPStatus.UNPROCESSABLE_ENTITY
    return html.page(name, shop.domain, body, status=status)
