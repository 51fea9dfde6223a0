"""The app's own address, which is where Shopify opens it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from metafield_sync.shopify.app.home import HOME_PATH

router = APIRouter()

NO_TRACE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
"""The address may hold an ID token."""


@router.get("/")
async def front_door(request: Request) -> Response:
    """On to the embedded page, with everything that Shopify put behind the address.

    The page cannot be the address itself: Shopify's command line puts the paths of webhooks, proxy and Flow behind the
    app's address (`shopify.app.toml`), so that has to be without one.
    """
    query = request.url.query
    return RedirectResponse(f"{HOME_PATH}?{query}" if query else HOME_PATH, 307, NO_TRACE)
