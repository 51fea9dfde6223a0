"""A loopback HTTP server that answers what it was told to, in order: real sockets, as bad as needed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

DOMAIN = "a-shop.myshopify.com"
TOKEN = "shpat_0123456789abcdef0123456789abcdef"  # noqa: S105 - made up
QUERY = "query Shop { shop { name } }"
MUTATION = "mutation MetafieldsSet { metafieldsSet(metafields: []) { userErrors { code } } }"
OK = {"data": {"shop": {"name": "A shop"}}}


def failed(code: str | None, message: str = "no", **extensions: Any) -> dict[str, Any]:
    """A GraphQL answer with one top-level error."""
    named = extensions if code is None else {"code": code, **extensions}
    return {"errors": [{"message": message, "extensions": named}]}


@dataclass(frozen=True, slots=True)
class Reply:
    """One scripted answer. `raw` replaces everything; `drop` closes without a byte; `hang` never answers."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    raw: bytes | None = None
    drop: bool = False
    hang: bool = False

    def wire(self) -> bytes:
        if self.raw is not None:
            return self.raw
        headers = {"Content-Type": "application/json", "Content-Length": str(len(self.body))} | self.headers
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} Scripted\r\n{head}Connection: close\r\n\r\n".encode() + self.body


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def variables(self) -> dict[str, Any]:
        return json.loads(self.body)["variables"]

    @property
    def query(self) -> str:
        return json.loads(self.body)["query"]


class ScriptedServer:
    """Use it as an async context manager; queue answers with `reply` or `answer`; see `received` after."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.origin = ""
        self._replies: list[Reply] = []
        self._over = asyncio.Event()
        self._server: asyncio.Server | None = None

    def reply(self, *replies: Reply) -> None:
        self._replies.extend(replies)

    def answer(self, *documents: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Queue JSON documents, one an answer."""
        for document in documents:
            self.reply(Reply(status=status, body=json.dumps(document).encode(), headers=headers or {}))

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.origin = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        if error is None:
            assert not self._replies, "scripted answers that nobody asked for"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.received.append(await _read_request(reader))
            reply = self._replies.pop(0)
            if reply.hang:
                await self._over.wait()
            elif not reply.drop:
                writer.write(reply.wire())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away first, as some tests want it to
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method=method, path=path, headers=headers, body=body)
