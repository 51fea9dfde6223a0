"""Requests as Shopify makes and signs them, for an app of these tests; the devstore's own code signs."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from devstore.signing import body_signature, id_token_claims, proxy_signature, sign_id_token
from metafield_sync.shopify.app import AppCredentials, Verifier

CLIENT_ID = "client-id-of-the-tests"
SECRET = "shpss_" + "0123456789abcdef" * 4  # made up, and as long as PyJWT wants them
OLD_SECRET = "shpss_" + "0fedcba987654321" * 4
FOREIGN_SECRET = "shpss_" + "another apps    " * 4
SHOP = "demo.myshopify.com"
OTHER_SHOP = "other.myshopify.com"
CUSTOMER = 6_940_095_564
USER = 42

VERIFIER = Verifier(AppCredentials(CLIENT_ID, SECRET))
ROTATING = Verifier(AppCredentials(CLIENT_ID, SECRET, OLD_SECRET))

Pairs = list[tuple[str, str]]


def webhook_headers(body: bytes, secret: str = SECRET, **changes: str) -> dict[str, str]:
    """The headers of a webhook; `changes` by name with underscores, such as `topic="orders/paid"`."""
    headers = {
        "X-Shopify-Topic": "orders/paid",
        "X-Shopify-Hmac-Sha256": body_signature(secret, body),
        "X-Shopify-Shop-Domain": SHOP,
        "X-Shopify-API-Version": "2026-10",
        "X-Shopify-Webhook-Id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
        "X-Shopify-Event-Id": "98880550-7158-44d4-b7cd-2c97c8a091b5",
        "X-Shopify-Triggered-At": "2026-11-22T18:00:27.877041743Z",
    }
    return headers | changes


def proxy_query(
    secret: str = SECRET, *, at: float | None = None, customer: int | str | None = CUSTOMER, **more: str
) -> Pairs:
    """The parameters of a proxied request, signed; `at` in seconds since 1970, now by default."""
    pairs = [
        ("shop", SHOP),
        ("logged_in_customer_id", "" if customer is None else str(customer)),
        ("path_prefix", "/apps/points"),
        ("timestamp", str(int(time.time() if at is None else at))),
    ]
    return signed([*pairs, *more.items()], secret)


def signed(pairs: Pairs, secret: str = SECRET) -> Pairs:
    """The parameters, and the signature of them all."""
    return [*pairs, ("signature", proxy_signature(secret, pairs))]


def id_token(secret: str = SECRET, *, algorithm: str = "HS256", age_s: float = 0, **changes: object) -> str:
    """An ID token of a member of staff, made `age_s` ago; a claim given as None is left out."""
    claims = id_token_claims(SHOP, CLIENT_ID, USER, int(time.time() - age_s))
    return sign_id_token(claims.changed(changes), secret, algorithm)


def now() -> datetime:
    return datetime.now(UTC)


def flow_run(**changes: Any) -> dict[str, Any]:
    """The body of a Flow action's run."""
    return {
        "shop_id": "1",
        "shopify_domain": SHOP,
        "action_run_id": "5a0c2d1e-run",
        "action_definition_id": "Adjust points",
        "handle": "adjust-points",
        "properties": {"customer_id": str(CUSTOMER), "points": "10"},
        "step_reference": "320d",
        **changes,
    }
