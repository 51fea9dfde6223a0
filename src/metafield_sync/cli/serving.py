"""`serve` and `worker`: the programs that stay. The demo serves by the same means."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import structlog
import uvicorn
from cyclopts import Parameter

from metafield_sync import __version__, logs
from metafield_sync.cli.parts import DONE, WRONG, Whole
from metafield_sync.errors import AppError
from metafield_sync.runtime import open_runtime, require_readable_tokens
from metafield_sync.settings import Settings
from metafield_sync.shops.vault import NEW_KEY
from metafield_sync.web.app import create_app
from metafield_sync.worker.loops import resume_runs, work

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from metafield_sync.runtime import Runtime

BACKLOG_CONNECTIONS_MAX = 2_048
KEEP_ALIVE_S = 75
"""Longer than the 60 s of most proxies, so that it is they who hang up idle connections."""
SHUTDOWN_S = 10
"""How long requests under way may take to end once we are told to stop."""

log = structlog.get_logger()


class CannotListen(AppError):
    """The address to serve at is taken, or not ours to take."""

    code = "cannot_listen"
    exit_status = WRONG


async def serve(
    *,
    host: Annotated[str | None, Parameter(metavar="ADDRESS", help="Where to listen; wins over HOST.")] = None,
    port: Annotated[
        Whole | None, Parameter(metavar="PORT", help="Which port; wins over PORT. 0 picks a free one.")
    ] = None,
    no_worker: Annotated[
        bool, Parameter(name="--no-worker", negative=(), help="The web alone; run `metafield-sync worker` elsewhere.")
    ] = False,
) -> int:
    """Serve the API, with a worker beside it that pushes every change to Shopify, until told to stop.

    SIGTERM or Ctrl-C stop it in order, with exit status 0; what is unfinished is taken up by the next start.
    """
    overrides = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = Settings.load(**overrides)
    logs.configure(settings)
    with listen(settings) as listener:
        bound = with_port_of(settings, listener)
        async with contextlib.AsyncExitStack() as stack:
            runtime = await stack.enter_async_context(open_runtime(bound))
            await require_readable_tokens(runtime)
            if settings.shopify_api_key is not None and not settings.encryption_keys:
                log.warning("nobody can install the app: ENCRYPTION_KEYS is not set", cure=NEW_KEY)
            served = await stack.enter_async_context(serving(runtime, listener, with_worker=not no_worker))
            log.info("serving", address=served.address, worker=not no_worker, version=__version__)
            await served.until_stopped()
            log.info("stopping")
    return DONE


async def worker() -> int:
    """Push changes to Shopify and carry out runs, without serving anything, until told to stop.

    Any number may run beside any number of `serve --no-worker`. SIGTERM or Ctrl-C stop it in order, with exit status 0.
    """
    settings = Settings.load()
    logs.configure(settings)
    async with open_runtime(settings) as runtime:
        await require_readable_tokens(runtime)
        working = asyncio.create_task(work(runtime.mirror, runtime.runs, runtime.schedule), name="worker")
        try:
            log.info("working", version=__version__)
            await _until_signal(working)
            log.info("stopping")
        finally:
            await _cancelled(working)
    return DONE


@dataclass(frozen=True, slots=True)
class Served:
    """A server at work."""

    address: str
    server: _Server
    tasks: tuple[asyncio.Task[None], ...]

    async def until_stopped(self) -> None:
        """Wait for SIGTERM or Ctrl-C. A second one, while requests under way are waited for, hangs up on them."""

        def hang_up() -> None:
            self.server.force_exit = True

        await _until_signal(*self.tasks)
        _on_signals(hang_up)


@contextlib.asynccontextmanager
async def serving(runtime: Runtime, listener: socket.socket, *, with_worker: bool) -> AsyncGenerator[Served]:
    """Serve from the running loop, from when it is ready until the block ends; requests under way are seen through."""
    server = _Server(
        uvicorn.Config(
            create_app(runtime),
            access_log=False,
            log_config=None,
            log_level="warning",
            ws="none",
            server_header=False,
            backlog=BACKLOG_CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )
    web = asyncio.create_task(server.serve(sockets=[listener]), name="web")
    tasks = [web]
    # Without a worker the web process carries out what was asked of it, and takes up runs whose process died.
    beside = work(runtime.mirror, runtime.runs, runtime.schedule) if with_worker else resume_runs(runtime.runs)
    tasks.append(asyncio.create_task(beside, name="worker" if with_worker else "runs"))
    try:
        ready = asyncio.create_task(server.ready.wait())
        await asyncio.wait({ready, web}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if web.done():
            web.result()
        yield Served(runtime.settings.model_copy(update={"app_url": None}).public_url, server, tuple(tasks))
    finally:
        # The web first: whoever waits for a push is still served by the worker meanwhile.
        server.should_exit = True
        await asyncio.gather(web, return_exceptions=True)
        await _cancelled(*tasks)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers, telling when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to us."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        self.ready.set()


def listen(settings: Settings) -> socket.socket:
    """Take the address to serve at, before anything else is begun.

    Raises:
        CannotListen: it is taken, or cannot be had; the detail names HOST and PORT.
    """
    where = f"HOST={settings.host} PORT={settings.port}"
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, address = found[0][0], found[0][4]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG_CONNECTIONS_MAX)  # pyright: ignore[reportArgumentType] - IPv4 or IPv6, so text and number
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"{where}: another program listens there. Stop it, or choose another PORT (0 picks a free one)."
            ) from None
        reason = error.strerror or str(error)
        raise CannotListen(f"{where}: cannot listen there: {reason}. Choose another HOST or PORT.") from None


class PortTaken(CannotListen):
    """Another program listens at the address."""

    code = "port_taken"


def with_port_of(settings: Settings, listener: socket.socket) -> Settings:
    """The settings with the port that was really taken, when any was wanted."""
    return settings.model_copy(update={"port": listener.getsockname()[1]})


async def _until_signal(*tasks: asyncio.Task[None]) -> None:
    """Wait for SIGTERM or SIGINT; or for one of the tasks to end, which none does unless it fails."""
    stop = asyncio.Event()
    _on_signals(stop.set)
    waiting = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({waiting, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    for task in tasks:
        if task.done():
            task.result()


def _on_signals(act: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, act)


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
