"""What each class of failure means, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping

from metafield_sync.sync.outcomes import GONE_CODE

IN_ADMIN = "in the Shopify admin under Settings → Custom data → Customers"
SEE_FAILURES = "GET /api/sync-failures names them, with Shopify's words."

MEANINGS: Mapping[str, tuple[str, str]] = {
    GONE_CODE: (
        "gone from Shopify: deleted, or never there",
        "Nothing is pushed to them. Dismiss who is meant to be gone: POST /api/sync-failures/{customerId}/dismiss.",
    ),
    "INVALID_TYPE": (
        "their metafield, or its definition, is of another type than number_integer",
        f"Put the definition right {IN_ADMIN}, or set METAFIELD_KEY to another name.",
    ),
    "STALE_OBJECT": (
        "somebody else writes the same metafield again and again",
        "Find the app or the Flow that does, and stop it: this metafield has one writer.",
    ),
    "INVALID_COMPARE_DIGEST": (
        "somebody else removes the metafield again and again",
        "Find the app or the Flow that does, and stop it: this metafield has one writer.",
    ),
    "APP_NOT_AUTHORIZED": (
        "the app may not write this metafield",
        "Give the shop a token of an app with write_customers, or set METAFIELD_NAMESPACE to one that it may write.",
    ),
    "CAPABILITY_VIOLATION": (
        "the definition has a rule that the balance breaks, such as unique values",
        f"Take the rule off the definition {IN_ADMIN}.",
    ),
    "LESS_THAN_OR_EQUAL_TO": (
        "the definition's validation does not allow the balance",
        f"Take the validation off the definition {IN_ADMIN}.",
    ),
    "INVALID_VALUE": (
        "Shopify does not take the balance as the metafield's value",
        f"A validation of the definition may forbid it. {SEE_FAILURES}",
    ),
    "shopify_unreachable": (
        "no connection to Shopify came about",
        "They are tried again within 30 seconds. If it lasts, check network, DNS and SHOPIFY_ADMIN_ORIGIN.",
    ),
    "shopify_outcome_unknown": (
        "Shopify did not answer properly",
        "They are read back and pushed again within 30 seconds. If it lasts, see https://www.shopifystatus.com.",
    ),
    "shopify_throttled": ("Shopify throttled their calls", "They are tried again within 30 seconds."),
}


def meaning(code: str) -> tuple[str, str]:
    """What a failure's code means, and what to do."""
    return MEANINGS.get(code, ("Shopify refuses them with this code", SEE_FAILURES))
