"""The control API under `/_devstore/`: arrange the world and look at it (the package documents each call)."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import TypeVar, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from devstore.budget import Plan
from devstore.bulk import AlreadyEndedError, BulkOperation, BulkSettings, BulkStatus, CanceledResult
from devstore.calls import camel
from devstore.faults import Fault, FaultAnswer, FaultApply, Latency
from devstore.gids import Gid, parse_gid
from devstore.metafields import Slot
from devstore.shops import Shop, ShopSpec, ShopState, open_shop
from devstore.storage import Storage
from devstore.values import resolve_namespace
from devstore.web import World

_PREFIX = "/_devstore"
_E = TypeVar("_E", bound=StrEnum)
Json = dict[str, object]
_Handler = Callable[[Request], Awaitable[Response]]
_FAILURES = (BulkStatus.FAILED, BulkStatus.EXPIRED, BulkStatus.CANCELED)
_ERROR_CODES = (None, "ACCESS_DENIED", "INTERNAL_SERVER_ERROR", "TIMEOUT")


class BadRequestError(Exception):
    """A control call makes no sense; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Control:
    """The control API's calls, each a method that takes the request and gives its response."""

    world: World
    storage: Storage

    async def health(self, _request: Request) -> Response:
        """Tell that the server is there."""
        return _json({"ok": True, "inFlight": self.world.calls.in_flight})

    async def shops(self, _request: Request) -> Response:
        """List shops."""
        return _json([_shop_json(shop) for shop in self.world.shops.values()])

    async def add_shop(self, request: Request) -> Response:
        """Add a shop, or change one that is there."""
        body = await _body(request)
        plan = _enum(Plan, body.get("plan"))
        spec = ShopSpec(_text(body, "domain"), _text(body, "token"), plan, _number(body, "customers", 0))
        shop = open_shop(self.storage, spec, self.world.clock, self.world.depot)
        known = self.world.shops.get(spec.domain)
        if known is not None:
            # Its operations go on.
            shop.bulk = known.bulk
        self.world.shops[spec.domain] = shop
        return _json(_shop_json(shop), HTTPStatus.CREATED)

    async def change_shop(self, request: Request) -> Response:
        """Set a shop's state, plan or token; a null token revokes it."""
        shop, body = self._shop(request), await _body(request)
        token = cast("str | None", body["token"]) if "token" in body else shop.token
        plan = _enum(Plan, body.get("plan")) or shop.budget.plan
        shop.change(token=token, plan=plan, state=_enum(ShopState, body.get("state")) or shop.state)
        return _json(_shop_json(shop))

    async def bucket(self, request: Request) -> Response:
        """Show a shop's bucket."""
        return _json(_bucket_json(self._shop(request)))

    async def spend(self, request: Request) -> Response:
        """Spend points as another client of the app would."""
        shop = self._shop(request)
        shop.budget.spend_elsewhere(_number(await _body(request), "points"))
        return _json(_bucket_json(shop))

    async def fill(self, request: Request) -> Response:
        """Fill a shop's bucket."""
        shop = self._shop(request)
        shop.budget.fill()
        return _json(_bucket_json(shop))

    async def add_customers(self, request: Request) -> Response:
        """Add customers by number, or a range of them."""
        shop, body = self._shop(request), await _body(request)
        if "ids" in body:
            shop.add_customers(_ids(body))
        else:
            shop.seed_customers(_number(body, "count"), _number(body, "first", 1))
        return _json({"customers": shop.count_customers()}, HTTPStatus.CREATED)

    async def delete_customers(self, request: Request) -> Response:
        """Delete customers with their metafields."""
        shop = self._shop(request)
        return _json({"deleted": sum([shop.delete_customer(number) for number in _ids(await _body(request))])})

    async def metafields(self, request: Request) -> Response:
        """Give every customer's value of one metafield."""
        return _json(self._shop(request).metafields.dump(_slot(dict(request.query_params))))

    async def put_metafield(self, request: Request) -> Response:
        """Write a metafield by hand; nothing is checked and nothing is charged."""
        shop, body = self._shop(request), await _body(request)
        owner = _owner(body.get("customerId"))
        if not shop.exists(owner):
            raise BadRequestError(f"there is no {owner}")
        kind = str(body.get("type", "number_integer"))
        slot = _slot(body)
        shop.put_metafield(owner, slot.namespace, slot.key, str(body.get("value")), kind)
        stored = shop.metafields.get(slot, owner.number)
        return _json({"value": stored.value, "compareDigest": stored.digest} if stored else {})

    async def delete_metafield(self, request: Request) -> Response:
        """Delete a metafield by hand."""
        shop, body = self._shop(request), await _body(request)
        return _json({"deleted": shop.metafields.delete(_slot(body), _owner(body.get("customerId")).number)})

    async def definitions(self, request: Request) -> Response:
        """List the definitions for customers, or for another `ownerType`."""
        found = self._shop(request).definitions.of_type(request.query_params.get("ownerType", "CUSTOMER"))
        return _json([_camel_keys(asdict(one)) for one in found])

    async def delete_definition(self, request: Request) -> Response:
        """Delete a definition and keep its values."""
        return _json({"deleted": self._shop(request).definitions.delete(_slot(await _body(request)))})

    async def bulk(self, request: Request) -> Response:
        """List a shop's bulk operations."""
        return _json([_operation_json(one) for one in self._shop(request).bulk.operations])

    async def set_bulk(self, request: Request) -> Response:
        """Change how a shop's bulk operations behave, and show it."""
        shop, body = self._shop(request), await _body(request)
        shop.bulk.settings.change(_bulk_settings(body))
        return _json(_camel_keys(asdict(shop.bulk.settings)))

    async def bulk_owners(self, request: Request) -> Response:
        """List the owners a bulk mutation's file names."""
        return _json(sorted(self._operation(request).owners()))

    async def fail_bulk(self, request: Request) -> Response:
        """End a bulk operation as if something had gone wrong."""
        operation, body = self._operation(request), await _body(request)
        status = _enum(BulkStatus, body.get("status")) or BulkStatus.FAILED
        if status not in _FAILURES:
            raise BadRequestError(f"an operation is ended as {', '.join(_FAILURES)}, not as {status}")
        code = cast("str | None", body.get("errorCode"))
        if code not in _ERROR_CODES:
            raise BadRequestError(f"errorCode is null or one of {', '.join(filter(None, _ERROR_CODES))}, not {code!r}")
        try:
            self._shop(request).bulk.fail(operation, status, code)
        except AlreadyEndedError as error:
            raise BadRequestError(f"{operation.gid} is {error} already") from error
        return _json(_operation_json(operation))

    async def set_latency(self, request: Request) -> Response:
        """Set how long answers take."""
        body = await _body(request)
        low = _number(body, "minMs", _number(body, "ms", 0))
        latency = Latency(low, max(low, _number(body, "maxMs", low)), _number(body, "seed", 0))
        self.world.latency = latency
        return _json({"minMs": latency.min_ms, "maxMs": latency.max_ms})

    async def faults(self, _request: Request) -> Response:
        """List the faults in force and how often each has struck."""
        return _json(
            [{"id": number, "fired": fired, **_camel_keys(asdict(fault))} for number, fault, fired in self.world.faults]
        )

    async def add_fault(self, request: Request) -> Response:
        """Put a fault in force."""
        return _json({"id": self.world.faults.add(_fault(await _body(request)))}, HTTPStatus.CREATED)

    async def clear_faults(self, _request: Request) -> Response:
        """Remove every fault."""
        self.world.faults.clear()
        return _json({})

    async def remove_fault(self, request: Request) -> Response:
        """Remove one fault."""
        return _json({"removed": self.world.faults.remove(cast("int", request.path_params["id"]))})

    async def late(self, _request: Request) -> Response:
        """List the calls that are still to be executed."""
        return _json(
            [{"call": one.number, "shop": one.shop, "operation": one.operation} for one in self.world.late.values()]
        )

    async def apply_late(self, _request: Request) -> Response:
        """Execute them now."""
        return _json({"applied": self.world.apply_late()})

    async def calls(self, request: Request) -> Response:
        """Give the call log, whole or by shop, operation and number."""
        asked = request.query_params
        after = _number(dict(asked), "after", 0)
        found = self.world.calls.select(shop=asked.get("shop"), operation=asked.get("operation"), after=after)
        return _json([entry.as_json() for entry in found])

    async def clear_calls(self, _request: Request) -> Response:
        """Empty the call log and the counters."""
        self.world.calls.clear()
        return _json({})

    async def stats(self, _request: Request) -> Response:
        """Give the counters by operation."""
        calls = self.world.calls
        operations = {name: stats.as_json() for name, stats in calls.stats.items()}
        return _json({"inFlight": calls.in_flight, "inFlightMax": calls.in_flight_max, "operations": operations})

    def _operation(self, request: Request) -> BulkOperation:
        number = cast("int", request.path_params["number"])
        operation = self._shop(request).bulk.find(number)
        if operation is None:
            raise BadRequestError(f"there is no bulk operation {number}")
        return operation

    def _shop(self, request: Request) -> Shop:
        domain = cast("str", request.path_params["domain"])
        shop = self.world.shops.get(domain)
        if shop is None:
            raise BadRequestError(f"there is no shop {domain}")
        return shop


def control_routes(world: World, storage: Storage) -> list[Route]:
    """Every route of the control API."""
    control = Control(world, storage)
    shop = "/shops/{domain}"
    table: list[tuple[str, str, _Handler]] = [
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
    return [Route(f"{_PREFIX}{path}", _guarded(handler), methods=[method]) for method, path, handler in table]


def _guarded(handler: _Handler) -> _Handler:
    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except BadRequestError as error:
            return _json({"error": str(error)}, HTTPStatus.BAD_REQUEST)

    return guarded


def _json(value: object, status: int = HTTPStatus.OK) -> Response:
    return Response(json.dumps(value, separators=(",", ":")), status, media_type="application/json")


async def _body(request: Request) -> Json:
    text = await request.body()
    try:
        read = cast("object", json.loads(text or b"{}"))
    except ValueError as error:
        raise BadRequestError(f"the body is no JSON: {error}") from error
    if not isinstance(read, dict):
        raise BadRequestError("the body must be a JSON object")
    return cast("Json", read)


def _text(body: Mapping[str, object], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise BadRequestError(f"{name} must be a text that is not empty")
    return value


def _number(body: Mapping[str, object], name: str, default: int | None = None) -> int:
    value = body.get(name, default)
    try:
        return int(cast("str | int", value))
    except (TypeError, ValueError) as error:
        raise BadRequestError(f"{name} must be an integer, not {value!r}") from error


def _enum(kind: type[_E], value: object) -> _E | None:
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError as error:
        raise BadRequestError(f"{value!r} is none of {', '.join(kind)}") from error


def _owner(value: object) -> Gid:
    text = str(value)
    owner = parse_gid(text) or (Gid("Customer", int(text)) if text.isascii() and text.isdigit() else None)
    if owner is None:
        raise BadRequestError(f"{value!r} is no customer: give a number or a global id")
    return owner


def _ids(body: Mapping[str, object]) -> list[int]:
    ids = body.get("ids")
    if not isinstance(ids, list):
        raise BadRequestError("ids must be a list of customers")
    return [_owner(one).number for one in cast("list[object]", ids)]


def _slot(given: Mapping[str, object]) -> Slot:
    owner_type = str(given.get("ownerType", "CUSTOMER"))
    return Slot(owner_type, resolve_namespace(_text(given, "namespace")), _text(given, "key"))


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
        given["answer"] = _enum(FaultAnswer, given["answer"])
    if "apply" in given:
        given["apply"] = _enum(FaultApply, given["apply"])
    if given.get("retry_after") is not None:
        given["retry_after"] = str(given["retry_after"])
    for name in ("status", "later_ms", "hold_ms", "skip", "seed"):
        if name in given:
            given[name] = _number(given, name)
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
            given[name] = _number(given, name)
    if not isinstance(given.get("paused", False), bool):
        raise BadRequestError("paused must be true or false")
    if "canceled_result" in given:
        given["canceled_result"] = _enum(CanceledResult, given["canceled_result"]) or CanceledResult.NONE
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


def _camel_keys(value: Mapping[str, object]) -> Json:
    return {
        camel(name): _camel_keys(cast("Json", inner)) if isinstance(inner, dict) else inner
        for name, inner in value.items()
    }
