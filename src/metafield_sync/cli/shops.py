"""`shops`: added, listed, shown, chosen for, paused, resumed, removed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table

from metafield_sync.cli.installing import (
    ExistingOption,
    carry_out,
    chosen,
    installation_document,
    learn_scopes,
    look,
    see_through,
    tell_installation,
)
from metafield_sync.cli.output import hint, say, show_json, stdout, warn
from metafield_sync.cli.parts import DONE, SHOPS_GROUP, JsonOption, UsageWrong, one_shop, opened
from metafield_sync.shopify import OutcomeUnknown, ShopAccess, Throttled, Unreachable
from metafield_sync.shopify.app import AppNotConfigured
from metafield_sync.shopify.app.tokens import TokenPair
from metafield_sync.shops import registry
from metafield_sync.shops.tokens import find_token
from metafield_sync.sync.install.begin import choose, install
from metafield_sync.sync.install.scopes import missing_scopes
from metafield_sync.sync.standing import shop_standing

if TYPE_CHECKING:
    from metafield_sync.runtime import Runtime
    from metafield_sync.shopify import EnsuredDefinition
    from metafield_sync.shops.registry import Shop, TokenSource
    from metafield_sync.shops.tokens import StoredToken
    from metafield_sync.sync.install.store import Choice, Installation

app = App(name="shops", help="Add, list, pause, resume and remove shops.", help_format="plaintext", group=SHOPS_GROUP)

Domain = Annotated[str, Parameter(metavar="DOMAIN", help="The shop's permanent domain, name.myshopify.com.")]
NotYet = Unreachable | OutcomeUnknown | Throttled
NOT_YET = (Unreachable, OutcomeUnknown, Throttled)
"""Failures that say nothing against the token: the shop is added, and asked again with the first push."""


@app.command
async def add(
    domain: Domain,
    /,
    *,
    access_token: Annotated[
        str | None,
        Parameter(
            metavar="TOKEN",
            allow_leading_hyphen=True,
            help="The Admin API access token. - reads it from standard input, which keeps it out of the shell's "
            "history. Needs ENCRYPTION_KEYS.",
        ),
    ] = None,
    client_credentials: Annotated[
        bool,
        Parameter(
            negative=(),
            help="For a shop of your own organisation: ask for its tokens with SHOPIFY_API_KEY and SHOPIFY_API_SECRET.",
        ),
    ] = False,
    existing: ExistingOption = "ask",
    json: JsonOption = False,
) -> int:
    """Add a shop: check its token, make sure of the metafield definition, read its customers.

    Again with the same domain gives the shop a new token and sets it to work again. If Shopify refuses the token or
    the definition, nothing is stored; if it cannot be reached, the shop is added all the same, and a worker reads its
    customers later. If they show points of an earlier app, nothing is pushed until `shops adopt` or `shops overwrite`.
    """
    wanted = registry.check_domain(domain)
    if client_credentials and access_token is not None:
        raise UsageWrong("Give --access-token or --client-credentials, not both.")
    token = _read_token(wanted, access_token)
    async with opened() as runtime:
        if token is None and not client_credentials:
            async with runtime.db.unscoped() as conn:
                shop, is_new = await registry.add_shop(conn, wanted, None)
            _tell_added(runtime, _Added(shop, is_new), json=json)
            return DONE
        added = await _install(runtime, wanted, token, chosen(existing))
    _tell_added(runtime, added, json=json)
    return DONE


@dataclass(frozen=True, slots=True)
class _Added:
    """What adding a shop came to. `trouble`: why its customers are not read yet."""

    shop: Shop
    is_new: bool
    ensured: EnsuredDefinition | NotYet | None = None
    installation: Installation | None = None
    trouble: str | None = None


async def _install(runtime: Runtime, domain: str, token: str | None, choice: Choice | None) -> _Added:
    """Check the token, ensure the definition, store the token, and read the shop's customers if that is to be done."""
    ensured: EnsuredDefinition | NotYet
    pair: TokenPair | None = None if token is None else TokenPair(token)
    source: TokenSource = "client_credentials" if token is None else "given"
    # Nothing is asked of Shopify, let alone written there, for a token that cannot be stored.
    runtime.vault.seal(token or domain)
    try:
        pair = pair or await _client_credentials(runtime, domain)
        ensured = await runtime.mirror.check_shop(domain, pair.access_token)
    except NOT_YET as error:
        ensured = error
    installed = await install(runtime.db, runtime.mirror.tokens, domain, pair, source, choice=choice)
    shop, trouble = installed.shop, None
    if not isinstance(ensured, NOT_YET):
        async with runtime.db.unscoped() as conn:
            await registry.remember_definition(conn, shop.id, runtime.mirror.definition_fingerprint)
        trouble = await see_through(runtime, shop) if installed.is_reading else None
        await learn_scopes(runtime, shop)
    async with runtime.db.unscoped() as conn:
        shop = await registry.get_shop(conn, shop.id)
    installation = await look(runtime, shop) if installed.is_reading else None
    return _Added(shop, installed.is_new, ensured, installation, trouble)


async def _client_credentials(runtime: Runtime, domain: str) -> TokenPair:
    if runtime.app is None:
        raise AppNotConfigured("--client-credentials needs SHOPIFY_API_KEY and SHOPIFY_API_SECRET.")
    return await runtime.app.tokens.client_credentials(domain)


def _read_token(domain: str, given: str | None) -> str | None:
    token = sys.stdin.readline().strip() if given == "-" else given
    if token is None:
        return None
    try:
        return ShopAccess(domain, token).token
    except ValueError as error:
        raise UsageWrong(f"--access-token: {error}.") from None


def _tell_added(runtime: Runtime, added: _Added, *, json: bool) -> None:
    name = f"{runtime.settings.metafield_namespace}.{runtime.settings.metafield_key}"
    shop, ensured = added.shop, added.ensured
    known = None if isinstance(ensured, NOT_YET) else ensured
    if isinstance(ensured, NOT_YET):
        warn(
            f"{ensured.detail} The token is stored unchecked; the definition will be ensured with the first push. A "
            "worker reads the shop's customers before that, or this command, once more."
        )
    if json:
        document = _shop_document(shop) | {"isNew": added.is_new, "definition": None}
        document |= installation_document(shop, added.installation)
        if known is not None:
            document["definition"] = {"name": name, "outcome": known.outcome, "pinned": known.pinned}
        show_json(document)
        return
    say(f"{shop.domain}: {'added' if added.is_new else 'was there already; it is at work again'}.")
    if known is not None:
        say(f"Metafield definition {name}: {known.outcome}, {_pinned(known)}.")
    if not isinstance(ensured, NOT_YET):
        tell_installation(shop, added.installation, added.trouble)
    if shop.token_source is None:
        hint(f"Nothing is pushed without a token: metafield-sync shops add {shop.domain} --access-token -")
    elif shop.hold is None:
        hint(f"Next: metafield-sync keys create --shop {shop.domain} --name my-app")


def _pinned(ensured: EnsuredDefinition) -> str:
    if ensured.pinned:
        return "pinned: staff see it on the customer page"
    why = "the shop has pinned as many as Shopify allows" if ensured.pin_limit_reached else "as the merchant left it"
    return f"not pinned ({why}); pin it in the Shopify admin under Settings → Custom data → Customers"


@app.command(name="list")
async def list_(*, json: JsonOption = False) -> int:
    """List the shops, with how far their metafields are behind."""
    async with opened() as runtime:
        async with runtime.db.unscoped() as conn:
            shops = await registry.list_shops(conn)
        found: list[tuple[Shop, dict[str, Any]]] = []
        for shop in shops:
            async with runtime.db.shop(shop.id) as conn:
                found.append((shop, await shop_standing(conn, shop.id)))
    if json:
        show_json({"shops": [_shop_document(shop) | _figures(standing) for shop, standing in found]})
        return DONE
    if not found:
        say("No shop has been added yet.")
        hint("Add one with: metafield-sync shops add NAME.myshopify.com --access-token -")
        return DONE
    table = Table("Shop", "Status", "Token", box=None, pad_edge=False)
    for column in ("Customers", "Behind"):
        table.add_column(column, justify="right")
    table.add_column("Remarks")
    for shop, standing in found:
        figures = _figures(standing)
        table.add_row(
            shop.domain,
            shop.status,
            shop.token_source or "none",
            f"{figures['customers']:,}",
            f"{figures['behind']:,}",
            _remarks(shop),
        )
    stdout().print(table)
    return DONE


def _remarks(shop: Shop) -> str:
    lacking = ", ".join(scope.name for scope in missing_scopes(shop.granted_scopes))
    return "; ".join(filter(None, (shop.paused_detail, f"lacks {lacking}" if lacking else None)))


@app.command
async def show(domain: Domain, /, *, json: JsonOption = False) -> int:
    """Show one shop: its token and until when it is good, what the app may do there, how its installation went."""
    async with opened() as runtime:
        shop = await one_shop(runtime, domain)
        async with runtime.db.shop(shop.id) as conn:
            standing = await shop_standing(conn, shop.id)
            token = await find_token(conn, shop.id)
        installation = await look(runtime, shop)
    if json:
        show_json(
            _shop_document(shop)
            | _figures(standing)
            | {"tokenValidSeconds": None if token is None or token.valid_s is None else round(token.valid_s)}
            | installation_document(shop, installation)
        )
        return DONE
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in _facts(shop, token, standing):
        table.add_row(name, value)
    stdout().print(table)
    tell_installation(shop, installation, None)
    return DONE


def _facts(shop: Shop, token: StoredToken | None, standing: dict[str, Any]) -> list[tuple[str, str]]:
    figures = _figures(standing)
    granted = "not known yet" if shop.granted_scopes is None else ", ".join(shop.granted_scopes) or "none"
    facts = [
        ("Shop", shop.domain),
        ("Status", shop.status if shop.paused_detail is None else f"{shop.status}: {shop.paused_detail}"),
        ("Token", _token_told(token)),
        ("Scopes", granted),
        ("Currency", shop.currency or "not known yet"),
        ("Customers", f"{figures['customers']:,}, of whom {figures['behind']:,} behind"),
    ]
    if shop.installed_at is not None:
        facts.append(("Installed", f"{shop.installed_at:%Y-%m-%d %H:%M} UTC"))
    return facts


def _token_told(token: StoredToken | None) -> str:
    if token is None or token.source is None:
        return "none"
    how = {
        "given": "given by staff",
        "exchanged": "from the embedded app",
        "client_credentials": "by client credentials",
    }[token.source]
    if token.access_token is None:
        return f"{how}; none fetched yet"
    if token.valid_s is None:
        return f"{how}; it does not lapse"
    if token.valid_s <= 0:
        return f"{how}; lapsed"
    renewed = "renewed before that" if token.is_renewable else "nothing renews it"
    return f"{how}; good for {round(token.valid_s / 60):,} minutes more, {renewed}"


def _shop_document(shop: Shop) -> dict[str, Any]:
    return {
        "domain": shop.domain,
        "status": shop.status,
        "pausedCode": shop.paused_code,
        "pausedDetail": shop.paused_detail,
        "hasToken": shop.access_token is not None,
        "tokenSource": shop.token_source,
        "currency": shop.currency,
        "addedAt": shop.added_at.isoformat().replace("+00:00", "Z"),
    }


def _figures(standing: dict[str, Any]) -> dict[str, int]:
    behind = sum(standing[name] for name in ("waiting", "failing", "in_doubt"))
    return {"customers": standing["customers"], "behind": behind}


@app.command
async def pause(domain: Domain, /, *, json: JsonOption = False) -> int:
    """Stop pushing to a shop until it is resumed. Its ledger goes on taking postings."""
    async with opened() as runtime:
        shop = await one_shop(runtime, domain)
        async with runtime.db.unscoped() as conn:
            await registry.pause_shop(
                conn,
                shop.id,
                code=registry.PAUSED_BY_STAFF,
                detail="Paused by staff.",
                resumes_by_itself=False,
            )
            shop = await registry.get_shop(conn, shop.id)
    _tell(shop, f"{shop.domain}: paused. Postings go on; nothing is pushed.", json=json)
    if not json:
        hint(f"Resume it with: metafield-sync shops resume {shop.domain}")
    return DONE


@app.command
async def resume(domain: Domain, /, *, json: JsonOption = False) -> int:
    """Push to a shop again, whoever or whatever paused it. What has changed meanwhile is pushed first."""
    async with opened() as runtime:
        before = await one_shop(runtime, domain)
        async with runtime.db.unscoped() as conn:
            await registry.resume_shop(conn, before.id)
            shop = await registry.get_shop(conn, before.id)
    if shop.hold is not None:
        _tell(shop, f"{shop.domain}: nothing is pushed yet. {shop.hold_detail}", json=json)
        return DONE
    _tell(shop, f"{shop.domain}: {'resumed' if before.status == 'paused' else 'was not paused'}.", json=json)
    return DONE


@app.command
async def adopt(domain: Domain, /, *, json: JsonOption = False) -> int:
    """Take over the points that an earlier app left in a shop: an opening balance for each customer without entries."""
    return await _choose(domain, "adopt", json=json)


@app.command
async def overwrite(domain: Domain, /, *, json: JsonOption = False) -> int:
    """Have the points that an earlier app left in a shop replaced by the balances here."""
    return await _choose(domain, "overwrite", json=json)


async def _choose(domain: str, choice: Choice, *, json: bool) -> int:
    async with opened() as runtime:
        shop = await one_shop(runtime, domain)
        await choose(runtime.db, shop.id, choice)
        await carry_out(runtime, shop)
        async with runtime.db.unscoped() as conn:
            shop = await registry.get_shop(conn, shop.id)
        installation = await look(runtime, shop)
    if json:
        show_json(_shop_document(shop) | installation_document(shop, installation))
    elif shop.hold is not None:
        say(f"{shop.domain}: noted. It is done as soon as its customers have been read.")
    else:
        tell_installation(shop, installation, None)
    return DONE


@app.command
async def remove(domain: Domain, /, *, json: JsonOption = False) -> int:
    """Remove a shop: forget its token, revoke its API keys. Its ledger stays, and adding it again brings it back."""
    async with opened() as runtime:
        shop = await one_shop(runtime, domain)
        async with runtime.db.shop(shop.id) as conn:
            await registry.remove_shop(conn, shop.id)
            shop = await registry.get_shop(conn, shop.id)
    _tell(
        shop,
        f"{shop.domain}: removed. Its token is forgotten and its API keys are revoked; its ledger stays.",
        json=json,
    )
    return DONE


def _tell(shop: Shop, text: str, *, json: bool) -> None:
    if json:
        show_json(_shop_document(shop))
    else:
        say(text)
