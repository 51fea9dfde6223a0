"""What Shopify Flow says of its workflows: whether one of the shop's listens to "Points balance changed"."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from metafield_sync.shopify.shapes import moment
from metafield_sync.sync.flow import FlowWord, hear_flow
from metafield_sync.web.edge import AppIs, Parts, installed_shop
from metafield_sync.web.routes.flow import FlowInputInvalid

router = APIRouter()


@router.post("/flow/lifecycle")
async def hear_lifecycle(request: Request, parts: Parts, app: AppIs) -> Response:
    """Note it. Shopify lets nobody turn a workflow on before this is answered with 200.

    The app has one trigger, so which one is meant is not looked at. Source:
    https://shopify.dev/docs/apps/build/flow/track-lifecycle-events
    """
    message = app.verifier.flow_message(request.headers, await request.body())
    listens, as_of = message.document.get("has_enabled_flow"), moment(message.document.get("timestamp"))
    if not isinstance(listens, bool) or as_of is None:
        raise FlowInputInvalid(
            "A lifecycle callback says has_enabled_flow, true or false, and timestamp, a date and time."
        )
    shop_id = await installed_shop(parts.db, message.shop_domain)
    async with parts.db.shop(shop_id) as conn:
        is_news = await hear_flow(conn, shop_id, FlowWord(listens, as_of))
    return JSONResponse({"message": "Noted" if is_news else "Something newer was heard before"})
