"""The shop as its shoppers see it: a page that shows their points, a login, and the app proxy in front of the app.

`/{shop}/apps/points/balance` is answered by the app: the shop forwards the request with its query signed, and passes
the answer on. Cookies go in neither direction. An answer of type application/liquid becomes a page of the theme; there
is no Liquid engine here, so its tags stay as they are.

A shopper is logged in by cookie, or for one request by `?customer=7`, which is no part of what is forwarded.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import cast
from urllib.parse import parse_qsl, urlencode

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from devstore.courier import Outcome
from devstore.shops import Shop
from devstore.signing import proxy_signature
from devstore.web import World

# The only prefixes Shopify offers.
PROXY_PREFIXES = ("a", "apps", "community", "tools")
PROXY_ANSWER_S = 10.0
CUSTOMER_COOKIE = "devstore_customer"

_CUSTOMER = "customer"
# What the shop says itself; whoever sends it from outside is not believed.
_OWN_PARAMETERS = frozenset({"shop", "path_prefix", "timestamp", "logged_in_customer_id", "signature"})
_FORWARDED = ("Accept", "Accept-Language", "Content-Type", "User-Agent")
# Of the connection, not of the answer; and cookies.
_KEPT_BACK = frozenset(
    {"connection", "content-encoding", "content-length", "date", "server", "set-cookie", "transfer-encoding"}
)
_LIQUID = "application/liquid"
_NO_LAYOUT = "{% layout none %}"

_THEME = Markup("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<link rel="icon" href="data:,">
<style>
body {{ margin: 0 auto; max-width: 40rem; padding: 1.5rem; font: 16px/1.6 Georgia, serif; color: #222; }}
header {{ display: flex; gap: 1rem; align-items: baseline; border-bottom: 1px solid #ccc; margin-bottom: 1.5rem; }}
header a, header form {{ margin-left: auto; }}
</style>
</head>
<body>
<header><h1>{name}</h1>{account}</header>
<main>
{body}
</main>
</body>
</html>
""")
_LOG_IN = Markup('<a href="/{0}/account/login">Log in</a>')
_LOG_OUT = Markup('<form method="post" action="/{0}/account/logout">{1} <button>Log out</button></form>')
_LOGIN = Markup("""<form method="post" action="/{0}/account/login">
<label>Customer number <input name="customer" inputmode="numeric" pattern="[0-9]+" required></label>
<button>Log in</button></form>{1}""")
_POINTS = Markup("""<p id="points" role="status">Your points are being counted …</p>
<script>
(async () => {{
  const points = document.getElementById("points");
  try {{
    const response = await fetch("{0}", {{headers: {{Accept: "application/json"}}}});
    if (!response.ok) throw new Error(response.status);
    points.textContent = `You have ${{(await response.json()).balance}} points`;
  }} catch (error) {{
    points.textContent = "Your points cannot be shown right now";
  }}
}})();
</script>""")


class Storefront:
    """A shop's pages for shoppers, each a method that takes the request and gives its response."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def home(self, request: Request) -> Response:
        """The front page: the shopper's points, fetched through the app proxy."""
        shop = self._world.shop_of(request)
        if shop is None:
            return _not_found()
        customer = _shopper(shop, request)
        address = f"/{shop.domain}/{shop.app.proxy_prefix}/{shop.app.proxy_subpath}/balance"
        logged_out = Markup("<p>Log in to see your points.</p>")
        return HTMLResponse(_theme(shop, customer, _POINTS.format(address) if customer else logged_out))

    async def login(self, request: Request) -> Response:
        """The login: whoever knows a customer's number is that customer."""
        shop = self._world.shop_of(request)
        if shop is None:
            return _not_found()
        if request.method == "GET":
            return HTMLResponse(_theme(shop, None, _LOGIN.format(shop.domain, "")))
        given = dict(parse_qsl((await request.body()).decode(errors="replace"))).get(_CUSTOMER, "")
        customer = _known(shop, given)
        if customer is None:
            sorry = Markup('<p role="alert">There is no customer {}.</p>').format(given)
            return HTMLResponse(_theme(shop, None, _LOGIN.format(shop.domain, sorry)), HTTPStatus.UNPROCESSABLE_ENTITY)
        response = RedirectResponse(f"/{shop.domain}", HTTPStatus.SEE_OTHER)
        path = f"/{shop.domain}"
        response.set_cookie(CUSTOMER_COOKIE, str(customer), path=path, httponly=True, samesite="lax")
        return response

    async def logout(self, request: Request) -> Response:
        """The end of a login."""
        shop = self._world.shop_of(request)
        if shop is None:
            return _not_found()
        response = RedirectResponse(f"/{shop.domain}", HTTPStatus.SEE_OTHER)
        response.delete_cookie(CUSTOMER_COOKIE, path=f"/{shop.domain}")
        return response

    async def proxy(self, request: Request) -> Response:
        """The app proxy: the app's answer to a request at the shop's own address."""
        shop = self._world.shop_of(request)
        if shop is None or not shop.installation.is_installed:
            return _not_found()
        app, params = shop.app, cast("dict[str, str]", request.path_params)
        prefix = request.url.path.removeprefix(f"/{shop.domain}/").partition("/")[0]
        address = app.address(app.proxy_path)
        if (prefix, params["subpath"]) != (app.proxy_prefix, app.proxy_subpath) or address is None:
            return _not_found()
        customer, path = _shopper(shop, request), params.get("path", "")
        query = signed_query(shop, request.query_params.multi_items(), customer)
        url = f"{address}/{path}" if path else address
        headers = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
        outcome = await shop.courier.carry(
            request.method,
            f"{url}?{urlencode(query)}",
            headers={**headers, "X-Forwarded-Host": shop.domain},
            body=await request.body(),
            total_s=PROXY_ANSWER_S,
        )
        return _passed_on(shop, customer, outcome)


def signed_query(shop: Shop, given: Sequence[tuple[str, str]], customer: int | None) -> list[tuple[str, str]]:
    """What the app is asked: the shopper's own parameters, the shop's beside them, and the signature over both."""
    app = shop.app
    query = [(name, value) for name, value in given if name not in _OWN_PARAMETERS and name != _CUSTOMER]
    query += [
        ("shop", shop.domain),
        ("logged_in_customer_id", "" if customer is None else str(customer)),
        ("path_prefix", f"/{app.proxy_prefix}/{app.proxy_subpath}"),
        ("timestamp", str(shop.now_s())),
    ]
    return [*query, ("signature", proxy_signature(app.client_secret, query))]


def _passed_on(shop: Shop, customer: int | None, outcome: Outcome) -> Response:
    if outcome.status is None:
        text = Markup("<p>There was an error in the third-party application.</p><!-- {} -->").format(outcome.error)
        return HTMLResponse(_theme(shop, customer, text), HTTPStatus.BAD_GATEWAY)
    headers = {name: value for name, value in outcome.headers.items() if name.lower() not in _KEPT_BACK}
    body = outcome.body
    if outcome.headers.get("Content-Type", "").startswith(_LIQUID):
        headers["content-type"] = "text/html; charset=utf-8"
        text = body.decode(errors="replace")
        # The app's own HTML: a page of the theme around it, as it is.
        bare = text.lstrip().startswith(_NO_LAYOUT)
        body = (text.replace(_NO_LAYOUT, "", 1) if bare else _theme(shop, customer, Markup(text))).encode()  # noqa: S704
    return Response(body, outcome.status, headers)


def _theme(shop: Shop, customer: int | None, body: Markup) -> str:
    account = _LOG_IN.format(shop.domain)
    if customer is not None:
        account = _LOG_OUT.format(shop.domain, shop.customers.details(customer).display_name(customer))
    return str(_THEME.format(name=shop.name, account=account, body=body))


def _shopper(shop: Shop, request: Request) -> int | None:
    return _known(shop, request.query_params.get(_CUSTOMER) or request.cookies.get(CUSTOMER_COOKIE, ""))


def _known(shop: Shop, text: str) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) < len(str(2**63))
    return int(text) if is_number and shop.customers.exists(int(text)) else None


def _not_found() -> Response:
    return Response("Not Found", HTTPStatus.NOT_FOUND)


def storefront_routes(world: World) -> list[Route]:
    """Every route of the storefront."""
    front = Storefront(world)
    proxies = [
        Route(f"/{{shop}}/{prefix}/{{subpath}}{rest}", front.proxy, methods=["GET", "POST"])
        for prefix in PROXY_PREFIXES
        for rest in ("", "/{path:path}")
    ]
    return [
        Route("/{shop}", front.home, methods=["GET"]),
        Route("/{shop}/account/login", front.login, methods=["GET", "POST"]),
        Route("/{shop}/account/logout", front.logout, methods=["POST"]),
        *proxies,
    ]
