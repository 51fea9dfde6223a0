"""One question to each shop's Shopify, all at once: the token, the definition, the API version, in one call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx

from metafield_sync.cli.doctor.findings import Finding, without_name
from metafield_sync.cli.doctor.meanings import IN_ADMIN
from metafield_sync.runtime import wanted_definition
from metafield_sync.shopify import (
    AdminClient,
    DefinitionState,
    OutcomeUnknown,
    ShopAccess,
    ShopifyError,
    Throttled,
    Unreachable,
    read_definition,
)
from metafield_sync.shops.vault import NEW_KEY, TokenUnreadable, Vault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metafield_sync.settings import Settings
    from metafield_sync.shops.registry import Shop

ASKED_AT_ONCE_MAX = 16
VERSION_CHARS_MAX = 20
NOT_YET = (Unreachable, OutcomeUnknown, Throttled)
"""Failures that say nothing against the token, and may be over in a moment."""


async def ask_all(settings: Settings, shops: Sequence[Shop]) -> list[list[Finding]]:
    """Ask Shopify about each shop; what one does not answer hides nothing of the others.

    Not through the mirror: that takes the shop's lease and pauses a shop that is refused, and this only looks. It costs
    each shop three points of its budget.
    """
    room = asyncio.Semaphore(ASKED_AT_ONCE_MAX)
    served: dict[str, str] = {}

    async def note_version(response: httpx.Response) -> None:
        served[str(response.request.url)] = response.headers.get("X-Shopify-Api-Version", "")

    async with httpx.AsyncClient(event_hooks={"response": [note_version]}) as http:
        client = AdminClient(http, origin=settings.shopify_admin_origin, api_version=settings.shopify_api_version)

        async def ask(shop: Shop) -> list[Finding]:
            async with room:
                findings = await _ask(settings, client, shop)
            version = served.get(client.url(shop.domain))
            return [*findings, _check_version(settings, shop, version)] if version else findings

        return await asyncio.gather(*(ask(shop) for shop in shops))


def check_keys(settings: Settings, shops: Sequence[Shop]) -> Finding:
    """Whether ENCRYPTION_KEYS opens every stored token."""
    vault = Vault(settings.encryption_keys)
    closed: list[str] = []
    for shop in shops:
        try:
            _token(vault, shop)
        except TokenUnreadable:
            closed.append(shop.domain)
    stored = sum(shop.access_token is not None for shop in shops)
    if settings.shopify_api_key is not None and not settings.encryption_keys and not closed:
        return Finding("keys", "wrong", "ENCRYPTION_KEYS is not set, so nobody can install the app.", NEW_KEY)
    if not closed:
        what = f"ENCRYPTION_KEYS opens every stored access token ({stored:,})." if stored else "No token is stored."
        return Finding("keys", "ok", what)
    what = "does not open the token of" if settings.encryption_keys else "is not set, and there is a token of"
    return Finding(
        "keys",
        "wrong",
        f"ENCRYPTION_KEYS {what} {', '.join(closed)}.",
        "Add the key that sealed it to ENCRYPTION_KEYS, or give the token again: metafield-sync shops add DOMAIN "
        "--access-token -",
        by_setting=True,
    )


async def _ask(settings: Settings, client: AdminClient, shop: Shop) -> list[Finding]:
    if shop.paused_by_staff:
        return [Finding("token", "ok", "Not asked: staff paused the shop.", shop=shop.domain)]
    try:
        token = _token(Vault(settings.encryption_keys), shop)
    except TokenUnreadable:
        return [Finding("token", "warn", "Not asked: ENCRYPTION_KEYS does not open its token.", shop=shop.domain)]
    if token is None:
        return [
            Finding(
                "token",
                "wrong",
                "No access token is stored, so nothing is pushed.",
                f"Give one: metafield-sync shops add {shop.domain} --access-token -",
                shop=shop.domain,
            )
        ]
    try:
        state, _ = await read_definition(client, ShopAccess(shop.domain, token), wanted_definition(settings))
    except NOT_YET as error:
        # Nothing was to be written, so nothing may have been.
        what = error.what if isinstance(error, OutcomeUnknown) else error.detail
        cure = "If it lasts, check network, DNS and SHOPIFY_ADMIN_ORIGIN, and https://www.shopifystatus.com."
        return [Finding("token", "warn", without_name(what, shop.domain), cure, shop.domain)]
    except ShopifyError as error:
        cure = f"Then: metafield-sync shops resume {shop.domain}, or shops remove if the app was uninstalled."
        return [Finding("token", "wrong", without_name(error.detail, shop.domain), cure, shop.domain)]
    return [
        Finding("token", "ok", "Shopify takes the access token.", shop=shop.domain),
        _check_definition(settings, shop, state),
    ]


def _token(vault: Vault, shop: Shop) -> str | None:
    return None if shop.access_token is None else vault.open(shop.access_token)


def _check_definition(settings: Settings, shop: Shop, state: DefinitionState) -> Finding:
    name = f"{settings.metafield_namespace}.{settings.metafield_key}"
    if state.matches:
        return Finding("definition", "ok", f"The metafield definition {name} is as it should be.", shop=shop.domain)
    cure = f"Run: metafield-sync reconcile --shop {shop.domain} --repair"
    if not state.present:
        found = f"There is no metafield definition {name}: staff do not see the balance on the customer page."
        return Finding("definition", "warn", found, cure, shop.domain)
    found = f"The metafield definition {name} differs: {'; '.join(state.differences)}."
    if any(difference.startswith("type ") for difference in state.differences):
        cure = f"Delete it {IN_ADMIN} (its values may go with it), or set METAFIELD_KEY to another name."
        return Finding("definition", "wrong", found, cure, shop.domain)
    return Finding("definition", "warn", found, cure, shop.domain)


def _check_version(settings: Settings, shop: Shop, served: str) -> Finding:
    asked = settings.shopify_api_version
    if served == asked:
        return Finding("api version", "ok", f"Shopify serves API version {asked}, as asked.", shop=shop.domain)
    return Finding(
        "api version",
        "warn",
        f"Shopify serves API version {served[:VERSION_CHARS_MAX]} instead of {asked}, which it no longer supports.",
        "Upgrade metafield-sync, or set SHOPIFY_API_VERSION to a supported version.",
        shop.domain,
    )
