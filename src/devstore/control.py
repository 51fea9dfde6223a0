"""The control API under `/_devstore/`: arrange the world and look at it (the package documents each call)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from devstore.budget import Plan
from devstore.bulk import AlreadyEndedError, BulkOperation, BulkSettings, BulkStatus, CanceledResult
from devstore.calls import camel
from devstore.control_calls import (
    PREFIX,
    BadRequestError,
    Handler,
    Json,
    answer,
    camel_keys,
    customer_of,
    guarded,
    member_of,
    named_shop,
    number_of,
    read_body,
    text_of,
)
from devstore.faults import Fault, FaultAnswer, FaultApply, Latency
from devstore.metafields import Slot
from devstore.shops import CustomerHasOrdersError, Shop, ShopSpec, ShopState, apply_spec, open_shop
from devstore.storage import Storage
from devstore.values import resolve_namespace
from devstore.web import World

_FAILURES = (BulkStatus.FAILED, BulkStatus.EXPIRED, BulkStatus.CANCELED)
_ERROR_CODES = (None, "ACCESS_DENIED", "INTERNAL_SERVER_ERROR", "TIMEOUT")


@dataclass(frozen=True, slots=True)
class Control:
    """The control API's calls, each a method that takes the request and gives its response."""

    world: World
    storage: Storage

    async def health(self, _request: Request) -> Response:
        """Tell that the server is there."""
        return answer({"ok": True, "inFlight": self.world.calls.in_flight})

    async def shops(self, _request: Request) -> Response:
        """List shops."""
        return answer([_shop_json(shop) for shop in self.world.shops.values()])

    async def add_shop(self, request: Request) -> Response:
        """Add a shop, or change one that is there."""
        body = await read_body(request)
        plan = member_of(Plan, body.get("plan"))
        spec = ShopSpec(text_of(body, "domain"), text_of(body, "token"), plan, number_of(body, "customers", 0))
        world, known = self.world, self.world.shops.get(spec.domain)
        if known is None:
            known = world.shops[spec.domain] = open_shop(self.storage, spec, world.clock, world.depot, world.app)
        shop = apply_spec(known, spec)
        return answer(_shop_json(shop), HTTPStatus.CREATED)

    async def change_shop(self, request: Request) -> Response:
        """Set a shop's state, plan or token; a null token revokes it."""
        shop, body = self._shop(request), await read_body(request)
        token = cast("str | None", body["token"]) if "token" in body else shop.token
        plan = member_of(Plan, body.get("plan")) or shop.budget.plan
        shop.change(token=token, plan=plan, state=member_of(ShopState, body.get("state")) or shop.state)
        return answer(_shop_json(shop))

    async def bucket(self, request: Request) -> Response:
        """Show a shop's bucket."""
        return answer(_bucket_json(self._shop(request)))

    async def spend(self, request: Request) -> Response:
        """Spend points as another client of the app would."""
        shop = self._shop(request)
        shop.budget.spend_elsewhere(number_of(await read_body(request), "points"))
        return answer(_bucket_json(shop))

    async def fill(self, request: Request) -> Response:
        """Fill a shop's bucket."""
        shop = self._shop(request)
        shop.budget.fill()
        return answer(_bucket_json(shop))

    async def add_customers(self, request: Request) -> Response:
        """Add customers by number, which is told of, or a range of them, which is not."""
        shop, body = self._shop(request), await read_body(request)
        if "ids" in body:
            numbers = [number for number in _ids(body) if not shop.customers.exists(number)]
            shop.add_customers(numbers)
            for number in numbers:
                shop.announce_customer(number)
        else:
            shop.seed_customers(number_of(body, "count"), number_of(body, "first", 1))
        return answer({"customers": shop.count_customers()}, HTTPStatus.CREATED)

    async def delete_customers(self, request: Request) -> Response:
        """Delete customers with their metafields."""
        shop = self._shop(request)
        numbers = _ids(await read_body(request))
        try:
            return answer({"deleted": sum([shop.delete_customer(number) for number in numbers])})
        except CustomerHasOrdersError as error:
            raise BadRequestError(str(error)) from error

    async def metafields(self, request: Request) -> Response:
        """Give every customer's value of one metafield."""
        return answer(self._shop(request).metafields.dump(_slot(dict(request.query_params))))

    async def put_metafield(self, request: Request) -> Response:
        """Write a metafield by hand; nothing is checked and nothing is charged."""
        shop, body = self._shop(request), await read_body(request)
        owner = customer_of(body.get("customerId"))
        if not shop.exists(owner):
            raise BadRequestError(f"there is no {owner}")
        kind = str(body.get("type", "number_integer"))
        slot = _slot(body)
        shop.put_metafield(owner, slot.namespace, slot.key, str(body.get("value")), kind)
        stored = shop.metafields.get(slot, owner.number)
        return answer({"value": stored.value, "compareDigest": stored.digest} if stored else {})

    async def delete_metafield(self, request: Request) -> Response:
        """Delete a metafield by hand."""
        shop, body = self._shop(request), await read_body(request)
        return answer({"deleted": shop.metafields.delete(_slot(body), customer_of(body.get("customerId")).number)})

    async def definitions(self, request: Request) -> Response:
        """List the definitions for customers, or for another `ownerType`."""
        found = self._shop(request).definitions.of_type(request.query_params.get("ownerType", "CUSTOMER"))
        return answer([camel_keys(asdict(one)) for one in found])

    async def delete_definition(self, request: Request) -> Response:
        """Delete a definition and keep its values."""
        return answer({"deleted": self._shop(request).definitions.delete(_slot(await read_body(request)))})

    async def bulk(self, request: Request) -> Response:
        """List a shop's bulk operations."""
        return answer([_operation_json(one) for one in self._shop(request).bulk.operations])

    async def set_bulk(self, request: Request) -> Response:
        """Change how a shop's bulk operations behave, and show it."""
        shop, body = self._shop(request), await read_body(request)
        shop.bulk.settings.change(_bulk_settings(body))
        return answer(camel_keys(asdict(shop.bulk.settings)))

    async def bulk_owners(self, request: Request) -> Response:
        """List the owners a bulk mutation's file names."""
        return answer(sorted(self._operation(request).owners()))

    async def fail_bulk(self, request: Request) -> Response:
        """End a bulk operation as if something had gone wrong."""
        operation, body = self._operation(request), await read_body(request)
        status = member_of(BulkStatus, body.get("status")) or BulkStatus.FAILED
        if status not in _FAILURES:
            raise BadRequestError(f"an operation is ended as {', '.join(_FAILURES)}, not as {status}")
        code = cast("str | None", body.get("errorCode"))
        if code not in _ERROR_CODES:
            raise BadRequestError(f"errorCode is null or one of {', '.join(filter(None, _ERROR_CODES))}, not {code!r}")
        try:
            self._shop(request).bulk.fail(operation, status, code)
        except AlreadyEndedError as error:
            raise BadRequestError(f"{operation.gid} is {error} already") from error
        return answer(_operation_json(operation))

    async def set_latency(self, request: Request) -> Response:
        """Set how long answers take."""
        body = await read_body(request)
        low = number_of(body, "minMs", number_of(body, "ms", 0))
        latency = Latency(low, max(low, number_of(body, "maxMs", low)), number_of(body, "seed", 0))
        self.world.latency = latency
        return answer({"minMs": latency.min_ms, "maxMs": latency.max_ms})

    async def faults(self, _request: Request) -> Response:
        """List the faults in force and how often each has struck."""
        return answer(
            [{"id": number, "fired": fired, **camel_keys(asdict(fault))} for number, fault, fired in self.world.faults]
        )

    async def add_fault(self, request: Request) -> Response:
        """Put a fault in force."""
        return answer({"id": self.world.faults.add(_fault(await read_body(request)))}, HTTPStatus.CREATED)

    async def clear_faults(self, _request: Request) -> Response:
        """Remove every fault."""
        self.world.faults.clear()
        return answer({})

    async def remove_fault(self, request: Request) -> Response:
        """Remove one fault."""
        return answer({"removed": self.world.faults.remove(cast("int", request.path_params["id"]))})

    async def late(self, _request: Request) -> Response:
        """List the calls that are still to be executed."""
        return answer(
            [{"call": one.number, "shop": one.shop, "operation": one.operation} for one in self.world.late.values()]
        )

    async def apply_late(self, _request: Request) -> Response:
        """Execute them now."""
        return answer({"applied": self.world.apply_late()})

    async def calls(self, request: Request) -> Response:
        """Give the call log, whole or by shop, operation and number."""
        asked = request.query_params
        after = number_of(dict(asked), "after", 0)
        found = self.world.calls.select(shop=asked.get("shop"), operation=asked.get("operation"), after=after)
        return answer([entry.as_json() for entry in found])

    async def clear_calls(self, _request: Request) -> Response:
        """Empty the call log and the counters."""
        self.world.calls.clear()
        return answer({})

    async def stats(self, _request: Request) -> Response:
        """Give the counters by operation."""
        calls = self.world.calls
        operations = {name: stats.as_json() for name, stats in calls.stats.items()}
        return answer({"inFlight": calls.in_flight, "inFlightMax": calls.in_flight_max, "operations": operations})

    def _operation(self, request: Request) -> BulkOperation:
        number = cast("int", request.path_params["number"])
        operation = self._shop(request).bulk.find(number)
        if operation is None:
            raise BadRequestError(f"there is no bulk operation {number}")
        return operation

    def _shop(self, request: Request) -> Shop:
        return named_shop(self.world.shops, request)


def control_routes(world: World, storage: Storage) -> list[Route]:
    """Every route of the control API."""
    control = Control(world, storage)
    shop = "/shops/{domain}"
    table: list[tuple[str, str, Handler]] = [
        ("GET", "/health", control.health),
        ("GET", "/shops", control.shops),
        ("POST", "/shops", control.add_shop),
        ("PATCH", shop, control.change_shop),
        ("GET", f"{shop}/bucket", control.bucket),
        ("POST", f"{shop}/bucket/spend", control.spend),
        ("POST", f"{shop}/bucket/fill", control.fill),
        ("POST", f"{shop}/customers", control.add_customers),
        ("DELETE", f"{shop}/customers", control.delete_customers),
        ("GET", f"{shop}/metafields", control.metafields),
        ("PUT", f"{shop}/metafields", control.put_metafield),
        ("DELETE", f"{shop}/metafields", control.delete_metafield),
        ("GET", f"{shop}/definitions", control.definitions),
        ("DELETE", f"{shop}/definitions", control.delete_definition),
        ("GET", f"{shop}/bulk", control.bulk),
        ("PATCH", f"{shop}/bulk", control.set_bulk),
        ("GET", f"{shop}/bulk/{{number:int}}/owners", control.bulk_owners),
        ("POST", f"{shop}/bulk/{{number:int}}/fail", control.fail_bulk),
        ("PUT", "/latency", control.set_latency),
        ("GET", "/faults", control.faults),
        ("POST", "/faults", control.add_fault),
        ("DELETE", "/faults", control.clear_faults),
        ("DELETE", "/faults/{id:int}", control.remove_fault),
        ("GET", "/late", control.late),
        ("POST", "/late/apply", control.apply_late),
        ("GET", "/calls", control.calls),
        ("DELETE", "/calls", control.clear_calls),
        ("GET", "/stats", control.stats),
    ]
    return [Route(f"{PREFIX}{path}", guarded(handler), methods=[method]) for method, path, handler in table]


def _ids(body: Mapping[str, object]) -> list[int]:
    ids = body.get("ids")
    if not isinstance(ids, list):
        raise BadRequestError("ids must be a list of customers")
    return [customer_of(one).number for one in cast("list[object]", ids)]


def _slot(given: Mapping[str, object]) -> Slot:
    owner_type = str(given.get("ownerType", "CUSTOMER"))
    return Slot(owner_type, resolve_namespace(text_of(given, "namespace")), text_of(given, "key"))


def _fault(body: Json) -> Fault:
    known = {camel(name): name for name in Fault.__dataclass_fields__}
    unknown = body.keys() - known.keys()
    if unknown:
        raise BadRequestError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    given = {known[name]: value for name, value in body.items()}
    if given.get("rate") is not None:
        # A rate without a count goes on for ever; a count without a rate is every call until it is used up.
        given.setdefault("times", None)
    if "answer" in given:
        given["answer"] = member_of(FaultAnswer, given["answer"])
    if "apply" in given:
        given["apply"] = member_of(FaultApply, given["apply"])
    if given.get("retry_after") is not None:
        given["retry_after"] = str(given["retry_after"])
    for name in ("status", "later_ms", "hold_ms", "skip", "seed"):
        if name in given:
            given[name] = number_of(given, name)
    return Fault(**given)  # pyright: ignore[reportArgumentType]  # names are checked above, numbers and enums coerced


def _bulk_settings(body: Json) -> Json:
    known = {camel(name): name for name in BulkSettings.__dataclass_fields__}
    unknown = body.keys() - known.keys()
    if unknown:
        raise BadRequestError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    given = {known[name]: value for name, value in body.items()}
    for name in ("start_delay_ms", "lines_per_s", "drop_line_rate"):
        value = given.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        if name in given and not is_number and not (name == "lines_per_s" and value is None):
            raise BadRequestError(f"{camel(name)} must be a number that is not negative, not {value!r}")
    for name in ("seed", "upload_bytes_max"):
        if name in given:
            given[name] = number_of(given, name)
    if not isinstance(given.get("paused", False), bool):
        raise BadRequestError("paused must be true or false")
    if "canceled_result" in given:
        given["canceled_result"] = member_of(CanceledResult, given["canceled_result"]) or CanceledResult.NONE
    return given


def _operation_json(one: BulkOperation) -> Json:
    return {
        "number": one.number,
        "id": str(one.gid),
        "ordinal": one.ordinal,
        "type": one.type,
        "status": one.status,
        "errorCode": one.error_code,
        "createdS": one.created_s,
        "completedS": one.completed_s,
        "startedS": one.started_s,
        "endedS": one.ended_s,
        "objectCount": one.objects,
        "rootObjectCount": one.roots,
        "fileSize": one.file_size,
        "url": one.url,
        "partialDataUrl": one.partial_data_url,
        "query": one.query,
        "stagedUploadPath": one.staged_upload_path,
        "clientIdentifier": one.client_identifier,
        "lines": one.lines,
        "executed": one.executed,
        "dropped": one.dropped,
        "trouble": one.trouble,
    }


def _shop_json(shop: Shop) -> Json:
    return {
        "id": shop.number,
        "domain": shop.domain,
        "token": shop.token,
        "plan": shop.budget.plan,
        "state": shop.state,
        "customers": shop.count_customers(),
    }


def _bucket_json(shop: Shop) -> Json:
    return {**shop.budget.status().as_json(), "spent": shop.budget.spent_points}
