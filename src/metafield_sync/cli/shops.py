"""`shops`: added, listed, paused, resumed, removed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table

from metafield_sync.cli.output import hint, say, show_json, stdout, warn
from metafield_sync.cli.parts import DONE, SHOPS_GROUP, JsonOption, UsageWrong, one_shop, opened
from metafield_sync.shopify import OutcomeUnknown, ShopAccess, Throttled, Unreachable
from metafield_sync.shops import registry
from metafield_sync.sync.standing import shop_standing

if TYPE_CHECKING:
    from metafield_sync.runtime import Runtime
    from metafield_sync.shopify import EnsuredDefinition
    from metafield_sync.shops.registry import Shop

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
    json: JsonOption = False,
) -> int:
    """Add a shop: check its token, make sure of the metafield definition, store both.

    Again with the same domain gives the shop a new token and sets it to work again. If Shopify refuses the token or
    the definition, nothing is stored; if it cannot be reached, the shop is added all the same.
    """
    wanted = registry.check_domain(domain)
    token = _read_token(wanted, access_token)
    async with opened() as runtime:
        sealed = None if token is None else runtime.vault.seal(token)
        ensured: EnsuredDefinition | NotYet | None = None
        if token is not None:
            try:
                ensured = await runtime.mirror.check_shop(wanted, token)
            except NOT_YET as error:
                ensured = error
        async with runtime.db.unscoped() as conn:
            shop, is_new = await registry.add_shop(conn, wanted, sealed)
            if ensured is not None and not isinstance(ensured, NOT_YET):
                await registry.remember_definition(conn, shop.id, runtime.mirror.definition_fingerprint)
    _tell_added(runtime, shop, ensured, is_new=is_new, json=json)
    return DONE


def _read_token(domain: str, given: str | None) -> str | None:
    token = sys.stdin.readline().strip() if given == "-" else given
    if token is None:
        return None
    try:
        return ShopAccess(domain, token).token
    except ValueError as error:
        raise UsageWrong(f"--access-token: {error}.") from None


def _tell_added(
    runtime: Runtime, shop: Shop, ensured: EnsuredDefinition | NotYet | None, *, is_new: bool, json: bool
) -> None:
    name = f"{runtime.settings.metafield_namespace}.{runtime.settings.metafield_key}"
    known = None if isinstance(ensured, NOT_YET) else ensured
    if isinstance(ensured, NOT_YET):
        warn(f"{ensured.detail} The token is stored unchecked; the definition will be ensured with the first push.")
    if json:
        document = _shop_document(shop) | {"isNew": is_new, "definition": None}
        if known is not None:
            document["definition"] = {"name": name, "outcome": known.outcome, "pinned": known.pinned}
        show_json(document)
        return
    say(f"{shop.domain}: {'added' if is_new else 'was there already; it is at work again'}.")
    if known is not None:
        say(f"Metafield definition {name}: {known.outcome}, {_pinned(known)}.")
    if shop.access_token is None:
        hint(f"Nothing is pushed without a token: metafield-sync shops add {shop.domain} --access-token -")
    else:
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
            "stored" if shop.access_token else "none",
            f"{figures['customers']:,}",
            f"{figures['behind']:,}",
            shop.paused_detail or "",
        )
    stdout().print(table)
    return DONE


def _shop_document(shop: Shop) -> dict[str, Any]:
    return {
        "domain": shop.domain,
        "status": shop.status,
        "pausedCode": shop.paused_code,
        "pausedDetail": shop.paused_detail,
        "hasToken": shop.access_token is not None,
        "addedAt": shop.added_at.isoformat().replace("+00:00", "Z"),
    }


def _figures(standing: dict[str, Any]) -> dict[str, int]:
    behind = sum(standing[name] for name in ("waiting", "failing", "in_doubt", "missing"))
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
    _tell(shop, f"{shop.domain}: {'resumed' if before.status == 'paused' else 'was not paused'}.", json=json)
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
