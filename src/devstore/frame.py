"""The app inside the shop's admin: its page with the frame, App Bridge's counterpart there, and the install page.

The real admin opens an embedded app in a frame, at the app's address with a signed query, and App Bridge, a script
the app loads from cdn.shopify.com, asks the admin around it for ID tokens. `app_bridge.js` stands in for that script.
"""

import base64
import json
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import cast
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from devstore import html
from devstore.app import ACCESS_SCOPES
from devstore.installing import install, uninstall
from devstore.shops import Shop
from devstore.signing import frame_signature, id_token_claims, sign_id_token
from devstore.web import World

STAFF_USER = 1
APP_BRIDGE_PATH = "/_devstore/app-bridge.js"

_APP_BRIDGE = Path(__file__).with_name("app_bridge.js")
_LOCALE = "en"
_FRAME = Markup("""<style>
body {{ display: flex; flex-direction: column; min-height: 100vh; }}
main {{ display: flex; flex: 1; width: 100%; flex-direction: column; }}
.app {{ display: flex; gap: 1rem; align-items: center; padding: .5rem 1.5rem; background: #fff; }}
.app nav {{ display: flex; gap: 1rem; flex: 1; }}
.app form {{ margin: 0; }}
iframe {{ flex: 1; border: 0; width: 100%; min-height: 30rem; }}
</style>
<div class="app"><strong>{title}</strong><nav id="app-nav" aria-label="{title}"></nav></div>
<iframe name="app" title="{title}" src="{source}" data-tokens="{tokens}"></iframe>
<script>{script}</script>""")
# The frame's end of App Bridge. Only the app's own origin is answered: a token is for nobody else.
_SCRIPT = Markup("""
(() => {
  const frame = document.querySelector("iframe[name=app]");
  const origin = new URL(frame.src).origin;
  const answer = (message) => frame.contentWindow.postMessage(message, origin);
  const navigation = (links) => document.getElementById("app-nav").replaceChildren(...links.map(({href, label}) => {
    const link = document.createElement("a");
    link.href = href;
    link.target = "app";
    link.textContent = label;
    return link;
  }));
  addEventListener("message", async (event) => {
    if (event.origin !== origin || event.source !== frame.contentWindow || !event.data) return;
    if (event.data.devstore === "id-token") {
      const response = await fetch(frame.dataset.tokens, {method: "POST"});
      answer({devstore: "id-token", number: event.data.number, token: (await response.json()).idToken});
    } else if (event.data.devstore === "navigation") {
      navigation(event.data.links.filter(({href}) => new URL(href).origin === origin));
    }
  });
})();
""")


def app_path(shop: Shop) -> str:
    """Where the app is in a shop's admin."""
    return f"/{shop.domain}/admin/apps/{shop.app.handle}"


def id_token(shop: Shop) -> str:
    """An ID token for the shop's staff, as App Bridge gets it."""
    claims = id_token_claims(shop.domain, shop.app.client_id, STAFF_USER, shop.now_s())
    return sign_id_token(claims, shop.app.client_secret)


def frame_address(shop: Shop, home: str, rest: str = "") -> str:
    """Where the frame is opened: a page of the app, with the query that Shopify adds and signs."""
    store = f"admin.shopify.com/store/{shop.name}"
    query = {
        "embedded": "1",
        "host": base64.b64encode(store.encode()).decode().rstrip("="),
        "id_token": id_token(shop),
        "locale": _LOCALE,
        "session": f"devstore-{shop.number}",
        "shop": shop.domain,
        "timestamp": str(shop.now_s()),
    }
    query["hmac"] = frame_signature(shop.app.client_secret, query.items())
    page = f"{home.rstrip('/')}/{rest}" if rest else home
    return f"{page}?{urlencode(sorted(query.items()))}"


class Frame:
    """The pages around the app, each a method that takes the request and gives its response."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def home(self, request: Request) -> Response:
        """The admin's first page: what the shop is, and whether it has the app."""
        shop = self._world.shop_of(request)
        if shop is None:
            return Response("Not Found", HTTPStatus.NOT_FOUND)
        shop_facts = html.facts([("Domain", shop.domain), ("Customers", shop.count_customers())])
        shopfront = html.link(f"/{shop.domain}", "Open the storefront")
        title, installation = shop.app.title, shop.installation
        if installation.is_installed:
            about = html.facts([("Scopes", ", ".join(installation.scopes))])
            button = html.form(f"{app_path(shop)}/uninstall", f"Uninstall {title}", style="danger")
            the_app = html.section(title, about, html.link(app_path(shop), f"Open {title}"), button)
        else:
            the_app = html.section(title, html.link(app_path(shop), f"Install {title}"))
        return html.page("Home", shop.domain, html.section(shop.name, shop_facts, shopfront) + the_app)

    async def apps(self, request: Request) -> Response:
        """The way to the app for whoever does not know its handle."""
        shop = self._world.shop_of(request)
        if shop is None:
            return Response("Not Found", HTTPStatus.NOT_FOUND)
        return RedirectResponse(app_path(shop), HTTPStatus.SEE_OTHER)

    async def app(self, request: Request) -> Response:
        """The app in its frame, or the page that asks whether to install it."""
        shop = self._shop(request)
        if shop is None:
            return Response("Not Found", HTTPStatus.NOT_FOUND)
        title, home = shop.app.title, shop.app.address(shop.app.home)
        if home is None:
            text = Markup("The app has no address yet: start devstore with <code>--app-url</code>.")
            return html.page(title, shop.domain, html.section(title, text))
        if not shop.installation.is_installed:
            return html.page(f"Install {title}", shop.domain, _install_page(shop))
        source = frame_address(shop, home, cast("str", request.path_params.get("rest", "")))
        # `Markup.format` would escape the script's quotes were it not marked; the rest it does escape.
        body = _FRAME.format(title=title, source=source, tokens=f"{app_path(shop)}/id-token", script=_SCRIPT)
        response = html.page(title, shop.domain, body, wide=True)
        # The frame's address holds a token.
        response.headers["Cache-Control"] = "no-store"
        return response

    async def tokens(self, request: Request) -> Response:
        """A new ID token, for the frame."""
        shop = self._shop(request)
        if shop is None or not shop.installation.is_installed:
            return Response("Not Found", HTTPStatus.NOT_FOUND)
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            return Response("Forbidden", HTTPStatus.FORBIDDEN)
        return Response(json.dumps({"idToken": id_token(shop)}), media_type="application/json")

    async def install(self, request: Request) -> Response:
        """Install the app with the scopes it asks for, and open it."""
        return self._change(request, install)

    async def uninstall(self, request: Request) -> Response:
        """Uninstall it, and offer to install it again."""
        return self._change(request, uninstall)

    async def app_bridge(self, _request: Request) -> Response:
        """The stand-in for App Bridge."""
        return Response(_APP_BRIDGE.read_text(encoding="utf-8"), media_type="text/javascript")

    def _change(self, request: Request, change: Callable[[Shop], None]) -> Response:
        shop = self._shop(request)
        if shop is None:
            return Response("Not Found", HTTPStatus.NOT_FOUND)
        change(shop)
        return RedirectResponse(app_path(shop), HTTPStatus.SEE_OTHER)

    def _shop(self, request: Request) -> Shop | None:
        shop = self._world.shop_of(request)
        return shop if shop and request.path_params["handle"] == shop.app.handle else None


def _install_page(shop: Shop) -> Markup:
    rows = [(scope, ACCESS_SCOPES.get(scope, "")) for scope in shop.app.scopes]
    button = html.form(f"{app_path(shop)}/install", "Install app")
    return html.section(f"Install {shop.app.title}", html.table("What it asks for", ("Scope", "Meaning"), rows), button)


def frame_routes(world: World) -> list[Route]:
    """Every route of the frame."""
    frame = Frame(world)
    app = "/{shop}/admin/apps/{handle}"
    return [
        Route("/{shop}/admin", frame.home, methods=["GET"]),
        Route("/{shop}/admin/apps", frame.apps, methods=["GET"]),
        Route(APP_BRIDGE_PATH, frame.app_bridge, methods=["GET"]),
        Route(f"{app}/install", frame.install, methods=["POST"]),
        Route(f"{app}/uninstall", frame.uninstall, methods=["POST"]),
        Route(f"{app}/id-token", frame.tokens, methods=["POST"]),
        Route(app, frame.app, methods=["GET"]),
        Route(f"{app}/{{rest:path}}", frame.app, methods=["GET"]),
    ]
