"""Checks of one shop's access: its token and whether it is renewed in time, its scopes, how far its installation is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metafield_sync.cli.doctor.findings import Finding, lasting, without_name
from metafield_sync.sync.install.scopes import missing_scopes
from metafield_sync.sync.tokens import RENEW_BEFORE_S

if TYPE_CHECKING:
    from metafield_sync.cli.doctor.look import ShopFigures
    from metafield_sync.settings import Settings

OVERDUE_S = RENEW_BEFORE_S / 2
"""A token is renewed ten minutes before it lapses; with less than half of that left, nobody is at it."""
REFRESH_LEFT_MIN_S = 7 * 86_400
"""Renewing gives a new refresh token too, good for 90 days: one so near its end has not been used for long."""


def check_access(settings: Settings, figures: ShopFigures) -> list[Finding]:
    """Everything there is to say about what the app may do in a shop."""
    return [*_check_lapse(settings, figures), *_check_scopes(figures), *_check_installation(figures)]


def _check_lapse(settings: Settings, figures: ShopFigures) -> list[Finding]:
    token, domain = figures.token, figures.shop.domain
    if token is None or token.source is None or (token.valid_s is None and not token.is_renewable):
        return []
    if token.is_renewable and (settings.shopify_api_key is None or settings.shopify_api_secret is None):
        found = "Its access token lapses, and cannot be renewed: SHOPIFY_API_KEY or SHOPIFY_API_SECRET is not set."
        return [Finding("token lapse", "wrong", found, "Set both, for every worker.", domain)]
    left_s = token.valid_s or 0
    if not token.is_renewable:
        found = f"Its access token {_lapse(left_s)}, and nothing renews it."
        cure = "Open the app in the Shopify admin once."
        return [Finding("token lapse", "warn" if left_s > 0 else "wrong", found, cure, domain)]
    if token.refresh_valid_s is not None and token.refresh_valid_s < REFRESH_LEFT_MIN_S:
        found = f"Its refresh token {_lapse(token.refresh_valid_s)}; it has not been used for long."
        cure = "See that a worker runs; if the refresh token has lapsed, open the app in the Shopify admin once."
        return [Finding("token lapse", "warn", found, cure, domain)]
    found = f"Its access token {_lapse(left_s)}, and is renewed by itself."
    if left_s < OVERDUE_S and token.access_token is not None:
        return [Finding("token lapse", "warn", found, "See that a worker runs: metafield-sync worker", domain)]
    return [Finding("token lapse", "ok", found, shop=domain)]


def _lapse(left_s: float) -> str:
    return f"is good for {lasting(left_s)} more" if left_s > 0 else "has lapsed"


def _check_scopes(figures: ShopFigures) -> list[Finding]:
    shop = figures.shop
    if shop.granted_scopes is None:
        return []
    missing = missing_scopes(shop.granted_scopes)
    if not missing:
        return [Finding("scopes", "ok", "The app has every access scope it wants.", shop=shop.domain)]
    lost = "; ".join(f"{scope.name}: {scope.consequence}" for scope in missing)
    cure = "Grant them: open the app in the Shopify admin, or give the token of an app that has them."
    level = "wrong" if any(scope.is_required for scope in missing) else "warn"
    return [Finding("scopes", level, f"Access scopes are missing. Without {lost}.", cure, shop.domain)]


def _check_installation(figures: ShopFigures) -> list[Finding]:
    shop, installation = figures.shop, figures.installation
    if installation is None:
        return []
    if shop.hold == "values_found":
        found = without_name(shop.hold_detail or "", shop.domain)
        cure = f"metafield-sync shops adopt {shop.domain}, or metafield-sync shops overwrite {shop.domain}"
        return [Finding("installation", "warn", found, cure, shop.domain)]
    if shop.hold is not None:
        found = f"It is being installed; {max(installation.objects, installation.customers):,} customers are read."
        if installation.error is not None:
            found = f"{found} It is held up: {without_name(installation.error, shop.domain)}"
        return [Finding("installation", "warn", found, "See that a worker runs: metafield-sync worker", shop.domain)]
    if installation.warning is not None:
        found = without_name(installation.warning, shop.domain)
        return [Finding("installation", "warn", found, "Nothing, if that is meant.", shop.domain)]
    return []
