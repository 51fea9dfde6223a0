"""What tells a request of Shopify's from a forgery: webhooks, proxied requests, Flow actions, ID tokens.

The cryptography is that of `shopify_app`, Shopify's own package. This module adds what 1.0.2 of it leaves out: it
verifies text and raises on header bytes it does not expect; it takes the shop of an unsigned header as it comes; it
reads the first of a doubled parameter; it demands no `exp` and does not compare `iss` with `dest`. Here the answer to
anything but an explicit yes, whatever was sent, is `NotAuthentic`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TypeVar, cast
from urllib.parse import urlencode

from shopify_app import RequestInput, ResultForReq, ShopifyApp

from metafield_sync.errors import AppError
from metafield_sync.shopify.app.credentials import AppCredentials, AppNotConfigured
from metafield_sync.shopify.exact_json import JsonUnusable, read_json
from metafield_sync.shopify.shapes import mapping, moment

PROXY_AGE_MAX_S = 90
"""How far a proxied request's timestamp may be from our clock, either way; Shopify's libraries use the same."""
ID_TOKEN_AGE_MAX_S = 300
"""App Bridge's tokens live a minute, the longest of Shopify's five; after that none is taken, whatever its `exp`."""
CLOCK_LEEWAY_S = 10
"""How far Shopify's clock may be from ours where ID tokens are concerned; Shopify's libraries use the same."""
TIME_CLAIM_MAX = 253_402_300_799
"""Seconds since 1970, up to the end of the year 9999."""
ID_TOKEN_CHARS_MAX = 4096
SHOPIFY_ID_MAX = 2**63 - 1

HMAC, SHOP, TOPIC = "x-shopify-hmac-sha256", "x-shopify-shop-domain", "x-shopify-topic"
DELIVERY_ID, EVENT_ID = "x-shopify-webhook-id", "x-shopify-event-id"
API_VERSION, TRIGGERED_AT = "x-shopify-api-version", "x-shopify-triggered-at"

SHOP_DOMAIN = re.compile(r"[a-z0-9][a-z0-9-]*\.myshopify\.com")
TOKEN_TEXT = re.compile(r"[!-~]{1,150}")
"""Ids of Shopify's making: printable ASCII without a space, so never two values that somebody joined."""
HEADERS_READ = {
    HMAC: re.compile(r"[A-Za-z0-9+/]{43}="),
    SHOP: SHOP_DOMAIN,
    TOPIC: re.compile(r"[a-z0-9_.-]{1,64}/[a-z0-9_.-]{1,64}"),
    DELIVERY_ID: TOKEN_TEXT,
    EVENT_ID: TOKEN_TEXT,
    API_VERSION: TOKEN_TEXT,
    TRIGGERED_AT: TOKEN_TEXT,
}
"""The headers that are relied on, and what each must look like. Their names and values are not signed."""

PROXY_PARAMETERS = {
    "shop": SHOP_DOMAIN,
    "path_prefix": re.compile(r"(/[A-Za-z0-9_.~-]+){1,8}"),
    "timestamp": re.compile(r"[0-9]{1,12}"),
    "logged_in_customer_id": re.compile(r"([1-9][0-9]{0,18})?"),
    "signature": re.compile(r"[0-9a-f]{64}"),
    "format": re.compile(r"json|liquid"),
}
"""The parameters a proxied request may have, and what each must look like.

What is signed is `name=value` after `name=value` with nothing between them, so whoever chooses one value could move the
boundaries: what was signed as one parameter may be read as two. None of these values can hold a `=`, and no other name
is taken, so what was signed can be read in one way only.
"""
PROXY_REQUIRED = ("shop", "timestamp", "signature")

ID_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
USER_ID = re.compile(r"[1-9][0-9]{0,18}")


class NotAuthentic(AppError):
    """The request does not prove that it comes from Shopify. Nothing was done about it."""

    code = "not_authentic"
    status = 401


@dataclass(frozen=True, slots=True)
class WebhookHeaders:
    """What the headers of a webhook say. Only the body is signed, so these are claims.

    `delivery_id` is the same for every attempt to deliver; None if Shopify sent none.
    """

    shop_domain: str
    topic: str
    delivery_id: str | None
    event_id: str | None
    api_version: str | None
    triggered_at: datetime | None


@dataclass(frozen=True, slots=True)
class FlowMessage:
    """What Shopify Flow sends, signed as a whole: for which shop, and the JSON object that says so."""

    shop_domain: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FlowRequest:
    """One run of a Flow action. `action_run_id` is the same however often Flow sends the run."""

    shop_domain: str
    action_run_id: str
    handle: str | None
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """A storefront's request through the app proxy. `customer_id` is the shopper logged in there; None: nobody is."""

    shop_domain: str
    customer_id: int | None
    format: Literal["json", "liquid"] | None


@dataclass(frozen=True, slots=True)
class IdToken:
    """What the embedded app was given to prove who opened it: a member of the shop's staff, by Shopify's user id."""

    shop_domain: str
    user_id: int
    expires_at: datetime
    token: str = field(repr=False)


class _Verdict(Protocol):
    @property
    def ok(self) -> bool: ...


V = TypeVar("V", bound=_Verdict)


class Verifier:
    """Decides whether what came is of Shopify's making, for one app. It holds no state and calls nobody."""

    def __init__(self, credentials: AppCredentials) -> None:
        self._client_id = credentials.client_id
        # The package wants a client id always, and looks at it for ID tokens alone, which are refused without one.
        self._app = ShopifyApp(
            credentials.client_id or "unset", credentials.client_secret, credentials.old_client_secret
        )

    def webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookHeaders:
        """The claims of a webhook whose body is signed by Shopify.

        Args:
            headers: a mapping whose `items()` tells every header, those given twice too, as Starlette's does.
            body: the bytes as they came.

        Raises:
            NotAuthentic: the body is not signed with our secret, or a header is doubled, missing or malformed.
        """
        given = _read_headers(headers)
        _verify_body(self._app.verify_webhook_req, given, body)
        return WebhookHeaders(
            shop_domain=_required(given, SHOP),
            topic=_required(given, TOPIC),
            delivery_id=given.get(DELIVERY_ID),
            event_id=given.get(EVENT_ID),
            api_version=given.get(API_VERSION),
            # A clock that nobody can read is no reason to lose an order.
            triggered_at=moment(given.get(TRIGGERED_AT)),
        )

    def flow_message(self, headers: Mapping[str, str], body: bytes) -> FlowMessage:
        """What Flow sent. The shop is the one in the signed body; a header that names another is a forgery.

        Raises:
            NotAuthentic: as for `webhook`, or the body is no JSON object that names a shop.
        """
        given = _read_headers(headers)
        _verify_body(self._app.verify_flow_action_req, given, body)
        try:
            document = mapping(read_json(body))
        except JsonUnusable as error:
            raise NotAuthentic(f"The body is signed, but {error}.") from None
        if document is None:
            raise NotAuthentic("The body is signed, but it is no JSON object.")
        shop = document.get("shopify_domain")
        if not isinstance(shop, str) or SHOP_DOMAIN.fullmatch(shop) is None:
            raise NotAuthentic("The body is signed, but its shopify_domain is not the domain of a shop.")
        if given.get(SHOP, shop) != shop:
            raise NotAuthentic("The header X-Shopify-Shop-Domain names another shop than the signed body.")
        return FlowMessage(shop, document)

    def flow_action(self, headers: Mapping[str, str], body: bytes) -> FlowRequest:
        """One run of a Flow action.

        Raises:
            NotAuthentic: as for `flow_message`, or the body names no run.
        """
        message = self.flow_message(headers, body)
        run = message.document.get("action_run_id")
        if not isinstance(run, str) or TOKEN_TEXT.fullmatch(run) is None:
            raise NotAuthentic("The body is signed, but it has no action_run_id, by which runs are told apart.")
        handle = message.document.get("handle")
        return FlowRequest(
            message.shop_domain,
            run,
            handle if isinstance(handle, str) and TOKEN_TEXT.fullmatch(handle) else None,
            mapping(message.document.get("properties")) or {},
        )

    def proxy(self, query: Sequence[tuple[str, str]], now: datetime) -> ProxyRequest:
        """Who asks through the app proxy.

        Args:
            query: every parameter in its order, URL-decoded.
            now: our clock.

        Raises:
            NotAuthentic: it is not signed with our secret, older or newer than PROXY_AGE_MAX_S, or has a parameter that
                is unknown, doubled, missing or malformed.
        """
        given: dict[str, str] = {}
        for name, value in query:
            pattern = PROXY_PARAMETERS.get(name)
            if pattern is None:
                raise NotAuthentic(f"The parameter {name!r} is not taken here; only {', '.join(PROXY_PARAMETERS)} are.")
            if name in given:
                raise NotAuthentic(f"The parameter {name} is given more than once.")
            if pattern.fullmatch(value) is None:
                raise NotAuthentic(f"The parameter {name} has a value that it cannot have.")
            given[name] = value
        for name in PROXY_REQUIRED:
            if name not in given:
                raise NotAuthentic(f"The parameter {name} is missing: this address is for Shopify's app proxy to ask.")
        if abs(now.timestamp() - int(given["timestamp"])) > PROXY_AGE_MAX_S:
            raise NotAuthentic(f"The timestamp is more than {PROXY_AGE_MAX_S} s from our clock. Load the page again.")
        request = RequestInput(method="GET", headers={}, url=f"/?{urlencode(given)}", body="")
        _ask(self._app.verify_app_proxy_req, request, "The signature is not one made with this app's secret.")
        customer = int(given.get("logged_in_customer_id") or 0)
        if customer > SHOPIFY_ID_MAX:
            raise NotAuthentic("The parameter logged_in_customer_id has a value that it cannot have.")
        # The pattern has seen to it that it is one of these.
        wanted = cast("Literal['json', 'liquid'] | None", given.get("format"))
        return ProxyRequest(given["shop"], customer or None, wanted)

    def id_token(self, token: str) -> IdToken:
        """Who opened the embedded app, and in which shop.

        The tokens of a storefront's customers are signed with the same secret for the same app; they name a customer
        where this one names a user, and no `iss`, and are refused.

        Raises:
            NotAuthentic: it is not signed by Shopify for this app, or not good now.
            AppNotConfigured: SHOPIFY_API_KEY is not set, so it cannot be told for which app a token is.
        """
        if self._client_id is None:
            raise AppNotConfigured("SHOPIFY_API_KEY is not set; it is the app's client id, in the app's settings.")
        if len(token) > ID_TOKEN_CHARS_MAX or ID_TOKEN.fullmatch(token) is None:
            raise NotAuthentic("The ID token has not the form of one.")
        headers = {"authorization": f"Bearer {token}"}
        request = RequestInput(method="GET", headers=headers, url="/", body="")
        verdict = _ask(
            self._app.verify_admin_ui_ext_req,
            request,
            "The ID token is expired, not good yet, for another app or not signed with its secret. Open the app again.",
        )
        claims = {} if verdict.id_token is None else verdict.id_token.claims
        return _read_claims(claims, token)


def _read_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that are relied on, by their names in lower case; each given once, in the form it must have."""
    given: dict[str, str] = {}
    for name, value in headers.items():
        known = name.lower()
        pattern = HEADERS_READ.get(known)
        if pattern is None:
            continue
        if known in given:
            raise NotAuthentic(f"The header {known} is given more than once.")
        if pattern.fullmatch(value) is None:
            raise NotAuthentic(f"The header {known} has a value that it cannot have.")
        given[known] = value
    return given


def _required(given: Mapping[str, str], name: str) -> str:
    if name not in given:
        raise NotAuthentic(f"The header {name} is missing.")
    return given[name]


def _verify_body(verify: Callable[[RequestInput], ResultForReq], given: Mapping[str, str], body: bytes) -> None:
    signature = _required(given, HMAC)
    try:
        # The package signs text that it turns into UTF-8 again: the same bytes, for only strict UTF-8 gets through.
        text = body.decode()
    except UnicodeDecodeError:
        raise NotAuthentic("The body is not UTF-8, as everything that Shopify sends is.") from None
    request = RequestInput(method="POST", headers={HMAC: signature}, url="", body=text)
    _ask(verify, request, "The body is not signed with this app's secret (SHOPIFY_API_SECRET).")


def _ask(verify: Callable[[RequestInput], V], request: RequestInput, otherwise: str) -> V:
    try:
        verdict = verify(request)
    except Exception as error:
        # Strangers choose the input, and the package lets through whatever its parsers raise.
        raise NotAuthentic(otherwise) from error
    if verdict.ok is not True:
        raise NotAuthentic(otherwise)
    return verdict


def _read_claims(claims: Mapping[str, Any], token: str) -> IdToken:
    """What a signed token says, if it says all that it has to."""
    destination, issuer, user = claims.get("dest"), claims.get("iss"), claims.get("sub")
    shop = destination.removeprefix("https://") if isinstance(destination, str) else ""
    if destination != f"https://{shop}" or SHOP_DOMAIN.fullmatch(shop) is None:
        raise NotAuthentic("The ID token's dest is not the address of a shop.")
    if issuer != f"https://{shop}/admin":
        raise NotAuthentic("The ID token's iss is not the admin of the shop in its dest.")
    if not isinstance(user, str) or USER_ID.fullmatch(user) is None:
        raise NotAuthentic("The ID token's sub is not the id of a member of staff.")
    # The package has compared both with the clock already, where they are there.
    expires, issued = _time_claim(claims, "exp"), _time_claim(claims, "iat")
    if time.time() - issued > ID_TOKEN_AGE_MAX_S + CLOCK_LEEWAY_S:
        raise NotAuthentic(f"The ID token is more than {ID_TOKEN_AGE_MAX_S} s old. Open the app again.")
    good_until = min(expires, issued + ID_TOKEN_AGE_MAX_S)
    return IdToken(shop, int(user), datetime.fromtimestamp(good_until, UTC), token)


def _time_claim(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= TIME_CLAIM_MAX:
        raise NotAuthentic(f"The ID token has no {name} that is a time.")
    return float(value)
