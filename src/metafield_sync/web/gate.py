"""What stands before every call: a bounded body, a key for /api and its rate, and a count for the metrics."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from metafield_sync.errors import AppError
from metafield_sync.shops.api_keys import find_caller
from metafield_sync.web.problems import problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from metafield_sync.db.database import Database

BODY_BYTES_MAX = 4 * 1024 * 1024
DISCARDED_BYTES_MAX = 64 * 1024 * 1024
"""So much of a body that is too large is still read, and thrown away: a client in the middle of sending does not
listen, and would meet a reset connection instead of the answer."""
KEY_CHARS_MAX = 200
KEYS_REMEMBERED_MAX = 10_000

WRITES_BY_GET = frozenset({"/api/sync-balances", "/api/reconcile"})
"""Cron services can send no more than a GET; these calls change things, or spend API points, all the same."""


class BodyLimit:
    """Reads the whole body before anything else happens, and refuses one over BODY_BYTES_MAX."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
            return
        if _announced(scope) > DISCARDED_BYTES_MAX:
            await _too_large()(scope, receive, send)
            return
        chunks: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            more = message.get("more_body", False)
            if size <= BODY_BYTES_MAX:
                chunks.append(chunk)
            elif size > DISCARDED_BYTES_MAX:
                break
        if size > BODY_BYTES_MAX:
            await _too_large()(scope, receive, send)
            return
        body: Message | None = {"type": "http.request", "body": b"".join(chunks), "more_body": False}

        async def replay() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            message, body = body, None
            return message

        await self._app(scope, replay, send)


class KeyGate:
    """Lets nothing under /api pass without a valid key, a scope that suffices, and room in that key's rate.

    The caller is then in `request.state.caller`. No cookie is ever looked at.
    """

    def __init__(self, app: ASGIApp, db: Database, rate_limit_per_s: int) -> None:
        self._app = app
        self._db = db
        self._rates = Rates(rate_limit_per_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or not scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return
        try:
            refusal = await self._refuse(scope)
        except AppError as error:
            refusal = problem(error.status, error.code, error.detail)
        await (refusal or self._app)(scope, receive, send)

    async def _refuse(self, scope: Scope) -> Response | None:
        key = _bearer(scope)
        if key is None:
            return _unauthorized("missing_key", "Send your API key: Authorization: Bearer KEY.")
        async with self._db.unscoped() as conn:
            caller = await find_caller(conn, key)
        if caller is None:
            return _unauthorized(
                "invalid_key",
                "This API key is unknown or was revoked. Make one with: metafield-sync keys create",
            )
        writes = scope["method"] not in {"GET", "HEAD", "OPTIONS"} or scope["path"] in WRITES_BY_GET
        if writes and not caller.can_write:
            return problem(403, "read_only_key", "This API key may only read. Use one made with --scope write.")
        if not self._rates.allow(caller.key_id):
            return problem(
                429,
                "rate_limited",
                "Too many requests with this key; try again in a second, or send batches.",
                {"Retry-After": "1"},
            )
        scope.setdefault("state", {})["caller"] = caller
        return None


@dataclass(slots=True)
class Rates:
    """A bucket of one second's requests for each caller, by a number that tells them apart, kept in this process."""

    per_s: int
    clock: Callable[[], float] = time.monotonic
    _buckets: dict[int, tuple[float, float]] = field(default_factory=dict[int, tuple[float, float]])

    def allow(self, caller: int) -> bool:
        """Whether this request is within the rate; counts it if so."""
        now = self.clock()
        if len(self._buckets) > KEYS_REMEMBERED_MAX:
            self._buckets.clear()
        level, at = self._buckets.get(caller, (float(self.per_s), now))
        level = min(float(self.per_s), level + (now - at) * self.per_s)
        allowed = level >= 1
        self._buckets[caller] = (level - allowed, now)
        return allowed


def _announced(scope: Scope) -> int:
    """The body's size as its header has it; 0 if it has none, or none that is a number."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


def _bearer(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, key = value.decode("latin-1").partition(" ")
            return key.strip()[:KEY_CHARS_MAX] if scheme.lower() == "bearer" and key.strip() else None
    return None


def _unauthorized(code: str, detail: str) -> Response:
    return problem(401, code, detail, {"WWW-Authenticate": "Bearer"})


def _too_large() -> Response:
    return problem(
        413,
        "body_too_large",
        f"The body is over {BODY_BYTES_MAX} bytes. Send fewer entries at a time.",
        # The rest of the body is not read, so nothing after it on this connection could be.
        {"Connection": "close"},
    )
