"""Requests that Shopify makes to the app: one HTTP client, which follows no redirect and waits for nobody."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from devstore.clock import Clock

CONNECT_S = 1.0
TOTAL_S = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request.

    Attributes:
        started_s: when it was sent, on the shop's monotonic clock.
        ended_s: when it was over.
        status: HTTP status; None if there was no answer in time.
        error: why there was none.
        headers: of the answer.
        body: of the answer.
    """

    started_s: float
    ended_s: float
    status: int | None = None
    error: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def is_success(self) -> bool:
        """Whether the app took it: a status of the 200s, a redirect is none."""
        return self.status is not None and httpx.codes.is_success(self.status)


class Courier:
    """Takes requests to the app and brings back what came of them; it raises nothing an app could cause."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def carry(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        connect_s: float = CONNECT_S,
        total_s: float = TOTAL_S,
    ) -> Outcome:
        """Make one request. `total_s` counts from the first byte out to the last byte in."""
        started_s = self._clock.monotonic()
        try:
            async with asyncio.timeout(total_s):
                timeout = httpx.Timeout(total_s, connect=connect_s)
                client = self._client(url)
                answer = await client.request(method, url, content=body, headers=dict(headers), timeout=timeout)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
            trouble = "no answer in time" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
            return Outcome(started_s, self._clock.monotonic(), error=trouble)
        ended_s = self._clock.monotonic()
        return Outcome(started_s, ended_s, answer.status_code, None, answer.headers, answer.content)

    async def close(self) -> None:
        """Hang up."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    def _client(self, url: str) -> httpx.AsyncClient:
        # Certificates take long to load, and an app on this machine needs none.
        secure = url.startswith("https:")
        if secure not in self._clients:
            verify = ssl.create_default_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # The environment's proxies have no business between a stand-in and an app on the same machine.
            self._clients[secure] = httpx.AsyncClient(verify=verify, trust_env=False)
        return self._clients[secure]
