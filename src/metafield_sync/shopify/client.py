"""One call to a shop's Admin API over HTTP: sent once, judged, never retried in here.

Whether and when to send again depends on what the call was and on the shop's budget; the caller knows both.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import structlog

from metafield_sync import __version__
from metafield_sync.shopify.answers import Answer, RawAnswer, read_answer
from metafield_sync.shopify.failures import OutcomeUnknown, Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT_TIMEOUT_S = 5.0
"""To reach the shop, or to get a free connection out of the pool."""
READ_TIMEOUT_S = 12.0
"""Shopify gives up on a request after about 10 s and says so with 504; waiting a little longer than it does
turns most timeouts into that clear answer."""
CALL_TIMEOUT_S = 30.0
"""For everything together: the timeouts above start again with each byte, and an answer must not trickle for
ever."""
RESPONSE_BYTES_MAX = 8 * 1024 * 1024
"""After decompression. The largest answer asked for is a page of 50 bulk operations, each with its document of up to
64 KB; most are well under 1 MB."""
SECRET_CHARS_MIN = 8
"""From this length on an access token is struck out of an answer that repeats it; shorter ones are no
secrets."""
VERSIONS_WARNED_MAX = 16
"""How many served versions are warned about; a stand-in that invents one an answer must not fill the log."""

USER_AGENT = f"metafield-sync/{__version__}"

_DOMAIN = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\.myshopify\.com", re.ASCII)
_TOKEN = re.compile(r"[!-~]+", re.ASCII)
_MUTATION = re.compile(r"\s*mutation\b")
_API_VERSION = re.compile(r"[0-9]{4}-[0-9]{2}|unstable", re.ASCII)

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ShopAccess:
    """Which shop, and the access token for it. The token is in no `repr`, log line or error text.

    Raises ValueError if `domain` is not `….myshopify.com` in lower case (it becomes part of an address, and
    whatever is at that address is sent the token), or if `token` could not stand in a header.
    """

    domain: str
    token: str = field(repr=False)

    def __post_init__(self) -> None:
        if _DOMAIN.fullmatch(self.domain) is None:
            raise ValueError(f"not the domain of a shop: {self.domain!r}; expected NAME.myshopify.com")
        if _TOKEN.fullmatch(self.token) is None:
            raise ValueError("an access token is printable ASCII without spaces, and not empty")


class AdminClient:
    """Speaks to any number of shops' Admin APIs over one `httpx.AsyncClient`, several calls at a time.

    `origin` is where a shop's Admin API is, `{shop}` standing for its myshopify domain: `https://{shop}`, or
    for a stand-in `http://127.0.0.1:9000/{shop}`; the placeholder may be missing. `api_version` is such as
    `2026-10`. The caller owns `http` and closes it. The timeouts are in seconds. Raises ValueError for an
    origin that is no address.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        origin: str,
        api_version: str,
        read_timeout_s: float = READ_TIMEOUT_S,
        call_timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        self._http = http
        self._address = f"{origin.rstrip('/')}/admin/api/{api_version}/graphql.json"
        self._api_version = api_version
        self._read_timeout_s = read_timeout_s
        self._call_timeout_s = call_timeout_s
        self._warned: set[str] = set()
        address = self._require_address(origin)
        self._is_stand_in = address.scheme == "http" and _is_loopback(address.host)

    def url(self, domain: str) -> str:
        """The address of one shop's GraphQL endpoint."""
        return self._address.replace("{shop}", domain)

    @property
    def http(self) -> httpx.AsyncClient:
        """The connections, for the files that Shopify keeps with others. They carry no token of their own."""
        return self._http

    def file_url(self, url: str) -> httpx.URL:
        """Check the address of a file that an answer told, before anything is sent there.

        It has to be https. Only a client whose own Admin API is a stand-in, http on this very machine, also takes
        http on this very machine. Raises ValueError, its text without what may be a signature: host at most.
        """
        try:
            address = httpx.URL(url)
        except httpx.InvalidURL:
            raise ValueError("the file's address cannot be read") from None
        if not address.host or address.userinfo:
            raise ValueError("the file's address names no host, or a user and password")
        is_own = address.scheme == "http" and self._is_stand_in and _is_loopback(address.host)
        if address.scheme != "https" and not is_own:
            raise ValueError(f"the file's address at {address.host[:255]!r} is not https")
        return address

    async def call(self, access: ShopAccess, document: str, variables: Mapping[str, Any]) -> Answer:
        """Send one GraphQL document, once, and return its data.

        `variables` must be JSON. The `userErrors` of a mutation are in the data and still the caller's to
        check. Raises `ShopRefused`, `Throttled`, `Unreachable`, `OutcomeUnknown` or `QueryRefused` (see
        `failures`). If the caller's task is cancelled meanwhile, the outcome is as unknown as after a
        timeout.
        """
        raw = await self._exchange(access, {"query": document, "variables": dict(variables)})
        served = raw.headers.get("X-Shopify-Api-Version")
        if served is not None:
            self._compare_version(served, shop=access.domain)
        is_mutation = _MUTATION.match(document) is not None
        return read_answer(raw, shop=access.domain, is_mutation=is_mutation, api_version=served)

    async def _exchange(self, access: ShopAccess, payload: dict[str, Any]) -> RawAnswer:
        """POST the payload and read the whole answer. Raises Unreachable or OutcomeUnknown."""
        request = self._http.build_request(
            "POST",
            self.url(access.domain),
            json=payload,
            headers={
                "Accept": "application/json",
                "User-Agent": USER_AGENT,
                "X-Shopify-Access-Token": access.token,
            },
            timeout=httpx.Timeout(self._read_timeout_s, connect=CONNECT_TIMEOUT_S, pool=CONNECT_TIMEOUT_S),
        )
        try:
            async with asyncio.timeout(self._call_timeout_s):
                response = await self._http.send(request, stream=True, follow_redirects=False)
                try:
                    body = await _read_bounded(response, shop=access.domain)
                finally:
                    await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
            raise Unreachable(
                f"{access.domain}: no connection to {request.url.host} ({type(error).__name__}). Nothing was "
                "sent; check the network, DNS and SHOPIFY_ADMIN_ORIGIN. It is tried again."
            ) from error
        except (httpx.HTTPError, TimeoutError) as error:
            raise OutcomeUnknown(
                f"{access.domain}: no whole answer from {request.url.host} ({type(error).__name__})."
            ) from error
        return RawAnswer(response.status_code, response.headers, _without_secret(body, access.token))

    def _compare_version(self, served: str, *, shop: str) -> None:
        """Warn, once for each served version, that Shopify serves another one than was asked for.

        It does so without failing anything once a version is out of support ("falls forward" to the oldest
        supported one), so this is the only sign that SHOPIFY_API_VERSION is due.
        """
        if served == self._api_version or served in self._warned or len(self._warned) >= VERSIONS_WARNED_MAX:
            return
        self._warned.add(served)
        _log.warning(
            "Shopify serves another API version; set SHOPIFY_API_VERSION to a supported one",
            asked=self._api_version,
            served=served if _API_VERSION.fullmatch(served) else "unreadable",
            shop=shop,
        )

    def _require_address(self, origin: str) -> httpx.URL:
        try:
            url = httpx.URL(self.url("shop.myshopify.com"))
        except httpx.InvalidURL:
            url = httpx.URL()
        if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
            raise ValueError(f"not the origin of an Admin API: {origin!r}; expected such as https://{{shop}}")
        return url


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _read_bounded(response: httpx.Response, *, shop: str) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > RESPONSE_BYTES_MAX:
            raise OutcomeUnknown(f"{shop}: the answer is larger than {RESPONSE_BYTES_MAX} bytes.")
    return bytes(body)


def _without_secret(body: bytes, token: str) -> bytes:
    """Strike the token out of an answer that repeats it, as proxies that describe the request do.

    What Shopify says ends up in error texts, logs and the database; this one place keeps the token out of all
    three.
    """
    return body.replace(token.encode(), b"[access token]") if len(token) >= SECRET_CHARS_MIN else body
