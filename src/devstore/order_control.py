"""The control API's part about orders and merges (the package documents each call).

Orders are shown as the REST resource that webhooks have; what is asked for is spelled in camelCase, as always here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from devstore.calls import camel
from devstore.control_calls import (
    PREFIX,
    BadRequestError,
    Handler,
    Json,
    answer,
    camel_keys,
    changes_of,
    customer_of,
    guarded,
    named_shop,
    number_of,
    read_body,
)
from devstore.customers import CustomerDetails
from devstore.merges import Merge, MergeError
from devstore.money import AmountError
from devstore.order_book import Amount, NewLine, NewOrder
from devstore.order_payloads import order_payload
from devstore.order_search import OrderSearch, find_orders
from devstore.orders import Order, OrderError
from devstore.pages import PAGE_SIZE_MAX, PageRequest
from devstore.shops import Shop
from devstore.web import World


@dataclass(frozen=True, slots=True)
class OrderControl:
    """The calls about orders and merges, each a method that takes the request and gives its response."""

    world: World

    async def orders(self, request: Request) -> Response:
        """List orders by id, a page at a time."""
        shop, asked = self._shop(request), dict(request.query_params)
        search = OrderSearch()
        if "customer" in asked:
            search.equal["customer"] = customer_of(asked["customer"]).number
        search.narrow("id", ">", number_of(asked, "after", 0))
        page = find_orders(shop.storage, shop.number, search, PageRequest(first=PAGE_SIZE_MAX), "ID")
        return answer([_order_json(shop, cast("Order", shop.orders.get(number))) for number in page.numbers])

    async def create(self, request: Request) -> Response:
        """Place an order."""
        shop, body = self._shop(request), await read_body(request)
        return answer(_order_json(shop, shop.orders.create(_new_order(body))), HTTPStatus.CREATED)

    async def order(self, request: Request) -> Response:
        """Show an order."""
        shop = self._shop(request)
        number = cast("int", request.path_params["number"])
        order = shop.orders.get(number)
        if order is None:
            raise BadRequestError(f"there is no order {number}")
        return answer(_order_json(shop, order))

    async def act(self, request: Request) -> Response:
        """Do something to an order."""
        shop, body = self._shop(request), await read_body(request)
        number, action = cast("int", request.path_params["number"]), cast("str", request.path_params["action"])
        order = _act(shop, number, action, body)
        return answer(_order_json(shop, order))

    async def describe(self, request: Request) -> Response:
        """Change what is known of a customer."""
        shop, body = self._shop(request), await read_body(request)
        number = cast("int", request.path_params["number"])
        if not shop.customers.exists(number):
            raise BadRequestError(f"there is no customer {number}")
        known = {camel(name): value for name, value in asdict(shop.customers.details(number)).items()}
        _check(body, *known)
        given = known | body
        tags = tuple(str(one) for one in cast("Sequence[object]", given["tags"] or ()))
        names = {name: _text_or_none(given[camel(name)]) for name in ("email", "first_name", "last_name", "note")}
        shop.describe_customer(number, CustomerDetails(**names, tags=tags))
        return answer({"id": number, **camel_keys(asdict(shop.customers.details(number)))})

    async def merge(self, request: Request) -> Response:
        """Ask for a merge."""
        shop, body = self._shop(request), await read_body(request)
        _check(body, "one", "two", "keepEmailOf")
        keep = body.get("keepEmailOf")
        one, two = customer_of(body.get("one")), customer_of(body.get("two"))
        kept = None if keep is None else customer_of(keep).number
        return answer(_merge_json(shop.merges.request(one.number, two.number, keep_email_of=kept)), HTTPStatus.CREATED)

    async def merges(self, request: Request) -> Response:
        """List merges, oldest first."""
        return answer([_merge_json(one) for one in self._shop(request).merges.merges])

    async def set_merges(self, request: Request) -> Response:
        """Change how a shop merges, and show it."""
        settings = self._shop(request).merges.settings
        for name, value in changes_of(settings, await read_body(request)).items():
            setattr(settings, name, value)
        return answer(camel_keys(asdict(settings)))

    async def settle_merges(self, request: Request) -> Response:
        """Do the merges that wait now."""
        return answer({"merged": self._shop(request).merges.settle()})

    def _shop(self, request: Request) -> Shop:
        return named_shop(self.world.shops, request)


def order_control_routes(world: World) -> list[Route]:
    """The routes of this part of the control API."""
    control = OrderControl(world)
    shop = "/shops/{domain}"
    table: list[tuple[str, str, Handler]] = [
        ("GET", f"{shop}/orders", control.orders),
        ("POST", f"{shop}/orders", control.create),
        ("GET", f"{shop}/orders/{{number:int}}", control.order),
        ("POST", f"{shop}/orders/{{number:int}}/{{action}}", control.act),
        ("PATCH", f"{shop}/customers/{{number:int}}", control.describe),
        ("POST", f"{shop}/customers/merge", control.merge),
        ("GET", f"{shop}/merges", control.merges),
        ("PATCH", f"{shop}/merges", control.set_merges),
        ("POST", f"{shop}/merges/settle", control.settle_merges),
    ]
    return [Route(f"{PREFIX}{path}", guarded(_told(handler)), methods=[method]) for method, path, handler in table]


def _told(handler: Handler) -> Handler:
    """A call whose shop may refuse what it is asked to do."""

    async def told(request: Request) -> Response:
        try:
            return await handler(request)
        except (OrderError, AmountError, MergeError) as error:
            raise BadRequestError(str(error)) from error

    return told


def _act(shop: Shop, number: int, action: str, body: Json) -> Order:
    orders, amount = shop.orders, cast("Amount | None", body.get("amount"))
    if action == "pay":
        _check(body, "amount")
        return orders.pay(number, amount)
    if action == "edit":
        _check(body, "add", "quantities")
        return orders.edit(number, add=_lines(body.get("add") or ()), quantities=_quantities(body))
    if action == "refund":
        _check(body, "quantities", "amount", "shipping", "restock", "note")
        note, shipping = _text_or_none(body.get("note")), cast("Amount", body.get("shipping", 0))
        quantities, restock = _quantities(body), _flag(body, "restock", default=False)
        return orders.refund(number, quantities, amount=amount, shipping=shipping, restock=restock, note=note)
    if action == "cancel":
        _check(body, "reason", "refund")
        reason = str(body.get("reason", "customer"))
        return orders.cancel(number, reason=reason, refund=_flag(body, "refund", default=True))
    if action == "customer":
        _check(body, "customerId")
        return orders.set_customer(number, _customer(body))
    raise BadRequestError(f"{action!r} is none of pay, edit, refund, cancel, customer")


def _new_order(body: Json) -> NewOrder:
    known = {camel(name): name for name in NewOrder.__dataclass_fields__}
    for name in ("customer", "createdS", "processedS"):
        known.pop(name)
    _check(body, "customerId", "createdAt", "processedAt", *known)
    given = {known[name]: value for name, value in body.items() if name in known}
    for name, default in (("paid", True), ("taxes_included", False), ("test", False)):
        given[name] = _flag(given, name, default=default)
    given["lines"] = _lines(body.get("lines"))
    moments = {"created_s": _moment_s(body, "createdAt"), "processed_s": _moment_s(body, "processedAt")}
    return NewOrder(**given, **moments, customer=_customer(body))  # pyright: ignore[reportArgumentType]  # names are checked above, values by whoever creates the order


def _lines(given: object) -> list[NewLine]:
    if not isinstance(given, list | tuple):
        raise BadRequestError("lines must be a list")
    known = {camel(name): name for name in NewLine.__dataclass_fields__}
    lines: list[NewLine] = []
    for one in cast("Sequence[object]", given):
        if not isinstance(one, dict) or "price" not in one:
            raise BadRequestError("a line is an object with a price")
        line = cast("Json", one)
        _check(line, *known)
        named = {known[name]: value for name, value in line.items()}
        named["gift_card"] = _flag(named, "gift_card", default=False)
        named["title"] = str(named.get("title", "Something"))
        lines.append(NewLine(**named))  # pyright: ignore[reportArgumentType]  # as above
    return lines


def _quantities(body: Json) -> dict[int, int]:
    given = body.get("quantities")
    if given is not None and not isinstance(given, dict):
        raise BadRequestError("quantities must be an object: units by the line's id")
    pairs = cast("Mapping[str, object]", given or {})
    return {number_of({"line": line}, "line"): number_of(pairs, line) for line in pairs}


def _customer(body: Json) -> int | None:
    given = body.get("customerId")
    return None if given is None else customer_of(given).number


def _flag(body: Mapping[str, object], name: str, *, default: bool) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise BadRequestError(f"{camel(name)} must be true or false, not {value!r}")
    return value


def _moment_s(body: Json, name: str) -> int | None:
    if body.get(name) is None:
        return None
    try:
        read = datetime.fromisoformat(str(body[name]))
    except ValueError as error:
        raise BadRequestError(f"{name} must be a time like 2026-01-31T12:00:00Z, not {body[name]!r}") from error
    return int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp())


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


def _check(body: Mapping[str, object], *known: str) -> None:
    unknown = body.keys() - set(known)
    if unknown:
        raise BadRequestError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")


def _order_json(shop: Shop, order: Order) -> Json:
    return order_payload(order, None if order.customer is None else shop.orders.buyer(order.customer))


def _merge_json(merge: Merge) -> Json:
    problems = [one.message for one in merge.problems]
    return {
        "number": merge.number,
        "job": merge.job,
        "kept": merge.kept,
        "deleted": merge.deleted,
        "status": merge.status,
        "problems": problems,
    }
