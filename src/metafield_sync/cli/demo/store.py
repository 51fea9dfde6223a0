"""The demo's Shopify: the devstore as a process of its own, spoken to over HTTP only."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import httpx

from metafield_sync.cli.parts import WRONG
from metafield_sync.errors import AppError
from metafield_sync.shopify import customer_id_of
from metafield_sync.sync.inbox.fields import FIELDS, include_fields

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from metafield_sync.settings import Settings

Plan = Literal["standard", "advanced", "plus", "enterprise"]

SHOP_DOMAIN = "demo.myshopify.com"
CLIENT_ID = "metafield-sync-demo"
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 5
CALL_TIMEOUT_S = 30
ADD_CUSTOMERS_MAX = 500
"""Customers created in the devstore by one call."""
PAGE_CUSTOMERS_MAX = 250

# The shell ends the devstore when its standard input does: that is when this process ends, also by kill -9. No process
# id has to be remembered, and none can be another process's by then.
LEASH = '"$@" & child=$!; read -r _; kill "$child" 2>/dev/null; wait "$child"'

READ_BACK_QUERY = """
query ReadBack($first: Int!, $after: String, $namespace: String!, $key: String!) {
  customers(first: $first, after: $after) {
    nodes {
      id
      metafield(namespace: $namespace, key: $key) {
        value
        type
      }
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
"""


class DevStoreFailed(AppError):
    """The devstore does not start, or answers what it should not."""

    code = "devstore_failed"
    exit_status = WRONG


@dataclass(frozen=True, slots=True)
class Spent:
    """What the devstore has counted: calls of the Admin API, those it throttled, and the points they cost."""

    calls: int
    throttled: int
    points: int


class DevStore:
    """A running devstore with one shop, and the app in it. `client_secret` signs what it sends the app."""

    def __init__(self, http: httpx.AsyncClient, origin: str, token: str, client_secret: str) -> None:
        self._http = http
        self.origin = origin
        self.token = token
        self.client_secret = client_secret
        self.admin_origin = f"{origin}/{{shop}}"
        self._control = f"{origin}/_devstore"

    def graphql_url(self, api_version: str) -> str:
        """Where the shop's Admin API is."""
        return f"{self.origin}/{SHOP_DOMAIN}/admin/api/{api_version}/graphql.json"

    @property
    def admin_url(self) -> str:
        """The pages of the shop's staff."""
        return f"{self.origin}/{SHOP_DOMAIN}/admin"

    @property
    def storefront_url(self) -> str:
        """The pages of its shoppers."""
        return f"{self.origin}/{SHOP_DOMAIN}"

    async def connect_app(self, address: str) -> None:
        """Tell it where the app is: from now on it is sent webhooks, and asked for what the shop's pages show."""
        subscriptions = [
            {"topic": topic, "uri": "/webhooks", "includeFields": include_fields(topic)} for topic in FIELDS
        ]
        await self._call("PATCH", "/app", {"url": address, "title": "Points", "subscriptions": subscriptions})

    async def add_customers(self, ids: Sequence[int], tell: Callable[[int, int], None]) -> None:
        """Create customers with these numbers."""
        for start in range(0, len(ids), ADD_CUSTOMERS_MAX):
            some = ids[start : start + ADD_CUSTOMERS_MAX]
            await self._call("POST", f"/shops/{SHOP_DOMAIN}/customers", {"ids": some})
            tell(start + len(some), len(ids))

    async def spent(self) -> Spent:
        """What its Admin API was asked so far."""
        operations = (await self._call("GET", "/stats"))["operations"].values()
        bucket = await self._call("GET", f"/shops/{SHOP_DOMAIN}/bucket")
        return Spent(
            calls=sum(one["calls"] for one in operations),
            throttled=sum(one["throttled"] for one in operations),
            points=round(bucket["spent"]),
        )

    async def read_back(self, settings: Settings, tell: Callable[[int, int], None], total: int) -> dict[int, int | str]:
        """Every customer's metafield, read over the Admin API: its number, or what is wrong with it in words.

        As another app would read it, which has a bucket of points of its own: so the bucket is filled before each page.
        """
        found: dict[int, int | str] = {}
        after: str | None = None
        while True:
            await self._call("POST", f"/shops/{SHOP_DOMAIN}/bucket/fill")
            variables = {
                "first": PAGE_CUSTOMERS_MAX,
                "after": after,
                "namespace": settings.metafield_namespace,
                "key": settings.metafield_key,
            }
            answer = await self._http.post(
                self.graphql_url(settings.shopify_api_version),
                json={"query": READ_BACK_QUERY, "variables": variables},
                headers={"X-Shopify-Access-Token": self.token},
            )
            body = answer.json()
            if answer.is_error or "errors" in body:
                raise DevStoreFailed(f"The devstore did not let its metafields be read: {json.dumps(body)[:500]}")
            page = body["data"]["customers"]
            found |= {customer_id_of(node["id"]): _shown(node["metafield"]) for node in page["nodes"]}
            tell(len(found), total)
            if not page["pageInfo"]["hasNextPage"]:
                return found
            after = page["pageInfo"]["endCursor"]

    async def _call(self, method: str, path: str, body: object = None) -> Any:
        answer = await self._http.request(method, f"{self._control}{path}", json=body)
        if answer.is_error:
            raise DevStoreFailed(f"The devstore refused {method} {path}: {answer.text[:500]}")
        return answer.json()


def _shown(metafield: dict[str, str] | None) -> int | str:
    if metafield is None:
        return "none"
    if metafield["type"] != "number_integer":
        return f"{metafield['value']} ({metafield['type']})"
    return int(metafield["value"])


@asynccontextmanager
async def started(plan: Plan, log: Path) -> AsyncGenerator[DevStore]:
    """Start a devstore with one empty shop, and stop it when the block ends, or with this process.

    Raises:
        DevStoreFailed: it does not start; the detail says why.
    """
    token, client_secret = f"shpat_{secrets.token_hex(16)}", f"shpss_{secrets.token_hex(16)}"
    command = [sys.executable, "-m", "devstore", "--shop", f"{SHOP_DOMAIN}:{token}", "--plan", plan]
    command += ["--client-id", CLIENT_ID, "--client-secret", client_secret]
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            LEASH,
            "sh",
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C in our terminal is ours to answer; it stops after us.
        )
    try:
        origin = await _origin(process, log)
        async with httpx.AsyncClient(timeout=CALL_TIMEOUT_S, trust_env=False) as http:
            try:
                yield DevStore(http, origin, token, client_secret)
            except httpx.HTTPError as error:
                raise DevStoreFailed(f"The devstore does not answer ({type(error).__name__}). See {log}.") from error
    finally:
        await _stop(process)


async def _origin(process: asyncio.subprocess.Process, log: Path) -> str:
    """Wait for the line of JSON that says where it listens."""
    assert process.stdout is not None, "it was asked for"  # noqa: S101 - how the process was started
    line = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(START_TIMEOUT_S):
            line = await process.stdout.readline()
    try:
        return json.loads(line)["origin"]
    except ValueError:
        said = await asyncio.to_thread(_lines, log)
        if any("No module named" in row for row in said):
            raise DevStoreFailed(
                "The devstore is not installed. Install it: pip install 'metafield-sync[devstore,embedded]'"
            ) from None
        raise DevStoreFailed(f"The devstore did not start: {said[-1] if said else 'no answer'}. See {log}.") from None


def _lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").strip().splitlines()


async def _stop(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None, "it was asked for"  # noqa: S101 - how the process was started
    process.stdin.close()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
