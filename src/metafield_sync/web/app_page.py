"""What the embedded page says of a shop, read from the database and put into words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from metafield_sync.shopify.app.home import APP_BRIDGE, HOME_PATH
from metafield_sync.shops import registry
from metafield_sync.sync.install.scopes import missing_scopes
from metafield_sync.sync.install.steps import describe_values
from metafield_sync.sync.install.store import find_installation
from metafield_sync.sync.standing import shop_standing

if TYPE_CHECKING:
    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.shops.registry import Shop
    from metafield_sync.sync.install.store import Installation

RELOAD_S = 3
"""How soon the page looks again while the shop is being installed."""
CHOICE_PATH = "/app/choice"

NOT_GOOD_HERE = "What Shopify opened it with is not good for this app. Open it again in the Shopify admin."
ASK_WHOEVER_RUNS_IT = "If that does not help, whoever runs the app should look at its settings and its log."

_TEMPLATES = Environment(loader=PackageLoader("metafield_sync.web"), autoescape=True, undefined=StrictUndefined)


@dataclass(frozen=True, slots=True)
class ShopState:
    """One shop as its page shows it. `points`: outstanding, all customers' balances together."""

    shop: Shop
    installation: Installation | None
    customers: int
    waiting: int
    points: int


async def read_state(db: Database, shop_id: ShopId) -> ShopState:
    """Read it all, in one transaction."""
    async with db.shop(shop_id) as conn, conn.cursor() as cur:
        shop = await registry.get_shop(conn, shop_id)
        installation = await find_installation(conn, shop_id)
        standing = await shop_standing(conn, shop_id)
        await cur.execute(POINTS_OUTSTANDING, {"shop": shop_id})
        row = await cur.fetchone()
    waiting = sum(standing[name] for name in ("waiting", "failing", "in_doubt"))
    return ShopState(shop, installation, standing["customers"], waiting, int(row[0]) if row else 0)


POINTS_OUTSTANDING = "select coalesce(sum(current_balance), 0) from customers where shop_id = %(shop)s"


def render_state(state: ShopState, *, client_id: str | None, ticket: str, query: str, page: str) -> str:
    """The page of an installed shop.

    Args:
        state: what to show.
        client_id: the app's, for App Bridge.
        ticket: goes with a form, if there is a choice to make.
        query: of the page, without its ID token: to look again.
        page: that query, to come back to after the form.
    """
    shop = state.shop
    asks = _asks(state)
    return _render(
        client_id=client_id,
        heading=_heading(state),
        lines=_lines(state),
        trouble=shop.paused_detail if shop.status == "paused" and shop.paused_code != shop.hold else None,
        ticket=ticket if asks else None,
        page=page,
        reload=f"{HOME_PATH}?{query}" if shop.hold is not None and not asks else None,
        facts=[
            ("Shop", shop.domain),
            ("Customers", f"{state.customers:,}"),
            ("Points outstanding", f"{state.points:,}"),
            ("Changes waiting to be shown", f"{state.waiting:,}"),
        ],
        missing=missing_scopes(shop.granted_scopes),
    )


def render_plain(heading: str, *lines: str, trouble: str | None = None) -> str:
    """A page that is about no shop."""
    return _render(heading=heading, lines=lines, trouble=trouble)


def render_refused(fetch_at: str | None) -> str:
    """A page whose ID token is no good; in the admin's frame it goes at once to where another is fetched."""
    return _render(
        heading="This page has lapsed" if fetch_at else "The app cannot be opened",
        lines=["One moment: it is opened again."] if fetch_at else [NOT_GOOD_HERE, ASK_WHOEVER_RUNS_IT],
        reload=fetch_at,
        reload_s=0,
    )


def _render(**values: Any) -> str:
    defaults: dict[str, Any] = {
        "client_id": None,
        "app_bridge": APP_BRIDGE,
        "action": CHOICE_PATH,
        "ticket": None,
        "page": "",
        "reload": None,
        "reload_s": RELOAD_S,
        "trouble": None,
        "facts": (),
        "missing": (),
    }
    return _TEMPLATES.get_template("app.html").render(defaults | values)


def _asks(state: ShopState) -> bool:
    """Whether a choice is open: it was not made, or not yet by the time the page was asked for."""
    installation = state.installation
    return state.shop.hold == "values_found" and installation is not None and installation.choice is None


def _heading(state: ShopState) -> str:
    shop = state.shop
    if _asks(state):
        return "Your customers show points already"
    if shop.hold is not None:
        return "Setting up"
    if shop.status == "paused":
        return "Paused"
    return "Access is missing" if _lacks_what_it_needs(shop) else "Every balance is kept in step"


def _lacks_what_it_needs(shop: Shop) -> bool:
    return any(scope.is_required for scope in missing_scopes(shop.granted_scopes))


def _lines(state: ShopState) -> list[str]:
    shop, installation = state.shop, state.installation
    if shop.hold == "installing":
        read = 0 if installation is None else max(installation.objects, installation.customers)
        return [
            "Shopify is reading out your customers and what they show now.",
            "Points are recorded meanwhile, and shown when it is done.",
            f"{max(read, state.customers):,} read so far.",
        ]
    if shop.hold == "values_found" and not _asks(state):
        return ["Your choice is being carried out: this page shows when it is done."]
    if shop.hold == "values_found" and installation is not None:
        return [
            f"An earlier app has left points: {describe_values(installation)}.",
            "Take them over, and each customer without entries here begins with what they show.",
            "Or replace them, and they show what is recorded here. Nothing is changed in the shop until you choose.",
        ]
    lines = [installation.warning] if installation is not None and installation.warning else []
    if shop.status == "paused":
        return [*lines, "Points are recorded as ever; customers are shown them when the reason is gone."]
    if _lacks_what_it_needs(shop):
        return [*lines, "Points are recorded, and customers are not shown them until the app has the access it lacks."]
    return [*lines, "Customers see their points in the store, at checkout and in their account within seconds."]
