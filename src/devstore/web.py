"""The Admin API over HTTP: which shop a request is for, who may ask, what goes wrong on request."""

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from devstore.admin import THROTTLED_ERROR, AdminApi, Answer, Call
from devstore.app import App
from devstore.calls import CallEntry, CallLog
from devstore.clock import Clock
from devstore.depot import Depot
from devstore.faults import Fault, FaultAnswer, FaultApply, FaultBook, Latency
from devstore.shops import Shop, ShopState

SUPPORTED_VERSIONS = ("2026-01", "2026-04", "2026-07", "2026-10")
# metafieldsSet takes 10 MB; a general limit of the API is not known.
BODY_BYTES_MAX = 10 * 1024 * 1024
ABORT = "devstore.abort"
HANG_UP = "devstore.hang-up"
GARBAGE = "<html><body>Something went wrong"

_VERSION = re.compile(r"[0-9]{4}-[0-9]{2}\Z")
_WRONG_TOKEN = "[API] Invalid API key or access token (unrecognized login or wrong password)"  # noqa: S105  # a message
# The bodies beside these statuses are not recorded; only the statuses are Shopify's word.
REFUSALS: dict[ShopState, tuple[int, str]] = {
    ShopState.FROZEN: (HTTPStatus.PAYMENT_REQUIRED, "Unavailable Shop"),
    ShopState.FORBIDDEN: (HTTPStatus.FORBIDDEN, "[API] This action requires merchant approval."),
    ShopState.LOCKED: (HTTPStatus.LOCKED, "[API] This shop is locked."),
}


class DroppedConnection(Response):
    """No answer: the connection is cut before a single byte of one."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Abort the transport, then wait until the server has noticed."""
        del send
        cast("Callable[[], None]", scope["extensions"][ABORT])()
        while (await receive())["type"] != "http.disconnect":
            pass


@dataclass(slots=True)
class Late:
    """A call that is executed after its client stopped waiting. `run` executes it, at most once."""

    number: int
    shop: str
    operation: str
    run: Callable[[], None]
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class World:
    """Everything the server knows, shared by the Admin API and the control API; one loop uses it."""

    shops: dict[str, Shop]
    clock: Clock
    depot: Depot
    app: App
    api: AdminApi = field(default_factory=AdminApi)
    calls: CallLog = field(default_factory=CallLog)
    faults: FaultBook = field(default_factory=FaultBook)
    latency: Latency = field(default_factory=Latency)
    late: dict[int, Late] = field(default_factory=dict[int, Late])
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    def shop_of(self, request: Request) -> Shop | None:
        """The shop a request is for: by path, else by Host, else by access token."""
        named = cast("str | None", request.path_params.get("shop"))
        if named is not None:
            return self.shops.get(named)
        by_host = self.shops.get(request.headers.get("Host", "").partition(":")[0])
        if by_host is not None:
            return by_host
        token = request.headers.get("X-Shopify-Access-Token")
        return next((shop for shop in self.shops.values() if shop.opens(token)), None)

    async def pause(self, seconds: float) -> None:
        """Let time pass on the wire, unless the server is to stop: then every answer goes out at once."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.closing.wait(), seconds)

    def close(self) -> None:
        """Hold nothing back any longer, and forget the calls that were to be executed later."""
        self.closing.set()
        for one in self.late.values():
            if one.timer is not None:
                one.timer.cancel()
        self.late.clear()

    async def stop(self) -> None:
        """Stop what runs in the background, before the shops are closed."""
        for shop in self.shops.values():
            await shop.close()

    def apply_late(self) -> int:
        """Execute every late call now, oldest first; how many there were."""
        waiting = list(self.late.values())
        for one in waiting:
            one.run()
        return len(waiting)


@dataclass(frozen=True, slots=True)
class _Served:
    """A response and what the log says of it."""

    response: Response
    shop: str | None = None
    call: Call | None = None
    answer: Answer | None = None
    status: int = 200
    fault: int | None = None


class AdminEndpoint:
    """Answers `POST …/admin/api/{version}/graphql.json`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def serve(self, request: Request) -> Response:
        """Serve one call and write it down."""
        world = self._world
        arrived_s, wall_s = world.clock.monotonic(), world.clock.wall()
        asked = cast("str", request.path_params["version"])
        world.calls.began()
        number, served = 0, _Served(Response(), status=HTTPStatus.INTERNAL_SERVER_ERROR)
        try:
            number = world.calls.next_number()
            served = await self._serve(request, asked, number)
        finally:
            entry = _entry(number, served, asked, wall_s=wall_s, started_s=arrived_s, ended_s=world.clock.monotonic())
            world.calls.ended(entry)
        served.response.headers["X-Shopify-Api-Version"] = served_version(asked)
        served.response.headers["X-Request-Id"] = f"devstore-{number}"
        return served.response

    async def _serve(self, request: Request, version: str, number: int) -> _Served:
        shop = self._world.shop_of(request)
        if shop is None or not _VERSION.match(version):
            known = shop is None and "shop" not in request.path_params
            status = HTTPStatus.UNAUTHORIZED if known else HTTPStatus.NOT_FOUND
            return _refuse(status, _WRONG_TOKEN if known else "Not Found", None)
        if not shop.opens(request.headers.get("X-Shopify-Access-Token")):
            return _refuse(HTTPStatus.UNAUTHORIZED, _WRONG_TOKEN, shop)
        if shop.state is not ShopState.ACTIVE:
            return _refuse(*REFUSALS[shop.state], shop)
        body = await request.body()
        if len(body) > BODY_BYTES_MAX:
            return _refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Request Entity Too Large", shop)
        read = self._world.api.read(body, cost_debug=request.headers.get("Shopify-GraphQL-Cost-Debug") == "1")
        if isinstance(read, Answer):
            return _Served(_json(read.body, read.status), shop.domain, answer=read, status=read.status)
        return await self._answer(shop, read, number)

    async def _answer(self, shop: Shop, call: Call, number: int) -> _Served:
        world = self._world
        fields = frozenset(call.label.split(","))
        picked = world.faults.pick(shop.domain, fields)
        # Half of the latency lies before the execution and half behind it, as on a real way there and back.
        latency_s = world.latency.draw_s()
        await world.pause(latency_s / 2)
        if picked is None:
            answer = world.api.run(shop, call)
            await world.pause(latency_s / 2)
            return _Served(_json(answer.body, answer.status), shop.domain, call, answer)
        rule, fault = picked
        served = self._misbehave(shop, call, number, rule, fault)
        await world.pause(latency_s / 2 + fault.hold_ms / 1_000)
        return served

    def _misbehave(self, shop: Shop, call: Call, number: int, rule: int, fault: Fault) -> _Served:
        answer: Answer | None = None
        if fault.answer is FaultAnswer.THROTTLED:
            answer = Answer({"errors": [THROTTLED_ERROR]}, throttled=True)
        elif fault.apply is FaultApply.FIRST:
            answer = self._world.api.run(shop, call)
        elif fault.apply is FaultApply.LATER:
            self._schedule(shop, call, number, fault.later_ms / 1_000)
        response, status = _faulty_response(fault, answer)
        return _Served(response, shop.domain, call, answer, status, rule)

    def _schedule(self, shop: Shop, call: Call, number: int, delay_s: float) -> None:
        world = self._world

        def run() -> None:
            if world.late.pop(number, None) is None:
                return
            wall_s, started_s = world.clock.wall(), world.clock.monotonic()
            served = _Served(Response(), shop.domain, call, world.api.run(shop, call))
            ended_s, own = world.clock.monotonic(), world.calls.next_number()
            times = {"wall_s": wall_s, "started_s": started_s, "ended_s": ended_s}
            world.calls.ended(_entry(own, served, "", **times, late_of=number))

        timer = asyncio.get_running_loop().call_later(delay_s, run)
        world.late[number] = Late(number, shop.domain, call.label, run, timer)


def served_version(asked: str) -> str:
    """The version that serves a request: the one asked for, else the oldest supported ("falls forward")."""
    return asked if asked in SUPPORTED_VERSIONS else SUPPORTED_VERSIONS[0]


def _faulty_response(fault: Fault, answer: Answer | None) -> tuple[Response, int]:
    headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
    if fault.answer is FaultAnswer.DROP:
        return DroppedConnection(), 0
    if fault.answer is FaultAnswer.GARBAGE:
        return Response(GARBAGE, headers=headers, media_type="text/html"), 200
    if fault.answer is FaultAnswer.STATUS:
        known = fault.status in set(HTTPStatus)
        phrase = HTTPStatus(fault.status).phrase if known else "Shopify knows this status alone"
        return _json({"errors": phrase}, fault.status, headers), fault.status
    # A normal answer to a call that is not executed in time has nothing to show.
    shown = answer if answer is not None else Answer({"data": None})
    return _json(shown.body, shown.status, headers), shown.status


def _refuse(status: int, message: str, shop: Shop | None) -> _Served:
    return _Served(_json({"errors": message}, status), shop.domain if shop else None, status=int(status))


def _json(body: Mapping[str, object], status: int, headers: Mapping[str, str] | None = None) -> Response:
    content = json.dumps(body, separators=(",", ":"))
    return Response(content, status, headers, media_type="application/json")


def _entry(
    number: int,
    served: _Served,
    version: str,
    *,
    wall_s: float,
    started_s: float,
    ended_s: float,
    late_of: int | None = None,
) -> CallEntry:
    call, answer = served.call, served.answer
    operation = call.operation if call else None
    return CallEntry(
        number=number,
        shop=served.shop,
        operation=call.label if call else "",
        operation_name=operation.name if operation else None,
        version=version,
        wall_s=wall_s,
        started_s=started_s,
        ended_s=ended_s,
        status=served.status,
        requested=answer.requested if answer else None,
        actual=answer.actual if answer else None,
        throttled=answer.throttled if answer else False,
        errors=_error_codes(answer),
        owners=answer.owners if answer else (),
        fault=served.fault,
        late_of=late_of,
    )


def _error_codes(answer: Answer | None) -> tuple[str, ...]:
    errors = answer.body.get("errors") if answer else None
    if not isinstance(errors, list):
        return ()
    codes: list[str] = []
    for error in cast("list[Mapping[str, object]]", errors):
        extensions = cast("Mapping[str, object]", error.get("extensions") or {})
        codes.append(str(extensions.get("code", "")))
    return tuple(codes)


Endpoint = Callable[[Request], Awaitable[Response]]
