"""The storage beside the API over HTTP: uploads to `/_uploads/`, downloads from `/_bulk/`.

In reality it is Google's, so it knows nothing of access tokens: a request that bears one is refused and logged as
`TokenLeaked`, for a client that sends its token there gives it away.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from devstore.calls import CallEntry
from devstore.depot import RESULTS_PATH, Depot, Incoming, Result, check_download
from devstore.faults import Fault, FaultAnswer, FaultApply
from devstore.multipart import FormReader, MalformedFormError
from devstore.staging import UPLOADS_PATH, RefusedByStorageError, Target, UploadMethod, post_response
from devstore.web import GARBAGE, HANG_UP, DroppedConnection, World

_FIELD_BYTES_MAX = 64 * 1024
_PIECE_BYTES = 64 * 1024
# A PUT has no policy that limits it; what is beyond any use is counted and not kept.
_PUT_BYTES_KEPT_MAX = 200 * 1024 * 1024
_JSONL = "application/jsonl"
# Google's storage would not know the one, and not accept the other beside a signature.
_TOKEN_HEADERS = ("X-Shopify-Access-Token", "Authorization")

_Read = Callable[[Request], Awaitable[None]]


class BrokenOff(Response):
    """The first half of a file, announced as the whole; then the connection is closed."""

    def __init__(self, result: Result) -> None:
        super().__init__(media_type=_JSONL)
        self._path = result.path
        self._size = result.path.stat().st_size
        self.headers["Content-Length"] = str(self._size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send half of it, then wait until the server has noticed the end."""
        await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": self.raw_headers})
        rest = self._size // 2
        with self._path.open("rb") as file:
            while rest > 0:
                piece = file.read(min(rest, _PIECE_BYTES))
                rest -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        cast("Callable[[], None]", scope["extensions"][HANG_UP])()
        while (await receive())["type"] != "http.disconnect":
            pass


@dataclass(slots=True)
class _Served:
    """A response and what the log says of it; status 0 is a connection that broke off."""

    response: Response
    status: int
    shop: str | None = None
    error: str | None = None
    fault: int | None = None


@dataclass(frozen=True, slots=True)
class _Met:
    """What a request meets with: the fault that decides it, if any, and how long its answer still takes."""

    shop: str | None
    rule: int | None
    fault: Fault | None
    latency_s: float

    @property
    def is_executed(self) -> bool:
        """Whether what was asked is done."""
        return self.fault is None or self.fault.apply is FaultApply.FIRST


class _Arrival:
    """An upload while it arrives: what it is for and the file, as soon as they are known."""

    def __init__(self, depot: Depot, now_s: int) -> None:
        self.target: Target | None = None
        self.incoming: Incoming | None = None
        self.depot = depot
        self.now_s = now_s

    async def read(self, request: Request) -> None:
        """Read the request to its end, whatever it is. Raises RefusedByStorageError, ClientDisconnect."""
        raise NotImplementedError


class _PutArrival(_Arrival):
    """A file that is the body of a PUT to a signed address."""

    async def read(self, request: Request) -> None:
        """Receive it."""
        refusal = self._refusal(request)
        if refusal is None:
            self.incoming = self.depot.receive(_PUT_BYTES_KEPT_MAX)
        async for data in request.stream():
            if self.incoming is not None:
                self.incoming.write(data)
        if refusal is not None:
            raise refusal

    def _refusal(self, request: Request) -> RefusedByStorageError | None:
        try:
            self.target = self.depot.target(cast("str", request.path_params["key"]))
            _check_method(self.target, UploadMethod.PUT)
            self.target.check_address(request.query_params, self.now_s)
        except RefusedByStorageError as refused:
            return refused
        return None


class _FormArrival(_Arrival):
    """A form: its fields up to the file, then the file. What comes after the file is ignored, as in Google's."""

    def __init__(self, depot: Depot, now_s: int) -> None:
        super().__init__(depot, now_s)
        self._fields: dict[str, bytearray] = {}
        self._field = bytearray()
        self._in_file = self._after_file = False
        self._refusal: RefusedByStorageError | None = None

    async def read(self, request: Request) -> None:
        """Receive it."""
        broken: MalformedFormError | None = None
        try:
            reader = FormReader(request.headers.get("Content-Type", ""), self)
        except MalformedFormError as error:
            reader, broken = None, error
        async for data in request.stream():
            if reader is None or broken is not None:
                continue
            try:
                reader.feed(data)
            except MalformedFormError as error:
                broken = error
        try:
            if reader is not None and broken is None:
                reader.finish()
        except MalformedFormError as error:
            broken = error
        if broken is not None:
            message = "The body of your POST request is not well-formed multipart/form-data."
            raise RefusedByStorageError(HTTPStatus.BAD_REQUEST, "MalformedPOSTRequest", message, str(broken))
        self._finish()

    def begin(self, name: str) -> None:
        """Begin a field, or the file: by then all the other fields must have come."""
        self._after_file = self._in_file or self._after_file
        self._in_file = name == "file" and not self._after_file
        if self._in_file:
            self._open()
        elif not self._after_file:
            self._field = self._fields[name] = bytearray()

    def write(self, data: bytes) -> None:
        """Take a piece of the field or of the file."""
        if self._in_file:
            if self.incoming is not None:
                self.incoming.write(data)
        elif not self._after_file:
            self._field += data
            if len(self._field) > _FIELD_BYTES_MAX:
                raise MalformedFormError("a field is too long")

    def _open(self) -> None:
        fields = {name: bytes(value).decode("utf-8", "replace") for name, value in self._fields.items()}
        try:
            self.target = self.depot.target(fields.get("key"))
            _check_method(self.target, UploadMethod.POST)
            self.target.check_form(fields, self.now_s)
        except RefusedByStorageError as refused:
            self._refusal = refused
        else:
            self.incoming = self.depot.receive(self.target.bytes_max)

    def _finish(self) -> None:
        if self._refusal is not None:
            raise self._refusal
        if self.target is None or self.incoming is None:
            message = "The body of your POST request must contain a file."
            raise RefusedByStorageError(HTTPStatus.BAD_REQUEST, "InvalidArgument", message)
        self.target.check_size(self.incoming.size)


class Bucket:
    """The storage's requests, each a method that takes one and gives its response."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def post(self, request: Request) -> Response:
        """Take a form with a file."""
        arrival = _FormArrival(self._world.depot, self._now_s())
        return await self._logged("upload", self._upload(request, arrival))

    async def put(self, request: Request) -> Response:
        """Take a file."""
        arrival = _PutArrival(self._world.depot, self._now_s())
        return await self._logged("upload", self._upload(request, arrival))

    async def get(self, request: Request) -> Response:
        """Give a result."""
        return await self._logged("download", self._download(request))

    async def _logged(self, operation: str, serving: Awaitable[_Served]) -> Response:
        world = self._world
        wall_s, started_s = world.clock.wall(), world.clock.monotonic()
        world.calls.began()
        number, served = world.calls.next_number(), _Served(Response(), HTTPStatus.INTERNAL_SERVER_ERROR)
        try:
            served = await serving
        except ClientDisconnect:
            served.status = 0
        finally:
            entry = CallEntry(
                number=number,
                shop=served.shop,
                operation=operation,
                operation_name=None,
                version="",
                wall_s=wall_s,
                started_s=started_s,
                ended_s=world.clock.monotonic(),
                status=served.status,
                errors=(served.error,) if served.error else (),
                fault=served.fault,
            )
            world.calls.ended(entry)
        return served.response

    async def _upload(self, request: Request, arrival: _Arrival) -> _Served:
        refusal: RefusedByStorageError | None = None
        try:
            await arrival.read(request)
            _check_leak(request)
        except RefusedByStorageError as refused:
            refusal = refused
        except ClientDisconnect:
            if arrival.incoming is not None:
                arrival.incoming.discard()
            raise
        target, incoming = arrival.target, arrival.incoming
        met = await self._meet("upload", target.shop if target else None)
        if target is not None and incoming is not None and refusal is None:
            normal = _taken(target, incoming)
            if met.is_executed:
                self._world.depot.keep(target, incoming.finish())
        else:
            normal = _refused(refusal)
        if incoming is not None and (refusal is not None or not met.is_executed):
            incoming.discard()
        return await self._answer(met, normal, refusal, DroppedConnection())

    async def _download(self, request: Request) -> _Served:
        depot, refusal = self._world.depot, None
        result = depot.result(cast("str", request.path_params["name"]))
        met = await self._meet("download", result.shop if result else None)
        try:
            _check_leak(request)
            result = check_download(result, request.query_params.get("Signature"), self._now_s())
        except RefusedByStorageError as refused:
            return await self._answer(met, _refused(refused), refused, DroppedConnection())
        normal = FileResponse(result.path, media_type=_JSONL, filename=result.filename)
        return await self._answer(met, normal, refusal, BrokenOff(result))

    async def _meet(self, operation: str, shop: str | None) -> _Met:
        world = self._world
        picked = world.faults.pick(shop or "", frozenset({operation}))
        latency_s = world.latency.draw_s()
        await world.pause(latency_s / 2)
        rule, fault = picked or (None, None)
        return _Met(shop, rule, fault, latency_s / 2)

    async def _answer(
        self, met: _Met, normal: Response, refusal: RefusedByStorageError | None, dropped: Response
    ) -> _Served:
        fault = met.fault
        await self._world.pause(met.latency_s + (fault.hold_ms / 1_000 if fault else 0))
        error = refusal.code if refusal else None
        if fault is None or fault.answer is FaultAnswer.NORMAL:
            return _Served(normal, normal.status_code, met.shop, error, met.rule)
        if fault.answer is FaultAnswer.DROP:
            return _Served(dropped, 0, met.shop, error, met.rule)
        headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
        if fault.answer is FaultAnswer.GARBAGE:
            response = Response(GARBAGE, headers=headers, media_type="text/html")
        else:
            status = HTTPStatus.TOO_MANY_REQUESTS if fault.answer is FaultAnswer.THROTTLED else fault.status
            told = RefusedByStorageError(status, "FaultOfTheDevstore", "This was asked for.")
            response = _refused(told)
            response.headers.update(headers)
        return _Served(response, response.status_code, met.shop, error, met.rule)

    def _now_s(self) -> int:
        return int(self._world.clock.wall())


def bucket_routes(world: World) -> list[Route]:
    """Every route of the storage."""
    bucket = Bucket(world)
    return [
        Route(UPLOADS_PATH, bucket.post, methods=["POST"]),
        Route(f"{UPLOADS_PATH}{{key:path}}", bucket.put, methods=["PUT"]),
        Route(f"{RESULTS_PATH}{{name}}", bucket.get, methods=["GET"]),
    ]


def _check_leak(request: Request) -> None:
    for name in _TOKEN_HEADERS:
        if name in request.headers:
            message = f"The storage was sent {name}, which is not its business."
            raise RefusedByStorageError(HTTPStatus.BAD_REQUEST, "TokenLeaked", message)


def _check_method(target: Target, method: UploadMethod) -> None:
    if target.method is not method:
        message = f"This key was signed for {target.method}, not {method}."
        raise RefusedByStorageError(HTTPStatus.FORBIDDEN, "AccessDenied", message)


def _taken(target: Target, incoming: Incoming) -> Response:
    if target.method is UploadMethod.PUT:
        return Response(headers={"ETag": f'"{incoming.etag}"'})
    return Response(post_response(target, incoming.etag), HTTPStatus.CREATED, media_type="application/xml")


def _refused(refusal: RefusedByStorageError | None) -> Response:
    told = refusal or RefusedByStorageError(HTTPStatus.BAD_REQUEST, "InvalidArgument", "There is no file.")
    return Response(told.as_xml(), told.status, media_type="application/xml")
