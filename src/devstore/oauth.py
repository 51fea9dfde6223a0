"""OAuth: `POST …/admin/oauth/access_token`, the three ways an app gets an access token for a shop.

* Token exchange: an ID token for an offline access token. With `expiring=1` that lasts an hour and comes with a
  refresh token, else it lasts until the app is uninstalled.
* `refresh_token`: a refresh token for a new pair, see `Installation.refresh`.
* `client_credentials`: nothing but the app's own credentials, for shops of the same organization.

A refusal is an HTML page, unless the request says that it accepts JSON (reported of the real endpoint).
"""

import json
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import cast
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from devstore.app import App
from devstore.installation import ACCESS_TOKEN_S, CLIENT_CREDENTIALS_S, Grant, InvalidGrantError
from devstore.shops import Shop, ShopState
from devstore.signing import id_token_trouble
from devstore.web import REFUSALS, World

PATH = "/admin/oauth/access_token"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105  # a name
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105  # a name
OFFLINE_TOKEN = "urn:shopify:params:oauth:token-type:offline-access-token"  # noqa: S105  # a name

Parameters = Mapping[str, str]


class RefusedError(Exception):
    """The endpoint gives no token: OAuth's `error`, and in words why."""

    def __init__(self, error: str, description: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.status = status


class TokenEndpoint:
    """Answers `POST …/admin/oauth/access_token`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def serve(self, request: Request) -> Response:
        """Serve one request; a form or JSON."""
        shop = self._world.shop_of(request)
        if shop is None:
            return Response("Not Found", HTTPStatus.NOT_FOUND)
        if shop.state is not ShopState.ACTIVE:
            status, message = REFUSALS[shop.state]
            return _json({"errors": message}, status)
        try:
            given = give(shop, await _parameters(request))
        except RefusedError as refused:
            return _refusal(refused, request)
        return _json(given, HTTPStatus.OK)


def give(shop: Shop, parameters: Parameters) -> dict[str, object]:
    """What the endpoint answers to a request that it grants. Raises RefusedError."""
    _check_client(shop.app, parameters)
    match parameters.get("grant_type"):
        case "client_credentials":
            return _client_credentials(shop)
        case "refresh_token":
            return _refresh(shop, parameters)
        case kind if kind == TOKEN_EXCHANGE:
            return _exchange(shop, parameters)
        case kind:
            raise RefusedError("unsupported_grant_type", f"The grant type {kind} is not supported")


def _check_client(app: App, parameters: Parameters) -> None:
    secret = parameters.get("client_secret", "")
    known = any(secrets.compare_digest(secret.encode(), one.encode()) for one in app.accepted_secrets)
    if parameters.get("client_id") != app.client_id or not known:
        raise RefusedError("invalid_client", "Client authentication failed", HTTPStatus.UNAUTHORIZED)


def _client_credentials(shop: Shop) -> dict[str, object]:
    if not shop.app.same_organization:
        raise RefusedError("shop_not_permitted", "Client credentials cannot be performed on this shop.")
    _check_installed(shop)
    grant = shop.installation.issue(CLIENT_CREDENTIALS_S)
    return {**_shown(shop, grant), "expires_in": CLIENT_CREDENTIALS_S}


def _refresh(shop: Shop, parameters: Parameters) -> dict[str, object]:
    _check_installed(shop)
    try:
        grant = shop.installation.refresh(parameters.get("refresh_token", ""))
    except InvalidGrantError as error:
        raise RefusedError("invalid_grant", "Token has been expired or revoked.") from error
    return _with_refresh(shop, grant)


def _exchange(shop: Shop, parameters: Parameters) -> dict[str, object]:
    app = shop.app
    if parameters.get("subject_token_type") != ID_TOKEN:
        raise RefusedError("invalid_request", f"subject_token_type must be {ID_TOKEN}")
    if parameters.get("requested_token_type") != OFFLINE_TOKEN:
        raise RefusedError("invalid_request", "The devstore gives offline access tokens only")
    token = parameters.get("subject_token", "")
    trouble = id_token_trouble(token, shop.domain, app.client_id, app.accepted_secrets, shop.now_s())
    if trouble is not None:
        raise RefusedError("invalid_subject_token", trouble)
    _check_installed(shop)
    if parameters.get("expiring") in {"1", "true"}:
        return _with_refresh(shop, shop.installation.issue(ACCESS_TOKEN_S, refreshable=True))
    return _shown(shop, shop.installation.issue(None))


def _check_installed(shop: Shop) -> None:
    # Shopify's own package takes this error to mean just that.
    if not shop.installation.is_installed:
        raise RefusedError("invalid_client", "The app is not installed on this shop", HTTPStatus.UNAUTHORIZED)


def _shown(shop: Shop, grant: Grant) -> dict[str, object]:
    return {"access_token": grant.access_token, "scope": ",".join(shop.installation.scopes)}


def _with_refresh(shop: Shop, grant: Grant) -> dict[str, object]:
    now_s = shop.now_s()
    return {
        **_shown(shop, grant),
        "expires_in": cast("int", grant.expires_s) - now_s,
        "refresh_token": grant.refresh_token,
        "refresh_token_expires_in": cast("int", grant.refresh_expires_s) - now_s,
    }


async def _parameters(request: Request) -> dict[str, str]:
    if request.headers.get("Content-Type", "").startswith("application/json"):
        try:
            read = cast("object", json.loads(await request.body()))
        except ValueError as error:
            raise RefusedError("invalid_request", "The body is no JSON") from error
        if not isinstance(read, dict):
            raise RefusedError("invalid_request", "The body is no JSON object")
        return {name: str(value) for name, value in cast("dict[str, object]", read).items()}
    return dict(parse_qsl((await request.body()).decode(errors="replace"), keep_blank_values=True))


def _json(body: Mapping[str, object], status: int) -> Response:
    headers = {"Cache-Control": "no-cache, no-store, private, must-revalidate, max-age=0"}
    return Response(json.dumps(body, separators=(",", ":")), status, headers, media_type="application/json")


def _refusal(refused: RefusedError, request: Request) -> Response:
    if "application/json" in request.headers.get("Accept", ""):
        return _json({"error": refused.error, "error_description": refused.description}, refused.status)
    page = f"<!doctype html><title>Oauth error {refused.error}: {refused.description}</title>"
    return Response(page, refused.status, media_type="text/html")


def oauth_routes(world: World) -> list[Route]:
    """The endpoint, by path and by Host."""
    endpoint = TokenEndpoint(world)
    return [Route(path, endpoint.serve, methods=["POST"]) for path in (PATH, f"/{{shop}}{PATH}")]
