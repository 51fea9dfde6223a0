"""The embedded page: what a shop's staff see when they open the app in the Shopify admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qs, parse_qsl, urlencode

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from metafield_sync.shopify.app import NotAuthentic
from metafield_sync.shopify.app.home import HOME_PATH, NOT_FRAMED, PATCH_PATH, HomeAnswer, HomeOpened, HomeRefused
from metafield_sync.shopify.app.tickets import FormLapsed, Ticket
from metafield_sync.shopify.app.tokens import TokenRefused
from metafield_sync.shopify.failures import ShopifyError
from metafield_sync.shops import registry
from metafield_sync.shops.registry import ShopNotFound
from metafield_sync.shops.tokens import find_token
from metafield_sync.shops.vault import TokenUnreadable
from metafield_sync.sync.errands import note_errand
from metafield_sync.sync.install.begin import NothingToChoose, choose, install
from metafield_sync.sync.install.scopes import missing_scopes
from metafield_sync.sync.install.steps import DEFINITION_ERRAND, SCOPES_ERRAND
from metafield_sync.sync.tokens import REFRESH_REFUSED
from metafield_sync.web.app_page import CHOICE_PATH, read_state, render_plain, render_refused, render_state
from metafield_sync.web.edge import Parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metafield_sync.runtime import AppParts, Runtime
    from metafield_sync.shopify.app import IdToken
    from metafield_sync.shops.registry import Shop
    from metafield_sync.shops.tokens import StoredToken
    from metafield_sync.sync.install.store import Choice

router = APIRouter()

NO_STORE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
"""The page's address holds an ID token."""
TOKEN_TROUBLE = frozenset(
    {"access_token_refused", "access_token_lapsed", "no_access_token", "app_not_configured", REFRESH_REFUSED}
)
"""Reasons for a pause that a new token takes away."""
QUERY_KEPT = frozenset({"shop", "host", "embedded", "locale"})
FIELDS_MAX = 10

HINT_SETTINGS = "if staff cannot open the app, SHOPIFY_API_KEY or SHOPIFY_API_SECRET is another app's"

SETTINGS_MISSING = (
    "A setting of the app's is missing or wrong; its log says which. Whoever runs it has to put it right."
)

log = structlog.get_logger()


@router.get(HOME_PATH)
async def home(request: Request, parts: Parts) -> Response:
    """The page. The first time it installs the shop; after that it asks nothing of Shopify before it is shown."""
    app, query = parts.app, request.url.query
    if app is None or not app.home.is_embedded(query):
        return _plain(200, "Open this app from the Shopify admin", "It shows there, under Apps, how your points stand.")
    opened = app.home.open(query)
    match opened:
        case HomeAnswer():
            return _as_it_is(opened)
        case HomeRefused():
            return _refused(opened)
        case HomeOpened():
            return await _open(parts, app, opened, query)


async def _open(parts: Runtime, app: AppParts, opened: HomeOpened, query: str) -> Response:
    try:
        staff = _staff(app, opened, query)
        shop = await _shop_with_token(parts, app, staff)
    except NotAuthentic as error:
        return _plain(error.status, "This did not come from Shopify", trouble=error.detail)
    except TokenRefused as error:
        if error.reason == "invalid_subject_token":
            return _refused(opened.refused)
        return _plain(error.status, "The app could not be set up", trouble=error.detail, headers=opened.headers)
    except TokenUnreadable as error:
        log.error("the app cannot be installed", detail=error.detail)  # noqa: TRY400 - a setting, not a bug
        return _plain(error.status, "The app is not set up yet", trouble=SETTINGS_MISSING, headers=opened.headers)
    except ShopifyError as error:
        return _plain(error.status, "Shopify does not answer", trouble=error.detail, headers=opened.headers)
    return await _shop_page(parts, app, shop, Ticket(staff.shop_domain, staff.user_id), query, opened.headers)


def _staff(app: AppParts, opened: HomeOpened, query: str) -> IdToken:
    staff = app.verifier.id_token(opened.id_token)
    if set(parse_qs(query).get("shop", ())) != {staff.shop_domain}:
        raise NotAuthentic("The ID token is not for the shop in the address. Open the app again.")
    return staff


@router.get(PATCH_PATH)
async def fetch_id_token(request: Request, parts: Parts) -> Response:
    """The page that has App Bridge fetch an ID token, and then opens the one that was wanted."""
    if parts.app is None or not parts.app.home.is_embedded(request.url.query):
        return _plain(404, "There is nothing here")
    return _as_it_is(parts.app.home.patch_page(request.url.query))


@router.post(CHOICE_PATH)
async def make_choice(request: Request, parts: Parts) -> Response:
    """What becomes of the points that an earlier app has left, chosen in the page."""
    app = parts.app
    if app is None:
        return _plain(404, "There is nothing here")
    try:
        fields = dict(parse_qsl((await request.body()).decode(), max_num_fields=FIELDS_MAX))
        choice = _choice(fields)
        ticket = app.forms.open(fields.get("ticket", ""))
        shop = await _installed(parts, ticket.shop_domain)
        await _choose(parts, shop, choice)
    except (FormLapsed, ShopNotFound) as error:
        return _plain(error.status, "This page has lapsed", trouble=error.detail)
    except ValueError:
        return _plain(400, "This form cannot be read")
    shop = await _installed(parts, ticket.shop_domain)
    return await _shop_page(parts, app, shop, ticket, fields.get("page", ""), app.home.frame_headers(shop.domain))


def _choice(fields: Mapping[str, str]) -> Choice:
    choice = fields.get("choice")
    if choice not in {"adopt", "overwrite"}:
        raise ValueError("no choice")
    return cast("Choice", choice)


async def _choose(parts: Runtime, shop: Shop, choice: Choice) -> None:
    try:
        await choose(parts.db, shop.id, choice)
    except NothingToChoose as error:
        # Pressed twice, or by two: the page says how things stand.
        log.info("nothing to choose", shop=shop.domain, detail=error.detail)


async def _shop_with_token(parts: Runtime, app: AppParts, staff: IdToken) -> Shop:
    """The shop, installed by an exchange of the ID token if it has no token that works.

    Raises:
        TokenRefused, TokenUnreachable: Shopify gives none.
    """
    shop = await _find_shop(parts, staff.shop_domain)
    if shop is not None:
        async with parts.db.shop(shop.id) as conn:
            token = await find_token(conn, shop.id)
            if token is not None and not _needs_exchange(shop, token):
                # With each visit it is seen to that the definition is there; by whoever has time for it.
                lacks = shop.granted_scopes is None or missing_scopes(shop.granted_scopes)
                await note_errand(conn, shop.id, (SCOPES_ERRAND if lacks else DEFINITION_ERRAND).name)
                return shop
    pair = await app.tokens.exchange(staff)
    installed = await install(parts.db, parts.mirror.tokens, staff.shop_domain, pair, "exchanged", resume=False)
    return installed.shop


def _needs_exchange(shop: Shop, token: StoredToken) -> bool:
    if token.source is None or shop.paused_code in TOKEN_TROUBLE:
        return True
    if token.source != "exchanged":
        return False
    is_lapsed = token.valid_s is not None and token.valid_s <= 0
    cannot_renew = token.refresh_token is None or (token.refresh_valid_s is not None and token.refresh_valid_s <= 0)
    return token.access_token is None or (is_lapsed and cannot_renew)


async def _installed(parts: Runtime, domain: str) -> Shop:
    """The shop, if it is not removed; raises ShopNotFound."""
    async with parts.db.unscoped() as conn:
        (shop,) = await registry.list_shops(conn, domain)
    return shop


async def _find_shop(parts: Runtime, domain: str) -> Shop | None:
    try:
        return await _installed(parts, domain)
    except ShopNotFound:
        return None


async def _shop_page(
    parts: Runtime, app: AppParts, shop: Shop, ticket: Ticket, query: str, headers: Mapping[str, str]
) -> Response:
    state = await read_state(parts.db, shop.id)
    kept = urlencode([(name, value) for name, value in parse_qsl(query) if name in QUERY_KEPT])
    content = render_state(state, client_id=app.home.client_id, ticket=app.forms.seal(ticket), query=kept, page=kept)
    return HTMLResponse(content, headers={**headers, **NO_STORE})


def _as_it_is(answer: HomeAnswer) -> Response:
    return Response(answer.body, answer.status, headers={**answer.headers, **NO_STORE})


def _refused(refused: HomeRefused) -> Response:
    if refused.fetch_at is None:
        log.warning("the embedded page was opened with an ID token that is not good for this app", hint=HINT_SETTINGS)
    content = render_refused(refused.fetch_at)
    return HTMLResponse(content, 401, headers={**refused.headers, **NO_STORE})


def _plain(
    status: int, heading: str, *lines: str, trouble: str | None = None, headers: Mapping[str, str] = NOT_FRAMED
) -> Response:
    return HTMLResponse(render_plain(heading, *lines, trouble=trouble), status, headers={**headers, **NO_STORE})
