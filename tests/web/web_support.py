"""The application as a server of its own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import uvicorn

from metafield_sync.web.app import create_app

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from metafield_sync.runtime import Runtime


@asynccontextmanager
async def served(runtime: Runtime) -> AsyncGenerator[str]:
    """The application on a free port of loopback; yields its origin."""
    config = uvicorn.Config(create_app(runtime), host="127.0.0.1", port=0, log_config=None, ws="none")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done(), "the server did not start"
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await task
