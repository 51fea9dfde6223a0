"""What Shopify sends to the app, signed as Shopify signs it, over HTTP."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from devstore.signing import body_signature, proxy_signature

if TYPE_CHECKING:
    import httpx

CLIENT_ID = "client-id-of-the-tests"
SECRET = "shpss_" + "0123456789abcdef" * 4
"""Made up, and as long as PyJWT wants them."""
OLD_SECRET = "shpss_" + "0fedcba987654321" * 4
FOREIGN_SECRET = "shpss_" + "another apps    " * 4
DOMAIN = "demo.myshopify.com"


async def send_webhook(
    http: httpx.AsyncClient,
    topic: str,
    payload: Any,
    *,
    delivery_id: str = "delivery-1",
    secret: str = SECRET,
    **changes: str,
) -> httpx.Response:
    """Deliver a webhook; `payload` bytes go as they are, anything else as JSON. `changes` are headers."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    headers = {
        "Content-Type": "application/json",
        "X-Shopify-Topic": topic,
        "X-Shopify-Hmac-Sha256": body_signature(secret, body),
        "X-Shopify-Shop-Domain": DOMAIN,
        "X-Shopify-API-Version": "2026-10",
        "X-Shopify-Webhook-Id": delivery_id,
        "X-Shopify-Event-Id": "event-1",
        "X-Shopify-Triggered-At": "2026-11-22T18:00:27.877041743Z",
        **changes,
    }
    return await http.post("/webhooks", content=body, headers=headers)


def proxied(
    customer: int | None, *, secret: str = SECRET, at: float | None = None, shop: str = DOMAIN, **more: str
) -> dict[str, str]:
    """The parameters with which Shopify asks for whoever is logged in to the storefront."""
    parameters = {
        "shop": shop,
        "logged_in_customer_id": "" if customer is None else str(customer),
        "path_prefix": "/apps/points",
        "timestamp": str(int(time.time() if at is None else at)),
        **more,
    }
    return {**parameters, "signature": proxy_signature(secret, parameters.items())}


async def run_flow(
    http: httpx.AsyncClient,
    properties: Any,
    *,
    run: str = "run-1",
    shop: str = DOMAIN,
    secret: str = SECRET,
    **headers: str,
) -> httpx.Response:
    """Run the action "Adjust points" in a workflow."""
    body = json.dumps(
        {
            "shop_id": "1",
            "shopify_domain": shop,
            "action_run_id": run,
            "action_definition_id": "Adjust points",
            "handle": "adjust-points",
            "properties": properties,
            "step_reference": "320d",
        }
    ).encode()
    signature = {"X-Shopify-Hmac-Sha256": body_signature(secret, body), "Content-Type": "application/json"}
    return await http.post("/flow/adjust-points", content=body, headers=signature | headers)
