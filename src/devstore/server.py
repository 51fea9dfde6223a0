"""The running server: uvicorn on a socket of its own, in the caller's loop or in a thread."""

import asyncio
import contextlib
import socket
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from devstore.app import App
from devstore.app_control import app_control_routes
from devstore.bucket import bucket_routes
from devstore.clock import SYSTEM_CLOCK, Clock
from devstore.control import control_routes
from devstore.customer_pages import customer_page_routes
from devstore.depot import Depot
from devstore.faults import Latency
from devstore.frame import frame_routes
from devstore.oauth import oauth_routes
from devstore.order_control import order_control_routes
from devstore.order_pages import order_page_routes
from devstore.shops import Shop, ShopSpec, open_shop, stored_domains
from devstore.storage import Storage
from devstore.storefront import storefront_routes
from devstore.web import ABORT, HANG_UP, AdminEndpoint, World

_BACKLOG = 2_048
_KEEP_ALIVE_S = 75
_SHUTDOWN_S = 1
_START_S = 30
_TICK_S = 0.1
_TICKS_MAX = 864_000

DEMO_SHOP = ShopSpec("demo.myshopify.com", "shpat_devstore")


class _Protocol(HttpToolsProtocol):
    """uvicorn's own protocol, answering at once, and letting the application cut the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Have what is written sent at once.

        A head and a body are two writes, and without this the second may wait 40 ms until the first is acknowledged.
        asyncio asks for it only where a socket names its protocol, which those accepted here do not.
        """
        super().connection_made(transport)
        cast("socket.socket", transport.get_extra_info("socket")).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def on_message_begin(self) -> None:
        """Start a request's scope, with the way out in it."""
        super().on_message_begin()
        # ASGI has no way to say "hang up"; its extensions are the place for what it lacks.
        ways_out = {ABORT: self._abort, HANG_UP: self._hang_up}
        self.scope["extensions"] = ways_out  # pyright: ignore[reportGeneralTypeIssues]  # typed without

    def _abort(self) -> None:
        self.transport.abort()

    def _hang_up(self) -> None:
        # What was written before still arrives.
        self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers (they belong to whoever runs it), telling when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals alone."""
        yield

    async def main_loop(self) -> None:
        """Tick as uvicorn does (the Date header comes from there), and stop at once when told."""
        ticks = 0
        while not self.stopping.is_set():
            await self.on_tick(ticks)
            ticks = (ticks + 1) % _TICKS_MAX
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), _TICK_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, hang up on the idle, and give calls under way `_SHUTDOWN_S` to end.

        uvicorn's own waits a fixed tenth of a second more; a test suite stops a server a hundred times.
        """
        for closing in (*self.servers, *(sockets or ())):
            closing.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        tasks = set(self.server_state.tasks)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=_SHUTDOWN_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening and say so."""
        await super().startup(sockets)
        self.ready.set()


class DevStore:
    """A development store that listens on loopback.

    Use it as an async context manager to serve from the running loop (its shops may then be looked at
    directly), or as a plain one to serve from a thread (talk to it over HTTP only). Either way it is stopped,
    its state file closed and what was uploaded removed, when the block ends.

    Args:
        shops: the shops to hold, beside those of the state file.
        host: address to listen on.
        port: port to listen on; 0 picks a free one.
        state: file that keeps the shops between runs; None keeps them in memory.
        clock: what the buckets, timestamps and the call log go by.
        latency: how long answers take.
        app: the app that is, or may be, installed in the shops.

    Raises:
        OSError: the address is taken.
        sqlite3.Error: the state file is unusable.
    """

    def __init__(
        self,
        shops: Sequence[ShopSpec] = (DEMO_SHOP,),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        state: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
        latency: Latency | None = None,
        app: App | None = None,
    ) -> None:
        self._socket = socket.create_server((host, port), backlog=_BACKLOG)
        try:
            self._storage = Storage(state)
        except sqlite3.Error:
            self._socket.close()
            raise
        host, port = cast("tuple[str, int]", self._socket.getsockname()[:2])
        self._origin = f"http://{host}:{port}"
        self._depot = Depot(self._origin)
        named = {spec.domain for spec in shops}
        kept = [ShopSpec(domain) for domain in stored_domains(self._storage) if domain not in named]
        app = app or App()
        opened = [open_shop(self._storage, spec, clock, self._depot, app) for spec in (*kept, *shops)]
        shops_by_domain = {shop.domain: shop for shop in opened}
        self.world = World(shops_by_domain, clock, self._depot, app, latency=latency or Latency())
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] | None = None
        self._stack = contextlib.AsyncExitStack()

    @property
    def origin(self) -> str:
        """Where it listens: `http://127.0.0.1:PORT`."""
        return self._origin

    @property
    def admin_origin(self) -> str:
        """What a client sets as a shop's Admin API origin, `{shop}` standing for the shop's domain."""
        return f"{self.origin}/{{shop}}"

    def shop(self, domain: str = DEMO_SHOP.domain) -> Shop:
        """A shop it holds, to look at from the loop it is served from.

        Raises:
            KeyError: there is no such shop.
        """
        return self.world.shops[domain]

    async def __aenter__(self) -> Self:
        """Serve from the running loop."""
        await self._stack.enter_async_context(self._serving())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving and close the state."""
        await self._stack.__aexit__(kind, error, trace)

    def __enter__(self) -> Self:
        """Serve from a thread of its own."""
        ready = threading.Event()

        async def main() -> None:
            async with self._serving():
                loop, done = asyncio.get_running_loop(), asyncio.Event()
                self._stop = lambda: loop.call_soon_threadsafe(done.set)
                ready.set()
                await done.wait()

        self._thread = threading.Thread(target=asyncio.run, args=(main(),), name="devstore", daemon=True)
        self._thread.start()
        if not ready.wait(_START_S):
            raise TimeoutError(f"devstore did not start within {_START_S} s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the thread and close the state."""
        if self._stop is not None and self._thread is not None:
            self._stop()
            self._thread.join()

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncGenerator[None]:
        endpoint = AdminEndpoint(self.world)
        path = "/admin/api/{version}/graphql.json"
        routes = [
            # First, since they are called the most.
            Route(f"/{{shop}}{path}", endpoint.serve, methods=["POST"]),
            Route(path, endpoint.serve, methods=["POST"]),
            *control_routes(self.world, self._storage),
            *bucket_routes(self.world),
            *oauth_routes(self.world),
            *app_control_routes(self.world),
            *order_control_routes(self.world),
            *order_page_routes(self.world),
            *customer_page_routes(self.world),
            *frame_routes(self.world),
            *storefront_routes(self.world),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes),
            http=_Protocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="error",
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        server = _Server(config)
        running = asyncio.create_task(server.serve(sockets=[self._socket]))
        try:
            await server.ready.wait()
            yield
        finally:
            server.stopping.set()
            self.world.close()
            await running
            await self.world.stop()
            self._socket.close()
            self._storage.close()
            self._depot.close()
