"""Access tokens for an app: exchanged, refreshed, or asked for with the app's own credentials.

What is sent and read is Shopify's own package's. It is given a client of ours, since by itself it

* goes to `https://{shop}.myshopify.com` and nowhere else;
* sends again, at once and up to twice, after a 429 or a 5xx. When to try again is for whoever holds the shop's refresh;
* takes any 200 for a token, and breaks on one that is not JSON;
* says "network error" or "exchange error" of most failures, while what to do next depends on which it was.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, get_args

import httpx
from shopify_app import ShopifyApp

from metafield_sync.errors import AppError
from metafield_sync.shopify.app.credentials import AppNotConfigured
from metafield_sync.shopify.failures import Unreachable
from metafield_sync.shopify.shapes import mapping, number, text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from metafield_sync.shopify.app.credentials import AppCredentials
    from metafield_sync.shopify.app.verification import IdToken

CONNECT_TIMEOUT_S = 5.0
TOKEN_TIMEOUT_S = 20.0
"""For one token, all in all; shorter than a refresh is held for, so that no second one is under way meanwhile."""
ANSWER_BYTES_MAX = 64 * 1024
TOKEN_CHARS_MAX = 4096
LAPSE_S_MAX = 10**9
HTTP_OK = 200

TokenRefusal = Literal[
    "invalid_grant",
    "invalid_subject_token",
    "invalid_client",
    "shop_not_permitted",
    "application_cannot_be_found",
    "other",
]
"""Shopify's reason: a refresh token that is dead; an ID token that is; the app's id or secret wrong, or the app not
installed; a shop of another organisation; no such app."""

_CURES: dict[TokenRefusal, str] = {
    "invalid_grant": "Open the app in the Shopify admin once: that gives it a new token.",
    "invalid_subject_token": "Reload the page in the Shopify admin.",
    "invalid_client": "Check that SHOPIFY_API_KEY and SHOPIFY_API_SECRET are this app's, and that it is installed.",
    "shop_not_permitted": "Client credentials work for shops of the app's own organisation only. Open the app in the "
    "Shopify admin instead.",
    "application_cannot_be_found": "Check SHOPIFY_API_KEY.",
    "other": "Check SHOPIFY_API_KEY, SHOPIFY_API_SECRET and that the app is installed in the shop.",
}


class TokenRefused(AppError):
    """Shopify gives no token, and would not the next time either; `reason` says why, the detail what to do."""

    code: ClassVar[str] = "token_refused"
    status: ClassVar[int] = 502

    def __init__(self, detail: str, *, reason: TokenRefusal) -> None:
        super().__init__(detail)
        self.reason: TokenRefusal = reason


class TokenUnreachable(Unreachable):
    """No usable answer about a token.

    The same request may be sent again, even if it was received: Shopify takes a refresh token again until its
    replacement has been used.
    """


@dataclass(frozen=True, slots=True)
class TokenPair:
    """An access token and, where it lapses, what it is renewed by. In no `repr`, log line or error text.

    `expires_at` is None for one that never lapses; `refresh_token` for one that is not renewed by one. `scopes` are
    those granted, in Shopify's words.
    """

    access_token: str = field(repr=False)
    expires_at: datetime | None = None
    refresh_token: str | None = field(default=None, repr=False)
    refresh_expires_at: datetime | None = None
    scopes: tuple[str, ...] = ()


class AppTokens:
    """Asks Shopify for an app's tokens, each time once.

    Args:
        credentials: the app's; without a client id there are no tokens to be had.
        origin: where a shop's Admin API is, `{shop}` standing for its myshopify domain.
        http: the connections. Whoever gives them closes them.
    """

    def __init__(self, credentials: AppCredentials, origin: str, http: httpx.AsyncClient) -> None:
        self._credentials = credentials
        self._origin = origin.rstrip("/")
        self._http = http

    async def exchange(self, id_token: IdToken) -> TokenPair:
        """An expiring offline token for the shop whose staff opened the app, in exchange for their ID token.

        Args:
            id_token: one that was verified.

        Raises:
            AppNotConfigured: SHOPIFY_API_KEY is not set (so do the other two).
            TokenRefused: `invalid_subject_token` if it has lapsed meanwhile; or Shopify does not know the app.
            TokenUnreachable: no proper answer.
        """
        details = {
            "exchangeable": True,
            "token": id_token.token,
            "claims": {"dest": f"https://{id_token.shop_domain}"},
        }
        app = self._app()
        return await self._ask(
            id_token.shop_domain,
            lambda http: app.exchange_using_token_exchange_async(  # pyright: ignore[reportUnknownMemberType] - a dict
                "offline", details, None, expiring=True, http_client=http
            ),
        )

    async def refresh(self, domain: str, refresh_token: str) -> TokenPair:
        """The pair after the one whose refresh token this is. After TokenUnreachable it may be sent again.

        Raises:
            TokenRefused: `invalid_grant`: the refresh token is dead.
            TokenUnreachable: no proper answer.
        """
        # The package refreshes only what has lapsed by its own clock, and never what it takes for dead.
        token = {
            "shop": _name(domain),
            "refresh_token": refresh_token,
            "expires": "2000-01-01T00:00:00Z",
            "refresh_token_expires": None,
            "access_mode": "offline",
            "user": None,
        }
        app = self._app()
        return await self._ask(
            domain,
            lambda http: app.refresh_token_exchanged_access_token_async(  # pyright: ignore[reportUnknownMemberType] - a dict
                token, http_client=http
            ),
        )

    async def client_credentials(self, domain: str) -> TokenPair:
        """A token for a shop of the app's own organisation, asked for by the app's id and secret alone.

        Raises:
            TokenRefused: `shop_not_permitted`: another organisation's; `invalid_client`: wrong credentials.
            TokenUnreachable: no proper answer.
        """
        app = self._app()
        return await self._ask(
            domain, lambda http: app.exchange_using_client_credentials_async(_name(domain), http_client=http)
        )

    def _app(self) -> ShopifyApp:
        if self._credentials.client_id is None:
            raise AppNotConfigured("SHOPIFY_API_KEY is not set: without the app's client id Shopify gives no token.")
        return ShopifyApp(self._credentials.client_id, self._credentials.client_secret)

    async def _ask(self, domain: str, question: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> TokenPair:
        once = _Once(self._http, f"{self._origin.replace('{shop}', domain)}/admin/oauth/access_token")
        asked_at = datetime.now(UTC)
        try:
            async with asyncio.timeout(TOKEN_TIMEOUT_S), httpx.AsyncClient(transport=once, trust_env=False) as http:
                result = await question(http)
        except TimeoutError:
            raise TokenUnreachable(f"{domain}: Shopify did not answer about the access token in time.") from None
        if once.trouble is not None or once.status is None:
            what = once.trouble or "was not asked"
            raise TokenUnreachable(f"{domain}: Shopify gave no access token ({what}). It is tried again.")
        if not result.ok or once.answer is None:
            raise _refusal(domain, once)
        return _pair(once.answer, asked_at)


class _Once(httpx.AsyncBaseTransport):
    """Sends one request to where it is meant to go, and remembers what came of it.

    An answer that is neither a token nor a refusal is told as a failed connection: the one thing after which the
    package does not send again.
    """

    def __init__(self, http: httpx.AsyncClient, address: str) -> None:
        self._http = http
        self._address = address
        self.status: int | None = None
        self.answer: dict[str, Any] | None = None
        self.trouble: str | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it, and read the answer, within bounds."""
        sent = self._http.build_request(
            "POST",
            self._address,
            content=await request.aread(),
            # Asked for nothing in particular, Shopify explains a refusal to a person, as a page.
            headers={
                "Accept": "application/json",
                "Content-Type": request.headers["Content-Type"],
                "User-Agent": request.headers["User-Agent"],
            },
            timeout=httpx.Timeout(TOKEN_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=CONNECT_TIMEOUT_S),
        )
        try:
            response = await self._http.send(sent, stream=True, follow_redirects=False)
            try:
                body = await _read_bounded(response)
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            self.trouble = type(error).__name__
            raise httpx.ReadError("no answer", request=request) from None
        self.status = response.status_code
        self.answer = _object(body)
        if not self._is_plain():
            self.trouble = f"HTTP {self.status}"
            raise httpx.ReadError("no plain answer", request=request)
        return httpx.Response(self.status, json=self.answer, request=request)

    def _is_plain(self) -> bool:
        """Whether it is a token, or a refusal in Shopify's words."""
        answer = self.answer or {}
        if self.status == HTTP_OK:
            lapses = [answer.get(name) for name in ("expires_in", "refresh_token_expires_in")]
            readable = all(lapse is None or _seconds(lapse) is not None for lapse in lapses)
            return readable and _secret(answer.get("access_token")) is not None
        return self.status in {400, 401, 403, 404} and text(answer.get("error")) is not None


async def _read_bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            return b""
    return bytes(body)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        return mapping(httpx.Response(200, content=body).json())
    except (ValueError, RecursionError):
        return None


def _refusal(domain: str, once: _Once) -> TokenRefused:
    said = text((once.answer or {}).get("error")) or ""
    reason = cast("TokenRefusal", said) if said in get_args(TokenRefusal) else "other"
    return TokenRefused(
        f"{domain}: Shopify refused the app an access token ({said or f'HTTP {once.status}'}). {_CURES[reason]}",
        reason=reason,
    )


def _pair(answer: dict[str, Any], asked_at: datetime) -> TokenPair:
    """Read the token out of the answer. Lapses are counted from before it was asked for, so never too late."""
    return TokenPair(
        access_token=_secret(answer.get("access_token")) or "",
        expires_at=_after(asked_at, answer.get("expires_in")),
        refresh_token=_secret(answer.get("refresh_token")),
        refresh_expires_at=_after(asked_at, answer.get("refresh_token_expires_in")),
        scopes=tuple(part.strip() for part in (text(answer.get("scope")) or "").split(",") if part.strip()),
    )


def _after(asked_at: datetime, seconds: Any) -> datetime | None:
    lapse = _seconds(seconds)
    return None if lapse is None else asked_at + timedelta(seconds=lapse)


def _seconds(value: Any) -> float | None:
    lapse = number(value)
    return lapse if lapse is not None and 0 <= lapse < LAPSE_S_MAX else None


def _secret(value: Any) -> str | None:
    """A token that could stand in a header; None if it is none."""
    is_token = isinstance(value, str) and 0 < len(value) <= TOKEN_CHARS_MAX and value.isascii() and value.isprintable()
    return value if is_token and " " not in value else None


def _name(domain: str) -> str:
    """What the package calls a shop."""
    return domain.removesuffix(".myshopify.com")
