"""The embedded app's page: who opens it, and what Shopify wants of its answers.

The package tells a page opened with a good ID token from one opened in the admin's frame without one, which is sent
through a page of Shopify's making that fetches one. A token that is given and no good is refused, 401, instead; but the
refusal's page goes and fetches another, for most such tokens are those of tabs left open, and reloaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

from shopify_app import RequestInput, ShopifyApp

from metafield_sync.shopify.app.verification import SHOP_DOMAIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shopify_app.types import Res

    from metafield_sync.shopify.app.credentials import AppCredentials

HOME_PATH = "/app"
PATCH_PATH = "/app/id-token"
"""Where App Bridge fetches an ID token, and comes back with it."""
AGAIN = "again"
"""In the address of a page that has fetched a new ID token once: if that is no good either, the settings are wrong, and
fetching another would go on for ever."""
NOT_FRAMED = {"Content-Security-Policy": "frame-ancestors 'none'"}
APP_BRIDGE = "https://cdn.shopify.com/shopifycloud/app-bridge.js"


@dataclass(frozen=True, slots=True)
class HomeAnswer:
    """An answer to give as it is."""

    status: int
    body: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HomeOpened:
    """The page, opened with an ID token that is signed for this app, and what its answer has to carry.

    `refused`: the answer in case the token turns out to be no good after all.
    """

    id_token: str = field(repr=False)
    headers: Mapping[str, str]
    refused: HomeRefused


@dataclass(frozen=True, slots=True)
class HomeRefused:
    """The ID token is no good. `fetch_at`: the page that fetches another, inside the frame that `headers` allow.

    None: another would be no better.
    """

    fetch_at: str | None
    headers: Mapping[str, str]


class AppHome:
    """Reads requests for the embedded page.

    Args:
        credentials: the app's; without a client id nothing is ever embedded.
        public_url: where browsers reach this app.
        stand_in: the origin of a stand-in for Shopify that may show the page in a frame; None: Shopify alone may.
    """

    def __init__(self, credentials: AppCredentials, public_url: str, stand_in: str | None) -> None:
        self.client_id = credentials.client_id
        self._app = ShopifyApp(
            credentials.client_id or "unset", credentials.client_secret, credentials.old_client_secret
        )
        self._public_url = public_url
        self._stand_in = stand_in

    def is_embedded(self, query: str) -> bool:
        """Whether a query is one that Shopify's admin opens the app with; else it is somebody's own browser tab."""
        given = parse_qs(query)
        return self.client_id is not None and "shop" in given and ("host" in given or "id_token" in given)

    def open(self, query: str) -> HomeOpened | HomeRefused | HomeAnswer:
        """Judge a request for the page by its query."""
        request = RequestInput(method="GET", headers={}, url=f"{self._public_url}{HOME_PATH}?{query}", body="")
        try:
            verdict = self._app.verify_app_home_req(request, PATCH_PATH)
        except Exception:  # noqa: BLE001 - strangers choose the query, and the package lets through what its parsers raise
            return HomeRefused(None, NOT_FRAMED)
        if verdict.ok and verdict.id_token is not None and verdict.invalid_token_response is not None:
            headers = self._framed(verdict.response.headers)
            return HomeOpened(verdict.id_token.token, headers, self._refused(verdict.invalid_token_response, query))
        if "id_token" in parse_qs(query):
            return self._refused(verdict.response, query)
        return self._answer(verdict.response)

    def _refused(self, response: Res, query: str) -> HomeRefused:
        given, fetch_at = parse_qs(query), response.headers.get("Location")
        shop = given.get("shop", [""])[0]
        if SHOP_DOMAIN.fullmatch(shop) is None:
            return HomeRefused(None, NOT_FRAMED)
        if fetch_at is None or AGAIN in given:
            return HomeRefused(None, self.frame_headers(shop))
        # The address to come back to is the last thing in it.
        return HomeRefused(fetch_at + quote(f"&{AGAIN}=1", safe=""), self.frame_headers(shop))

    def patch_page(self, query: str) -> HomeAnswer:
        """The page that fetches an ID token and comes back."""
        request = RequestInput(method="GET", headers={}, url=f"{self._public_url}{PATCH_PATH}?{query}", body="")
        return self._answer(self._app.app_home_patch_id_token(request).response)

    def frame_headers(self, shop_domain: str) -> dict[str, str]:
        """What the answer to a form in the page carries: who may show it in a frame."""
        return self._framed(
            {"Content-Security-Policy": f"frame-ancestors https://{shop_domain} https://admin.shopify.com;"}
        )

    def _answer(self, response: Res) -> HomeAnswer:
        return HomeAnswer(response.status, response.body, self._framed(response.headers))

    def _framed(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers, with the stand-in among those who may show the page in a frame."""
        framed = {name: value for name, value in headers.items() if "\n" not in value and "\r" not in value}
        policy = framed.get("Content-Security-Policy")
        if policy is not None and self._stand_in is not None:
            framed["Content-Security-Policy"] = policy.replace("frame-ancestors ", f"frame-ancestors {self._stand_in} ")
        return framed


def stand_in_origin(admin_origin: str) -> str | None:
    """The origin of a stand-in on this very machine, as SHOPIFY_ADMIN_ORIGIN names it; None: it is Shopify itself."""
    parts = urlsplit(admin_origin.replace("{shop}", "shop.example"))
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme == "http" else None
