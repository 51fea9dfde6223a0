"""The app as Shopify knows it: its credentials, its access tokens, and what proves that a request is Shopify's.

The one place around `shopify_app`, Shopify's own package.
"""

from metafield_sync.shopify.app.credentials import AppCredentials, AppNotConfigured
from metafield_sync.shopify.app.verification import (
    FlowMessage,
    FlowRequest,
    IdToken,
    NotAuthentic,
    ProxyRequest,
    Verifier,
    WebhookHeaders,
)

__all__ = [
    "AppCredentials",
    "AppNotConfigured",
    "FlowMessage",
    "FlowRequest",
    "IdToken",
    "NotAuthentic",
    "ProxyRequest",
    "Verifier",
    "WebhookHeaders",
]
