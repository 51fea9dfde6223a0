"""An app for the devstore's tests to send to: a real server that remembers what came and answers as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping

    from starlette.requests import Request

CLIENT_ID = "made-up-client"
# Long enough for a key of an ID token.
SECRET = "hush" * 12
METHODS = ["GET", "POST", "PUT", "DELETE"]


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """The app. Answers the next of `answers`, and 200 when there are none left."""

    url: str
    received: list[Received] = field(default_factory=list[Received])
    answers: list[Response] = field(default_factory=list[Response])
    present: Response = field(default_factory=Response)
    # While it is clear, answers are held back.
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def fail(self, times: int, status: int = 500) -> None:
        self.answers += [Response(status_code=status) for _ in range(times)]

    async def serve(self, request: Request) -> Response:
        body = await request.body()
        path, query = request.url.path, list(request.query_params.multi_items())
        self.received.append(Received(request.method, path, query, request.headers, body))
        answer = self.answers.pop(0) if self.answers else self.present
        await self.open.wait()
        return answer


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, and without the fifth of a second it takes to stop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def main_loop(self) -> None:
        await self.stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for closing in (*self.servers, *(sockets or ())):
            closing.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.gather(*self.server_state.tasks)


@contextlib.asynccontextmanager
async def receiving() -> AsyncGenerator[Receiver]:
    """An app on a port of its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = cast("int", listening.getsockname()[1])
    receiver = Receiver(f"http://127.0.0.1:{port}")
    receiver.open.set()
    app = Starlette(routes=[Route("/{path:path}", receiver.serve, methods=METHODS)])
    config = uvicorn.Config(app, lifespan="off", access_log=False, log_level="error", ws="none")
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield receiver
    finally:
        receiver.open.set()
        server.stopping.set()
        await running
