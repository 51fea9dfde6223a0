"""Who this app is to Shopify."""

from __future__ import annotations

from dataclasses import dataclass, field

from metafield_sync.errors import AppError


class AppNotConfigured(AppError):
    """A credential of the app that this needs is not set. The detail names the setting."""

    code = "app_not_configured"
    status = 503
    exit_status = 2


@dataclass(frozen=True, slots=True)
class AppCredentials:
    """The app's client id and secret, and the secret before the last rotation.

    Shopify may go on signing with the old one for an hour. Without a client id webhooks, proxied requests and Flow
    actions can be verified, ID tokens not.
    """

    client_id: str | None
    client_secret: str = field(repr=False)
    old_client_secret: str | None = field(default=None, repr=False)
